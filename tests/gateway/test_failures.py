"""What a client sees when an instance fails, and that a failure leaves nothing behind."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from time import monotonic

import pytest
import trustme

from tests.gateway.rig import (
    Closed,
    Instance,
    document,
    get,
    request,
    response,
    wait_until,
)

pytestmark = pytest.mark.integration


@pytest.fixture
def refusing():
    """The URL of a port that refuses connections for as long as the test runs."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"


def problem_of(answer, status, source):
    head, body = answer
    said = json.loads(body)
    assert head.status == status
    assert head.get("content-type") == "application/problem+json"
    assert said["status"] == status
    assert said["source"] == source
    assert said["request_id"] == head.get("x-request-id")
    return head


# -- connecting


def test_a_refused_connection_is_502(start, refusing):
    gateway = start(document(refusing))
    with gateway.client() as client:
        for method in ("GET", "POST"):
            client.send(request(method, "/", body=b"x" if method == "POST" else b""))
            problem_of(client.answer(), 502, "upstream")
    gateway.assert_settles()
    assert gateway.count("headgate_upstream_failures_total", kind="connect") == 2
    assert "refused" in gateway.pool.last_failure


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_another_instance_is_asked_when_one_refuses(start, instance, refusing, method):
    gateway = start(document(refusing, instance))
    body = b"payload" if method == "POST" else b""
    with gateway.client() as client:
        for at in range(4):
            client.send(request(method, f"/{at}", body=body))
            upstream = instance.accepted[0] if instance.accepted else instance.accept()
            assert upstream.head().line == f"{method} /{at} HTTP/1.1"
            assert upstream.exactly(len(body)) == body
            upstream.send(response())
            assert client.answer()[0].status == 200
    gateway.assert_settles()
    tried = gateway.count("headgate_upstream_retries_total")
    assert tried == gateway.count("headgate_upstream_failures_total", kind="connect") >= 3


def test_a_body_still_coming_follows_to_the_other_instance(start, instance, refusing):
    gateway = start(document(refusing, instance))
    with gateway.client() as client:
        client.send(request("POST", "/", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n")
        upstream = instance.accept()
        upstream.head()
        assert upstream.until(b"abc\r\n") == b"3\r\nabc\r\n"
        client.send(b"3\r\ndef\r\n0\r\nX-T: 1\r\n\r\n")
        assert upstream.chunked() == b"def"
        assert upstream.trailer == b"x-t: 1\r\n\r\n"
        upstream.send(response())
        assert client.answer()[1] == b"ok"


def test_all_instances_refusing_is_one_502(start, refusing):
    gateway = start(document(refusing, refusing.replace("127.0.0.1", "127.0.0.2")))
    problem_of(gateway.ask(get()), 502, "upstream")
    gateway.assert_settles()


def test_a_connection_that_is_never_answered_times_out(start):
    """A full backlog: the kernel drops the handshake and nobody says no."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        held = []
        for _ in range(4):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
            held.append(sock)
        gateway = start(document(f"http://127.0.0.1:{port}", service={"timeout": {"connect": 0.3}}))
        began = monotonic()
        head, _ = gateway.ask(get())
        assert head.status in (502, 504)
        assert monotonic() - began < 4
        gateway.assert_settles()
        for sock in held:
            sock.close()


@pytest.mark.parametrize("has_other", [False, True])
def test_an_instance_that_closes_whatever_it_accepts(start, instance, other, has_other):
    """The answer comes at once, not when the place in line has timed out."""
    stop = threading.Event()

    def slam():
        while not stop.is_set():
            try:
                instance.accept(wait_s=0.05).reset()
            except (AssertionError, OSError):
                continue

    thread = threading.Thread(target=slam, daemon=True)
    thread.start()
    gateway = start(document(instance, other) if has_other else document(instance))
    began = monotonic()
    for _ in range(5):
        with gateway.client() as client:
            client.send(get())
            if has_other and not other.is_left_alone(0.3):
                upstream = other.accept()
                upstream.head()
                upstream.send(response(b"ok", "Connection: close"))
            assert client.answer()[0].status in ((200, 502) if has_other else (502,))
    assert monotonic() - began < 4
    stop.set()
    thread.join(5)
    gateway.assert_settles()


def test_an_instance_may_be_named(start, instance):
    gateway = start(document(f"http://localhost:{instance.port}"))
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        upstream.send(response())
        assert client.answer()[1] == b"ok"


def test_a_name_that_does_not_resolve_is_502(start):
    gateway = start(document("http://nowhere.invalid:80", dns={"timeout": "500ms"}))
    problem_of(gateway.ask(get()), 502, "upstream")
    gateway.assert_settles()


def test_an_instance_may_be_a_unix_socket(start, tmp_path):
    instance = Instance(unix=tmp_path / "app.sock")
    gateway = start(document(instance))
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        assert upstream.head().get("host") == "h.example"
        upstream.send(response())
        assert client.answer()[1] == b"ok"
    gateway.assert_settles()
    instance.close()


def test_a_unix_socket_that_is_not_there_is_502(start, tmp_path):
    gateway = start(document(f"unix:{tmp_path}/gone.sock"))
    problem_of(gateway.ask(get()), 502, "upstream")


# -- TLS to an instance


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def served(authority):
    """A TLS context for `app.internal`, and the server names that clients asked it for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("app.internal").configure_cert(context)
    context.asked = []  # type: ignore[attr-defined]
    context.sni_callback = lambda sock, name, ctx: context.asked.append(name)  # type: ignore[attr-defined]
    return context


@pytest.fixture
def ca_file(authority, tmp_path):
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


def secured(instance, **tls):
    return document(f"https://127.0.0.1:{instance.port}", service={"tls": tls})


def test_a_trusted_instance_is_asked_by_its_server_name(start, instance, served, ca_file):
    gateway = start(secured(instance, ca_file=ca_file, server_name="app.internal"))
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept(served)
        assert served.asked == ["app.internal"]
        upstream.head()
        upstream.send(response())
        assert client.answer()[1] == b"ok"
        client.send(get())
        upstream.head()
        upstream.send(response())
        assert client.answer()[1] == b"ok"


@pytest.mark.parametrize("why", ["unknown authority", "another name"])
def test_an_untrusted_instance_gets_no_request(start, instance, served, ca_file, why):
    tls = {"server_name": "app.internal"} if why == "unknown authority" else {"ca_file": ca_file}
    gateway = start(secured(instance, **tls))
    with gateway.client() as client:
        client.send(get())
        with pytest.raises((ssl.SSLError, ConnectionError, Closed)):
            instance.accept(served).head()
        problem_of(client.answer(), 502, "upstream")
    gateway.assert_settles()
    assert gateway.count("headgate_upstream_failures_total", kind="tls") == 1


@pytest.mark.parametrize("answers", [True, False], ids=["answered", "ignored"])
def test_the_last_words_in_a_tunnel_reach_an_instance_behind_tls(start, instance, served, answers):
    gateway = start(secured(instance, verify=False))
    with gateway.client() as client:
        client.send(get("/", "Connection: Upgrade", "Upgrade: websocket"))
        upstream = instance.accept(served)
        upstream.head()
        upstream.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        client.head()
        client.send(b"last words")
        client.end()
        assert upstream.exactly(10) == b"last words"
        if answers:
            upstream.send(b"a late answer")
            assert client.until(b"a late answer")
        # It cannot be told that the client has said all, so it is given a moment and no more.
        assert upstream.is_closed()
        assert client.is_closed()
    gateway.assert_settles()


@pytest.mark.parametrize("ends", [True, False], ids=["ended", "cut"])
def test_over_tls_a_body_until_close_is_whole_only_if_the_instance_says_so(
    start, instance, served, ends
):
    gateway = start(secured(instance, verify=False))
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept(served)
        upstream.head()
        upstream.send(b"HTTP/1.1 200 OK\r\n\r\npart")
        client.until(b"part\r\n")
        if ends:
            upstream.sock.unwrap()
            assert client.until(b"0\r\n\r\n") == b"0\r\n\r\n"
        else:
            upstream.close()  # as somebody between the two could
            assert client.to_end() == b""
    gateway.assert_settles()


def test_verification_can_be_switched_off(start, instance, served):
    gateway = start(secured(instance, verify=False))
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept(served)
        upstream.head()
        upstream.send(response())
        assert client.answer()[1] == b"ok"


# -- kept connections that are not there any more


def kept(gateway, client, instance):
    """One request served; its upstream connection lies idle."""
    client.send(get("/first"))
    upstream = instance.accept()
    upstream.head()
    upstream.send(response())
    client.answer()
    return upstream


def test_a_connection_closed_while_idle_is_taken_out(start, instance):
    gateway = start(document(instance))
    with gateway.client() as client:
        kept(gateway, client, instance).close()
        wait_until(lambda: gateway.pool.open == 0)
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        upstream.send(response())
        assert client.answer()[1] == b"ok"
    assert gateway.count("headgate_upstream_retries_total") == 0


def test_a_stale_connection_is_retried_once_for_get(start, instance):
    gateway = start(document(instance))
    with gateway.client() as client:
        upstream = kept(gateway, client, instance)
        client.send(get("/again"))
        upstream.head()
        upstream.reset()
        fresh = instance.accept()
        assert fresh.head().line == "GET /again HTTP/1.1"
        fresh.send(response(b"second"))
        assert client.answer()[1] == b"second"
    gateway.assert_settles()
    assert gateway.count("headgate_upstream_retries_total") == 1


def test_a_fresh_connection_that_is_reset_is_not_retried(start, instance):
    gateway = start(document(instance))
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        upstream.reset()
        problem_of(client.answer(), 502, "upstream")
    assert instance.is_left_alone()
    gateway.assert_settles()


def test_a_stale_connection_twice_is_502(start, instance):
    gateway = start(document(instance))
    with gateway.client() as client:
        one = kept(gateway, client, instance)
        client.send(get())
        one.head()
        one.reset()
        two = instance.accept()
        two.head()
        two.reset()
        problem_of(client.answer(), 502, "upstream")


@pytest.mark.parametrize("body", [b"", b"12345"])
def test_a_post_is_never_sent_twice(start, instance, body):
    gateway = start(document(instance))
    with gateway.client() as client:
        upstream = kept(gateway, client, instance)
        client.send(request("POST", "/pay", body=body))
        upstream.head()
        upstream.exactly(len(body))
        upstream.reset()
        problem_of(client.answer(), 502, "upstream")
    assert instance.is_left_alone()
    gateway.assert_settles()


def test_part_of_a_response_head_is_not_stale(start, instance):
    gateway = start(document(instance))
    with gateway.client() as client:
        upstream = kept(gateway, client, instance)
        client.send(get())
        upstream.head()
        upstream.send(b"HTTP/1.1 200 OK\r\nConte")
        upstream.close()
        problem_of(client.answer(), 502, "upstream")
    assert instance.is_left_alone()


def test_bytes_after_a_response_close_the_connection(start, instance):
    gateway = start(document(instance))
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        upstream.send(response() + response(b"somebody else's"))
        assert client.answer()[1] == b"ok"
        assert upstream.is_closed()
        client.send(get())
        fresh = instance.accept()
        fresh.head()
        fresh.send(response(b"mine"))
        assert client.answer()[1] == b"mine"


def test_bytes_on_an_idle_connection_close_it(start, instance):
    gateway = start(document(instance))
    with gateway.client() as client:
        upstream = kept(gateway, client, instance)
        upstream.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        assert upstream.is_closed()
        wait_until(lambda: gateway.pool.open == 0)


# -- in the middle of a response


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
def test_a_response_cut_short_is_never_completed(start, instance, framing, how):
    gateway = start(document(instance))
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        upstream.send(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n3\r\nabc\r\n".encode())
        client.until(b"abc")
        upstream.leave(how)
        rest = client.to_end()
        assert b"0\r\n\r\n" not in rest
        assert client.is_closed()
    gateway.assert_settles()
    assert gateway.count("headgate_upstream_failures_total", kind="reset") == 1


def test_a_broken_chunk_breaks_the_response(start, instance):
    gateway = start(document(instance))
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        client.until(b"abc")
        upstream.send(b"zz\r\n")
        assert b"0\r\n\r\n" not in client.to_end()
        assert upstream.is_closed()
    gateway.assert_settles()


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 80_000,
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: tea\r\n\r\n",
    ],
    ids=["ssh", "http2", "lengths", "huge", "unasked 101"],
)
def test_what_is_no_response_is_502(start, instance, raw):
    gateway = start(document(instance))
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        upstream.try_send(raw)
        problem_of(client.answer(), 502, "upstream")
        assert upstream.is_closed()
    gateway.assert_settles()


# -- time


def test_no_first_byte_is_504(start, instance):
    gateway = start(document(instance, route={"timeout": "300ms"}))
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        problem_of(client.answer(), 504, "upstream")
        assert upstream.is_closed()
        client.send(get())
        again = instance.accept()
        again.head()
        again.send(response())
        assert client.answer()[1] == b"ok"
    gateway.assert_settles()
    assert gateway.count("headgate_timeouts_total", kind="upstream") == 1


def test_the_wait_for_the_first_byte_begins_with_the_end_of_the_request(start, instance):
    gateway = start(document(instance, route={"timeout": "500ms"}))
    with gateway.client() as client:
        client.send(request("POST", "/", "Content-Length: 6"))
        upstream = instance.accept()
        upstream.head()
        for _ in range(3):
            assert client.is_quiet(0.4)
            client.send(b"ab")
        upstream.exactly(6)
        upstream.send(response())
        assert client.answer()[0].status == 200


def test_silence_in_the_middle_of_a_response_breaks_it(start, instance):
    gateway = start(document(instance, route={"timeout": {"idle": "300ms"}}))
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        client.until(b"abc")
        assert client.is_closed()
        assert upstream.is_closed()
    gateway.assert_settles()


def test_a_response_that_keeps_coming_is_not_idle(start, instance):
    gateway = start(document(instance, route={"timeout": {"idle": "500ms"}}))
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
        for _ in range(8):
            assert upstream.is_quiet(0.15)
            upstream.send(b"x")
        assert client.answer()[1] == b"xxxxxxxx"


@pytest.mark.parametrize("stage", ["before the head", "in the body"])
def test_the_total_time_is_the_most(start, instance, stage):
    gateway = start(document(instance, route={"timeout": {"total": "600ms"}}))
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        began = monotonic()
        if stage == "in the body":
            upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while monotonic() - began < 5 and upstream.try_send(b"1\r\nx\r\n"):
                upstream.is_quiet(0.1)
            assert b"0\r\n\r\n" not in client.to_end()
        else:
            problem_of(client.answer(), 504, "upstream")
        assert monotonic() - began < 4
    gateway.assert_settles()


def test_an_idle_connection_is_closed_in_time(start, instance):
    gateway = start(document(instance, service={"pool": {"idle_timeout": "300ms"}}))
    with gateway.client() as client:
        upstream = kept(gateway, client, instance)
        assert upstream.is_closed()
        wait_until(lambda: gateway.pool.open == 0)


# -- the line for a connection


def test_a_full_line_is_503(start, instance):
    gateway = start(document(instance, service={"pool": {"connections": 1, "queue": 1}}))
    busy, waiting = gateway.client(), gateway.client()
    busy.send(get("/busy"))
    upstream = instance.accept()
    upstream.head()
    waiting.send(get("/waiting"))
    wait_until(lambda: gateway.pool.waiting == 1)
    head = problem_of(gateway.ask(get("/refused")), 503, "gateway")
    assert head.get("retry-after") == "1"
    upstream.send(response(b"busy"))
    assert busy.answer()[1] == b"busy"
    assert upstream.head().line == "GET /waiting HTTP/1.1"
    upstream.send(response(b"waited"))
    assert waiting.answer()[1] == b"waited"
    gateway.assert_settles()
    assert gateway.pool.created == 1


def test_the_line_is_served_in_order(start, instance):
    gateway = start(document(instance, service={"pool": {"connections": 1}}))
    clients = []
    for at in range(5):
        client = gateway.client()
        client.send(get(f"/{at}"))
        clients.append(client)
        wait_until(lambda: gateway.in_flight == len(clients))
    upstream = instance.accept()
    for at in range(5):
        assert upstream.head().line == f"GET /{at} HTTP/1.1"
        upstream.send(response(b"%d" % at))
        assert clients[at].answer()[1] == b"%d" % at
    gateway.assert_settles()


def test_too_long_in_the_line_is_503(start, instance):
    gateway = start(
        document(instance, service={"pool": {"connections": 1, "queue_timeout": "300ms"}})
    )
    busy = gateway.client()
    busy.send(get("/busy"))
    upstream = instance.accept()
    upstream.head()
    head = problem_of(gateway.ask(get("/waiting")), 503, "gateway")
    assert head.get("retry-after") == "1"
    upstream.send(response())
    assert busy.answer()[1] == b"ok"
    gateway.assert_settles()


def test_a_lost_connection_makes_room_for_the_next_in_line(start, instance):
    gateway = start(document(instance, service={"pool": {"connections": 1}}))
    busy, waiting = gateway.client(), gateway.client()
    busy.send(get("/busy"))
    upstream = instance.accept()
    upstream.head()
    waiting.send(get("/waiting"))
    wait_until(lambda: gateway.pool.waiting == 1)
    upstream.reset()
    problem_of(busy.answer(), 502, "upstream")
    fresh = instance.accept()
    assert fresh.head().line == "GET /waiting HTTP/1.1"
    fresh.send(response())
    assert waiting.answer()[1] == b"ok"


def test_not_more_idle_connections_than_allowed(start, instance):
    gateway = start(document(instance, service={"pool": {"idle": 2}}))
    clients = [gateway.client() for _ in range(5)]
    for client in clients:
        client.send(get())
    upstreams = [instance.accept() for _ in clients]
    for upstream in upstreams:
        upstream.head()
    for upstream in upstreams:
        upstream.send(response())
    for client in clients:
        assert client.answer()[1] == b"ok"
    wait_until(lambda: gateway.pool.open == 2)
    assert gateway.pool.idle == 2


# -- reload


def test_a_reload_keeps_connections_to_an_instance_that_stays(start, instance):
    gateway = start(document(instance))
    with gateway.client() as client:
        upstream = kept(gateway, client, instance)
        gateway.apply(document(instance, response_time=False))
        client.send(get())
        upstream.head()
        upstream.send(response())
        head, _ = client.answer()
        assert "x-response-time" not in head


def test_a_request_in_flight_survives_that_its_instance_is_taken_out(start, instance, other):
    gateway = start(document(instance))
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        gateway.apply(document(other))
        upstream.send(response(b"from the old one"))
        assert client.answer()[1] == b"from the old one"
        assert upstream.is_closed()
        client.send(get())
        fresh = other.accept()
        fresh.head()
        fresh.send(response(b"from the new one"))
        assert client.answer()[1] == b"from the new one"
    gateway.assert_settles()


def test_a_reload_reaches_the_pools_that_stay(start, instance):
    gateway = start(document(instance, service={"timeout": {"connect": "5s"}}))
    (line,) = gateway.worker._lines.values()
    resolver = gateway.worker._lines._resolver
    assert line.sizes.connect_timeout_s == 5
    changed = document(instance, service={"timeout": {"connect": "2s"}}, dns={"timeout": "1s"})
    gateway.apply(changed)
    assert list(gateway.worker._lines.values()) == [line]
    assert line.sizes.connect_timeout_s == 2
    assert gateway.worker._lines._resolver is not resolver

"""What one client may ask of a worker, and that the others do not notice."""

from __future__ import annotations

import socket
from time import monotonic

import pytest

from tests.gateway.rig import document, get, request, response, wait_until

pytestmark = pytest.mark.integration

QUICK = {"header_timeout": "400ms", "body_timeout": "400ms", "idle_timeout": "400ms"}


def limited(instance, **limits):
    return document(instance, limits=limits)


def serve_one(client, instance, asked=get()):
    client.send(asked)
    upstream = instance.accepted[-1] if instance.accepted else instance.accept()
    upstream.head()
    upstream.send(response())
    assert client.answer()[1] == b"ok"


# -- sizes


def test_a_target_that_is_too_long_is_414(start, instance):
    gateway = start(limited(instance, url="1KB"))
    head, _ = gateway.ask(get("/" + "x" * 1100))
    assert head.status == 414
    assert head.get("connection") == "close"
    with gateway.client() as client:
        serve_one(client, instance, get("/" + "x" * 900))


def test_a_target_without_end_is_refused_before_it_ends(start, instance):
    gateway = start(limited(instance, url="1KB"))
    with gateway.client() as client:
        client.send(b"GET /" + b"x" * 5000)
        assert client.answer()[0].status == 414
        assert client.is_closed()


def test_too_many_headers_are_431(start, instance):
    gateway = start(limited(instance, header_count=20))
    assert gateway.ask(get("/", *(f"X-{at}: 1" for at in range(20))))[0].status == 431
    with gateway.client() as client:
        serve_one(client, instance, get("/", *(f"X-{at}: 1" for at in range(19))))


def test_headers_too_large_are_431(start, instance):
    gateway = start(limited(instance, header_bytes="2KB"))
    assert gateway.ask(get("/", f"X-Large: {'x' * 2100}"))[0].status == 431
    with gateway.client() as client:
        serve_one(client, instance, get("/", f"X-Large: {'x' * 1900}"))


def test_headers_without_end_are_refused_before_they_end(start, instance):
    gateway = start(limited(instance, header_bytes="2KB", url="1KB"))
    with gateway.client() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * 2000)
        assert client.answer()[0].status == 431
        assert client.is_closed()


def test_an_announced_body_that_is_too_large_is_413(start, instance):
    gateway = start(document(instance, route={"body_limit": "1KB"}))
    head, _ = gateway.ask(request("POST", "/", "Content-Length: 1025"))
    assert head.status == 413
    assert head.get("connection") == "close"
    assert instance.is_left_alone()
    with gateway.client() as client:
        client.send(request("POST", "/", body=bytes(1024)))
        upstream = instance.accept()
        upstream.head()
        upstream.exactly(1024)
        upstream.send(response())
        assert client.answer()[0].status == 200


@pytest.mark.parametrize("at_once", [True, False])
def test_a_chunked_body_that_grows_too_large_is_413(start, instance, at_once):
    gateway = start(document(instance, route={"body_limit": "1KB"}))
    with gateway.client() as client:
        head = request("POST", "/", "Transfer-Encoding: chunked")
        piece = b"200\r\n" + bytes(512) + b"\r\n"
        if at_once:
            client.send(head + piece * 3)
        else:
            client.send(head)
            upstream = instance.accept()
            upstream.head()
            client.send(piece * 2)
            wait_until(lambda: upstream.more() and upstream.data.count(0) == 1024)
            client.send(piece)
            assert upstream.is_closed()
        assert client.answer()[0].status == 413
        assert client.is_closed()
    gateway.assert_settles()


def test_after_a_refused_body_nothing_of_it_is_read_as_a_request(start, instance):
    gateway = start(document(instance, route={"body_limit": "10"}))
    with gateway.client() as client:
        smuggled = get("/smuggled")
        client.send(request("POST", "/", f"Content-Length: {len(smuggled)}"))
        assert client.answer()[0].status == 413
        client.try_send(smuggled)
        assert client.to_end() == b""
        assert client.is_closed()
    assert instance.is_left_alone()


def test_limits_of_a_listener_replace_the_others(start, instance):
    gateway = start(document(instance, listener={"limits": {"url": "100"}}, limits={"url": "10KB"}))
    assert gateway.ask(get("/" + "x" * 200))[0].status == 414


# -- time


@pytest.mark.parametrize("sent", [b"G", b"GET / HTTP/1.1\r\nHost: h\r\n"])
def test_a_head_that_does_not_come_whole_is_408(start, instance, sent):
    gateway = start(limited(instance, **QUICK))
    with gateway.client() as client:
        client.send(sent)
        head, _ = client.answer()
        assert head.status == 408
        assert client.is_closed()


def test_a_head_that_drips_is_408(start, instance):
    """Each byte comes in good time, the head does not."""
    gateway = start(limited(instance, **QUICK))
    with gateway.client() as client:
        began = monotonic()
        for at in range(200):
            if not client.try_send(b"GET / HTTP/1.1\r\nX: "[at : at + 1] or b"x"):
                break
            if not client.is_quiet(0.05):
                break
        assert client.answer()[0].status == 408
        assert monotonic() - began < 4


def test_a_connection_without_a_request_is_closed_in_silence(start, instance):
    gateway = start(limited(instance, **QUICK))
    with gateway.client() as client:
        assert client.is_closed()
        assert client.data == b""


def test_an_idle_connection_is_closed_in_silence(start, instance):
    gateway = start(limited(instance, **QUICK))
    with gateway.client() as client:
        serve_one(client, instance)
        assert client.is_closed()
        assert client.data == b""


def test_a_second_head_that_does_not_come_whole_is_408(start, instance):
    gateway = start(limited(instance, **{**QUICK, "idle_timeout": "30s"}))
    with gateway.client() as client:
        serve_one(client, instance)
        client.send(b"GET /second")
        assert client.answer()[0].status == 408


def test_a_body_that_stops_coming_is_408(start, instance):
    gateway = start(limited(instance, **QUICK))
    with gateway.client() as client:
        client.send(request("POST", "/", "Content-Length: 100") + b"some")
        upstream = instance.accept()
        upstream.head()
        head, _ = client.answer()
        assert head.status == 408
        assert head.get("connection") == "close"
        assert upstream.exactly(4) == b"some"
        assert upstream.is_closed()
    gateway.assert_settles()


def test_a_body_that_keeps_coming_is_not_late(start, instance):
    gateway = start(limited(instance, **{**QUICK, "body_timeout": "600ms"}))
    with gateway.client() as client:
        client.send(request("POST", "/", "Content-Length: 8"))
        upstream = instance.accept()
        upstream.head()
        for _ in range(8):
            assert client.is_quiet(0.15)
            client.send(b"x")
        upstream.exactly(8)
        upstream.send(response())
        assert client.answer()[0].status == 200


def test_a_body_that_only_drips_is_408(start, instance):
    gateway = start(limited(instance, min_rate=1000, min_rate_grace="300ms", body_timeout="700ms"))
    with gateway.client() as client:
        client.send(request("POST", "/", "Content-Length: 100000"))
        upstream = instance.accept()
        upstream.head()
        began = monotonic()
        while monotonic() - began < 6 and client.is_quiet(0.1):
            client.try_send(b"x")
        assert client.answer()[0].status == 408
    gateway.assert_settles()


def test_a_connection_is_closed_after_so_many_requests(start, instance):
    gateway = start(limited(instance, requests_per_connection=3))
    with gateway.client() as client:
        serve_one(client, instance)
        serve_one(client, instance)
        client.send(get())
        upstream = instance.accepted[0]
        upstream.head()
        upstream.send(response())
        head, _ = client.answer()
        assert head.get("connection") == "close"
        assert client.is_closed()


def test_who_has_not_asked_for_the_end_may_go_on_sending_for_a_moment(start, instance):
    """RFC 9112 9.6: a reset in answer to it could destroy the response on its way."""
    gateway = start(document(instance, limits={"requests_per_connection": 1}))
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        upstream.send(response(b"last"))
        head, body = client.answer()
        assert (head.get("connection"), body) == ("close", b"last")
        client.send(get("/not-known-yet"))
        assert client.sock.recv(100) == b""
        client.send(get("/still-not"))  # fails after a reset
        assert client.sock.recv(100) == b""
    gateway.assert_settles()


def test_a_slow_reader_gets_its_last_answer_whole(start, instance):
    """It takes nothing for longer than those are listened to who may have sent more."""
    gateway = start(limited(instance, requests_per_connection=1))
    with gateway.client() as client:
        wait_until(lambda: gateway.clients == 1)
        listener = next(iter(gateway.worker._listeners.values()))
        (downstream,) = listener.connections
        sock = downstream.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * 1024)
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        total = 450_000
        upstream.send(response(bytes(total)))
        wait_until(lambda: gateway.in_flight == 0)
        assert downstream.transport.get_write_buffer_size()
        wait_until(lambda: downstream.is_closing)
        assert client.answer()[1] == bytes(total)
        assert client.is_closed()
    gateway.assert_settles()


def test_a_reload_may_lower_the_number_of_requests(start, instance):
    gateway = start(limited(instance, requests_per_connection=30))
    with gateway.client() as client:
        for _ in range(3):
            serve_one(client, instance)
        gateway.apply(limited(instance, requests_per_connection=2))
        client.send(get())
        upstream = instance.accepted[0]
        upstream.head()
        upstream.send(response())
        head, _ = client.answer()
        assert head.get("connection") == "close"
        assert client.is_closed()


# -- connections


def test_connections_beyond_the_limit(start, instance):
    """The oldest idle one makes room; when none is idle the new one is turned away."""
    gateway = start(limited(instance, connections=2))
    busy = [gateway.client() for _ in range(2)]
    for client in busy:
        client.send(get())
    upstreams = [instance.accept() for _ in busy]
    for upstream in upstreams:
        upstream.head()
    with gateway.client() as refused:
        head, _ = refused.answer()
        assert head.status == 503
        assert head.get("retry-after") == "1"
        assert refused.is_closed()
    for upstream in upstreams:
        upstream.send(response())
    for client in busy:
        assert client.answer()[1] == b"ok"
        client.close()
    wait_until(lambda: gateway.clients == 0)
    with gateway.client() as client:
        client.send(get())
        wait_until(lambda: gateway.in_flight == 1)


def test_the_oldest_idle_connection_makes_room(start, instance):
    gateway = start(limited(instance, connections=2))
    oldest, newer = gateway.client(), gateway.client()
    serve_one(oldest, instance)
    serve_one(newer, instance)
    with gateway.client() as newest:
        serve_one(newest, instance)
        assert oldest.is_closed()
        serve_one(newer, instance)


def test_connections_from_one_address(start, instance):
    gateway = start(limited(instance, connections_per_ip=2))
    two = [gateway.client() for _ in range(2)]
    wait_until(lambda: gateway.clients == 2)
    with gateway.client() as refused:
        assert refused.answer()[0].status == 429
        assert refused.is_closed()
    serve_one(two[0], instance)
    two[1].close()
    wait_until(lambda: gateway.clients == 1)
    with gateway.client() as client:
        serve_one(client, instance)


def test_a_connection_that_comes_and_goes_is_counted_back(start, instance):
    gateway = start(limited(instance, connections_per_ip=3))
    for at in range(30):
        client = gateway.client()
        client.leave("rst" if at % 2 else "fin")
    wait_until(lambda: gateway.clients == 0)
    with gateway.client() as client:
        serve_one(client, instance)
    listener = next(iter(gateway.worker._listeners.values()))
    wait_until(lambda: not listener._per_ip)


def test_two_hundred_slow_clients_do_not_disturb_another(start, instance):
    gateway = start(document(instance))
    slow = []
    for at in range(200):
        client = gateway.client()
        slow.append(client)
        if at % 2:
            client.send(b"GET / HTTP/1.1\r\nX-Slow: ")
        else:
            client.send(request("POST", "/slow", "Content-Length: 1000"))
    for _ in range(100):
        assert instance.accept().head().line.startswith("POST /slow")
    wait_until(lambda: gateway.clients == 200)
    with gateway.client() as client:
        client.send(get("/0"))
        upstream = instance.accept()
        began = monotonic()
        for at in range(200):
            assert upstream.head().line == f"GET /{at} HTTP/1.1"
            for one in slow[at % 7 :: 7]:
                one.send(b"x")
            upstream.send(response())
            assert client.answer()[1] == b"ok"
            client.send(get(f"/{at + 1}"))
        assert monotonic() - began < 20
    for one in slow:
        one.close()


def test_requests_that_are_refused_are_counted(start, instance):
    gateway = start(document(instance))
    assert gateway.ask(b"GET /\x00 HTTP/1.1\r\nHost: h\r\n\r\n")[0].status == 400
    assert gateway.count("headgate_protocol_refusals_total", side="downstream") == 1

"""The life of a request over HTTP/1.1: framing, order, what is kept open and what is closed."""

from __future__ import annotations

import select
import socket
import threading
from time import monotonic

import pytest

from tests.gateway.rig import Instance, document, get, request, response, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def gateway(start, instance):
    return start(document(instance))


def exchange(client, upstream, asked=get(), answered=response()):
    client.send(asked)
    seen = upstream.head()
    upstream.send(answered)
    return seen, client.answer()


# -- connections that are kept


def test_one_upstream_connection_serves_request_after_request(gateway, instance):
    with gateway.client() as client:
        client.send(get("/0"))
        upstream = instance.accept()
        assert upstream.head().line == "GET /0 HTTP/1.1"
        upstream.send(response())
        assert client.answer()[1] == b"ok"
        for at in range(1, 20):
            seen, (head, body) = exchange(client, upstream, get(f"/{at}"))
            assert seen.line == f"GET /{at} HTTP/1.1"
            assert (head.status, body) == (200, b"ok")
    assert instance.is_left_alone()
    assert (gateway.pool.created, gateway.pool.reused, gateway.pool.idle) == (1, 19, 1)


def test_connections_are_shared_between_clients(gateway, instance):
    with gateway.client() as one, gateway.client() as two:
        one.send(get())
        upstream = instance.accept()
        upstream.head()
        upstream.send(response())
        one.answer()
        exchange(two, upstream)
    assert gateway.pool.created == 1


def test_as_many_connections_as_requests_at_once(gateway, instance):
    clients = [gateway.client() for _ in range(5)]
    for at, client in enumerate(clients):
        client.send(get(f"/{at}"))
    upstreams = [instance.accept() for _ in clients]
    paths = [upstream.head().line.split()[1] for upstream in upstreams]
    for upstream, path in zip(upstreams, paths, strict=True):
        upstream.send(response(path.encode()))
    for at, client in enumerate(clients):
        assert client.answer()[1] == b"/%d" % at
        client.close()
    gateway.assert_settles()
    assert gateway.pool.idle == 5


def test_an_instance_that_says_close_is_not_used_again(gateway, instance):
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        upstream.send(response(b"bye", "Connection: close"))
        head, body = client.answer()
        assert body == b"bye"
        assert "connection" not in head
        assert upstream.is_closed()
        client.send(get())
        instance.accept().head()


# -- HTTP/1.0


def test_http_10_is_closed_after_the_answer(gateway, instance):
    with gateway.client() as client:
        client.send(b"GET /old HTTP/1.0\r\n\r\n")
        upstream = instance.accept()
        assert upstream.head().line == "GET /old HTTP/1.1"
        upstream.send(response())
        raw = client.to_end()
    assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close\r\n" in raw
    assert raw.endswith(b"\r\n\r\nok")


def test_http_10_is_kept_when_it_asks_for_it(gateway, instance):
    with gateway.client() as client:
        asked = b"GET /old HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n"
        client.send(asked)
        upstream = instance.accept()
        upstream.head()
        upstream.send(response())
        head, _ = client.answer()
        assert head.get("connection") == "keep-alive"
        _, (head, body) = exchange(client, upstream, asked)
        assert body == b"ok"


def test_http_10_gets_a_chunked_answer_until_close(gateway, instance):
    with gateway.client() as client:
        client.send(b"GET /old HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n")
        upstream = instance.accept()
        upstream.head()
        upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        head = client.head()
        assert "transfer-encoding" not in head
        assert head.get("connection") == "close"
        upstream.send(b"6\r\n world\r\n0\r\n\r\n")
        assert client.to_end() == b"hello world"


def test_http_10_gets_no_interim_response(gateway, instance):
    with gateway.client() as client:
        client.send(b"GET /old HTTP/1.0\r\nHost: h\r\n\r\n")
        upstream = instance.accept()
        upstream.head()
        upstream.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + response())
        assert client.to_end().startswith(b"HTTP/1.1 200")


# -- pipelining


def test_pipelined_requests_are_answered_in_order(gateway, instance):
    with gateway.client() as client:
        client.send(b"".join(get(f"/{at}") for at in range(10)))
        upstream = instance.accept()
        for at in range(10):
            assert upstream.head().line == f"GET /{at} HTTP/1.1"
            upstream.send(response(b"%d" % at))
        assert [client.answer()[1] for _ in range(10)] == [b"%d" % at for at in range(10)]
    assert instance.is_left_alone()


def test_a_slow_first_answer_holds_back_the_second(gateway, instance):
    with gateway.client() as client:
        client.send(get("/slow") + request("POST", "/quick", body=b"12345"))
        upstream = instance.accept()
        assert upstream.head().line == "GET /slow HTTP/1.1"
        assert upstream.is_quiet()
        assert instance.is_left_alone()
        assert client.is_quiet()
        upstream.send(response(b"slow"))
        assert client.answer()[1] == b"slow"
        assert upstream.head().line == "POST /quick HTTP/1.1"
        assert upstream.exactly(5) == b"12345"
        upstream.send(response(b"quick"))
        assert client.answer()[1] == b"quick"


def test_what_follows_connection_close_is_not_served(gateway, instance):
    with gateway.client() as client:
        client.send(get("/1", "Connection: close") + get("/2"))
        upstream = instance.accept()
        upstream.head()
        upstream.send(response())
        assert client.to_end().count(b"HTTP/1.1 ") == 1
        assert upstream.is_quiet()


def test_a_client_far_ahead_is_not_read(gateway, instance):
    """Pipelined bytes wait in a bounded buffer, then in the client's own socket."""
    with gateway.client() as client:
        client.send(get("/first"))
        upstream = instance.accept()
        upstream.head()
        client.sock.settimeout(0.5)
        sent = 0
        more = get("/more", f"X-Fill: {'x' * 4000}") * 16
        with pytest.raises(TimeoutError):
            for _ in range(1000):
                sent += client.sock.send(more)
        assert sent < 60 * len(more)
        upstream.send(response())
        client.sock.settimeout(5)
        assert client.answer()[1] == b"ok"
        assert upstream.head().line == "GET /more HTTP/1.1"


# -- responses without a body


@pytest.mark.parametrize("length", ["Content-Length: 5000", "Transfer-Encoding: chunked"])
def test_head_ends_with_its_head(gateway, instance, length):
    with gateway.client() as client:
        client.send(request("HEAD", "/doc"))
        upstream = instance.accept()
        assert upstream.head().line == "HEAD /doc HTTP/1.1"
        upstream.send(f"HTTP/1.1 200 OK\r\n{length}\r\n\r\n".encode())
        head = client.head()
        if "Length" in length:
            assert head.get("content-length") == "5000"
        exchange(client, upstream)
    assert instance.is_left_alone()


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_no_body_follows(gateway, instance, status):
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        upstream.send(f'HTTP/1.1 {status}\r\nETag: "1"\r\n\r\n'.encode())
        head = client.head()
        assert head.status == int(status[:3])
        assert head.get("etag") == '"1"'
        assert "transfer-encoding" not in head
        assert "content-length" not in head
        assert "connection" not in head
        exchange(client, upstream)


def test_the_length_of_a_304_is_that_of_the_document(gateway, instance):
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        upstream.send(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n")
        assert client.head().get("content-length") == "77"
        exchange(client, upstream)


# -- interim responses


def test_early_hints_are_relayed_as_they_come(gateway, instance):
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        for name in ("a.css", "b.css"):
            upstream.send(f"HTTP/1.1 103 Early Hints\r\nLink: </{name}>\r\n\r\n".encode())
            hint = client.head()
            assert hint.status == 103
            assert hint.get("link") == f"</{name}>"
        upstream.send(response())
        assert client.answer()[1] == b"ok"
        exchange(client, upstream)


def test_interim_and_final_response_in_one_piece(gateway, instance):
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        upstream.send(
            b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + response()
        )
        assert [client.head().status for _ in range(2)] == [102, 103]
        assert client.answer()[1] == b"ok"


def test_endless_interim_responses_are_a_fault_of_the_instance(gateway, instance):
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        upstream.try_send(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)
        assert client.answer()[0].status == 502


# -- Expect: 100-continue


def expecting(length, *lines):
    return request("POST", "/up", f"Content-Length: {length}", "Expect: 100-continue", *lines)


def test_the_instances_100_reaches_the_client_before_the_body(gateway, instance):
    with gateway.client() as client:
        client.send(expecting(5))
        upstream = instance.accept()
        assert upstream.head().get("expect") == "100-continue"
        assert client.is_quiet()
        upstream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert client.head().status == 100
        client.send(b"hello")
        assert upstream.exactly(5) == b"hello"
        exchange_done = response(b"got it")
        upstream.send(exchange_done)
        assert client.answer()[1] == b"got it"
        exchange(client, upstream)


def test_a_refusal_by_the_instance_comes_instead_of_the_body(gateway, instance):
    with gateway.client() as client:
        client.send(expecting(5))
        upstream = instance.accept()
        upstream.head()
        upstream.send(response(b"no", status="401 Unauthorized"))
        head, body = client.answer()
        assert (head.status, body) == (401, b"no")
        assert head.get("connection") == "close"
        # What the instance may still wait for will not come on this connection.
        assert upstream.is_closed()
    gateway.assert_settles()


def test_too_large_a_body_is_refused_before_it_is_sent(gateway, instance):
    with gateway.client() as client:
        client.send(expecting(11 * 1024 * 1024))
        head, _ = client.answer()
        assert head.status == 413
        assert head.get("connection") == "close"
        assert client.is_closed()
    assert instance.is_left_alone()


def test_a_client_that_sends_without_waiting_is_served(gateway, instance):
    with gateway.client() as client:
        client.send(expecting(5) + b"hello")
        upstream = instance.accept()
        upstream.head()
        assert upstream.exactly(5) == b"hello"
        upstream.send(b"HTTP/1.1 100 Continue\r\n\r\n" + response())
        assert client.answer()[1] == b"ok"
        exchange(client, upstream)


# -- bodies


def test_a_body_passes_as_it_comes(gateway, instance):
    with gateway.client() as client:
        client.send(request("PUT", "/up", "Content-Length: 6"))
        upstream = instance.accept()
        assert upstream.head().get("content-length") == "6"
        for piece in (b"ab", b"cd", b"ef"):
            client.send(piece)
            assert upstream.exactly(2) == piece
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
        assert client.head().get("content-length") == "6"
        for piece in (b"AB", b"CD", b"EF"):
            upstream.send(piece)
            assert client.exactly(2) == piece
        exchange(client, upstream)


def test_chunks_and_trailers_pass_both_ways(gateway, instance):
    with gateway.client() as client:
        client.send(request("POST", "/up", "Transfer-Encoding: chunked", "Trailer: X-Sum"))
        upstream = instance.accept()
        seen = upstream.head()
        assert seen.get("transfer-encoding") == "chunked"
        assert "content-length" not in seen
        for piece in (b"hello", b" ", b"world"):
            client.send(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece))
            assert upstream.exactly(len(piece) + 5) == b"%x\r\n%b\r\n" % (len(piece), piece)
        client.send(b"0\r\nX-Sum: 42\r\nAuthorization: no\r\n\r\n")
        assert upstream.until(b"\r\n\r\n") == b"0\r\nx-sum: 42\r\n\r\n"
        upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n")
        assert client.head().get("transfer-encoding") == "chunked"
        upstream.send(b"3\r\nabc\r\n")
        assert client.exactly(8) == b"3\r\nabc\r\n"
        upstream.send(b"0\r\nX-End: yes\r\n\r\n")
        assert client.until(b"\r\n\r\n") == b"0\r\nx-end: yes\r\n\r\n"
        exchange(client, upstream)


def test_chunks_in_one_piece_with_trailers(gateway, instance):
    with gateway.client() as client:
        client.send(
            request("POST", "/up", "Transfer-Encoding: chunked")
            + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"
            + get("/next")
        )
        upstream = instance.accept()
        upstream.head()
        assert upstream.chunked() == b"hello"
        assert upstream.trailer == b"x-sum: 1\r\n\r\n"
        upstream.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-E: 1\r\n\r\n"
        )
        assert client.answer()[1] == b"ok"
        assert client.trailer == b"x-e: 1\r\n\r\n"
        assert upstream.head().line == "GET /next HTTP/1.1"


def test_an_empty_chunked_body_stays_a_body(gateway, instance):
    with gateway.client() as client:
        client.send(request("POST", "/up", "Transfer-Encoding: chunked") + b"0\r\n\r\n")
        upstream = instance.accept()
        upstream.head()
        assert upstream.chunked() == b""
        upstream.send(response())
        assert client.answer()[1] == b"ok"


def test_a_response_until_close_is_chunked_for_the_client(gateway, instance):
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        upstream.send(b"HTTP/1.1 200 OK\r\n\r\nuntil ")
        head = client.head()
        assert head.get("transfer-encoding") == "chunked"
        upstream.send(b"close")
        upstream.close()
        assert client.chunked() == b"until close"
        client.send(get())
        instance.accept().head()


def test_an_empty_response_until_close(gateway, instance):
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        upstream.send(b"HTTP/1.0 200 OK\r\n\r\n")
        upstream.close()
        head, body = client.answer()
        assert (head.status, body) == (200, b"")
    gateway.assert_settles()


# -- targets


def test_absolute_form_is_taken_apart(gateway, instance):
    with gateway.client() as client:
        client.send(b"GET http://other.example/x?y HTTP/1.1\r\nHost: h.example\r\n\r\n")
        upstream = instance.accept()
        seen = upstream.head()
        assert seen.line == "GET /x?y HTTP/1.1"
        assert seen.all("host") == ["other.example"]
        upstream.send(response())
        assert client.answer()[1] == b"ok"


def test_options_of_the_whole_server(gateway, instance):
    with gateway.client() as client:
        client.send(request("OPTIONS", "*"))
        upstream = instance.accept()
        assert upstream.head().line == "OPTIONS * HTTP/1.1"
        upstream.send(response(b"", "Allow: GET"))
        assert client.answer()[0].get("allow") == "GET"


def test_an_empty_query_stays(gateway, instance):
    with gateway.client() as client:
        client.send(get("/x?"))
        assert instance.accept().head().line == "GET /x? HTTP/1.1"


# -- endings that are not in step


def test_an_answer_in_the_middle_of_an_upload_arrives(gateway, instance):
    """The client is still sending when it is told no: the answer must not be lost in a reset."""
    with gateway.client() as client:
        client.send(request("POST", "/up", "Content-Length: 5000000") + bytes(100_000))
        upstream = instance.accept()
        upstream.head()
        upstream.exactly(1000)
        upstream.send(response(b"stop", status="403 Forbidden"))
        assert upstream.is_closed() or True
        for _ in range(5):
            client.try_send(bytes(100_000))
        head, body = client.answer()
        assert (head.status, body) == (403, b"stop")
        assert head.get("connection") == "close"
        assert client.is_closed()
    gateway.assert_settles()
    assert gateway.pool.open == 0


def test_an_early_answer_may_go_on_while_the_client_uploads(gateway, instance):
    with gateway.client() as client:
        client.send(request("POST", "/up", "Content-Length: 10") + b"12345")
        upstream = instance.accept()
        upstream.head()
        upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        head = client.head()
        assert head.get("transfer-encoding") == "chunked"
        assert client.exactly(8) == b"3\r\none\r\n"
        client.send(b"67890")
        assert upstream.exactly(10) == b"1234567890"
        upstream.send(b"3\r\ntwo\r\n0\r\n\r\n")
        assert client.until(b"0\r\n\r\n") == b"3\r\ntwo\r\n0\r\n\r\n"
    gateway.assert_settles()


def test_a_half_closed_client_gets_its_answer(gateway, instance):
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        client.end()
        assert client.is_quiet()
        upstream.send(response(b"still here"))
        head, body = client.answer()
        assert body == b"still here"
        assert head.get("connection") == "close"
        assert client.is_closed()
    gateway.assert_settles()


def test_a_half_closed_client_gets_a_long_answer_whole(gateway, instance):
    with gateway.client() as client:
        client.send(get())
        client.end()
        upstream = instance.accept()
        upstream.head()
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na")
        client.until(b"\r\n\r\n")
        assert client.exactly(1) == b"a"
        # Longer than the grace that a client gets which may have gone altogether.
        assert not client.is_closed(2.0)
        upstream.send(b"bc")
        assert client.exactly(2) == b"bc"


def test_a_slow_reader_that_half_closes_gets_its_answer_whole(gateway, instance):
    """It takes nothing for longer than the grace of a client that may have gone altogether."""
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        total = 30_000_000
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        sender = threading.Thread(target=upstream.try_send, args=(bytes(total),), daemon=True)
        sender.start()
        client.head()
        listener = next(iter(gateway.worker._listeners.values()))
        wait_until(lambda: next(iter(listener.connections))._unwritable)
        client.end()
        until = monotonic() + 1.8
        wait_until(lambda: monotonic() > until)
        client.exactly(total)
        sender.join(5)
    gateway.assert_settles()


def test_all_that_was_asked_before_a_half_close_is_answered(gateway, instance):
    with gateway.client() as client:
        client.send(get("/1") + request("POST", "/2", "Content-Length: 3") + b"abc" + get("/3"))
        upstream = instance.accept()
        upstream.head()
        client.end()
        assert client.is_quiet()
        upstream.send(response(b"first"))
        assert client.answer()[1] == b"first"
        upstream.head()
        assert upstream.exactly(3) == b"abc"
        upstream.send(response(b"second"))
        assert client.answer()[1] == b"second"
        upstream.head()
        upstream.send(response(b"third"))
        head, body = client.answer()
        assert (body, head.get("connection")) == (b"third", "close")
        assert client.is_closed()
    gateway.assert_settles()


@pytest.mark.parametrize(
    "begun",
    [b"GET /2 HTTP/1.1\r\nHost: h", request("POST", "/2", "Content-Length: 3") + b"ab"],
    ids=["head", "body"],
)
def test_what_a_half_close_cuts_short_is_given_up_at_once(gateway, instance, begun):
    with gateway.client() as client:
        client.send(get("/1") + begun)
        upstream = instance.accept()
        upstream.head()
        client.end()
        assert client.is_quiet()
        upstream.send(response(b"first"))
        assert client.answer()[1] == b"first"
        assert client.is_closed()
    gateway.assert_settles()


def test_an_answer_on_its_way_survives_a_half_close(gateway, instance):
    """The exchange is over, its last bytes still wait for the client, and the client says FIN."""
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        total = 64_000
        while True:  # until the answer no longer fits into the sockets
            upstream.send(response(bytes(total)))
            wait_until(lambda: gateway.in_flight == 0)
            listener = next(iter(gateway.worker._listeners.values()))
            waits = gateway.on_loop(
                lambda one=listener: next(iter(one.connections)).transport.get_write_buffer_size()
            )
            if waits:
                break
            client.send(get())
            upstream.head()
        client.end()
        sizes = []
        while client.data or client.more():
            _, body = client.answer()
            sizes.append(len(body))
        assert set(sizes) == {total}
    gateway.assert_settles()


def test_a_request_cut_short_is_not_completed(gateway, instance):
    with gateway.client() as client:
        client.send(request("POST", "/up", "Content-Length: 10") + b"12345")
        upstream = instance.accept()
        upstream.head()
        assert upstream.exactly(5) == b"12345"
        client.end()
        assert upstream.is_closed()
    gateway.assert_settles()


def test_the_answer_carries_id_and_time(gateway, instance):
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        seen = upstream.head()
        upstream.send(response())
        head, _ = client.answer()
        assert head.get("x-request-id") == seen.get("x-request-id")
        assert (head.get("x-response-time") or "").endswith("ms")
        assert "date" in head


def test_a_date_of_the_instance_is_left_alone(gateway, instance):
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        upstream.send(response(b"ok", "Date: Sun, 06 Nov 1994 08:49:37 GMT"))
        assert client.answer()[0].all("date") == ["Sun, 06 Nov 1994 08:49:37 GMT"]


def test_a_drained_worker_finishes_what_it_has_begun(start, instance):
    gateway = start(document(instance))
    idle, busy = gateway.client(), gateway.client()
    idle.send(get())
    upstream = instance.accept()
    upstream.head()
    upstream.send(response())
    idle.answer()
    busy.send(get())
    upstream.head()
    gateway.on_loop(
        lambda: [(one.stop_listening(), one.drain()) for one in gateway.worker._listeners.values()]
    )
    assert idle.is_closed()
    upstream.send(response(b"last"))
    head, body = busy.answer()
    assert body == b"last"
    assert head.get("connection") == "close"
    assert busy.is_closed()
    wait_until(lambda: gateway.clients == 0)


def test_nagle_is_off_on_both_sides(gateway, instance):
    with gateway.client() as client:
        client.send(get())
        instance.accept().head()
        conns = gateway.on_loop(
            lambda: [
                conn.transport.get_extra_info("socket").getsockopt(
                    socket.IPPROTO_TCP, socket.TCP_NODELAY
                )
                for listener in gateway.worker._listeners.values()
                for conn in listener.connections
            ]
        )
        assert conns and all(conns)


def test_two_instances_take_turns(start, instance, other: Instance):
    gateway = start(document(instance, other))
    with gateway.client() as client:
        client.send(get("/first"))
        # Which one begins is left to chance, so that many gateways do not all begin with one.
        ready, _, _ = select.select([instance.sock, other.sock], [], [], 8)
        turns = (instance, other) if instance.sock in ready else (other, instance)
        for at in range(6):
            if at:
                client.send(get(f"/{at}"))
            turn = turns[at % 2]
            upstream = turn.accept() if at < 2 else turn.accepted[0]
            upstream.head()
            upstream.send(response())
            client.answer()

"""Both sides at their worst at the same time: early answers, broken uploads, mixed pipelines."""

from __future__ import annotations

import threading

import pytest

from tests.gateway.rig import Closed, document, get, request, response, wait_until

pytestmark = pytest.mark.integration

MB = 1024 * 1024


@pytest.fixture
def gateway(start, instance):
    return start(document(instance, route={"body_limit": "1GB"}))


# -- an answer before the request is whole


def test_an_instance_that_refuses_an_upload_and_closes(gateway, instance):
    """It answers, closes and reads no further: the answer must survive the reset that follows."""
    with gateway.client() as client:
        client.send(request("POST", "/", "Content-Length: 100000000"))
        upstream = instance.accept()
        upstream.head()
        upstream.send(response(b"too much", "Connection: close", status="413 Content Too Large"))
        upstream.end()
        for _ in range(20):
            if not client.try_send(bytes(65536)):
                break
        head, body = client.answer()
        assert (head.status, body) == (413, b"too much")
    gateway.assert_settles()


def test_an_early_answer_survives_a_client_that_sends_a_lot_more(gateway, instance):
    with gateway.client() as client:
        client.send(request("POST", "/", f"Content-Length: {100 * MB}"))
        upstream = instance.accept()
        upstream.head()
        upstream.send(response(b"enough", status="400 Bad Request"))
        head, body = client.answer()
        assert (head.status, body) == (400, b"enough")
        # Less than what is thrown away for a lingering client. A gateway that had closed at once
        # would answer the first of these with a reset, which may overtake the answer.
        assert client.is_closed()  # its sending side only
        for _ in range(7):
            assert client.try_send(bytes(100_000))


def test_a_client_that_never_stops_sending_is_cut_off(gateway, instance):
    with gateway.client() as client:
        client.send(request("POST", "/", f"Content-Length: {1000 * MB}"))
        upstream = instance.accept()
        upstream.head()
        upstream.send(response(b"enough", status="400 Bad Request"))
        sent = 0
        while sent < 500 * MB and client.try_send(bytes(MB)):
            sent += MB
        assert sent < 100 * MB
    gateway.assert_settles()
    wait_until(lambda: gateway.clients == 0)


def test_an_instance_that_dies_in_the_middle_of_an_upload(gateway, instance):
    with gateway.client() as client:
        client.send(request("POST", "/", "Content-Length: 1000000") + bytes(1000))
        upstream = instance.accept()
        upstream.head()
        upstream.exactly(1000)
        upstream.reset()
        head, _ = client.answer()
        assert head.status == 502
        assert head.get("connection") == "close"
        client.try_send(bytes(1000))
        assert client.is_closed()
    gateway.assert_settles()


def test_an_early_whole_answer_with_the_rest_of_the_upload_in_one_piece(gateway, instance):
    """The upload ends just after the answer: a clean exchange for the client, and no reuse."""
    with gateway.client() as client:
        client.send(request("POST", "/", "Content-Length: 6") + b"abc")
        upstream = instance.accept()
        upstream.head()
        upstream.exactly(3)
        upstream.send(response(b"early"))
        assert client.answer()[1] == b"early"
        client.try_send(b"def" + get("/never"))
        assert client.is_closed()
        assert upstream.is_closed()
    assert instance.is_left_alone()
    gateway.assert_settles()


# -- pipelines


def test_a_bad_request_behind_a_good_one(gateway, instance):
    with gateway.client() as client:
        client.send(get("/good") + b"NOT HTTP AT ALL\r\n\r\n" + get("/never"))
        upstream = instance.accept()
        assert upstream.head().line == "GET /good HTTP/1.1"
        assert client.is_quiet()
        upstream.send(response(b"good"))
        assert client.answer()[1] == b"good"
        assert client.answer()[0].status == 400
        assert client.to_end() == b""
        assert upstream.is_quiet()
    gateway.assert_settles()


def test_local_and_forwarded_answers_keep_their_order(start, instance):
    said = document(instance)
    said["routes"] = [
        {"match": {"path": "/here"}, "respond": {"body": "here"}},
        {"match": {"path": "/away"}, "redirect": "/here"},
        {"match": {"path": "/there"}, "to": "upstream"},
    ]
    gateway = start(said)
    with gateway.client() as client:
        client.send(get("/here") + get("/there") + get("/here") + get("/none") + get("/away"))
        assert client.answer()[1] == b"here"
        upstream = instance.accept()
        upstream.head()
        assert client.is_quiet()
        upstream.send(response(b"there"))
        assert client.answer()[1] == b"there"
        assert client.answer()[1] == b"here"
        assert client.answer()[0].status == 404
        assert client.answer()[0].get("location") == "/here"


def test_thousands_of_local_answers_in_one_piece(start, instance):
    """Answered in a loop, not in a recursion; bounded by what the client reads."""
    gateway = start(document(instance, route={"match": {"path": "/there"}}))
    count = 5000
    with gateway.client() as client:
        sender = threading.Thread(target=client.try_send, args=(get("/none") * count,), daemon=True)
        sender.start()
        for _ in range(count):
            assert client.answer()[0].status == 404
        sender.join(5)
    wait_until(lambda: gateway.clients == 0)


def test_bodies_in_a_pipeline_are_cut_where_they_end(gateway, instance):
    bodies = [b"", b"x", bytes(70_000), b"GET / HTTP/1.1\r\n\r\n", b"y" * 3]
    with gateway.client() as client:
        pieces = []
        for at, body in enumerate(bodies):
            if at % 2:
                chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
                pieces.append(request("POST", f"/{at}", "Transfer-Encoding: chunked") + chunked)
            else:
                pieces.append(
                    request("POST", f"/{at}", f"Content-Length: {len(body)}") + body
                )  # fmt: skip
        sender = threading.Thread(target=client.send, args=(b"".join(pieces),), daemon=True)
        sender.start()
        upstream = instance.accept()
        for at, body in enumerate(bodies):
            seen = upstream.head()
            assert seen.line == f"POST /{at} HTTP/1.1"
            length = seen.get("content-length")
            got = upstream.chunked() if length is None else upstream.exactly(int(length))
            assert got == body
            upstream.send(response(b"%d" % at))
            assert client.answer()[1] == b"%d" % at
        sender.join(5)


@pytest.mark.parametrize("step", [1, 7])
def test_a_request_cut_anywhere(gateway, instance, step):
    """However the kernel cuts it, it is one request; and the same for its answer."""
    asked = request("POST", "/cut", "Transfer-Encoding: chunked", "X-A: b") + (
        b"5;x=y\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"
    )
    answered = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    with gateway.client() as client:
        for at in range(0, len(asked), step):
            client.send(asked[at : at + step])
        upstream = instance.accept()
        assert upstream.head().get("x-a") == "b"
        assert upstream.chunked() == b"hello"
        for at in range(0, len(answered), step):
            upstream.send(answered[at : at + step])
        assert client.answer()[1] == b"ok"


# -- the total, and the line


def test_the_total_covers_the_wait_for_a_connection(start, instance):
    said = document(instance, service={"pool": {"connections": 1, "queue_timeout": "20s"}})
    said["routes"].append(
        {"match": {"path": "/hasty"}, "to": "upstream", "timeout": {"total": "700ms"}}
    )
    gateway = start(said)
    busy, waiting = gateway.client(), gateway.client()
    busy.send(get("/busy"))
    upstream = instance.accept()
    upstream.head()
    waiting.send(get("/hasty"))
    wait_until(lambda: gateway.pool.waiting == 1)
    assert waiting.answer()[0].status == 504
    assert gateway.pool.waiting == 0
    upstream.send(response())
    assert busy.answer()[1] == b"ok"
    gateway.assert_settles()


def test_a_retried_request_does_not_get_its_time_anew(start, instance):
    gateway = start(document(instance, route={"timeout": {"total": "700ms"}}))
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        upstream.send(response())
        client.answer()
        client.send(get("/again"))
        upstream.head()
        assert client.is_quiet(0.4)
        upstream.reset()
        fresh = instance.accept()
        fresh.head()
        assert client.answer()[0].status == 504
        assert fresh.is_closed()
    gateway.assert_settles()


def test_a_retried_request_has_the_whole_first_byte_time(start, instance):
    gateway = start(document(instance, route={"timeout": {"first_byte": "900ms"}}))
    with gateway.client() as client:
        client.send(get())
        one = instance.accept()
        one.head()
        other = gateway.client()
        other.send(get())
        two = instance.accept()
        two.head()
        one.send(response())
        two.send(response())
        client.answer()
        other.answer()
        # Two idle connections: the retry gets the second of them at once.
        client.send(get("/again"))
        two.head()
        assert client.is_quiet(0.6)
        two.reset()
        one.head()
        assert client.is_quiet(0.6)
        one.send(response(b"in time"))
        assert client.answer()[1] == b"in time"


# -- both ends leave


@pytest.mark.parametrize("order", ["client first", "instance first"])
def test_both_ends_leave_in_the_middle(gateway, instance, order):
    client = gateway.client()
    client.send(request("POST", "/", "Content-Length: 100") + b"half")
    upstream = instance.accept()
    upstream.head()
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    client.until(b"half")
    for one in (client, upstream) if order == "client first" else (upstream, client):
        one.reset()
    gateway.assert_settles()
    wait_until(lambda: gateway.clients == 0)
    assert gateway.pool.open == 0


def test_a_reload_in_the_middle_of_everything(gateway, instance, start, other):
    """An upload, a download and a waiting request live through ten reloads."""
    upload, download = gateway.client(), gateway.client()
    upload.send(request("POST", "/up", "Content-Length: 20"))
    up = instance.accept()
    up.head()
    download.send(get("/down"))
    down = instance.accept()
    down.head()
    down.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")
    download.head()
    for at in range(10):
        gateway.apply(document(instance, other, response_time=bool(at % 2)))
        upload.send(b"ab")
        assert up.exactly(2) == b"ab"
        down.send(b"cd")
        assert download.exactly(2) == b"cd"
    up.send(response(b"got it"))
    assert upload.answer()[1] == b"got it"
    for client in (upload, download):
        client.close()
    gateway.assert_settles()


def test_a_client_that_is_told_no_and_leaves_at_once(gateway, instance):
    for how in ("fin", "rst") * 10:
        client = gateway.client()
        client.send(request("POST", "/", "Content-Length: 99999999999"))
        client.leave(how)
    gateway.assert_settles()
    wait_until(lambda: gateway.clients == 0)
    with pytest.raises(Closed), gateway.client() as client:
        client.send(b"\x16\x03\x01 not for us\r\n\r\n")
        client.head()
        client.head()

"""Clients that ask with conditions where nothing is held: the fill asks for the whole, and each is
answered by the rules of a hit.
"""

from __future__ import annotations

import pytest

from tests.gateway.caching.rig import FRESH, ask, asked, cached, dated, fills, serve
from tests.gateway.given_back import assert_all_given_back
from tests.gateway.rig import get, response, wait_until

pytestmark = pytest.mark.integration

TAG = 'ETag: "a"'
HAS = 'If-None-Match: "a"'
HAS_NOT = 'If-None-Match: "b"'
SINCE = "Sun, 06 Nov 1994 08:49:37 GMT"
PRIVATE = "Cache-Control: private"


def begun(*lines: str) -> bytes:
    """The beginning of an answer of six bytes."""
    head = "\r\n".join(["HTTP/1.1 200 OK", *lines, dated(), "Content-Length: 6", "", ""])
    return head.encode() + b"xyz"


@pytest.mark.parametrize(
    ("line", "validator"),
    [(HAS, TAG), (f"If-Modified-Since: {SINCE}", f"Last-Modified: {SINCE}")],
    ids=["tag", "date"],
)
def test_what_is_only_asked_for_with_conditions_is_kept(start, instance, line, validator):
    gateway = start(cached(instance))
    client = gateway.client()
    client.send(get("/", line))
    said = serve(instance, response(b"whole", FRESH, validator, dated(), "Content-Type: a/b"))
    assert line.lower() not in said.lower()
    head, body = client.answer()
    assert (head.status, body) == (304, b"")
    assert validator.partition(": ")[2] in head.all(validator.partition(": ")[0].lower())
    assert "content-type" not in head
    assert "fwd=uri-miss; fwd-status=200; stored" in (head.get("cache-status") or "")
    assert ask(client, "/", line)[0].status == 304
    assert ask(client)[1] == b"whole"
    assert instance.accepted[0].is_quiet()
    assert_all_given_back(gateway)


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "begun"])
def test_each_reader_is_answered_by_its_own_condition(start, instance, whole):
    gateway = start(cached(instance))
    lines = [(HAS,), (), (HAS_NOT,), (HAS,)]
    clients = [asked(gateway, "/", *each) for each in lines]
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    if whole:
        peer.send(response(b"xyzuvw", FRESH, TAG, dated()))
    else:
        peer.send(begun(FRESH, TAG))
        # Who has it need not wait for the rest.
        assert [clients[at].answer()[0].status for at in (0, 3)] == [304, 304]
        late = gateway.client()
        assert ask(late, "/", HAS)[0].status == 304
        peer.send(b"uvw")
    got = [client.answer() for client in (clients if whole else clients[1:3])]
    wanted = [(304, b""), (200, b"xyzuvw"), (200, b"xyzuvw"), (304, b"")]
    assert [(head.status, body) for head, body in got] == (wanted if whole else wanted[1:3])
    assert gateway.count("headgate_cache_total", outcome="collapsed") == 3 + (not whole)
    assert peer.is_quiet()
    assert_all_given_back(gateway)


def test_the_body_comes_in_to_be_kept_when_its_only_client_has_it(start, instance):
    gateway = start(cached(instance))
    client = asked(gateway, "/", HAS)
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    peer.send(begun(FRESH, TAG))
    assert client.answer()[0].status == 304
    assert fills(gateway) == 1
    peer.send(b"uvw")
    wait_until(lambda: fills(gateway) == 0)
    assert ask(client)[1] == b"xyzuvw"
    assert_all_given_back(gateway)


def test_what_is_not_kept_is_called_off_when_its_only_client_has_it(start, instance):
    gateway = start(cached(instance))
    client = asked(gateway, "/", HAS)
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    peer.send(begun(PRIVATE, TAG, "Set-Cookie: s=1"))
    head, _ = client.answer()
    assert (head.status, head.get("set-cookie")) == (304, "s=1")
    assert peer.is_closed()
    assert fills(gateway) == 0
    # It is known not to be kept: from now on a condition goes as it came.
    client.send(get("/", HAS))
    said = serve_new(instance, f"HTTP/1.1 304 Not Modified\r\n{TAG}\r\n\r\n".encode())
    assert HAS.lower() in said.lower()
    assert client.answer()[0].status == 304
    assert_all_given_back(gateway)


def serve_new(instance, answer: bytes) -> str:
    peer = instance.accept()
    said = peer.until(b"\r\n\r\n")
    peer.send(answer)
    return said.decode("latin-1")


def test_what_is_private_is_not_told_to_others_as_unchanged(start, instance):
    gateway = start(cached(instance))
    first, second = asked(gateway, "/", HAS), asked(gateway, "/", HAS)
    serve(instance, response(b"one", PRIVATE, TAG))
    assert first.answer()[0].status == 304
    said = serve(instance, response(b"two", PRIVATE, TAG))
    assert HAS.lower() in said.lower()  # asks for itself, as it is
    assert second.answer()[1] == b"two"
    assert_all_given_back(gateway)


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (HAS, response(b"own", PRIVATE)),
        ("If-None-Match: *", response(b"own", PRIVATE)),
        (f"If-Modified-Since: {SINCE}", response(b"own", PRIVATE, TAG)),
        (HAS, response(b"own", PRIVATE, TAG, status="404 Not Found")),
        (HAS, response(b"own", TAG, status="500 Oops")),
        (HAS, response(b"own", FRESH, TAG, status="404 Not Found")),
    ],
    ids=["no-tag", "star", "no-date", "404", "500", "kept-404"],
)
def test_what_cannot_be_compared_is_given_as_it_came(start, instance, line, answer):
    gateway = start(cached(instance))
    client = asked(gateway, "/", line)
    serve(instance, answer)
    assert client.answer()[1] == b"own"
    assert_all_given_back(gateway)


def test_a_client_that_leaves_takes_its_condition_along(start, instance):
    gateway = start(cached(instance))
    first, second = asked(gateway, "/", HAS), asked(gateway)
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    first.reset()
    wait_until(lambda: gateway.in_flight == 2)
    peer.send(response(b"whole", FRESH, TAG, dated()))
    assert second.answer()[1] == b"whole"
    assert_all_given_back(gateway)


def test_what_turns_out_too_long_is_called_off_when_nobody_reads_it(start, instance):
    gateway = start(cached(instance, rules={"body_max": "4KB"}))
    client = asked(gateway, "/", HAS)
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    peer.send(f"HTTP/1.1 200 OK\r\n{FRESH}\r\n{TAG}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    assert client.answer()[0].status == 304
    peer.send(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
    assert peer.is_closed()
    assert_all_given_back(gateway)


@pytest.mark.parametrize("line", ['If-Match: "a"', f"If-Unmodified-Since: {SINCE}"])
def test_what_only_the_service_can_judge_goes_there(start, instance, line):
    gateway = start(cached(instance))
    client = asked(gateway, "/", line)
    assert line.lower() in serve(instance, response(b"own", FRESH, TAG)).lower()
    assert client.answer()[1] == b"own"

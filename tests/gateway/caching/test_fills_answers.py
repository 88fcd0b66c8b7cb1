"""Services that answer fills oddly: statuses, validations, hints, trailers, broken messages; and
answers of another variant.
"""

from __future__ import annotations

import pytest

from tests.gateway.caching.rig import (
    BEHIND,
    FRESH,
    HALF,
    STALE,
    ask,
    asked,
    cached,
    dated,
    filled,
    not_modified,
    serve,
)
from tests.gateway.given_back import assert_all_given_back
from tests.gateway.rig import (
    get,
    request,
    response,
    wait_until,
)

pytestmark = pytest.mark.integration


def test_a_head_request_gets_no_body_when_what_is_held_has_changed(start, instance):
    gateway = start(cached(instance))
    client = filled(gateway, instance, STALE, 'ETag: "a"')
    client.send(request("HEAD", "/") + get("/"))
    said = serve(instance, response(b"newer", FRESH, 'ETag: "b"', dated()))
    assert said.startswith("GET / ")
    head = client.head()
    assert (head.status, head.get("content-length")) == (200, "5")
    head, body = client.answer()
    assert (head.status, body) == (200, b"newer")
    assert "; hit" in (head.get("cache-status") or "")
    assert_all_given_back(gateway)


def test_a_head_request_over_http2_ends_with_its_head(start, instance):
    import httpx

    gateway = start(cached(instance))
    client = filled(gateway, instance, STALE, 'ETag: "a"')
    url = f"http://127.0.0.1:{gateway.port()}/"
    import threading

    def answer() -> None:
        peer = instance.accepted[0]
        peer.until(b"\r\n\r\n")
        peer.send(f"HTTP/1.1 200 OK\r\n{FRESH}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        peer.send(b"3\r\nxyz\r\n")
        peer.send(b"0\r\n\r\n")

    thread = threading.Thread(target=answer)
    thread.start()
    with httpx.Client(http1=False, http2=True, timeout=5) as h2:
        got = h2.head(url, headers={"host": "h.example"})
        assert (got.status_code, got.content) == (200, b"")
        thread.join()
        wait_until(lambda: gateway.in_flight == 0)
        got = h2.get(url, headers={"host": "h.example"})
    assert got.content == b"xyz"
    assert client is not None
    assert_all_given_back(gateway)


def test_a_cookie_that_comes_with_a_validation_is_for_one_alone(start, instance):
    gateway = start(cached(instance))
    filled(gateway, instance, "Cache-Control: max-age=1", 'ETag: "a"', "Age: 100")
    first, second = asked(gateway), asked(gateway)
    serve(instance, not_modified('ETag: "a"', FRESH, "Set-Cookie: session=1"))
    assert first.answer()[0].get("set-cookie") == "session=1"
    serve(instance, response(b"other", FRESH, dated()))
    head, body = second.answer()
    assert (body, "set-cookie" in head) == (b"other", False)
    assert_all_given_back(gateway)


def test_a_304_about_another_response_is_asked_again_without_conditions(start, instance):
    gateway = start(cached(instance))
    filled(gateway, instance, STALE, 'ETag: "a"')
    client = asked(gateway, "/", 'If-None-Match: "mine"')
    said = serve(instance, not_modified('ETag: "z"'))
    assert 'if-none-match: "a"' in said.lower()
    said = serve(instance, response(b"newer", FRESH, 'ETag: "z"', dated()))
    assert "if-none-match" not in said.lower()
    assert client.answer()[1] == b"newer"
    assert ask(client)[1] == b"newer"
    assert_all_given_back(gateway)


def test_a_304_that_nobody_asked_for_is_for_one_alone_and_not_kept(start, instance):
    gateway = start(cached(instance))
    filled(gateway, instance, STALE, 'ETag: "a"')
    client = asked(gateway)
    serve(instance, not_modified('ETag: "z"'))
    serve(instance, not_modified('ETag: "z"'))
    assert client.answer()[0].status == 304
    client.send(get("/"))
    serve(instance, response(b"newer", FRESH, dated()))
    assert client.answer()[1] == b"newer"
    assert_all_given_back(gateway)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("Range: bytes=0-0", "206 Partial Content"),
        ("Range: bytes=90-", "416 Range Not Satisfiable"),
    ],
    ids=["206", "416"],
)
def test_the_answer_to_one_range_keeps_nobody_from_waiting(start, instance, line, status):
    gateway = start(cached(instance))
    client = gateway.client()
    client.send(get("/", line))
    said = serve(instance, response(b"", FRESH, status=status))
    assert line.lower() in said.lower()
    assert client.answer()[0].status == int(status[:3])
    clients = [asked(gateway), asked(gateway)]
    serve(instance, response(b"shared", FRESH, dated()))
    assert [each.answer()[1] for each in clients] == [b"shared"] * 2
    assert instance.accepted[0].is_quiet()


@pytest.mark.parametrize(
    "answer",
    [
        response(b"mine", "Cache-Control: private"),
        response(b"none", "Cache-Control: no-store", status="404 Not Found"),
        response(b"x" * 5000, FRESH),
    ],
    ids=["private", "gone", "too-long"],
)
def test_an_answer_that_is_not_kept_ends_what_was_served_stale(start, instance, answer):
    gateway = start(cached(instance, rules={"body_max": "1KB"}))
    client = filled(gateway, instance, BEHIND)
    assert ask(client)[1] == b"kept"
    peer = instance.accepted[0]
    peer.until(b"\r\n\r\n")
    peer.send(answer)
    wait_until(lambda: gateway.in_flight == 0)
    client.send(get("/"))
    if not peer.is_closed(0.2):
        peer.until(b"\r\n\r\n")
    else:
        peer = instance.accept()
        peer.until(b"\r\n\r\n")
    peer.send(response(b"newer", FRESH))
    assert client.answer()[1] == b"newer"
    assert_all_given_back(gateway)


@pytest.mark.parametrize("status", ["500 Oops", "503 Busy", "429 Slow Down"])
def test_a_failure_behind_ends_nothing(start, instance, status):
    gateway = start(cached(instance))
    client = filled(gateway, instance, BEHIND)
    for _ in range(3):
        assert ask(client)[1] == b"kept"
        serve(instance, response(b"", status=status))
        wait_until(lambda: gateway.in_flight == 0)
    assert_all_given_back(gateway)


def test_501_is_not_an_error_that_something_stale_stands_in_for(start, instance):
    gateway = start(cached(instance))
    client = filled(gateway, instance, "Cache-Control: max-age=0, stale-if-error=60")
    client.send(get("/"))
    serve(instance, response(b"", status="501 Not Implemented"))
    assert client.answer()[0].status == 501


@pytest.mark.parametrize("status", [204, 205])
def test_what_has_no_body_is_kept_without_one(start, instance, status):
    gateway = start(cached(instance, rules={"ttl_by_status": {205: "60s"}}))
    client = gateway.client()
    for _ in range(2):
        client.send(get("/") + get("/"))
        if not instance.accepted:
            peer = instance.accept()
            peer.until(b"\r\n\r\n")
            length = "Content-Length: 0\r\n" if status == 205 else ""
            peer.send(f"HTTP/1.1 {status} Nothing\r\n{FRESH}\r\n{length}\r\n".encode())
        for _ in range(2):
            head = client.head()
            assert head.status == status
            assert ("content-length" in head) == (status == 205)
    assert instance.accepted[0].is_quiet()


def test_early_hints_reach_the_one_who_asked(start, instance):
    gateway = start(cached(instance))
    first, second = asked(gateway), asked(gateway)
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + response(b"x", FRESH))
    assert first.head().status == 103
    assert first.answer()[1] == b"x"
    assert second.head().status == 200


def test_trailers_reach_those_who_wait_and_are_not_kept(start, instance):
    gateway = start(cached(instance))
    first = asked(gateway, "/", "TE: trailers")
    second = asked(gateway, "/", "TE: trailers")
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    peer.send(f"HTTP/1.1 200 OK\r\n{FRESH}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    heads = [first.head(), second.head()]
    assert [head.get("transfer-encoding") for head in heads] == ["chunked"] * 2
    peer.send(b"3\r\nxyz\r\n0\r\nX-Sum: 9\r\n\r\n")
    assert [first.chunked(), second.chunked()] == [b"xyz"] * 2
    head, body = gateway.ask(get("/"))
    assert (body, head.get("content-length")) == (b"xyz", "3")


def test_the_service_breaks_off_a_validation(start, instance):
    gateway = start(cached(instance))
    client = filled(gateway, instance, "Cache-Control: max-age=0, stale-if-error=60", 'ETag: "a"')
    client.send(get("/"))
    peer = instance.accepted[0]
    peer.until(b"\r\n\r\n")
    peer.send(f"HTTP/1.1 200 OK\r\n{FRESH}\r\nContent-Length: 6\r\n\r\nxyz".encode())
    assert client.head().status == 200
    assert client.exactly(3) == b"xyz"
    peer.close()
    assert client.is_closed()
    client = asked(gateway)
    instance.accept().until(b"\r\n\r\n")
    instance.accepted[-1].close()
    assert client.answer()[1] == b"kept"
    assert_all_given_back(gateway)


def test_those_of_another_variant_wait_for_one_of_their_own(start, instance):
    """One request for each language, however many ask."""
    gateway = start(cached(instance))
    english = [asked(gateway, "/", "Accept-Language: en") for _ in range(2)]
    german = [asked(gateway, "/", "Accept-Language: de") for _ in range(3)]
    serve(instance, response(b"kept", FRESH, "Vary: Accept-Language", dated()))
    assert [client.answer()[1] for client in english] == [b"kept"] * 2
    said = serve(instance, response(b"behalten", FRESH, "Vary: Accept-Language", dated()))
    assert "de" in said
    assert [client.answer()[1] for client in german] == [b"behalten"] * 3
    assert instance.is_left_alone()
    assert instance.accepted[0].is_quiet()
    assert_all_given_back(gateway)


def test_who_comes_late_finds_the_fill_of_its_variant(start, instance):
    gateway = start(cached(instance))
    first = asked(gateway, "/", "Accept-Language: en")
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    peer.send(HALF.replace(b"\r\n\r\n", b"\r\nVary: Accept-Language\r\n\r\n"))
    first.until(b"xyz")
    late = asked(gateway, "/", "Accept-Language: EN")
    late.until(b"xyz")
    peer.send(b"uvw")
    assert [first.exactly(3), late.exactly(3)] == [b"uvw"] * 2
    assert instance.is_left_alone()
    assert_all_given_back(gateway)


def test_each_validates_what_must_be_validated_each_time(start, instance):
    gateway = start(cached(instance))
    filled(gateway, instance, "Cache-Control: no-cache", 'ETag: "a"')
    clients = [asked(gateway) for _ in range(3)]
    peers = [instance.accepted[0], instance.accept(), instance.accept()]
    for peer in peers:
        assert b'"a"' in peer.until(b"\r\n\r\n")
    for peer in peers:
        peer.send(not_modified('ETag: "a"'))
    assert [client.answer()[1] for client in clients] == [b"kept"] * 3
    assert_all_given_back(gateway)

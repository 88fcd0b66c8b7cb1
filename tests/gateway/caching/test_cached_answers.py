"""What clients get from a route with a cache: a worker, real sockets, every answer written here."""

from __future__ import annotations

import pytest

from tests.gateway.caching.rig import FRESH, ask, cached, dated, filled, http_date, serve
from tests.gateway.rig import get, request, response, wait_until

pytestmark = pytest.mark.integration


def test_the_second_answer_comes_from_the_cache(start, instance):
    gateway = start(cached(instance))
    client = filled(gateway, instance)
    head, body = ask(client)
    assert (head.status, body) == (200, b"kept")
    assert head.get("age") == "0"
    assert head.get("cache-status").startswith("headgate; hit; ttl=")
    assert instance.accepted[0].is_quiet()
    assert gateway.count("headgate_cache_total", outcome="hit") == 1
    gateway.assert_settles()


def test_the_first_answer_tells_that_it_was_kept(start, instance):
    gateway = start(cached(instance))
    client = gateway.client()
    client.send(get("/"))
    serve(instance, response(b"x", FRESH))
    head, _ = client.answer()
    said, _, ttl = (head.get("cache-status") or "").partition("; ttl=")
    assert said == "headgate; fwd=uri-miss; fwd-status=200; stored"
    assert 58 <= int(ttl) <= 60


def test_a_head_request_is_answered_from_what_a_get_brought(start, instance):
    gateway = start(cached(instance))
    client = filled(gateway, instance)
    client.send(request("HEAD", "/"))
    head = client.head()
    assert (head.status, head.get("content-length")) == (200, "4")
    head, body = ask(client)
    assert (head.status, body) == (200, b"kept")


def test_a_head_request_for_what_is_not_held_is_passed(start, instance):
    gateway = start(cached(instance))
    client = gateway.client()
    client.send(request("HEAD", "/"))
    asked = serve(instance, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
    assert asked.startswith("HEAD / ")
    assert client.head().get("content-length") == "4"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ('If-None-Match: "a"', 304),
        ('If-None-Match: W/"a"', 304),
        ('If-None-Match: "b", "a"', 304),
        ("If-None-Match: *", 304),
        ('If-None-Match: "b"', 200),
    ],
)
def test_a_condition_is_answered_from_the_cache(start, instance, line, status):
    gateway = start(cached(instance))
    client = filled(gateway, instance, FRESH, 'ETag: "a"')
    head, body = ask(client, "/", line)
    assert (head.status, body) == (status, b"" if status == 304 else b"kept")
    assert head.get("etag") == '"a"'
    assert "age" in head
    head, body = ask(client)
    assert (head.status, body) == (200, b"kept")


def test_a_range_is_cut_from_what_is_held(start, instance):
    gateway = start(cached(instance))
    client = filled(gateway, instance, FRESH, 'ETag: "a"', body=b"0123456789" * 100)
    head, body = ask(client, "/", "Range: bytes=2-4")
    assert (head.status, body) == (206, b"234")
    assert head.get("content-range") == "bytes 2-4/1000"
    head, body = ask(client, "/", "Range: bytes=-3")
    assert (head.status, body) == (206, b"789")
    head, body = ask(client, "/", "Range: bytes=0-1,988-989")
    assert head.status == 206
    assert head.get("content-type").startswith("multipart/byteranges")
    assert b"01" in body
    assert b"89" in body
    head, _ = ask(client, "/", "Range: bytes=2000-")
    assert (head.status, head.get("content-range")) == (416, "bytes */1000")
    head, body = ask(client, "/", "Range: bytes=2-4", 'If-Range: "b"')
    assert (head.status, body) == (200, b"0123456789" * 100)


def test_what_is_stale_is_validated_and_served_anew(start, instance):
    gateway = start(cached(instance))
    client = filled(gateway, instance, "Cache-Control: max-age=0", 'ETag: "a"', "X-N: 1")
    client.send(get("/"))
    asked = serve(
        instance, f'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nX-N: 2\r\n{FRESH}\r\n\r\n'.encode()
    )
    assert 'if-none-match: "a"' in asked.lower()
    head, body = client.answer()
    assert (head.status, body, head.get("x-n")) == (200, b"kept", "2")
    assert "fwd=stale; fwd-status=304" in (head.get("cache-status") or "")
    head, _ = ask(client)
    assert "; hit" in (head.get("cache-status") or "")


def test_a_new_answer_to_a_validation_takes_the_place_of_the_old(start, instance):
    gateway = start(cached(instance))
    client = filled(gateway, instance, "Cache-Control: max-age=0", 'ETag: "a"')
    client.send(get("/"))
    serve(instance, response(b"newer", FRESH, 'ETag: "b"', dated()))
    assert client.answer()[1] == b"newer"
    assert ask(client)[1] == b"newer"


def test_a_clients_own_condition_does_not_hide_the_validation(start, instance):
    gateway = start(cached(instance))
    client = filled(gateway, instance, "Cache-Control: max-age=0", 'ETag: "a"')
    client.send(get("/", 'If-None-Match: "old"'))
    asked = serve(instance, f'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n{FRESH}\r\n\r\n'.encode())
    assert '"a"' in asked
    head, body = client.answer()
    assert (head.status, body) == (200, b"kept")


def test_stale_while_revalidate_answers_at_once_and_asks_behind(start, instance):
    gateway = start(cached(instance))
    client = filled(gateway, instance, "Cache-Control: max-age=0, stale-while-revalidate=60")
    head, body = ask(client)
    assert (head.status, body) == (200, b"kept")
    assert head.get("cache-status").startswith("headgate; hit; ttl=")
    # While that is under way nobody asks a second time.
    assert ask(client)[1] == b"kept"
    serve(instance, response(b"newer", FRESH, dated()))
    wait_until(lambda: ask(client)[1] == b"newer")
    assert instance.is_left_alone()
    assert instance.accepted[0].is_quiet()
    gateway.assert_settles()


@pytest.mark.parametrize("failing", ["status", "reset", "refused"])
def test_stale_if_error_stands_in_for_a_service_that_fails(start, instance, failing):
    gateway = start(cached(instance))
    client = filled(gateway, instance, "Cache-Control: max-age=0, stale-if-error=60")
    if failing == "refused":
        instance.accepted[0].close()
        instance.sock.close()
    client.send(get("/"))
    if failing == "status":
        serve(instance, response(b"sorry", status="500 Oops"))
    elif failing == "reset":
        instance.accepted[0].until(b"\r\n\r\n")
        instance.accepted[0].reset()
        # On a connection that was kept, a reset says nothing yet: it is asked once more.
        instance.accept().until(b"\r\n\r\n")
        instance.accepted[-1].reset()
    head, body = client.answer()
    assert (head.status, body) == (200, b"kept")
    assert gateway.count("headgate_cache_total", outcome="stale_on_error") == 1
    gateway.assert_settles()


def test_without_leave_to_be_stale_the_failure_is_told(start, instance):
    gateway = start(cached(instance))
    client = filled(gateway, instance, "Cache-Control: max-age=0, must-revalidate")
    instance.accepted[0].close()
    instance.sock.close()
    client.send(get("/"))
    assert client.answer()[0].status == 502
    gateway.assert_settles()


@pytest.mark.parametrize(
    "lines",
    [
        ("Cache-Control: no-store",),
        ("Cache-Control: private",),
        (FRESH, "Set-Cookie: a=b"),
        (FRESH, "Vary: *"),
        (FRESH, "Vary: X-Forwarded-For"),
    ],
    ids=["no-store", "private", "set-cookie", "vary-all", "vary-address"],
)
def test_what_is_for_one_client_is_not_kept(start, instance, lines):
    gateway = start(cached(instance))
    client = filled(gateway, instance, *lines)
    client.send(get("/"))
    serve(instance, response(b"mine", *lines))
    head, body = client.answer()
    assert (head.status, body) == (200, b"mine")
    assert "stored" not in (head.get("cache-status") or "")


def test_responses_differ_by_what_vary_names(start, instance):
    gateway = start(cached(instance))
    client = filled(
        gateway, instance, FRESH, "Vary: Accept-Language", asks=("Accept-Language: en",)
    )
    client.send(get("/", "Accept-Language: de"))
    serve(instance, response(b"behalten", FRESH, "Vary: Accept-Language", dated()))
    assert client.answer()[1] == b"behalten"
    assert ask(client, "/", "Accept-Language: en")[1] == b"kept"
    assert ask(client, "/", "Accept-Language:  DE ")[1] == b"behalten"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_an_unsafe_method_forgets_what_it_may_have_changed(start, instance, method):
    gateway = start(cached(instance))
    client = filled(gateway, instance, path="/item?a=1")
    client.send(request(method, "/item?a=1", body=b"x"))
    serve(instance, response(b"done"), mark=b"\r\n\r\nx")
    assert client.answer()[1] == b"done"
    client.send(get("/item?a=1"))
    serve(instance, response(b"newer", FRESH))
    assert client.answer()[1] == b"newer"


def test_an_unsafe_method_that_failed_forgets_nothing(start, instance):
    gateway = start(cached(instance))
    client = filled(gateway, instance)
    client.send(request("POST", "/", body=b"x"))
    serve(instance, response(b"no", status="409 Conflict"), mark=b"\r\n\r\nx")
    assert client.answer()[0].status == 409
    assert ask(client)[1] == b"kept"


def test_only_if_cached_asks_nobody(start, instance):
    gateway = start(cached(instance))
    head, _ = gateway.ask(get("/", "Cache-Control: only-if-cached"))
    assert head.status == 504
    assert instance.is_left_alone()
    client = filled(gateway, instance)
    assert ask(client, "/", "Cache-Control: only-if-cached")[0].status == 200


def test_a_request_that_says_no_store_leaves_nothing_behind(start, instance):
    gateway = start(cached(instance))
    client = gateway.client()
    client.send(get("/", "Cache-Control: no-store"))
    serve(instance, response(b"one", FRESH))
    assert client.answer()[1] == b"one"
    client.send(get("/"))
    serve(instance, response(b"two", FRESH))
    assert client.answer()[1] == b"two"


def test_a_body_on_a_get_is_never_answered_from_the_cache(start, instance):
    gateway = start(cached(instance))
    client = filled(gateway, instance)
    client.send(request("GET", "/", body=b"fat"))
    asked = serve(instance, response(b"other", FRESH), mark=b"fat")
    assert "content-length: 3" in asked.lower()
    assert client.answer()[1] == b"other"
    assert ask(client)[1] == b"kept"


def test_authorization_is_not_shared_unless_the_response_says_so(start, instance):
    gateway = start(cached(instance))
    client = filled(gateway, instance, asks=("Authorization: Bearer a",))
    client.send(get("/", "Authorization: Bearer b"))
    serve(instance, response(b"public", "Cache-Control: public, max-age=60", dated()))
    assert client.answer()[1] == b"public"
    assert ask(client, "/", "Authorization: Bearer c")[1] == b"public"


def test_a_body_too_long_to_be_kept_passes(start, instance):
    gateway = start(cached(instance, rules={"body_max": "1KB"}))
    client = filled(gateway, instance, body=b"x" * 2000)
    client.send(get("/"))
    serve(instance, response(b"y" * 2000, FRESH))
    assert client.answer()[1] == b"y" * 2000
    assert gateway.count("headgate_cache_total", outcome="stored") == 0


def test_a_body_that_turns_out_too_long_passes_whole(start, instance):
    gateway = start(cached(instance, rules={"body_max": "1KB"}))
    client = gateway.client()
    client.send(get("/"))
    serve(instance, f"HTTP/1.1 200 OK\r\n{FRESH}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    peer = instance.accepted[0]
    for _ in range(5):
        peer.send(b"400\r\n" + b"z" * 1024 + b"\r\n")
    peer.send(b"0\r\n\r\n")
    assert client.answer()[1] == b"z" * 5120
    client.send(get("/"))
    serve(instance, response(b"short", FRESH))
    assert client.answer()[1] == b"short"
    gateway.assert_settles()


def test_a_chunked_answer_is_kept_and_served_with_its_length(start, instance):
    gateway = start(cached(instance))
    client = gateway.client()
    client.send(get("/"))
    serve(instance, f"HTTP/1.1 200 OK\r\n{FRESH}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    instance.accepted[0].send(b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")
    assert client.answer()[1] == b"abcdef"
    head, body = ask(client)
    assert (head.get("content-length"), body) == ("6", b"abcdef")


def test_a_message_that_breaks_off_is_not_kept(start, instance):
    gateway = start(cached(instance))
    client = gateway.client()
    client.send(get("/"))
    serve(instance, f"HTTP/1.1 200 OK\r\n{FRESH}\r\nContent-Length: 10\r\n\r\nabc".encode())
    client.until(b"abc")
    instance.accepted[0].close()
    assert client.is_closed()
    client = gateway.client()
    client.send(get("/"))
    instance.accept()
    serve(instance, response(b"whole", FRESH))
    assert client.answer()[1] == b"whole"
    gateway.assert_settles()


def test_tag_headers_are_for_the_cache_alone(start, instance):
    gateway = start(cached(instance))
    client = filled(gateway, instance, FRESH, "Cache-Tag: a, b", "Surrogate-Key: c")
    head, _ = ask(client)
    assert "cache-tag" not in head
    assert "surrogate-key" not in head
    held = gateway.call(gateway.worker.cache_asked({"do": "inspect", "url": "http://h.example/"}))
    assert sorted(held["responses"][0]["tags"]) == ["a", "b", "c"]


def test_header_edits_hold_for_answers_from_the_cache(start, instance):
    edits = {"response": {"set": {"x-edge": "yes"}, "remove": ["x-inner"]}}
    gateway = start(cached(instance, headers=edits))
    client = filled(gateway, instance, FRESH, "X-Inner: no")
    head, _ = ask(client)
    assert head.get("x-edge") == "yes"
    assert "x-inner" not in head


def test_filters_see_every_answer_from_the_cache(start, instance):
    edits = {"response": {"set": {"x-asked": "{query.n}"}}}
    gateway = start(cached(instance, rules={"key": {"query": "none"}}, headers=edits))
    client = filled(gateway, instance, path="/?n=1")
    head, body = ask(client, "/?n=2")
    assert (head.get("x-asked"), body) == ("2", b"kept")
    assert instance.accepted[0].is_quiet()


def test_compression_comes_after_the_cache(start, instance):
    gateway = start(cached(instance, compress=True))
    body = b"a text that repeats itself, " * 100
    client = filled(gateway, instance, FRESH, "Content-Type: text/plain", body=body)
    head, got = ask(client, "/", "Accept-Encoding: gzip")
    assert head.get("content-encoding") == "gzip"
    assert len(got) < len(body)
    assert ask(client)[1] == body


def test_a_date_that_the_service_did_not_give_is_added_once(start, instance):
    gateway = start(cached(instance))
    client = gateway.client()
    client.send(get("/"))
    serve(instance, response(b"x", FRESH))
    first, _ = client.answer()
    head, _ = ask(client)
    assert head.all("date") == first.all("date")
    assert len(head.all("date")) == 1


def test_the_age_of_what_came_with_an_age_goes_on(start, instance):
    gateway = start(cached(instance))
    client = filled(gateway, instance, "Cache-Control: max-age=100", "Age: 40")
    head, _ = ask(client)
    assert int(head.get("age")) >= 40
    assert len(head.all("age")) == 1


def test_last_modified_makes_fresh_by_heuristic(start, instance):
    gateway = start(cached(instance))
    client = filled(gateway, instance, f"Last-Modified: {http_date(100_000)}")
    assert "; hit" in ask(client)[0].get("cache-status")


def test_a_ttl_of_the_route_makes_fresh_what_says_nothing(start, instance):
    gateway = start(cached(instance, rules="60s"))
    client = filled(gateway, instance, "X-Nothing: said")
    assert "; hit; ttl=" in ask(client)[0].get("cache-status")


def test_a_reload_keeps_what_is_held(start, instance):
    said = cached(instance)
    gateway = start(said)
    client = filled(gateway, instance)
    gateway.apply({**said, "response_time": False})
    assert "; hit" in ask(client)[0].get("cache-status")


def test_hits_are_answered_over_http2_as_well(start, instance):
    import httpx

    gateway = start(cached(instance))
    filled(gateway, instance, body=b"kept over h2")
    with httpx.Client(http1=False, http2=True) as client:
        got = client.get(
            f"http://127.0.0.1:{gateway.port()}/", headers={"host": "h.example"}, timeout=5
        )
    assert (got.status_code, got.content) == (200, b"kept over h2")
    assert "; hit" in got.headers["cache-status"]

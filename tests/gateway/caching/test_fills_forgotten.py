"""Changes and purges at every moment of a fill."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.caching.rig import (
    BEHIND,
    FRESH,
    HALF,
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
    Gateway,
    get,
    request,
    response,
    wait_until,
)

pytestmark = pytest.mark.integration


def purge(gateway: Gateway, stamp: int = 10, **what: Any) -> None:
    said = {"urls": ["http://h.example/"], **what, "stamp": stamp}
    gateway.call(gateway.worker.cache_asked({"do": "invalidate", "invalidation": said}))


@pytest.mark.parametrize("collapse", [True, False])
def test_a_change_reaches_fills_that_nobody_may_join(start, instance, collapse):
    gateway = start(cached(instance, rules={"collapse": collapse}))
    first = asked(gateway, "/", 'If-None-Match: "x"')
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    writer = gateway.client()
    writer.send(request("PUT", "/", body=b"x"))
    other = instance.accept()
    other.until(b"\r\n\r\nx")
    other.send(response(b"done"))
    assert writer.answer()[1] == b"done"
    peer.send(response(b"old", FRESH, dated()))
    assert first.answer()[1] == b"old"
    other.close()
    writer.send(get("/"))
    peer.until(b"\r\n\r\n")
    peer.send(response(b"new", FRESH))
    assert writer.answer()[1] == b"new"
    assert_all_given_back(gateway)


def test_a_validation_from_before_a_change_brings_nothing_back(start, instance):
    gateway = start(cached(instance))
    filled(gateway, instance, "Cache-Control: max-age=1", "Age: 100", 'ETag: "a"')
    first = asked(gateway)
    peer = instance.accepted[0]
    peer.until(b"\r\n\r\n")
    writer = gateway.client()
    writer.send(request("PUT", "/", body=b"x"))
    other = instance.accept()
    other.until(b"\r\n\r\nx")
    other.send(response(b"done"))
    assert writer.answer()[1] == b"done"
    peer.send(not_modified('ETag: "a"', FRESH))
    assert first.answer()[1] == b"kept"
    other.close()
    writer.send(get("/"))
    peer.until(b"\r\n\r\n")
    peer.send(response(b"new", FRESH))
    assert writer.answer()[1] == b"new"
    assert_all_given_back(gateway)


@pytest.mark.parametrize("target", ["/%69tem", "/a/../item", "/item"])
def test_a_change_is_of_the_url_however_it_is_written(start, instance, target):
    gateway = start(cached(instance))
    client = filled(gateway, instance, path="/item")
    client.send(request("DELETE", target))
    serve(instance, response(b"done"))
    client.answer()
    client.send(get("/item"))
    serve(instance, response(b"new", FRESH))
    assert client.answer()[1] == b"new"


@pytest.mark.parametrize("name", ["Location", "Content-Location"])
def test_a_change_names_further_urls(start, instance, name):
    gateway = start(cached(instance))
    client = filled(gateway, instance, path="/list")
    client.send(request("POST", "/new", "Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\n\r\n")
    serve(
        instance,
        response(b"", f"{name}: http://h.example/list", status="201 Created"),
        mark=b"0\r\n\r\n",
    )
    assert client.answer()[0].status == 201
    client.send(get("/list"))
    serve(instance, response(b"new", FRESH))
    assert client.answer()[1] == b"new"


def test_a_soft_purge_is_not_undone_by_the_next_request(start, instance):
    """Of two requests in one second, both hear of it."""
    gateway = start(cached(instance))
    client = filled(gateway, instance, FRESH, 'ETag: "a"')
    assert "; hit" in ask(client)[0].get("cache-status")
    assert "; hit" in ask(client)[0].get("cache-status")
    purge(gateway, soft=True)
    first, second = asked(gateway), asked(gateway)
    assert second.is_quiet()
    serve(instance, not_modified('ETag: "a"', FRESH))
    for each in (first, second):
        head, body = each.answer()
        assert (body, "fwd=stale" in (head.get("cache-status") or "")) == (b"kept", True)
    assert_all_given_back(gateway)


def test_a_purge_between_two_requests_on_one_connection(start, instance):
    gateway = start(cached(instance))
    client = filled(gateway, instance)
    for _ in range(3):
        assert ask(client)[1] == b"kept"
    purge(gateway)
    client.send(get("/"))
    serve(instance, response(b"new", FRESH, dated()))
    assert client.answer()[1] == b"new"


@pytest.mark.parametrize("what", ["url", "tag", "everything"])
@pytest.mark.parametrize("when", ["before the head", "in the body"])
def test_a_purge_in_the_middle_of_a_fill_behind(start, instance, what, when):
    gateway = start(cached(instance))
    client = filled(gateway, instance, BEHIND, "Cache-Tag: a")
    assert ask(client)[1] == b"kept"
    peer = instance.accepted[0]
    peer.until(b"\r\n\r\n")
    half = HALF.replace(b"\r\n\r\n", b"\r\nCache-Tag: a\r\n\r\n")
    if when == "in the body":
        peer.send(half)
    wanted: dict[str, Any] = {
        "url": {},
        "tag": {"urls": [], "tags": ["a"]},
        "everything": {"urls": [], "everything": "responses"},
    }
    purge(gateway, **wanted[what])
    peer.send(b"uvw" if when == "in the body" else half + b"uvw")
    wait_until(lambda: gateway.in_flight == 0)
    client.send(get("/"))
    peer.until(b"\r\n\r\n")
    peer.send(response(b"new", FRESH))
    assert client.answer()[1] == b"new"
    assert_all_given_back(gateway)


def test_what_was_purged_does_not_stand_in_for_an_error(start, instance):
    gateway = start(cached(instance))
    filled(gateway, instance, "Cache-Control: max-age=0, stale-if-error=60")
    client = asked(gateway)
    peer = instance.accepted[0]
    peer.until(b"\r\n\r\n")
    purge(gateway)
    peer.send(response(b"", status="503 Busy"))
    assert client.answer()[0].status == 503

"""URLs that are one to the cache are one to a change as well."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.cache.http.rules import KeyRules
from headgate.gateway.caching import spellings
from headgate.gateway.caching.spellings import Spellings, name_of
from tests.gateway.caching.rig import FRESH, cached, dated, filled, serve
from tests.gateway.given_back import assert_all_given_back
from tests.gateway.rig import get, request, response, wait_until

URL = "http://h.example/a"


@pytest.mark.parametrize(
    ("rules", "one", "other", "same"),
    [
        (KeyRules(), "?b=1&a=2", "?a=2&b=1", True),
        (KeyRules(), "?a=1", "?a=2", False),
        (KeyRules(), "", "?", True),
        (KeyRules(query="all"), "?b=1&a=2", "?a=2&b=1", False),
        (KeyRules(query="none"), "?a=1", "", True),
        (KeyRules(query_only=("a",)), "?a=1&b=1", "?b=2&a=1", True),
        (KeyRules(query_only=("a",)), "?a=1", "?a=2", False),
        (KeyRules(query_without=("utm_*",)), "?a=1&utm_x=2", "?a=1", True),
    ],
    ids=["order", "value", "empty", "as-is", "none", "only", "only-value", "without"],
)
def test_urls_have_one_name_if_they_share_a_key(rules, one, other, same):
    if not one:
        # An empty query is not none.
        assert name_of(URL, rules) != name_of(f"{URL}?", rules)
    else:
        assert (name_of(URL + one, rules) == name_of(URL + other, rules)) == same


def test_a_host_that_does_not_count_is_not_in_the_name():
    rules = KeyRules(host=False)
    assert name_of("http://a.example/x?b=1", rules) == name_of("http://b.example/x?b=1", rules)
    assert name_of("http://a.example/x", rules) != name_of("https://a.example/x", rules)


def test_what_is_its_own_name_is_not_noted():
    noted = Spellings()
    assert noted.note(URL, URL) == ()
    assert len(noted) == 0
    assert noted.of([URL]) == (URL,)


def test_notes_are_bounded_and_say_what_they_lost(monkeypatch):
    monkeypatch.setattr(spellings, "_MOST", 3)
    noted = Spellings()
    lost = [noted.note(f"{URL}?x={number}", f"n{number}") for number in range(5)]
    assert lost == [(), (), (), (f"{URL}?x=0",), (f"{URL}?x=1",)]
    assert len(noted) == 3
    assert noted.of(["n4"]) == ("n4", f"{URL}?x=4")


def test_one_name_has_a_bound_of_its_own(monkeypatch):
    monkeypatch.setattr(spellings, "_MOST_OF_ONE", 2)
    noted = Spellings()
    lost = [noted.note(f"{URL}?x={number}", URL) for number in range(4)]
    assert lost == [(), (), (f"{URL}?x=0",), (f"{URL}?x=1",)]
    assert len(noted) == 2


def test_notes_of_what_is_gone_are_swept_out():
    noted = Spellings()
    for number in range(10):
        noted.note(f"{URL}?x={number}", f"n{number % 5}")
    noted.sweep(lambda url: url.endswith(("1", "6", "7")), most=3)
    noted.sweep(lambda url: url.endswith(("1", "6", "7")), most=3)
    assert len(noted) == 3
    assert noted.of(["n1"]) == ("n1", f"{URL}?x=1", f"{URL}?x=6")


# -- on a running gateway

CASES: dict[str, tuple[Any, str, str]] = {
    "order": (True, "/?b=1&a=2", "/?a=2&b=1"),
    "without": ({"key": {"query": {"without": ["utm_*"]}}}, "/?utm_x=1", "/"),
    "none": ({"key": {"query": "none"}}, "/?a=1", "/?b=2"),
}


@pytest.mark.integration
@pytest.mark.parametrize("which", CASES)
@pytest.mark.parametrize("when", ["held", "under way"])
def test_a_change_in_one_spelling_is_one_in_all(start, instance, which, when):
    rules, path, changed = CASES[which]
    gateway = start(cached(instance, rules=rules))
    if when == "held":
        client = filled(gateway, instance, path=path)
        client.send(request("PUT", changed, body=b"x"))
        serve(instance, response(b"done"), mark=b"\r\n\r\nx")
        assert client.answer()[1] == b"done"
        peer = instance.accepted[0]
    else:
        client = gateway.client()
        client.send(get(path))
        peer = instance.accept()
        peer.until(b"\r\n\r\n")
        writer = gateway.client()
        writer.send(request("PUT", changed, body=b"x"))
        other = instance.accept()
        other.until(b"\r\n\r\nx")
        other.send(response(b"done"))
        assert writer.answer()[1] == b"done"
        other.close()
        peer.send(response(b"old", FRESH, dated()))
        assert client.answer()[1] == b"old"
        wait_until(lambda: gateway.pool.open == 1)
    client.send(get(path))
    peer.until(b"\r\n\r\n")
    peer.send(response(b"new", FRESH))
    assert client.answer()[1] == b"new"
    assert_all_given_back(gateway)


@pytest.mark.integration
def test_a_change_at_one_host_is_one_at_all_that_share_responses(start, instance):
    gateway = start(cached(instance, rules={"key": {"host": False}}))
    client = filled(gateway, instance)
    client.send(request("PUT", "/", body=b"x", host="other.example"))
    serve(instance, response(b"done"), mark=b"\r\n\r\nx")
    client.answer()
    client.send(get("/"))
    serve(instance, response(b"new", FRESH))
    assert client.answer()[1] == b"new"

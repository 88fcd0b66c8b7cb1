"""The key of a response: what it is made of, and that it costs a hit next to nothing."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.cache.http.rules import KeyRules
from headgate.gateway.caching import key as module
from headgate.gateway.caching.key import compile_cache_key, query_of_key
from headgate.security.identity import Identity
from headgate.wire.message import RequestHead
from tests.gateway.caching.key_rig import exchange, get, key_of, read, route, site, url


def test_a_key_can_be_read():
    found = key_of(get("/list?b=2&a=1"))
    assert found is not None
    where, _, rest = found.partition(" ")
    assert where == "http://shop.example/list?a=1&b=2"
    assert rest.endswith("9:/ -> shop4:shop")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/", "/"),
        ("/list?b=2&a=1", "/list?b=2&a=1"),
        ("/list?", "/list?"),
        ("/%7eanna?%7e", "/~anna?%7e"),
    ],
)
def test_a_url_is_what_was_asked_for(target, expected):
    assert url(get(target)) == f"http://shop.example{expected}"
    assert url(get(target), scheme="https") == f"https://shop.example{expected}"


def test_the_url_behind_a_trusted_proxy_has_the_scheme_that_the_client_spoke():
    raw = get("/", "X-Forwarded-Proto: https")
    assert url(raw, proxy=site("10.0.0.0/8")) == "https://shop.example/"
    assert url(raw) == "http://shop.example/"


@pytest.mark.parametrize(
    ("rules", "query", "expected"),
    [
        (KeyRules(), "", ""),
        (KeyRules(), "b&a=&b=1", "a=&b&b=1"),
        (KeyRules(), "&&", "&&"),
        (KeyRules(), "a=%e4%7E", "a=%E4~"),
        (KeyRules(query="all"), "b=%7e&a", "b=%7e&a"),
        (KeyRules(query="all", query_without=("x",)), "b=%7e&x=1&a", "b=%7e&a"),
        (KeyRules(query="all", query_only=("b", "a")), "b=%7e&x=1&a", "b=%7e&a"),
        (KeyRules(query="none"), "a=1", None),
        (KeyRules(query_only=("a*",)), "b=1&ab=2&a=3", "a=3&ab=2"),
        (KeyRules(query_only=("*",)), "b=1&a=3", "a=3&b=1"),
        (KeyRules(query_without=("*",)), "b=1&a=3", None),
        (KeyRules(query_without=("a",)), "", ""),
        (KeyRules(query_only=("a",)), "", None),
        (KeyRules(query_only=("filter[x]",)), "filter[y]=1&z=2", "filter[y]=1"),
        (KeyRules(query_without=("a",)), "a", None),
    ],
)
def test_what_of_a_query_counts(rules, query, expected):
    assert query_of_key(query, rules) == expected


PIECES = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "A", "a[]", "%61", "a.b", "a_b", "c", "", "a;b", "ä"]),
        st.sampled_from(["", "=", "=1", "=2", "=%31", "=;", "=?"]),
    ),
    max_size=6,
)


@given(PIECES, PIECES)
def test_queries_of_one_key_say_the_same_of_every_name(one, other):
    first, second = ("&".join(map("".join, pieces)) for pieces in (one, other))
    if query_of_key(first, KeyRules()) != query_of_key(second, KeyRules()):
        return

    def by_name(query: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, value in parse_qsl(query, keep_blank_values=True):
            found.setdefault(name.lower().partition("[")[0].replace(".", "_"), []).append(value)
        return found

    assert by_name(first) == by_name(second)


@given(st.permutations(["a=1", "b=2", "c", "d=4", "e=%2f"]), st.booleans())
def test_the_order_of_different_names_does_not_count(pieces, is_upper):
    query = "&".join(pieces)
    query = query.replace("%2f", "%2F") if is_upper else query
    assert query_of_key(query, KeyRules()) == "a=1&b=2&c&d=4&e=%2F"


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60))
def test_what_counts_of_a_query_counts_the_same_once_more(query):
    for rules in (
        KeyRules(),
        KeyRules(query="all"),
        KeyRules(query_without=("a*", "b")),
        KeyRules(query_only=("a*", "b")),
    ):
        once = query_of_key(query, rules)
        assert once is None or query_of_key(once, rules) in (once, None)


def test_a_head_is_read_once(monkeypatch):
    rules = KeyRules(headers=("x-a",), cookies=("c",))
    ex = exchange(read(get("/list?b=1&a=2", "X-A: 1", "Cookie: c=1")))
    key = compile_cache_key(rules)
    first = key(ex)

    def never(*_: object) -> None:
        raise AssertionError("asked again")

    for name in ("query_of_key", "origin_of", "measured_key", "_deciding"):
        monkeypatch.setattr(module, name, never)
    assert key(ex) is first


def test_that_a_head_has_no_key_is_remembered_too(monkeypatch):
    ex = exchange(read(get(method="POST")))
    key = compile_cache_key(KeyRules())
    assert key(ex) is None
    monkeypatch.setattr(module, "_has_query", None)
    assert key(ex) is None


def test_two_routes_that_know_one_head_do_not_share_its_memo():
    ex = exchange(read(get("/?a=1")))
    one, other = compile_cache_key(KeyRules()), compile_cache_key(KeyRules(query="none"))
    assert one(ex) != other(ex)
    assert one(ex) != other(ex)


def test_who_asks_is_read_anew_each_time():
    ex = exchange(read(get()), identity=Identity("anna"))
    key = compile_cache_key(KeyRules(user=True))
    hers = key(ex)
    ex.identity = Identity("bob")
    his = key(ex)
    ex.identity = None
    assert key(ex) is None
    assert None not in (hers, his)
    assert hers != his


def test_a_request_that_leads_nowhere_has_no_key():
    ex = exchange(read(get()))
    ex.service = None
    assert compile_cache_key(KeyRules())(ex) is None
    ex = exchange(read(get()), route=None)
    assert compile_cache_key(KeyRules())(ex) is None


def test_head_and_get_share_a_key():
    assert key_of(get(method="HEAD")) == key_of(get())


def test_without_the_host_all_hosts_share():
    rules = KeyRules(host=False)
    assert key_of(get(host="a.example"), rules) == key_of(get(host="b.example"), rules)


def test_a_long_key_differs_by_every_part():
    long = "/" + "a" * 600
    found = {
        key_of(get(long)),
        key_of(get(long + "b")),
        key_of(get(long), scheme="https"),
        key_of(get(long), route=route("other")),
        key_of(get(long), KeyRules(query="all")),
    }
    assert len(found) == 5
    assert all(key is not None and key.startswith("#") for key in found)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"x-a", b"x_a", b"cookie", b"x-original-url", b"forwarded", b"x-b"]),
            st.binary(max_size=40),
        ),
        max_size=8,
    ),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40),
)
def test_no_head_breaks_it(fields, query):
    head = RequestHead("GET", "shop.example", "shop.example", "/", query, tuple(fields))
    head.has_query = query != ""
    rules = KeyRules(headers=("x-a",), cookies=("c",), query_without=("a*",))
    proxy = site("10.0.0.0/8", forwarded=True)
    for more in ({}, {"proxy": proxy}):
        found = key_of(head, rules, **more)
        assert found is not None
        assert len(found) <= module.KEY_MAX

"""What an operator may say, and what it fits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from headgate.cache.barriers import Barriers, Standing
from headgate.cache.http.invalidating import invalidated_by
from headgate.cache.invalidation import Invalidation
from headgate.gateway.caching.key import url_of
from headgate.gateway.caching.purging import (
    BadPurge,
    Fitting,
    normal_url,
    purge_of,
)
from tests.gateway.caching.key_rig import Refused, exchange, get, read


def asked_for(said: dict[str, Any]) -> Invalidation:
    lists = ("url", "prefix", "pattern", "tags")
    listed: dict[str, Any] = {
        name: (value,) if name in lists and isinstance(value, str) else value
        for name, value in said.items()
    }
    return purge_of(**listed)


@pytest.mark.parametrize(
    ("said", "normal"),
    [
        ("https://Shop.Example/a?B=1", "https://shop.example/a?B=1"),
        ("HTTPS://shop.example:443/a", "https://shop.example/a"),
        ("http://shop.example:443/a", "http://shop.example:443/a"),
        ("http://shop.example:80", "http://shop.example/"),
        ("http://shop.example?a=1", "http://shop.example/?a=1"),
        ("http://shop.example/a?", "http://shop.example/a?"),
        ("http://shop.example/a#part", "http://shop.example/a"),
        ("http://[2001:DB8:0::1]:8080/a", "http://[2001:db8::1]:8080/a"),
        ("https://shop.example./a", "https://shop.example/a"),
        ("https://shop.example/straße", "https://shop.example/stra%C3%9Fe"),
        ("https://shop.example/a%2Fb", "https://shop.example/a%2Fb"),
        ("https://shop.example/%7Eada/a%2fb?c=%7e", "https://shop.example/~ada/a%2Fb?c=%7e"),
        ("https://shop.example/a/./b/../c", "https://shop.example/a/c"),
        ("/A?b=1", "/A?b=1"),
        ("/%41", "/A"),
    ],
)
def test_urls_are_written_one_way(said: str, normal: str) -> None:
    assert normal_url(said) == normal
    assert normal_url(normal) == normal


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({}, "nothing to purge"),
        ({"url": ""}, "not empty"),
        ({"url": [5]}, "expected a text"),
        ({"url": "shop.example/a"}, "write https://host/path"),
        ({"url": "//shop.example/a"}, "write https://host/path"),
        ({"url": "ftp://shop.example/a"}, "write https://host/path"),
        ({"url": "https://"}, "write https://host/path"),
        ({"url": "https://h:99999/a"}, "port"),
        ({"url": "https://[::1/a"}, "is not a URL"),
        ({"url": "https://u:p@h/a"}, "leave them out"),
        ({"url": "/a b"}, "%20"),
        ({"url": "/a\nb"}, "control character"),
        ({"url": "/a*"}, "as a prefix or a pattern"),
        ({"url": "/" + "a" * 3000}, "longer than 2048"),
        ({"url": "/" + "ß" * 1000}, "longer than 2048"),
        ({"url": "/a%7"}, "cut short"),
        ({"url": "https://h/../a"}, "leaves the root"),
        ({"url": "https://straße.example/"}, "written xn--"),
        ({"url": "https://127.1/"}, "no request has the host"),
        ({"prefix": "/a*b"}, "as a pattern"),
        ({"prefix": "*"}, "not empty"),
        ({"pattern": "/a"}, "say it as a url"),
        ({"pattern": "*a" * 20}, "more than 10"),
        ({"tags": "a b"}, "encode it"),
        ({"tags": [f"t{n}" for n in range(1001)]}, "send several"),
    ],
    ids=range(25),
)
def test_what_is_wrong_is_said_with_the_way_out(said: Any, why: str) -> None:
    with pytest.raises(BadPurge, match=".") as wrong:
        asked_for(said)
    assert why in str(wrong.value)


def test_a_password_is_not_in_the_error() -> None:
    with pytest.raises(BadPurge) as wrong:
        asked_for({"url": "https://me:hunter2@h/a"})
    assert "hunter2" not in str(wrong.value)


def test_all_of_it_comes_into_one_invalidation() -> None:
    asked = asked_for(
        {
            "url": ["https://H/a", "/b"],
            "prefix": "https://H/c/*",
            "pattern": ["/*.png", "https://*.H/x?*"],
            "tags": ["t", "t", "u"],
            "soft": True,
            "by": "ops",
        },
    )
    assert asked == Invalidation(
        urls=("https://h/a", "/b", "https://h/c/*", "/*.png", "https://*.h/x?*"),
        tags=("t", "u"),
        soft=True,
        by="ops",
    )


@pytest.mark.parametrize(
    ("asked", "url", "fits"),
    [
        ({"url": "https://h/a"}, "https://h/a", True),
        ({"url": "https://h/a"}, "https://h/a?b", False),
        ({"url": "https://h/a"}, "http://h/a", False),
        ({"url": "/a"}, "http://other:81/a", True),
        ({"url": "/a"}, "http://other/b/a", False),
        ({"prefix": "https://h/p/*"}, "https://h/p/q?r", True),
        ({"prefix": "https://h/p/"}, "https://h/p/", True),
        ({"prefix": "https://h/p/"}, "https://h/p", False),
        ({"prefix": "https://h"}, "https://h/x", True),
        ({"prefix": "https://h"}, "https://h.evil/x", False),
        ({"prefix": "/p*"}, "https://h/pq", True),
        ({"prefix": "/p*"}, "https://h/a/pq", False),
        ({"pattern": "*.png"}, "https://h/a.png", True),
        ({"pattern": "*.png"}, "https://h/a.png?1", False),
        ({"pattern": "/*/b/*"}, "https://h/a/b/c", True),
        ({"pattern": "https://*.h/*"}, "https://x.h/", True),
        ({"pattern": "/a.b*"}, "https://h/axb", False),
        ({"tags": "t"}, "https://h/", True),
        ({"tags": "u"}, "https://h/", False),
        ({"everything": "responses"}, "https://h/", True),
        ({"everything": "all"}, "https://h/", True),
        ({"everything": "objects"}, "https://h/", False),
    ],
    ids=range(22),
)
def test_what_it_fits(asked: dict[str, Any], url: str, fits: bool) -> None:
    assert Fitting(asked_for(asked)).fits(url, ("t",)) is fits


@given(st.text(max_size=40))
def test_any_url_is_normal_once_it_was_made_so(said: str) -> None:
    for start in ("https://h", "http://h/", "/", ""):
        try:
            once = normal_url(start + said)
        except BadPurge:
            continue
        assert normal_url(once) == once


HOSTS = st.sampled_from(
    ["h", "Shop.Example", "shop.example.", "h:80", "h:443", "h:8080", "h:", "h:0443", "127.0.0.1",
     "[2001:DB8:0::1]", "[::1]:443", "[::ffff:1.2.3.4]:80"]
)  # fmt: skip
TARGETS = st.lists(
    st.sampled_from(["/", ".", "..", "a", "%7E", "%7e", "%2f", "%2F", "%41", "?", "&b=", ";", "*", "//"]
                    ) | st.text(alphabet="aZ0~!$'()+,:@%-_", max_size=3), max_size=8
).map(lambda pieces: "/" + "".join(pieces))  # fmt: skip


@given(st.sampled_from(["http", "https"]), HOSTS, TARGETS)
def test_the_url_of_a_request_is_normal_already(scheme: str, host: str, target: str) -> None:
    """So that a purge of what is kept finds it."""
    try:
        head = read(get(target, host=host), scheme)
    except Refused:
        assume(False)
    kept = url_of(exchange(head))
    assert normal_url(kept) == kept
    if not target.startswith("//"):
        assert normal_url(f"{scheme}://{host}{target}") == kept


@given(st.sampled_from(["http", "https"]), HOSTS, TARGETS)
def test_what_a_change_voids_is_normal_already(scheme: str, host: str, target: str) -> None:
    try:
        kept = url_of(exchange(read(get("/start", host=host), scheme)))
    except Refused:
        assume(False)
    authority = kept.partition("://")[2].partition("/")[0]
    location = (b"location", target.encode())
    for url in invalidated_by("POST", 200, scheme, authority, "/start", [location]):
        assert normal_url(url) == url


NAMED_URLS = st.sampled_from(
    ["https://h/a", "https://h/a/b", "https://h/", "https://h", "https://h:81/a", "http://h/a?b=/a",
     "https://h/a?", "/a", "/", "/a/b", "h/a", "", "https://i/b"]
)  # fmt: skip
GLOBS = st.sampled_from(
    [
        "*",
        "/*",
        "/a*",
        "/*b",
        "https://h/*",
        "https://*",
        "*a",
        "*.png",
        "https://h*",
        "/a?b=*",
        "**",
    ]
)


@given(
    st.builds(
        Invalidation,
        urls=st.lists(NAMED_URLS.filter(bool) | GLOBS, max_size=4).map(tuple),
        tags=st.lists(st.sampled_from(["t", "u"]), max_size=2).map(tuple),
        everything=st.sampled_from(["", "", "", "objects", "responses", "all"]),
        stamp=st.just(1),
    ),
    NAMED_URLS,
    st.lists(st.sampled_from(["t", "u", "v"]), max_size=2),
)
def test_what_it_fits_is_what_its_barrier_strikes(
    asked: Invalidation, url: str, tags: list[str]
) -> None:
    barriers = Barriers("responses")
    barriers.raise_for(asked)
    assert Fitting(asked).fits(url, tags) is (barriers.judge(url, tags, 0) is Standing.DEAD)

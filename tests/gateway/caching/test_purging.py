"""What an operator may say, and what it fits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.cache.invalidation import Invalidation
from headgate.gateway.caching.purging import (
    BadPurge,
    Fitting,
    normal_url,
    path_of,
    purge_of,
    read_purge,
)


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
        ("http://[2001:DB8::1]:8080/a", "http://[2001:db8::1]:8080/a"),
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
        ([], "expected an object"),
        ("everything", "expected an object"),
        ({"urls": ["/a"]}, 'did you mean "url"'),
        ({"zzz": 1}, "known are url, prefix"),
        ({"url": ""}, "not empty"),
        ({"url": 5}, "a text or a list"),
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
        ({"prefix": "/a*b"}, "as a pattern"),
        ({"prefix": "*"}, "not empty"),
        ({"pattern": "/a"}, "say it as a url"),
        ({"pattern": "*a" * 20}, "more than 10"),
        ({"tags": "a b"}, "encode it"),
        ({"tags": {"a": 1}}, "a text or a list"),
        ({"tags": [f"t{n}" for n in range(1001)]}, "send several"),
        ({"tags": ["a"], "soft": 1}, "true or false"),
        ({"everything": "all of it"}, "everything: expected"),
        ({"everything": False}, "nothing to purge"),
    ],
    ids=range(32),
)
def test_what_is_wrong_is_said_with_the_way_out(said: Any, why: str) -> None:
    with pytest.raises(BadPurge, match=".") as wrong:
        read_purge(said)
    assert why in str(wrong.value)


def test_a_password_is_not_in_the_error() -> None:
    with pytest.raises(BadPurge) as wrong:
        read_purge({"url": "https://me:hunter2@h/a"})
    assert "hunter2" not in str(wrong.value)


def test_all_of_it_comes_into_one_invalidation() -> None:
    asked = read_purge(
        {
            "url": ["https://H/a", "/b"],
            "prefix": "https://H/c/*",
            "pattern": ["/*.png", "https://*.H/x?*"],
            "tags": ["t", "t", "u"],
            "soft": True,
        },
        by="ops",
    )
    assert asked == Invalidation(
        urls=("https://h/a", "/b", "https://h/c/*", "/*.png", "https://*.h/x?*"),
        tags=("t", "u"),
        soft=True,
        by="ops",
    )


def test_everything_means_the_responses_unless_more_is_said() -> None:
    assert read_purge({"everything": True}).everything == "responses"
    assert read_purge({"everything": "all"}).everything == "all"
    assert purge_of(everything="all").everything == "all"


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
        ({"everything": True}, "https://h/", True),
        ({"everything": "objects"}, "https://h/", False),
    ],
    ids=range(21),
)
def test_what_it_fits(asked: dict[str, Any], url: str, fits: bool) -> None:
    assert Fitting(read_purge(asked)).fits(url, ("t",)) is fits


def test_a_path_is_what_stands_behind_the_host() -> None:
    assert path_of("https://h:1/a?b=/c") == "/a?b=/c"
    assert path_of("https://h") == "/"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=30),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["url", "prefix", "pattern", "tags", "everything", "soft", "x"]),
                inner,
                max_size=3,
            )
        ),
        max_leaves=8,
    )
)
def test_any_json_is_read_or_declined(said: Any) -> None:
    try:
        asked = read_purge(said)
    except BadPurge:
        return
    assert Invalidation.from_json(asked.to_json()) == asked


@given(st.text(max_size=40))
def test_any_url_is_normal_once_it_was_made_so(said: str) -> None:
    for start in ("https://h", "http://h/", "/", ""):
        try:
            once = normal_url(start + said)
        except BadPurge:
            continue
        assert normal_url(once) == once

"""What is said to caches, and when nothing has changed: the rules by themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.cache.asgi_rules import (
    IMMUTABLE,
    PERSONAL,
    CacheRule,
    etag_of,
    is_hashed,
    is_unmodified,
    merged_vary,
    not_modified,
    spoken,
)
from headgate.cache.http.etags import is_strong

HTML, SSE = b"text/html; charset=utf-8", b"text/event-stream"
RULES = (
    CacheRule("public, max-age=60", path="/catalogue/*"),
    CacheRule("private, max-age=30", path="/me/*"),
    CacheRule("max-age=3600", content_type="image/*"),
    CacheRule("public, max-age=5", status=(404, 410)),
    CacheRule("no-store", path="/secret"),
)


@pytest.mark.parametrize(
    "path,status,kind,is_personal,has_cookie,expected",
    [
        ("/catalogue/1", 200, HTML, False, False, "public, max-age=60"),
        ("/catalogue/1", 304, b"", False, False, "public, max-age=60"),
        ("/catalogue/1", 206, HTML, False, False, "public, max-age=60"),
        ("/catalogue/1", 500, HTML, False, False, "no-store"),
        ("/catalogue/1", 200, HTML, True, False, PERSONAL),
        ("/catalogue/1", 200, HTML, False, True, "public, max-age=60"),
        ("/me/x", 200, HTML, True, True, "private, max-age=30"),
        ("/a.png", 200, b"IMAGE/png", False, False, "max-age=3600"),
        ("/a.png", 200, b"image/png", True, False, PERSONAL),
        ("/none", 404, HTML, False, False, "public, max-age=5"),
        ("/secret", 200, HTML, True, False, "no-store"),
        ("/", 200, HTML, False, False, "no-cache"),
        ("/", 301, HTML, False, False, "no-cache"),
        ("/", 403, HTML, False, False, "no-cache"),
        ("/", 200, HTML, True, False, PERSONAL),
        ("/", 200, HTML, False, True, PERSONAL),
        ("/events", 200, SSE, False, False, "no-store"),
        ("/app.3f2a9c1d.js", 200, b"text/javascript", False, True, IMMUTABLE),
        (
            "/app.3f2a9c1d.js",
            200,
            b"text/javascript",
            True,
            False,
            IMMUTABLE.replace("public", "private"),
        ),
        ("/app.3f2a9c1d.js", 200, HTML, False, False, "no-cache"),
        ("/app.3f2a9c1d.js", 404, HTML, False, False, "public, max-age=5"),
    ],
    ids=str,
)
def test_what_a_response_without_a_word_of_its_own_says(
    path, status, kind, is_personal, has_cookie, expected
):
    got = spoken(
        RULES,
        path.encode(),
        status,
        kind,
        default="no-cache",
        immutable=True,
        is_personal=is_personal,
        has_cookie=has_cookie,
    )
    assert got == expected


def test_without_a_default_only_rules_speak():
    said = {"default": None, "immutable": True, "is_personal": True, "has_cookie": True}
    assert spoken(RULES, b"/", 200, HTML, **said) is None  # type: ignore[arg-type]
    assert spoken(RULES, b"/catalogue/", 200, HTML, **said) == PERSONAL  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["", "no-cache\r\nx: y", "später"], ids=["none", "lines", "not-ascii"]
)
def test_a_rule_that_is_no_header_is_refused(text):
    with pytest.raises(ValueError, match="directives"):
        CacheRule(text)
    with pytest.raises(ValueError, match=r"\(200,\)"):
        CacheRule("no-cache", status=200)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path,expected",
    [
        ("/assets/index-BdX3kq2Z.js", True),
        ("/static/main.3f2a9c1d.css", True),
        ("/static/main.3f2a9c1d.min.js", True),
        ("/logo-9e107d9d372bb6826bd81d3542a419d6.png", True),
        ("/3f2a9c1d.js", False),
        ("/report-20240101.png", False),
        ("/photo-iPhone15.png", False),
        ("/annual-summaries.css", False),
        ("/deadbeef.js", False),
        ("/x-deadbeef.js", False),
        ("/app.3f2a9c1d.html", False),
        ("/3f2a9c1d/app.js", False),
        ("/app.3f2a9c1.js", False),
        ("/" + "a-" * 400 + "3f2a9c1d.js", False),
        ("/", False),
    ],
    ids=str,
)
def test_a_hash_in_a_name_is_told_from_what_a_person_writes(path, expected):
    assert is_hashed(path.encode()) is expected


@pytest.mark.parametrize(
    "present,added,expected",
    [
        (None, (), None),
        (None, ("Accept",), b"Accept"),
        (b"accept-encoding", ("Accept-Encoding", "Accept"), b"accept-encoding, Accept"),
        (b"*", ("Accept",), b"*"),
        (b"a,, A ,b", (), b"a, b"),
    ],
    ids=["nothing", "new", "same", "star", "twice"],
)
def test_vary_is_merged(present, added, expected):
    assert merged_vary(present, added) == expected


LM = b"Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    "none_match,since,headers,expected",
    [
        (b'"a"', None, [(b"etag", b'"a"')], True),
        (b'W/"a"', None, [(b"etag", b'"a"')], True),
        (b'"b", "a"', None, [(b"etag", b'W/"a"')], True),
        (b"*", None, [], True),
        (b'"b"', LM, [(b"etag", b'"a"'), (b"last-modified", LM)], False),
        (b'"a"', None, [(b"last-modified", LM)], False),
        (b"garbage", None, [(b"etag", b'"a"')], False),
        (None, LM, [(b"last-modified", LM)], True),
        (None, b"Sun, 06 Nov 1994 08:49:36 GMT", [(b"last-modified", LM)], False),
        (None, b"yesterday", [(b"last-modified", LM)], False),
        (None, LM, [(b"last-modified", b"never")], False),
        (None, LM, [(b"etag", b'"a"')], False),
        (None, LM + b", " + LM, [(b"last-modified", LM)], False),
        (None, None, [(b"etag", b'"a"')], False),
    ],
    ids=str,
)
def test_conditions_are_judged_in_order(none_match, since, headers, expected):
    assert is_unmodified(none_match, since, headers, 1.7e9) is expected


@given(st.lists(st.binary(), max_size=4), st.booleans())
def test_an_etag_is_of_the_bytes_however_they_are_cut(parts, is_weak):
    headers = [(b"content-type", b"a/b")]
    tag = etag_of(parts, headers, is_weak=is_weak)
    assert tag == etag_of([b"".join(parts)], headers, is_weak=is_weak)
    assert is_strong(tag) is not is_weak
    assert tag != etag_of([*parts, b"x"], headers, is_weak=is_weak)
    assert tag != etag_of(parts, [(b"content-type", b"a/c")], is_weak=is_weak)


def test_a_304_has_no_word_of_the_content():
    headers = [
        (b"content-type", HTML),
        (b"content-length", b"5"),
        (b"etag", b'"a"'),
        (b"last-modified", LM),
        (b"vary", b"accept"),
        (b"cache-control", b"no-cache"),
        (b"content-location", b"/x"),
        (b"set-cookie", b"a=b"),
        (b"access-control-allow-origin", b"*"),
    ]
    names = [name for name, _ in not_modified(headers)]
    assert names == [
        b"etag",
        b"vary",
        b"cache-control",
        b"content-location",
        b"set-cookie",
        b"access-control-allow-origin",
    ]
    assert not_modified(headers[3:4]) == headers[3:4], "without an ETag it guides a cache"

"""Invalidation (RFC 9111 4.4), `Cache-Status` (RFC 9211)."""

from __future__ import annotations

import pytest

from headgate.cache.http.invalidating import invalidated_by
from headgate.cache.http.status_field import appended, member
from headgate.cache.http.tags import shown
from tests.cache.http.rig import ask_rules, fields


def voided(
    method: str = "POST",
    status: int = 200,
    *lines: str,
    authority: str = "a.example",
    scheme: str = "https",
) -> tuple[str, ...]:
    return invalidated_by(method, status, scheme, authority, "/x/y?q=1", fields(*lines))


OWN = "https://a.example/x/y?q=1"


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "PURGE", "FOO", "post"]
)
@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 301, 303, 304, 399])
def test_4_4_no_error_to_an_unsafe_or_unknown_method(method: str, status: int) -> None:
    assert voided(method, status) == (OWN,)


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY"]
)
def test_4_4_a_safe_method_voids_nothing(method: str) -> None:
    assert voided(method, 200, "Location: /z") == ()


@pytest.mark.parametrize("status", [100, 199, 400, 403, 404, 412, 500, 503, 599])
def test_4_4_an_error_voids_nothing(status: int) -> None:
    assert voided("POST", status, "Location: /z") == ()


@pytest.mark.parametrize("name", ["Location", "Content-Location"])
@pytest.mark.parametrize(
    "value, expected",
    [
        pytest.param("/z", "https://a.example/z", id="path"),
        pytest.param("z?a=b", "https://a.example/x/z?a=b", id="relative"),
        pytest.param("../z", "https://a.example/z", id="dots"),
        pytest.param("/%7Ez/%c3%9f", "https://a.example/~z/%C3%9F", id="escapes"),
        pytest.param("/z%7", None, id="cut-escape"),
        pytest.param("?q=2", "https://a.example/x/y?q=2", id="query"),
        pytest.param("https://a.example/z", "https://a.example/z", id="absolute"),
        pytest.param("https://a.example:443/z", "https://a.example/z", id="default-port"),
        pytest.param("https://A.EXAMPLE/z", "https://a.example/z", id="host-case"),
        pytest.param("//a.example/z", "https://a.example/z", id="scheme-relative"),
        pytest.param("https://a.example", "https://a.example/", id="no-path"),
        pytest.param("/z#part", "https://a.example/z", id="fragment"),
        pytest.param("https://b.example/z", None, id="other-host"),
        pytest.param("http://a.example/z", None, id="other-scheme"),
        pytest.param("https://a.example:8443/z", None, id="other-port"),
        pytest.param("//b.example/z", None, id="scheme-relative-other"),
        pytest.param("https://a.example@b.example/z", None, id="user-information"),
        pytest.param("https://a.example.b.example/z", None, id="longer-host"),
        pytest.param("http://[::1/z", None, id="malformed"),
        pytest.param("https://a.example:x/z", None, id="bad-port"),
        pytest.param("https://a.example:99999/z", None, id="port-too-large"),
        pytest.param("mailto:a@b", None, id="mailto"),
        pytest.param("javascript:alert(1)", None, id="javascript"),
        pytest.param("", OWN, id="empty"),
        pytest.param("/" + "z" * 9000, None, id="too-long"),
    ],
)  # fmt: skip
def test_4_4_locations_of_the_same_origin(name: str, value: str, expected: str | None) -> None:
    found = voided("POST", 201, f"{name}: {value}")
    assert found == ((OWN,) if expected in (None, OWN) else (OWN, expected))


def test_4_4_both_locations_each_once() -> None:
    found = voided("PUT", 200, "Location: /z", "Content-Location: /z", "Content-Location: /w")
    assert found == (OWN, "https://a.example/z", "https://a.example/w")


def test_4_4_the_authority_stays_as_the_request_wrote_it() -> None:
    found = voided(
        "PUT", 200, "Location: http://a.example/z", authority="A.example:80", scheme="http"
    )
    assert found == ("http://A.example:80/x/y?q=1", "http://A.example:80/z")


def test_4_4_an_authority_that_cannot_be_read_voids_its_own_uri_only() -> None:
    assert voided("PUT", 200, "Location: /z", authority="[::1") == ("https://[::1/x/y?q=1",)


@pytest.mark.parametrize(
    "given, expected",
    [
        pytest.param({}, "headgate", id="2-nothing-to-say"),
        pytest.param({"hit": True}, "headgate; hit", id="2.1-hit"),
        pytest.param({"hit": True, "ttl_s": 30.7}, "headgate; hit; ttl=30", id="2.5-ttl"),
        pytest.param({"hit": True, "ttl_s": -0.5}, "headgate; hit; ttl=-1", id="2.5-stale"),
        pytest.param({"hit": True, "ttl_s": 1e30}, "headgate; hit; ttl=999999999999999", id="2.5-huge"),
        pytest.param({"fwd": "uri-miss"}, "headgate; fwd=uri-miss", id="2.2-fwd"),
        pytest.param({"fwd": "stale", "fwd_status": 304}, "headgate; fwd=stale; fwd-status=304", id="2.3-fwd-status"),
        pytest.param({"fwd": "miss", "stored": True}, "headgate; fwd=miss; stored", id="2.4-stored"),
        pytest.param({"fwd": "miss", "collapsed": True}, "headgate; fwd=miss; collapsed", id="2.6-collapsed"),
        pytest.param({"hit": True, "fwd": "stale"}, "headgate; fwd=stale", id="2.1-hit-excludes-fwd"),
        pytest.param({"hit": True, "stored": True, "collapsed": True, "fwd_status": 200}, "headgate; hit", id="2.3-only-beside-fwd"),
        pytest.param({"hit": True, "key": 'a"b\\c'}, 'headgate; hit; key="a\\"b\\\\c"', id="2.7-key"),
        pytest.param({"hit": True, "key": "\xfc\r\nX: 1"}, 'headgate; hit; key="???X: 1"', id="2.7-key-injection"),
        pytest.param({"fwd": "bypass", "detail": "no_store"}, "headgate; fwd=bypass; detail=no_store", id="2.8-detail"),
        pytest.param({"fwd": "bypass", "detail": "a b"}, 'headgate; fwd=bypass; detail="a b"', id="2.8-detail-string"),
        pytest.param({"hit": True, "key": "x" * 9000}, f'headgate; hit; key="{"x" * 256}"', id="2.7-key-bound"),
    ],
)  # fmt: skip
def test_9211_a_member(given: dict[str, object], expected: str) -> None:
    assert member("headgate", **given).decode() == expected  # type: ignore[arg-type]  # the table's columns


def test_9211_2_a_name_that_is_no_token_is_a_string() -> None:
    assert member("my cache", hit=True) == b'"my cache"; hit'


def test_9211_2_members_of_caches_before_us_come_first() -> None:
    headers = fields("X-A: 1", "Cache-Status: Origin; hit", "X-B: 2", "Cache-Status: CDN; fwd=miss")
    found = appended(headers, b"headgate; hit")
    assert found == (
        *fields("X-A: 1", "X-B: 2"),
        (b"cache-status", b"Origin; hit, CDN; fwd=miss, headgate; hit"),
    )
    assert appended(fields("X-A: 1"), b"h; hit") == (
        *fields("X-A: 1"),
        (b"cache-status", b"h; hit"),
    )


def test_tags_are_hidden_from_clients_unless_the_route_shows_them() -> None:
    headers = fields("X-A: 1", "Cache-Tag: a", "Surrogate-Key: b")
    assert shown(headers, ask_rules()) == fields("X-A: 1")
    assert shown(headers, ask_rules(tags_shown=True)) is headers
    plain = fields("X-A: 1")
    assert shown(plain, ask_rules()) is plain

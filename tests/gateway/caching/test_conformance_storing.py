"""What may be kept, and what of it: RFC 9111 3, 5.2.1.5 and the directives of 5.2.2 about keeping.

Each case is named by its section. See `conformance_rig`.
"""

from __future__ import annotations

import pytest

from headgate.cache.http.freshness import CACHEABLE_STATUSES
from tests.gateway.caching import conformance_rig as rig
from tests.gateway.caching.conformance_rig import (
    Case,
    Step,
    Told,
    as_params,
    case,
    forwards,
    hit,
    validates,
)

pytestmark = pytest.mark.integration

running = rig.running

FRESH = "Cache-Control: max-age=60"
AUTH = ("Authorization: Bearer mine",)
OTHER = ("Authorization: Bearer theirs",)


def kept(name: str, *fields: str, ask: tuple[str, ...] = (), again: tuple[str, ...] = (),
         status: str = "200 OK", route: str = "plain") -> Case:  # fmt: skip
    return case(
        name,
        forwards(*fields, ask=ask, status=status),
        hit(*again, status=int(status[:3])),
        route=route,
    )


def not_kept(name: str, *fields: str, ask: tuple[str, ...] = (), again: tuple[str, ...] = (),
             status: str = "200 OK", route: str = "plain") -> Case:  # fmt: skip
    """The second request is an ordinary one: nothing is validated, as nothing is held."""
    return case(
        name,
        forwards(*fields, ask=ask, status=status),
        forwards(
            FRESH, ask=again, text="two", sees=("-if-none-match", "-if-modified-since", "GET")
        ),
        route=route,
    )


def refused_directive(name: str, directive: str) -> Case:
    return not_kept(name, f"Cache-Control: {directive}")


METHODS = tuple(
    case(
        f"9111-3-method-{method.lower()}",
        forwards(FRESH, method=method, body="x" if method in ("POST", "PUT", "PATCH") else ""),
        forwards(FRESH, text="two", sees=("GET",)),
    )
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "FOO")
)

_UNKEPT_WITH_EXPIRY = {206, 304, 412, 416}
STATUSES = tuple(
    (kept if status not in _UNKEPT_WITH_EXPIRY else not_kept)(
        f"9111-3-status-{status}-with-expiry", FRESH, status=f"{status} Said"
    )
    for status in (
        200, 201, 202, 203, 204, 206, 226, 299, 300, 301, 302, 303, 307, 308, 400, 401, 403, 404,
        405, 406, 409, 410, 411, 412, 413, 414, 415, 416, 418, 421, 422, 424, 425, 426, 428, 429,
        431, 451, 499, 500, 501, 502, 503, 504, 505, 507, 511, 599,
    )
    if status != 304
)  # fmt: skip
HEURISTIC = tuple(
    (kept if status in CACHEABLE_STATUSES else not_kept)(
        f"9110-15.1-heuristic-{status}", "Last-Modified: @-864000", status=f"{status} Said"
    )
    for status in (200, 201, 202, 203, 204, 300, 301, 302, 303, 307, 308, 400, 403, 404, 405, 410,
                   414, 418, 500, 501, 502, 503, 599)
)  # fmt: skip

DIRECTIVES = (
    kept("9111-3-max-age", FRESH),
    kept("9111-3-s-maxage", "Cache-Control: s-maxage=60"),
    kept("9111-3-expires", "Expires: @+60"),
    kept("9111-3-public-heuristic-302", "Cache-Control: public", "Last-Modified: @-864000",
         status="302 Found"),
    not_kept("9111-3-public-alone-says-no-time", "Cache-Control: public"),
    not_kept("9111-3-nothing-said"),
    not_kept("9111-3-expires-in-the-past-without-validator", "Expires: @-60"),
    refused_directive("9111-3-no-store", "no-store"),
    refused_directive("9111-5.2.2.5-no-store-with-max-age", "max-age=60, no-store"),
    refused_directive("9111-5.2.2.5-no-store-before-max-age", "no-store, max-age=60"),
    refused_directive("9111-5.2-no-store-in-capitals", "No-StOrE, max-age=60"),
    refused_directive("9111-5.2.2.5-no-store-with-an-argument", "max-age=60, no-store=1"),
    refused_directive("9111-5.2.2.5-no-store-without-comma", "max-age=60 no-store"),
    refused_directive("9111-5.2.2.5-no-store-behind-an-open-quote", 'max-age=60, x=", no-store'),
    not_kept("9111-5.2.2.5-no-store-on-a-second-line", FRESH, "Cache-Control: no-store"),
    not_kept("9111-5.2.2.5-no-store-with-validators", "Cache-Control: no-store", 'ETag: "a"',
             "Last-Modified: @-60"),
    kept("9111-5.2-no-store-in-a-quoted-argument", 'Cache-Control: max-age=60, x="no-store"'),
    refused_directive("9111-5.2.2.7-private", "private, max-age=60"),
    refused_directive("9111-5.2.2.7-private-beats-public", "public, private, max-age=60"),
    refused_directive("9111-5.2.2.7-private-beats-s-maxage", "private, s-maxage=60"),
    refused_directive("9111-5.2.2.7-private-with-unreadable-names", 'max-age=60, private="a b"'),
    refused_directive("9111-5.2.2.7-private-with-no-names", 'max-age=60, private=""'),
    refused_directive("9111-5.2-private-in-capitals", "PRIVATE, max-age=60"),
    kept("9111-5.2.3-unknown-directives", "Cache-Control: max-age=60, foo, bar=1, baz=\"x\""),
    kept("9111-5.2-empty-members", "Cache-Control: , ,max-age=60,,"),
    kept("9111-5.2-quoted-argument", 'Cache-Control: max-age="60"'),
    kept("9111-5.2-capitals", "Cache-Control: MAX-AGE=60"),
    kept("9111-5.2-two-lines", "Cache-Control: public", "Cache-Control: max-age=60"),
    # must-understand: with it no-store is for caches that do not know the status.
    kept("9111-5.2.2.3-must-understand-200", "Cache-Control: max-age=60, no-store, must-understand"),
    kept("9111-5.2.2.3-must-understand-404", "Cache-Control: max-age=60, no-store, must-understand",
         status="404 Not Found"),
    not_kept("9111-5.2.2.3-must-understand-unknown",
             "Cache-Control: max-age=60, no-store, must-understand", status="299 New"),
    not_kept("9111-5.2.2.3-must-understand-unknown-without-no-store",
             "Cache-Control: max-age=60, must-understand", status="499 New"),
    # of the request
    not_kept("9111-5.2.1.5-request-no-store", FRESH, ask=("Cache-Control: no-store",)),
    not_kept("9111-5.2.1.5-request-no-store-in-capitals", FRESH, ask=("Cache-Control: NO-STORE",)),
    not_kept("9111-5.2.1.5-request-no-store-among-others", FRESH,
             ask=("Cache-Control: max-age=5", "Cache-Control: foo, no-store")),
    kept("9111-5.2.1.5-request-no-store-unheeded-by-rule", FRESH, ask=("Cache-Control: no-store",),
         route="deaf"),
    # RFC 9111 4.1: nothing fits it, so nothing is kept
    not_kept("9111-4.1-vary-star", FRESH, "Vary: *"),
    not_kept("9111-4.1-vary-star-among-others", FRESH, "Vary: Accept, *"),
    not_kept("9111-4.1-vary-star-on-a-second-line", FRESH, "Vary: Accept", "Vary: *"),
    not_kept("9111-4.1-vary-unreadable", FRESH, "Vary: a b"),
    # RFC 9111 7.3, RFC 6265
    not_kept("9111-7.3-set-cookie-is-not-shared", FRESH, "Set-Cookie: a=b"),
    kept("9111-7.3-set-cookie-kept-by-rule", FRESH, "Set-Cookie: a=b", route="cookie_stored"),
    kept("9111-7.3-set-cookie-named-by-no-cache", 'Cache-Control: max-age=60, no-cache="set-cookie"',
         "Set-Cookie: a=b"),
    # rules of a route, where the response is silent
    kept("route-ttl", route="ttl"),
    not_kept("route-ttl-not-for-500", status="500 Said", route="ttl"),
    kept("route-ttl-by-status-404", status="404 Said", route="by_status"),
    kept("route-ttl-by-status-302", status="302 Said", route="by_status"),
    not_kept("route-ttl-not-against-no-store", "Cache-Control: no-store", route="ttl"),
    not_kept("route-ttl-not-against-private", "Cache-Control: private", route="ttl"),
    not_kept("route-override-not-against-no-store", "Cache-Control: no-store", route="override"),
    not_kept("route-override-not-against-private", "Cache-Control: private", route="override"),
    not_kept("route-override-not-against-vary-star", "Vary: *", route="override"),
    not_kept("route-override-not-against-set-cookie", "Set-Cookie: a=b", route="override"),
    kept("route-override-against-no-cache", "Cache-Control: no-cache", route="override"),
    kept("route-override-against-max-age-0", "Cache-Control: max-age=0", route="override"),
    kept("9111-4.2.2-heuristic", "Last-Modified: @-864000"),
)  # fmt: skip

AUTHORIZATION = (
    not_kept("9111-3.5-authorization", FRESH, ask=AUTH, again=AUTH),
    not_kept("9111-3.5-authorization-others", FRESH, ask=AUTH, again=OTHER),
    not_kept("9111-3.5-authorization-heuristic", "Last-Modified: @-864000", ask=AUTH),
    not_kept("9111-3.5-authorization-expires", "Expires: @+60", ask=AUTH, again=AUTH),
    not_kept("9111-3.5-authorization-empty", FRESH, ask=("Authorization:",)),
    not_kept("9111-3.5-authorization-by-ttl", ask=AUTH, again=AUTH, route="ttl"),
    not_kept("9111-3.5-authorization-by-override", ask=AUTH, again=AUTH, route="override"),
    kept("9111-3.5-public", "Cache-Control: public, max-age=60", ask=AUTH, again=OTHER),
    kept("9111-3.5-s-maxage", "Cache-Control: s-maxage=60", ask=AUTH, again=OTHER),
    kept("9111-3.5-must-revalidate", "Cache-Control: must-revalidate, max-age=60", ask=AUTH,
         again=OTHER),
    kept("9111-3.5-public-for-all", "Cache-Control: public, max-age=60", ask=AUTH),
    not_kept("9111-3.5-proxy-revalidate-is-none-of-them",
             "Cache-Control: proxy-revalidate, max-age=60", ask=AUTH, again=AUTH),
    not_kept("9111-3.5-public-with-argument", "Cache-Control: public=x, max-age=60", ask=AUTH),
    not_kept("9111-3.5-immutable-is-none-of-them", "Cache-Control: immutable, max-age=60",
             ask=AUTH, again=AUTH),
    case("9111-3.5-s-maxage-0-is-validated",
         forwards("Cache-Control: s-maxage=0", 'ETag: "a"', ask=AUTH),
         validates(ask=OTHER, sees=('if-none-match: "a"', "authorization: Bearer theirs"))),
    # What was kept of a request without credentials is for one with them as well.
    kept("9111-3.5-kept-without-is-served-with", FRESH, again=AUTH),
)  # fmt: skip


def stored_field(name: str, value: str) -> Case:
    line = f"{name}: {value}"
    return case(
        f"9111-3.1-keeps-{name.lower()}",
        forwards(FRESH, line, gets=(line,)),
        hit(gets=(line,)),
    )


def left_out(name: str, *fields: str, lacks: tuple[str, ...], route: str = "plain") -> Case:
    return case(name, forwards(*fields), hit(gets=lacks), route=route)


FIELDS = (
    *(
        stored_field(name, value)
        for name, value in (
            ("X-Unknown", "anything; at=all"), ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Language", "de"), ("Content-Location", "/there"), ("ETag", '"a"'),
            ("Last-Modified", "@-60"), ("Expires", "@+600"), ("Date", "@-5"),
            ("Content-Security-Policy", "default-src 'self'"), ("Link", "</a>; rel=next"),
            ("Strict-Transport-Security", "max-age=1"), ("Access-Control-Allow-Origin", "*"),
            ("Accept-Ranges", "bytes"), ("Allow", "GET"), ("Retry-After", "5"), ("Location", "/x"),
            ("Content-Disposition", "inline"), ("Content-Digest", "sha-256=:aaaa:"),
            ("Server-Timing", "a;dur=1"), ("Public-Key-Pins", "x"), ("Refresh", "1"),
            ("WWW-Authenticate", "Basic"), ("X-Frame-Options", "DENY"), ("Warning", '199 a "b"'),
            ("Clear-Site-Data", '"cache"'), ("Pragma", "x"), ("Content-MD5", "aaaa"),
            ("Content-Range", "bytes 0-2/3"),
        )
    ),
    case("9111-3.1-keeps-lines-of-one-name",
         forwards(FRESH, "X-A: 1", "X-A: 2"), hit(gets=("x-a: 1", "x-a: 2"))),
    case("9111-3.1-keeps-an-empty-field", forwards(FRESH, "X-A:"), hit(gets=("x-a",))),
    case("9111-3.1-keeps-cache-control",
         forwards(FRESH + ", foo=1"), hit(gets=("cache-control: max-age=60, foo=1",))),
    case("9111-3.1-keeps-the-status-line",
         forwards(FRESH, status="404 Nowhere"), hit(status=404)),
    left_out("9111-3.1-connection", FRESH, "Connection: X-Hop, close", "X-Hop: 1", "Keep-Alive: 1",
             lacks=("-x-hop", "-keep-alive")),
    left_out("9111-3.1-proxy-authenticate", FRESH, "Proxy-Authenticate: Basic",
             lacks=("-proxy-authenticate",)),
    left_out("9111-3.1-proxy-authentication-info", FRESH, "Proxy-Authentication-Info: a=b",
             lacks=("-proxy-authentication-info",)),
    left_out("9111-3.1-proxy-authorization", FRESH, "Proxy-Authorization: x",
             lacks=("-proxy-authorization",)),
    left_out("9111-3.1-proxy-connection", FRESH, "Proxy-Connection: x", lacks=("-proxy-connection",)),
    left_out("9111-3.1-upgrade", FRESH, "Upgrade: h9", "Connection: upgrade", lacks=("-upgrade",)),
    left_out("9111-3.1-te", FRESH, "TE: trailers", lacks=("-te",)),
    left_out("9111-5.2.2.7-private-fields", 'Cache-Control: max-age=60, private="x-mine, X-Other"',
             "X-Mine: 1", "X-Other: 2", lacks=("-x-mine", "-x-other")),
    left_out("9111-5.2.2.7-private-field-as-token", "Cache-Control: max-age=60, private=x-mine",
             "X-Mine: 1", lacks=("-x-mine",)),
    left_out("9111-5.2.2.7-private-validator", 'Cache-Control: max-age=60, private="etag"',
             'ETag: "a"', lacks=("-etag",)),
    left_out("9111-5.2.2.4-no-cache-fields", 'Cache-Control: max-age=60, no-cache="x-mine"',
             "X-Mine: 1", lacks=("-x-mine",)),
    left_out("9111-7.3-set-cookie-stripped-by-rule", FRESH, "Set-Cookie: a=b",
             lacks=("-set-cookie",), route="cookie_stripped"),
    case("9111-5.2.2.7-private-fields-are-for-the-first",
         forwards('Cache-Control: max-age=60, private="x-mine"', "X-Mine: 1", gets=("x-mine: 1",)),
         hit(gets=("-x-mine",))),
    # Trailers: discarded, never among the fields.
    case("9111-3.1-trailers-are-no-fields",
         forwards(FRESH, "Trailer: X-End", trailers=("X-End: 1", "Cache-Control: no-store")),
         hit(gets=("-x-end", "content-length: 3"))),
)  # fmt: skip

INCOMPLETE = (
    case("9111-3.3-cut-with-a-length",
         Step(told=Told((FRESH,), is_cut=True), is_broken=True),
         forwards(FRESH, text="two")),
    case("9111-3.3-partial-is-not-kept",
         forwards(FRESH, "Content-Range: bytes 0-2/9", status="206 Partial Content",
                  ask=("Range: bytes=0-2",), sees=("range: bytes=0-2",)),
         forwards(FRESH, text="whole", sees=("-range",))),
    case("9111-3.3-partial-is-not-kept-for-the-same-range",
         forwards(FRESH, "Content-Range: bytes 0-2/9", status="206 Partial Content",
                  ask=("Range: bytes=0-2",)),
         forwards(FRESH, "Content-Range: bytes 0-2/9", status="206 Partial Content", text="two",
                  ask=("Range: bytes=0-2",))),
    case("9111-3.3-partial-nobody-asked-for-is-not-kept",
         forwards(FRESH, "Content-Range: bytes 0-2/9", status="206 Partial Content"),
         forwards(FRESH, text="whole")),
    case("9111-3.3-multipart-is-not-kept",
         forwards(FRESH, "Content-Type: multipart/byteranges; boundary=x",
                  status="206 Partial Content", ask=("Range: bytes=0-0,2-2",)),
         forwards(FRESH, text="whole")),
    case("9111-3.3-whole-answer-to-a-range-is-kept",
         forwards(FRESH, ask=("Range: bytes=0-1",)), hit()),
    case("9111-3.3-unsatisfied-range-is-not-kept",
         forwards(FRESH, "Content-Range: bytes */3", status="416 Range Not Satisfiable",
                  ask=("Range: bytes=9-",)),
         forwards(FRESH, text="whole")),
    case("9111-3-interim-is-not-kept",
         Step(told=Told((FRESH,), interim="HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")),
         hit(gets=("-link",))),
    case("9111-3-too-long-passes",
         Step(told=Told((FRESH,), text="x" * 2000)), forwards(FRESH, text="two"), route="small"),
    case("9111-3-too-long-passes-chunked",
         Step(told=Told((FRESH,), text="x" * 2000, trailers=())), forwards(FRESH, text="two"),
         route="small"),
    case("9111-3-empty-is-kept", Step(told=Told((FRESH,), text="")), hit(text="")),
    case("9111-3-chunked-is-kept-with-a-length",
         forwards(FRESH, trailers=()), hit(gets=("content-length: 3", "-transfer-encoding"))),
    case("9111-3-content-on-get-is-not-kept",
         forwards(FRESH, body="x"), forwards(FRESH, text="two")),
    case("9111-3-content-on-get-is-not-answered-from-what-is-kept",
         forwards(FRESH), forwards(FRESH, text="two", body="x"), hit()),
    case("9111-3-if-match-is-the-services",
         forwards(FRESH, 'ETag: "a"'),
         forwards(FRESH, ask=('If-Match: "a"',), sees=('if-match: "a"',), text="two")),
    case("9111-3-if-unmodified-since-is-the-services",
         forwards(FRESH, "Last-Modified: @-60"),
         forwards(FRESH, ask=("If-Unmodified-Since: @-60",), sees=("if-unmodified-since",),
                  text="two")),
    case("9111-3-answer-to-if-match-is-not-kept",
         forwards(FRESH, 'ETag: "a"', ask=('If-Match: "a"',)), forwards(FRESH, text="two")),
    case("9111-3-304-that-nobody-asked-for-is-not-kept",
         Step(('If-None-Match: "a"',), Told((FRESH, 'ETag: "a"'), "304 Not Modified", ""),
              status=304, sees=("-if-none-match",)),
         forwards(FRESH, text="two")),
    case("9111-3-head-is-not-kept-as-get",
         Step(told=Told((FRESH,)), method="HEAD", gets=("content-length: 3",)),
         forwards(FRESH, text="two", sees=("GET",))),
)  # fmt: skip

CASES = (*METHODS, *STATUSES, *HEURISTIC, *DIRECTIVES, *AUTHORIZATION, *FIELDS, *INCOMPLETE)


@pytest.mark.parametrize("played", as_params(CASES))
def test_what_may_be_kept_is_kept_as_it_came_and_nothing_else(running, played):
    running.play(played)

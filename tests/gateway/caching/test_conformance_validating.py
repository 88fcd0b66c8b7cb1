"""Validation, conditions, ranges and HEAD: RFC 9111 3.2, 3.3, 4.3 and RFC 9110 8.8, 13, 14.

Each case is named by its section. See `conformance_rig`.
"""

from __future__ import annotations

import pytest

from tests.gateway.caching import conformance_rig as rig
from tests.gateway.caching.conformance_rig import (
    Case,
    Step,
    Told,
    as_params,
    case,
    forwards,
    hit,
    stale_hit,
    validates,
)

pytestmark = pytest.mark.integration

running = rig.running

FRESH = "Cache-Control: max-age=60"
OLD = "Cache-Control: max-age=0"
TAG = 'ETag: "a"'
WEAK = 'ETag: W/"a"'
SINCE = "Last-Modified: @-1000"
SEES = ('if-none-match: "a"',)
DIGITS = "0123456789" * 30

ASKING = (
    case("9111-4.3.1-sends-the-tag", forwards(OLD, TAG), validates(sees=SEES)),
    case("9111-4.3.1-sends-a-weak-tag-as-it-came",
         forwards(OLD, WEAK), validates(WEAK, sees=('if-none-match: W/"a"',))),
    case("9111-4.3.1-sends-last-modified",
         forwards(OLD, SINCE), validates(sees=("if-modified-since: @-1000", "-if-none-match"))),
    case("9111-4.3.1-sends-last-modified-letter-by-letter",
         forwards(OLD, "Last-Modified: Sunday, 06-Nov-94 08:49:37 GMT"),
         validates(sees=("if-modified-since: Sunday, 06-Nov-94 08:49:37 GMT",))),
    case("9111-4.3.1-sends-both",
         forwards(OLD, TAG, SINCE), validates(sees=(*SEES, "if-modified-since: @-1000"))),
    case("9111-4.3.1-sends-an-empty-tag",
         forwards(OLD, 'ETag: ""'), validates(sees=('if-none-match: ""',))),
    case("9111-4.3.1-an-unreadable-last-modified-is-no-validator",
         forwards("Cache-Control: max-age=60, no-cache", "Last-Modified: yesterday"),
         forwards(FRESH, text="two", sees=("-if-modified-since",))),
    case("9111-4.3.1-without-validator-asks-for-the-whole",
         forwards(FRESH, "Age: 100", "X: stale-while-revalidate"), forwards(FRESH, text="two",
         sees=("-if-none-match", "-if-modified-since"))),
    case("9111-4.3.1-the-clients-fields-go-along",
         forwards(OLD, TAG), validates(ask=("X-A: 1", "Cookie: a=b"),
         sees=("x-a: 1", "cookie: a=b", *SEES))),
    case("9111-4.3.2-the-clients-tag-is-not-ours",
         forwards(OLD, TAG), validates(ask=('If-None-Match: "b"',), sees=SEES)),
    case("9111-4.3.2-the-clients-tag-is-ours",
         forwards(OLD, TAG), validates(ask=('If-None-Match: "a"',), sees=SEES, status=304)),
    case("9111-4.3.2-the-clients-date-is-not-ours",
         forwards(OLD, SINCE),
         validates(ask=("If-Modified-Since: @-5000",), sees=("if-modified-since: @-1000",))),
    case("9111-4.3.2-the-clients-range-is-cut-afterwards",
         forwards(OLD, TAG, text="0123456789"),
         validates(ask=("Range: bytes=0-1",), sees=(*SEES, "-range"), status=206, text="01")),
    case("9111-4.3.2-304-with-a-tag-the-client-does-not-have-is-200",
         forwards(OLD, TAG), validates(TAG, ask=('If-None-Match: "b", "c"',), sees=SEES)),
    case("9111-4.3.2-head-of-a-stale-one",
         forwards(OLD, TAG), validates(method="HEAD", sees=SEES, gets=("content-length: 3",))),
)  # fmt: skip

ANSWERED = (
    case("9111-4.3.3-304-is-served-from-what-is-held",
         forwards(OLD, TAG), validates(FRESH, TAG, sees=SEES), hit()),
    case("9111-4.3.3-200-takes-the-place",
         forwards(OLD, TAG), forwards(FRESH, 'ETag: "b"', text="two", sees=SEES), hit(text="two")),
    case("9111-4.3.3-200-that-may-not-be-kept-is-for-this-request",
         forwards(OLD, TAG), forwards("Cache-Control: no-store", text="two", sees=SEES)),
    case("9111-4.3.3-200-is-used-despite-the-same-tag",
         forwards(OLD, TAG), forwards(FRESH, TAG, text="two", sees=SEES), hit(text="two")),
    case("9111-4.3.3-404-takes-the-place",
         forwards(OLD, TAG), forwards(FRESH, status="404 Gone", text="gone", sees=SEES),
         hit(status=404, text="gone")),
    case("9111-4.3.3-500-is-told",
         forwards(OLD, TAG), forwards(status="500 Oops", text="oops", sees=SEES),
         validates(sees=SEES)),
    case("9111-4.3.3-200-to-a-condition-of-the-client-is-answered-by-the-new-one",
         forwards(OLD, TAG),
         Step(('If-None-Match: "b"',), Told((FRESH, 'ETag: "b"'), text="two"), sees=SEES,
              text="two")),
    # 4.3.4: which are updated
    case("9111-4.3.4-304-with-our-strong-tag", forwards(OLD, TAG),
         validates(FRESH, TAG, sees=SEES), hit()),
    case("9111-4.3.4-304-with-another-strong-tag-is-not-about-ours", forwards(OLD, TAG),
         Step((), Told((FRESH, 'ETag: "b"'), "304 Not Modified", "",
                       then=Told((FRESH, 'ETag: "b"'), text="two")), sees=SEES),
         hit(text="two")),
    case("9111-4.3.4-304-with-another-weak-tag-is-not-about-ours", forwards(OLD, WEAK),
         Step((), Told((FRESH, 'ETag: W/"b"'), "304 Not Modified", "",
                       then=Told((FRESH, 'ETag: "b"'), text="two"))),
         hit(text="two")),
    case("9111-4.3.4-304-with-another-date-is-not-about-ours", forwards(OLD, SINCE),
         Step((), Told((FRESH, "Last-Modified: @-500"), "304 Not Modified", "",
                       then=Told((FRESH,), text="two"))),
         hit(text="two")),
    case("9111-4.3.4-304-with-our-tag-weak", forwards(OLD, TAG),
         validates(FRESH, WEAK, sees=SEES), hit()),
    case("9111-4.3.4-304-weak-for-weak", forwards(OLD, WEAK),
         validates(FRESH, WEAK, sees=('if-none-match: W/"a"',)), hit()),
    case("9111-4.3.4-304-without-validators", forwards(OLD, TAG),
         validates(FRESH, sees=SEES), hit(gets=('etag: "a"',))),
    case("9111-4.3.4-304-with-our-date", forwards(OLD, SINCE),
         validates(FRESH, SINCE, sees=("if-modified-since",)), hit()),
    case("9111-4.3.4-304-with-our-tag-and-another-date", forwards(OLD, TAG, SINCE),
         validates(FRESH, TAG, "Last-Modified: @-500", sees=SEES),
         hit(gets=("last-modified: @-500",))),
)  # fmt: skip


def updated(name: str, before: str, told: str, after: str) -> Case:
    return case(
        name,
        forwards(OLD, TAG, *(line for line in (before,) if line)),
        validates(FRESH, TAG, told, sees=SEES, gets=(after,)),
        hit(gets=(after,)),
    )


UPDATED = (
    updated("9111-3.2-replaces", "X-A: 1", "X-A: 2", "x-a: 2"),
    updated("9111-3.2-adds", "", "X-A: 2", "x-a: 2"),
    updated("9111-3.2-keeps-what-is-not-said", "X-A: 1", "X-B: 2", "x-a: 1"),
    updated("9111-3.2-cache-control", "X-A: 1", "X-B: 2", "cache-control: max-age=60"),
    updated("9111-3.2-expires", "Expires: @-60", "Expires: @+600", "expires: @+600"),
    updated("9111-3.2-last-modified", "Last-Modified: @-60", "Last-Modified: @-30",
            "last-modified: @-30"),
    updated("9111-3.2-content-location", "Content-Location: /a", "Content-Location: /b",
            "content-location: /b"),
    updated("9111-3.2-content-language", "Content-Language: de", "Content-Language: en",
            "content-language: en"),
    updated("9111-3.2-content-security-policy", "Content-Security-Policy: a",
            "Content-Security-Policy: b", "content-security-policy: b"),
    updated("9111-3.2-content-disposition", "Content-Disposition: inline",
            "Content-Disposition: attachment", "content-disposition: attachment"),
    updated("9111-3.2-x-content-type-options", "X-Content-Type-Options: a",
            "X-Content-Type-Options: nosniff", "x-content-type-options: nosniff"),
    updated("9111-3.2-access-control", "Access-Control-Allow-Origin: a",
            "Access-Control-Allow-Origin: b", "access-control-allow-origin: b"),
    updated("9111-3.2-date", "Date: @-60", "Date: @-5", "date: @-5"),
    # What says how the held body is to be read stays (3.2).
    updated("9111-3.2-content-length-stays", "X-A: 1", "Content-Length: 99", "content-length: 3"),
    updated("9111-3.2-content-encoding-stays", "Content-Encoding: gzip", "Content-Encoding: br",
            "content-encoding: gzip"),
    updated("9111-3.2-content-type-stays", "Content-Type: text/plain", "Content-Type: text/html",
            "content-type: text/plain"),
    updated("9111-3.2-content-range-stays-away", "X-A: 1", "Content-Range: bytes 0-1/2",
            "-content-range"),
    updated("9111-3.2-content-digest-stays", "Content-Digest: sha-256=:aaaa:",
            "Content-Digest: sha-256=:bbbb:", "content-digest: sha-256=:aaaa:"),
    updated("9111-3.2-connection-fields-stay-away", "X-A: 1", "Connection: x-a", "x-a: 1"),
    updated("9111-3.1-proxy-authenticate-stays-away", "X-A: 1", "Proxy-Authenticate: x",
            "-proxy-authenticate"),
    case("9111-3.2-lines-of-one-name",
         forwards(OLD, TAG, "X-A: 1", "X-A: 2"),
         validates(FRESH, TAG, "X-A: 3", "X-A: 4", sees=SEES), hit(gets=("x-a: 3, 4",))),
    case("9111-3.2-private-fields-of-a-304",
         forwards(OLD, TAG, "X-A: 1"),
         validates('Cache-Control: max-age=60, private="x-a"', TAG, "X-A: 2", sees=SEES),
         hit(gets=("-x-a",))),
    case("9111-3.2-no-store-of-a-304-ends-it",
         forwards(OLD, TAG), validates("Cache-Control: no-store", TAG, sees=SEES),
         forwards(FRESH, text="two", sees=("-if-none-match",))),
    case("9111-3.2-private-of-a-304-ends-it",
         forwards(OLD, TAG), validates("Cache-Control: private", TAG, sees=SEES),
         forwards(FRESH, text="two", sees=("-if-none-match",))),
    case("9111-3.2-set-cookie-of-a-304-ends-it",
         forwards(OLD, TAG), validates(FRESH, TAG, "Set-Cookie: a=b", sees=SEES),
         forwards(FRESH, text="two", sees=("-if-none-match",))),
    case("9111-3.2-no-cache-of-a-304-is-heeded",
         forwards(OLD, TAG), validates("Cache-Control: no-cache", TAG, sees=SEES),
         validates(sees=SEES)),
    case("9111-4.3.4-304-that-says-nothing-of-freshness-keeps-what-was-said",
         forwards(FRESH, "Age: 100", TAG), validates(TAG, sees=SEES), hit()),
    case("9111-4.3.4-304-with-an-age",
         forwards(OLD, TAG), validates(FRESH, TAG, "Age: 100", sees=SEES),
         validates(TAG, FRESH, sees=SEES)),
)  # fmt: skip


def conditional(name: str, lines: tuple[str, ...], ask: str, status: int) -> Case:
    return case(name, forwards(FRESH, *lines), hit(ask, status=status), hit())


CONDITIONS = (
    conditional("9110-13.1.2-if-none-match", (TAG,), 'If-None-Match: "a"', 304),
    conditional("9110-13.1.2-other", (TAG,), 'If-None-Match: "b"', 200),
    conditional("9110-13.1.2-list", (TAG,), 'If-None-Match: "b", "a"', 304),
    conditional("9110-13.1.2-list-without-blanks", (TAG,), 'If-None-Match: "b","a","c"', 304),
    conditional("9110-13.1.2-list-with-empty-members", (TAG,), 'If-None-Match: , "b",, "a"', 304),
    conditional("9110-13.1.2-star", (TAG,), "If-None-Match: *", 304),
    conditional("9110-13.1.2-star-without-a-tag", (), "If-None-Match: *", 304),
    conditional("9110-13.1.2-weak-compares-with-strong", (TAG,), 'If-None-Match: W/"a"', 304),
    conditional("9110-13.1.2-strong-compares-with-weak", (WEAK,), 'If-None-Match: "a"', 304),
    conditional("9110-13.1.2-weak-compares-with-weak", (WEAK,), 'If-None-Match: W/"a"', 304),
    conditional("9110-8.8.3-case-counts", (TAG,), 'If-None-Match: "A"', 200),
    conditional("9110-8.8.3-small-w-is-no-weak-tag", (TAG,), 'If-None-Match: w/"a"', 200),
    conditional("9110-8.8.3-comma-in-a-tag", ('ETag: "a,b"',), 'If-None-Match: "x", "a,b"', 304),
    conditional("9110-8.8.3-part-of-a-tag", ('ETag: "a,b"',), 'If-None-Match: "a", "b"', 200),
    conditional("9110-8.8.3-empty-tag", ('ETag: ""',), 'If-None-Match: ""', 304),
    conditional("9110-8.8.3-high-bytes", ('ETag: "\xfc"',), 'If-None-Match: "\xfc"', 304),
    conditional("9110-8.8.3-backslash-escapes-nothing", ('ETag: "a\\b"',),
                'If-None-Match: "a\\b"', 304),
    conditional("9110-8.8.3-unquoted-in-both", ("ETag: a",), "If-None-Match: a", 304),
    conditional("9110-8.8.3-unquoted-is-not-quoted", (TAG,), "If-None-Match: a", 200),
    conditional("9110-13.1.2-no-tag-is-held", (), 'If-None-Match: "a"', 200),
    conditional("9110-13.1.3-if-modified-since-equal", (SINCE,), "If-Modified-Since: @-1000", 304),
    conditional("9110-13.1.3-later", (SINCE,), "If-Modified-Since: @-500", 304),
    conditional("9110-13.1.3-earlier", (SINCE,), "If-Modified-Since: @-2000", 200),
    conditional("9110-13.1.3-ahead", (SINCE,), "If-Modified-Since: @+2000", 304),
    conditional("9110-13.1.3-no-date", (SINCE,), "If-Modified-Since: yesterday", 200),
    conditional("9110-13.1.3-rfc850", ("Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT",),
                "If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT", 304),
    conditional("9110-13.1.3-asctime", ("Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT",),
                "If-Modified-Since: Sun Nov  6 08:49:37 1994", 304),
    conditional("9111-4.3.2-date-for-last-modified", ("Date: @-30",), "If-Modified-Since: @-30",
                304),
    conditional("9111-4.3.2-date-for-last-modified-earlier", ("Date: @-30",),
                "If-Modified-Since: @-50", 200),
    case("9110-13.2.2-if-none-match-decides-alone",
         forwards(FRESH, TAG, SINCE),
         hit('If-None-Match: "b"', "If-Modified-Since: @-1000"),
         hit('If-None-Match: "a"', "If-Modified-Since: @-2000", status=304)),
    case("9110-15.4.5-fields-of-a-304",
         forwards(FRESH, TAG, SINCE, "Expires: @+60", "Vary: X-A", "Content-Location: /c",
                  "X-Other: 1", "Content-Type: text/plain", "Content-Encoding: gzip",
                  "Content-Language: de"),
         hit('If-None-Match: "a"', status=304,
             gets=('etag: "a"', "cache-control: max-age=60", "date", "vary: X-A",
                   "expires: @+60", "content-location: /c", "-content-type", "-content-encoding",
                   "-content-language"))),
    case("9110-15.4.5-only-a-200-becomes-a-304",
         forwards(FRESH, TAG, status="404 Gone"), hit('If-None-Match: "a"', status=404)),
    case("9110-13-condition-on-head",
         forwards(FRESH, TAG), hit('If-None-Match: "a"', method="HEAD", status=304)),
    case("9111-4.3.2-condition-without-anything-held-is-the-services",
         Step(('If-None-Match: "a"',), Told((FRESH, TAG), "304 Not Modified", ""), status=304,
              sees=SEES)),
    case("9111-4.3.2-two-lines-of-if-none-match",
         forwards(FRESH, TAG), hit('If-None-Match: "b"', 'If-None-Match: "a"', status=304)),
    case("9111-4.3.2-answer-to-a-condition-that-is-whole-is-kept",
         forwards(FRESH, TAG, ask=('If-None-Match: "b"',)), hit()),
)  # fmt: skip


def ranged(name: str, spec: str, text: str, where: str = "", status: int = 206,
           body: str = DIGITS[:100]) -> Case:  # fmt: skip
    gets = (f"content-range: bytes {where}/{len(body)}",) if where else ("-content-range",)
    return case(
        name,
        forwards(FRESH, TAG, text=body),
        hit(f"Range: {spec}", status=status, text=text, gets=gets),
        hit(text=body),
    )


WHOLE = DIGITS[:100]
RANGES = (
    ranged("9110-14.2-first-bytes", "bytes=0-4", "01234", "0-4"),
    ranged("9110-14.2-in-the-middle", "bytes=10-14", "01234", "10-14"),
    ranged("9110-14.2-one-byte", "bytes=7-7", "7", "7-7"),
    ranged("9110-14.2-to-the-end", "bytes=95-", "56789", "95-99"),
    ranged("9110-14.2-suffix", "bytes=-5", "56789", "95-99"),
    ranged("9110-14.2-suffix-of-all", "bytes=-1000", WHOLE, "0-99"),
    ranged("9110-14.2-beyond-the-end", "bytes=95-1000", "56789", "95-99"),
    ranged("9110-14.2-all-of-it", "bytes=0-", WHOLE, "0-99"),
    ranged("9110-14.2-unit-in-capitals", "BYTES=0-4", "01234", "0-4"),
    ranged("9110-14.2-leading-zeros", "bytes=000-004", "01234", "0-4"),
    ranged("9110-14.2-blanks-around", "bytes= 0-4 ", "01234", "0-4"),
    ranged("9110-14.2-empty-members", "bytes=,0-4,", "01234", "0-4"),
    ranged("9110-15.3.7.2-overlapping-ones-are-joined", "bytes=0-4,3-9", "0123456789", "0-9"),
    ranged("9110-15.3.7.2-touching-ones-are-joined", "bytes=0-4,5-9", "0123456789", "0-9"),
    ranged("9110-14.1.2-unsatisfied-among-others", "bytes=0-4,500-600", "01234", "0-4"),
    ranged("9110-15.5.17-unsatisfied", "bytes=100-", "", "*", 416),
    ranged("9110-15.5.17-suffix-of-nothing", "bytes=-0", "", "*", 416),
    ranged("9110-15.5.17-all-unsatisfied", "bytes=100-,200-300", "", "*", 416),
    *(
        ranged(f"9110-14.2-not-followed-{label}", spec, WHOLE, status=200)
        for label, spec in (
            ("other-unit", "lines=0-4"), ("backwards", "bytes=4-0"), ("letters", "bytes=a-b"),
            ("nothing", "bytes="), ("a-dash", "bytes=-"), ("no-dash", "bytes=4"),
            ("negative", "bytes=-1-4"), ("no-equals", "bytes 0-4"), ("signs", "bytes=+0-4"),
            ("one-wrong-of-two", "bytes=0-4,x"), ("many", "bytes=" + "0-0," * 65 + "0-0"),
        )
    ),
    ranged("9110-17.15-many-small-ones", "bytes=" + ",".join(f"{at * 100}-{at * 100}"
           for at in range(20)), DIGITS * 10, status=200, body=DIGITS * 10),
    ranged("9110-14.2-of-nothing", "bytes=0-4", "", "*", 416, body=""),
    case("9110-14.2-only-get", forwards(FRESH, TAG),
         hit("Range: bytes=0-1", method="HEAD", gets=("content-length: 3", "-content-range"))),
    case("9110-14.2-only-a-200", forwards(FRESH, status="404 Gone"),
         hit("Range: bytes=0-1", status=404)),
    case("9110-14.3-accept-ranges-none",
         forwards(FRESH, "Accept-Ranges: none"), hit("Range: bytes=0-1")),
    case("9110-15.3.7-fields-of-a-206",
         forwards(FRESH, TAG, "Expires: @+60", "Vary: X-A", "Content-Location: /c",
                  "Content-Type: text/plain", "X-Other: 1"),
         hit("Range: bytes=0-0", status=206, text="o",
             gets=(TAG.lower(), "date", "cache-control: max-age=60", "expires: @+60", "vary: X-A",
                   "content-location: /c", "content-type: text/plain", "content-length: 1",
                   "content-range: bytes 0-0/3"))),
    case("9110-14.2-suffix-longer-than-all", forwards(FRESH),
         hit("Range: bytes=-9", status=206, text="one")),
    case("9110-13.2.2-condition-before-range",
         forwards(FRESH, TAG), hit('If-None-Match: "a"', "Range: bytes=0-0", status=304)),
    case("9110-13.2.2-range-behind-a-condition-that-does-not-hold",
         forwards(FRESH, TAG), hit('If-None-Match: "b"', "Range: bytes=0-0", status=206, text="o")),
    case("9110-13.1.5-if-range-tag", forwards(FRESH, TAG),
         hit("Range: bytes=0-0", 'If-Range: "a"', status=206, text="o")),
    case("9110-13.1.5-if-range-other-tag", forwards(FRESH, TAG),
         hit("Range: bytes=0-0", 'If-Range: "b"')),
    case("9110-13.1.5-if-range-weak-tag-never", forwards(FRESH, WEAK),
         hit("Range: bytes=0-0", 'If-Range: W/"a"')),
    case("9110-13.1.5-if-range-strong-for-weak-never", forwards(FRESH, WEAK),
         hit("Range: bytes=0-0", 'If-Range: "a"')),
    case("9110-13.1.5-if-range-no-list", forwards(FRESH, TAG),
         hit("Range: bytes=0-0", 'If-Range: "a", "b"')),
    case("9110-13.1.5-if-range-no-star", forwards(FRESH, TAG),
         hit("Range: bytes=0-0", "If-Range: *")),
    case("9110-13.1.5-if-range-date", forwards(FRESH, SINCE),
         hit("Range: bytes=0-0", "If-Range: @-1000", status=206, text="o")),
    case("9110-13.1.5-if-range-later-date-is-no-match", forwards(FRESH, SINCE),
         hit("Range: bytes=0-0", "If-Range: @-500")),
    case("9110-8.8.2.2-if-range-date-that-is-weak",
         forwards(FRESH, "Last-Modified: @-10", "Date: @-10"),
         hit("Range: bytes=0-0", "If-Range: @-10")),
    case("9110-13.1.5-if-range-without-range-has-no-say", forwards(FRESH, TAG),
         hit('If-Range: "b"')),
    case("9111-4.3.2-if-range-without-anything-held-is-the-services",
         forwards(FRESH, ask=("Range: bytes=0-0", 'If-Range: "a"'),
                  sees=("range: bytes=0-0", 'if-range: "a"'))),
    case("9110-15.3.7-partial-answer-reaches-the-client",
         forwards(FRESH, "Content-Range: bytes 0-2/9", status="206 Partial Content",
                  ask=("Range: bytes=0-2",), gets=("content-range: bytes 0-2/9",))),
)  # fmt: skip

HEADS = (
    case("9111-4.3.5-head-behind-which-another-is-fetched",
         forwards("Cache-Control: max-age=60, stale-while-revalidate=60", "Age: 100"),
         stale_hit(behind=Told((FRESH,), text="two"), method="HEAD", gets=("content-length: 3",)),
         hit(text="two")),
    case("9111-4.3.5-head-of-what-is-fresh-asks-nobody",
         forwards(FRESH, TAG), hit(method="HEAD", gets=("content-length: 3", 'etag: "a"'))),
    case("9111-4.3.5-head-of-what-is-stale-freshens-it",
         forwards(OLD, TAG),
         validates(FRESH, TAG, method="HEAD", sees=(*SEES, "GET")), hit()),
    case("9111-4.3.5-head-of-what-is-stale-brings-another",
         forwards(OLD, TAG),
         Step((), Told((FRESH, 'ETag: "b"'), text="other"), method="HEAD",
              gets=("content-length: 5", 'etag: "b"')),
         hit(text="other")),
    case("9111-4.3.5-head-of-what-is-not-held-is-passed",
         Step((), Told((FRESH,)), method="HEAD", sees=("HEAD",)),
         Step((), Told((FRESH,)), method="HEAD", sees=("HEAD",))),
    case("9110-9.3.2-head-has-the-fields-of-get",
         forwards(FRESH, TAG, "X-A: 1", "Content-Type: text/plain"),
         hit(method="HEAD", gets=("x-a: 1", "content-type: text/plain", "content-length: 3",
                                  "-transfer-encoding"))),
    case("9110-9.3.2-head-of-a-404", forwards(FRESH, status="404 Gone"),
         hit(method="HEAD", status=404)),
)  # fmt: skip

CASES = (*ASKING, *ANSWERED, *UPDATED, *CONDITIONS, *RANGES, *HEADS)


@pytest.mark.parametrize("played", as_params(CASES))
def test_what_is_kept_is_validated_and_cut_by_the_rules(running, played):
    running.play(played)

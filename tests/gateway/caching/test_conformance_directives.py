"""What directives of both sides make of it: RFC 9111 4.2.4, 5.2, 5.4, RFC 5861, 8246, 9213.

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
    fresh,
    hit,
    stale,
    stale_hit,
    validates,
)

pytestmark = pytest.mark.integration

running = rig.running

FRESH = "Cache-Control: max-age=60"
STALE = "Cache-Control: max-age=60", "Age: 100"
TAG = 'ETag: "a"'
SEES = ('if-none-match: "a"',)


OF_REQUESTS = (
    fresh("9111-5.2.1.1-max-age-met", "Cache-Control: max-age=600", "Age: 100",
          ask=("Cache-Control: max-age=300",), age_s=100),
    stale("9111-5.2.1.1-max-age-exceeded", "Cache-Control: max-age=600", "Age: 100",
          ask=("Cache-Control: max-age=50",)),
    stale("9111-5.2.1.1-max-age-0", FRESH, ask=("Cache-Control: max-age=0",)),
    fresh("9111-5.2.1.1-max-age-quoted", "Cache-Control: max-age=600", "Age: 100",
          ask=('Cache-Control: max-age="300"',)),
    stale("9111-5.2.1.1-max-age-unreadable", FRESH, ask=("Cache-Control: max-age=soon",)),
    stale("9111-5.2.1.1-max-age-wants-nothing-stale", *STALE,
          ask=("Cache-Control: max-age=1000",)),
    case("9111-5.2.1.2-max-stale", forwards(*STALE, TAG), hit("Cache-Control: max-stale=1000")),
    case("9111-5.2.1.2-max-stale-any", forwards(*STALE, TAG), hit("Cache-Control: max-stale")),
    stale("9111-5.2.1.2-max-stale-exceeded", *STALE, ask=("Cache-Control: max-stale=10",)),
    stale("9111-5.2.1.2-max-stale-unreadable", *STALE, ask=("Cache-Control: max-stale=x",)),
    case("9111-5.2.1.2-max-stale-widens-max-age",
         forwards("Cache-Control: max-age=600", "Age: 100"),
         hit("Cache-Control: max-age=50, max-stale=100")),
    stale("9111-5.2.2.2-max-stale-not-against-must-revalidate",
          "Cache-Control: max-age=60, must-revalidate", "Age: 100",
          ask=("Cache-Control: max-stale",)),
    stale("9111-5.2.2.8-max-stale-not-against-proxy-revalidate",
          "Cache-Control: max-age=60, proxy-revalidate", "Age: 100",
          ask=("Cache-Control: max-stale",)),
    stale("9111-5.2.2.10-max-stale-not-against-s-maxage", "Cache-Control: s-maxage=60", "Age: 100",
          ask=("Cache-Control: max-stale",)),
    stale("9111-5.2.2.4-max-stale-not-against-no-cache", "Cache-Control: max-age=60, no-cache",
          ask=("Cache-Control: max-stale",)),
    fresh("9111-5.2.1.3-min-fresh-met", "Cache-Control: max-age=600",
          ask=("Cache-Control: min-fresh=300",)),
    stale("9111-5.2.1.3-min-fresh-missed", FRESH, ask=("Cache-Control: min-fresh=100",)),
    stale("9111-5.2.1.3-min-fresh-unreadable", FRESH, ask=("Cache-Control: min-fresh=x",)),
    stale("9111-5.2.1.4-no-cache", FRESH, ask=("Cache-Control: no-cache",)),
    stale("9111-5.2.1.4-no-cache-in-capitals", FRESH, ask=("Cache-Control: No-Cache",)),
    stale("9111-5.2.1.4-no-cache-among-others", FRESH,
          ask=("Cache-Control: foo", "Cache-Control: bar, no-cache")),
    case("9111-5.2.1.5-no-store-is-not-answered-from-what-is-kept",
         forwards(FRESH), forwards(FRESH, ask=("Cache-Control: no-store",), text="two"), hit()),
    fresh("9111-5.2.1.6-no-transform-has-no-say", FRESH, ask=("Cache-Control: no-transform",)),
    fresh("9111-5.2.1.7-only-if-cached-hit", FRESH, ask=("Cache-Control: only-if-cached",)),
    case("9111-5.2.1.7-only-if-cached-miss", hit("Cache-Control: only-if-cached", status=504)),
    case("9111-5.2.1.7-only-if-cached-stale",
         forwards(*STALE, TAG), hit("Cache-Control: only-if-cached", status=504)),
    case("9111-5.2.1.7-only-if-cached-stale-is-welcome",
         forwards(*STALE, TAG), hit("Cache-Control: only-if-cached, max-stale")),
    case("9111-5.2.1.7-only-if-cached-head", hit("Cache-Control: only-if-cached", status=504,
         method="HEAD")),
    case("9111-5.2.1.7-only-if-cached-with-a-condition",
         hit("Cache-Control: only-if-cached", 'If-None-Match: "a"', status=504)),
    case("9111-5.2.1.7-only-if-cached-other-variant",
         forwards(FRESH, "Vary: Foo", ask=("Foo: 1",)),
         hit("Cache-Control: only-if-cached", "Foo: 2", status=504)),
    case("9111-5.2.1.7-only-if-cached-and-no-store",
         hit("Cache-Control: only-if-cached, no-store", status=504)),
    case("9111-5.2.1.7-only-if-cached-with-a-condition-for-the-service",
         hit("Cache-Control: only-if-cached", 'If-Match: "a"', status=504)),
    fresh("9111-5.2.3-unknown-of-a-request", FRESH, ask=("Cache-Control: foo, bar=1",)),
    stale("9111-5.4-pragma", FRESH, ask=("Pragma: no-cache",)),
    fresh("9111-5.4-pragma-beside-cache-control", FRESH,
          ask=("Pragma: no-cache", "Cache-Control: foo")),
    fresh("9111-5.4-pragma-unknown", FRESH, ask=("Pragma: foo",)),
    fresh("route-client-directives-unheeded-no-cache", FRESH, ask=("Cache-Control: no-cache",),
          route="deaf"),
    fresh("route-client-directives-unheeded-max-age", FRESH, ask=("Cache-Control: max-age=0",),
          route="deaf"),
    fresh("route-client-directives-unheeded-pragma", FRESH, ask=("Pragma: no-cache",),
          route="deaf"),
    case("9111-5.2-directives-of-a-request-are-passed-on",
         forwards(FRESH, ask=("Cache-Control: max-age=5, foo=1",),
                  sees=("cache-control: max-age=5, foo=1",))),
    case("9111-5.2-pragma-is-passed-on",
         forwards(FRESH, ask=("Pragma: no-cache",), sees=("pragma: no-cache",))),
    case("9111-5.2-directives-of-a-response-are-passed-on",
         forwards("Cache-Control: no-store, foo=1", "Pragma: x", "Expires: 0",
                  gets=("cache-control: no-store, foo=1", "pragma: x", "expires: 0"))),
    # RFC 8246
    case("8246-2-immutable-and-reload",
         forwards("Cache-Control: max-age=60, immutable", TAG), hit("Cache-Control: max-age=0")),
    case("8246-2-immutable-and-no-cache",
         forwards("Cache-Control: max-age=60, immutable", TAG),
         validates(ask=("Cache-Control: no-cache",), sees=SEES)),
    case("8246-2-immutable-is-over-with-its-freshness",
         forwards("Cache-Control: max-age=60, immutable", "Age: 100", TAG), validates(sees=SEES)),
    case("8246-2-immutable-with-an-argument-is-none",
         forwards("Cache-Control: max-age=60, immutable=1", TAG),
         validates(ask=("Cache-Control: max-age=0",), sees=SEES)),
)  # fmt: skip

OF_RESPONSES = (
    stale("9111-5.2.2.4-no-cache", "Cache-Control: max-age=60, no-cache"),
    stale("9111-5.2.2.4-no-cache-in-capitals", "Cache-Control: max-age=60, NO-CACHE"),
    stale("9111-5.2.2.4-no-cache-second-line", FRESH, "Cache-Control: no-cache"),
    stale("9111-5.2.2.4-no-cache-unreadable-names", 'Cache-Control: max-age=60, no-cache="a b"'),
    fresh("9111-5.2.2.4-no-cache-names", 'Cache-Control: max-age=60, no-cache="x-a"'),
    case("9111-5.2.2.4-no-cache-each-time-anew",
         forwards("Cache-Control: no-cache", TAG), validates(sees=SEES), validates(sees=SEES)),
    case("9111-5.2.2.4-no-cache-without-validator-is-not-kept",
         forwards("Cache-Control: no-cache"), forwards(FRESH, text="two")),
    fresh("9111-5.2.2.2-must-revalidate-while-fresh", "Cache-Control: max-age=60, must-revalidate"),
    stale("9111-5.2.2.2-must-revalidate-once-stale", "Cache-Control: max-age=60, must-revalidate",
          "Age: 100"),
    fresh("9111-5.2.2.8-proxy-revalidate-while-fresh",
          "Cache-Control: max-age=60, proxy-revalidate"),
    stale("9111-5.2.2.8-proxy-revalidate-once-stale",
          "Cache-Control: max-age=60, proxy-revalidate", "Age: 100"),
    stale("9111-5.2.2.10-s-maxage-once-stale", "Cache-Control: s-maxage=60, max-age=600",
          "Age: 100"),
    *(
        stale(f"9111-4.2.4-not-behind-its-back-{label}",
              f"Cache-Control: max-age=60, {directive}", "Age: 70", route="behind")
        for label, directive in (
            ("must-revalidate", "must-revalidate"), ("proxy-revalidate", "proxy-revalidate"),
            ("no-cache", "no-cache"), ("s-maxage", "s-maxage=60"),
        )
    ),
)  # fmt: skip


def stands_in(name: str, *fields: str, status: str = "503 Away", ask: tuple[str, ...] = (),
              route: str = "plain") -> Case:  # fmt: skip
    return case(
        name,
        forwards(*fields, TAG),
        Step(ask, Told(status=status, text="failed"), text="one", sees=SEES,
             gets=("cache-status~detail=error",)),
        route=route,
    )  # fmt: skip


def fails(name: str, *fields: str, status: str = "503 Away", ask: tuple[str, ...] = (),
          route: str = "plain") -> Case:  # fmt: skip
    return case(
        name,
        forwards(*fields, TAG),
        forwards(status=status, text="failed", ask=ask, sees=SEES),
        route=route,
    )


SWR = "Cache-Control: max-age=60, stale-while-revalidate=60"
SIE = "Cache-Control: max-age=60, stale-if-error=60"
STALE_BY_LEAVE = (
    case("5861-3-stale-while-revalidate",
         forwards(SWR, "Age: 100"),
         stale_hit(behind=Told((FRESH,), text="two"), age_s=100),
         hit(text="two")),
    case("5861-3-validates-behind",
         forwards(SWR, "Age: 100", TAG),
         stale_hit(behind=Told((FRESH, TAG), "304 Not Modified", ""), sees=SEES), hit(age_s=0)),
    case("5861-3-over",
         forwards(SWR, "Age: 130", TAG), validates(sees=SEES)),
    case("5861-3-by-rule",
         forwards(*STALE), stale_hit(behind=Told((FRESH,), text="two")), hit(text="two"),
         route="behind"),
    case("5861-3-a-response-that-says-0-beats-the-rule",
         forwards("Cache-Control: max-age=60, stale-while-revalidate=0", "Age: 100", TAG),
         validates(sees=SEES), route="behind"),
    stale("5861-3-unreadable", "Cache-Control: max-age=60, stale-while-revalidate=x", "Age: 100"),
    stale("5861-3-not-for-max-age", SWR, "Age: 100", ask=("Cache-Control: max-age=600",)),
    stale("5861-3-not-for-no-cache", SWR, "Age: 100", ask=("Cache-Control: no-cache",)),
    stale("5861-3-not-against-must-revalidate", SWR + ", must-revalidate", "Age: 100"),
    case("5861-3-s-maxage-with-it-means-it",
         forwards("Cache-Control: s-maxage=60, stale-while-revalidate=60", "Age: 100"),
         stale_hit(behind=Told((FRESH,), text="two"))),
    *(
        stands_in(f"5861-4-stale-if-error-{status}", SIE, "Age: 100", status=f"{status} Away")
        for status in (500, 502, 503, 504)
    ),
    *(
        fails(f"5861-4-not-for-{status}", SIE, "Age: 100", status=f"{status} Said")
        for status in (400, 403, 404, 410, 429, 501, 505)
    ),
    case("5861-4-no-answer",
         forwards(SIE, "Age: 100", TAG), Step((), Told(is_silent=True), text="one", sees=SEES)),
    fails("5861-4-over", SIE, "Age: 130"),
    fails("5861-4-without-leave", *STALE),
    stands_in("5861-4-by-rule", *STALE, route="on_error"),
    fails("5861-4-by-rule-not-against-must-revalidate",
          "Cache-Control: max-age=60, must-revalidate", "Age: 70", route="on_error"),
    fails("5861-4-by-rule-not-against-s-maxage", "Cache-Control: s-maxage=60", "Age: 70",
          route="on_error"),
    fails("5861-4-by-rule-not-against-no-cache", "Cache-Control: no-cache", route="on_error"),
    fails("5861-4-a-response-that-says-0-beats-the-rule",
          "Cache-Control: max-age=60, stale-if-error=0", "Age: 70", route="on_error"),
    fails("5861-4-not-against-must-revalidate", SIE + ", must-revalidate", "Age: 100"),
    stands_in("5861-4-asked-for", *STALE, ask=("Cache-Control: stale-if-error=600",)),
    fails("5861-4-asked-for-not-against-must-revalidate",
          "Cache-Control: max-age=60, must-revalidate", "Age: 100",
          ask=("Cache-Control: stale-if-error=600",)),
    fails("5861-4-not-for-no-cache", SIE, "Age: 100", ask=("Cache-Control: no-cache",)),
    case("5861-4-what-stood-in-is-still-there",
         forwards(SIE, "Age: 100", TAG),
         Step((), Told(status="503 Away", text="failed"), text="one"),
         validates(FRESH, TAG, sees=SEES), hit()),
    # What was never fresh was never shared: neither a rule nor a client makes it so.
    *(
        case(f"9111-4.2.4-never-fresh-not-behind-{label}",
             forwards(*fields, TAG), validates(sees=SEES), route="behind")
        for label, fields in (
            ("silent", ()), ("max-age-0", ("Cache-Control: max-age=0",)), ("expires", ("Expires: 0",)),
        )
    ),
    *(
        fails(f"9111-4.2.4-never-fresh-not-on-error-{label}", *fields, route="on_error")
        for label, fields in (
            ("silent", ()), ("max-age-0", ("Cache-Control: max-age=0",)), ("expires", ("Expires: 0",)),
        )
    ),
    stale("9111-4.2.4-never-fresh-not-for-max-stale", ask=("Cache-Control: max-stale",)),
    stale("9111-4.2.4-never-fresh-not-for-max-stale-of-max-age-0", "Cache-Control: max-age=0",
          ask=("Cache-Control: max-stale",)),
    fails("9111-4.2.4-never-fresh-not-on-error-that-is-asked-for",
          ask=("Cache-Control: stale-if-error=600",)),
    case("9111-4.2.4-never-fresh-and-silent-is-not-kept-for-a-rule",
         forwards(), forwards(text="two"), route="behind"),
    stands_in("9111-4.2.4-public-may-stand-in", "Cache-Control: public, max-age=0",
              route="on_error"),
    stands_in("5861-4-never-fresh-by-its-own-leave", "Cache-Control: max-age=0, stale-if-error=60"),
    case("9111-5.2.2.2-disconnected-and-must-revalidate",
         forwards("Cache-Control: max-age=60, must-revalidate", "Age: 100", TAG),
         Step((), Told(is_silent=True), status=502)),
    case("9111-4.2.4-a-failure-leaves-what-is-held",
         forwards(*STALE, TAG), forwards(status="503 Away", text="failed", sees=SEES),
         validates(FRESH, TAG, sees=SEES), hit()),
)  # fmt: skip

LONG = "text that is worth packing " * 100
GZIP = "Accept-Encoding: gzip"
PACKED = (
    case("9111-5.2.2.6-what-says-nothing-of-it-is-packed",
         forwards(FRESH, "Content-Type: text/plain", text=LONG, ask=(GZIP,),
                  gets=("content-encoding: gzip", "vary: accept-encoding")),
         hit(GZIP, gets=("content-encoding: gzip", "vary: accept-encoding")),
         hit(gets=("-content-encoding", "vary: accept-encoding")), route="packed"),
    case("9111-5.2.2.6-no-transform",
         forwards(FRESH + ", no-transform", "Content-Type: text/plain", text=LONG, ask=(GZIP,),
                  gets=("-content-encoding",)),
         hit(GZIP, gets=("-content-encoding",)), route="packed"),
    case("9111-5.2.1.6-no-transform-of-a-request",
         forwards(FRESH, "Content-Type: text/plain", text=LONG),
         hit(GZIP, "Cache-Control: no-transform", gets=("-content-encoding",)), route="packed"),
    case("9110-14.2-a-range-is-not-packed",
         forwards(FRESH, "Content-Type: text/plain", TAG, text=LONG),
         hit(GZIP, "Range: bytes=0-1999", status=206, text=LONG[:2000],
             gets=("-content-encoding", "content-range: bytes 0-1999/2700")), route="packed"),
    case("9110-8.8.3-the-tag-of-what-is-packed-is-known-again",
         forwards(FRESH, "Content-Type: text/plain", TAG, text=LONG, ask=(GZIP,),
                  gets=('etag: W/"a"',)),
         hit(GZIP, 'If-None-Match: W/"a"', status=304), route="packed"),
    case("9110-8.8.3-the-tag-of-what-is-packed-is-not-sent-on",
         forwards("Cache-Control: max-age=0", "Content-Type: text/plain", TAG, text=LONG,
                  ask=(GZIP,)),
         validates(FRESH, TAG, ask=(GZIP, 'If-None-Match: W/"a"'), sees=SEES, status=304),
         route="packed"),
)  # fmt: skip

TARGETED = (
    fresh("9213-2.1-cdn-before-cache-control", "CDN-Cache-Control: max-age=60",
          "Cache-Control: no-store"),
    fresh("9213-2.1-cdn-before-private", "CDN-Cache-Control: max-age=60", "Cache-Control: private"),
    stale("9213-2.1-cdn-0-before-cache-control", "CDN-Cache-Control: max-age=0", FRESH),
    stale("9213-2.1-cdn-no-cache", "CDN-Cache-Control: no-cache", FRESH),
    case("9213-2.1-cdn-no-store",
         forwards("CDN-Cache-Control: no-store", FRESH), forwards(FRESH, text="two")),
    case("9213-2.1-cdn-private",
         forwards("CDN-Cache-Control: max-age=60, private", FRESH), forwards(FRESH, text="two")),
    fresh("9213-2.1-cdn-before-expires", "CDN-Cache-Control: max-age=60", "Expires: 0"),
    case("9213-2.1-expires-has-no-say-beside-cdn",
         forwards("CDN-Cache-Control: public", "Expires: @+60", TAG), validates(sees=SEES)),
    stale("9213-2.1-cdn-s-maxage", "CDN-Cache-Control: s-maxage=0, max-age=60"),
    fresh("9213-3.1-own-name-before-cdn", "Headgate-Cache-Control: max-age=60",
          "CDN-Cache-Control: max-age=0"),
    fresh("9213-3.1-other-name-has-no-say", "Other-Cache-Control: no-store", FRESH),
    fresh("9213-2.1-empty-is-not-there", "CDN-Cache-Control:", FRESH),
    fresh("9213-2.1-malformed-is-not-there", "CDN-Cache-Control: max-age=0, =", FRESH),
    fresh("9213-2.1-capitals-are-malformed", "CDN-Cache-Control: MAX-AGE=0", FRESH),
    fresh("9213-2.1-open-quote-is-malformed", 'CDN-Cache-Control: max-age=0, a="', FRESH),
    fresh("9213-2.1-comma-at-the-end-is-malformed", "CDN-Cache-Control: max-age=0,", FRESH),
    stale("9213-2.1-string-for-a-number", 'CDN-Cache-Control: max-age="60"', FRESH),
    stale("9213-2.1-decimal-for-a-number", "CDN-Cache-Control: max-age=60.0", FRESH),
    stale("9213-2.1-negative-number", "CDN-Cache-Control: max-age=-1", FRESH),
    fresh("9213-2.1-parameters-have-no-say", "CDN-Cache-Control: max-age=60;a=b"),
    fresh("9213-2.1-last-of-two", "CDN-Cache-Control: max-age=0, max-age=60"),
    fresh("9213-2.1-last-of-two-means-nothing",
          "CDN-Cache-Control: max-age=60, no-store, no-store=()"),
    fresh("9213-2.1-false-is-not-there", "CDN-Cache-Control: max-age=60, no-store=?0"),
    fresh("9213-2.1-unknown-has-no-say", "CDN-Cache-Control: max-age=60, foo=1, bar"),
    fresh("9213-2.1-two-lines", "CDN-Cache-Control: public", "CDN-Cache-Control: max-age=60"),
    case("9213-2.1-swr", forwards("CDN-Cache-Control: max-age=60, stale-while-revalidate=60",
         "Age: 100"), stale_hit(behind=Told((FRESH,), text="two"))),
    case("9213-2.1-is-passed-on",
         forwards("CDN-Cache-Control: max-age=60", gets=("cdn-cache-control: max-age=60",)),
         hit(gets=("cdn-cache-control: max-age=60",))),
)  # fmt: skip

CASES = (*OF_REQUESTS, *OF_RESPONSES, *STALE_BY_LEAVE, *PACKED, *TARGETED)


@pytest.mark.parametrize("played", as_params(CASES))
def test_directives_of_both_sides_are_heeded(running, played):
    running.play(played)

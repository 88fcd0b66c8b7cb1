"""When what is kept may answer a request: RFC 9111 4, 4.1, 4.2, 5.1 and 5.3.

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
    validates,
)

pytestmark = pytest.mark.integration

running = rig.running

FRESH = "Cache-Control: max-age=60"
STALE = "Cache-Control: max-age=60", "Age: 100"
TAG = 'ETag: "a"'
SEES = ('if-none-match: "a"',)


LIFETIMES = (
    fresh("9111-4.2.1-max-age", FRESH),
    stale("9111-4.2.1-max-age-0", "Cache-Control: max-age=0"),
    fresh("9111-4.2.1-s-maxage-before-max-age", "Cache-Control: max-age=0, s-maxage=60"),
    stale("9111-4.2.1-s-maxage-0-before-max-age", "Cache-Control: max-age=60, s-maxage=0"),
    fresh("9111-5.3-max-age-before-expires", FRESH, "Expires: @-60"),
    stale("9111-5.3-max-age-0-before-expires", "Cache-Control: max-age=0", "Expires: @+60"),
    fresh("9111-5.3-s-maxage-before-expires", "Cache-Control: s-maxage=60", "Expires: @-60"),
    stale("9111-5.3-s-maxage-0-before-expires", "Cache-Control: s-maxage=0", "Expires: @+60"),
    fresh("9111-5.3-expires", "Expires: @+60"),
    stale("9111-5.3-expires-in-the-past", "Expires: @-60"),
    stale("9111-5.3-expires-now", "Expires: @0", "Date: @0"),
    stale("9111-5.3-expires-0", "Expires: 0"),
    stale("9111-5.3-expires-minus-1", "Expires: -1"),
    stale("9111-5.3-expires-empty", "Expires:"),
    stale("9111-5.3-expires-no-date", "Expires: tomorrow"),
    stale("9111-5.3-expires-seconds-alone", "Expires: 4102444800"),
    stale("9111-5.3-expires-iso", "Expires: 2099-01-01T00:00:00Z"),
    stale("9111-4.2-expires-other-zone", "Expires: Thu, 01 Jan 2099 00:00:00 PST"),
    stale("9111-4.2-expires-utc", "Expires: Thu, 01 Jan 2099 00:00:00 UTC"),
    stale("9111-4.2-expires-offset", "Expires: Thu, 01 Jan 2099 00:00:00 +0000"),
    fresh("9111-4.2-expires-in-lower-case", "Expires: thu, 01 jan 2099 00:00:00 gmt"),
    fresh("9111-4.2-expires-in-capitals", "Expires: THU, 01 JAN 2099 00:00:00 GMT"),
    fresh("9110-5.6.7-expires-asctime", "Expires: Thu Jan  1 00:00:00 2099"),
    fresh("9110-5.6.7-expires-rfc850", "Expires: Tuesday, 01-Jan-69 00:00:00 GMT"),
    stale("9110-5.6.7-expires-rfc850-past", "Expires: Sunday, 06-Nov-94 08:49:37 GMT"),
    stale("9110-5.6.7-expires-impossible-day", "Expires: Thu, 31 Feb 2099 00:00:00 GMT"),
    stale("9110-5.6.7-expires-impossible-hour", "Expires: Thu, 01 Jan 2099 25:00:00 GMT"),
    stale("9110-5.6.7-expires-no-seconds", "Expires: Thu, 01 Jan 2099 00:00 GMT"),
    stale("9110-5.6.7-expires-one-digit-day", "Expires: Thu, 1 Jan 2099 00:00:00 GMT"),
    stale("9110-5.6.7-expires-two-digit-year", "Expires: Thu, 01 Jan 99 00:00:00 GMT"),
    stale("9110-5.6.7-expires-one-digit-hour", "Expires: Thu, 01 Jan 2099 0:00:00 GMT"),
    stale("9110-5.6.7-expires-two-blanks", "Expires: Thu,  01 Jan 2099 00:00:00 GMT"),
    stale("9111-4.2.1-two-expires-one-past", "Expires: @+60", "Expires: @-60"),
    # Expires counts from Date, not from its arrival.
    fresh("9111-4.2.1-expires-from-a-date-ahead", "Date: @+600", "Expires: @+660"),
    stale("9111-4.2.1-expires-before-a-date-ahead", "Date: @+600", "Expires: @+60"),
    # malformed: stale
    *(
        stale(f"9111-4.2.1-max-age-{label}", f"Cache-Control: max-age={value}")
        for label, value in (
            ("negative", "-1"), ("decimal", "60.0"), ("letters", "60s"), ("empty", ""),
            ("hex", "0x60"), ("plus", "+60"), ("exponent", "6e9"), ("rubbish-behind", '"60"1'),
            ("two-values", "60;61"), ("blank-inside", "6 0"),
        )
    ),
    stale("9111-4.2.1-max-age-no-argument", "Cache-Control: max-age"),
    stale("9111-4.2.1-max-age-blank-before-equals", "Cache-Control: max-age =60"),
    stale("9111-4.2.1-max-age-blank-behind-equals", "Cache-Control: max-age= 60"),
    stale("9111-4.2.1-max-age-single-quotes", "Cache-Control: max-age='60'"),
    stale("9111-4.2.1-two-max-age-short-last", "Cache-Control: max-age=60, max-age=0"),
    stale("9111-4.2.1-two-max-age-short-first", "Cache-Control: max-age=0, max-age=60"),
    stale("9111-4.2.1-two-max-age-on-two-lines", "Cache-Control: max-age=60",
          "Cache-Control: max-age=0"),
    stale("9111-4.2.1-s-maxage-letters-despite-max-age", "Cache-Control: max-age=60, s-maxage=x"),
    stale("9111-4.2.1-most-restrictive-no-cache", "Cache-Control: max-age=60, no-cache"),
    # big numbers
    fresh("9111-1.3-max-age-2-31", "Cache-Control: max-age=2147483648"),
    fresh("9111-1.3-max-age-2-32", "Cache-Control: max-age=4294967296"),
    fresh("9111-1.3-max-age-2-64", "Cache-Control: max-age=18446744073709551616"),
    fresh("9111-1.3-max-age-99-digits", "Cache-Control: max-age=" + "9" * 99),
    fresh("9111-1.3-max-age-leading-zeros", "Cache-Control: max-age=" + "0" * 40 + "60"),
    stale("9111-1.3-age-2-31", "Cache-Control: max-age=60", "Age: 2147483648"),
    stale("9111-1.3-age-99-digits", "Cache-Control: max-age=60", "Age: " + "9" * 99),
    # names that only look alike
    stale("9111-5.2-x-max-age-is-another", "Cache-Control: x-max-age=60, max-age=0"),
    stale("9111-5.2-max-age-within-a-name", "Cache-Control: max-age=0, smax-age=60"),
    stale("9111-5.2-max-age-in-quotes-is-text", 'Cache-Control: a="max-age=60", max-age=0'),
)  # fmt: skip

AGES = (
    fresh("9111-5.1-age", "Cache-Control: max-age=600", "Age: 100", age_s=100),
    stale("9111-5.1-age-beyond-max-age", *STALE),
    stale("9111-4.2-age-equal-to-max-age", "Cache-Control: max-age=100", "Age: 100"),
    fresh("9111-4.2.3-date-in-the-past", "Cache-Control: max-age=600", "Date: @-100", age_s=100),
    stale("9111-4.2.3-date-beyond-max-age", FRESH, "Date: @-100"),
    fresh("9111-4.2.3-older-of-age-and-date", "Cache-Control: max-age=600", "Date: @-100",
          "Age: 200", age_s=200),
    fresh("9111-4.2.3-older-of-date-and-age", "Cache-Control: max-age=600", "Date: @-200",
          "Age: 100", age_s=200),
    fresh("9111-4.2.3-date-ahead-is-no-age", FRESH, "Date: @+600", age_s=0),
    fresh("9110-6.6.1-no-date", FRESH, is_dated=False, age_s=0),
    fresh("9110-6.6.1-wrong-date", FRESH, "Date: yesterday", age_s=0),
    fresh("9111-5.1-first-of-two-lines", "Cache-Control: max-age=600", "Age: 100", "Age: 200",
          age_s=100),
    stale("9111-5.1-first-of-two-lines-old", FRESH, "Age: 100", "Age: 0"),
    fresh("9111-5.1-first-of-a-list", "Cache-Control: max-age=600", "Age: 100, 200", age_s=100),
    stale("9111-5.1-first-of-a-list-old", FRESH, "Age: 100, 0"),
    *(
        fresh(f"9111-5.1-unreadable-{label}", FRESH, f"Age: {value}", age_s=0)
        for label, value in (
            ("negative", "-100"), ("decimal", "100.5"), ("letters", "100s"), ("empty", ""),
            ("parameter", "100;a=b"), ("quoted", '"100"'),
        )
    ),
    fresh("9111-4.2.3-expires-and-age", "Expires: @+600", "Age: 100", age_s=100),
    stale("9111-4.2.3-expires-and-much-age", "Expires: @+60", "Age: 100"),
    case("9111-4-age-takes-the-place-of-what-came",
         forwards("Cache-Control: max-age=600", "Age: 100", gets=("age: 100",)),
         hit(age_s=100)),
    case("9111-4-no-age-on-what-is-not-from-the-cache", forwards(FRESH, gets=("-age",))),
    case("9111-4.2.3-age-goes-on-from-a-304",
         forwards("Cache-Control: max-age=0", TAG),
         validates("Cache-Control: max-age=600", "Age: 50", TAG, sees=SEES, age_s=50),
         hit(age_s=50)),
)  # fmt: skip

HEURISTICS = (
    fresh("9111-4.2.2-a-tenth-since-last-modified", "Last-Modified: @-86400", age_s=0),
    case("9111-4.2.2-older-than-a-tenth",
         forwards("Last-Modified: @-1000", "Age: 150"),
         validates(sees=("if-modified-since: @-1000",))),
    case("9111-4.2.2-last-modified-ahead",
         forwards("Last-Modified: @+1000"), validates(sees=("if-modified-since",))),
    case("9111-4.2.2-last-modified-unreadable",
         forwards("Last-Modified: yesterday", TAG), validates(sees=SEES)),
    case("9111-4.2.2-not-beside-expires",
         forwards("Last-Modified: @-864000", "Expires: 0"),
         validates(sees=("if-modified-since",))),
    case("9111-4.2.2-not-beside-max-age",
         forwards("Last-Modified: @-864000", "Cache-Control: max-age=0"),
         validates(sees=("if-modified-since",))),
    case("9111-4.2.2-not-beside-s-maxage",
         forwards("Last-Modified: @-864000", "Cache-Control: s-maxage=0"),
         validates(sees=("if-modified-since",))),
    case("9111-4.2.2-not-beside-an-unreadable-max-age",
         forwards("Last-Modified: @-864000", "Cache-Control: max-age=x"),
         validates(sees=("if-modified-since",))),
    case("9111-4.2.2-no-more-than-the-bound-of-the-route",
         forwards("Last-Modified: @-86400000", "Age: 100000"),
         validates(sees=("if-modified-since",))),
    fresh("9111-4.2.2-also-with-a-query", "Last-Modified: @-86400"),
    case("9111-4.2.2-none-by-rule",
         forwards("Last-Modified: @-864000"), validates(sees=("if-modified-since",)),
         route="guessless"),
    case("9111-5.4-pragma-of-a-response-guesses-nothing",
         forwards("Last-Modified: @-864000", "Pragma: no-cache"),
         validates(sees=("if-modified-since",))),
    fresh("9111-5.4-pragma-of-a-response-has-no-say-beside-cache-control", FRESH,
          "Pragma: no-cache"),
    case("9111-4.2.2-public-on-a-status-that-is-not-heuristic",
         forwards("Cache-Control: public", "Last-Modified: @-86400", status="599 Said"),
         hit(status=599)),
)  # fmt: skip

SELECTING = (
    case("9111-4-other-path", forwards(FRESH), forwards(FRESH, at="/b", text="b"), hit()),
    case("9111-4-other-query", forwards(FRESH), forwards(FRESH, at="?a=1", text="b"),
         hit(at="?a=1", text="b"), hit()),
    case("9111-4-other-host", forwards(FRESH), forwards(FRESH, host="other.example", text="b"),
         hit()),
    case("9111-4-case-of-the-host", forwards(FRESH), hit(host="H.EXAMPLE")),
    case("9111-4-case-of-the-path", forwards(FRESH, at="/a"), forwards(FRESH, at="/A", text="b")),
    case("9111-4-head-from-get", forwards(FRESH, "X-A: 1"),
         hit(method="HEAD", gets=("content-length: 3", "x-a: 1"))),
    case("9111-4-unsafe-is-written-through",
         forwards(FRESH), forwards(method="POST", body="x", text="two", sees=("POST",))),
    *(
        case(f"9111-4-{method.lower()}-is-never-answered-from-what-is-kept",
             forwards(FRESH), forwards(method=method, text="two", sees=(method,)))
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "FOO")
    ),
    case("9111-4-a-later-response-takes-the-place",
         forwards("Cache-Control: max-age=0", TAG),
         forwards(FRESH, 'ETag: "b"', text="two", sees=SEES), hit(text="two")),
    case("9111-4-asked-for-with-no-cache-takes-the-place",
         forwards(FRESH), forwards(FRESH, ask=("Cache-Control: no-cache",), text="two"),
         hit(text="two")),
)  # fmt: skip


def varies(name: str, vary: str | tuple[str, ...], one: tuple[str, ...], other: tuple[str, ...],
           *, is_same: bool) -> Case:  # fmt: skip
    lines = (vary,) if isinstance(vary, str) else vary
    fields = (FRESH, *(f"Vary: {line}" for line in lines))
    again = hit(*other) if is_same else forwards(*fields, ask=other, text="two")
    steps = (forwards(*fields, ask=one), again)
    return case(name, *steps) if is_same else case(name, *steps, hit(*one), hit(*other, text="two"))


VARYING = (
    varies("9111-4.1-equal", "Foo", ("Foo: 1",), ("Foo: 1",), is_same=True),
    varies("9111-4.1-other", "Foo", ("Foo: 1",), ("Foo: 2",), is_same=False),
    varies("9111-4.1-absent-in-both", "Foo", (), (), is_same=True),
    varies("9111-4.1-absent-then-there", "Foo", (), ("Foo: 1",), is_same=False),
    varies("9111-4.1-there-then-absent", "Foo", ("Foo: 1",), (), is_same=False),
    varies("9111-4.1-absent-is-not-empty", "Foo", (), ("Foo:",), is_same=False),
    varies("9111-4.1-case-of-the-name", "FOO", ("foo: 1",), ("Foo: 1",), is_same=True),
    varies("9111-4.1-case-of-the-value", "Foo", ("Foo: a",), ("Foo: A",), is_same=False),
    varies("9111-4.1-two-names-equal", "Foo, Bar", ("Foo: 1", "Bar: 2"), ("Bar: 2", "Foo: 1"),
           is_same=True),
    varies("9111-4.1-second-name-differs", "Foo, Bar", ("Foo: 1", "Bar: 2"),
           ("Foo: 1", "Bar: 3"), is_same=False),
    varies("9111-4.1-two-lines-of-vary", ("Foo", "Bar"), ("Foo: 1", "Bar: 2"),
           ("Foo: 1", "Bar: 3"), is_same=False),
    varies("9111-4.1-empty-members", ", Foo,,", ("Foo: 1",), ("Foo: 2",), is_same=False),
    varies("9111-4.1-not-named", "Foo", ("Foo: 1", "Bar: 1"), ("Foo: 1", "Bar: 2"), is_same=True),
    varies("9111-4.1-empty-vary", "", ("Foo: 1",), ("Foo: 2",), is_same=True),
    varies("9111-4.1-lines-joined", "Foo", ("Foo: 1", "Foo: 2"), ("Foo: 1, 2",), is_same=True),
    varies("9111-4.1-order-of-lines", "Foo", ("Foo: 1", "Foo: 2"), ("Foo: 2", "Foo: 1"),
           is_same=False),
    varies("9111-4.1-blanks-around-commas", "Foo", ("Foo: 1,2",), ("Foo: 1 ,  2",), is_same=True),
    varies("9111-4.1-blanks-inside", "Foo", ("Foo: 1 2",), ("Foo: 1  2",), is_same=False),
    varies("9111-4.1-commas-in-quotes", "Foo", ('Foo: "1,2"',), ('Foo: "1, 2"',), is_same=False),
    varies("9111-4.1-cookie", "Cookie", ("Cookie: a=1",), ("Cookie: a=2",), is_same=False),
    varies("9111-4.1-user-agent", "User-Agent", ("User-Agent: a",), ("User-Agent: b",),
           is_same=False),
    varies("9111-4.1-origin", "Origin", ("Origin: https://a",), ("Origin: https://b",),
           is_same=False),
    varies("9111-4.1-host-is-in-the-key-anyway", "Host", (), (), is_same=True),
    varies("9111-4.1-accept-encoding-order", "Accept-Encoding", ("Accept-Encoding: gzip, br",),
           ("Accept-Encoding: br,gzip",), is_same=True),
    varies("9111-4.1-accept-encoding-case", "Accept-Encoding", ("Accept-Encoding: GZIP",),
           ("Accept-Encoding: gzip",), is_same=True),
    varies("9111-4.1-accept-encoding-weights-count", "Accept-Encoding",
           ("Accept-Encoding: gzip;q=0.5, br",), ("Accept-Encoding: gzip, br;q=0.5",),
           is_same=False),
    varies("9111-4.1-accept-encoding-weight-0", "Accept-Encoding", ("Accept-Encoding: gzip",),
           ("Accept-Encoding: gzip;q=0",), is_same=False),
    varies("9111-4.1-accept-weights-written-otherwise", "Accept", ("Accept: text/html;q=0.50",),
           ("Accept: text/html; q=0.5",), is_same=True),
    varies("9111-4.1-accept-other", "Accept", ("Accept: text/html",),
           ("Accept: application/json",), is_same=False),
    varies("9111-4.1-accept-language-case", "Accept-Language", ("Accept-Language: de-CH",),
           ("Accept-Language: DE-ch",), is_same=True),
    varies("9111-4.1-accept-language-by-weight", "Accept-Language",
           ("Accept-Language: fr;q=0.5, de",), ("Accept-Language: de, fr;q=0.5",), is_same=True),
    # Among equals many servers take the first.
    varies("9111-4.1-accept-language-order-of-equals", "Accept-Language",
           ("Accept-Language: en, de",), ("Accept-Language: de, en",), is_same=False),
    # Validated only by its own.
    case("9111-4.1-others-are-not-validated",
         forwards("Cache-Control: max-age=0", TAG, "Vary: Foo", ask=("Foo: 1",)),
         forwards(FRESH, "Vary: Foo", ask=("Foo: 2",), text="two", sees=("-if-none-match",))),
    case("9111-4.1-three-kept-beside-each-other",
         forwards(FRESH, "Vary: Foo", ask=("Foo: 1",)),
         forwards(FRESH, "Vary: Foo", ask=("Foo: 2",), text="two"),
         forwards(FRESH, "Vary: Foo", ask=("Foo: 3",), text="three"),
         hit("Foo: 2", text="two"), hit("Foo: 1"), hit("Foo: 3", text="three")),
    # Some omit Vary from the default: who has it goes before (4.1).
    case("9111-4.1-with-vary-goes-before-without",
         forwards(FRESH, "Vary: Foo", ask=("Foo: 1",)),
         forwards(FRESH, ask=("Foo: 2",), text="two"),
         hit("Foo: 1"), hit("Foo: 2", text="two")),
    case("9111-4.1-names-change",
         forwards(FRESH, "Vary: Foo", ask=("Foo: 1", "Bar: 1")),
         forwards(FRESH, "Vary: Bar", ask=("Foo: 2", "Bar: 1"), text="two"),
         forwards(FRESH, "Vary: Bar", ask=("Foo: 2", "Bar: 2"), text="three"),
         hit("Foo: 9", "Bar: 1", text="two")),
    case("9111-4.1-vary-of-a-304-counts",
         forwards("Cache-Control: max-age=0", TAG),
         validates(FRESH, TAG, "Vary: Foo", ask=("Foo: 1",), sees=SEES),
         forwards(FRESH, ask=("Foo: 2",), text="two"),
         hit("Foo: 1")),
    case("9111-4.1-vary-by-what-the-gateway-adds-is-for-one",
         forwards(FRESH, "Vary: X-Forwarded-For"), forwards(FRESH, text="two")),
    case("9111-4.1-head-selects-as-get",
         forwards(FRESH, "Vary: Foo", ask=("Foo: 1",)),
         hit("Foo: 1", method="HEAD"),
         Step(("Foo: 2",), Told((FRESH,), text="two!"), method="HEAD")),
)  # fmt: skip

CASES = (*LIFETIMES, *AGES, *HEURISTICS, *SELECTING, *VARYING)


@pytest.mark.parametrize("played", as_params(CASES))
def test_what_is_kept_answers_while_it_is_fresh_and_fits(running, played):
    running.play(played)

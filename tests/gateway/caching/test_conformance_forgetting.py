"""What makes the cache forget (RFC 9111 4.4), and what it says of itself (RFC 9211).

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
TAG = 'ETag: "a"'
SEES = ('if-none-match: "a"',)


def gone(name: str, *, method: str = "POST", status: str = "200 Done", at: str = "",
         told: tuple[str, ...] = (), forgets: str = "", keeps: str | None = None,
         route: str = "plain") -> Case:  # fmt: skip
    """What stands at `forgets` is asked for anew, and what stands at `keeps` is not."""
    steps = [forwards(FRESH, at=forgets, text="one")]
    if keeps is not None:
        steps.append(forwards(FRESH, at=keeps, text="other"))
    steps.append(forwards(*told, method=method, body="x", at=at, status=status, text="done"))
    if keeps is not None:
        steps.append(hit(at=keeps, text="other"))
    steps.append(forwards(FRESH, at=forgets, text="two"))
    return case(name, *steps, route=route)


def stays(name: str, *, method: str = "POST", status: str = "200 Done", at: str = "",
          told: tuple[str, ...] = (), of: str = "", host: str = "h.example") -> Case:  # fmt: skip
    return case(
        name,
        forwards(FRESH, at=of),
        forwards(*told, method=method, at=at, status=status, text="done", host=host),
        hit(at=of, text="one"),
    )


FORGETTING = (
    *(
        gone(f"9111-4.4-{method.lower()}", method=method)
        for method in ("POST", "PUT", "PATCH", "DELETE", "FOO", "MOVE", "PROPPATCH", "LOCK")
    ),
    *(
        stays(f"9110-9.2.1-safe-{method.lower()}", method=method)
        for method in ("OPTIONS", "PROPFIND", "REPORT", "SEARCH")
    ),
    *(
        gone(f"9111-4.4-status-{status}", status=f"{status} Done")
        for status in (201, 202, 204, 205, 299, 301, 302, 303, 307, 308)
        if status != 204
    ),
    case("9111-4.4-status-204",
         forwards(FRESH), Step((), Told(status="204 Done", text=""), method="DELETE", status=204),
         forwards(FRESH, text="two")),
    *(
        stays(f"9111-4.4-error-{status}", status=f"{status} Not Done")
        for status in (400, 401, 403, 404, 409, 412, 422, 429, 500, 502, 503)
    ),
    gone("9111-4.4-query-counts", at="?a=1", forgets="?a=1", keeps="?a=2"),
    gone("9111-4.4-other-path-stays", at="/a", forgets="/a", keeps="/b"),
    # What answers as one is forgotten as one, however the URL is written.
    case("9111-4.4-query-in-another-order",
         forwards(FRESH, at="?a=1&b=2"), hit(at="?b=2&a=1"),
         forwards(method="POST", text="done", at="?b=2&a=1"),
         forwards(FRESH, at="?a=1&b=2", text="two")),
    case("9111-4.4-escapes-that-mean-nothing",
         forwards(FRESH, at="/ab"), Step((), Told(text="done"), method="POST", at="/%61b",
         seen_at="/ab"), forwards(FRESH, at="/ab", text="two")),
    case("9111-4.4-port-of-the-scheme",
         forwards(FRESH), forwards(method="POST", text="done", host="h.example:80"),
         forwards(FRESH, text="two")),
    case("9111-4.4-host-in-capitals",
         forwards(FRESH), forwards(method="POST", text="done", host="H.Example"),
         forwards(FRESH, text="two")),
    case("9111-4.4-parameters-that-do-not-count",
         forwards(FRESH, at="?id=1&s=1"), hit(at="?id=1&s=2"),
         forwards(method="POST", text="done", at="?id=1&s=3"),
         forwards(FRESH, at="?id=1&s=1", text="two"), route="few_parameters"),
    case("9111-4.4-no-parameters-count",
         forwards(FRESH, at="?s=1"), forwards(method="POST", text="done", at="?s=2"),
         forwards(FRESH, at="?s=3", text="two"), route="no_parameters"),
    gone("9111-4.4-location", at="/p", told=("Location: {path}/q",), forgets="/q", keeps="/r"),
    gone("9111-4.4-content-location", at="/p", told=("Content-Location: {path}/q",), forgets="/q"),
    gone("9111-4.4-location-relative", at="/p", told=("Location: q",), forgets="/q"),
    gone("9111-4.4-location-absolute", at="/p",
         told=("Location: http://h.example{path}/q",), forgets="/q"),
    gone("9111-4.4-location-of-our-host-in-capitals", at="/p",
         told=("Location: HTTP://H.EXAMPLE{path}/q",), forgets="/q"),
    gone("9111-4.4-location-with-the-default-port", at="/p",
         told=("Location: http://h.example:80{path}/q",), forgets="/q"),
    gone("9111-4.4-location-with-a-fragment", at="/p", told=("Location: {path}/q#x",),
         forgets="/q"),
    gone("9111-4.4-location-with-a-query", at="/p", told=("Location: {path}/q?a=1",),
         forgets="/q?a=1", keeps="/q"),
    stays("9111-4.4-location-of-another-host", at="/p", of="/q",
          told=("Location: http://other.example{path}/q",)),
    stays("9111-4.4-location-of-another-scheme", at="/p", of="/q",
          told=("Location: https://h.example{path}/q",)),
    stays("9111-4.4-location-of-another-port", at="/p", of="/q",
          told=("Location: http://h.example:8080{path}/q",)),
    stays("9111-4.4-location-that-is-none", at="/p", of="/q", told=("Location: http://[bad/q",)),
    stays("9111-4.4-location-of-an-error", at="/p", of="/q", status="400 Bad",
          told=("Location: {path}/q",)),
    stays("9111-4.4-location-of-a-safe-method", at="/p", of="/q", method="OPTIONS",
          told=("Location: {path}/q",)),
    stays("9111-4.4-other-host", at="", host="other.example"),
    gone("9111-4.4-by-a-route-that-keeps-nothing", route="split"),
    gone("9111-4.4-by-a-route-that-keeps-nothing-with-a-query", at="?b=1&a=2", forgets="?a=2&b=1",
         route="split"),
    case("9111-4.4-every-variant",
         forwards(FRESH, "Vary: Foo", ask=("Foo: 1",)),
         forwards(FRESH, "Vary: Foo", ask=("Foo: 2",), text="two"),
         forwards(method="POST", text="done"),
         forwards(FRESH, "Vary: Foo", ask=("Foo: 1",), text="three", sees=("-if-none-match",)),
         forwards(FRESH, "Vary: Foo", ask=("Foo: 2",), text="four")),
    case("9111-4.4-not-before-the-service-has-answered",
         forwards(FRESH), Step((), Told(is_silent=True), method="POST", body="x", status=502),
         hit()),
    case("9111-4.4-what-the-method-itself-brings-is-not-kept",
         forwards(FRESH, "Content-Location: {path}", method="POST", text="made"),
         forwards(FRESH, text="two", sees=("GET",))),
)  # fmt: skip


def status(*parts: str) -> tuple[str, ...]:
    return tuple(f"cache-status~{part}" for part in ("headgate; ", *parts))


STATUS = (
    case("9211-2.1-hit", forwards(FRESH), hit(gets=status("headgate; hit; ttl="))),
    case("9211-2.2-uri-miss",
         forwards(FRESH, gets=status("fwd=uri-miss; fwd-status=200; stored; ttl="))),
    *(
        case(f"9211-2.5-not-stored-{detail.replace('_', '-')}",
             forwards(*fields, gets=("cache-status: headgate; fwd=uri-miss; fwd-status=200; "
                                     f"detail={detail}",)))
        for detail, fields in (
            ("no_store", ("Cache-Control: no-store",)),
            ("private", ("Cache-Control: private, max-age=60",)),
            ("set_cookie", ("Cache-Control: max-age=60", "Set-Cookie: a=b")),
            ("vary", ("Cache-Control: max-age=60", "Vary: *")),
            ("not_fresh", ()),
        )
    ),
    case("9211-2.2-method", forwards(method="POST", gets=status("fwd=method", "fwd-status=200"))),
    case("9211-2.2-request",
         forwards(FRESH, ask=("Cache-Control: no-store",), gets=status("fwd=request"))),
    case("9211-2.2-stale",
         forwards("Cache-Control: max-age=0", TAG),
         validates(FRESH, TAG, sees=SEES, gets=status("fwd=stale; fwd-status=304; stored"))),
    case("9211-2.2-stale-and-another",
         forwards("Cache-Control: max-age=0", TAG),
         forwards(FRESH, text="two", gets=status("fwd=stale; fwd-status=200; stored"))),
    case("9211-2.2-bypass-of-content",
         forwards(FRESH, body="x", gets=status("fwd=bypass"))),
    case("9211-2.4-negative-ttl",
         forwards("Cache-Control: max-age=60, stale-while-revalidate=60", "Age: 100"),
         stale_hit(behind=Told((FRESH,), text="two"), gets=status("hit; ttl=-4"))),
    case("9211-2-behind-that-of-a-cache-before-us",
         forwards(FRESH, "Cache-Status: Inner; hit", gets=status("Inner; hit, headgate; fwd=")),
         hit(gets=status("Inner; hit, headgate; hit"))),
    case("9211-2-one-line-of-several",
         forwards(FRESH, "Cache-Status: A; hit", "Cache-Status: B; hit",
                  gets=status("A; hit, B; hit, headgate; fwd="))),
    case("9211-2-none-by-rule", forwards(FRESH, gets=("-cache-status",)),
         hit(gets=("-cache-status",)), route="quiet"),
    case("9211-2-none-without-a-cache", forwards(FRESH, gets=("-cache-status",)), route="bare"),
    case("9211-2-of-a-304", forwards(FRESH, TAG),
         hit('If-None-Match: "a"', status=304, gets=status("hit"))),
    case("9211-2-of-a-206", forwards(FRESH),
         hit("Range: bytes=0-0", status=206, text="o", gets=status("hit"))),
    case("9211-2.2-of-an-error-that-was-spared",
         forwards("Cache-Control: max-age=60, stale-if-error=60", "Age: 100", TAG),
         Step((), Told(status="503 Away", text="failed"), text="one",
              gets=status("hit; ttl=-4", "detail=error"))),
)  # fmt: skip

CASES = (*FORGETTING, *STATUS)


@pytest.mark.parametrize("played", as_params(CASES))
def test_what_was_changed_is_forgotten_and_every_answer_tells_of_it(running, played):
    running.play(played)

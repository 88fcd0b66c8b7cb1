"""What a request asks of a cache, read once per distinct head.

Theory of operation. Two headers of a request are the client's wish and not a rule: `Cache-Control`
and, only where that is missing, `Pragma: no-cache` (RFC 9111 5.2.1, 5.4). A wish that is not well
formed is none, except that a `max-age` or `min-fresh` that is no number asks for validation.
`client_directives: false` leaves all of them unread.

A cache answers GET and HEAD. It leaves to the origin what only the origin can judge: `If-Match` and
`If-Unmodified-Since` (4.3.2), and a request with content, whose meaning is not defined (RFC 9110
9.3.1) and which two readers could take for different requests.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from headgate.cache.http.cache_control import SECONDS_MAX, delta_seconds, members
from headgate.cache.http.ranges import parse_range

if TYPE_CHECKING:
    from headgate.cache.http.ranges import Spec
    from headgate.cache.http.rules import CacheRules
    from headgate.wire.message import Header

__all__ = ["Asked", "read_request"]

_READ: Final = frozenset(
    {
        b"authorization",
        b"cache-control",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"pragma",
        b"range",
    }
)
_METHODS: Final = frozenset({"GET", "HEAD"})


class Asked:
    """Never changed once read."""

    __slots__ = (
        "has_authorization",
        "headers",
        "if_modified_since",
        "if_none_match",
        "if_range",
        "is_cacheable",
        "is_conditional",
        "is_head",
        "max_age_s",
        "max_stale_s",
        "method",
        "min_fresh_s",
        "no_cache",
        "no_store",
        "no_transform",
        "only_if_cached",
        "range",
        "stale_if_error_s",
        "wishes",
    )

    def __init__(self, method: str, headers: tuple[Header, ...], is_identified: bool) -> None:
        self.method = method
        self.headers = headers
        """Of the request, for `Vary`."""
        self.is_head = method == "HEAD"
        self.is_cacheable = method in _METHODS
        """False: past the cache, both ways. It may still invalidate (`invalidated_by`)."""
        self.has_authorization = is_identified
        """The response is for somebody known: see `judge_response`."""
        self.is_conditional = False
        """`If-None-Match` or `If-Modified-Since`: may be answered by 304."""
        self.wishes = False
        """Any directive at all: without, `judge_reuse` looks at the clock and the response only."""
        self.no_store = False
        self.no_cache = False
        self.no_transform = False
        self.only_if_cached = False
        self.max_age_s: float | None = None
        self.min_fresh_s = 0.0
        self.max_stale_s: float | None = None
        """How long past its freshness is still welcome; None: not at all, inf: however long."""
        self.stale_if_error_s: float | None = None
        self.if_none_match: bytes | None = None
        self.if_modified_since: bytes | None = None
        self.if_range: bytes | None = None
        self.range: tuple[Spec, ...] | None = None


def read_request(
    method: str,
    headers: tuple[Header, ...],
    rules: CacheRules,
    *,
    is_identified: bool,
    has_body: bool = False,
) -> Asked:
    asked = Asked(method, headers, is_identified)
    if has_body:
        asked.is_cacheable = False
    for name, _ in headers:
        if name in _READ:
            _take(asked, rules, headers)
            break
    return asked


def _take(asked: Asked, rules: CacheRules, headers: tuple[Header, ...]) -> None:
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _READ:
            known = found.get(name)
            found[name] = value if known is None else known + b", " + value
    if b"authorization" in found:
        asked.has_authorization = True
    if b"if-match" in found or b"if-unmodified-since" in found:
        asked.is_cacheable = False
    asked.if_none_match = found.get(b"if-none-match")
    if asked.if_none_match is None:
        # RFC 9110 13.1.3: not looked at beside If-None-Match.
        asked.if_modified_since = found.get(b"if-modified-since")
    asked.is_conditional = asked.if_none_match is not None or asked.if_modified_since is not None
    wanted = found.get(b"range")
    if wanted is not None and asked.method == "GET":
        asked.range = parse_range(wanted)
        if asked.range is not None:
            asked.if_range = found.get(b"if-range")
    if rules.client_directives:
        directives = found.get(b"cache-control")
        if directives is not None:
            _take_directives(asked, directives)
        elif b"pragma" in found:
            asked.no_cache = any(name == b"no-cache" for name, _ in members(found[b"pragma"]))
            asked.wishes = asked.no_cache


def _take_directives(asked: Asked, value: bytes) -> None:
    asked.wishes = True
    for name, argument in members(value):
        if name == b"no-cache":
            asked.no_cache = True
        elif name == b"no-store":
            asked.no_store = True
        elif name == b"max-age":
            seconds = delta_seconds(argument) or 0.0
            known = asked.max_age_s
            asked.max_age_s = seconds if known is None else min(seconds, known)
        elif name == b"min-fresh":
            given = delta_seconds(argument)
            seconds = float(SECONDS_MAX) if given is None else given
            asked.min_fresh_s = max(asked.min_fresh_s, seconds)
        elif name == b"max-stale":
            given = math.inf if argument is None else delta_seconds(argument)
            if given is not None:
                known = asked.max_stale_s
                asked.max_stale_s = given if known is None else min(given, known)
        elif name == b"only-if-cached":
            asked.only_if_cached = True
        elif name == b"stale-if-error":
            asked.stale_if_error_s = delta_seconds(argument)
        elif name == b"no-transform":
            asked.no_transform = True

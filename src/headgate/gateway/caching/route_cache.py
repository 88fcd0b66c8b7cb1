"""One route's cache: its rules, what it says of itself in headers, and its counts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from headgate.cache.barriers import Standing
from headgate.cache.http.answering import answer
from headgate.cache.http.reuse import may_serve_on_error
from headgate.cache.http.status_field import appended, member
from headgate.gateway.edited import edited
from headgate.policy.hops import SAID_TO_SERVICES, SCHEME_NAMES
from headgate.wire.message import UNKNOWN_LENGTH, ResponseHead

if TYPE_CHECKING:
    from collections.abc import Callable

    from headgate.cache.http.asked import Asked
    from headgate.cache.http.rules import CacheRules
    from headgate.cache.http.status_field import Forwarded
    from headgate.cache.http.stored import Stored
    from headgate.gateway.caching.caching import Caching
    from headgate.gateway.caching.exchange import Cached
    from headgate.gateway.caching.fill import Fill
    from headgate.gateway.caching.store import Kept
    from headgate.gateway.filters.headers import Edits
    from headgate.gateway.steps import Step
    from headgate.gateway.traffic import RouteTraffic
    from headgate.policy.degrade import Degrade
    from headgate.wire.message import Header

OUTCOMES: Final = (
    "hit",
    "stale",
    "stale_on_error",
    "revalidated",
    "collapsed",
    "miss",
    "pass",
    "refused",
    "alone",
    "stored",
    "too_long",
    "no_room",
)
"""What is counted of a route. `alone`: waited for another's answer, and asked in the end; `stored`,
`too_long` and `no_room` (too much was on its way into the cache) are about responses, the rest
about requests."""

_PASS_S: Final = 10.0
_VARIANTS: Final = 8
_SAID_BY_US: Final = SAID_TO_SERVICES - SCHEME_NAMES - {b"x-forwarded-host"}
"""What the gateway tells the service of each client: it is not among the fields that a response can
be chosen by, so one that varies by it is for nobody else. Scheme and host are in the key."""

_OF_THE_HOST: Final = frozenset({b"host", b"x-forwarded-host"})
"""The same of where the key does not hold the host."""


def not_modified(head: ResponseHead, left_out: frozenset[bytes]) -> ResponseHead:
    """In place of this head, for a client whose own copy is what it announces."""
    fields = tuple(field for field in head.headers if field[0] not in left_out)
    return ResponseHead(304, fields, reason=b"Not Modified")


def _whole(seconds: float) -> float:
    """A moment past the end is none: freshness counts in seconds."""
    return float(int(seconds))


class RouteCache:
    __slots__ = (
        "_degrade",
        "_hidden",
        "_troubled",
        "_unkeyed",
        "caching",
        "counts",
        "edits",
        "fill_traffic",
        "is_quick",
        "key_of",
        "late",
        "methods",
        "pass_s",
        "rules",
        "url_of",
    )

    def __init__(
        self,
        caching: Caching,
        rules: CacheRules,
        methods: frozenset[str],
        key_of: Callable[[Cached], str | None],
        url_of: Callable[[Cached], str],
        counts: dict[str, int],
        late: tuple[Step, ...],
        fill_traffic: RouteTraffic,
        degrade: Degrade | None,
        told: frozenset[bytes],
    ) -> None:
        self.caching = caching
        self.rules = rules
        self.methods = methods
        self.key_of = key_of
        self.url_of = url_of
        self.counts = counts
        self.late = late
        """Steps that are for what is asked of the service: faults, seats."""
        self.fill_traffic = fill_traffic
        self.pass_s = _PASS_S
        self.is_quick = False
        """Nothing but the cache is asked before a hit, and nothing has to look at it."""
        self.edits: Edits | None = None
        """What a quick hit's head is edited by."""
        self._degrade = degrade
        self._troubled = None
        if rules.trouble_ttl_s and rules.ttl_s is None:
            self._troubled = replace(rules, ttl_s=rules.trouble_ttl_s)
        self._unkeyed = _SAID_BY_US | told
        if not rules.key.host:
            self._unkeyed |= _OF_THE_HOST
        hidden = frozenset(name.encode("ascii") for name in rules.tag_headers)
        self._hidden = frozenset() if rules.tags_shown else hidden

    def rules_at(self, now: float) -> CacheRules:
        """The rules by which a response is kept, at the level of degradation in force."""
        troubled = self._troubled
        if troubled is None or self._degrade is None:
            return self.rules
        return troubled if "stale" in self._degrade.answer(now).measures else self.rules

    def may_vary(self, stored: Stored) -> bool:
        """Whether all that it varies by is said by clients."""
        return not any(name in self._unkeyed for name, _ in stored.vary)

    # -- answers -------------------------------------------------------------------------------

    def reply(self, kept: Kept, asked: Asked, wall: float, how: str) -> tuple[ResponseHead, bytes]:
        """What is held, as the answer to this request."""
        if not asked.is_conditional and asked.range is None:
            second = int(wall)
            head = kept.head
            if head is None or kept.head_second != second or how != "hit":
                stored = kept.stored
                fields = self._with_age(stored.headers, kept, wall, how)
                head = ResponseHead(
                    stored.status, fields, reason=stored.reason, length=len(kept.body)
                )
                if how == "hit":
                    kept.head = head
                    kept.head_second = second
            return head, b"" if asked.is_head else kept.body
        made = answer(kept.stored, asked, len(kept.body))
        fields = self._with_age(made.headers, kept, wall, how)
        # RFC 9110 8.6: a 304 has no length, as it would be taken for that of the whole.
        length = UNKNOWN_LENGTH if made.status == 304 else made.length
        head = ResponseHead(made.status, fields, reason=made.reason, length=length)
        return head, made.content(kept.body)

    def _with_age(
        self, headers: tuple[Header, ...], kept: Kept, wall: float, how: str
    ) -> tuple[Header, ...]:
        stored = kept.stored
        age_s = stored.age_s(wall)
        fields = (*self._visible(headers), (b"age", b"%d" % age_s))
        if not self.rules.status_header:
            return fields
        ttl_s = _whole(stored.fresh_s - age_s)
        name = self.rules.name
        if how in ("hit", "stale"):
            said = member(name, hit=True, ttl_s=ttl_s)
        elif how == "stale_on_error":
            said = member(name, hit=True, ttl_s=ttl_s, detail="error")
        else:
            said = member(
                name,
                fwd="stale",
                fwd_status=304,
                stored=kept.is_live,
                collapsed=how == "collapsed",
                ttl_s=ttl_s,
            )
        return appended(fields, said)

    def edited(self, reply: tuple[ResponseHead, bytes]) -> tuple[ResponseHead, bytes]:
        head, body = reply
        return reply if self.edits is None else (edited(head, self.edits), body)

    def _visible(self, headers: tuple[Header, ...]) -> tuple[Header, ...]:
        hidden = self._hidden
        if not any(field[0] in hidden for field in headers):
            return headers
        return tuple(field for field in headers if field[0] not in hidden)

    def shown(
        self,
        head: ResponseHead,
        stored: Stored | None,
        how: str,
        fill: Fill,
        *,
        is_first: bool,
    ) -> ResponseHead:
        """The head of an answer that a fill brings, for one of its readers."""
        said = b""
        if self.rules.status_header:
            said = member(
                self.rules.name,
                fwd="stale" if fill.was_held else "uri-miss",
                fwd_status=head.status,
                stored=fill.is_kept,
                collapsed=how == "collapsed",
                ttl_s=_whole(stored.fresh_s - stored.initial_age_s) if stored else None,
                detail=fill.why_not or None,
            )
        if is_first or stored is None:
            return self._told(head, said)
        # What may not be kept is for the one who asked. RFC 9111 4: the others are told its age.
        fields = (*self._visible(stored.headers), (b"age", b"%d" % stored.initial_age_s))
        fields = appended(fields, said) if said else fields
        return ResponseHead(head.status, fields, reason=head.reason, length=head.length)

    def passed(self, head: ResponseHead, why: Forwarded) -> ResponseHead:
        """The head of an answer that the cache had no part in."""
        if head.status == 101:
            return head
        said = b""
        if self.rules.status_header:
            said = member(self.rules.name, fwd=why, fwd_status=head.status)
        return self._told(head, said)

    def _told(self, head: ResponseHead, said: bytes) -> ResponseHead:
        """The head with what we say of it; made once for equal heads."""
        key = (said, self._hidden)
        variants = head.variants
        if variants is None:
            variants = head.variants = {}
        known = variants.get(key)
        if known is not None:
            return known
        fields = self._visible(head.headers)
        made = ResponseHead(
            head.status,
            appended(fields, said) if said else fields,
            reason=head.reason,
            length=head.length,
            upgrade=head.upgrade,
        )
        if len(variants) < _VARIANTS:
            variants[key] = made
        return made

    # -- in trouble ----------------------------------------------------------------------------

    def may_stand_in(self, kept: Kept, asked: Asked, wall: float) -> bool:
        """Whether it may be served in place of an error."""
        standing = self.caching.barriers.judge(kept.url, kept.stored.tags, kept.stamp)
        return (
            kept.is_live
            and standing is not Standing.DEAD
            and may_serve_on_error(kept.stored, asked, wall, self.rules)
        )

    def fall_back_when_degraded(self, ex: Cached) -> bool:
        """Nothing is held that could be served: answer as the level in force says."""
        degrade, fallback = self._degrade, ex.traffic.fallback
        if degrade is None or fallback is None:
            return False
        measures = degrade.answer(ex.started).measures
        if not (
            ("static" in measures and fallback.reply is not None)
            or ("service" in measures and fallback.service is not None)
        ):
            return False
        ex.error = "degraded"
        return ex.fall_back("flag")

"""Opaque tokens that their issuer is asked about (RFC 7662): answers, and what is kept of them.

Theory of operation. An answer says `active: true` or it says nothing: whatever else is in it, and
whatever is not understood, is a refusal. An active token is believed for `max_age_s` and never
beyond its `exp`; one that is not active for `negative_s`, so that a client that asks in a loop is
not the issuer's problem. Both are in one bounded memory, by HMAC of the token under a key of this
process: the memory holds no token. What is oldest in use makes room.

`Circuit` keeps us from asking an issuer that does not answer: after `failures` in a row everybody
is answered at once for `open_s`, then one question is let through to find out.

Times are wall times, which may be set back: what lies further in the future than it could when it
was written counts as over.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from headgate.security.identity import Identity

LONGEST_TOKEN: Final = 8192
MAX_ANSWER_BYTES: Final = 64 * 1024
_TOKEN: Final = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")
_SLEW_S: Final = 5.0
"""How far a clock that is being set right may seem to go back."""
SUBJECTS: Final = ("sub", "username", "client_id")


@dataclass(frozen=True, slots=True)
class IntrospectionRules:
    name: str = "introspection"
    url: str = ""
    client_id: str = ""
    client_auth: str = "basic"
    """`basic`, `post`, `bearer` or `none`."""
    ca_file: str = ""
    realm: str = "api"
    timeout_s: float = 2.0
    max_age_s: float = 60.0
    negative_s: float = 5.0
    stale_s: float = 300.0
    when_away: str = "refuse"
    remembered_max: int = 20_000
    concurrency: int = 32
    waiting: int = 1000
    failures: int = 3
    open_s: float = 1.0
    leeway_s: float = 30.0
    skip_jwt: bool = False
    issuer: str = ""
    audience: tuple[str, ...] = ()
    subject: tuple[str, ...] = SUBJECTS
    roles_claim: str = ""
    groups_claim: str = ""
    tier_claim: str = ""


@dataclass(frozen=True, slots=True)
class Active:
    identity: Identity
    ends: float
    """Wall time after which the token holds no more; infinity where the issuer does not say."""


@dataclass(frozen=True, slots=True)
class Inactive:
    error: str
    reason: str


NOT_ACTIVE: Final = Inactive("inactive", "This token is not valid, or not any more.")

Answer = Active | Inactive


def is_token(text: bytes) -> bool:
    """Whether it can be a bearer token at all (RFC 6750 section 2.1)."""
    return len(text) <= LONGEST_TOKEN and _TOKEN.fullmatch(text) is not None


def looks_like_jwt(token: bytes) -> bool:
    return token.count(b".") == 2 and token.startswith(b"eyJ")


def judge(said: object, rules: IntrospectionRules, wall: float) -> Answer:
    """What an answer of the issuer is worth. ValueError if it is no answer at all."""
    if not isinstance(said, Mapping) or not isinstance(said.get("active"), bool):
        raise ValueError("the answer has no `active`")
    if said["active"] is not True:
        return NOT_ACTIVE
    ends, begins = _time(said, "exp"), _time(said, "nbf")
    if ends is not None and wall >= ends:
        return Inactive("expired", "This token has expired.")
    if begins is not None and wall + rules.leeway_s < begins:
        return Inactive("not_yet", "This token is not valid yet.")
    if rules.issuer and said.get("iss") != rules.issuer:
        return Inactive("wrong_issuer", "This token is from somebody else.")
    if rules.audience and not _words(said.get("aud"), splits=False) & frozenset(rules.audience):
        return Inactive("wrong_audience", "This token is for somebody else.")
    subject = next((text for name in rules.subject if (text := _text(said.get(name)))), "")
    if not subject:
        return Inactive("no_subject", "This token does not say whose it is.")
    identity = Identity(
        subject=subject,
        consumer=_text(said.get("client_id")) or subject,
        tier=_text(said.get(rules.tier_claim)) if rules.tier_claim else "",
        claims=dict(said),
        method=rules.name,
        roles=_words(said.get(rules.roles_claim)) if rules.roles_claim else frozenset(),
        scopes=_words(said.get("scope")),
        groups=_words(said.get(rules.groups_claim)) if rules.groups_claim else frozenset(),
        expires=ends,
    )
    return Active(identity, math.inf if ends is None else ends)


def _time(said: Mapping[str, Any], name: str) -> float | None:
    value = said.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"`{name}` of the answer is no number")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"`{name}` of the answer is no time") from None
    if not math.isfinite(number):
        raise ValueError(f"`{name}` of the answer is no time")
    return number


def _text(value: object) -> str:
    """Text that can be a name; everything else is none."""
    return value if isinstance(value, str) and value.isprintable() else ""


def _words(value: object, *, splits: bool = True) -> frozenset[str]:
    """A list of texts, or one text: words between blanks."""
    if isinstance(value, str):
        return frozenset(value.split() if splits else [value])
    if isinstance(value, list):
        return frozenset(item for item in value if isinstance(item, str) and item)
    return frozenset()


@dataclass(frozen=True, slots=True)
class Kept:
    answer: Answer
    until: float
    """Wall time until which it is believed without asking."""
    stale_until: float
    """Wall time until which it may stand in while the issuer is away."""


class TokenMemory:
    """Answers by the tag of their token: bounded, least recently used out first."""

    def __init__(self, rules: IntrospectionRules) -> None:
        self._rules = rules
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def fresh(self, tag: bytes, wall: float) -> Kept | None:
        kept = self._kept.get(tag)
        if kept is None or not 0 < kept.until - wall <= self._longest(kept) + _SLEW_S:
            return None
        self._kept.move_to_end(tag)
        return kept

    def stale(self, tag: bytes, wall: float) -> Active | None:
        """A token that was active lately and has not ended by itself."""
        kept = self._kept.get(tag)
        if kept is None or not isinstance(kept.answer, Active):
            return None
        rules = self._rules
        if not 0 < kept.stale_until - wall <= rules.max_age_s + rules.stale_s + _SLEW_S:
            return None
        return kept.answer

    def put(self, tag: bytes, answer: Answer, wall: float) -> Kept:
        rules = self._rules
        if isinstance(answer, Active):
            until = min(answer.ends, wall + rules.max_age_s)
            stale_until = min(answer.ends, wall + rules.max_age_s + rules.stale_s)
        else:
            until = stale_until = wall + rules.negative_s
        kept = Kept(answer, until, stale_until)
        self._kept[tag] = kept
        self._kept.move_to_end(tag)
        while len(self._kept) > rules.remembered_max:
            self._kept.popitem(last=False)
        return kept

    def clear(self) -> None:
        self._kept.clear()

    def _longest(self, kept: Kept) -> float:
        is_active = isinstance(kept.answer, Active)
        return self._rules.max_age_s if is_active else self._rules.negative_s


class Circuit:
    """Whether to ask an issuer that has failed."""

    def __init__(self, failures: int, open_s: float) -> None:
        self._limit = failures
        self._open_s = open_s
        self._failed = 0
        self._until = -math.inf
        self._is_trying = False

    def may_ask(self, now: float) -> bool:
        """Ask once before each question; `succeed`, `fail` or `abandon` must follow a yes."""
        if self._failed < self._limit:
            return True
        if now < self._until or self._is_trying:
            return False
        self._is_trying = True
        return True

    def succeed(self) -> None:
        self._failed = 0
        self._is_trying = False

    def fail(self, now: float) -> None:
        self._failed += 1
        self._is_trying = False
        if self._failed >= self._limit:
            self._until = now + self._open_s

    def abandon(self) -> None:
        """The question was not asked to its end, and says nothing."""
        self._is_trying = False

    @property
    def is_open(self) -> bool:
        return self._failed >= self._limit

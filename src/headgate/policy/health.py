"""What checks say about one instance: counted until it is up or down.

Theory of operation
-------------------
Three states. `unknown` is an instance that no check has judged yet; whether it is used meanwhile
is the rules' `start`. From there the first check decides at once, since there is no better
evidence to hold against it. Later only several answers in a row decide:

    unknown --first check--> up | down
    up      --`fall` failed checks in a row--> down
    down    --`rise` passed checks in a row--> up

What is remembered from before the checker started anew (`recall`) stands in place of a first check.

The caller makes the checks and brings the results: `next_check` says when, `saw` takes what came
out. Times are spread in three ways. First checks come at any moment of `FIRST_WITHIN_S`, so that
news about a new instance comes soon; the second check follows after any part of the interval, so
that a thousand instances of one reload do not stay in step for ever; later ones vary by `jitter`.
While an instance is down, or its last check failed, `unhealthy_every_s` takes the place of
`every_s`: a real failure and a false alarm are both known sooner. Intervals run from the end of
one check to the beginning of the next.

What an editor must not break: `saw` alone changes the state, and a change is told exactly once.
"""

from __future__ import annotations

import random
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from headgate.policy.in_words import span

__all__ = [
    "BODY_BYTES",
    "FIRST_WITHIN_S",
    "HISTORY",
    "Change",
    "Health",
    "HealthKind",
    "HealthRules",
    "HealthSnapshot",
    "HealthState",
]

HealthKind = Literal["http", "tcp", "grpc"]
Health = Literal["unknown", "up", "down"]

FIRST_WITHIN_S: Final = 1.0
HISTORY: Final = 16
BODY_BYTES: Final = 64 * 1024
"""So much of a body is read."""

_METHOD: Final = re.compile(r"[A-Z][A-Z0-9_-]{0,31}")
_PATH: Final = re.compile(r"/[\x21-\x7e]*")
_HOST: Final = re.compile(r"[\x21-\x7e]+")
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OURS: Final = frozenset({"connection", "content-length", "host", "transfer-encoding", "upgrade"})
"""Header fields that the checker writes itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthRules:
    """How an instance is checked, and how many answers it takes."""

    kind: HealthKind = "http"
    path: str = "/"
    every_s: float = 30.0
    unhealthy_every_s: float | None = None
    timeout_s: float = 2.0
    """For the whole check, from the first packet to the last byte that is read."""
    rise: int = 2
    fall: int = 3
    jitter: float = 0.1
    """Intervals vary by this share, up and down. 0: they are exact."""
    statuses: tuple[tuple[int, int], ...] = ((200, 399),)
    """Ranges that pass, both ends included. Redirects are not followed."""
    body: str | None = None
    """What the first `BODY_BYTES` of the body must contain."""
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    host: str | None = None
    """Sent as `Host`, or `:authority` in HTTP/2. None: the host of the instance's URL."""
    port: int | None = None
    """None: the port of the instance's URL."""
    grpc_service: str = ""
    """The name asked for; empty asks about the server as a whole."""
    start: Literal["up", "down"] = "up"
    """How an instance counts until its first check."""

    def passes(self, status: int) -> bool:
        return any(low <= status <= high for low, high in self.statuses)

    def asks_like(self, other: HealthRules) -> bool:
        """Whether an answer under these rules is one under the other: only the pace differs."""
        return self == replace(
            other,
            every_s=self.every_s,
            unhealthy_every_s=self.unhealthy_every_s,
            rise=self.rise,
            fall=self.fall,
            jitter=self.jitter,
            start=self.start,
        )

    def problems(self) -> tuple[str, ...]:
        return (*self._senseless_numbers(), *self._contradictions(), *self._unsendable())

    def _senseless_numbers(self) -> Iterator[str]:
        for name, seconds in (("every_s", self.every_s), ("timeout_s", self.timeout_s)):
            if not seconds > 0.0:
                yield f"{name}={seconds:g} must be over 0"
        if self.unhealthy_every_s is not None and not self.unhealthy_every_s > 0.0:
            yield f"unhealthy_every_s={self.unhealthy_every_s:g} must be over 0"
        for name, count in (("rise", self.rise), ("fall", self.fall)):
            if count < 1:
                yield f"{name}={count} must be at least 1"
        if not 0.0 <= self.jitter <= 1.0:
            yield f"jitter={self.jitter:g} must be between 0 and 1"
        if self.port is not None and not 1 <= self.port <= 65535:
            yield f"port={self.port} must be between 1 and 65535"
        if not self.statuses:
            yield "no status passes: the instance could never be up"
        for low, high in self.statuses:
            if not 100 <= low <= high <= 599:
                yield f"statuses {low}-{high} must be a range within 100 and 599"

    def _contradictions(self) -> Iterator[str]:
        plain = HealthRules()
        if self.kind != "http":
            for name in ("path", "statuses", "body", "method"):
                if getattr(self, name) != getattr(plain, name):
                    yield f"{name} means nothing to a check of kind {self.kind}"
        if self.kind == "tcp":
            for name in ("headers", "host"):
                if getattr(self, name) != getattr(plain, name):
                    yield f"{name} means nothing to a check of kind tcp"
        if self.kind != "grpc" and self.grpc_service:
            yield f"grpc_service means nothing to a check of kind {self.kind}"
        if self.body is not None and self.method == "HEAD":
            yield "body can never be found: an answer to HEAD has none"
        if self.body is not None and len(self.body.encode()) > BODY_BYTES:
            yield f"body is longer than what is read of one, {BODY_BYTES} bytes"

    def _unsendable(self) -> Iterator[str]:
        if not _PATH.fullmatch(self.path):
            yield f"path {self.path!r} must begin with / and hold printable ASCII without spaces"
        if not _METHOD.fullmatch(self.method):
            yield f"method {self.method!r} must be upper-case letters"
        if self.host is not None and not _HOST.fullmatch(self.host):
            yield f"host {self.host!r} must be a host with or without :port"
        for name, value in self.headers:
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                yield f"header {name!r} cannot be sent"
            elif name.lower() in _OURS:
                yield f"header {name!r} is written by the check itself"


@dataclass(frozen=True, slots=True)
class Change:
    at: float
    was: Health
    became: Health
    why: str


@dataclass(frozen=True, slots=True)
class HealthSnapshot:
    state: Health
    is_usable: bool
    for_s: float
    """How long it has been in this state."""
    why: str
    """Why it is in this state."""
    in_a_row: int
    """Checks in a row that came out as the last one did."""
    needed: int
    """How many checks in a row that say otherwise would change the state now."""
    last_ok: bool | None
    last_why: str
    last_took_s: float
    last_ago_s: float | None
    checks: int
    failures: int
    next_in_s: float | None
    """None while a check is under way."""
    history: tuple[Change, ...]

    @property
    def in_words(self) -> str:
        """For an operator: "down since 12 s: 3 checks in a row failed (connect refused), ..."."""
        if self.state == "unknown":
            text = f"not checked yet, {'used' if self.is_usable else 'not used'} meanwhile"
        else:
            text = f"{self.state} since {span(self.for_s)}: {self.why}"
            if self.state == "up" and self.last_ok is False:
                text += f", but the last failed ({self.last_why}): down after {self.needed} more"
            elif self.state == "down":
                if self.last_why not in self.why and not self.last_ok:
                    text += f", the last: {self.last_why}"
                passes = "1 check that passes" if self.needed == 1 else f"{self.needed} that pass"
                text += f", up after {passes}"
        if self.next_in_s is None:
            return f"{text}, checked just now"
        return f"{text}, next check in {span(self.next_in_s)}"


class HealthState:
    """One instance."""

    __slots__ = (
        "_checks",
        "_due",
        "_failures",
        "_in_a_row",
        "_is_new",
        "_is_scattered",
        "_last_at",
        "_last_ok",
        "_last_took_s",
        "_last_why",
        "_rules",
        "_since",
        "_why",
        "history",
        "state",
    )

    def __init__(self, rules: HealthRules, now: float) -> None:
        self._rules = rules
        self.state: Health = "unknown"
        self.history: deque[Change] = deque(maxlen=HISTORY)
        self._why = ""
        self._since = now
        self._is_new = True
        self._is_scattered = False
        self._in_a_row = 0
        self._checks = 0
        self._failures = 0
        self._last_ok: bool | None = None
        self._last_why = ""
        self._last_took_s = 0.0
        self._last_at = now
        self._due: float | None = None

    @property
    def is_usable(self) -> bool:
        return self.state == "up" or (self.state == "unknown" and self._rules.start == "up")

    @property
    def why(self) -> str:
        """Why it is in its state."""
        return self._why

    def saw(self, ok: bool, why: str, now: float, took_s: float = 0.0) -> Change | None:
        """Take what a check has found; `why` is what was seen, also when that is fine."""
        self._checks += 1
        self._failures += not ok
        self._in_a_row = self._in_a_row + 1 if ok is self._last_ok else 1
        self._last_ok = ok
        self._last_why = why
        self._last_took_s = took_s
        self._last_at = now
        self._due = None
        was_new, self._is_new = self._is_new, False
        became: Health = "up" if ok else "down"
        if self.state == became:
            return None
        needed = 1 if was_new else self._rules.rise if ok else self._rules.fall
        if self._in_a_row < needed:
            return None
        return self._move(became, self._say(ok, why, was_new, needed), now)

    def recall(self, up: bool, why: str, now: float) -> bool:
        """Take over what an earlier life of the checker had found, where nothing has been found
        yet: then one failed check decides as little as it did before. Says whether it was taken.
        """
        if self.state != "unknown" or self._checks:
            return False
        self._is_new = False
        self._move("up" if up else "down", why, now)
        return True

    def next_check(self, now: float, rng: random.Random) -> float:
        """When the next check is to begin. Call it at the start and after each check."""
        rules = self._rules
        if not self._checks:
            return self.soon(now, rng)
        interval_s = rules.every_s
        if rules.unhealthy_every_s is not None and (self.state == "down" or not self._last_ok):
            interval_s = rules.unhealthy_every_s
        if not rules.jitter:
            share = 1.0
        elif self._is_scattered:
            share = 1.0 + rules.jitter * (2.0 * rng.random() - 1.0)
        else:
            share = rng.random()
            self._is_scattered = True
        self._due = now + interval_s * share
        return self._due

    def soon(self, now: float, rng: random.Random) -> float:
        """In place of `next_check`: at any moment of `FIRST_WITHIN_S`, as for a new instance.

        For when what is asked has changed, or the last check came to nothing.
        """
        self._due = now + rng.random() * min(self._rules.every_s, FIRST_WITHIN_S)
        return self._due

    def begun(self) -> None:
        """A check is under way; only for what the snapshot says."""
        self._due = None

    def take_rules(self, rules: HealthRules, now: float, *, asks_anew: bool = False) -> None:
        """Keep state, counts and history; new numbers hold from the next check on.

        If something else is asked than before (or elsewhere, which is the caller's to know), the
        next check decides at once, as it does for a new instance: whoever corrects a wrong path
        need not wait for `rise` checks.
        """
        if asks_anew or not rules.asks_like(self._rules):
            self._is_new = True
        self._rules = rules

    def snapshot(self, now: float) -> HealthSnapshot:
        against = self.state == "unknown" or self._last_ok is not (self.state == "up")
        threshold = self._rules.fall if self.state == "up" else self._rules.rise
        needed = max(1, threshold - (self._in_a_row if against else 0))
        return HealthSnapshot(
            state=self.state,
            is_usable=self.is_usable,
            for_s=now - self._since,
            why=self._why,
            in_a_row=self._in_a_row,
            needed=1 if self._is_new else needed,
            last_ok=self._last_ok,
            last_why=self._last_why,
            last_took_s=self._last_took_s,
            last_ago_s=now - self._last_at if self._checks else None,
            checks=self._checks,
            failures=self._failures,
            next_in_s=max(0.0, self._due - now) if self._due is not None else None,
            history=tuple(self.history),
        )

    def _move(self, became: Health, why: str, now: float) -> Change:
        change = Change(now, self.state, became, why)
        self.state = became
        self._why = why
        self._since = now
        self.history.append(change)
        return change

    def _say(self, ok: bool, why: str, was_new: bool, needed: int) -> str:
        if was_new:
            what = "the first check" if self.state == "unknown" else "the first check by new rules"
        else:
            what = "a check" if needed == 1 else f"{self._in_a_row} checks in a row"
        return f"{what} passed" if ok else f"{what} failed ({why})"

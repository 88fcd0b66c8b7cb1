"""Which fallback now, and why: levels and flags, switched by hand, by breaker or by load.

Theory of operation. Each source (the hand, a breaker, the load) asks for a level with a reason of
its own and takes only its own back. The level in force is the highest that anybody asks for,
except that the hand wins: what is set by hand holds, upwards and downwards, until it is cleared
by hand or its time (`for_s`) is over. Level 0 is the usual one, with nothing in force.

A source other than the hand goes up at once and comes down slowly: when it asks for less, or
clears, what it had asked for before is held for another `hold_s`. A breaker that opens and closes
every few seconds therefore does not make the site flap; each time it goes up again before that,
the hold is forgotten, and each time it goes down the hold begins anew.

A flag is on for a share of calls: always the same ones if they have a key. A level may switch
flags off; a flag set by hand holds against its level as well.

Time passes only when somebody looks: `answer` returns the same object until a source moves or
something has run out, which is one comparison. Who wants to report changes compares with the
object it had before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import Final, Literal

__all__ = [
    "HAND",
    "Answer",
    "Degrade",
    "DegradeRules",
    "DegradeSnapshot",
    "FlagState",
    "Level",
    "Measure",
    "Reason",
]

Measure = Literal["stale", "service", "static", "shed"]

HAND: Final = "hand"
_MASK: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Level:
    name: str
    measures: tuple[Measure, ...] = ()
    """In the order in which they are tried."""
    off: tuple[str, ...] = ()
    """Flags that are off at this level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DegradeRules:
    levels: tuple[Level, ...] = (
        Level("normal"),
        Level("stale", ("stale",)),
        Level("fallback", ("stale", "service", "static")),
        Level("survival", ("stale", "service", "static", "shed")),
    )
    """From the usual one to the worst; each says all that is in force at it."""
    flags: tuple[tuple[str, float], ...] = ()
    """Name, and the share of calls it is on for: 0.0 is off, 1.0 is on."""
    hold_s: float = 30.0
    """How long a level stays that came by itself, after its cause has gone."""

    def problems(self) -> tuple[str, ...]:
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        if not self.levels:
            yield "there must be at least one level, the usual one"
        elif self.levels[0].measures or self.levels[0].off:
            yield (
                f'the first level, "{self.levels[0].name}", is the usual one; '
                "nothing can be in force or off at it"
            )
        names = [level.name for level in self.levels]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f'two levels are called "{name}"'
        flags = [name for name, _ in self.flags]
        for name in sorted({name for name in flags if flags.count(name) > 1}):
            yield f'the flag "{name}" stands more than once'
        for name, share in self.flags:
            if not 0.0 <= share <= 1.0:
                yield f'the flag "{name}" is on for {share:g}; it must be a share between 0 and 1'
        for level in self.levels:
            for name in level.off:
                if name not in flags:
                    yield f'the level "{level.name}" switches off "{name}", which is no flag'
            if len(set(level.measures)) < len(level.measures):
                yield f'the level "{level.name}" names a measure twice'
        if not (self.hold_s >= 0.0 and math.isfinite(self.hold_s)):
            yield f"hold_s={self.hold_s:g} must be a time from 0"


@dataclass(frozen=True, slots=True)
class Reason:
    source: str
    level: int
    why: str
    since: float
    until: float | None
    """When it ends by itself: an order for a time, or what is only being held."""


@dataclass(frozen=True, slots=True)
class Answer:
    level: int
    name: str
    measures: tuple[Measure, ...]
    off: tuple[str, ...]
    reasons: tuple[Reason, ...]
    """All there are; the one that decides is the first."""


@dataclass(frozen=True, slots=True)
class FlagState:
    name: str
    share: float
    why: str
    """"file", or the level or the hand that has changed it."""
    until: float | None


@dataclass(frozen=True, slots=True)
class DegradeSnapshot:
    answer: Answer
    flags: tuple[FlagState, ...]


class _Source:
    """What one source asks for, and what it asked for before that is still being held."""

    __slots__ = ("held", "held_until", "level", "since", "until", "why", "why_held")

    def __init__(self) -> None:
        self.level = 0
        self.why = ""
        self.since = 0.0
        self.until = math.inf
        self.held = 0
        self.why_held = ""
        self.held_until = -math.inf

    def run_out(self, now: float, hold_s: float) -> None:
        if self.until <= now:
            self.ask(0, self.until, "", math.inf, hold_s)
        if self.held and self.held_until <= now:
            self.since = self.held_until
            self.held = 0

    def ask(self, level: int, now: float, why: str, until: float, hold_s: float) -> None:
        before = max(self.level, self.held)
        if level < self.level:  # asking for as little again does not prolong the hold
            if self.level >= self.held:
                self.why_held = self.why
            if hold_s > 0.0:
                self.held = before
                self.held_until = now + hold_s
        if level >= self.held:
            self.held = 0
        if max(level, self.held) != before:
            self.since = now
        self.level = level
        self.why = why
        self.until = until

    @property
    def is_idle(self) -> bool:
        return not self.level and not self.held

    @property
    def ends_at(self) -> float:
        return min(self.until, self.held_until if self.held else math.inf)

    def reason(self, name: str) -> Reason:
        if self.held > self.level:
            return Reason(name, self.held, self.why_held, self.since, self.held_until)
        until = None if self.until == math.inf else self.until
        return Reason(name, self.level, self.why, self.since, until)


class Degrade:
    __slots__ = ("_answer", "_changes_at", "_flags", "_rules", "_salts", "_set_flags", "_sources")

    def __init__(self, rules: DegradeRules, now: float) -> None:
        self._sources: dict[str, _Source] = {}
        self._set_flags: dict[str, tuple[float, str, float]] = {}
        """By hand: share, why, until."""
        self._answer = Answer(0, "", (), (), ())
        self.take_rules(rules, now)

    def set(
        self, source: str, level: int, now: float, why: str, for_s: float | None = None
    ) -> Answer:
        """Ask for a level: `source` is "hand", "load", "breaker:NAME" or the like.

        Asking again replaces what the same source asked for before. A level of 0 by hand keeps
        everything at normal, whatever the others ask for; of another source it is as `clear`.
        """
        if not 0 <= level < len(self._rules.levels):
            raise ValueError(
                f"there is no level {level}; the last is {len(self._rules.levels) - 1}"
            )
        until = math.inf if for_s is None else now + for_s
        asked = self._sources.get(source)
        if asked is None:
            asked = self._sources[source] = _Source()
            asked.since = now
        asked.run_out(now, self._hold_s(source))
        asked.ask(level, now, why, until, self._hold_s(source))
        return self._renew(now)

    def clear(self, source: str, now: float) -> Answer:
        """Take back what a source asked for; the hand's is gone at once."""
        asked = self._sources.get(source)
        if asked is not None:
            if source == HAND:
                del self._sources[HAND]
            else:
                asked.run_out(now, self._rules.hold_s)
                asked.ask(0, now, "", math.inf, self._rules.hold_s)
        return self._renew(now)

    def answer(self, now: float) -> Answer:
        """What is in force; the same object until that changes."""
        if now >= self._changes_at:
            return self._renew(now)
        return self._answer

    def set_flag(
        self, name: str, share: float, now: float, why: str, for_s: float | None = None
    ) -> None:
        """Switch a flag by hand: False or 0.0 is off, True or 1.0 on, 0.5 on for half."""
        self._known(name)
        if not 0.0 <= share <= 1.0:
            raise ValueError(f'the flag "{name}" cannot be on for {share:g}; a share is 0 to 1')
        self._set_flags[name] = (float(share), why, math.inf if for_s is None else now + for_s)
        self._renew(now)

    def clear_flag(self, name: str, now: float) -> None:
        """Back to what the file and the level say."""
        self._known(name)
        self._set_flags.pop(name, None)
        self._renew(now)

    def is_on(self, name: str, now: float, key: int | None, rng: Random) -> bool:
        """Whether the flag is on for this call. `key`: a 64-bit hash, None to draw."""
        if now >= self._changes_at:
            self._renew(now)
        share = self._flags[name].share
        if share <= 0.0 or share >= 1.0:
            return share > 0.0
        if key is None:
            return rng.random() < share
        # An odd multiplier of its own for each flag: who has one is no more likely to have others.
        return (key * self._salts[name] & _MASK) < share * 2.0**64

    def take_rules(self, rules: DegradeRules, now: float) -> None:
        """What sources ask for is kept, within the new levels; so are flags set by hand.

        Levels are counted, not named: level 2 stays level 2.
        """
        if problems := rules.problems():
            raise ValueError("; ".join(problems))
        self._rules = rules
        self._salts = {name: _odd(name) for name, _ in rules.flags}
        self._set_flags = {
            name: order for name, order in self._set_flags.items() if name in self._salts
        }
        top = len(rules.levels) - 1
        for asked in self._sources.values():
            asked.level = min(asked.level, top)
            asked.held = min(asked.held, top)
        self._renew(now)

    def snapshot(self, now: float) -> DegradeSnapshot:
        return DegradeSnapshot(self.answer(now), tuple(self._flags.values()))

    def _hold_s(self, source: str) -> float:
        return 0.0 if source == HAND else self._rules.hold_s

    def _known(self, name: str) -> None:
        if name not in self._salts:
            known = ", ".join(self._salts) or "none"
            raise ValueError(f'there is no flag "{name}"; there is {known}')

    def _renew(self, now: float) -> Answer:
        """Drop what has run out and work out what is in force."""
        for source, asked in list(self._sources.items()):
            if source == HAND:
                if asked.until <= now:
                    del self._sources[HAND]
                continue
            asked.run_out(now, self._rules.hold_s)
            if asked.is_idle:
                del self._sources[source]
        for name, (_, _, until) in list(self._set_flags.items()):
            if until <= now:
                del self._set_flags[name]
        reasons = sorted(
            (asked.reason(source) for source, asked in self._sources.items()),
            key=lambda reason: (reason.source != HAND, -reason.level, reason.since),
        )
        level = reasons[0].level if reasons else 0
        spec = self._rules.levels[level]
        answer = Answer(level, spec.name, spec.measures, spec.off, tuple(reasons))
        ends = [asked.ends_at for asked in self._sources.values()]
        ends += [until for _, _, until in self._set_flags.values()]
        self._changes_at = min(ends, default=math.inf)
        self._flags = {name: self._flag(name, share, spec) for name, share in self._rules.flags}
        if answer != self._answer:
            self._answer = answer
        return self._answer

    def _flag(self, name: str, share: float, level: Level) -> FlagState:
        order = self._set_flags.get(name)
        if order is not None:
            return FlagState(name, order[0], order[1], None if order[2] == math.inf else order[2])
        if name in level.off:
            return FlagState(name, 0.0, f'level "{level.name}"', None)
        return FlagState(name, share, "file", None)


def _odd(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") | 1

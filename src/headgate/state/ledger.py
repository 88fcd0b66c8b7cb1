"""The home's book: one `Home` a rule, and which seats each holder has.

Theory of operation. A rule comes with the first ask and with each declaration; the last declaration
holds. A changed rule goes on with what its keys have used, as `Home.take_rules` says; another
algorithm begins anew, because states do not translate. Asks do not change a rule: in a rolling
reload two workers ask under different rules for a while, and the limit must not flip with each.

A holder that has died gives back the seats that it was lent. Hits that it had leased and not spent
cannot be told from those it spent, so they stay charged until they have run out.

Bounds: `max_rules` rules, beyond which the one asked longest ago is forgotten; each with the keys
that its own rules allow. A rule without keys that nobody asked for in `IDLE_S` is dropped.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from headgate.policy.limiter.lease import Ask, Back, Grant, LeaseRules, home_of
from headgate.policy.limiter.rules import Algorithm, LimitRules, Verdict

__all__ = ["Ledger", "RuleSnapshot"]

IDLE_S: Final = 600.0
_RULES_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class RuleSnapshot:
    """One rule as the home sees it."""

    rule: str
    algorithm: Algorithm
    limit: int
    period_s: float
    keys: int


class _Entry:
    __slots__ = ("asked_at", "home", "rules", "seat_ttl_s")

    def __init__(self, rules: LimitRules, seat_ttl_s: float, now: float) -> None:
        self.home = home_of(rules, LeaseRules(seat_ttl_s=seat_ttl_s))
        self.rules = rules
        self.seat_ttl_s = seat_ttl_s
        self.asked_at = now


class Ledger:
    def __init__(self, max_rules: int = _RULES_MAX) -> None:
        self._max_rules = max_rules
        self._entries: dict[str, _Entry] = {}
        self._seats: dict[str, dict[tuple[str, str], int]] = {}
        """By holder: what it holds of each (rule, key) of a limit of concurrency."""
        self._next_swept = 0

    def declare(self, rule: str, rules: LimitRules, seat_ttl_s: float, now: float) -> None:
        """These are the rules from now on; ValueError if they have problems."""
        entry = self._entries.get(rule)
        if entry is None:
            self._add(rule, rules, seat_ttl_s, now)
        elif entry.rules.algorithm != rules.algorithm or (
            entry.seat_ttl_s != seat_ttl_s and rules.algorithm == "concurrency"
        ):
            self._entries[rule] = _Entry(rules, seat_ttl_s, now)
        elif entry.rules != rules:
            entry.home.take_rules(rules, now)
            entry.rules = rules

    def _add(self, rule: str, rules: LimitRules, seat_ttl_s: float, now: float) -> _Entry:
        entry = _Entry(rules, seat_ttl_s, now)
        if len(self._entries) >= self._max_rules:
            del self._entries[min(self._entries, key=lambda name: self._entries[name].asked_at)]
        self._entries[rule] = entry
        return entry

    def take(
        self, rule: str, rules: LimitRules, seat_ttl_s: float, ask: Ask, holder: str, now: float
    ) -> Grant:
        """Decide one ask; `rules` count only if the rule is not known any more."""
        entry = self._entries.get(rule)
        if entry is None:
            entry = self._add(rule, rules, seat_ttl_s, now)
        entry.asked_at = now
        key, want, least, owed, holding = ask[:5]
        grant = entry.home.grant(key, want, least, holder, now, owed, holding)
        if entry.rules.algorithm == "concurrency":
            self._seated(holder, rule, str(key), grant.granted, holding)
        return grant

    def _seated(self, holder: str, rule: str, key: str, change: int, holding: int | None) -> None:
        seats = self._seats.setdefault(holder, {})
        place = (rule, key)
        held = (seats.get(place, 0) if holding is None else holding) + change
        if held > 0:
            seats[place] = held
        else:
            seats.pop(place, None)

    def give_back(self, rule: str, back: Back, holder: str, now: float) -> None:
        entry = self._entries.get(rule)
        if entry is None:
            return
        entry.home.give_back(back.key, back.n, now, holder, back.at)
        if entry.rules.algorithm == "concurrency":
            self._seated(holder, rule, str(back.key), -back.n, None)

    def leave(self, holder: str, now: float) -> int:
        """The holder is gone: its seats are free. Says how many there were."""
        freed = 0
        for (rule, key), held in self._seats.pop(holder, {}).items():
            entry = self._entries.get(rule)
            if entry is not None:
                entry.home.give_back(key, held, now, holder, now)
                freed += held
        return freed

    def sweep(self, now: float, most: int = 1000) -> int:
        """Drop what has run out, of one rule after the other, looking at about `most` keys."""
        names = list(self._entries)
        if not names:
            return 0
        gone = 0
        for _ in range(len(names)):
            self._next_swept = (self._next_swept + 1) % len(names)
            rule = names[self._next_swept]
            entry = self._entries[rule]
            keys = len(entry.home)
            if keys:
                gone += entry.home.sweep(now, most)
                most -= keys
                if most <= 0:
                    break
            elif now - entry.asked_at > IDLE_S:
                del self._entries[rule]
        return gone

    def peek(self, rule: str, key: str, now: float) -> Verdict | None:
        """How a key stands; None where nobody has asked for the rule."""
        entry = self._entries.get(rule)
        return entry.home.peek(key, now) if entry is not None else None

    def clear(self, rule: str, key: str) -> bool | None:
        """Forget what a key has used. False: it cannot be; None: nobody has asked for the rule."""
        entry = self._entries.get(rule)
        return entry.home.clear(key) if entry is not None else None

    def top(self, rule: str, now: float, most: int) -> list[tuple[Hashable, float]]:
        """The keys of a rule that have used most."""
        entry = self._entries.get(rule)
        return entry.home.top(now, most) if entry is not None else []

    def snapshot(self) -> tuple[RuleSnapshot, ...]:
        return tuple(
            RuleSnapshot(
                rule,
                entry.rules.algorithm,
                entry.rules.limit,
                entry.rules.period_s,
                len(entry.home),
            )
            for rule, entry in self._entries.items()
        )

    def __len__(self) -> int:
        return len(self._entries)

"""One route, several parts by weight: canary and A/B, sticky by key, shifted gradually.

Theory of operation. The numbers from 0 to 1 are laid out in stretches, each owned by a part; the
stretches of a part add up to its share. A call with a key falls on the number its key is hashed
to, a call without one on a number that is drawn: both meet the shares exactly on average, and
choosing is one search among a handful of bounds.

The layout for given weights is canonical: each of n parts has the n-th of the line as its home.
A part that is due less keeps the beginning of its home, and the parts that are due more share
what is left over, in order. All workers, and those of tomorrow, therefore agree on a key as long
as the weights come straight from the file.

A change of weights moves only what it must, from shrinking parts to growing ones. No key moves
between two parts of which neither grew. With one main part and canaries beside it, each below an
n-th, and the main part gaining what they lose and the other way about, the outcome is the
canonical layout again. In general it is not: the layout then carries its history, and a process
that starts later is handed `layout` by one that knows it, or places some keys otherwise.

A shift is such a change in small steps. What a part gives up next depends on where it stands, not
on how it got there, so how often anybody looked makes no difference to where a key ends up.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import Final

__all__ = ["Split", "SplitRules", "SplitSnapshot"]

_STEPS: Final = 1000  # a shift moves at most this often
_LEAST: Final = 1e-12  # what is shorter is a rounding error
_MASK: Final = (1 << 64) - 1

Stretch = tuple[float, float, str]
"""From, to (not included), owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRules:
    parts: tuple[tuple[str, float], ...]
    """Name and weight. A part of weight 0 gets nothing until something is shifted to it."""
    salt: str = ""
    """Splits with different salts place the same key independently of each other: a user who is
    in the canary of one service is no more likely than others to be in that of the next."""

    def problems(self) -> tuple[str, ...]:
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        if not self.parts:
            yield "a split needs at least one part"
            return
        names = [name for name, _ in self.parts]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f'"{name}" stands more than once in the split'
        for name, weight in self.parts:
            if not (weight >= 0.0 and math.isfinite(weight)):
                yield f'the weight of "{name}" is {weight:g}; it must be a number from 0'
        if not any(weight > 0.0 for _, weight in self.parts):
            yield "the weights of the split add up to 0, so no call could go anywhere"


@dataclass(frozen=True, slots=True)
class _Shift:
    source: str
    target: str
    begun_at: float
    over_s: float
    before: Mapping[str, float]
    moved: float


@dataclass(frozen=True, slots=True)
class SplitSnapshot:
    shares: Mapping[str, float]
    source: str | None
    target: str | None
    """From and to while a shift is under way."""
    left_s: float


class Split:
    __slots__ = ("_bounds", "_factor", "_next_at", "_owners", "_rules", "_shift")

    def __init__(
        self, rules: SplitRules, now: float, layout: Sequence[Stretch] | None = None
    ) -> None:
        """`layout` is that of another process for the same parts, where there is one."""
        if problems := rules.problems():
            raise ValueError("; ".join(problems))
        self._rules = rules
        self._factor = _factor(rules.salt)
        self._shift: _Shift | None = None
        self._next_at = math.inf
        shares = _shares(rules)
        self._bounds: list[float] = []
        self._owners: list[str] = []
        self._lay(moved(layout, shares) if layout else canonical(shares))

    @property
    def rules(self) -> SplitRules:
        return self._rules

    def choose(self, key: int | None, rng: Random, now: float) -> str:
        """The part for one call. `key` is a 64-bit hash of what the split sticks to."""
        if now >= self._next_at:
            self._step(now)
        point = rng.random() if key is None else (key * self._factor & _MASK) / 2.0**64
        return self._owners[bisect_right(self._bounds, point)]

    def shift(
        self, source: str, target: str, over_s: float, now: float, share: float = 1.0
    ) -> None:
        """Move `share` of what `source` has to `target`, evenly over `over_s`.

        A shift still under way is stopped where it is. What is shifted lasts until other weights
        come with new rules.
        """
        before = self.weights_at(now)
        for name in (source, target):
            if name not in before:
                known = ", ".join(sorted(before))
                raise ValueError(f'the split has no part "{name}"; it has {known}')
        if source == target:
            raise ValueError(f'"{source}" cannot be shifted to itself')
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"share={share:g} is no share between 0 and 1")
        self._shift = _Shift(source, target, now, over_s, before, before[source] * share)
        self._next_at = now
        self._step(now)

    def stop(self, now: float) -> None:
        """Leave a shift where it is now."""
        self._lay(moved(self.layout, self.weights_at(now)))
        self._shift = None
        self._next_at = math.inf

    def restore(self, now: float) -> None:
        """Back to the shares of the rules, whatever was shifted; of the keys only those move that
        have to.
        """
        self.stop(now)
        self._lay(moved(self.layout, _shares(self._rules)))

    def weights_at(self, now: float) -> dict[str, float]:
        """The shares of all parts, which add up to 1."""
        shift = self._shift
        if shift is None:
            shares = {name: 0.0 for name, _ in self._rules.parts}
            for start, end, owner in self.layout:
                shares[owner] += end - start
            return shares
        done = min(1.0, (now - shift.begun_at) / shift.over_s) if shift.over_s > 0.0 else 1.0
        shares = dict(shift.before)
        shares[shift.source] -= shift.moved * max(0.0, done)
        shares[shift.target] += shift.moved * max(0.0, done)
        return shares

    @property
    def layout(self) -> tuple[Stretch, ...]:
        starts = [0.0, *self._bounds]
        return tuple(zip(starts, [*self._bounds, 1.0], self._owners, strict=True))

    def take_rules(self, rules: SplitRules, now: float) -> None:
        """Keys stay where they are as far as the new weights let them.

        The same weights again change nothing, and a shift goes on; other weights end it. Another
        salt deals all keys anew.
        """
        if problems := rules.problems():
            raise ValueError("; ".join(problems))
        if rules == self._rules:
            return
        self.stop(now)
        if rules.salt == self._rules.salt:
            self._lay(moved(self.layout, _shares(rules)))
        else:
            self._factor = _factor(rules.salt)
            self._lay(canonical(_shares(rules)))
        self._rules = rules

    def snapshot(self, now: float) -> SplitSnapshot:
        shift = self._shift
        shares = self.weights_at(now)
        left_s = 0.0 if shift is None else shift.begun_at + shift.over_s - now
        if shift is None or left_s <= 0.0:
            return SplitSnapshot(shares, None, None, 0.0)
        return SplitSnapshot(shares, shift.source, shift.target, left_s)

    def _step(self, now: float) -> None:
        shift = self._shift
        if shift is None:
            return
        self._lay(moved(self.layout, self.weights_at(now)))
        if now >= shift.begun_at + shift.over_s:
            self._shift = None
            self._next_at = math.inf
        else:
            self._next_at = now + shift.over_s / _STEPS

    def _lay(self, layout: Sequence[Stretch]) -> None:
        self._bounds = [end for _, end, _ in layout[:-1]]
        self._owners = [owner for _, _, owner in layout]


def _factor(salt: str) -> int:
    """An odd multiplier: its products with a key have top bits that depend on the whole key."""
    return int.from_bytes(blake2b(salt.encode(), digest_size=8).digest(), "big") | 1


def _shares(rules: SplitRules) -> dict[str, float]:
    largest = max(weight for _, weight in rules.parts)  # divided by first: a sum may overflow
    total = math.fsum(weight / largest for _, weight in rules.parts)
    return {name: weight / largest / total for name, weight in rules.parts}


def canonical(shares: Mapping[str, float]) -> list[Stretch]:
    """The layout that depends on the shares alone."""
    home = 1.0 / len(shares)
    layout = [(at * home, (at + 1) * home, name) for at, name in enumerate(shares)]
    return moved(layout, shares)


def moved(layout: Sequence[Stretch], shares: Mapping[str, float]) -> list[Stretch]:
    """The layout for other shares in which the fewest keys have another owner than before.

    A growing part is first given what lies in its own home. Beyond that a shrinking part gives up
    what it holds in the homes of others before its own, the end before the beginning. Owners that
    are not in `shares` give up all they have.
    """
    home = 1.0 / len(shares)
    pieces: list[_Piece] = []
    too_much = {name: -share for name, share in shares.items()}
    for start, end, owner in layout:
        too_much[owner] = too_much.get(owner, 0.0) + (end - start)
    for at, name in enumerate(shares):
        until = 1.0 if at + 1 == len(shares) else (at + 1) * home
        for start, end, owner in layout:
            low, high = max(start, at * home), min(end, until)
            if high - low > _LEAST:
                pieces.append(_Piece(low, high, owner, name))
    for piece in pieces:
        amount = min(too_much[piece.owner], -too_much[piece.home])
        if amount > _LEAST:
            piece.give(piece.home, amount, too_much, from_start=True)
    due = [name for name, excess in too_much.items() if excess < -_LEAST]
    for in_own_home in (False, True):
        for piece in reversed(pieces):
            if (piece.owner == piece.home) is not in_own_home:
                continue
            while due and piece.size > _LEAST and too_much[piece.owner] > _LEAST:
                amount = min(too_much[piece.owner], -too_much[due[0]])
                piece.give(due[0], amount, too_much, from_start=False)
                if too_much[due[0]] >= -_LEAST:
                    due.pop(0)
    return _joined(stretch for piece in pieces for stretch in piece.stretches())


class _Piece:
    """A stretch within one home, and what of it is given away at either end."""

    __slots__ = ("after", "before", "end", "home", "owner", "start")

    def __init__(self, start: float, end: float, owner: str, home: str) -> None:
        self.start = start
        self.end = end
        self.owner = owner
        self.home = home
        self.before: list[Stretch] = []
        self.after: list[Stretch] = []

    @property
    def size(self) -> float:
        return self.end - self.start

    def give(
        self, taker: str, amount: float, too_much: dict[str, float], *, from_start: bool
    ) -> None:
        amount = min(amount, self.size)
        too_much[self.owner] -= amount
        too_much[taker] += amount
        if from_start:
            self.before.append((self.start, self.start + amount, taker))
            self.start += amount
        else:
            self.after.append((self.end - amount, self.end, taker))
            self.end -= amount

    def stretches(self) -> Iterator[Stretch]:
        yield from self.before
        yield (self.start, self.end, self.owner)
        yield from reversed(self.after)


def _joined(layout: Iterator[Stretch]) -> list[Stretch]:
    """Neighbours of one owner become one stretch; the ends are exactly 0 and 1."""
    joined: list[Stretch] = []
    for start, end, owner in layout:
        if end - start <= _LEAST:
            continue
        if joined and joined[-1][2] == owner:
            joined[-1] = (joined[-1][0], end, owner)
        else:
            joined.append((joined[-1][1] if joined else 0.0, end, owner))
    last = joined[-1]
    joined[-1] = (last[0], 1.0, last[2])
    return joined

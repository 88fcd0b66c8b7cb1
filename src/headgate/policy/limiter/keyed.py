"""Many keys with a small state each: bounded, swept in pieces, robbed of nothing that counts.

Theory of operation. The states lie in shards, plain dicts of about 2,000 keys, chosen by the key's
hash. One large dict would be simpler and 45 ns faster, but it stops the process for 26 ms when it
grows at 700,000 keys, and no dict can be walked in pieces while it changes. A shard is swept,
rebuilt or robbed whole, in well under a millisecond; that is the longest step there is. `sweep`
goes round the shards. It is needed for memory only: an expired state decides like none.

No room. A shard that is full makes room for a new key by dropping its expired keys and, if those
are fewer than an eighth, then of all others those that have used least, up to that eighth. So what
is forgotten is worth least to whom it belonged, and a key that has spent its limit goes last: who
wants its state dropped must have most of the `max_keys` other keys spend more than it has, at once.
A flood of fresh keys pushes out fresh keys. The limits of the rule: where one hit is the whole
limit, all keys are equal, the oldest go first, and `max_keys` fresh keys do reset a victim; and a
shard can be aimed at by who chooses keys whose hash he can foretell (integers; texts are salted).

What an editor must not break: a state for which `_used` is 0 or less must decide like no state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from heapq import nlargest
from itertools import islice
from typing import Final, Generic, TypeVar

from headgate.policy.limiter.rules import LimiterSnapshot, LimitRules

S = TypeVar("S")
Shards = list[dict[Hashable, S]]

_SHARD_KEYS: Final = 2048
_SHARDS_MAX: Final = 4096
_ROB_SHARE: Final = 8


def shards_for(max_keys: int) -> int:
    """How many shards, a power of two."""
    shards = 1
    while shards * _SHARD_KEYS < max_keys and shards < _SHARDS_MAX:
        shards *= 2
    return shards


class Keyed(ABC, Generic[S]):
    """What the limiters have in common: the states and their keeping."""

    __slots__ = ("_cursor", "_evicted", "_mask", "_rules", "_shard_max", "_shards")

    def __init__(self, rules: LimitRules) -> None:
        if problems := rules.problems():
            raise ValueError("; ".join(problems))
        count = shards_for(rules.max_keys)
        self._shards: Shards[S] = [{} for _ in range(count)]
        self._mask = count - 1
        self._shard_max = -(-rules.max_keys // count)
        self._cursor = 0
        self._evicted = 0
        self._rules = rules

    @property
    def rules(self) -> LimitRules:
        return self._rules

    def __len__(self) -> int:
        return sum(map(len, self._shards))

    def clear(self, key: Hashable) -> None:
        self._shards[hash(key) & self._mask].pop(key, None)

    def top(self, now: float, most: int, look: int = 100_000) -> list[tuple[Hashable, float]]:
        """The keys that have used most, with how much. Looks at about `look` keys and no more."""
        used = self._used
        left = look
        found: list[tuple[float, Hashable]] = []
        for shard in self._shards:
            if left <= 0:
                break
            looked = islice(shard.items(), left)
            left -= len(shard)
            found.extend((use, key) for key, state in looked if (use := used(state, now)) > 0)
        return [(key, use) for use, key in nlargest(most, found, key=_by_use)]

    def sweep(self, now: float, most: int = 1000) -> int:
        shards = self._shards
        looked = gone = 0
        for _ in range(len(shards)):
            at = self._cursor
            self._cursor = (at + 1) & self._mask
            shard = shards[at]
            if not shard:
                continue
            # Rebuilt, not deleted from: a dict gives back memory only when it is built anew.
            kept = self._live(shard, now)
            if len(kept) < len(shard):
                shards[at] = kept
                gone += len(shard) - len(kept)
            looked += len(shard)
            if looked >= most:
                break
        return gone

    def take_rules(self, rules: LimitRules, now: float) -> None:
        """Keep what every key has used; the number of shards stays as well."""
        if problems := rules.problems():
            raise ValueError("; ".join(problems))
        if rules.algorithm != self._rules.algorithm:
            raise ValueError(
                f"a {self._rules.algorithm} limiter cannot go on as {rules.algorithm}: "
                "states do not translate; make a new one"
            )
        self._shard_max = -(-rules.max_keys // len(self._shards))
        self._rules = rules

    def snapshot(self, now: float) -> LimiterSnapshot:
        rules = self._rules
        return LimiterSnapshot(
            algorithm=rules.algorithm,
            limit=rules.limit,
            period_s=rules.period_s,
            capacity=rules.capacity,
            keys=len(self),
            max_keys=rules.max_keys,
            evicted=self._evicted,
        )

    @abstractmethod
    def _used(self, state: S, now: float) -> float:
        """How many hits would be given away if the state were forgotten."""

    def _live(self, shard: dict[Hashable, S], now: float) -> dict[Hashable, S]:
        """Those that count. Algorithms with a cheaper way to tell have it in line."""
        used = self._used
        return {key: state for key, state in shard.items() if used(state, now) > 0}

    def _make_room(self, shard: dict[Hashable, S], now: float) -> None:
        """Drop an eighth of a shard, at least one key, in place."""
        used = [(self._used(state, now), key) for key, state in shard.items()]
        used.sort(key=_by_use)  # stable: among equals the oldest is first
        share = max(1, len(used) // _ROB_SHARE)
        for at, (use, key) in enumerate(used):
            if use > 0:
                if at >= share:
                    break
                self._evicted += 1
            del shard[key]


def _by_use(entry: tuple[float, Hashable]) -> float:
    return entry[0]


def refused_cost(cost: int) -> ValueError:
    return ValueError(f"cost={cost} must not be negative; refund gives back")

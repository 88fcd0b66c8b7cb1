"""When a key signs, and how long it is published.

Theory of operation. Keys are numbered; each has the time from which it signs. Everything else
follows from these and the time, so machines that read the same rows agree without talking:

    published ahead of signing, by `key_ahead_s`, so that nobody meets a token of a key unknown
    signing from its time on, until the next one's
    published after that, until the last token it signed is over
    gone

The very first key signs at once: there is nobody yet who could know another.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from headgate.security.accounts.rules import Rules

__all__ = ["Timed", "next_start", "over", "signing"]


class Timed(Protocol):
    @property
    def number(self) -> int: ...
    @property
    def signs_from(self) -> float: ...


K = TypeVar("K", bound=Timed)


def signing(keys: Sequence[K], wall: float) -> K | None:
    """The key that signs now; the oldest where the clock stands before all of them."""
    ordered = sorted(keys, key=lambda key: (key.signs_from, key.number))
    started = [key for key in ordered if key.signs_from <= wall]
    return started[-1] if started else (ordered[0] if ordered else None)


def next_start(
    keys: Sequence[Timed], wall: float, rules: Rules, *, is_asked: bool = False
) -> float | None:
    """When a key that is to be made now starts to sign; None while none is due."""
    if not keys:
        return wall
    last = max(keys, key=lambda key: (key.signs_from, key.number))
    if last.signs_from > wall:
        return None  # the next one is published already
    due_s = last.signs_from + rules.key_life_s
    if not is_asked and wall < due_s - rules.key_ahead_s:
        return None
    soonest_s = wall + rules.key_ahead_s
    return soonest_s if is_asked else max(due_s, soonest_s)


def over(keys: Iterable[K], wall: float, rules: Rules) -> list[K]:
    """Keys whose last token is over."""
    ordered = sorted(keys, key=lambda key: (key.signs_from, key.number))
    held_s = rules.access_life_s + 2 * rules.leeway_s
    return [
        key
        for key, successor in itertools.pairwise(ordered)
        if successor.signs_from + held_s < wall
    ]

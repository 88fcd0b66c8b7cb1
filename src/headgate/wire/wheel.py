"""Deadlines for thousands of connections without a timer each.

Theory of operation
-------------------
A connection is in at most one live slot. Setting a later deadline costs one attribute; the
connection stays where it is, and when its slot comes round it is moved on. Only an earlier
deadline than the slot it waits in makes it enter a second one, and the stale entry is skipped
when its turn comes because `wake` no longer names that slot.

So a request costs a comparison, and a connection is looked at about once per time-out rather
than once per request. Deadlines are late by at most one tick; they guard against peers that
have stopped, not against milliseconds.

An editor must not put objects with the life of one request in here: a slot holds what it was
given until it comes round.
"""

from __future__ import annotations

from math import inf
from typing import Final, Protocol

TICK_S: Final = 0.25
NEVER: Final = inf


class Sleeper(Protocol):
    """Something with a deadline. Start with `deadline = wake = NEVER`."""

    deadline: float
    wake: float

    def on_deadline(self, now: float) -> None: ...


class Wheel:
    __slots__ = ("_done", "_slots", "tick_s")

    def __init__(self, now: float, tick_s: float = TICK_S) -> None:
        self.tick_s = tick_s
        self._done = int(now / tick_s)
        self._slots: dict[int, list[Sleeper]] = {}

    def arm(self, item: Sleeper) -> None:
        """Call when `item.deadline` has become earlier than `item.wake`."""
        slot = max(int(item.deadline / self.tick_s), self._done) + 1
        item.wake = slot * self.tick_s
        waiting = self._slots.get(slot)
        if waiting is None:
            self._slots[slot] = [item]
        else:
            waiting.append(item)

    def turn(self, now: float) -> None:
        """Wake everything that is due. After a long stall every missed slot is still visited."""
        last = int(now / self.tick_s)
        if last - self._done > len(self._slots):
            due = sorted(slot for slot in self._slots if slot <= last)
        else:
            due = [slot for slot in range(self._done + 1, last + 1) if slot in self._slots]
        self._done = max(self._done, last)
        for slot in due:
            wake = slot * self.tick_s
            for item in self._slots.pop(slot):
                if item.wake != wake:
                    continue
                item.wake = NEVER
                if item.deadline <= now:
                    item.on_deadline(now)
                if item.deadline < item.wake:
                    self.arm(item)

    @property
    def next_turn(self) -> float:
        """When the earliest slot comes round; NEVER if there is none.

        For a loop that turns the wheel only when there is something to wake.
        """
        return min(self._slots) * self.tick_s if self._slots else NEVER

    def __len__(self) -> int:
        return sum(len(waiting) for waiting in self._slots.values())

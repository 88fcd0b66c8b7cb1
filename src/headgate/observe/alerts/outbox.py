"""What is on its way to receivers: an order of sending, attempts, back-off, a bound.

Theory of operation. Entries of one receiver go one at a time and, within one group, in the order
in which they were decided, so that no end overtakes its beginning; one group that fails does not
hold up another. A failed attempt waits with back-off and jitter, or as long as the receiver said
(`Retry-After`); one that cannot succeed (a refused message) and one older than `give_up_after`
ends as failed. With `most` entries waiting the oldest of the lowest level goes, counted as dropped.

An entry is taken with `next_due`, which makes it `sending`; it ends with exactly one of `sent`,
`failed`, `abandoned`. After a crash what was `sending` is due again: at least once, same id.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from headgate.observe.alerts.notification import Notification
from headgate.observe.alerts.rules import RANK
from headgate.observe.waiting import wait_s

__all__ = ["Entry", "Outbox"]

_FIRST_S: Final = 5.0
_LONGEST_S: Final = 300.0
_LONGEST_ASKED_S: Final = 900.0


@dataclass(slots=True)
class Entry:
    notification: Notification
    queued_at: float
    due: float
    attempts: int = 0
    error: str = ""
    is_sending: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "notification": self.notification.to_json(),
            "queued_at": self.queued_at,
            "due": self.due,
            "attempts": self.attempts,
            "error": self.error,
        }

    @classmethod
    def of_json(cls, said: Mapping[str, Any]) -> Entry:
        return cls(
            notification=Notification.of_json(said["notification"]),
            queued_at=float(said["queued_at"]),
            due=float(said["due"]),
            attempts=int(said["attempts"]),
            error=str(said["error"]),
        )


class Outbox:
    def __init__(
        self, *, most: int = 1000, give_up_after_s: float = 3600.0, rng: random.Random
    ) -> None:
        self._most = most
        self.give_up_after_s = give_up_after_s
        self._rng = rng
        self._entries: dict[str, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self) -> Iterable[Entry]:
        return self._entries.values()

    def put(self, said: Iterable[Notification], now: float) -> list[Entry]:
        """Queue these; the entries that had to go for them."""
        gone = []
        for each in said:
            if each.id in self._entries:
                continue
            self._entries[each.id] = Entry(each, now, now)
            if len(self._entries) > self._most:
                gone.append(self._drop_one())
        return gone

    def _drop_one(self) -> Entry:
        waiting = [each for each in self._entries.values() if not each.is_sending]
        least = min(waiting, key=lambda each: (RANK[each.notification.level], each.queued_at))
        return self._entries.pop(least.notification.id)

    def next_due(self, receiver: str, now: float) -> Entry | None:
        """Take the next entry for this receiver, if one is due and none is under way."""
        seen: set[str] = set()
        for each in self._entries.values():
            if each.notification.receiver != receiver:
                continue
            if each.is_sending:
                return None
            if each.notification.dedup in seen:
                continue
            seen.add(each.notification.dedup)
            if each.due <= now:
                each.is_sending = True
                each.attempts += 1
                return each
        return None

    def next_at(self) -> float | None:
        """When there is something to send, as far as is known."""
        return min(
            (each.due for each in self._entries.values() if not each.is_sending), default=None
        )

    def sent(self, entry: Entry) -> None:
        self._entries.pop(entry.notification.id, None)

    def abandoned(self, entry: Entry) -> None:
        """The attempt was cancelled: nobody knows whether it arrived."""
        entry.is_sending = False

    def failed(
        self,
        entry: Entry,
        why: str,
        now: float,
        *,
        is_final: bool = False,
        retry_after_s: float | None = None,
    ) -> bool:
        """Whether it will be tried again."""
        entry.is_sending = False
        entry.error = why[:500]
        waits_s = wait_s(entry.attempts, _FIRST_S, _LONGEST_S, self._rng)
        if retry_after_s is not None:
            waits_s = max(waits_s, min(retry_after_s, _LONGEST_ASKED_S))
        entry.due = now + waits_s
        if is_final or entry.due - entry.queued_at > self.give_up_after_s:
            self._entries.pop(entry.notification.id, None)
            return False
        return True

    def shift(self, by_s: float) -> None:
        for each in self._entries.values():
            each.queued_at += by_s
            each.due += by_s

    def dump(self) -> list[dict[str, Any]]:
        return [each.to_json() for each in self._entries.values()]

    def restore(self, said: Iterable[Mapping[str, Any]]) -> None:
        for row in said:
            entry = Entry.of_json(row)
            self._entries[entry.notification.id] = entry

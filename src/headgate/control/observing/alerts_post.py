"""From decided notifications to receivers: one task for each channel, a row for each attempt.

Theory of operation. The outbox says what is due; a channel has at most one task, which sends what
is due and ends. So a receiver that hangs holds up no other one. What became of an attempt is
counted, noted for the log of notifications, and told to the outbox before anything is awaited.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from headgate.observe.alerts.notification import Notification
from headgate.observe.alerts.outbox import Entry, Outbox
from headgate.observe.alerts.receivers import Channel, PagerDutyChannel, Receiver
from headgate.observe.alerts.sending import Failed, Sender, Sent, shown_place

__all__ = ["Post"]

_MOST_ROWS: Final = 2000
"""Rows that wait for a disk that takes none."""


class Post:
    def __init__(
        self, outbox: Outbox, sender: Sender, wall: Callable[[], float], changed: Callable[[], None]
    ) -> None:
        self.outbox = outbox
        self.sender = sender
        self._wall = wall
        self._changed = changed
        self.receivers: dict[str, Receiver] = {}
        self._channels: dict[str, Channel] = {}
        self._busy: dict[str, asyncio.Task[None]] = {}
        self.rows: list[tuple[Any, ...]] = []
        self.counts: dict[tuple[str, str], int] = {}
        self.failing: dict[str, str] = {}
        """Channel -> why its last attempt failed."""

    def take(self, receivers: Mapping[str, Receiver]) -> None:
        self.receivers = dict(receivers)
        self._channels = {
            name: channel
            for each in receivers.values()
            for name, channel in each.channel_ids().items()
        }
        for gone in self.failing.keys() - self._channels.keys():
            del self.failing[gone]

    def spread(self, said: Iterable[Notification]) -> list[Notification]:
        """One notification for each channel of its receiver, short of what it does not want."""
        found = []
        for each in said:
            receiver = self.receivers.get(each.receiver)
            if receiver is None or (each.kind == "resolved" and not receiver.tells_resolved):
                continue
            for name, channel in receiver.channel_ids().items():
                if each.kind == "acknowledged" and not isinstance(channel, PagerDutyChannel):
                    continue
                if each.kind == "heartbeat" and isinstance(channel, PagerDutyChannel):
                    continue  # it would be an incident
                kind = name.partition("/")[2]
                found.append(replace(each, receiver=name, id=f"{each.id}-{kind}"))
        return found

    def put(self, said: Iterable[Notification], now: float) -> None:
        for entry in self.outbox.put(said, now):
            self._note(entry, "dropped", "the queue was full", 0.0)

    def run(self, now: float) -> None:
        """Send what is due, each channel on its own."""
        waiting = {each.notification.receiver for each in self.outbox.entries()}
        for name in waiting:
            if name in self._busy:
                continue
            channel = self._channels.get(name)
            entry = self.outbox.next_due(name, now)
            if entry is None:
                continue
            if channel is None:
                self.outbox.failed(entry, "the receiver is gone", now, is_final=True)
                self._note(entry, "failed", "the receiver is no longer in the file", 0.0)
                continue
            task = asyncio.get_running_loop().create_task(
                self._empty(name, channel, entry), name=f"alerts-{name}"
            )
            self._busy[name] = task
            task.add_done_callback(lambda _, name=name: self._busy.pop(name, None))  # type: ignore[misc]

    async def _empty(self, name: str, channel: Channel, entry: Entry | None) -> None:
        while entry is not None:
            began = time.monotonic()
            try:
                got = await self.sender.attempt(channel, entry.notification, self._wall())
            except BaseException:
                self.outbox.abandoned(entry)
                raise
            self._ended(name, entry, got, (time.monotonic() - began) * 1000)
            self._changed()
            entry = self.outbox.next_due(name, self._wall())

    def _ended(self, name: str, entry: Entry, got: Sent | Failed, took_ms: float) -> None:
        if isinstance(got, Sent):
            self.outbox.sent(entry)
            self.failing.pop(name, None)
            self._note(entry, "sent", got.detail, took_ms)
            return
        again = self.outbox.failed(
            entry,
            got.why,
            self._wall(),
            is_final=got.is_final,
            retry_after_s=got.retry_after_s,
        )
        self.failing[name] = got.why
        self._note(entry, "retried" if again else "failed", got.why, took_ms)

    def _note(self, entry: Entry, outcome: str, detail: str, took_ms: float) -> None:
        said = entry.notification
        key = (said.receiver, outcome)
        self.counts[key] = self.counts.get(key, 0) + 1
        ids = [each.id for each in said.alerts]
        self.rows.append(
            (
                self._wall(),
                said.id,
                said.receiver,
                said.kind,
                said.subject,
                json.dumps(ids),
                entry.attempts,
                outcome,
                detail,
                round(took_ms, 1),
            )
        )
        del self.rows[:-_MOST_ROWS]

    async def test(self, receiver: Receiver, said: Notification) -> list[dict[str, Any]]:
        """Send now, by every channel, once; what became of it."""
        found = []
        for each in self.spread([said]):
            channel = self._channels[each.receiver]
            began = time.monotonic()
            got = await self.sender.attempt(channel, each, self._wall())
            if isinstance(got, Sent) and isinstance(channel, PagerDutyChannel):
                # A test is an incident like any other, so it is closed again.
                over = replace(each, kind="resolved")
                got = await self.sender.attempt(channel, over, self._wall())
            took_ms = (time.monotonic() - began) * 1000
            entry = Entry(each, self._wall(), self._wall(), attempts=1)
            is_sent = isinstance(got, Sent)
            detail = got.detail if isinstance(got, Sent) else got.why
            self._note(entry, "sent" if is_sent else "failed", detail, took_ms)
            found.append(
                {
                    "channel": each.receiver,
                    "place": shown_place(channel),
                    "ok": is_sent,
                    "detail": detail,
                    "took_ms": round(took_ms, 1),
                }
            )
        return found

    async def close(self) -> None:
        tasks = list(self._busy.values())
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.sender.close()

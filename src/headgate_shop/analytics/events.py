"""What visitors' browsers and the shop's pages tell: bounded, checked, and gathered before it is
written.

Theory of operation
-------------------
A batch is taken when it is valid as a whole, and then waits in memory for at most FLUSH_S with
those of others, to be written in one transaction. A process that is killed in that moment loses
these: an event is a sign, not a sale. What can wait is bounded, and a full room says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from headgate_shop.analytics.reckoning import Seen
from headgate_shop.base.background import Background

__all__ = ["Batch", "Event", "Gathering", "seen_of", "told_by_services"]

BATCH_MAX: Final = 50
TOLD_MAX: Final = 1000
WAITING_MAX: Final = 20_000
AT_ONCE: Final = 2_000
FLUSH_S: Final = 0.25
OLD_S: Final = 2 * 86400.0
"""Older ones would be counted for a day whose sessions are forgotten."""
AHEAD_S: Final = 300.0

log = logging.getLogger("headgate_shop.analytics")

Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._:-]+$")]


class Event(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["view", "search", "cart", "checkout"]
    session: Name
    product_id: Name | None = None
    query: Annotated[str, Field(max_length=200)] | None = None
    at: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Seconds of Unix time; now, if it is not said."""


class Batch(BaseModel):
    model_config = ConfigDict(extra="forbid")

    events: Annotated[list[Event], Field(min_length=1, max_length=BATCH_MAX)]


def seen_of(event: Event, wall: float) -> Seen:
    """The event at its time, or now if its clock is wrong."""
    at = event.at if event.at is not None else wall
    if not wall - OLD_S < at < wall + AHEAD_S:
        at = wall
    return Seen(event.type, at, event.session, event.product_id or "")


def told_by_services(data: Mapping[str, Any], wall: float) -> list[Seen]:
    """The events of a message. One that makes no sense is left out: the others are none the worse.
    Without a session it counts as an event, and as no visitor. Raise ValueError if it has no list.
    """
    told = data.get("events")
    if not isinstance(told, list):
        raise ValueError("there is no list of events")
    found: list[Seen] = []
    for one in told[:TOLD_MAX]:
        if not isinstance(one, Mapping):
            continue
        fields = {name: one.get(name) for name in Event.model_fields}
        has_session = bool(fields["session"])
        if not has_session:
            fields["session"] = "nobody"
        try:
            seen = seen_of(Event.model_validate(fields), wall)
        except ValidationError as error:
            log.info("an event was left out: %s", error)
            continue
        found.append(seen if has_session else replace(seen, session=""))
    return found


class Gathering(Background):
    """Collects events and hands them on together, while it is entered."""

    task_name = "events"

    def __init__(self, write: Callable[[Sequence[Seen]], Awaitable[None]]) -> None:
        self._write = write
        self._waiting: list[Seen] = []
        self.lost_total = 0

    def try_add(self, events: Sequence[Seen]) -> bool:
        """False when there is no room."""
        if len(self._waiting) + len(events) > WAITING_MAX:
            return False
        self._waiting.extend(events)
        self.wake()
        return True

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def flush(self) -> None:
        """Write what is there now."""
        while self._waiting:
            some, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
            try:
                await self._write(some)
            except asyncio.CancelledError:
                self._waiting[:0] = some
                raise
            except Exception:
                # The database is away: once more with what comes next, if there is room for both.
                if len(self._waiting) + len(some) <= WAITING_MAX:
                    self._waiting[:0] = some
                else:
                    self.lost_total += len(some)
                log.warning("%d events could not be written yet", len(some), exc_info=True)
                return

    async def _run(self) -> None:
        while not self.is_ending():
            await self.rest()
            await self.rest(FLUSH_S, is_deaf=True)
            await self.flush()
            if self._waiting and not self.is_ending():
                await self.rest(4 * FLUSH_S, is_deaf=True)
                self.wake()
        await self.flush()

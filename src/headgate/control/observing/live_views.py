"""What is going on now, for whoever looks: an overview once a second, requests, events.

Theory of operation
-------------------
Nothing here costs anything while nobody looks, but for the events: these are few, and are kept so
that a view that comes back misses nothing.

*Overview*: while somebody looks, workers are asked for their figures once a second; less often
where asking takes them long, so that it takes no more than `SHARE` of their time. All who look
share it.

*Requests*: while somebody looks, workers are told every `SAY_S` seconds what is looked for, for
`HOLD_S`; they forget it by themselves when control dies.

*Events*: breakers and ejections come over the board, health from control's checks; reloads, the
state of workers and the gateway's own health are looked at once a second. Other departments tell
theirs with `tell`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from headgate.config import Config
from headgate.control.observing.happenings import Happened, Happenings, Missed
from headgate.control.observing.overview import Look, look, overview
from headgate.observe import Merged, Rows

__all__ = ["LiveViews", "RequestFilter", "Watched"]

EVERY_S: Final = 1.0
SHARE: Final = 0.05
LOOKS: Final = 5
"""An overview is of what happened since so many looks ago."""
SAY_S: Final = 2.0
HOLD_S: Final = 6.0
_WAITING: Final = 2000
_TOPIC: Final = "live"

log = logging.getLogger("headgate.control")


@dataclass(frozen=True, slots=True)
class RequestFilter:
    route: str = ""
    low: int = 0
    """Statuses from here"""
    top: int = 999
    """to here."""
    least_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "route": self.route,
            "low": self.low,
            "top": self.top,
            "least_s": self.least_s,
        }

    def fits(self, row: Mapping[str, Any]) -> bool:
        return (
            self.low <= row["status"] <= self.top
            and row["duration_ms"] >= self.least_s * 1000
            and (not self.route or self.route == row["route"])
        )


class Watched(Protocol):
    """What these views read of control, beside what all departments read."""

    def workers(self) -> list[dict[str, Any]]: ...
    def last_reload(self) -> Any: ...


class _Viewer:
    """One who looks, with what waits for him: the oldest goes when he is slow."""

    def __init__(self, wanted: RequestFilter | None = None) -> None:
        self.wanted = wanted
        self.waiting: deque[Any] = deque(maxlen=_WAITING)
        self.dropped = 0
        self.news = asyncio.Event()

    def give(self, item: Any) -> None:
        if len(self.waiting) == _WAITING:
            self.dropped += 1
        self.waiting.append(item)
        self.news.set()

    async def items(self) -> AsyncIterator[Any]:
        while True:
            await self.news.wait()
            self.news.clear()
            while self.waiting:
                yield self.waiting.popleft()


class LiveViews:
    name = "live"

    def __init__(
        self,
        *,
        refresh: Callable[[], Any],
        merged: Callable[[], Merged],
        health: Callable[[], tuple[str, list[str]]],
        workers: Callable[[], list[dict[str, Any]]],
        last_reload: Callable[[], Any],
        publish: Callable[[str, dict[str, Any]], None],
        wall: Callable[[], float] = time.time,  # noqa: TID251  for people
    ) -> None:
        self._refresh = refresh
        self._merged = merged
        self._health = health
        self._workers = workers
        self._last_reload = last_reload
        self._publish = publish
        self._wall = wall
        self._happenings = Happenings(f"{int(wall() * 1000):x}")
        self._at_overview: set[_Viewer] = set()
        self._at_requests: set[_Viewer] = set()
        self._at_events: set[_Viewer] = set()
        self._looks: deque[Look] = deque(maxlen=LOOKS + 1)
        self._said_health: tuple[str, str] | None = None
        self._said_workers: dict[int, tuple[Any, str]] | None = None
        self._said_reload: Any = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._saying: asyncio.Task[None] | None = None
        self.seen = 0
        self.told = 0

    # -- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        self._spawn(self._attend(), "events")

    def take(self, config: Config) -> None:
        """Nothing in the file is about these views."""

    async def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def worries(self) -> Iterable[str]:
        return ()

    def rows_into(self, rows: Rows) -> None:
        """These have no figures of their own."""

    def _spawn(self, work: Any, name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- events --------------------------------------------------------------------------------

    def tell(self, kind: str, text: str, **attributes: Any) -> None:
        """Something has happened. Cheap; from anywhere on the loop."""
        made = self._happenings.tell(self._wall(), kind, text, attributes)
        if made is not None:
            for viewer in self._at_events:
                viewer.give(made)

    def missed(self, id_: str) -> Missed:
        return self._happenings.after(id_)

    async def events(self, after: str) -> AsyncGenerator[Happened | None, None]:
        """What came after this id, and what comes. None first, if some of it is gone."""
        viewer = _Viewer()
        self._at_events.add(viewer)
        try:
            missed = self.missed(after)
            if missed.has_gap:
                yield None
            for event in missed.events:
                yield event
            async for item in viewer.items():
                yield item
        finally:
            self._at_events.discard(viewer)

    def breaker_heard(self, message: Mapping[str, Any]) -> None:
        name = str(message.get("name"))
        why = str(message.get("why", ""))
        self.tell("breaker", f"{name}: open ({why})", breaker=name, after="open", why=why)

    def outlier_heard(self, message: Mapping[str, Any]) -> None:
        service, instance = str(message.get("service")), str(message.get("instance"))
        why = str(message.get("why", ""))
        self.tell(
            "ejection",
            f"{instance} of {service} is put out: {why}",
            service=service,
            instance=instance,
            out=True,
            why=why,
        )

    def moved_heard(self, message: Mapping[str, Any]) -> None:
        why = str(message.get("why", ""))
        if "breaker" in message:
            name, after = str(message["breaker"]), str(message.get("after"))
            self.tell("breaker", f"{name}: {after} ({why})", breaker=name, after=after, why=why)
            return
        service, instance = str(message.get("service")), str(message.get("instance"))
        text = f"{instance} of {service} may serve again: {why}"
        self.tell("ejection", text, service=service, instance=instance, out=False, why=why)

    def health_heard(self, message: Mapping[str, Any]) -> None:
        if message.get("gone"):
            return
        became = "up" if message.get("up") else "down"
        service, instance = str(message.get("service")), str(message.get("instance"))
        why = str(message.get("why", ""))
        self.tell(
            "health",
            f"{instance} of {service} is {became}: {why}",
            service=service,
            instance=instance,
            state=became,
            why=why,
        )

    def ban_heard(self, message: Mapping[str, Any]) -> None:
        key = str(message.get("key", ""))
        if not key:
            return
        is_over = message.get("what") == "lift"
        text = f"{key} may come in again" if is_over else f"{key} is shut out"
        self.tell("ban", text, address=key, lifted=is_over, why=str(message.get("why", "")))

    async def _attend(self) -> None:
        """Look at what nobody tells."""
        while True:
            try:
                self._attend_once()
            except Exception:
                log.exception("events could not be looked for")
            await asyncio.sleep(EVERY_S)

    def _attend_once(self) -> None:
        status, reasons = self._health()
        text = "; ".join(reasons)
        said = (status, text)
        if self._said_health is not None and self._said_health[0] != status:
            self.tell(
                "gateway", f"the gateway is {status}" + (f": {text}" if text else ""), state=status
            )
        self._said_health = said
        reload = self._last_reload()
        if reload is not None and reload is not self._said_reload:
            result = "took effect" if reload.ok else "was refused"
            text = f"the reload by {reload.reason} {result}, generation {reload.generation}"
            self.tell("reload", text, ok=reload.ok, generation=reload.generation)
        self._said_reload = reload
        rows = {row["pid"]: row for row in self._workers() if row["pid"]}
        now = {pid: (row["index"], row["state"]) for pid, row in rows.items()}
        before = self._said_workers
        if before is not None:
            for pid, (index, state) in now.items():
                if before.get(pid, (index, ""))[1] != state:
                    text = f"worker {index} (pid {pid}) is {state}"
                    self.tell("worker", text, worker=index, pid=pid, state=state)
            for pid, (index, _) in before.items():
                if pid not in now:
                    text = f"worker {index} (pid {pid}) has ended"
                    self.tell("worker", text, worker=index, pid=pid, state="ended")
        self._said_workers = now

    # -- overview ------------------------------------------------------------------------------

    async def overviews(self) -> AsyncGenerator[dict[str, Any], None]:
        """One a second or so, for as long as somebody asks."""
        viewer = _Viewer()
        self._at_overview.add(viewer)
        if self._looking is None or self._looking.done():
            self._looking = self._spawn(self._look_on(), "overview")
        try:
            async for item in viewer.items():
                viewer.waiting.clear()  # nobody wants an old one
                yield item
        finally:
            self._at_overview.discard(viewer)

    async def _look_on(self) -> None:
        self._looks.clear()
        while self._at_overview:
            began = time.monotonic()
            try:
                await self._refresh()
                self._looks.append(look(self._merged(), time.monotonic()))
            except Exception:
                log.exception("the overview could not be made")
            else:
                if len(self._looks) > 1:
                    made = self._overview()
                    for viewer in tuple(self._at_overview):
                        viewer.give(made)
            took_s = time.monotonic() - began
            first_s = 0.25 if len(self._looks) < 2 else EVERY_S
            await asyncio.sleep(max(first_s - took_s, took_s / SHARE, 0.05))

    def _overview(self) -> dict[str, Any]:
        status, reasons = self._health()
        workers = [
            {"index": row["index"], "pid": row["pid"], "state": row["state"]}
            for row in self._workers()
        ]
        return {
            "at": round(self._wall(), 3),
            "status": status,
            "reasons": reasons,
            **overview(self._looks[0], self._looks[-1]),
            "workers": workers,
        }

    # -- requests ------------------------------------------------------------------------------

    async def requests(self, wanted: RequestFilter) -> AsyncGenerator[dict[str, Any], None]:
        """Requests as they end, of all workers; a sample where there are many."""
        viewer = _Viewer(wanted)
        self._at_requests.add(viewer)
        self._say_wanted()
        if self._saying is None or self._saying.done():
            self._saying = self._spawn(self._say_on(), "live requests")
        try:
            async for item in viewer.items():
                yield item
        finally:
            self._at_requests.discard(viewer)
            with contextlib.suppress(Exception):
                self._say_wanted()

    def _say_wanted(self) -> None:
        wanted = {viewer.wanted for viewer in self._at_requests if viewer.wanted is not None}
        said = [each.to_json() for each in wanted]
        self._publish(_TOPIC, {"wanted": said, "for_s": HOLD_S})

    async def _say_on(self) -> None:
        while self._at_requests:
            await asyncio.sleep(SAY_S)
            self._say_wanted()

    def requests_heard(self, worker: int, event: Mapping[str, Any]) -> None:
        """What a worker tells, once a second."""
        rows = [_row(worker, each) for each in event.get("rows", ())]
        seen = int(event.get("seen", 0))
        self.seen += seen
        self.told += len(rows)
        for viewer in self._at_requests:
            wanted = viewer.wanted
            for row in rows:
                if wanted is None or wanted.fits(row):
                    viewer.give(row)
            if seen > len(rows):
                viewer.give({"left_out": seen - len(rows), "worker": worker})


_NAMES: Final = (
    "at",
    "duration_ms",
    "status",
    "method",
    "host",
    "path",
    "route",
    "service",
    "instance",
    "request_id",
    "trace_id",
    "error",
)


def _row(worker: int, said: list[Any]) -> dict[str, Any]:
    row = dict(zip(_NAMES, said, strict=True))
    row["duration_ms"] = round(float(row["duration_ms"]) * 1000, 3)
    row["worker"] = worker
    return row

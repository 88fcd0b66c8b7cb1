"""The department of logs: the searchable store, levels at run time, the figures of sinks.

Theory of operation
-------------------
Lines come from control's own logging, from workers (`heard`), and from services over the admin API
(`give`). All go into one store, and past it to whoever watches the tail; a watcher that does not
keep up loses the oldest, as the stream says. The store is made anew when its rules change; while it
is off, lines still reach the tail.

Lines that the store itself could not keep are counted, and are never logged: that would be a line.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from headgate.config import Config
from headgate.control import process_logs
from headgate.control.observing.observing import Surroundings
from headgate.observe import Rows
from headgate.observe.logs.entry import Entry
from headgate.observe.logs.formats import Identity, JsonFormat
from headgate.observe.logs.installing import process_logging
from headgate.observe.logs.rules import StoreRules, level_name
from headgate.observe.logs.search import Query, Stored, stored_of
from headgate.observe.logs.store import Found, LogStore, StoreStats

__all__ = ["Logs", "TooManySearches"]

_TAIL: Final = 500
_TURN_S: Final = 1.0
_SHOW_S: Final = 0.02
_SEARCHES: Final = 2
_SEARCHES_WAITING: Final = 16
"""Searches take a thread for seconds, and control has few threads."""
_SOURCES: Final = ("supervisor", "control", "worker", "service")
NOBODY: Final = Identity("", "", "", 0)


class _Watcher:
    """One who watches the tail."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self.waiting: deque[Stored] = deque(maxlen=_TAIL)
        self.news = asyncio.Event()
        self.lost = 0

    def give(self, rows: Sequence[Stored], left_out: int) -> None:
        self.lost += left_out + max(0, len(self.waiting) + len(rows) - _TAIL)
        self.waiting.extend(rows)
        if rows:
            self.news.set()


class TooManySearches(Exception):
    """As many as there may be wait already."""


class Logs:
    """Kept in control."""

    name = "logs"

    def __init__(
        self, surroundings: Surroundings, publish: Callable[..., object] | None = None
    ) -> None:
        self._folder = surroundings.state_dir / self.name
        self._publish = publish
        self.store: LogStore | None = None
        self._closing: LogStore | None = None
        self.rules = StoreRules(is_on=False)
        self._searches = asyncio.Semaphore(_SEARCHES)
        self._searching = 0
        self._own = process_logs.Feed(self._own_said)
        self._watchers: dict[int, _Watcher] = {}
        self._next_watcher = 0
        self._task: asyncio.Task[None] | None = None
        self._heard = dict.fromkeys(_SOURCES, 0)
        self._lost = dict.fromkeys(_SOURCES, 0)
        self._orders: list[dict[str, Any]] = []
        self._redactor: Any = None
        self._form = JsonFormat(NOBODY)

    # -- a department's life ---------------------------------------------------------------------

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._turn(), name="logs")

    def take(self, config: Config) -> None:
        self._redactor = process_logging().outlet.redactor
        process_logs.take(config.logging)
        rules = config.logging.store_rules()
        if rules != self.rules or (rules.is_on and self.store is None):
            before, self.store = self.store, None
            if before is not None:
                before.close(0.0)  # its thread writes what it holds, the next one's waits for that
                self._closing = before
            self.rules = rules
            if rules.is_on:
                self.store = LogStore(self._folder, rules, after=self._closing)
                self.store.start()
        self._own.take(rules)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._own.turn()
        process_logging().listen(0, None)
        store, self.store = self.store, None
        if store is not None:
            await asyncio.to_thread(store.close, 2.0)

    def worries(self) -> Iterable[str]:
        if self.store is not None:
            yield from (f"logs: {worry}" for worry in self.store.worries())
        for name, stats in process_logging().snapshot().items():
            if stats.trouble:
                yield f"logs: sink {name}: {stats.trouble}"

    def rows_into(self, rows: Rows) -> None:
        for source in self._heard:
            rows["headgate_logs_stored_total"].append(([source, "heard"], self._heard[source]))
            rows["headgate_logs_stored_total"].append(([source, "dropped"], self._lost[source]))
        stats = self.store.snapshot() if self.store is not None else StoreStats()
        rows["headgate_logs_store_total"].append((["written"], stats.written))
        rows["headgate_logs_store_total"].append((["dropped"], stats.dropped))
        rows["headgate_logs_store_total"].append((["failed"], stats.failed))
        rows["headgate_logs_store_bytes"].append(([], stats.size_bytes))
        rows["headgate_logs_store_lines"].append(([], stats.rows))
        sink_rows_into(rows, "control")

    async def _turn(self) -> None:
        while True:
            await asyncio.sleep(_TURN_S)
            self._own.turn()
            self._expire()

    # -- lines -----------------------------------------------------------------------------------

    def heard(self, worker: int, event: dict[str, Any]) -> None:
        """`{"event": "logs"}` of a worker."""
        self._told("worker", event)

    def told_by_supervisor(self, event: dict[str, Any]) -> None:
        self._told("supervisor", event)

    def _own_said(self, event: dict[str, Any]) -> None:
        self._told("control", event)

    def _told(self, source: str, event: dict[str, Any]) -> None:
        rows = []
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            self._lost[source] += int(event.get("dropped", 0))
        lines = event.get("lines")
        for said in lines if isinstance(lines, list) else ():
            try:
                wall, level, text = said
                rows.append(stored_of(float(wall), int(level), str(text)))
            except (TypeError, ValueError, OverflowError):
                self._lost[source] += 1
        self._keep(source, rows)

    def give(self, entries: Sequence[tuple[Entry, str]]) -> int:
        """Lines of services, each with the service's name; how many were taken."""
        return self.take_in(*self.rows_of(entries))

    def take_in(self, rows: Sequence[Stored], lost: int) -> int:
        """What `rows_of` has made; how many were taken."""
        self._lost["service"] += lost
        return self._keep("service", rows)

    def rows_of(self, entries: Sequence[tuple[Entry, str]]) -> tuple[list[Stored], int]:
        """Lines as they are kept, and how many cannot be. On any thread: many take a while."""
        rows = []
        lost = 0
        for entry, service in entries:
            if entry.level < self.rules.level:
                continue
            fields = {"service": service, **dict(entry.fields)} if service else entry.fields
            clean = Entry(
                entry.wall,
                entry.level,
                entry.logger,
                self._clean(entry.message),
                entry.request_id,
                entry.trace_id,
                entry.span_id,
                self._clean_value(fields),
                self._clean_value(entry.error) if entry.error else None,
            )
            try:
                rows.append(stored_of(entry.wall, entry.level, self._form(clean)))
            except (ValueError, OverflowError):
                lost += 1
        return rows, lost

    def _clean(self, text: str) -> str:
        return text if self._redactor is None else str(self._redactor.text(text))

    def _clean_value(self, value: Any) -> Any:
        return value if self._redactor is None else self._redactor.value(value)

    def _keep(self, source: str, rows: Sequence[Stored]) -> int:
        self._heard[source] += len(rows)
        if rows and self._watchers:
            self._show(rows)
        if self.store is None:
            return len(rows)
        return self.store.add(rows)

    def _show(self, rows: Sequence[Stored]) -> None:
        """To those who watch the tail. Of a storm they see the newest, and how many they do not: it
        may not take the loop for longer than a moment, however many watch for whatever.
        """
        ends = time.monotonic() + _SHOW_S
        for watcher in self._watchers.values():
            found: list[Stored] = []
            left = len(rows)
            for row in reversed(rows):
                if len(found) >= _TAIL or (left % 16 == 0 and time.monotonic() > ends):
                    break
                left -= 1
                if watcher.query.takes(row):
                    found.append(row)
            watcher.give(found[::-1], left)

    @property
    def is_full(self) -> bool:
        return self.store is not None and self.store.is_full

    # -- asking ----------------------------------------------------------------------------------

    async def find(self, query: Query, *, limit: int, after: str | None) -> Found:
        """Raises ValueError for a place that is none, and TooManySearches."""
        if self._searching >= _SEARCHES_WAITING:
            raise TooManySearches
        self._searching += 1
        try:
            async with self._searches:
                store = self.store
                if store is None:
                    return Found((), None)
                return await asyncio.to_thread(store.find, query, limit=limit, after=after)
        finally:
            self._searching -= 1

    async def tail(self, query: Query) -> AsyncIterator[Stored | int]:
        """Lines as they come, for ever; a number is how many were not looked at, or left out."""
        watcher = _Watcher(query)
        self._next_watcher += 1
        number = self._next_watcher
        self._watchers[number] = watcher
        try:
            while True:
                await watcher.news.wait()
                watcher.news.clear()
                while watcher.waiting:
                    lost, watcher.lost = watcher.lost, 0
                    if lost:
                        yield lost
                    yield watcher.waiting.popleft()
        finally:
            self._watchers.pop(number, None)

    # -- levels ----------------------------------------------------------------------------------

    def levels(self) -> dict[str, Any]:
        """What holds, and what of it was ordered."""
        self._expire()
        wall = time.time()  # noqa: TID251  for people
        return {
            "levels": process_logging().levels.shown(),
            "orders": [
                {
                    "logger": order["logger"] or "root",
                    "level": level_name(order["level"]),
                    "remaining_s": None
                    if order["until"] is None
                    else round(max(0.0, order["until"] - wall), 1),
                }
                for order in self._orders
            ],
        }

    def set_level(self, logger: str, level: int | None, for_s: float | None) -> None:
        """Everywhere at once; None takes the order back. Raises ValueError."""
        name = "" if logger == "root" else logger
        wall = time.time()  # noqa: TID251  orders travel between processes
        process_logging().order(name, level, for_s)
        self._orders = [order for order in self._orders if order["logger"] != name]
        if level is not None:
            until = None if for_s is None else wall + for_s
            self._orders.append({"logger": name, "level": level, "until": until})
        self._tell()

    def levels_heard(self, message: Mapping[str, Any]) -> None:
        """Orders of the control process before us, which workers have kept."""
        orders = message.get("orders")
        if isinstance(orders, list):
            self._orders = [dict(order) for order in orders if isinstance(order, dict)]
            process_logs.hear_levels(message)

    def _expire(self) -> None:
        wall = time.time()  # noqa: TID251
        held = [o for o in self._orders if o["until"] is None or o["until"] > wall]
        if len(held) != len(self._orders):
            self._orders = held
            self._tell()

    def _tell(self) -> None:
        if self._publish is not None:
            topic = process_logs.LEVELS_TOPIC
            self._publish(topic, {"orders": self._orders}, retain="levels")


def sink_rows_into(rows: Rows, process: str) -> None:
    """What the sinks of this process did."""
    for name, labels, value in process_logs.sink_rows(process):
        rows[name].append((labels, value))


def row_of(line: str) -> dict[str, Any]:
    """A stored line as it is shown."""
    said: dict[str, Any] = json.loads(line)
    return said

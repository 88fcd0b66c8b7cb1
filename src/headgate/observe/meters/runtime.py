"""What a service knows of its process and its machine: processor, memory, files, collector, loop.

    watch = observe.watch_runtime(registry)     # at the start
    watch.watch_loop(asyncio.get_running_loop())

What the kernel keeps is read when metrics are read. Pauses of the collector and the lag of the loop
are sampled as they happen, for some microseconds a second.
"""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import resource
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Final

from headgate.observe.meters.families import Family, Labels, Merge
from headgate.observe.meters.registry import REGISTRY, Registry
from headgate.observe.process import count_open_fds, process_start_wall, resident_bytes

__all__ = ["Runtime", "watch_runtime"]

_LAG_EVERY_S: Final = 0.25
_MEMORY: Final = {
    "MemTotal": "total",
    "MemAvailable": "available",
    "MemFree": "free",
    "SwapTotal": "swap_total",
    "SwapFree": "swap_free",
}


class Runtime:
    """Figures of this process and this machine, in a registry until `stop`."""

    def __init__(self, registry: Registry = REGISTRY, *, disks: Sequence[str] = ("/",)) -> None:
        self._disks = tuple(disks)
        self._started_wall = process_start_wall()
        self._pauses = registry.timer(
            "python_gc_pause_seconds", "How long the collector stopped the process."
        )
        self._lags = registry.timer(
            "event_loop_lag_seconds", "How late the event loop ran a timer, four times a second."
        )
        self._since = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        gc.callbacks.append(self._on_collection)
        self._end_include = registry.include(self.families)

    def watch_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Sample the lag of `loop`, from its own thread."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop = loop
        self._due = time.monotonic() + _LAG_EVERY_S
        self._timer = loop.call_later(_LAG_EVERY_S, self._on_timer)

    def stop(self) -> None:
        """Show them no longer. May be called twice."""
        self._end_include()
        if self._on_collection in gc.callbacks:
            gc.callbacks.remove(self._on_collection)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._loop = None

    def _on_timer(self) -> None:
        # time.monotonic, because uvloop's own clock moves in whole milliseconds.
        now = time.monotonic()
        self._lags.observe(max(0.0, now - self._due))
        loop = self._loop
        if loop is not None and not loop.is_closed():
            self._due = now + _LAG_EVERY_S
            self._timer = loop.call_later(_LAG_EVERY_S, self._on_timer)

    def _on_collection(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._since = time.perf_counter()
        elif self._since:
            pause_s = time.perf_counter() - self._since
            self._since = 0.0
            self._pauses.observe(pause_s)

    def families(self) -> Iterator[Family]:
        """As they are now."""
        yield from self._process()
        yield from self._system()

    def _process(self) -> Iterator[Family]:
        times = os.times()
        wall = time.time()  # noqa: TID251 - the age of the process by the clock of the machine
        yield _number(
            "process_cpu_seconds_total",
            "Processor time used.",
            times.user + times.system,
            kind="counter",
        )
        each: Merge = "each"
        yield _number(
            "process_resident_memory_bytes", "Memory in use.", resident_bytes(), merge=each
        )
        fds = count_open_fds()
        if fds is not None:
            yield _number("process_open_fds", "Open files and sockets.", fds, merge=each)
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        yield _number("process_max_fds", "How many may be open.", most, merge=each)
        yield _number(
            "process_start_time_seconds",
            "When the process began, since 1970.",
            self._started_wall,
            merge=each,
        )
        yield _number(
            "process_uptime_seconds",
            "How long the process has run.",
            max(0.0, wall - self._started_wall),
            merge=each,
        )
        yield _number("process_threads", "Threads of Python.", threading.active_count(), merge=each)
        yield _labelled(
            "python_gc_collections_total",
            "Runs of the collector.",
            ("generation",),
            {
                (str(generation),): stats["collections"]
                for generation, stats in enumerate(gc.get_stats())
            },
            kind="counter",
        )
        yield _labelled(
            "python_info",
            "Always 1; see the labels.",
            ("implementation", "version"),
            {(sys.implementation.name, platform.python_version()): 1},
        )

    def _system(self) -> Iterator[Family]:
        yield _number("system_cpus", "Processors.", os.cpu_count() or 1, merge="max")
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        if usable:
            yield _number(
                "system_cpu_usable", "Processors this process may use.", usable, merge="max"
            )
        try:
            loads = os.getloadavg()
        except OSError:
            loads = None
        if loads is not None:
            numbers: dict[Labels, float] = {
                (minutes,): load for minutes, load in zip(("1m", "5m", "15m"), loads, strict=True)
            }
            yield _labelled(
                "system_load", "Tasks that run or wait, on average.", ("window",), numbers
            )
        memory = _memory()
        if memory:
            yield _labelled("system_memory_bytes", "Memory of the machine.", ("state",), memory)
        disks: dict[Labels, float] = {}
        for path in self._disks:
            try:
                usage = shutil.disk_usage(path)
            except OSError:
                continue
            for state in ("total", "used", "free"):
                disks[path, state] = getattr(usage, state)
        if disks:
            yield _labelled("system_disk_bytes", "Room on disks.", ("path", "state"), disks)


def watch_runtime(registry: Registry = REGISTRY, *, disks: Sequence[str] = ("/",)) -> Runtime:
    """Show figures of this process and this machine; of the loop too, if one runs here."""
    watch = Runtime(registry, disks=disks)
    try:
        watch.watch_loop(asyncio.get_running_loop())
    except RuntimeError:
        pass  # no loop here; watch_loop may be called later
    return watch


def _memory() -> dict[Labels, float]:
    found: dict[Labels, float] = {}
    try:
        with open("/proc/meminfo", encoding="ascii") as meminfo:  # noqa: PTH123 - as in process
            for line in meminfo:
                name, _, rest = line.partition(":")
                state = _MEMORY.get(name)
                if state is not None:
                    found[(state,)] = int(rest.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        return {}
    return found


def _number(
    name: str, help_text: str, value: float, *, kind: str = "gauge", merge: Merge = "sum"
) -> Family:
    return Family(
        name,
        "counter" if kind == "counter" else "gauge",
        help_text,
        merge=merge,
        numbers={(): value},
    )


def _labelled(
    name: str,
    help_text: str,
    labels: tuple[str, ...],
    numbers: dict[Labels, float],
    *,
    kind: str = "gauge",
) -> Family:
    # Figures of the machine are the same in all processes: the largest is as good as any.
    is_counter = kind == "counter"
    merge: Merge = "sum" if is_counter else "max"
    return Family(
        name, "counter" if is_counter else "gauge", help_text, labels, merge=merge, numbers=numbers
    )

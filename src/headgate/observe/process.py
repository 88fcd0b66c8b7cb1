"""What a process knows about itself: processor, memory, files, collector pauses, loop lag.

Theory of operation. Figures that the kernel keeps are read when a snapshot is taken. Two things
must be sampled as they happen: a callback of the garbage collector times each of its runs, and a
timer four times a second notes how late the event loop ran it, which is how late everything else
was too. Both cost a few microseconds a second.
"""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import resource
import time
from bisect import bisect_left
from typing import Final

import headgate
from headgate.observe import histogram
from headgate.observe.histogram import BOUNDS
from headgate.observe.shard import Rows

_LAG_EVERY_S: Final = 0.25
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class ProcessWatch:
    """Figures of the process it runs in; a source of rows for `WorkerStats.add_source`."""

    def __init__(self, process: str) -> None:
        self._process = process
        self._started_wall = process_start_wall()
        self._pauses = histogram.empty()
        self._pauses_s = 0.0
        self._collecting_since = 0.0
        self._lags = histogram.empty()
        self._lags_s = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to sample pauses of the collector and lag of `loop`."""
        gc.callbacks.append(self._on_collection)
        self._loop = loop
        self._due = time.monotonic() + _LAG_EVERY_S
        self._timer = loop.call_later(_LAG_EVERY_S, self._on_timer)

    def stop(self) -> None:
        """Stop sampling. May be called twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            gc.callbacks.remove(self._on_collection)

    def _on_timer(self) -> None:
        # time.monotonic, because the loop's own clock moves in whole milliseconds.
        now = time.monotonic()
        lag_s = max(0.0, now - self._due)
        self._lags[bisect_left(BOUNDS, lag_s)] += 1
        self._lags_s += lag_s
        self._due = now + _LAG_EVERY_S
        if self._loop is not None and not self._loop.is_closed():
            self._timer = self._loop.call_later(_LAG_EVERY_S, self._on_timer)

    def _on_collection(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting_since = time.perf_counter()
        elif self._collecting_since:
            pause_s = time.perf_counter() - self._collecting_since
            self._collecting_since = 0.0
            self._pauses[bisect_left(BOUNDS, pause_s)] += 1
            self._pauses_s += pause_s

    def rows_into(self, rows: Rows) -> None:
        """Append the figures as they are now."""
        labels = [self._process]
        times = os.times()
        rows["headgate_build_info"].append(([headgate.__version__, platform.python_version()], 1))
        rows["headgate_process_cpu_seconds_total"].append((labels, times.user + times.system))
        rows["headgate_process_resident_memory_bytes"].append((labels, resident_bytes()))
        open_fds = count_open_fds()
        if open_fds is not None:
            rows["headgate_process_open_fds"].append((labels, open_fds))
        rows["headgate_process_max_fds"].append(
            (labels, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        )
        rows["headgate_process_start_time_seconds"].append((labels, self._started_wall))
        age_s = max(0.0, time.time() - self._started_wall)  # noqa: TID251 - by the machine's clock
        rows["headgate_process_uptime_seconds"].append((labels, round(age_s, 3)))
        for generation, stats in enumerate(gc.get_stats()):
            rows["headgate_gc_collections_total"].append(
                ([self._process, str(generation)], stats["collections"])
            )
        rows["headgate_gc_pause_seconds"].append(
            (labels, {"counts": self._pauses.copy(), "sum": self._pauses_s})
        )
        rows["headgate_event_loop_lag_seconds"].append(
            (labels, {"counts": self._lags.copy(), "sum": self._lags_s})
        )


def resident_bytes() -> int:
    """Resident memory now; elsewhere than on Linux, the most there ever was."""
    try:
        with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - three times cheaper
            return int(statm.read().split()[1]) * _PAGE_BYTES
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def count_open_fds() -> int | None:
    """Open descriptors, or None where the system does not tell."""
    try:
        # Linux 6.2 and later give the count as the folder's size; reading the folder itself with
        # ten thousand connections open would hold the loop up for milliseconds.
        size = os.stat("/proc/self/fd").st_size  # noqa: PTH116
        return size or len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    except OSError:
        return None


def process_start_wall() -> float:
    """When this process began, in seconds since 1970."""
    try:
        with open("/proc/self/stat", "rb") as stat:  # noqa: PTH123
            ticks = int(stat.read().rpartition(b")")[2].split()[19])
        with open("/proc/uptime", "rb") as uptime:  # noqa: PTH123
            up_s = float(uptime.read().split()[0])
    except OSError:
        return time.time()  # noqa: TID251 - the rim that says what time it is
    age_s = up_s - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age_s  # noqa: TID251

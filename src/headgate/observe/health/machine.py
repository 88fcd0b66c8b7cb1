"""Checks of the machine and of this process: disk, memory, files, the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from headgate.observe.health.outcome import Bounds, Outcome, failing, ok, worst
from headgate.observe.process import resident_bytes
from headgate.units import (
    UnitError,
    parse_duration,
    parse_percent,
    parse_size,
    rough_duration,
    rough_size,
)

__all__ = ["cgroup_limit", "disk", "file_age", "loop_lag", "memory", "memory_limit"]

_TICK_S: Final = 0.1
_UNBOUND: Final = 1 << 60


def _share_or_size(value: str | float | None) -> tuple[float | None, int | None]:
    """`5%` is a share, `2GB` or a whole number a size."""
    if value is None:
        return None, None
    if isinstance(value, float) or str(value).strip().endswith("%"):
        return parse_percent(value), None
    try:
        return None, parse_size(value)
    except UnitError as error:
        raise ValueError(f'"{value}" {error.rule}; write 5% or 2GB') from None


def disk(
    path: str | Path,
    *,
    warn_free: str | float | None = "10%",
    fail_free: str | float | None = "3%",
    warn_inodes: str | float | None = "10%",
    fail_inodes: str | float | None = "3%",
    writable: bool = True,
) -> Callable[[], Outcome]:
    """What is free where `path` is, as a share or a size; inodes; whether a file can be written."""
    warn_share, warn_size = _share_or_size(warn_free)
    fail_share, fail_size = _share_or_size(fail_free)
    shares, sizes = Bounds(warn_share, fail_share, True), Bounds(warn_size, fail_size, True)
    inodes = Bounds(
        None if warn_inodes is None else parse_percent(warn_inodes),
        None if fail_inodes is None else parse_percent(fail_inodes),
        below=True,
    )
    place = Path(path)

    def ask() -> Outcome:
        said = os.statvfs(place)
        free, total = said.f_bavail * said.f_frsize, said.f_blocks * said.f_frsize
        found: list[Outcome] = []
        if total:
            share = free / total
            words = f"{rough_size(free)} of {rough_size(total)} are free"
            for status in (shares.judge(share), sizes.judge(free)):
                why = "" if status == "ok" else words
                found.append(Outcome(status, why, round(share * 100, 2), "percent"))
        if said.f_files:  # some file systems have no fixed number
            status = inodes.judge(said.f_favail / said.f_files)
            why = "" if status == "ok" else f"{said.f_favail} of {said.f_files} inodes are free"
            found.append(Outcome(status, why))
        if writable:
            found.append(_written(place))
        worst_of_all = worst(found)
        first = next((one for one in found if one.value is not None), worst_of_all)
        return Outcome(worst_of_all.status, _once(worst_of_all.why), first.value, first.unit)

    return ask


def _once(why: str) -> str:
    return "; ".join(dict.fromkeys(why.split("; "))) if why else ""


def _written(place: Path) -> Outcome:
    folder = place if place.is_dir() else place.parent
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return failing(f"it cannot be written: {error.strerror or error}")
    return ok()


def cgroup_limit(root: Path = Path("/")) -> int | None:
    """The memory that the control group of this process may have, if it is bounded."""
    names = ["sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"]
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text("ascii", "replace").splitlines():
            number, _, rest = line.partition(":")
            group = rest.partition(":")[2].lstrip("/")
            if number == "0" and group and ".." not in group:
                names.insert(0, f"sys/fs/cgroup/{group}/memory.max")
    for name in names:
        with contextlib.suppress(OSError, ValueError):
            limit = int((root / name).read_text("ascii", "replace").strip())
            if 0 < limit < _UNBOUND:
                return limit
    return None


def _meminfo(root: Path) -> tuple[int, int]:
    said: dict[str, int] = {}
    for line in (root / "proc/meminfo").read_text("ascii", "replace").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            said[name] = int(words[0]) * 1024
    return said.get("MemTotal", 0), said.get("MemAvailable", 0)


def memory_limit(root: Path = Path("/")) -> int:
    """What this process may have at most: its control group's bound, or the machine."""
    total, _ = _meminfo(root)
    limit = cgroup_limit(root)
    return min(limit, total) if limit and total else limit or total


def memory(
    *,
    warn: str | float | None = "80%",
    fail: str | float | None = "95%",
    limit: str | int | None = None,
    warn_system: str | float | None = "90%",
    fail_system: str | float | None = None,
    root: Path = Path("/"),
    resident: Callable[[], float] = resident_bytes,
) -> Callable[[], Outcome]:
    """This process's memory against `limit`, by default that of its control group or the machine;
    and what is in use of the machine.
    """
    own = Bounds(
        None if warn is None else parse_percent(warn), None if fail is None else parse_percent(fail)
    )
    system = Bounds(
        None if warn_system is None else parse_percent(warn_system),
        None if fail_system is None else parse_percent(fail_system),
    )
    most = None if limit is None else parse_size(limit)

    def ask() -> Outcome:
        used = resident()
        bound = most or memory_limit(root)
        found: list[Outcome] = []
        if bound:
            status = own.judge(used / bound)
            words = f"this process has {rough_size(used)} of {rough_size(bound)}"
            why = "" if status == "ok" else words
            found.append(Outcome(status, why, round(used / bound * 100, 1), "percent"))
        total, available = _meminfo(root)
        if total:
            share = 1 - available / total
            status = system.judge(share)
            why = "" if status == "ok" else f"{share:.0%} of the machine's memory is in use"
            found.append(Outcome(status, why))
        return worst(found)

    return ask


def file_age(
    path: str | Path,
    *,
    warn_after: str | float | None = None,
    fail_after: str | float | None = None,
    at_least: str | int = 1,
    wall: Callable[[], float] = time.time,  # noqa: TID251 - files have times of the clock
) -> Callable[[], Outcome]:
    """When a file was written last, such as a backup or the mark of a job, and its size."""
    bounds = Bounds(
        None if warn_after is None else parse_duration(warn_after),
        None if fail_after is None else parse_duration(fail_after),
    )
    least = parse_size(at_least)
    place = Path(path)

    def ask() -> Outcome:
        try:
            said = place.stat()
        except FileNotFoundError:
            return failing(f"{place} does not exist")
        age_s = max(0.0, wall() - said.st_mtime)
        if said.st_size < least:
            return failing(f"it has {said.st_size} bytes, less than {least}", age_s, "s")
        status = bounds.judge(age_s)
        why = "" if status == "ok" else f"it was written {rough_duration(age_s)} ago"
        return Outcome(status, why, round(age_s, 1), "s")

    return ask


class _LoopLag:
    """The longest that a loop was late since it was asked last."""

    def __init__(self, bounds: Bounds, mono: Callable[[], float]) -> None:
        self._bounds = bounds
        self._mono = mono
        self._loop: asyncio.AbstractEventLoop | None = None
        self._due = 0.0
        self._longest_s = 0.0

    async def __call__(self) -> Outcome:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._longest_s = 0.0
            self._next()
            await asyncio.sleep(2 * _TICK_S)  # or the first answer would say nothing
        late_s = max(self._longest_s, self._mono() - self._due)
        self._longest_s = 0.0
        late_s = max(0.0, late_s)
        status = self._bounds.judge(late_s)
        why = "" if status == "ok" else f"the event loop was held up for {late_s * 1000:.0f} ms"
        return Outcome(status, why, round(late_s * 1000, 1), "ms")

    def _next(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._due = self._mono() + _TICK_S
            self._loop.call_later(_TICK_S, self._tick, self._loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is self._loop:
            self._longest_s = max(self._longest_s, self._mono() - self._due)
            self._next()


def loop_lag(
    *,
    warn: str | float | None = "250ms",
    fail: str | float | None = "2s",
    mono: Callable[[], float] = time.monotonic,
) -> Callable[[], Coroutine[Any, Any, Outcome]]:
    """The longest that the event loop was held up since the last check."""
    bounds = Bounds(
        None if warn is None else parse_duration(warn),
        None if fail is None else parse_duration(fail),
    )
    return _LoopLag(bounds, mono)

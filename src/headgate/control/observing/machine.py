"""Figures of the machine and of certificates, which alerts and forecasts are judged by.

Theory of operation. A thread reads every `EVERY_S` seconds, because a file system that is mounted
from elsewhere may hang, and control must not; a snapshot shows the last reading. While one hangs,
the last is shown until it is `_OLD_S` old, then none: no figure is better than a wrong one. Use of
processors is what was used between two readings. Where a control group bounds memory, that bound is
the machine's size. Certificate files are looked at once a minute. What a system does not tell has
no figure.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from headgate.config import Config
from headgate.observe import Rows

__all__ = ["Machine", "cpu_share", "memory_of", "usable_cpus"]

EVERY_S: Final = 5.0
_FIRST_S: Final = 1.0
"""Until the second reading, from which on use of processors is known."""
_OLD_S: Final = 30.0
_CLOSE_S: Final = 2.0
_CERTIFICATES_S: Final = 60.0
_GROUP: Final = "sys/fs/cgroup/"
_UNBOUND: Final = 1 << 60
_WINDOWS: Final = ("1m", "5m", "15m")

log = logging.getLogger("headgate.control")


def cpu_share(before: Sequence[int], after: Sequence[int]) -> float | None:
    """Of the time between two first lines of /proc/stat, how much was used."""
    spent = [b - a for a, b in zip(before, after, strict=False)]
    whole = sum(spent[:8])  # guest time is in user time already
    if whole <= 0 or len(spent) < 5:
        return None
    idle = spent[3] + spent[4]
    return min(1.0, max(0.0, 1.0 - idle / whole))


def usable_cpus(cpus: int, affinity: int, quota: str) -> float:
    """Of so many processors, those left by affinity (0: not known) and by `cpu.max` of a control
    group: "max 100000", or microseconds of use and of the period that they are for.
    """
    usable = float(min(cpus, affinity) if affinity else cpus)
    words = quota.split()
    if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]):
        usable = min(usable, int(words[0]) / int(words[1]))
    return round(usable, 3)


def memory_of(
    meminfo: str, most: str = "", current: str = "", inactive: int = 0
) -> tuple[int, int]:
    """(total, available) in bytes, of the control group where it is bounded below the machine."""
    said: dict[str, int] = {}
    for line in meminfo.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            said[name] = int(words[0]) * 1024
    total, available = said.get("MemTotal", 0), said.get("MemAvailable", 0)
    if (
        most.strip().isdigit()
        and current.strip().isdigit()
        and 0 < int(most) < min(total, _UNBOUND)
    ):
        total = int(most)
        # Pages of files that may go are counted as used there, and are not.
        available = min(available, max(0, total - int(current) + inactive))
    return total, available


@dataclass(frozen=True, slots=True)
class _Reading:
    at: float
    """Monotonic."""
    share: float | None = None
    cpus: int = 0
    usable: float = 0.0
    load: tuple[float, ...] = ()
    """Of the last minute, five and fifteen."""
    up_s: float | None = None
    """Of the machine."""
    memory: tuple[int, int] = (0, 0)
    disk: tuple[int, int] | None = None
    """Total and free, in bytes."""
    ends: Mapping[str, float] = field(default_factory=dict)


class Machine:
    name = "machine"

    def __init__(
        self,
        disk: Path,
        acme: Callable[[], Iterable[Mapping[str, Any]]] = tuple,
        *,
        root: Path = Path("/"),
        mono: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,  # noqa: TID251 - certificates end by the clock
    ) -> None:
        self._disk = disk
        self._acme = acme
        self._root = root
        self._mono = mono
        self._wall = wall
        self._stat: list[int] = []
        self._files: tuple[str, ...] = ()
        self._ends: dict[str, float] = {}
        self._looked_at = float("-inf")
        self._reading: _Reading | None = None
        self._begun_at: float | None = None
        """Of a reading under way, monotonic."""
        self._news = threading.Event()
        self._is_closing = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="machine", daemon=True)
        self._thread.start()

    def take(self, config: Config) -> None:
        found: dict[str, None] = {}
        for listener in config.listeners:
            if listener.tls is not None:
                if listener.tls.cert_file is not None:
                    found[str(listener.tls.cert_file)] = None
                for each in listener.tls.certificates or ():
                    if getattr(each, "cert_file", None) is not None:
                        found[str(each.cert_file)] = None
        self._files = tuple(found)
        self._looked_at = float("-inf")
        self._news.set()

    async def close(self) -> None:
        self._is_closing = True
        self._news.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, _CLOSE_S)

    def worries(self) -> Iterable[str]:
        begun_at = self._begun_at
        if begun_at is not None and self._mono() - begun_at > _OLD_S:
            yield (
                "figures of the machine and of certificates are not known: the file system of"
                f" {self._disk} or of a certificate does not answer"
            )

    def rows_into(self, rows: Rows) -> None:
        reading = self._reading
        if reading is None or self._mono() - reading.at > _OLD_S:
            return
        if reading.share is not None:
            rows["headgate_system_cpu_usage_ratio"].append(([], round(reading.share, 4)))
        if reading.cpus:
            rows["headgate_system_cpus"].append(([], reading.cpus))
            rows["headgate_system_cpus_usable"].append(([], reading.usable))
        for window, load in zip(_WINDOWS, reading.load, strict=False):
            rows["headgate_system_load"].append(([window], load))
        if reading.up_s is not None:
            rows["headgate_system_uptime_seconds"].append(([], reading.up_s))
        total, available = reading.memory
        if total:
            rows["headgate_system_memory_total_bytes"].append(([], total))
            rows["headgate_system_memory_available_bytes"].append(([], available))
        if reading.disk is not None:
            path = [str(self._disk)]
            rows["headgate_system_disk_total_bytes"].append((path, reading.disk[0]))
            rows["headgate_system_disk_free_bytes"].append((path, reading.disk[1]))
        for name, ends in reading.ends.items():
            rows["headgate_certificate_expiry_seconds"].append(([name], round(ends - self._wall())))

    # -- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        wait_s = _FIRST_S
        while not self._is_closing:
            try:
                self.look()
            except Exception:
                log.exception("figures of the machine could not be read")
            if not self._news.wait(wait_s):
                wait_s = EVERY_S
            self._news.clear()

    def look(self) -> None:
        """Read everything. May wait for files."""
        self._begun_at = self._mono()
        try:
            disk = None
            with contextlib.suppress(OSError):
                said = os.statvfs(self._disk)
                disk = (said.f_blocks * said.f_frsize, said.f_bavail * said.f_frsize)
            before, stat = self._stat, self._text("proc/stat").splitlines()
            self._stat = _numbers(stat[0]) if stat else []
            cpus = sum(line.startswith("cpu") for line in stat[1:])
            up_s = _floats(self._text("proc/uptime"), 1)
            self._reading = _Reading(
                at=self._mono(),
                share=cpu_share(before, self._stat) if before else None,
                cpus=cpus,
                usable=usable_cpus(cpus, _affinity(), self._text(f"{_GROUP}cpu.max")),
                load=_floats(self._text("proc/loadavg"), 3),
                up_s=up_s[0] if up_s else None,
                memory=self._memory(),
                disk=disk,
                ends=self._certificates(),
            )
        finally:
            self._begun_at = None

    def _memory(self) -> tuple[int, int]:
        inactive = 0
        for line in self._text(f"{_GROUP}memory.stat").splitlines():
            if line.startswith("inactive_file "):
                inactive = int(line.split()[1])
        return memory_of(
            self._text("proc/meminfo"),
            self._text(f"{_GROUP}memory.max"),
            self._text(f"{_GROUP}memory.current"),
            inactive,
        )

    def _text(self, path: str) -> str:
        try:
            return (self._root / path).read_text("ascii", "replace")
        except OSError:
            return ""

    def _certificates(self) -> dict[str, float]:
        if self._mono() - self._looked_at < _CERTIFICATES_S:
            return self._ends
        self._looked_at = self._mono()  # before the names are read, which `take` may change
        from cryptography import x509

        found: dict[str, float] = {}
        for name in self._files:
            with contextlib.suppress(OSError, ValueError):
                certificate = x509.load_pem_x509_certificates(Path(name).read_bytes())[0]
                found[name] = certificate.not_valid_after_utc.timestamp()
        with contextlib.suppress(OSError, ValueError):
            for row in self._acme():
                if row.get("not_after") is not None:
                    found[str(row["name"])] = float(row["not_after"])
        self._ends = found
        return found


def _numbers(line: str) -> list[int]:
    return [int(each) for each in line.split()[1:] if each.isdigit()]


def _floats(text: str, count: int) -> tuple[float, ...]:
    """The first words of a file of the kernel; nothing where they are no numbers."""
    try:
        return tuple(float(word) for word in text.split()[:count])
    except ValueError:
        return ()


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0

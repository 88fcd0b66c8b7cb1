"""Figures of the machine and of certificates, which alerts and forecasts are judged by.

Theory of operation. Read when a snapshot of control is taken, from files of the kernel: cheap and
without waiting. Processor use is what was used since the reading before; readings less than a
second apart share an answer, because several may ask at once. Where a control group bounds memory,
that bound is the machine's size. Certificate files are looked at once a minute. What a system does
not tell has no figure.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from headgate.config import Config
from headgate.observe import Rows

__all__ = ["Machine", "cpu_share", "memory_of"]

_FRESH_S: Final = 1.0
_CERTIFICATES_S: Final = 60.0
_UNBOUND: Final = 1 << 60


def cpu_share(before: Sequence[int], after: Sequence[int]) -> float | None:
    """Of the time between two first lines of /proc/stat, how much was used."""
    spent = [b - a for a, b in zip(before, after, strict=False)]
    whole = sum(spent[:8])  # guest time is in user time already
    if whole <= 0 or len(spent) < 5:
        return None
    idle = spent[3] + spent[4]
    return min(1.0, max(0.0, 1.0 - idle / whole))


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
        self._stat = self._read_stat()
        self._at = mono()
        self._share: float | None = None
        self._files: tuple[str, ...] = ()
        self._ends: dict[str, float] = {}
        self._looked_at = float("-inf")

    def start(self) -> None:
        """Nothing runs by itself."""

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

    async def close(self) -> None:
        """Nothing is held."""

    def worries(self) -> Iterable[str]:
        return ()

    def rows_into(self, rows: Rows) -> None:
        share = self._cpu()
        if share is not None:
            rows["headgate_system_cpu_usage_ratio"].append(([], round(share, 4)))
        total, available = self._memory()
        if total:
            rows["headgate_system_memory_total_bytes"].append(([], total))
            rows["headgate_system_memory_available_bytes"].append(([], available))
        with contextlib.suppress(OSError):
            disk = os.statvfs(self._disk)
            path = [str(self._disk)]
            rows["headgate_system_disk_total_bytes"].append((path, disk.f_blocks * disk.f_frsize))
            rows["headgate_system_disk_free_bytes"].append((path, disk.f_bavail * disk.f_frsize))
        for name, ends in self._certificates().items():
            rows["headgate_certificate_expiry_seconds"].append(([name], round(ends - self._wall())))

    def _cpu(self) -> float | None:
        now = self._mono()
        if now - self._at >= _FRESH_S:
            after = self._read_stat()
            self._share = cpu_share(self._stat, after)
            self._stat, self._at = after, now
        return self._share

    def _read_stat(self) -> list[int]:
        first = self._text("proc/stat").partition("\n")[0].split()
        return [int(each) for each in first[1:] if each.isdigit()]

    def _memory(self) -> tuple[int, int]:
        group = "sys/fs/cgroup/"
        inactive = 0
        for line in self._text(f"{group}memory.stat").splitlines():
            if line.startswith("inactive_file "):
                inactive = int(line.split()[1])
        return memory_of(
            self._text("proc/meminfo"),
            self._text(f"{group}memory.max"),
            self._text(f"{group}memory.current"),
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
        self._looked_at = self._mono()
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

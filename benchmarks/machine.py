"""What the measurements stand on: cores, CPU time, memory, and the machine's description.

Theory of operation
-------------------
A closed-loop figure says nothing if the client was the bottleneck, and on a small machine it often
is: client and upstream share one core while the proxy has its own. So every measurement also reads
how much CPU time the proxy's threads took (`/proc/PID/task/*/schedstat`, nanoseconds), and the
report shows requests per second of *proxy CPU* beside requests per second of wall time. The first
is what "per core" means; the second equals it when the proxy's core was busy throughout.

Loopback work in the kernel (softirq) is done on the sender's CPU, so the cost of sending is in the
proxy's figure and the cost of being sent to is in the client's. It is the same for every peer.
"""

from __future__ import annotations

import os
import platform
import resource
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Cores:
    """Which CPU does what. With two CPUs, client and upstream share one."""

    proxy: int
    client: int
    upstream: int

    @classmethod
    def pick(cls) -> Cores:
        """The last CPU for the proxy, the first for the client, a third for the upstream."""
        cpus = sorted(os.sched_getaffinity(0))
        if len(cpus) == 1:
            return cls(cpus[0], cpus[0], cpus[0])
        return cls(proxy=cpus[-1], client=cpus[0], upstream=cpus[1] if len(cpus) > 2 else cpus[0])


def raise_file_limit() -> int:
    """Lift the limit of open files as far as we may; children inherit it.

    65,536 is what 10,000 clients and as many upstream connections need with room to spare; raising
    the hard limit takes a privilege that not everybody has.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (max(hard, 65_536), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        except (ValueError, PermissionError):
            continue
        return limit
    return hard


def pin(pid: int, cpu: int) -> None:
    """Pin every thread of a process (threads made later inherit from their maker)."""
    for task in _tasks(pid):
        try:
            os.sched_setaffinity(task, {cpu})
        except ProcessLookupError:
            continue


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time all threads of these processes have used so far."""
    total_ns = 0
    for pid in pids:
        for task in _tasks(pid):
            try:
                line = (_PROC / str(pid) / "task" / str(task) / "schedstat").read_text()
            except OSError:
                continue
            total_ns += int(line.split()[0])
    return total_ns / 1e9


def cpu_busy(cpu: int) -> tuple[float, float]:
    """(busy, stolen) seconds of one CPU since boot: shows whether others disturbed a run."""
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    for line in (_PROC / "stat").read_text().splitlines():
        if line.startswith(f"cpu{cpu} "):
            user, nice, system, _idle, _wait, irq, softirq, steal = map(int, line.split()[1:9])
            return (user + nice + system + irq + softirq) * tick_s, steal * tick_s
    raise LookupError(f"no CPU {cpu} in /proc/stat")


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident and proportional set size of some processes, summed."""

    rss_bytes: int
    pss_bytes: int
    peak_bytes: int
    "Highest resident size since `reset_peak`."


def memory(pids: Iterable[int]) -> Memory:
    """Read the memory of processes; ones that are gone count as nothing."""
    rss = pss = peak = 0
    for pid in pids:
        try:
            status = (_PROC / str(pid) / "status").read_text()
            rollup = (_PROC / str(pid) / "smaps_rollup").read_text()
        except OSError:
            continue
        rss += _kilobytes(status, "VmRSS:")
        peak += _kilobytes(status, "VmHWM:")
        pss += _kilobytes(rollup, "Pss:")
    return Memory(rss, pss, peak)


def reset_peak(pids: Iterable[int]) -> None:
    """Start a new high-water mark of resident memory (proc(5): `clear_refs`, value 5)."""
    for pid in pids:
        (_PROC / str(pid) / "clear_refs").write_text("5")


def children(pid: int) -> list[int]:
    """Direct children of a process, oldest first."""
    found: list[int] = []
    for task in _tasks(pid):
        try:
            text = (_PROC / str(pid) / "task" / str(task) / "children").read_text()
        except OSError:
            continue
        found.extend(int(word) for word in text.split())
    return sorted(found)


def descendants(pid: int) -> list[int]:
    """Every process below one."""
    found: list[int] = []
    for child in children(pid):
        found.append(child)
        found.extend(descendants(child))
    return found


def command_line(pid: int) -> str:
    """The process's arguments, or nothing if it is gone."""
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def name(pid: int) -> str:
    """What a process calls itself, or nothing if it is gone."""
    try:
        return (_PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return ""


def describe() -> dict[str, str]:
    """The machine in words that mean the same elsewhere: no names, no addresses."""
    model = "unknown"
    for line in (_PROC / "cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    total_kb = _kilobytes((_PROC / "meminfo").read_text(), "MemTotal:") // 1024
    release = platform.release().split("-", 1)[0]
    return {
        "cores": str(os.cpu_count() or 1),
        "cpu": model,
        "memory": f"{round(total_kb / 1024 / 1024)} GB",
        "kernel": f"{platform.system()} {release}",
        "python": platform.python_version(),
        "virtual": _virtualisation(),
    }


def first_line(*command: str) -> str:
    """First line a program prints (on either stream), for versions."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return ""
    text = (done.stdout or done.stderr).strip()
    return text.splitlines()[0] if text else ""


def _virtualisation() -> str:
    flags = (_PROC / "cpuinfo").read_text()
    return "virtual machine" if "hypervisor" in flags else "bare metal"


def _tasks(pid: int) -> list[int]:
    try:
        return [int(entry.name) for entry in (_PROC / str(pid) / "task").iterdir()]
    except OSError:
        return []


def _kilobytes(text: str, key: str) -> int:
    """Value of a `Key:  123 kB` line, in bytes."""
    for line in text.splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return 0

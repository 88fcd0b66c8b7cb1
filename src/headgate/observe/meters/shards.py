"""The metrics of all worker processes of a service as one.

    registry.share("/run/shop/metrics")     # in every worker: gunicorn, uvicorn --workers

Theory of operation
-------------------
Each process writes what it has counted into one file of its own, once a second, in a thread of its
own; the file is replaced whole, so a reader never sees half of one. Whoever is scraped reads the
files of the others and adds its own figures as they are now. So nobody is asked anything, nobody
waits, a worker that hangs is shown as it last was, and there are as many files as processes, not as
metrics.

Whether a process lives is told by a lock (flock) that it holds on `<name>.live`; the kernel lets go
of it however the process ends. The file of a dead process is folded: its counters, histograms and
the totals of its summaries are added to `ended.meters`, its gauges are dropped, then the file is
removed. Whoever gets `fold.lock` does it, and nobody waits for that lock. What is folded stands in
`ended.meters` by name, in the same replace, so a crash between the two steps counts nothing twice.
A reader that finds `ended.meters` changed while it read begins again, so no count is missed.

What is lost when a process is killed outright: what it counted since it last wrote, up to
`every_s`. At an orderly exit (atexit) nothing is.

A fork takes along the parent's counts, thread and lock: the child begins at zero, with a file of
its own. What an editor must not break: the child closes its copy of the parent's lock, else a dead
parent would seem to live.

A full disk or a folder that is gone costs the others our newest figures and nothing else:
`write_failures` counts it. A file that is spoilt is moved aside as `<name>.spoilt`, and counted.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from headgate.observe.meters.families import Family, Labels, merge
from headgate.observe.meters.metric import log
from headgate.observe.meters.shard_file import Heads, ShardSpoilt, pack, unpack

if TYPE_CHECKING:
    from headgate.observe.meters.registry import Registry

__all__ = ["Shards"]

_SUFFIX: Final = ".meters"
_ENDED: Final = "ended.meters"
_FOLDED: Final = "observe_folded_processes"
_TRIES: Final = 5
_TIDY_AFTER_S: Final = 60.0
_all: weakref.WeakSet[Shards] = weakref.WeakSet()


class Shards:
    """One registry, shared by a folder; made by `Registry.share`."""

    def __init__(
        self, registry: Registry, folder: str | os.PathLike[str], *, every_s: float = 1.0
    ) -> None:
        if not 0.05 <= every_s <= 60.0:
            raise ValueError(f"every_s={every_s:g} lies between 0.05 and 60 seconds")
        self.folder = Path(folder)
        self.every_s = every_s
        self.write_failures = 0
        self.spoilt = 0
        self.misfits = 0
        """Families left out because another process defines them differently."""
        self._registry = registry
        self._heads = Heads()
        self._written: dict[str, tuple[list[Labels], bytes]] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._writing = threading.Lock()
        self._reading = threading.Lock()
        self._lock_fd = -1
        self._name = ""
        self._is_warned = False

    def __repr__(self) -> str:
        return f"<Shards {self._name} in {self.folder}>"

    # ---- life

    def start(self) -> None:
        """Take a name of our own and begin to write. Raises OSError if the folder cannot be."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._take_name()
        self.write()
        self._fold()  # also where nobody is ever scraped, workers that crash leave no heap of files
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headgate-meters", daemon=True)
        self._thread.start()
        _all.add(self)
        atexit.register(self.close)

    def close(self) -> None:
        """Write a last time and end. The counts stay, as those of a process that has ended."""
        atexit.unregister(self.close)
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5.0)
            self._thread = None
        if self._lock_fd >= 0:
            self.write()
            os.close(self._lock_fd)
            self._lock_fd = -1
        if self._registry.shards is self:
            self._registry.shards = None

    def _take_name(self) -> None:
        while True:
            name = f"{os.getpid()}-{os.urandom(4).hex()}"
            path = self.folder / f"{name}.live"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_EXCL, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._name, self._lock_fd = name, fd
            # Somebody who tidies up may have seen it before it was locked.
            if path.exists():
                return
            os.close(fd)

    def _run(self) -> None:
        stop = self._stop
        while not stop.wait(self.every_s):
            self.write()

    def begin_anew(self) -> None:
        """In a forked child."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)  # the parent's lock stays the parent's
            self._lock_fd = -1
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._thread = None
        self._registry.begin_anew()
        try:
            self.start()
        except OSError as error:
            self._failed(error)

    # ---- writing

    def write(self) -> None:
        """Write what this process has counted; it never raises."""
        with self._writing:
            if self._lock_fd < 0:
                return
            try:
                data = pack(map(_of_process, self._registry.own()), self._written)
                self._replace(f"{self._name}{_SUFFIX}", data)
                self._is_warned = False
            except Exception as error:  # noqa: BLE001 - metrics must not take a service down
                self._failed(error)

    def _failed(self, error: Exception) -> None:
        self.write_failures += 1
        if not self._is_warned:
            self._is_warned = True
            log.warning(
                "metrics cannot be written to %s: %s; other processes show old figures of this one",
                self.folder,
                error,
            )

    def _replace(self, name: str, data: bytes) -> None:
        new = self.folder / f".{name}.{os.getpid()}.new"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
            new.replace(self.folder / name)
        except OSError:
            new.unlink(missing_ok=True)
            raise

    # ---- reading

    def merged(self) -> list[Family]:
        """All that was counted, by the living and the dead; what is ours as it is now."""
        own = [_of_process(family) for family in self._registry.own()]
        with self._reading:
            try:
                self._fold()
            except OSError as error:
                self._failed(error)
            whole: dict[str, Family] = {}
            for _ in range(_TRIES):
                before = self._ended_mark()
                whole = self._read(own)
                if self._ended_mark() == before:
                    break
        found = list(whole.values())
        found.append(
            Family(
                "observe_processes",
                "gauge",
                "Processes whose metrics are added up here.",
                numbers={(): self._living},
            )
        )
        return found

    _living = 1

    def _read(self, own: list[Family]) -> dict[str, Family]:
        whole: dict[str, Family] = {}
        self.misfits = merge(whole, own)
        folded, ended = self._ended()
        self.misfits += merge(whole, ended, is_over=True)
        self._living = 1
        for path in self._files():
            name = path.name.removesuffix(_SUFFIX)
            if name == self._name or name in folded:
                continue
            is_over = not self._lives(name)
            families = self._families(path)
            if families is not None:
                self.misfits += merge(whole, families, is_over=is_over)
                self._living += not is_over
        return whole

    def _files(self) -> list[Path]:
        try:
            names = sorted(os.listdir(self.folder))  # noqa: PTH208 - names are all we need
        except OSError:
            return []
        return [
            self.folder / name
            for name in names
            if name.endswith(_SUFFIX) and name != _ENDED and not name.startswith(".")
        ]

    def _families(self, path: Path) -> list[Family] | None:
        try:
            return unpack(path.read_bytes(), self._heads)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._failed(error)
        except ShardSpoilt as error:
            self.spoilt += 1
            log.warning("%s is spoilt and was moved aside: %s", path, error)
            try:
                path.replace(path.with_suffix(".spoilt"))
            except OSError as moving:
                self._failed(moving)
        return None

    def _ended_mark(self) -> tuple[int, int]:
        try:
            stat = (self.folder / _ENDED).stat()
        except OSError:
            return 0, 0
        return stat.st_ino, stat.st_mtime_ns

    def _ended(self) -> tuple[set[str], list[Family]]:
        path = self.folder / _ENDED
        if not path.exists():
            return set(), []
        families = self._families(path) or []
        folded: set[str] = set()
        kept = []
        for family in families:
            if family.name == _FOLDED:
                folded = set(json.loads(family.help))
            else:
                kept.append(family)
        return folded, kept

    # ---- the dead

    def _lives(self, name: str) -> bool:
        try:
            fd = os.open(self.folder / f"{name}.live", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        else:
            return False
        finally:
            os.close(fd)

    def _fold(self) -> None:
        dead = [
            path
            for path in self._files()
            if (name := path.name.removesuffix(_SUFFIX)) != self._name and not self._lives(name)
        ]
        if not dead:
            return
        with self._held("fold.lock") as is_ours:
            if is_ours:
                self._fold_all(dead)

    def _fold_all(self, dead: list[Path]) -> None:
        folded, ended = self._ended()
        whole: dict[str, Family] = {}
        merge(whole, ended, is_over=True)
        done = set()
        for path in dead:
            name = path.name.removesuffix(_SUFFIX)
            if name not in folded and path.exists():
                families = self._families(path)
                if families is None:
                    continue
                merge(whole, families, is_over=True)
            done.add(name)
        for family in whole.values():
            family.exemplars = {}
        # Names stay only until their files are gone, which the next fold sees to.
        said = Family(_FOLDED, "gauge", json.dumps(sorted(done)), numbers={(): 1})
        self._replace(_ENDED, pack([*whole.values(), said], {}))
        for name in done:
            for suffix in (_SUFFIX, ".live"):
                (self.folder / f"{name}{suffix}").unlink(missing_ok=True)
        self._tidy()

    def _tidy(self) -> None:
        """Remove what processes leave that are killed while they write or begin."""
        wall = time.time()  # noqa: TID251 - files have the time of the machine
        for path in list(self.folder.iterdir()):
            is_half = path.name.startswith(".") and path.suffix == ".new"
            is_lone = path.suffix == ".live" and not path.with_suffix(_SUFFIX).exists()
            if not (is_half or is_lone):
                continue
            try:
                is_old = abs(wall - path.stat().st_mtime) > _TIDY_AFTER_S
                # One that is young may belong to a process that has not got its lock yet.
                if is_old and (is_half or not self._lives(path.stem)):
                    path.unlink()
            except FileNotFoundError:
                continue

    @contextmanager
    def _held(self, name: str) -> Iterator[bool]:
        """Whether the lock is ours; it is never waited for."""
        fd = os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
        finally:
            os.close(fd)


def _of_process(family: Family) -> Family:
    """With the process as a label, where each is to be shown."""
    if family.merge != "each" or "pid" in family.labels:
        return family
    pid = (str(os.getpid()),)
    return Family(
        family.name,
        family.kind,
        family.help,
        (*family.labels, "pid"),
        family.unit,
        family.merge,
        numbers={(*labels, *pid): value for labels, value in family.numbers.items()},
    )


def _after_fork() -> None:
    for shards in list(_all):
        shards.begin_anew()


os.register_at_fork(after_in_child=_after_fork)

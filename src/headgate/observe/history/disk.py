"""The folder of a store: who may write there, blocks and sets as files, what is too much, spoilt.

    lock           held by the one process that writes
    open.log       the block of the finest tier that is open
    <tier>/<start in ms>-<sequence>.hgb
    sets/<digest>.hgs
    spoilt/        what could not be read, for somebody to look at; bounded

Every file is written beside its place and renamed into it, so a name that is there is whole; its
checksums are against disks.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Final

from headgate.observe.history.block import Block, head_length, read_head
from headgate.observe.history.codec import Spoilt
from headgate.observe.history.rules import TIERS
from headgate.observe.history.series import SeriesSet
from headgate.observe.odd_files import put_odd_aside

__all__ = ["Disk", "Locked"]

_BLOCK: Final = ".hgb"
_SET: Final = ".hgs"
_SETS_HELD: Final = 64
_SPOILT_KEPT: Final = 20
_FRONT: Final = 65536


class Locked(OSError):
    """Another process has this folder."""


class Disk:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.log_path = folder / "open.log"
        self._lock: int | None = None
        self._sets: OrderedDict[str, SeriesSet] = OrderedDict()
        self._set_bytes: dict[str, int] = {}
        self.spoilt: list[str] = []
        self._where: dict[str, Path] = {}

    @property
    def is_open(self) -> bool:
        return self._lock is not None

    def open(self) -> list[Block]:
        """Take the folder, and say what is in it. Raises OSError; `Locked` if it is taken."""
        folders = (self._folder, *(self._folder / tier.name for tier in TIERS))
        for folder in (*folders, self._folder / "sets"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for own in (self._folder / "lock", self.log_path):
            if (odd := put_odd_aside(own, time.time())) is not None:  # noqa: TID251  for its name
                said = f"{own.name} was no file and is now {odd.name}"
                self.spoilt.append(said)
                self._where[said] = odd
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                raise Locked(error.errno, f"another process keeps {self._folder}") from error
            raise
        try:
            found = self._found()
        except BaseException:
            os.close(descriptor)
            raise
        self._lock = descriptor
        return found

    def _found(self) -> list[Block]:
        self._set_bytes = {}
        for path in (self._folder / "sets").iterdir():
            if not path.is_file():
                self.set_aside(path, "it is no file")
            elif path.suffix == _SET:
                self._set_bytes[path.stem] = path.stat().st_size
            elif path.suffix == ".part":
                path.unlink(missing_ok=True)
        blocks: list[Block] = []
        for number, tier in enumerate(TIERS):
            for path in (self._folder / tier.name).iterdir():
                if path.suffix == ".part":
                    path.unlink(missing_ok=True)
                    continue
                if not path.is_file():
                    self.set_aside(path, "it is no file")
                    continue
                if path.suffix != _BLOCK:
                    continue
                try:
                    block = self._head(path)
                    if block.tier != number or block.series not in self._set_bytes:
                        raise Spoilt("the names of its series are lost")
                except (Spoilt, OSError) as error:
                    self.set_aside(path, str(error))
                    continue
                blocks.append(block)
        return blocks

    def _head(self, path: Path) -> Block:
        size = path.stat().st_size
        with path.open("rb") as file:
            data = file.read(_FRONT)
            length = head_length(data)
            if length > len(data):
                data += file.read(length - len(data))
        block = read_head(data, size)
        block.path = path
        return block

    def set_aside(self, path: Path, why: str) -> None:
        """Move a file where it does no harm, and remember that for people."""
        said = f"{path.name} was spoilt ({why}) and is set aside in {self._folder.name}/spoilt"
        self.spoilt.append(said)
        aside = self._folder / "spoilt"
        self._where[said] = aside / f"{path.parent.name}-{path.name}"
        while len(self.spoilt) > _SPOILT_KEPT:
            self._where.pop(self.spoilt.pop(0), None)
        with suppress(OSError):
            aside.mkdir(mode=0o700, exist_ok=True)
            path.replace(aside / f"{path.parent.name}-{path.name}")
            old = sorted(aside.iterdir(), key=lambda one: one.lstat().st_mtime)
            for one in old[:-_SPOILT_KEPT]:
                one.unlink()
            return
        with suppress(OSError):
            path.unlink()

    def lies_there(self) -> list[str]:
        """Of `spoilt`, what nobody has taken away yet."""
        return [said for said in list(self.spoilt) if os.path.lexists(self._where.get(said, ""))]

    # --------------------------------------------------------------------------------- sets

    def series(self, digest: str) -> SeriesSet:
        """Raises `Spoilt`."""
        known = self._sets.get(digest)
        if known is not None:
            self._sets.move_to_end(digest)
            return known
        path = self._folder / "sets" / f"{digest}{_SET}"
        try:
            found = SeriesSet.of_bytes(path.read_bytes(), digest)
        except Spoilt as error:
            self.set_aside(path, str(error))
            raise
        except OSError as error:
            raise Spoilt(f"the names of its series are lost: {error}") from error
        self.hold(found)
        return found

    def hold(self, series: SeriesSet) -> None:
        self._sets[series.digest] = series
        while len(self._sets) > _SETS_HELD:
            self._sets.popitem(last=False)

    # ------------------------------------------------------------------------------- writing

    def write(self, block: Block, series: SeriesSet) -> None:
        """Put a block that is in memory on the disk. Raises OSError; nothing is half done."""
        if series.digest not in self._set_bytes:
            data = series.to_bytes()
            self._put(self._folder / "sets" / f"{series.digest}{_SET}", data)
            self._set_bytes[series.digest] = len(data)
        if block.data is None:
            return
        name = f"{int(block.start * 1000):014d}-{block.sequence:08d}{_BLOCK}"
        path = self._folder / TIERS[block.tier].name / name
        self._put(path, block.data)
        block.path, block.data = path, None

    def _put(self, path: Path, data: bytes) -> None:
        part = path.with_suffix(".part")
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) or 0 :]
                os.fsync(file.fileno())
            part.replace(path)
        except OSError:
            with suppress(OSError):
                part.unlink()
            raise

    def remove(self, block: Block) -> None:
        if block.path is not None:
            with suppress(OSError):
                block.path.unlink()

    def drop_sets(self, used: set[str]) -> None:
        """Remove the sets that no block names."""
        for digest in self._set_bytes.keys() - used:
            with suppress(OSError):
                (self._folder / "sets" / f"{digest}{_SET}").unlink()
            self._set_bytes.pop(digest)

    def sets_bytes(self) -> int:
        return sum(self._set_bytes.values())

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

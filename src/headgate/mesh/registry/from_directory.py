"""Instances that the files of a directory name, named anew whenever a file is another.

Theory of operation. Every `*.json`, `*.yaml` and `*.yml` of the directory holds one instance or a
list of them; an instance is a URL, or a mapping with `url` and what else there is to say. One that
says another `service` is another's, so that services may share a directory. The directory is looked
at every `every_s`: which files there are, and whether one has another time, size or inode.

A file that cannot be read or has a fault keeps what it said before, whole, and is a worry until it
is right again: half of a list must not take the other half away. One that is gone names nobody any
more. A directory that is gone, or cannot be read, keeps everything: it was unmounted, or is being
replaced. So write a file beside its place, under a name that begins with a dot, and rename it.

Reading happens in a thread, and `read_folder` touches nothing but its arguments; what it found is
taken in on the loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from headgate.mesh.registry.asked import Asked, Refused, instance_of
from headgate.mesh.registry.ids import id_of
from headgate.mesh.registry.model import Instance, Source
from headgate.policy.registering import RegistryRules
from headgate.security.entries import BadEntry, Fields, parse_document, with_line
from headgate.units import MB, format_size

__all__ = ["DirectorySource", "Folder", "instances_in", "read_folder"]

Name = Callable[[Source, str, Sequence[Instance]], object]
_Stamp = tuple[int, int, int, int]

EVERY_S: Final = 0.5
FILES_MAX: Final = 1000
BYTES_MAX: Final = 4 * MB
_ENDINGS: Final = (".json", ".yaml", ".yml")
_KNOWN: Final = (
    "service",
    "id",
    "url",
    "zone",
    "version",
    "weight",
    "priority",
    "metadata",
)

log = logging.getLogger("headgate.mesh")


@dataclass(frozen=True, slots=True)
class _File:
    stamp: _Stamp | None
    """None: it was not read whole, and is read again at the next look."""
    instances: tuple[Instance, ...] = ()
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Folder:
    """What a directory said at one look."""

    files: Mapping[str, _File] = field(default_factory=dict)
    fault: str = ""
    """Of the directory itself."""

    @property
    def instances(self) -> list[Instance]:
        return [one for name in sorted(self.files) for one in self.files[name].instances]

    @property
    def faults(self) -> list[str]:
        own = [self.fault] if self.fault else []
        return own + [one.fault for _, one in sorted(self.files.items()) if one.fault]


def read_folder(path: Path, service: str, rules: RegistryRules, before: Folder) -> Folder:
    """Look; what is as it was before is not read again. It never raises."""
    try:
        names = [
            entry.name
            for entry in os.scandir(path)
            if entry.name.endswith(_ENDINGS) and not entry.name.startswith(".")
        ]
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        return Folder(before.files, f"{path}: cannot be read: {reason}; what it said is kept")
    fault = ""
    if len(names) > FILES_MAX:
        fault = f"{path}: has {len(names)} files; the first {FILES_MAX} by name are read"
        names = sorted(names)[:FILES_MAX]
    files: dict[str, _File] = {}
    for name in names:
        found = _read(path / name, service, rules, before.files.get(name))
        if found is not None:
            files[name] = found
    return Folder(files, fault)


def _read(path: Path, service: str, rules: RegistryRules, before: _File | None) -> _File | None:
    """One file; None if it is gone."""
    stamp: _Stamp | None = None
    try:
        stamp = _stamp(path.stat())
        if before is not None and before.stamp == stamp:
            return before
        # A pipe of such a name must not hold up the reading of the others.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError("is no file")
            content = file.read(BYTES_MAX + 1)
            if _stamp(os.fstat(file.fileno())) != stamp:
                stamp = None  # it was written to meanwhile
        if len(content) > BYTES_MAX:
            raise ValueError(f"is longer than {format_size(BYTES_MAX)}")
        return _File(stamp, tuple(instances_in(content, service, rules)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
        kept = before.instances if before is not None else ()
        words = "what it said before is kept" if kept else "nothing of it is used"
        return _File(stamp, kept, f"{path}: {reason}; {words}")


def instances_in(content: bytes, service: str, rules: RegistryRules) -> list[Instance]:
    """What a file names of a service. Raises ValueError, which says the line."""
    document = parse_document(content)
    if document is None:
        return []  # an empty file
    rows = document if isinstance(document, list) else [document]
    found: list[Instance] = []
    try:
        for number, row in enumerate(rows):
            where = (number,) if isinstance(document, list) else ()
            one = _instance(row, where, service, rules)
            if one.service == service:
                found.append(one)
    except BadEntry as error:
        raise ValueError(with_line(content, error)) from None
    return found


def _instance(
    row: object, where: Sequence[str | int], service: str, rules: RegistryRules
) -> Instance:
    if isinstance(row, str):
        row = {"url": row}
    fields = Fields(row, where, _KNOWN)
    url = fields.needed("url")
    more: dict[str, Any] = {}
    for name in ("weight", "priority"):
        if fields.given.get(name) is not None:
            more[name] = fields.given[name]
    metadata = fields.given.get("metadata") or {}
    if isinstance(metadata, Mapping):
        # YAML has read `version: 1.20` as a number; only text can be told back as it was written.
        metadata = {str(key): value for key, value in metadata.items()}
    try:
        return instance_of(
            Asked(
                fields.text("service") or service,
                fields.text("id") or id_of(url),
                url,
                fields.text("zone"),
                fields.text("version"),
                metadata=metadata,
                **more,
            ),
            rules,
        )
    except (Refused, ValueError) as error:
        name, _, rule = str(error).partition(": ")
        if isinstance(error, Refused) and name in _KNOWN:
            raise fields.fault(name, rule) from None
        raise fields.fault("url", str(error)) from None


def _stamp(found: os.stat_result) -> _Stamp:
    return (found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns)


class DirectorySource:
    """One directory, looked at again and again. `start`, and `close` at the end."""

    source: Final = "directory"

    def __init__(
        self,
        service: str,
        path: Path,
        name: Name,
        *,
        rules: RegistryRules | None = None,
        every_s: float = EVERY_S,
    ) -> None:
        self.service = service
        self.path = path
        self.looks = 0
        self._folder = Folder()
        self._name = name
        self._rules = rules or RegistryRules()
        self._every_s = every_s
        self._named: list[Instance] | None = None
        self._told: list[str] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def key(self) -> str:
        """What the source is called: services may share a directory."""
        return f"{self.path} for {self.service}"

    @property
    def worries(self) -> Sequence[str]:
        return self._folder.faults

    @property
    def worry(self) -> str:
        """The first, and how many more; empty while everything is well."""
        faults = self._folder.faults
        if not faults:
            return ""
        return faults[0] if len(faults) == 1 else f"{faults[0]} (and {len(faults) - 1} more)"

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._run(), name=f"discover {self.path}")

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def look(self) -> None:
        """Look once, and name what is new."""
        before = self._folder
        folder = await asyncio.to_thread(read_folder, self.path, self.service, self._rules, before)
        self.looks += 1
        self._folder = folder
        for fault in folder.faults:
            if fault not in self._told:
                log.warning("discovering %s: %s", self.service, fault)
        self._told = folder.faults
        if folder.fault and not folder.files and self._named is None:
            return  # nothing is known yet: what was known before a restart stays
        found = folder.instances
        if found != self._named:
            self._named = found
            self._name("directory", self.key, found)

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("discovering %s failed", self.service)  # a fault of ours
            await asyncio.sleep(self._every_s)

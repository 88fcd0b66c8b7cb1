"""What happened when: changes of the configuration, deploys, alerts; one line of JSON each.

The file is rewritten with the newest half once it has twice as many lines as are kept.

Memory and file have a lock each: who notes or looks waits for no disk. What was noted waits to be
written, bounded, until a thread that may wait calls `write`.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from headgate.observe.odd_files import put_odd_aside

__all__ = ["Marker", "Markers"]

_MAX: Final = 10_000
_MAX_TEXT: Final = 1000
_MAX_ATTRIBUTES: Final = 20


@dataclass(frozen=True, slots=True)
class Marker:
    at: float
    kind: str
    text: str
    attributes: Mapping[str, str] = field(default_factory=dict)


class Markers:
    """The newest markers, in memory and in a file. Used from several threads."""

    def __init__(self, path: Path | None, *, most: int = _MAX) -> None:
        self._path = path
        self._most = most
        self._lock = threading.Lock()
        self._file_lock = threading.Lock()
        self._waiting: deque[Marker] = deque()
        self._lines = 0
        self._lead = ""  # ends a line that a crash has torn
        self.held: deque[Marker] = deque(maxlen=most)
        self.unwritten = 0
        self._load()

    def _load(self) -> None:
        if self._path is None:
            return
        try:
            put_odd_aside(self._path, time.time())  # noqa: TID251  for its name
            with self._path.open("rb") as file:
                for line in file:
                    self._lines += 1
                    self._lead = "" if line.endswith(b"\n") else "\n"
                    try:
                        said = json.loads(line)
                        self.held.append(marker(said))
                    except (ValueError, TypeError, KeyError, AttributeError):
                        continue  # torn by a crash; the rest is whole
        except OSError:
            return

    def add(self, at: float, kind: str, text: str, attributes: Mapping[str, Any]) -> Marker:
        """Keep one, in the file too; what cannot be written is kept in memory."""
        made = self.note(at, kind, text, attributes)
        self.write()
        return made

    def note(self, at: float, kind: str, text: str, attributes: Mapping[str, Any]) -> Marker:
        """Keep one in memory, for `write`. Waits for nothing."""
        made = marker({"at": at, "kind": kind, "text": text, "attributes": attributes})
        with self._lock:
            self.held.append(made)
            if self._path is not None:
                self._waiting.append(made)
            if len(self._waiting) > self._most:
                self._waiting.popleft()
                self.unwritten += 1
        return made

    def write(self) -> None:
        """Write what was noted. Blocks for the file."""
        with self._file_lock:
            while True:
                with self._lock:
                    if not self._waiting:
                        return
                    made = self._waiting.popleft()
                    held = list(self.held) if self._lines >= 2 * self._most else None
                self._write(made, held)

    def between(self, start: float, end: float, kind: str = "") -> list[Marker]:
        """In the order of time."""
        with self._lock:
            held = list(self.held)
        found = [one for one in held if start <= one.at <= end and kind in {"", one.kind}]
        return sorted(found, key=lambda one: one.at)

    def _write(self, made: Marker, held: Sequence[Marker] | None) -> None:
        """`held`: what the file is to hold from now on."""
        if self._path is None:
            return
        try:
            if held is not None:
                part = self._path.with_suffix(".part")
                with part.open("w") as file:
                    file.writelines(_line(one) for one in held)
                part.replace(self._path)
                with self._lock:
                    # Those noted before `held` was taken are in it.
                    there = {id(one) for one in held}
                    self._waiting = deque(one for one in self._waiting if id(one) not in there)
                self._lines = len(held)
                return
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(self._lead + _line(made))
            self._lead = ""
            self._lines += 1
        except OSError:
            with self._lock:
                self.unwritten += 1


def marker(said: Mapping[str, Any]) -> Marker:
    attributes = said.get("attributes") or {}
    return Marker(
        at=float(said["at"]),
        kind=str(said["kind"])[:64],
        text=str(said["text"])[:_MAX_TEXT],
        attributes={
            str(name)[:64]: str(value)[:_MAX_TEXT]
            for name, value in list(attributes.items())[:_MAX_ATTRIBUTES]
        },
    )


def _line(made: Marker) -> str:
    return json.dumps(asdict(made)) + "\n"

"""Server-Sent Events, read and written (HTML standard, section 9.2). Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Heard", "Reader", "encode"]

LINE_MAX: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Heard:
    """One event of a stream."""

    kind: str
    data: str
    id: str


class Reader:
    """Text in pieces as it comes, events out.

    A line that never ends is cut off at a megabyte: a stream of another kind must not fill the
    memory of whoever reads it.
    """

    def __init__(self) -> None:
        self._rest = ""
        self._kind = ""
        self._data: list[str] = []
        self._id = ""

    def feed(self, piece: str) -> list[Heard]:
        found: list[Heard] = []
        lines = (self._rest + piece).replace("\r\n", "\n").split("\n")
        self._rest = lines.pop()[-LINE_MAX:]
        for line in lines:
            if line:
                self._take(line)
            elif self._data:
                found.append(Heard(self._kind or "message", "\n".join(self._data), self._id))
                self._kind, self._data = "", []
            else:
                self._kind = ""
        return found

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._kind = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value


def encode(kind: str, data: Any, id_: str = "") -> bytes:
    """`data` goes as JSON, which has no end of line in it."""
    said = json.dumps(data, separators=(",", ":"), allow_nan=False)
    head = f"id: {id_}\n" if id_ else ""
    return f"{head}event: {kind}\ndata: {said}\n\n".encode()

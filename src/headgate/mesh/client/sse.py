"""Reading a stream of Server-Sent Events, piece by piece.

Theory of operation. As the HTML standard has it (9.2.6): lines end with LF, CR or CRLF, an empty
line ends an event, a line that begins with a colon is a comment, `id` stays in force until another
one comes. Bytes go in as they arrive, whole events come out; what is left over waits for the next
piece. A line or an event that grows beyond `most` bytes is no event of ours: ValueError.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["Event", "EventReader"]

MOST: Final = 64 * 1024 * 1024
"""A registry of 20,000 instances, told whole, has some ten megabytes."""


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    data: str
    id: str
    """The last one that was said, with this event or before it."""


class EventReader:
    __slots__ = ("_buffer", "_data", "_id", "_most", "_name", "_size", "_skips_lf")

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._buffer = bytearray()
        self._skips_lf = False
        """The last line ended with a CR, and a LF right behind it belongs to it."""
        self._name = ""
        self._data: list[str] = []
        self._size = 0
        self._id = ""

    def feed(self, piece: bytes) -> list[Event]:
        """The events that are complete with this piece."""
        if self._skips_lf and piece:
            self._skips_lf = False
            if piece[0] == 0x0A:
                piece = piece[1:]
        buffer = self._buffer
        buffer += piece
        if b"\n" not in piece and b"\r" not in piece:
            self._check(len(buffer))
            return []
        text = bytes(buffer)
        lines = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._skips_lf = text.endswith(b"\r")
        buffer.clear()
        buffer += lines.pop()
        self._check(len(buffer))
        found: list[Event] = []
        for line in lines:
            event = self._line(line)
            if event is not None:
                found.append(event)
        return found

    def _line(self, line: bytes) -> Event | None:
        if not line:
            return self._end()
        name, _, value = line.partition(b":")
        if not name:
            return None  # a comment: whoever reads knows that somebody is there
        text = value.removeprefix(b" ").decode("utf-8", "replace")
        match name:
            case b"event":
                self._name = text
            case b"data":
                self._size += len(value)
                self._check(self._size)
                self._data.append(text)
            case b"id":
                if "\0" not in text:
                    self._id = text
            case _:
                pass  # `retry`, or what a newer server says
        return None

    def _end(self) -> Event | None:
        name, data = self._name or "message", self._data
        self._name, self._data, self._size = "", [], 0
        return Event(name, "\n".join(data), self._id) if data else None

    def _check(self, size: int) -> None:
        if size > self._most:
            raise ValueError(f"an event of more than {self._most} bytes")

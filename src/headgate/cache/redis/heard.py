"""What has been heard of the invalidations told in Redis, and whether something was missed.

Theory of operation. The clock reads "<clock> <said> <epoch>": the latest stamp given out, the stamp
of the latest invalidation, and who began the history. Each record of the stream names the one
before it. So whoever reads the clock knows whether all has been heard:

    same    nothing was said since
    behind  something was: read on
    lost    another history, or one that has forgotten what was heard of it: nothing held is safe

Records are taken in their order, each once. One that follows something never heard of is a gap.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, Literal

from headgate.cache.invalidation import Invalidation

__all__ = ["Heard", "read_clock", "read_record"]

_CLOCK_MAX: Final = 200

Clock = tuple[int, int, str]


def read_clock(text: object) -> Clock | None:
    """None for what is none of ours."""
    if not isinstance(text, bytes) or len(text) > _CLOCK_MAX:
        return None
    parts = text.split(b" ")
    if len(parts) != 3 or not (parts[0].isdigit() and parts[1].isdigit() and parts[2]):
        return None
    return int(parts[0]), int(parts[1]), parts[2].decode("ascii", "replace")


def read_record(record: Any) -> tuple[Invalidation, int, bytes] | None:
    """An invalidation, the stamp of the one before it, and who said it; None for what is none of
    ours.
    """
    try:
        name, fields = record
        stamp = int(name.partition(b"-")[0])
        said = {fields[i]: fields[i + 1] for i in range(0, len(fields), 2)}
        before = int(said[b"p"])
        invalidation = Invalidation.from_json(json.loads(said[b"i"]))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return None
    return invalidation.at(stamp), before, said.get(b"o", b"")


class Heard:
    """How far one process has come."""

    __slots__ = ("clock", "epoch", "said", "text")

    def __init__(self) -> None:
        self.clock = 0
        self.said = 0
        self.epoch = ""
        self.text: bytes | None = None
        """What the clock must read for nothing to be new."""

    def judge(self, text: object, said: int) -> Literal["same", "behind", "lost"]:
        """`said`: how far this process had come when it asked. News on the other connection may
        have overtaken the answer; only one that knows less than the asker did has forgotten.
        """
        if self.text is not None and text == self.text:
            return "same"
        read = read_clock(text)
        if read is None or read[2] != self.epoch or read[1] < said:
            return "lost"
        if read[1] > self.said:
            return "behind"
        if read[0] >= self.clock:  # else an older reading that comes late
            self.clock, self.text = read[0], text if isinstance(text, bytes) else None
        return "same"

    def follow(self, clock: Clock) -> None:
        """Begin with this history, here."""
        self.clock, self.said, self.epoch = clock
        self.text = None

    def take(self, records: Sequence[Any]) -> tuple[list[tuple[Invalidation, bytes]], bool]:
        """What is new with who said it, in order, and whether something before it was missed."""
        new: list[tuple[Invalidation, bytes]] = []
        for record in records:
            read = read_record(record)
            if read is None:
                return new, True  # something was said, and nobody can know what
            invalidation, before, who = read
            if invalidation.stamp <= self.said:
                continue
            if before > self.said:
                return new, True
            self.said = invalidation.stamp
            self.clock = max(self.clock, self.said)
            new.append((invalidation, who))
        return new, False

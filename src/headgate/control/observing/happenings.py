"""What has happened lately, numbered, in a bounded ring: for those who look, and for those who come
back and ask what they have missed. Pure.

Theory of operation
-------------------
An event's id is `<epoch>-<number>`; the epoch is that of the control process, so an id of an
earlier one is known to be foreign. Who asks for what came after an id that is foreign, or that the
ring has let go, gets all there is and is told that there is a gap.

Workers see the same thing each for themselves (a breaker opens in both), and tell it each: what is
told in the same words again within `SAME_S` is one event that counts its tellers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["Happened", "Happenings", "Missed"]

KEPT: Final = 1000
SAME_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Happened:
    id: str
    at: float
    """Wall time, in seconds."""
    kind: str
    """health, breaker, ejection, reload, worker, ban, order, alert ..."""
    text: str
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {**self.attributes, "at": self.at, "kind": self.kind, "text": self.text}


@dataclass(frozen=True, slots=True)
class Missed:
    """What came after an id."""

    events: tuple[Happened, ...]
    has_gap: bool


class Happenings:
    def __init__(self, epoch: str, most: int = KEPT) -> None:
        self._epoch = epoch
        self._ring: deque[Happened] = deque(maxlen=most)
        self._number = 0
        self._lately: dict[tuple[str, str], float] = {}

    def tell(
        self, at: float, kind: str, text: str, attributes: Mapping[str, Any] | None = None
    ) -> Happened | None:
        """Note an event; None where it has just been told."""
        said = self._lately.get((kind, text))
        if said is not None and abs(at - said) < SAME_S:
            return None
        if len(self._lately) >= KEPT:
            self._lately = {
                same: then for same, then in self._lately.items() if abs(at - then) < SAME_S
            }
        if len(self._lately) < KEPT:
            self._lately[kind, text] = at
        self._number += 1
        made = Happened(f"{self._epoch}-{self._number}", at, kind, text, attributes or {})
        self._ring.append(made)
        return made

    def after(self, id_: str) -> Missed:
        """What came after this event; everything for ""."""
        if not id_:
            return Missed(tuple(self._ring), has_gap=False)
        epoch, _, text = id_.rpartition("-")
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else -1
        first = self._number - len(self._ring) + 1
        if epoch != self._epoch or not first - 1 <= number <= self._number:
            return Missed(tuple(self._ring), has_gap=True)
        return Missed(tuple(self._ring)[number - first + 1 :], has_gap=False)

    def __len__(self) -> int:
        return len(self._ring)

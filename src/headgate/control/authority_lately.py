"""What the mesh's authority has issued lately, and refused: for lists and figures, in bounds.

The audit log has all of it; this is what one process remembers.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from headgate.mesh.identity.authority import Issued
    from headgate.observe import Rows

__all__ = ["IssuedLately", "Seen"]

SEEN_MAX: Final = 5000


@dataclass(frozen=True, slots=True)
class Seen:
    """The last certificate of one line."""

    service: str
    joining: str
    serial: str
    how: str
    """`join`, `renew` or `own`."""
    at: float
    ends: float
    origin: str
    count: int = 1
    """How many this line had since control started."""


class IssuedLately:
    def __init__(self) -> None:
        self._lines: OrderedDict[str, Seen] = OrderedDict()
        self._issued: Counter[tuple[str, str]] = Counter()
        self.refused: Counter[str] = Counter()

    def note(self, issued: Issued, how: str, origin: str, wall: float) -> None:
        service = issued.id.service
        self._issued[service, how] += 1
        before = self._lines.pop(issued.joining, None)
        self._lines[issued.joining] = Seen(
            service,
            issued.joining,
            issued.serial,
            how,
            wall,
            issued.ends,
            origin,
            before.count + 1 if before is not None else 1,
        )
        while len(self._lines) > SEEN_MAX:
            self._lines.popitem(last=False)

    def line_of(self, serial: str) -> Seen | None:
        """The line whose last certificate has this serial number."""
        return next((each for each in self._lines.values() if each.serial == serial), None)

    def good(self, wall: float) -> list[Seen]:
        """Lines whose last certificate is good, by service."""
        found = [each for each in self._lines.values() if each.ends > wall]
        return sorted(found, key=lambda each: (each.service, each.at))

    def rows_into(self, rows: Rows) -> None:
        for (service, how), count in self._issued.items():
            rows["headgate_mesh_certificates_issued_total"].append(([service, how], count))
        for why, count in self.refused.items():
            rows["headgate_mesh_certificates_refused_total"].append(([why], count))

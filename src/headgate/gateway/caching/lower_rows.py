"""What a worker says of the layer below its memory, as samples for metrics.

Counts go on over a reload that puts another layer of the same kind in its place: a counter that
fell back would be taken for a new process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from headgate.gateway.caching.lower import LowerSnapshot
    from headgate.observe import Rows

__all__ = ["LowerCounts"]

_KINDS: Final = ("disk", "redis")
_COUNTED: Final = (
    ("reads", "hit", "hits"),
    ("reads", "miss", "misses"),
    ("writes", "written", "writes"),
    ("writes", "dropped", "dropped"),
    ("drops", "evicted", "evictions"),
    ("drops", "struck", "struck"),
    ("drops", "spoilt", "spoilt"),
    ("failures", "", "failures"),
)
"""The family, the label, and where in the snapshot it stands."""


class LowerCounts:
    def __init__(self) -> None:
        self._before: dict[tuple[str, str], int] = {}

    def note_end(self, said: LowerSnapshot) -> None:
        """It has been closed."""
        for _, _, name in _COUNTED:
            place = (said.kind, name)
            self._before[place] = self._before.get(place, 0) + getattr(said, name)

    def rows_into(self, rows: Rows, said: LowerSnapshot | None) -> None:
        for kind in _KINDS:
            is_there = said is not None and said.kind == kind
            if not (is_there or any(of == kind for of, _ in self._before)):
                continue
            for family, label, name in _COUNTED:
                count = self._before.get((kind, name), 0)
                if is_there:
                    count += getattr(said, name)
                labels = [kind, label] if label else [kind]
                rows[f"headgate_cache_lower_{family}_total"].append((labels, count))
        if said is None:
            return
        rows["headgate_cache_lower_away"].append(([said.kind], int(said.is_away)))
        rows["headgate_cache_lower_queued"].append(([said.kind], said.queued))
        for name in ("bytes", "bytes_max"):
            if (size := getattr(said, name)) >= 0:  # else it is not ours to know
                rows[f"headgate_cache_lower_{name}"].append(([said.kind], size))

"""Which layer is under a worker's memory of responses: as plans say, opened and closed; and its
figures.

Theory of operation. A layer outlives reloads that say the same of it. One that a reload replaces is
closed first, which writes what is queued; until the next one is open, what memory has not is asked
of the service. A directory that a reload takes out of use hears of no invalidation from then on, so
what is in it is thrown away: were it taken into use again, it would serve what was purged since.

Counts go on over a reload that puts another layer of the same kind in its place: a counter that
fell back would be taken for a new process.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from headgate.gateway.caching.disk import DiskStore
from headgate.gateway.caching.redis import open_redis

if TYPE_CHECKING:
    from pathlib import Path

    from headgate.gateway.caching.lower import LowerSnapshot, LowerStore
    from headgate.gateway.caching.store import ResponseStore
    from headgate.observe import Rows
    from headgate.plan.caching import StorePlan

__all__ = ["LowerLife"]

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

_Place = tuple["Path | None", int, "str | None"]


class LowerLife:
    def __init__(self) -> None:
        self._place: _Place = (None, 0, None)
        self._before: dict[str, Counter[str]] = {}
        """What layers that have been closed had counted, by their kind."""

    async def take(self, plan: StorePlan | None, state_dir: Path, store: ResponseStore) -> None:
        """Have under the store what the plan says."""
        place = _place_of(plan, state_dir)
        if place == self._place:
            return
        self._place, before = place, self._place
        lower = await self.close(store)
        path, bytes_max, url = place
        if isinstance(lower, DiskStore) and path != before[0]:
            await lower.discard()
        fresh: LowerStore | None = None
        if path is not None:
            fresh = DiskStore(path, bytes_max)
        elif url is not None:
            fresh = open_redis(url)
        if fresh is not None:
            await fresh.start(store.barriers)
            store.lower = fresh

    async def close(self, store: ResponseStore) -> LowerStore | None:
        """Let go of what is there; it is returned."""
        lower, store.lower = store.lower, None
        if lower is None:
            return None
        await lower.close()
        said = lower.snapshot()
        counts = self._before.setdefault(said.kind, Counter())
        counts.update({name: getattr(said, name) for _, _, name in _COUNTED})
        return lower

    def rows_into(self, rows: Rows, said: LowerSnapshot | None) -> None:
        for kind in sorted({*self._before, said.kind} if said is not None else self._before):
            before = self._before.get(kind, Counter())
            for family, label, name in _COUNTED:
                count = before[name]
                if said is not None and said.kind == kind:
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


def _place_of(plan: StorePlan | None, state_dir: Path) -> _Place:
    if plan is None:
        return None, 0, None
    if plan.disk is not None:
        return state_dir / plan.disk.path, plan.disk.bytes_max, None
    return None, 0, plan.redis

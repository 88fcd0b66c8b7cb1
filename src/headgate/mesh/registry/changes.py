"""The last changes, so that a watcher who was away for a moment gets what it missed.

Theory of operation. Revisions grow; of the changes the last `kept` are held at least, and twice as
many at most. Whoever asks since a revision after which not everything is held gets None, and asks
for all: an answer that leaves something out would be believed. After a start that lost something,
nothing before it can be resumed, though the changes are still there for people.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from headgate.mesh.registry.model import Change

__all__ = ["Changes"]


class Changes:
    def __init__(self, kept: int) -> None:
        self._kept = max(1, kept)
        self._rows: list[Change] = []
        self._floor = 0
        """Everything after this revision is held."""

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, change: Change) -> None:
        rows = self._rows
        rows.append(change)
        if len(rows) >= 2 * self._kept:  # cut seldom, since a cut copies
            self._cut()

    def restore(self, rows: Iterable[Change], floor: int) -> None:
        """What an earlier run told; nothing before `floor` can be resumed."""
        self._rows = sorted(rows, key=_revision)
        self._floor = floor
        self._cut()

    def since(self, revision: int) -> list[Change] | None:
        if revision < self._floor:
            return None
        return self._rows[bisect_right(self._rows, revision, key=_revision) :]

    def after(self, revision: int) -> Sequence[Change]:
        """Those held of the ones after a revision, whether or not some are missing."""
        return self._rows[bisect_right(self._rows, revision, key=_revision) :]

    def latest(
        self,
        most: int,
        service: str | None = None,
        instance_id: str | None = None,
        before: int | None = None,
    ) -> list[Change]:
        """The newest first."""
        found: list[Change] = []
        for change in reversed(self._rows):
            if before is not None and change.revision >= before:
                continue
            if service is not None and change.instance.service != service:
                continue
            if instance_id is not None and change.instance.id != instance_id:
                continue
            if len(found) >= most:
                break
            found.append(change)
        return found

    def _cut(self) -> None:
        cut = len(self._rows) - self._kept
        if cut > 0:
            self._floor = max(self._floor, self._rows[cut - 1].revision)
            del self._rows[:cut]


def _revision(change: Change) -> int:
    return change.revision

"""The departments of the control process, and what they are told of it.

Theory of operation
-------------------
A department is one thing that control does beside serving the admin API: it keeps the history, the
traces, the logs; it judges alerts, budgets, checks. All of them live alike:

    made -> start -> take(config), again after each reload -> close

`take` gets a config that was checked before; one that cannot be taken up (a disk that is full, a
store that is spoilt) is a worry that health tells, and no reason to end: control goes on without
that department, and the others do not notice. A department that fails in `close` harms no other.

What departments read of control is in `Surroundings` and nowhere else, so that each can be tried
without a control process.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from headgate.config import Config
from headgate.observe import Merged, Rows

__all__ = ["Department", "Observing", "Surroundings"]

log = logging.getLogger("headgate.control")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a department may ask of the control process."""

    state_dir: Path
    """Its files live in a folder of its own here, named after it, closed to other users."""
    refresh: Callable[[], Awaitable[None]]
    """Ask every worker for its newest figures; those who ask at once share the answers."""
    merged: Callable[[], Merged]
    """All figures of all processes, as of the last refresh."""
    health: Callable[[], tuple[str, list[str]]]
    """ok, degraded or down, and why."""
    record: Callable[..., object]
    """`Auditing.record(action, actor, *, target=, origin=, outcome=, detail=)`."""


class Department(Protocol):
    name: str
    """One word: its folder, and how worries name it."""

    def start(self) -> None:
        """Begin. On the running loop."""

    def take(self, config: Config) -> None:
        """Take up what the file says; called at the start and after every reload."""

    async def close(self) -> None:
        """End: what is held in memory is written. Called once."""

    def worries(self) -> Iterable[str]:
        """Why all is not well here, for `/api/health`; empty as a rule."""

    def rows_into(self, rows: Rows) -> None:
        """Append figures of its own to control's snapshot, under names of `METRICS`."""


class Observing:
    """All departments of one control process, in the order in which they were made."""

    def __init__(self, departments: Sequence[Department]) -> None:
        self._departments = tuple(departments)
        self._failed: dict[str, str] = {}

    def start(self) -> None:
        for one in self._departments:
            self._try(one, "start", one.start)

    def take(self, config: Config) -> None:
        """Tell every department; the worry of one that could not take up the last file is gone."""
        for one in self._departments:
            self._try(one, "take", partial(one.take, config))

    async def close(self) -> None:
        for one in reversed(self._departments):
            try:
                await one.close()
            except Exception:
                log.exception("%s did not end in order", one.name)

    def worries(self) -> Iterable[str]:
        yield from (f"{name}: {why}" for name, why in self._failed.items())
        for one in self._departments:
            yield from _worries_of(one)

    def worries_by_name(self) -> dict[str, list[str]]:
        """The same, by department; empty for those that are well."""
        found = {one.name: _worries_of(one) for one in self._departments}
        for name, why in self._failed.items():
            found.setdefault(name, []).insert(0, why)
        return found

    def rows_into(self, rows: Rows) -> None:
        for one in self._departments:
            try:
                one.rows_into(rows)
            except Exception:
                log.exception("%s cannot say its figures", one.name)

    def _try(self, one: Department, what: str, act: Callable[[], Any]) -> None:
        try:
            act()
        except Exception as error:
            self._failed[one.name] = f"cannot {what}: {error}"
            log.exception("%s cannot %s", one.name, what)
        else:
            self._failed.pop(one.name, None)


def _worries_of(one: Department) -> list[str]:
    """Health has to answer, whatever a department does."""
    try:
        return list(one.worries())
    except Exception as error:
        log.exception("%s cannot say what worries it", one.name)
        return [f"{one.name}: cannot say what worries it: {error}"]

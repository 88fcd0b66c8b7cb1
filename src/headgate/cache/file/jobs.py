"""What goes between the loop and the thread: jobs there, their answers and the news back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headgate.cache.invalidation import Invalidation
from headgate.cache.layer import LayerAway

if TYPE_CHECKING:
    from headgate.cache.file.store import Store

__all__ = ["Job", "News", "fail"]


@dataclass(slots=True)
class Job:
    """Something to be done within a transaction. `answer` is its outcome, or an exception; an
    Invalidation is one that was published.
    """

    run: Callable[[Store], Any]
    is_write: bool
    future: Any = None
    """Of the loop that asked."""
    timer: Any = None
    asked_at: float = 0.0
    is_lasting: bool = False
    """It must not be undone when the machine fails (`database` says how)."""
    undo: Callable[[Any], None] | None = None
    """For an answer that nobody waits for any more."""
    answer: Any = None
    is_failed: bool = False


@dataclass(slots=True)
class News:
    heard: list[Invalidation]
    """Said by others."""
    own: list[Invalidation]
    stamp: int
    floor: int
    is_gap: bool


def fail(jobs: Iterable[Job], why: str) -> None:
    for job in jobs:
        job.answer, job.is_failed = LayerAway(why), True

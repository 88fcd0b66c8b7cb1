"""Queues: how deep, how far behind, what was processed and how long it took.

jobs = QueueMeter("mail", depth=queue.qsize)
with jobs.processing(enqueued_wall=job.at):
    ...
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from headgate.observe.meters.registry import REGISTRY, Registry

__all__ = ["QueueMeter"]


class QueueMeter:
    """The figures of one queue."""

    def __init__(
        self,
        name: str,
        *,
        depth: Callable[[], float] | None = None,
        registry: Registry = REGISTRY,
    ) -> None:
        labels = ("queue",)
        # With several processes on one queue each sees the whole of it.
        self.depth = registry.gauge("queue_depth", "Items that wait.", labels, merge="max").labels(
            name
        )
        """To be set, unless a function answers it."""
        if depth is not None:
            self.depth.ask(depth)
        self._in_work = registry.gauge(
            "queue_in_progress", "Items being processed.", labels
        ).labels(name)
        self._lag = registry.timer(
            "queue_lag_seconds", "How long items waited before they were begun.", labels
        ).labels(name)
        self._took = registry.timer(
            "queue_processing_seconds", "How long items took, waiting aside.", labels
        ).labels(name)
        self._added = registry.counter("queue_added", "Items put in.", labels).labels(name)
        self._done = registry.counter(
            "queue_processed", "Items done, by what came of them.", ("queue", "result")
        )
        self._name = name

    def added(self, count: int = 1) -> None:
        self._added.inc(count)

    def lag(self, waited_s: float) -> None:
        """Note how long an item has waited."""
        self._lag.observe(max(0.0, waited_s))

    def processed(self, result: str = "ok", took_s: float | None = None) -> None:
        """Note an item that is done."""
        self._done.add(1, self._name, result)
        if took_s is not None:
            self._took.observe(took_s)

    @contextmanager
    def processing(self, enqueued_wall: float | None = None) -> Iterator[None]:
        """Around the work on an item; `enqueued_wall` is when it was put in, since 1970."""
        if enqueued_wall is not None:
            self.lag(time.time() - enqueued_wall)  # noqa: TID251 - another process set it
        since = time.perf_counter()
        self._in_work.inc()
        result = "failed"
        try:
            yield
            result = "ok"
        except Exception:
            raise
        except BaseException:
            result = "cancelled"
            raise
        finally:
            self._in_work.dec()
            self.processed(result, time.perf_counter() - since)

"""A check of a queue: how far behind it is, and how deep."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from headgate.observe.health.outcome import Bounds, Outcome, ok, worst
from headgate.units import parse_duration, rough_duration

__all__ = ["queue_lag"]


def queue_lag(
    queue: Any,
    *,
    warn: str | float | None = "1min",
    fail: str | float | None = "10min",
    warn_depth: float | None = None,
    fail_depth: float | None = None,
) -> Callable[[], Any]:
    """How long items wait: a function, sync or async, that answers seconds; or a `QueueMeter`, of
    which it is the mean of the items begun since the last check, and its depth.
    """
    lags = Bounds(
        None if warn is None else parse_duration(warn),
        None if fail is None else parse_duration(fail),
    )
    depths = Bounds(warn_depth, fail_depth)

    def lag(seconds: float) -> Outcome:
        status = lags.judge(seconds)
        why = "" if status == "ok" else f"items wait for {rough_duration(seconds)}"
        return Outcome(status, why, round(seconds, 3), "s")

    if inspect.iscoroutinefunction(queue):

        async def ask_later() -> Outcome:
            return lag(float(await queue()))

        return ask_later
    if hasattr(queue, "depth") and hasattr(queue, "lag"):
        return _of_meter(queue, lag, depths)

    def ask() -> Outcome:
        return lag(float(queue()))

    return ask


def _of_meter(meter: Any, lag: Callable[[float], Outcome], depths: Bounds) -> Callable[[], Outcome]:
    waits = meter._lag  # noqa: SLF001 - the same product's
    sketch = waits.sketch()
    before = [sketch.sum, sketch.count]

    def ask() -> Outcome:
        found = waits.sketch()
        seconds, items = found.sum - before[0], found.count - before[1]
        before[:] = [found.sum, found.count]
        deep = float(meter.depth.read())
        status = depths.judge(deep)
        words = "" if status == "ok" else f"{deep:g} items wait"
        behind = lag(max(0.0, seconds) / items) if items > 0 else ok()
        return worst([behind, Outcome(status, words, deep, "items")])

    return ask

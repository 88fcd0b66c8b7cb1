"""A rule over the past, step by step, from the history. Blocks: called on a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from headgate.control.observing.alerts_watching import Ask
from headgate.errors import HeadgateError
from headgate.observe.alerts.judging import SampleLike
from headgate.observe.alerts.replaying import Replay, replay
from headgate.observe.alerts.routing import Routing
from headgate.observe.alerts.rules import Rule

__all__ = ["AskRange", "replay_rule"]

AskRange = Callable[[Any, float, float, float], Sequence[Any]]
"""(parsed expression, start, end, step) -> series with labels, times and values. Blocks."""

_MOST_STEPS: Final = 130_000
_STEPS_AT_ONCE: Final = 5000


def replay_rule(
    rule: Rule,
    expr: Any,
    ask: Ask,
    ask_range: AskRange | None,
    *,
    end: float,
    since_s: float,
    step_s: float | None,
    routing: Routing,
    is_over: Callable[[], bool],
) -> Replay:
    start = end - since_s
    step = max(step_s if step_s is not None else rule.every_s, since_s / _MOST_STEPS, 0.1)

    def steps() -> Iterable[tuple[float, Sequence[SampleLike] | str]]:
        count = int(since_s / step) + 1
        for first in range(0, count, _STEPS_AT_ONCE):
            places = range(first, min(first + _STEPS_AT_ONCE, count))
            yield from _answers(ask, ask_range, expr, start, step, places)

    return replay(
        rule, steps(), start=start, end=end, step_s=step, routing=routing, is_over=is_over
    )


def _answers(
    ask: Ask, ask_range: AskRange | None, expr: Any, start: float, step: float, places: range
) -> Iterable[tuple[float, Sequence[SampleLike] | str]]:
    """What the expression answers at each of these places."""
    times = [start + place * step for place in places]
    if ask_range is None:
        for at in times:
            try:
                yield at, ask(expr, at)
            except HeadgateError as error:
                yield at, str(error)
        return
    by_place: dict[int, list[SampleLike]] = {}
    try:
        for series in ask_range(expr, times[0], times[-1], step):
            for at, value in zip(series.times.tolist(), series.values.tolist(), strict=True):
                place = round((at - times[0]) / step)
                by_place.setdefault(place, []).append(_Answered(series.labels, value))
    except HeadgateError as error:
        yield from ((at, str(error)) for at in times)
        return
    for place, at in enumerate(times):
        yield at, by_place.get(place, ())


@dataclass(frozen=True, slots=True)
class _Answered:
    labels: Mapping[str, str]
    value: float

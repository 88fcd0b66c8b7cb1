"""A rule held against the past: when it would have fired, for how long, and how often told.

Theory of operation. The same `Judge` and `Telling` that work on the present are fed with the
answers of the past, step by step, so that the replay can say nothing else than what would have
been. It begins with nothing pending: a rule that held before the first step fires `for` later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from headgate.observe.alerts.alert import finite
from headgate.observe.alerts.judging import Judge, SampleLike
from headgate.observe.alerts.routing import Node, Routing
from headgate.observe.alerts.rules import RANK, Level, Rule
from headgate.observe.alerts.telling import Telling

__all__ = ["Firing", "Replay", "replay"]


@dataclass(frozen=True, slots=True)
class Firing:
    labels: tuple[tuple[str, str], ...]
    level: Level
    """The highest it had."""
    since: float
    fired_at: float
    ended_at: float | None
    """None: it fires at the end of the replay."""
    peak: float
    was_flapping: bool


@dataclass(frozen=True, slots=True)
class Replay:
    rule: str
    start: float
    end: float
    step_s: float
    firings: tuple[Firing, ...]
    firing_s: float
    """Time during which at least one alert fired."""
    notifications: int
    evaluations: int
    errors: int
    error: str
    times: tuple[float, ...]
    values: tuple[float | None, ...]
    """The worst value at each time, thinned out for a plot."""

    def to_json(self) -> dict[str, Any]:
        return {
            "rule": self.rule,
            "start": self.start,
            "end": self.end,
            "step_s": self.step_s,
            "firing_s": round(self.firing_s, 3),
            "notifications": self.notifications,
            "evaluations": self.evaluations,
            "errors": self.errors,
            "error": self.error,
            "firings": [
                {
                    "labels": dict(each.labels),
                    "level": each.level,
                    "since": each.since,
                    "fired_at": each.fired_at,
                    "ended_at": each.ended_at,
                    "peak": finite(each.peak),
                    "flapping": each.was_flapping,
                }
                for each in self.firings
            ],
            "plot": {"times": list(self.times), "values": list(self.values)},
        }


@dataclass(slots=True)
class _Open:
    labels: tuple[tuple[str, str], ...]
    level: Level
    since: float
    fired_at: float
    peak: float
    was_flapping: bool


def replay(
    rule: Rule,
    steps: Iterable[tuple[float, Sequence[SampleLike] | str]],
    *,
    start: float,
    end: float,
    step_s: float,
    routing: Routing | None = None,
    plot_points: int = 240,
    is_over: Callable[[], bool] = lambda: False,
) -> Replay:
    """`steps` are (time, answer of the expression, or why there is none), in order."""
    judge = Judge(rule)
    telling = Telling(routing if routing is not None else Routing(Node("root", "all")))
    opened: dict[str, _Open] = {}
    firings: list[Firing] = []
    firing_s, told, evaluations, errors, error = 0.0, 0, 0, 0, ""
    plot = _Plot(start, end, plot_points, is_above=rule.direction == "above")
    for at, answer in steps:
        if is_over():
            error = "the replay took too long and was cut short"
            errors += 1
            break
        evaluations += 1
        if isinstance(answer, str):
            judge.judge_failed(answer, at)
            errors += 1
            error = answer
        else:
            judge.judge(answer, at)
            for sample in answer:
                plot.add(at, sample.value)
        alerts = judge.alerts()
        firing = {each.id: each for each in alerts if each.state == "firing"}
        firing_s += step_s if firing else 0.0
        for ident, each in firing.items():
            one = opened.get(ident)
            if one is None:
                fired_at = each.fired_at if each.fired_at is not None else at
                opened[ident] = _Open(
                    each.labels, each.level, each.since, fired_at, each.value, each.is_flapping
                )
            else:
                one.was_flapping |= each.is_flapping
                if RANK[each.level] > RANK[one.level]:
                    one.level = each.level
                if rule.is_beyond(each.value, one.peak):
                    one.peak = each.value
        for ident in [ident for ident in opened if ident not in firing]:
            firings.append(_closed(opened.pop(ident), at))
        told += sum(each.kind != "acknowledged" for each in telling.turn(alerts, at))
    firings += [_closed(each, None) for each in opened.values()]
    firings.sort(key=lambda each: (each.fired_at, each.labels))
    times, values = plot.points()
    return Replay(
        rule=rule.name,
        start=start,
        end=end,
        step_s=step_s,
        firings=tuple(firings),
        firing_s=firing_s,
        notifications=told,
        evaluations=evaluations,
        errors=errors,
        error=error,
        times=times,
        values=values,
    )


def _closed(each: _Open, at: float | None) -> Firing:
    return Firing(
        each.labels, each.level, each.since, each.fired_at, at, each.peak, each.was_flapping
    )


class _Plot:
    """The worst value in each of so many stretches of time."""

    def __init__(self, start: float, end: float, points: int, *, is_above: bool) -> None:
        self._start = start
        self._width = max((end - start) / points, 1e-9)
        self._count = points
        self._worst: dict[int, float] = {}
        self._is_above = is_above

    def add(self, at: float, value: float) -> None:
        if math.isnan(value):
            return
        place = min(self._count - 1, max(0, int((at - self._start) / self._width)))
        known = self._worst.get(place)
        if known is None or (value > known) == self._is_above:
            self._worst[place] = value

    def points(self) -> tuple[tuple[float, ...], tuple[float | None, ...]]:
        times = tuple(self._start + place * self._width for place in range(self._count))
        values = tuple(
            finite(self._worst[place]) if place in self._worst else None
            for place in range(self._count)
        )
        return times, values

"""The part of the admin API about forecasts: what will be full, how many instances it takes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, Final, Protocol

from fastapi import APIRouter, Query

from headgate.control.admin.models import Answer
from headgate.control.admin.problem import MEDIA_TYPE, Problem
from headgate.control.observing.capacity import Capacity, Line, ServiceOutlook

__all__ = ["HasCapacity", "add_capacity"]

_PROBLEM = {MEDIA_TYPE: {"schema": {"type": "object"}}}
_ASKED: dict[int | str, dict[str, Any]] = {
    401: {"description": "The token is missing or wrong", "content": _PROBLEM},
    404: {"description": "There are no forecasts", "content": _PROBLEM},
}
_POINTS: Final = 240


class HasCapacity(Protocol):
    @property
    def capacity(self) -> Capacity: ...


class FullState(Answer):
    likely_s: float | None
    """Seconds from the beginning of the forecast; none: not within its reach."""
    soonest_s: float | None
    latest_s: float | None
    """With soonest the interval of 80 %."""


class ForecastPoints(Answer):
    times: list[float]
    middle: list[float]
    low80: list[float]
    high80: list[float]
    low95: list[float]
    high95: list[float]


class CapacityLine(Answer):
    resource: str
    name: str
    unit: str
    now: float | None
    limit: float | None
    why: str
    """Why there is no forecast; empty where there is."""
    full: FullState | None
    reach_s: float
    """How far the forecast reaches."""
    peak: float | None
    """The busiest hour that is forecast, its middle."""
    peak_high80: float | None
    per_day: float | None
    season: str
    trend: str
    error: float | None
    """The median error a day ahead, in the past, as a share of the usual."""
    shifted_at: float | None
    """When the series was moved at once."""
    past: list[tuple[float, float | None]]
    points: ForecastPoints | None


class CapacityService(Answer):
    service: str
    latency_s: float
    headroom: float
    spare: int
    instances: int
    """Fit to serve now."""
    per_instance: float | None
    """Requests a second that one instance can have within the latency."""
    is_limit_seen: bool
    """Whether durations did leave the target; else an instance can have more."""
    peak: float | None
    """Requests a second at the busiest hour, by the upper end of the 80 % interval."""
    wanted: int | None
    why: str
    curve: list[tuple[float, float]]
    """Requests a second for each instance, and what 95 % of them took."""


class CapacityOut(Answer):
    at: float
    took_ms: float
    lines: list[CapacityLine]
    services: list[CapacityService]


def add_capacity(router: APIRouter, control: HasCapacity) -> None:
    @router.get("/api/capacity", tags=["capacity"], responses=_ASKED)
    async def capacity(
        resource: Annotated[str, Query(max_length=40, description="Only these")] = "",
        points: Annotated[bool, Query(description="With the points of past and forecast")] = True,
    ) -> CapacityOut:
        """Forecasts with intervals, when something is full, how many instances services need."""
        found = control.capacity.outlook
        if found is None:
            raise Problem(404, "there are no forecasts: they are off, or not made yet")
        return CapacityOut(
            at=found.at,
            took_ms=found.took_ms,
            lines=[
                _line(line, points=points)
                for line in found.lines
                if resource in ("", line.resource)
            ],
            services=[_service(each) for each in found.services],
        )


def _line(line: Line, *, points: bool) -> CapacityLine:
    from headgate.observe.forecast.forecasting import Forecast

    made = line.forecast
    known = line.past.trimmed().values
    past: list[tuple[float, float | None]] = []
    if points:
        step = max(1, math.ceil(len(line.past.values) / _POINTS))
        pairs = zip(line.past.times.tolist(), line.past.values.tolist(), strict=True)
        past = [(at, _number(value)) for at, value in list(pairs)[::step]]
    common: dict[str, Any] = {
        "resource": line.resource,
        "name": line.name,
        "unit": line.unit,
        "now": _number(float(known[-1])) if len(known) else None,
        "limit": line.limit,
        "past": past,
    }
    if not isinstance(made, Forecast):
        return CapacityLine(
            **common, why=made.why, full=None, reach_s=0.0, peak=None, peak_high80=None,
            per_day=None, season="", trend="", error=None, shifted_at=None, points=None,
        )  # fmt: skip
    full = line.full
    return CapacityLine(
        **common,
        why="",
        full=None
        if full is None
        else FullState(likely_s=full.likely_s, soonest_s=full.soonest_s, latest_s=full.latest_s),
        reach_s=made.reach_s,
        peak=_number(float(made.middle.max())),
        peak_high80=_number(float(made.high80.max())),
        per_day=_number(made.per_day),
        season=made.way.season,
        trend=made.way.trend,
        error=_number(made.error),
        shifted_at=made.shifted_at,
        points=_points(made) if points else None,
    )


def _points(made: Any) -> ForecastPoints:
    step = max(1, math.ceil(len(made.middle) / _POINTS))

    def listed(values: Any) -> list[float]:
        return [float(f"{value:.6g}") for value in values[::step].tolist()]

    return ForecastPoints(
        times=made.times[::step].tolist(),
        middle=listed(made.middle),
        low80=listed(made.low80),
        high80=listed(made.high80),
        low95=listed(made.low95),
        high95=listed(made.high95),
    )


def _service(each: ServiceOutlook) -> CapacityService:
    return CapacityService(
        service=each.service,
        latency_s=each.target_s,
        headroom=each.headroom,
        spare=each.spare,
        instances=each.now,
        per_instance=each.knee.per_s if each.knee else None,
        is_limit_seen=bool(each.knee and each.knee.is_seen),
        peak=each.wanted.peak_per_s if each.wanted else None,
        wanted=each.wanted.instances if each.wanted else None,
        why=each.why,
        curve=_finite(each.knee.curve) if each.knee else [],
    )


def _finite(curve: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(rate, took) for rate, took in curve if math.isfinite(rate) and math.isfinite(took)]


def _number(value: float) -> float | None:
    return float(f"{value:.9g}") if math.isfinite(value) else None

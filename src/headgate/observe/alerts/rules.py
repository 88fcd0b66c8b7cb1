"""What an alert rule says: an expression, bounds for levels, and how long it takes to be believed.

Theory of operation
-------------------
A rule has one of two forms. With `thresholds` its expression is a figure for each label set, and
each level has a bound: `CPU 70/90 %` is one rule and one alert, whose level rises and falls.
Without, the expression holds a comparison, and each sample that it answers is an alert of `level`.

Either form is a Prometheus alert rule for each level (see `exporting`), judged in the same way: a
value is beyond a bound when it is strictly so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

__all__ = ["LEVELS", "RANK", "AlertDefaults", "Flapping", "Level", "Rule", "Threshold", "Unit"]

Level = Literal["info", "warning", "critical"]
LEVELS: Final[tuple[Level, ...]] = ("info", "warning", "critical")
RANK: Final[dict[str, int]] = {level: rank for rank, level in enumerate(LEVELS)}
Unit = Literal["", "percent", "seconds", "bytes"]


@dataclass(frozen=True, slots=True)
class AlertDefaults:
    """Defaults that the file's manual and the code share."""

    every_s: float = 5.0
    for_s: float = 60.0
    keep_firing_s: float = 0.0
    cooldown_s: float = 0.0
    most: int = 100
    group_wait_s: float = 30.0
    group_interval_s: float = 300.0
    repeat_interval_s: float = 14400.0
    escalate_after_s: float = 900.0
    timeout_s: float = 10.0
    give_up_after_s: float = 3600.0
    per_hour: int = 60
    evaluation_timeout_s: float = 2.0
    notifications_kept: int = 10_000
    heartbeat_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Flapping:
    """When an alert that comes and goes is one notice instead of many, as in Nagios: by the share
    of changes among the last `window` evaluations.
    """

    window: int = 20
    begins_at: float = 0.4
    ends_at: float = 0.2


@dataclass(frozen=True, slots=True)
class Threshold:
    level: Level
    bound: float
    clear: float
    """The level ends on the good side of this; equal to `bound` without hysteresis."""


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    expr: str
    thresholds: tuple[Threshold, ...] = ()
    """From the lowest level to the highest; empty when the expression compares."""
    direction: Literal["above", "below"] = "above"
    level: Level = "warning"
    for_s: float = 0.0
    keep_firing_s: float = 0.0
    cooldown_s: float = 0.0
    flapping: Flapping | None = field(default_factory=Flapping)
    labels: tuple[tuple[str, str], ...] = ()
    summary: str = ""
    description: str = ""
    runbook: str = ""
    unit: Unit = ""
    no_data: Literal["ok", "keep", "alert"] = "ok"
    on_error: Literal["keep", "alert"] = "keep"
    most: int = 100
    every_s: float = 5.0
    is_built_in: bool = False

    def is_beyond(self, value: float, bound: float) -> bool:
        """NaN is beyond nothing."""
        return value > bound if self.direction == "above" else value < bound

    @property
    def lowest(self) -> Level:
        return self.thresholds[0].level if self.thresholds else self.level

    def bound_of(self, level: Level) -> float | None:
        return next((each.bound for each in self.thresholds if each.level == level), None)

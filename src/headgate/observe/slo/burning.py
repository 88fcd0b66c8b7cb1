"""Alerts on the pace at which a budget is spent, over a long and a short window at once.

Theory of operation
-------------------
The long window says that it matters, the short one that it still goes on, so that an alert ends
soon after its cause. As in the SRE workbook: of a thirty-day budget, 2 % in an hour (14.4 times the
allowed pace) and 5 % in six hours (6 times) wake somebody; 10 % in a day (3 times) and 10 % in
three days (once) are a matter for the day. For another window the factors follow from the same
shares; those below 1 would fire while all is well and are left out. A factor that could never be
reached, because all requests being bad is less, is lowered to three quarters of that.

The rules compare `headgate_slo_burn_rate`, which knows of times that do not count, and demand a
least number of requests and of failures in the long window: three bad requests of a hundred at
night are no reason to wake somebody. The figures stand on `/metrics`, so each rule is also one for
a Prometheus.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from headgate.observe.alerts.rules import Flapping, Level, Rule
from headgate.observe.slo.rules import WINDOWS, Objective, Slo, share
from headgate.units import rough_duration

__all__ = ["PACES", "Pace", "paces_of", "rules_of"]


@dataclass(frozen=True, slots=True)
class Pace:
    name: str
    share: float
    """Of the budget."""
    long: str
    short: str
    level: Level
    for_s: float = 0.0

    def factor(self, window_s: float) -> float:
        return self.share * window_s / WINDOWS[self.long]


PACES: Final = (
    Pace("fast", 0.02, "1h", "5m", "critical", 60.0),
    Pace("steady", 0.05, "6h", "30m", "critical", 120.0),
    Pace("slow", 0.10, "1d", "2h", "warning", 300.0),
    Pace("drain", 0.10, "3d", "6h", "warning", 900.0),
)
_REACHABLE: Final = 0.75


def paces_of(objective: Objective, window_s: float) -> list[tuple[Pace, float]]:
    """Those that make sense, with their factors."""
    found: list[tuple[Pace, float]] = []
    most = _REACHABLE / objective.allowed
    for pace in PACES:
        factor = pace.factor(window_s)
        if WINDOWS[pace.long] > window_s or factor < 1.0 - 1e-9:
            continue
        found.append((pace, min(factor, most)))
    return found


def rules_of(slo: Slo) -> list[Rule]:
    """An alert rule for each pace of each objective."""
    if not slo.is_alerting:
        return []
    return [
        _rule(slo, objective, pace, factor)
        for objective in slo.objectives
        for pace, factor in paces_of(objective, slo.window_s)
    ]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _rule(slo: Slo, objective: Objective, pace: Pace, factor: float) -> Rule:
    def figure(name: str, window: str, more: str = "") -> str:
        said = f"slo={_quoted(slo.name)},objective={_quoted(objective.name)}"
        return f'{name}{{{said},window="{window}"{more}}}'

    bound = f"{round(factor, 4):g}"
    every, bad = ',result="all"', ',result="bad"'
    burn = "headgate_slo_burn_rate"
    events = "headgate_slo_window_events"
    expr = (
        f"{figure(burn, pace.long)} > {bound}"
        f" and ignoring (window) {figure(burn, pace.short)} > {bound}"
        f" and ignoring (result) {figure(events, pace.long, every)}"
        f" >= {slo.min_requests}"
        f" and ignoring (result) {figure(events, pace.long, bad)}"
        f" >= {slo.min_failures}"
    )
    target = share(objective.target)
    return Rule(
        name=f"slo-{slo.name}-{objective.name}-{pace.name}",
        expr=expr,
        level=pace.level,
        for_s=pace.for_s,
        keep_firing_s=120.0,
        flapping=Flapping(),
        labels=(*slo.labels, ("pace", pace.name)),
        summary=("{slo} ({objective}) spends its budget {value} times as fast as allowed"),
        description=(
            f"{objective.said or objective.name}, objective {target} over"
            f" {rough_duration(slo.window_s)}: more than {pace.share:.0%} of the budget in"
            f" {pace.long}, and still in the last {pace.short}. See headgate slo."
        )
        .replace("{", "{{")
        .replace("}", "}}"),
        every_s=15.0 if WINDOWS[pace.long] <= 21600 else 60.0,
        is_built_in=True,
    )

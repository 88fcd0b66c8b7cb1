"""How much of what was promised is kept."""

from __future__ import annotations

from typing import Final

from headgate.interop.grafana.common import ERRORS, GATE, GATEWAY, REQUESTS, ROUTE, ROUTED, TOOK
from headgate.interop.grafana.model import Board, Panel, Query, Row

__all__ = ["OBJECTIVES"]


_LEFT: Final = "headgate_slo_budget_left_ratio"
_NAMED: Final = "{{slo}} {{objective}}"


def _available(window: str) -> str:
    return (
        f"1 - sum by (route) (rate({REQUESTS}{{{ROUTED},{ERRORS}}}[{window}]))"
        f" / sum by (route) (rate({REQUESTS}{{{ROUTED}}}[{window}]))"
    )


def _in_time(window: str) -> str:
    return (
        f'sum by (route) (rate({TOOK}_bucket{{{ROUTED},le=~"1|1.0"}}[{window}]))'
        f" / sum by (route) (rate({TOOK}_count{{{ROUTED}}}[{window}]))"
    )


OBJECTIVES: Final = Board(
    "headgate-objectives",
    "Headgate / Objectives",
    "How much of what was promised is kept: the objectives of the file (`slos:`), and for every"
    " route answers without a fault and answers in time.",
    (
        Row(
            "Objectives of the file",
            (
                Panel(
                    "Left of the error budget",
                    (Query(f"min by (slo, objective) ({_LEFT}{{{GATE}}})", _NAMED),),
                    unit="percentunit",
                    draw="bargauge",
                    least=None,
                    most=1.0,
                    bounds=((0.0, "orange"), (0.25, "green")),
                    below="red",
                    text="1 is all of it, below 0 it is overspent.",
                ),
                Panel(
                    "The budget over time",
                    (Query(f"min by (slo, objective) ({_LEFT}{{{GATE}}})", _NAMED),),
                    unit="percentunit",
                    least=None,
                    most=1.0,
                ),
                Panel(
                    "Kept, and promised",
                    (
                        Query(
                            f"min by (slo, objective) (headgate_slo_good_ratio{{{GATE}}})",
                            f"{_NAMED}: kept",
                        ),
                        Query(
                            f"max by (slo, objective) (headgate_slo_target_ratio{{{GATE}}})",
                            f"{_NAMED}: promised",
                        ),
                    ),
                    unit="percentunit",
                    least=None,
                    most=1.0,
                ),
                Panel(
                    "Burn rate",
                    (
                        Query(
                            "max by (slo, objective, window) (headgate_slo_burn_rate"
                            f'{{{GATE},window=~"5m|1h|6h"}})',
                            f"{_NAMED} {{{{window}}}}",
                        ),
                    ),
                    bounds=((1.0, "orange"), (14.4, "red")),
                    width=16,
                    text="At 1 the budget lasts just as long as its window.",
                ),
                Panel(
                    "Events",
                    (
                        Query(
                            "max by (slo, objective, result) (headgate_slo_window_events"
                            f'{{{GATE},window="1h"}})',
                            f"{_NAMED} {{{{result}}}}",
                        ),
                    ),
                    text="In an hour.",
                ),
            ),
        ),
        Row(
            "Availability of every route",
            (
                Panel(
                    "Over the range",
                    (Query(_available("$__range"), "{{route}}"),),
                    unit="percentunit",
                    draw="bargauge",
                    most=1.0,
                    bounds=((0, "red"), (0.99, "orange"), (0.999, "green")),
                ),
                Panel(
                    "By the hour",
                    (Query(_available("1h"), "{{route}}"),),
                    unit="percentunit",
                    most=1.0,
                    least=None,
                    width=16,
                ),
                Panel(
                    "Burn rate of 99.9 %: fast",
                    (
                        Query(
                            f"(sum by (route) (rate({REQUESTS}{{{ROUTED},{ERRORS}}}[5m]))"
                            f" / sum by (route) (rate({REQUESTS}{{{ROUTED}}}[5m]))) / 0.001",
                            "{{route}}, 5 min",
                        ),
                        Query(
                            f"(sum by (route) (rate({REQUESTS}{{{ROUTED},{ERRORS}}}[1h]))"
                            f" / sum by (route) (rate({REQUESTS}{{{ROUTED}}}[1h]))) / 0.001",
                            "{{route}}, 1 h",
                        ),
                    ),
                    bounds=((14.4, "red"),),
                    width=12,
                    text="1 uses the budget of the month up in a month; 14.4 on both windows is"
                    " one fiftieth of it in an hour.",
                ),
                Panel(
                    "Burn rate of 99.9 %: slow",
                    (
                        Query(
                            f"(sum by (route) (rate({REQUESTS}{{{ROUTED},{ERRORS}}}[30m]))"
                            f" / sum by (route) (rate({REQUESTS}{{{ROUTED}}}[30m]))) / 0.001",
                            "{{route}}, 30 min",
                        ),
                        Query(
                            f"(sum by (route) (rate({REQUESTS}{{{ROUTED},{ERRORS}}}[6h]))"
                            f" / sum by (route) (rate({REQUESTS}{{{ROUTED}}}[6h]))) / 0.001",
                            "{{route}}, 6 h",
                        ),
                    ),
                    bounds=((6.0, "red"),),
                    width=12,
                ),
            ),
        ),
        Row(
            "In time, every route",
            (
                Panel(
                    "Within a second, over the range",
                    (Query(_in_time("$__range"), "{{route}}"),),
                    unit="percentunit",
                    draw="bargauge",
                    most=1.0,
                    bounds=((0, "red"), (0.9, "orange"), (0.95, "green")),
                ),
                Panel(
                    "Within a second, by the hour",
                    (Query(_in_time("1h"), "{{route}}"),),
                    unit="percentunit",
                    most=1.0,
                    least=None,
                    width=16,
                ),
            ),
        ),
    ),
    (GATEWAY, ROUTE),
    since="now-24h",
)

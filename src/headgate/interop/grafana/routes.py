"""Routes beside each other."""

from __future__ import annotations

from typing import Final

from headgate.interop.grafana.common import (
    EACH,
    ERRORS,
    FEW_ERRORS,
    GATEWAY,
    REQUESTS,
    ROUTE,
    ROUTED,
    SLOW,
    TOOK,
    TRACES,
    UPSTREAM,
    p95,
    quantiles,
    ratio,
)
from headgate.interop.grafana.model import Board, Panel, Query, Row

__all__ = ["ROUTES"]

ROUTES: Final = Board(
    "headgate-routes",
    "Headgate / Routes",
    "One route, or several beside each other: how much, how fast, what fails, what policies did.",
    (
        Row(
            "Requests",
            (
                Panel(
                    "By route",
                    (Query(f"sum by (route) (rate({REQUESTS}{{{ROUTED}}}{EACH}))", "{{route}}"),),
                    unit="reqps",
                    is_stacked=True,
                    width=12,
                ),
                Panel(
                    "By status and method",
                    (
                        Query(
                            f"sum by (code, method) (rate({REQUESTS}{{{ROUTED}}}{EACH}))",
                            "{{method}} {{code}}",
                        ),
                    ),
                    unit="reqps",
                    width=12,
                ),
                Panel(
                    "Errors",
                    (
                        Query(
                            ratio(
                                f"{REQUESTS}{{{ROUTED},{ERRORS}}}",
                                f"{REQUESTS}{{{ROUTED}}}",
                                "route",
                            ),
                            "{{route}}",
                        ),
                    ),
                    unit="percentunit",
                    width=12,
                    bounds=FEW_ERRORS,
                    links=TRACES,
                ),
                Panel(
                    "Given up by clients",
                    (
                        Query(
                            ratio(
                                f'{REQUESTS}{{{ROUTED},code="499"}}',
                                f"{REQUESTS}{{{ROUTED}}}",
                                "route",
                            ),
                            "{{route}}",
                        ),
                    ),
                    unit="percentunit",
                    width=12,
                ),
            ),
        ),
        Row(
            "Time",
            (
                Panel("All", quantiles(TOOK, ROUTED), unit="s", links=TRACES),
                Panel(
                    "95th percentile by route",
                    (p95(TOOK, ROUTED, "route"),),
                    unit="s",
                    bounds=SLOW,
                    links=TRACES,
                ),
                Panel(
                    "Ours: without the service",
                    (
                        Query(
                            f"sum by (route) (rate({TOOK}_sum{{{ROUTED}}}{EACH}))"
                            f" / sum by (route) (rate({TOOK}_count{{{ROUTED}}}{EACH}))"
                            f" - sum by (route) (rate({UPSTREAM}_sum{{{ROUTED}}}{EACH}))"
                            f" / sum by (route) (rate({UPSTREAM}_count{{{ROUTED}}}{EACH}))",
                            "{{route}}",
                        ),
                    ),
                    unit="s",
                    least=None,
                    text="The mean with the gateway less that of the service alone; answers from"
                    " the cache make it less than nothing.",
                ),
                Panel(
                    "How the times lie",
                    (
                        Query(
                            f"sum by (le) (rate({TOOK}_bucket{{{ROUTED}}}{EACH}))",
                            "{{le}}",
                            has_exemplars=True,
                        ),
                    ),
                    draw="heatmap",
                    width=24,
                    height=9,
                    least=None,
                    text="Points are examples; each leads to its trace.",
                ),
            ),
        ),
        Row(
            "Bodies and policies",
            (
                Panel(
                    "Bytes out",
                    (
                        Query(
                            "sum by (route)"
                            f" (rate(headgate_http_response_body_bytes_total{{{ROUTED}}}{EACH}))",
                            "{{route}}",
                        ),
                    ),
                    unit="Bps",
                ),
                Panel(
                    "What policies did",
                    (
                        Query(
                            "sum by (event) (rate(headgate_policy_events_total"
                            f"{{{ROUTED}}}{EACH}))",
                            "{{event}}",
                        ),
                    ),
                    unit="ops",
                ),
                Panel(
                    "Now",
                    (
                        Query(f"sum by (route) (rate({REQUESTS}{{{ROUTED}}}[5m]))", "req/s"),
                        Query(
                            "histogram_quantile(0.95,"
                            f" sum by (route, le) (rate({TOOK}_bucket{{{ROUTED}}}[5m])))",
                            "p95",
                        ),
                    ),
                    draw="table",
                ),
            ),
        ),
    ),
    (GATEWAY, ROUTE),
)

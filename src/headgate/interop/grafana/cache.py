"""The HTTP cache."""

from __future__ import annotations

from typing import Final

from headgate.interop.grafana.common import (
    ASKED,
    EACH,
    GATE,
    GATEWAY,
    HITS,
    ROUTED,
    ratio,
)
from headgate.interop.grafana.model import Board, Panel, Query, Row, Variable

__all__ = ["CACHE"]

CACHE: Final = Board(
    "headgate-cache",
    "Headgate / Cache",
    "What the gateway's HTTP cache saves, what it holds, and how disk and Redis below it do.",
    (
        Row(
            "Requests",
            (
                Panel(
                    "Hit rate",
                    (
                        Query(
                            ratio(
                                f"headgate_cache_total{{{ROUTED},{HITS}}}",
                                f"headgate_cache_total{{{ROUTED},{ASKED}}}",
                            )
                        ),
                    ),
                    unit="percentunit",
                    draw="gauge",
                    most=1.0,
                    width=6,
                ),
                Panel(
                    "Hit rate by route",
                    (
                        Query(
                            ratio(
                                f"headgate_cache_total{{{ROUTED},{HITS}}}",
                                f"headgate_cache_total{{{ROUTED},{ASKED}}}",
                                "route",
                            ),
                            "{{route}}",
                        ),
                    ),
                    unit="percentunit",
                    most=1.0,
                    width=9,
                ),
                Panel(
                    "Outcomes",
                    (
                        Query(
                            f"sum by (outcome) (rate(headgate_cache_total{{{ROUTED}}}{EACH}))",
                            "{{outcome}}",
                        ),
                    ),
                    unit="reqps",
                    is_stacked=True,
                    width=9,
                ),
            ),
        ),
        Row(
            "Memory",
            (
                Panel(
                    "Room",
                    (
                        Query(f"sum(headgate_cache_bytes{{{GATE}}})", "in use"),
                        Query(f"sum(headgate_cache_bytes_max{{{GATE}}})", "may be"),
                    ),
                    unit="bytes",
                ),
                Panel("Responses", (Query(f"sum(headgate_cache_responses{{{GATE}}})", "kept"),)),
                Panel(
                    "Gone for others, and under way",
                    (
                        Query(
                            f"sum(rate(headgate_cache_evictions_total{{{GATE}}}{EACH}))",
                            "evicted a second",
                        ),
                        Query(f"sum(headgate_cache_fills{{{GATE}}})", "fills under way"),
                    ),
                ),
            ),
        ),
        Row(
            "Disk and Redis",
            (
                Panel(
                    "Reads",
                    (
                        Query(
                            "sum by (layer, result)"
                            f" (rate(headgate_cache_lower_reads_total{{{GATE}}}{EACH}))",
                            "{{layer}} {{result}}",
                        ),
                    ),
                    unit="ops",
                ),
                Panel(
                    "Writes",
                    (
                        Query(
                            "sum by (layer, result)"
                            f" (rate(headgate_cache_lower_writes_total{{{GATE}}}{EACH}))",
                            "{{layer}} {{result}}",
                        ),
                    ),
                    unit="ops",
                ),
                Panel(
                    "Gone or refused",
                    (
                        Query(
                            "sum by (layer, reason)"
                            f" (rate(headgate_cache_lower_drops_total{{{GATE}}}{EACH}))",
                            "{{layer}} {{reason}}",
                        ),
                    ),
                    unit="ops",
                ),
                Panel(
                    "Failures",
                    (
                        Query(
                            "sum by (layer)"
                            f" (rate(headgate_cache_lower_failures_total{{{GATE}}}{EACH}))",
                            "{{layer}}",
                        ),
                    ),
                    unit="ops",
                ),
                Panel(
                    "Away and waiting",
                    (
                        Query(
                            f"sum by (layer) (headgate_cache_lower_away{{{GATE}}})",
                            "workers without {{layer}}",
                        ),
                        Query(
                            f"sum by (layer) (headgate_cache_lower_queued{{{GATE}}})",
                            "waiting for {{layer}}",
                        ),
                    ),
                ),
                Panel(
                    "Room on disk",
                    (
                        Query(
                            f"sum by (layer) (headgate_cache_lower_bytes{{{GATE}}})",
                            "{{layer}}",
                        ),
                        Query(
                            f"sum by (layer) (headgate_cache_lower_bytes_max{{{GATE}}})",
                            "{{layer}} may be",
                        ),
                    ),
                    unit="bytes",
                ),
            ),
        ),
    ),
    (GATEWAY, Variable("route", "Route", "headgate_cache_total", "route")),
)

"""What watches: traces and their examples, logs, history, alerts."""

from __future__ import annotations

from typing import Final

from headgate.interop.grafana.common import EACH, GATE, GATEWAY, TOOK, TRACES, quantiles
from headgate.interop.grafana.model import Board, Panel, Query, Row

__all__ = ["OBSERVING"]


def _rates(metric: str, by: str) -> tuple[Query, ...]:
    legend = " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(","))
    return (Query(f"sum by ({by}) (rate({metric}{{{GATE}}}{EACH}))", legend),)


OBSERVING: Final = Board(
    "headgate-observing",
    "Headgate / Traces, logs, history, alerts",
    "Whether what watches is well: what is kept, what is lost, what waits.",
    (
        Row(
            "Traces",
            (
                Panel(
                    "Requests by duration, with examples",
                    (
                        Query(
                            f"sum by (le) (rate({TOOK}_bucket{{{GATE}}}{EACH}))",
                            "{{le}}",
                            has_exemplars=True,
                        ),
                    ),
                    draw="heatmap",
                    width=16,
                    height=9,
                    least=None,
                    text="Each point is a request whose trace is kept; a click opens it.",
                ),
                Panel(
                    "The slowest, with examples",
                    quantiles(TOOK, GATE)[2:],
                    unit="s",
                    height=9,
                    links=TRACES,
                ),
                Panel("Kept, and why", _rates("headgate_traces_kept_total", "why"), unit="ops"),
                Panel(
                    "Spans that came in",
                    _rates("headgate_traces_spans_total", "outcome"),
                    unit="ops",
                ),
                Panel(
                    "Sent on",
                    _rates("headgate_traces_exported_total", "outcome"),
                    unit="ops",
                    text="To `tracing.export`.",
                ),
                Panel(
                    "Lost",
                    _rates("headgate_traces_dropped_total", "where"),
                    unit="ops",
                    width=12,
                    bounds=((0.001, "red"),),
                ),
                Panel(
                    "The store of traces",
                    (Query(f"sum(headgate_traces_store_bytes{{{GATE}}})", "size"),),
                    unit="bytes",
                    width=12,
                ),
            ),
        ),
        Row(
            "Logs",
            (
                Panel(
                    "Access log",
                    _rates("headgate_access_log_lines_total", "result"),
                    unit="ops",
                ),
                Panel(
                    "Lines of Headgate by sink",
                    _rates("headgate_logs_lines_total", "process, sink, result"),
                    unit="ops",
                ),
                Panel(
                    "Waiting for a sink",
                    (
                        Query(
                            f"sum by (process, sink) (headgate_logs_queued_bytes{{{GATE}}})",
                            "{{process}} {{sink}}",
                        ),
                    ),
                    unit="bytes",
                ),
                Panel(
                    "Offered to the store",
                    _rates("headgate_logs_stored_total", "source, result"),
                    unit="ops",
                ),
                Panel(
                    "Written into the store",
                    _rates("headgate_logs_store_total", "result"),
                    unit="ops",
                ),
                Panel(
                    "The store of lines",
                    (Query(f"sum(headgate_logs_store_bytes{{{GATE}}})", "size"),),
                    unit="bytes",
                ),
            ),
        ),
        Row(
            "History and alerts",
            (
                Panel(
                    "Series",
                    (Query(f"sum(headgate_history_series{{{GATE}}})", "series"),),
                    width=6,
                ),
                Panel(
                    "The history on disk",
                    (Query(f"sum(headgate_history_bytes{{{GATE}}})", "size"),),
                    unit="bytes",
                    width=6,
                ),
                Panel(
                    "Samples",
                    (
                        Query(
                            f"sum(rate(headgate_history_samples_total{{{GATE}}}{EACH}))",
                            "taken",
                        ),
                        Query(
                            f"sum by (what) (rate(headgate_history_dropped_total{{{GATE}}}{EACH}))",
                            "not taken: {{what}}",
                        ),
                    ),
                    unit="ops",
                    width=6,
                ),
                Panel(
                    "Asking services",
                    _rates("headgate_history_scrapes_total", "result"),
                    unit="ops",
                    width=6,
                ),
                Panel(
                    "Alerts",
                    (
                        Query(
                            f"sum by (rule, level) (headgate_alerts{{{GATE}}})",
                            "{{rule}} {{level}}",
                        ),
                    ),
                ),
                Panel(
                    "Rules judged",
                    _rates("headgate_alerts_evaluations_total", "result"),
                    unit="ops",
                ),
                Panel(
                    "Notifications",
                    _rates("headgate_alerts_notifications_total", "receiver, outcome"),
                    unit="ops",
                ),
            ),
        ),
    ),
    (GATEWAY,),
)

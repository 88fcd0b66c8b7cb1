"""What is seen from outside: counts and durations, kept without locks in each worker, added up
over all of them, and shown as Prometheus text or as a summary.

    stats = WorkerStats("worker-0", start=uuid)      # in a worker
    route = stats.route("api", "users")              # when the plan is built
    route.record("GET", 200, 0.012, 0.011, 0, 512)   # once a request

    carried = Carried()                              # in the control process
    carried.take(stats.snapshot())
    text = to_prometheus(carried.merged())
"""

from __future__ import annotations

from headgate.observe.exposition import CONTENT_TYPE, to_prometheus
from headgate.observe.merge import Carried, Merged, merge
from headgate.observe.metrics import METRICS, Metric
from headgate.observe.process import ProcessWatch
from headgate.observe.shard import (
    Counts,
    InstanceStats,
    ListenerStats,
    LogStats,
    RouteStats,
    Rows,
    WorkerStats,
    new_rows,
)
from headgate.observe.summary import Latency, RouteSummary, summarise

__all__ = [
    "CONTENT_TYPE",
    "METRICS",
    "Carried",
    "Counts",
    "InstanceStats",
    "Latency",
    "ListenerStats",
    "LogStats",
    "Merged",
    "Metric",
    "ProcessWatch",
    "RouteStats",
    "RouteSummary",
    "Rows",
    "WorkerStats",
    "merge",
    "new_rows",
    "summarise",
    "to_prometheus",
]

"""What is seen from outside.

Metrics of a service (`meters`):

    orders = observe.REGISTRY.counter("orders", "Orders placed", ("tier",))
    orders.add(1, "gold")
    app.add_middleware(observe.MetricsMiddleware)
    app.add_route("/metrics", observe.metrics_app())

And those of the gateway: counts and durations, kept without locks in each worker, added up over all
of them, and shown as Prometheus text or as a summary:

    stats = WorkerStats("worker-0", start=uuid)      # in a worker
    route = stats.route("api", "users")              # when the plan is built
    route.record("GET", 200, 0.012, 0.011, 0, 512)   # once a request

    carried = Carried()                              # in the control process
    carried.take(stats.snapshot())
    text = to_prometheus(carried.merged())
"""

from __future__ import annotations

from headgate.observe.exposition import (
    CONTENT_TYPE,
    OPENMETRICS_TYPE,
    to_accepted,
    to_prometheus,
    wants_openmetrics,
)
from headgate.observe.merge import Carried, Merged, merge
from headgate.observe.meters import (
    REGISTRY,
    SECONDS,
    SIZES,
    Business,
    Counter,
    Exposed,
    Gauge,
    Histogram,
    MetricsEndpoint,
    MetricsMiddleware,
    Pusher,
    QueueMeter,
    Registry,
    Runtime,
    Shards,
    Sketch,
    Summary,
    Timer,
    VitalsEndpoint,
    count,
    measure,
    metered,
    metrics_app,
    watch_asyncpg,
    watch_asyncpg_pool,
    watch_cache,
    watch_resilience,
    watch_runtime,
    watch_sqlalchemy,
)
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
from headgate.observe.tracing import TracingMiddleware, trace

__all__ = [
    "CONTENT_TYPE",
    "METRICS",
    "OPENMETRICS_TYPE",
    "REGISTRY",
    "SECONDS",
    "SIZES",
    "Business",
    "Carried",
    "Counter",
    "Counts",
    "Exposed",
    "Gauge",
    "Histogram",
    "InstanceStats",
    "Latency",
    "ListenerStats",
    "LogStats",
    "Merged",
    "Metric",
    "MetricsEndpoint",
    "MetricsMiddleware",
    "ProcessWatch",
    "Pusher",
    "QueueMeter",
    "Registry",
    "RouteStats",
    "RouteSummary",
    "Rows",
    "Runtime",
    "Shards",
    "Sketch",
    "Summary",
    "Timer",
    "TracingMiddleware",
    "VitalsEndpoint",
    "WorkerStats",
    "count",
    "measure",
    "merge",
    "metered",
    "metrics_app",
    "new_rows",
    "summarise",
    "to_accepted",
    "to_prometheus",
    "trace",
    "wants_openmetrics",
    "watch_asyncpg",
    "watch_asyncpg_pool",
    "watch_cache",
    "watch_resilience",
    "watch_runtime",
    "watch_sqlalchemy",
]

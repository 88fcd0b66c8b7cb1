"""Metrics for services: counters, gauges, histograms, summaries and timers.

    from headgate import observe

    requests = observe.REGISTRY.counter("jobs", "Jobs done", ("kind",))
    requests.add(1, "mail")
    observe.count("orders", 1, tier="gold")

    app.add_middleware(observe.MetricsMiddleware)
    app.add_route("/metrics", observe.metrics_app())

A count takes some 0.1 us and is exact among threads; a histogram errs by less than one per cent at
any size of value; all processes of a service are added up (`Registry.share`).
"""

from __future__ import annotations

from headgate.observe.meters import exemplars
from headgate.observe.meters.asgi import MetricsEndpoint, MetricsMiddleware, metrics_app
from headgate.observe.meters.bridges import watch_cache, watch_resilience
from headgate.observe.meters.business import Business, count, measure
from headgate.observe.meters.counter import Counter
from headgate.observe.meters.database import watch_asyncpg, watch_asyncpg_pool, watch_sqlalchemy
from headgate.observe.meters.exemplars import Exemplar
from headgate.observe.meters.families import Family, Sample
from headgate.observe.meters.gauge import Gauge
from headgate.observe.meters.histogram import SECONDS, SIZES, Histogram, Timer
from headgate.observe.meters.http_client import metered
from headgate.observe.meters.otlp import Pusher
from headgate.observe.meters.prometheus import Exposed
from headgate.observe.meters.queues import QueueMeter
from headgate.observe.meters.registry import REGISTRY, Registry
from headgate.observe.meters.runtime import Runtime, watch_runtime
from headgate.observe.meters.shards import Shards
from headgate.observe.meters.sketch import Sketch
from headgate.observe.meters.summary import Summary
from headgate.observe.meters.text import to_openmetrics, to_text
from headgate.observe.meters.vitals import VitalsEndpoint

__all__ = [
    "REGISTRY",
    "SECONDS",
    "SIZES",
    "Business",
    "Counter",
    "Exemplar",
    "Exposed",
    "Family",
    "Gauge",
    "Histogram",
    "MetricsEndpoint",
    "MetricsMiddleware",
    "Pusher",
    "QueueMeter",
    "Registry",
    "Runtime",
    "Sample",
    "Shards",
    "Sketch",
    "Summary",
    "Timer",
    "VitalsEndpoint",
    "count",
    "exemplars",
    "measure",
    "metered",
    "metrics_app",
    "to_openmetrics",
    "to_text",
    "watch_asyncpg",
    "watch_asyncpg_pool",
    "watch_cache",
    "watch_resilience",
    "watch_runtime",
    "watch_sqlalchemy",
]

"""Counters, gauges and histograms, for `make bench-toolkit`: who is compared.

Each library is used as its manual says where counting is hot: children that are bound are kept,
labels that vary are given at the call. OpenTelemetry is measured with its SDK and a reader that is
never asked, for without an SDK it counts nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any, Final

from benchmarks.toolkit_measure import HEADGATE, Primitive, of, work

PEERS: Final = ("prometheus_client", "opentelemetry-sdk")
SECONDS: Final = (0.0012, 0.0034, 0.0081, 0.0127, 0.0254, 0.0999, 0.31, 1.7)

Call = Callable[[], Any]


def plain_value() -> Call:
    """The next duration and one call."""
    turn = cycle(SECONDS).__next__

    def take(value: float) -> float:
        return value

    return lambda: take(turn())


def registry() -> Any:
    from headgate.observe import Registry

    return Registry()


def ours_bound() -> Call:
    child = registry().counter("requests", "", ("method", "code")).labels("GET", "200")
    return lambda: child.inc()  # noqa: PLW0108 - all contenders are called in the same way


def ours_labelled() -> Call:
    requests = registry().counter("requests", "", ("method", "code"))
    return lambda: requests.add(1, "GET", "200")


def ours_gauge() -> Call:
    gauge = registry().gauge("open", "", ("pool",)).labels("db")
    return lambda: gauge.set(7)


def ours_histogram() -> Call:
    child = registry().histogram("took_seconds", "", ("route",)).labels("/a")
    turn = cycle(SECONDS).__next__
    return lambda: child.observe(turn())


def ours_histogram_labelled() -> Call:
    took = registry().histogram("took_seconds", "", ("route",))
    turn = cycle(SECONDS).__next__
    return lambda: took.put(turn(), "/a")


def ours_business() -> Call:
    from headgate.observe.meters.business import Business

    shop = Business(registry())
    return lambda: shop.count("orders", 1, tier="gold")


def theirs() -> tuple[Any, Any]:
    import prometheus_client

    return prometheus_client, prometheus_client.CollectorRegistry()


def prometheus_bound() -> Call:
    module, kept = theirs()
    child = module.Counter("requests", "", ["method", "code"], registry=kept).labels("GET", "200")
    return lambda: child.inc()  # noqa: PLW0108 - all contenders are called in the same way


def prometheus_labelled() -> Call:
    module, kept = theirs()
    requests = module.Counter("requests", "", ["method", "code"], registry=kept)
    return lambda: requests.labels("GET", "200").inc()


def prometheus_gauge() -> Call:
    module, kept = theirs()
    gauge = module.Gauge("open", "", ["pool"], registry=kept).labels("db")
    return lambda: gauge.set(7)


def prometheus_histogram() -> Call:
    module, kept = theirs()
    child = module.Histogram("took_seconds", "", ["route"], registry=kept).labels("/a")
    turn = cycle(SECONDS).__next__
    return lambda: child.observe(turn())


def prometheus_histogram_labelled() -> Call:
    module, kept = theirs()
    took = module.Histogram("took_seconds", "", ["route"], registry=kept)
    turn = cycle(SECONDS).__next__
    return lambda: took.labels("/a").observe(turn())


def meter() -> Any:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    provider = MeterProvider(metric_readers=[InMemoryMetricReader()], shutdown_on_exit=False)
    return provider.get_meter("bench")


def opentelemetry_labelled() -> Call:
    requests = meter().create_counter("requests")
    return lambda: requests.add(1, {"method": "GET", "code": "200"})


def opentelemetry_gauge() -> Call:
    gauge = meter().create_gauge("open")
    return lambda: gauge.set(7, {"pool": "db"})


def opentelemetry_histogram() -> Call:
    took = meter().create_histogram("took_seconds")
    turn = cycle(SECONDS).__next__
    return lambda: took.record(turn(), {"route": "/a"})


PRIMITIVES: Final = (
    Primitive(
        "counter, bound",
        False,
        of(work, (HEADGATE, ours_bound), ("prometheus_client", prometheus_bound)),
    ),
    Primitive(
        "counter, labelled",
        False,
        of(
            work,
            (HEADGATE, ours_labelled),
            ("headgate, observe.count", ours_business),
            ("prometheus_client", prometheus_labelled),
            ("opentelemetry-sdk", opentelemetry_labelled),
        ),
    ),
    Primitive(
        "gauge",
        False,
        of(
            work,
            (HEADGATE, ours_gauge),
            ("prometheus_client", prometheus_gauge),
            ("opentelemetry-sdk", opentelemetry_gauge),
        ),
    ),
    Primitive(
        "histogram, bound",
        False,
        of(
            plain_value(),
            (HEADGATE, ours_histogram),
            ("prometheus_client", prometheus_histogram),
        ),
    ),
    Primitive(
        "histogram, labelled",
        False,
        of(
            plain_value(),
            (HEADGATE, ours_histogram_labelled),
            ("prometheus_client", prometheus_histogram_labelled),
            ("opentelemetry-sdk", opentelemetry_histogram),
        ),
    ),
)

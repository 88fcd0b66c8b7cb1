"""Merged samples as the few figures a person asks for: rates of error and percentiles by route."""

from __future__ import annotations

from dataclasses import dataclass

from headgate.observe.histogram import quantile
from headgate.observe.merge import Histogram, Merged


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles in seconds, estimated from buckets; None without a sample."""

    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    mean_s: float | None


@dataclass(frozen=True, slots=True)
class RouteSummary:
    """What one route did, over all workers since the start."""

    route: str
    service: str
    requests: int
    client_errors: int
    server_errors: int
    bytes_in: int
    bytes_out: int
    duration: Latency
    upstream: Latency


def summarise(merged: Merged) -> list[RouteSummary]:
    """One summary a route and service, the busiest first."""
    by_class: dict[tuple[str, ...], dict[str, int]] = {}
    for (route, service, _, code), count in merged.numbers.get(
        "headgate_http_requests_total", {}
    ).items():
        classes = by_class.setdefault((route, service), {})
        classes[code[:1]] = classes.get(code[:1], 0) + int(count)
    numbers, histograms = merged.numbers, merged.histograms
    bytes_in = numbers.get("headgate_http_request_body_bytes_total", {})
    bytes_out = numbers.get("headgate_http_response_body_bytes_total", {})
    durations = histograms.get("headgate_http_request_duration_seconds", {})
    upstreams = histograms.get("headgate_upstream_duration_seconds", {})
    found = [
        RouteSummary(
            route=key[0],
            service=key[1],
            requests=sum(classes.values()),
            client_errors=classes.get("4", 0),
            server_errors=classes.get("5", 0),
            bytes_in=int(bytes_in.get(key, 0)),
            bytes_out=int(bytes_out.get(key, 0)),
            duration=latency(durations.get(key)),
            upstream=latency(upstreams.get(key)),
        )
        for key, classes in by_class.items()
    ]
    return sorted(found, key=lambda summary: (-summary.requests, summary.route, summary.service))


def latency(counted: Histogram | None) -> Latency:
    """The percentiles of one histogram."""
    total = sum(counted.counts) if counted else 0
    if counted is None or not total:
        return Latency(None, None, None, None)
    return Latency(
        quantile(counted.counts, 0.5),
        quantile(counted.counts, 0.95),
        quantile(counted.counts, 0.99),
        counted.sum / total,
    )

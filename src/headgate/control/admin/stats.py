"""Merged counts in the form of `/api/gateway/stats` and `/api/metrics/summary`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from headgate.control.admin.models import (
    GatewayStats,
    InstanceFigures,
    LatencyFigures,
    MetricsSummary,
    RouteFigures,
    ServiceFigures,
    WorkerFigures,
)
from headgate.observe import Latency, Merged, summarise
from headgate.observe import histogram as buckets
from headgate.observe.merge import Histogram
from headgate.observe.summary import RouteSummary, latency

__all__ = [
    "gateway_stats",
    "instance_figures",
    "metrics_summary",
    "route_figures",
    "service_figures",
    "worker_figures",
]

Rates = Mapping[tuple[str, str], float]


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _figures(found: Latency) -> LatencyFigures:
    return LatencyFigures(
        p50_ms=_ms(found.p50_s),
        p95_ms=_ms(found.p95_s),
        p99_ms=_ms(found.p99_s),
        mean_ms=_ms(found.mean_s),
    )


def _latency_of(merged: Merged, family: str, service: str | None = None) -> LatencyFigures:
    """Of all routes, or of those of one service."""
    total = Histogram(buckets.empty())
    for labels, counted in merged.histograms.get(family, {}).items():
        if service is None or labels[1] == service:
            buckets.add(total.counts, counted.counts)
            total.sum += counted.sum
    return _figures(latency(total))


def _statuses(merged: Merged) -> dict[tuple[str, str], dict[str, int]]:
    found: dict[tuple[str, str], dict[str, int]] = {}
    requests = merged.numbers.get("headgate_http_requests_total", {})
    for (route, service, _method, code), count in requests.items():
        codes = found.setdefault((route, service), {})
        codes[code] = codes.get(code, 0) + int(count)
    return found


def metrics_summary(merged: Merged, rates: Rates) -> MetricsSummary:
    routes = summarise(merged)
    requests = sum(route.requests for route in routes)
    server_errors = sum(route.server_errors for route in routes)
    return MetricsSummary(
        requests=requests,
        requests_per_s=round(sum(rates.values()), 3),
        client_errors=sum(route.client_errors for route in routes),
        server_errors=server_errors,
        error_rate=server_errors / requests if requests else 0.0,
        bytes_in=sum(route.bytes_in for route in routes),
        bytes_out=sum(route.bytes_out for route in routes),
        latency=_latency_of(merged, "headgate_http_request_duration_seconds"),
        upstream=_latency_of(merged, "headgate_upstream_duration_seconds"),
    )


def gateway_stats(
    merged: Merged,
    rates: Rates,
    workers: list[WorkerFigures],
    *,
    generation: int,
    listeners: dict[str, str],
) -> GatewayStats:
    routes = summarise(merged)
    statuses = _statuses(merged)
    return GatewayStats(
        generation=generation,
        requests=sum(route.requests for route in routes),
        requests_per_s=round(sum(rates.values()), 3),
        in_flight=int(merged.total("headgate_http_requests_in_flight")),
        connections=int(merged.total("headgate_connections")),
        routes=[_route(route, statuses, rates) for route in routes],
        services=_services(merged, routes, rates),
        instances=_instances(merged),
        workers=workers,
        listeners=listeners,
    )


def route_figures(merged: Merged, rates: Rates) -> dict[str, RouteFigures]:
    """By route, all services of a split together."""
    statuses = _statuses(merged)
    by_route: dict[str, list[RouteFigures]] = {}
    for route in summarise(merged):
        by_route.setdefault(route.route, []).append(_route(route, statuses, rates))
    return {
        name: parts[0] if len(parts) == 1 else _together(merged, name, parts)
        for name, parts in by_route.items()
    }


def _together(merged: Merged, name: str, parts: list[RouteFigures]) -> RouteFigures:
    codes: dict[str, int] = {}
    for part in parts:
        for code, count in part.statuses.items():
            codes[code] = codes.get(code, 0) + count
    durations, upstreams = Histogram(buckets.empty()), Histogram(buckets.empty())
    for family, total in (
        ("headgate_http_request_duration_seconds", durations),
        ("headgate_upstream_duration_seconds", upstreams),
    ):
        for labels, counted in merged.histograms.get(family, {}).items():
            if labels[0] == name:
                buckets.add(total.counts, counted.counts)
                total.sum += counted.sum
    return RouteFigures(
        route=name,
        service=", ".join(part.service for part in parts if part.service),
        requests=sum(part.requests for part in parts),
        requests_per_s=round(sum(part.requests_per_s for part in parts), 3),
        statuses=dict(sorted(codes.items())),
        client_errors=sum(part.client_errors for part in parts),
        server_errors=sum(part.server_errors for part in parts),
        bytes_in=sum(part.bytes_in for part in parts),
        bytes_out=sum(part.bytes_out for part in parts),
        latency=_figures(latency(durations)),
        upstream=_figures(latency(upstreams)),
    )


def service_figures(merged: Merged, rates: Rates) -> dict[str, ServiceFigures]:
    return {found.service: found for found in _services(merged, summarise(merged), rates)}


def instance_figures(merged: Merged) -> dict[tuple[str, str], InstanceFigures]:
    return {(found.service, found.instance): found for found in _instances(merged)}


def _route(
    route: RouteSummary, statuses: Mapping[tuple[str, str], dict[str, int]], rates: Rates
) -> RouteFigures:
    key = (route.route, route.service)
    return RouteFigures(
        route=route.route,
        service=route.service,
        requests=route.requests,
        requests_per_s=round(rates.get(key, 0.0), 3),
        statuses=dict(sorted(statuses.get(key, {}).items())),
        client_errors=route.client_errors,
        server_errors=route.server_errors,
        bytes_in=route.bytes_in,
        bytes_out=route.bytes_out,
        latency=_figures(route.duration),
        upstream=_figures(route.upstream),
    )


def _services(merged: Merged, routes: Iterable[RouteSummary], rates: Rates) -> list[ServiceFigures]:
    by_service: dict[str, list[RouteSummary]] = {}
    for route in routes:
        if route.service:
            by_service.setdefault(route.service, []).append(route)
    return [
        ServiceFigures(
            service=service,
            requests=sum(route.requests for route in members),
            requests_per_s=round(
                sum(rates.get((route.route, service), 0.0) for route in members), 3
            ),
            client_errors=sum(route.client_errors for route in members),
            server_errors=sum(route.server_errors for route in members),
            latency=_latency_of(merged, "headgate_http_request_duration_seconds", service),
            upstream=_latency_of(merged, "headgate_upstream_duration_seconds", service),
        )
        for service, members in by_service.items()
    ]


def _instances(merged: Merged) -> list[InstanceFigures]:
    def number(family: str, *labels: str) -> int:
        return int(merged.numbers.get(family, {}).get(labels, 0))

    failures: dict[tuple[str, str], dict[str, int]] = {}
    counted = merged.numbers.get("headgate_upstream_failures_total", {})
    for (service, instance, kind), count in counted.items():
        failures.setdefault((service, instance), {})[kind] = int(count)
    created = merged.numbers.get("headgate_upstream_connections_created_total", {})
    seconds = merged.numbers.get("headgate_upstream_attempt_seconds_total", {})
    attempts = merged.numbers.get("headgate_upstream_attempts_total", {})

    def mean_s(place: tuple[str, ...]) -> float | None:
        return seconds.get(place, 0.0) / attempts[place] if attempts.get(place) else None

    return [
        InstanceFigures(
            service=service,
            instance=instance,
            active=number("headgate_upstream_connections", service, instance, "active"),
            idle=number("headgate_upstream_connections", service, instance, "idle"),
            queued=number("headgate_upstream_queue", service, instance),
            created=int(count),
            reused=number("headgate_upstream_connections_reused_total", service, instance),
            retries=number("headgate_upstream_retries_total", service, instance),
            failures=failures.get((service, instance), {}),
            attempts=number("headgate_upstream_attempts_total", service, instance),
            mean_ms=_ms(mean_s((service, instance))),
        )
        for (service, instance), count in sorted(created.items())
    ]


def worker_figures(
    index: int, pid: int, snapshot: Mapping[str, Any] | None, age_s: float
) -> WorkerFigures:
    rows = snapshot["rows"] if snapshot else {}

    def total(family: str) -> float:
        return float(sum(value for _labels, value in rows.get(family, ())))

    return WorkerFigures(
        index=index,
        pid=pid,
        requests=int(total("headgate_http_requests_total")),
        in_flight=int(total("headgate_http_requests_in_flight")),
        connections=int(total("headgate_connections")),
        cpu_s=round(total("headgate_process_cpu_seconds_total"), 3),
        memory_bytes=int(total("headgate_process_resident_memory_bytes")),
        snapshot_age_s=round(age_s, 3),
    )

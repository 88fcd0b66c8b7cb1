"""Who calls whom, and who waits for whom, as the gateway sees it. Pure: counts in, figures out.

Theory of operation
-------------------
Calls are edges of four kinds: from clients to a route, from a route to a service, from a service to
an instance, and from a service to another one, as its clients of the mesh and its sidecars report
them. What services call in other ways is not seen here and not guessed at; traces show it where
services send them.

A waiting line has a depth, a bound, and the longest that anything may wait in it, after which it is
refused. How long the one in front has waited is not counted: a clock for each waiting request would
cost more than it tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from pydantic import Field

from headgate.config import Config
from headgate.control.admin.models import Answer, GatewayStats, LatencyFigures
from headgate.control.topology_edges import EdgeFigures
from headgate.observe import Merged

__all__ = ["MeshStats", "QueueStats", "latency_of", "mesh_stats", "queue_stats"]

CLIENTS = "clients"


class MeshNode(Answer):
    id: str
    kind: Literal["clients", "route", "service", "instance"]
    name: str
    workers_usable: int | None = None
    """Of an instance: how many workers send requests there."""


class MeshEdge(Answer):
    source: str
    """The id of a node."""
    target: str
    requests: int | None
    """Null where the gateway counts none: the only instance of a service has the service's."""
    requests_per_s: float | None
    server_errors: int
    error_rate: float | None
    latency: LatencyFigures | None
    active: int | None = None
    """Of an instance: requests under way there."""
    retries: int | None = None
    """Of a call between services."""
    breakers: dict[str, int] = Field(default_factory=dict)
    """Of a call between services: how many breakers towards there are not closed, by state."""


class MeshStats(Answer):
    nodes: list[MeshNode]
    edges: list[MeshEdge]
    seen: str = (
        "what passes this gateway, and what mesh clients and sidecars report; other calls between "
        "services are in no figure"
    )


class WaitingLine(Answer):
    name: str
    kind: Literal["upstream", "concurrency", "cache_writes", "access_log"]
    waiting: int | None
    """Now; null where only losses are counted."""
    bound: int | None
    """How many may wait in all workers together; null where that is not known."""
    longest_wait_s: float | None
    """Whoever waits longer is refused."""
    refused: int
    """Since the start: refused or dropped, because the line was full or the wait too long."""


class QueueStats(Answer):
    waiting: int
    """In all lines."""
    lines: list[WaitingLine]


def mesh_stats(stats: GatewayStats, merged: Merged, calls: Iterable[EdgeFigures] = ()) -> MeshStats:
    nodes = {CLIENTS: MeshNode(id=CLIENTS, kind="clients", name=CLIENTS)}
    edges: list[MeshEdge] = []
    usable = merged.numbers.get("headgate_instance_usable", {})
    for route in stats.routes:
        here = f"route:{route.route}"
        nodes[here] = MeshNode(id=here, kind="route", name=route.route)
        rate = route.server_errors / route.requests if route.requests else 0.0
        edges.append(
            MeshEdge(
                source=CLIENTS,
                target=here,
                requests=route.requests,
                requests_per_s=route.requests_per_s,
                server_errors=route.server_errors,
                error_rate=rate,
                latency=route.latency,
            )
        )
        if route.service:
            there = f"service:{route.service}"
            nodes.setdefault(there, MeshNode(id=there, kind="service", name=route.service))
            edges.append(
                edges[-1].model_copy(
                    update={"source": here, "target": there, "latency": route.upstream}
                )
            )
    for one in stats.instances:
        here, there = f"service:{one.service}", f"instance:{one.service} {one.instance}"
        nodes.setdefault(here, MeshNode(id=here, kind="service", name=one.service))
        able = usable.get((one.service, one.instance))
        nodes[there] = MeshNode(
            id=there,
            kind="instance",
            name=one.instance,
            workers_usable=None if able is None else int(able),
        )
        edges.append(
            MeshEdge(
                source=here,
                target=there,
                requests=one.attempts or None,
                requests_per_s=None,
                server_errors=sum(one.failures.values()),
                error_rate=None,
                latency=_mean_alone(one.mean_ms),
                active=one.active,
            )
        )
    for call in calls:
        here, there = f"service:{call.source}", f"service:{call.destination}"
        for at, name in ((here, call.source), (there, call.destination)):
            nodes.setdefault(at, MeshNode(id=at, kind="service", name=name))
        edges.append(
            MeshEdge(
                source=here,
                target=there,
                requests=call.requests,
                requests_per_s=round(call.requests_per_s, 3),
                server_errors=call.errors,
                error_rate=call.error_rate,
                latency=latency_of(call),
                retries=call.retries,
                breakers=dict(call.breakers),
            )
        )
    return MeshStats(nodes=list(nodes.values()), edges=edges)


def _mean_alone(mean_ms: float | None) -> LatencyFigures | None:
    if mean_ms is None:
        return None
    return LatencyFigures(p50_ms=None, p95_ms=None, p99_ms=None, mean_ms=mean_ms)


def latency_of(call: EdgeFigures) -> LatencyFigures:
    """In milliseconds, as the API has it."""
    return LatencyFigures(
        p50_ms=_ms(call.p50_s),
        p95_ms=_ms(call.p95_s),
        p99_ms=_ms(call.p99_s),
        mean_ms=_ms(call.mean_s),
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def queue_stats(merged: Merged, config: Config, workers: int) -> QueueStats:
    lines = [*_upstream(merged, config, workers), *_concurrency(merged), *_writers(merged)]
    return QueueStats(waiting=sum(line.waiting or 0 for line in lines), lines=lines)


def _upstream(merged: Merged, config: Config, workers: int) -> Iterator[WaitingLine]:
    failures = merged.numbers.get("headgate_upstream_failures_total", {})
    refused: dict[tuple[str, str], int] = {}
    for (service, instance, kind), count in failures.items():
        if kind in {"queue_full", "queue_timeout"}:
            key = (service, instance)
            refused[key] = refused.get(key, 0) + int(count)
    for (service, instance), depth in sorted(_numbers(merged, "headgate_upstream_queue").items()):
        spec = config.services.get(service)
        yield WaitingLine(
            name=f"{service} {instance}",
            kind="upstream",
            waiting=int(depth),
            bound=spec.pool.queue * workers if spec is not None else None,
            longest_wait_s=spec.pool.queue_timeout if spec is not None else None,
            refused=refused.get((service, instance), 0),
        )


def _concurrency(merged: Merged) -> Iterator[WaitingLine]:
    rejected = _numbers(merged, "headgate_concurrency_rejected_total")
    for (limit,), depth in sorted(_numbers(merged, "headgate_concurrency_waiting").items()):
        yield WaitingLine(
            name=limit,
            kind="concurrency",
            waiting=int(depth),
            bound=None,
            longest_wait_s=None,
            refused=int(rejected.get((limit,), 0)),
        )


def _writers(merged: Merged) -> Iterator[WaitingLine]:
    for (layer,), depth in sorted(_numbers(merged, "headgate_cache_lower_queued").items()):
        yield WaitingLine(
            name=layer,
            kind="cache_writes",
            waiting=int(depth),
            bound=None,
            longest_wait_s=None,
            refused=0,
        )
    lost = _numbers(merged, "headgate_access_log_lines_total").get(("dropped",))
    if lost is not None:
        yield WaitingLine(
            name="access log",
            kind="access_log",
            waiting=None,
            bound=None,
            longest_wait_s=None,
            refused=int(lost),
        )


def _numbers(merged: Merged, name: str) -> Mapping[tuple[str, ...], float]:
    return merged.numbers.get(name, {})

"""The topology of the mesh: a department that hears what callers report, and shows who calls whom.

What clients and sidecars report comes by `POST /api/mesh/report`. What the gateway's own workers
send to services is counted by them anyway and is put beside it when somebody asks, as the edges of
the service that the gateway is. All of it is in memory: after a restart of control the picture
grows anew within a few reports, and metrics and history keep what was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Final

from headgate.control.topology_edges import EdgeFigures, Edges, Refusal, Report
from headgate.observe.histogram import BOUNDS, SHOWN_BOUNDS, add, empty
from headgate.observe.summary import latency

if TYPE_CHECKING:
    from headgate.config import Config
    from headgate.observe import Merged, Rows
    from headgate.observe.merge import Histogram

__all__ = ["Topology", "gateway_edges"]

GATEWAY: Final = "gateway"
_TOLD: Final = 20
"""Refusals of one report; figures have all."""
_SHOWN_AT: Final = (*(BOUNDS.index(bound) for bound in SHOWN_BOUNDS), len(BOUNDS))


class Topology:
    """See `control.observing.observing.Department`."""

    name = "topology"

    def __init__(
        self,
        clock: Callable[[], float] = monotonic,
        record: Callable[..., object] | None = None,
        tell: Callable[..., object] | None = None,
    ) -> None:
        """`record` is that of the audit log, `tell` that of the live views."""
        self._clock = clock
        self._record = record
        self._tell = tell
        self.edges = Edges()
        self.own_name = GATEWAY
        """Who the gateway is among services."""

    def start(self) -> None:
        """Nothing to begin: reports come."""

    def take(self, config: Config) -> None:
        self.own_name = config.mesh.identity.service if config.mesh is not None else GATEWAY

    async def close(self) -> None:
        """Nothing is kept."""

    def worries(self) -> Iterable[str]:
        return ()

    def hear(self, report: Report) -> None:
        for said in self.edges.take(report, self._clock())[:_TOLD]:
            is_refused = said.mode == "strict"
            if self._record is not None:
                self._record(
                    "mesh.refused",
                    said.source,
                    target=report.source,
                    outcome="refused" if is_refused else "noted",
                    detail={"why": said.why, "mode": said.mode, "count": said.count},
                )
            if self._tell is not None:
                what = "is refused by" if is_refused else "would be refused by"
                self._tell(
                    "mesh",
                    f"{said.source} {what} {report.source}",
                    source=said.source,
                    destination=report.source,
                    why=said.why,
                    mode=said.mode,
                )

    def refusals(self) -> list[Refusal]:
        return self.edges.refusals(self._clock())

    def figures(self) -> list[EdgeFigures]:
        """What was reported, by edge."""
        return self.edges.figures(self._clock())

    def rows_into(self, rows: Rows) -> None:
        for source, to, requests, errors, retries, buckets, seconds in self.edges.totals():
            labels = [source, to]
            rows["headgate_mesh_requests_total"].append((labels, requests))
            rows["headgate_mesh_errors_total"].append((labels, errors))
            rows["headgate_mesh_retries_total"].append((labels, retries))
            counts = empty()
            for at, count in zip(_SHOWN_AT, buckets, strict=True):
                counts[at] = count
            rows["headgate_mesh_duration_seconds"].append(
                (labels, {"counts": counts, "sum": seconds})
            )
        for refused in self.refusals():
            why = [refused.source, refused.destination, refused.why, refused.mode]
            rows["headgate_mesh_refused_total"].append((why, refused.count))
        rows["headgate_mesh_edges"].append(([], len(self.edges)))
        rows["headgate_mesh_edges_overflowed_total"].append(([], self.edges.overflowed))


def gateway_edges(
    merged: Merged, rates: dict[tuple[str, str], float], own_name: str
) -> list[EdgeFigures]:
    """What the gateway's workers send to services, as edges. Counts are since its start."""
    requests: dict[str, int] = {}
    errors: dict[str, int] = {}
    for (_, service, _, code), count in merged.numbers.get(
        "headgate_http_requests_total", {}
    ).items():
        if service:
            requests[service] = requests.get(service, 0) + int(count)
            if code.startswith("5"):
                errors[service] = errors.get(service, 0) + int(count)
    retries: dict[str, int] = {}
    for (service, _), count in merged.numbers.get("headgate_upstream_retries_total", {}).items():
        retries[service] = retries.get(service, 0) + int(count)
    per_s: dict[str, float] = {}
    for (_, service), rate in rates.items():
        per_s[service] = per_s.get(service, 0.0) + rate
    breakers: dict[str, dict[str, int]] = {}
    for (service, _, state), is_so in merged.numbers.get("headgate_breaker_state", {}).items():
        if is_so and state != "closed":
            states = breakers.setdefault(service, {})
            states[state] = states.get(state, 0) + int(is_so)
    durations = _durations(merged)
    found = []
    for service, count in sorted(requests.items()):
        took = latency(durations.get(service))
        found.append(
            EdgeFigures(
                source=own_name,
                destination=service,
                requests=count,
                errors=errors.get(service, 0),
                retries=retries.get(service, 0),
                hedges=0,
                requests_per_s=per_s.get(service, 0.0),
                error_rate=errors.get(service, 0) / count if count else None,
                p50_s=took.p50_s,
                p95_s=took.p95_s,
                p99_s=took.p99_s,
                mean_s=took.mean_s,
                breakers=breakers.get(service, {}),
            )
        )
    return found


def _durations(merged: Merged) -> dict[str, Histogram]:
    from headgate.observe.merge import Histogram

    found: dict[str, Histogram] = {}
    family = merged.histograms.get("headgate_upstream_duration_seconds", {})
    for (_, service), counted in family.items():
        total = found.setdefault(service, Histogram(empty()))
        add(total.counts, counted.counts)
        total.sum += counted.sum
    return found

"""The endpoints of the admin API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from headgate import __version__
from headgate.control.admin import models
from headgate.control.admin.alerts import add_alerts
from headgate.control.admin.audit import add_audit
from headgate.control.admin.bans import add_bans
from headgate.control.admin.breakers import add_breakers
from headgate.control.admin.caching import add_caching
from headgate.control.admin.capacity import add_capacity
from headgate.control.admin.certificates import add_certificates
from headgate.control.admin.configuration import add_configuration
from headgate.control.admin.consumers import add_consumers
from headgate.control.admin.history import add_history
from headgate.control.admin.identities import add_identities
from headgate.control.admin.identity import add_identity
from headgate.control.admin.instances import add_instances
from headgate.control.admin.logs import add_logs
from headgate.control.admin.mesh_report import add_mesh_report
from headgate.control.admin.mesh_sidecar import add_mesh_sidecar
from headgate.control.admin.monitors import add_health_parts, add_monitors
from headgate.control.admin.orders import add_standing
from headgate.control.admin.overview import add_overview
from headgate.control.admin.problem import MEDIA_TYPE, Problem
from headgate.control.admin.rate_limits import add_rate_limits
from headgate.control.admin.registry import add_registry
from headgate.control.admin.routes import add_routes
from headgate.control.admin.service_docs import add_service_docs
from headgate.control.admin.services import add_services
from headgate.control.admin.slos import add_slos
from headgate.control.admin.stats import gateway_stats, metrics_summary, worker_figures
from headgate.control.admin.stories import add_stories
from headgate.control.admin.system import add_system
from headgate.control.admin.traces import add_traces
from headgate.control.admin.traffic import add_traffic, instances_out
from headgate.control.channel import ChannelClosed
from headgate.control.control import Control
from headgate.control.explaining import described, explain, with_judgement
from headgate.control.fault_rows import fault_text
from headgate.errors import HeadgateError
from headgate.observe import to_accepted

__all__ = ["make_router"]

# What every endpoint may answer, for the OpenAPI document.
_PROBLEM = {MEDIA_TYPE: {"schema": {"type": "object"}}}
_UNAUTHORISED: dict[int | str, dict[str, Any]] = {
    401: {"description": "The token is missing or wrong", "content": _PROBLEM}
}


def _refused(what: str) -> dict[int | str, dict[str, Any]]:
    return {**_UNAUTHORISED, 422: {"description": what, "content": _PROBLEM}}


def make_router(control: Control) -> APIRouter:
    router = APIRouter()
    add_registry(router, control)  # first: beats come most, and routes are tried in their order
    add_health(router, control)
    add_health_parts(router, control)
    add_figures(router, control)
    add_orders(router, control)
    add_explain(router, control)
    add_stories(router, control)
    add_configuration(router, control)
    add_system(router, control)
    add_traffic(router, control)
    add_routes(router, control)
    add_service_docs(router, control)
    add_services(router, control)
    add_instances(router, control)
    add_breakers(router, control)
    add_rate_limits(router, control)
    add_standing(router, control)
    add_overview(router, control)
    add_consumers(router, control)
    add_identities(router, control)
    add_identity(router, control)
    add_alerts(router, control)
    add_audit(router, control)
    add_bans(router, control)
    add_caching(router, control)
    add_certificates(router, control)
    add_traces(router, control)
    add_history(router, control)
    add_logs(router, control)
    add_monitors(router, control)
    add_slos(router, control)
    add_capacity(router, control)
    add_mesh_sidecar(router, control)
    add_mesh_report(router, control)
    return router


def add_health(router: APIRouter, control: Control) -> None:
    @router.get(
        "/api/health",
        tags=["health"],
        responses={503: {"description": "Nothing serves, or the gateway drains"}},
    )
    async def health(response: Response) -> models.Health:
        """Whether the gateway serves. Needs no token."""
        status, reasons = control.health()
        if status == "down":
            response.status_code = 503
        last = control.reloader.last
        seated = [row for row in control.workers if row["state"] != "leaving"]
        return models.Health(
            status=status,
            reasons=reasons,
            version=__version__,
            generation=control.current.generation,
            workers_ready=sum(row["state"] == "ready" for row in seated),
            workers_wanted=control.current.outline.workers,
            uptime_s=round(time.time() - control.start.started, 1),  # noqa: TID251  for people
            last_reload=models.Reload.model_validate(asdict(last)) if last else None,
            incarnation=control.start.incarnation,
        )

    @router.get("/api/workers", tags=["health"], responses=_UNAUTHORISED)
    async def workers() -> list[models.WorkerState]:
        """Every worker process, also those that drain or wait to be started again."""
        now = time.monotonic()
        passed_s = now - control.workers_at
        states = []
        for row in control.workers:
            link = control.hub.links.get(row["pid"] or 0)
            silent_s = round(now - link.heard_at, 1) if link and link.is_silent else None
            states.append(
                models.WorkerState.model_validate({**_now(row, passed_s), "silent_s": silent_s})
            )
        return states


def _now(row: Mapping[str, Any], passed_s: float) -> dict[str, Any]:
    """What the supervisor said of a worker when something changed, as it is by now."""
    found = {**row, "age_s": round(row["age_s"] + passed_s, 3)} if row["pid"] else dict(row)
    for name in ("next_start_s", "deadline_s"):
        if found.get(name):
            found[name] = round(max(0.0, found[name] - passed_s), 3)
    return found


def add_figures(router: APIRouter, control: Control) -> None:
    @router.get(
        "/metrics",
        tags=["metrics"],
        response_class=PlainTextResponse,
        responses={
            **_UNAUTHORISED,
            200: {"content": {"text/plain": {}, "application/openmetrics-text": {}}},
        },
    )
    async def metrics(accept: Annotated[str, Header()] = "") -> Response:
        """All metrics of all processes: Prometheus text, or OpenMetrics for those who ask."""
        await control.hub.refresh()
        text, kind = await asyncio.to_thread(to_accepted, control.hub.merged(), accept)
        return Response(text, headers={"content-type": kind, "vary": "Accept"})

    @router.get("/api/metrics/summary", tags=["metrics"], responses=_UNAUTHORISED)
    async def summary() -> models.MetricsSummary:
        """The whole gateway in a dozen figures."""
        await control.hub.refresh()
        return metrics_summary(control.hub.merged(), control.hub.rates())

    @router.get("/api/gateway/stats", tags=["metrics"], responses=_UNAUTHORISED)
    async def stats() -> models.GatewayStats:
        """Figures by route, service, instance and worker."""
        await control.hub.refresh()
        now = time.monotonic()
        workers = [
            worker_figures(link.index, link.pid, link.snapshot, now - link.heard_at)
            for link in sorted(control.hub.links.values(), key=lambda link: link.index)
        ]
        return gateway_stats(
            control.hub.merged(),
            control.hub.rates(),
            workers,
            generation=control.current.generation,
            listeners=control.current.addresses,
        )


def add_orders(router: APIRouter, control: Control) -> None:
    @router.post("/api/reload", tags=["configuration"], responses=_refused("The file has faults"))
    async def reload() -> models.Reload:
        """Read the file again. It takes effect in all workers or in none."""
        result = await control.reload("the admin API")
        if not result.ok:
            raise Problem(
                422,
                "; ".join(fault_text(fault) for fault in result.faults),
                generation=result.generation,
                faults=result.faults,
                took_ms=result.took_ms,
            )
        return models.Reload.model_validate(asdict(result))

    @router.post("/api/drain", tags=["processes"], status_code=202, responses=_UNAUTHORISED)
    async def drain() -> models.Accepted:
        """Stop accepting, finish what is in flight, end. The same as SIGTERM."""
        workers = await _ordered(control.drain())
        return models.Accepted(message=f"{workers} workers are draining")

    @router.post(
        "/api/upgrade", tags=["processes"], responses=_refused("The new code does not start")
    )
    async def upgrade() -> models.Upgraded:
        """Restart every process on the code that is installed now, one by one."""
        answer = await _ordered(control.upgrade())
        if answer.kind == "refused":
            faults = answer.fields["faults"]
            raise Problem(422, "; ".join(fault_text(fault) for fault in faults), faults=faults)
        return models.Upgraded(
            workers=answer.fields["workers"], incarnation=answer.fields["incarnation"]
        )

    @router.post("/api/logs/reopen", tags=["processes"], responses=_UNAUTHORISED)
    async def reopen_logs() -> models.Accepted:
        """Open log files again, after they were rotated. The same as SIGUSR1."""
        await _ordered(control.reopen_logs())
        return models.Accepted(message="logs are reopened")


async def _ordered(order: Any) -> Any:
    try:
        return await order
    except TimeoutError as error:
        raise Problem(504, "the supervisor did not answer") from error
    except ChannelClosed as error:
        raise Problem(503, str(error)) from error


def add_explain(router: APIRouter, control: Control) -> None:
    async def answer(
        method: str, url: str, headers: list[tuple[str, str]], client_ip: str, listener: str
    ) -> JSONResponse:
        def work() -> dict[str, Any]:
            return explain(control.plan(), method, url, headers, client_ip, listener)

        try:
            explained = await asyncio.to_thread(work)
        except (HeadgateError, ValueError) as error:
            raise Problem(422, str(error)) from error
        shown = asdict(described(method, url, headers, client_ip))
        del shown["headers"], shown["certificate"]
        judgement = await control.hub.judge(
            {
                "route": explained["route"],
                "params": explained["params"],
                "shown": shown,
                "headers": [[name.lower(), value] for name, value in headers],
            }
        )
        explained = with_judgement(explained, judgement)
        out = instances_out(control, explained["route"])
        if out:
            explained = {
                **explained,
                "instances_out": out,
                "text": "\n".join([explained["text"].rstrip("\n"), *(f"  {line}" for line in out)]),
            }
        return JSONResponse({**explained, "generation": control.current.generation})

    @router.post("/api/explain", tags=["configuration"], responses=_refused("This is no request"))
    async def explain_post(asked: models.ExplainRequest) -> Response:
        """Which route takes a request, and why the others do not."""
        pairs = asked.headers.items() if isinstance(asked.headers, dict) else asked.headers
        return await answer(asked.method, asked.url, list(pairs), asked.client_ip, asked.listener)

    @router.get("/api/explain", tags=["configuration"], responses=_refused("This is no request"))
    async def explain_get(
        url: str,
        method: str = "GET",
        client_ip: str = "127.0.0.1",
        header: Annotated[list[str] | None, Query(description="`name: value`")] = None,
        listener: str = "",
    ) -> Response:
        """Which route takes a request, and why the others do not."""
        pairs = []
        for line in header or []:
            name, colon, value = line.partition(":")
            if not colon:
                raise Problem(422, f'the header "{name}" has no colon')
            pairs.append((name.strip(), value.strip()))
        return await answer(method, url, pairs, client_ip, listener)

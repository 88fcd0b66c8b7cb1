"""The part of the admin API about the registry: instances register, beat and leave; others watch.

Every service asks this from any language, so it is plain: JSON in, JSON out, problem+json where it
is refused. Three refusals are answers that a client acts on: 404 `unknown` (register again), 409
`fenced` (another process has this id now: end, or take another id), 503 with `Retry-After`.

Unix sockets are registered over the socket in the state directory alone: workers would else be sent
into the sockets of this machine by a token from afar, that of the admin API among them.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Final, Protocol

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from headgate.control.admin.audit import actor_of, origin_of
from headgate.control.admin.listing import (
    ASKED,
    PROBLEM,
    Cursor,
    ListLimit,
    Search,
    Sort,
    listed,
    no_such,
)
from headgate.control.admin.live import stream
from headgate.control.admin.problem import Problem
from headgate.control.admin.registry_models import (
    InstanceBeat,
    InstanceBeaten,
    InstanceLease,
    InstanceRegistration,
    RegistryHistory,
    RegistryService,
    RegistryServiceSeen,
    RegistryStats,
    seen_row,
    service_rows,
)
from headgate.control.admin.roles import Role
from headgate.control.admin.speaking import must_speak_for
from headgate.control.registering import Registering
from headgate.mesh.registry.asked import Asked, Held, Lost, Refused
from headgate.units import UnitError, parse_duration

__all__ = ["HasRegistry", "add_registry"]

BEAT_COMMENT_S: Final = 10.0
_AGAIN_S: Final = "2"
_SERVICES_MOST: Final = 500
_NAME_MOST: Final = 200

ServiceName = Annotated[str, Path(max_length=_NAME_MOST, description="Letters, digits and . _ -")]
InstanceId = Annotated[
    str,
    Path(max_length=_NAME_MOST, description="Its own within the service; `. _ - : @` may be in it"),
]
_AWAY: Final[dict[int | str, dict[str, Any]]] = {
    503: {"description": "The registry is off, or begins; ask again", "content": PROBLEM}
}
_TOLD: Final[dict[int | str, dict[str, Any]]] = {**ASKED, **_AWAY}
_LEASED: Final[dict[int | str, dict[str, Any]]] = {
    **_AWAY,
    401: ASKED[401],
    404: {
        "description": "Nobody knows it: register again (`lost` is `unknown`)",
        "content": PROBLEM,
    },
    409: {
        "description": "Another process has registered this id since: `lost` is `fenced`",
        "content": PROBLEM,
    },
    422: ASKED[422],
}


class HasRegistry(Protocol):
    @property
    def registry(self) -> Registering: ...


def add_registry(router: APIRouter, control: HasRegistry) -> None:
    _add_leases(router, control)
    _add_views(router, control)


def _ready(control: HasRegistry) -> Registering:
    registry = control.registry
    why = registry.unready
    if why:
        raise Problem(503, why, headers={"retry-after": _AGAIN_S})
    return registry


def _add_leases(router: APIRouter, control: HasRegistry) -> None:
    @router.put(
        "/api/registry/services/{service}/instances/{id}",
        tags=["registry"],
        response_model=InstanceLease,
        responses={
            201: {"description": "It was not there before", "model": InstanceLease},
            403: {"description": "Not for this service, or not from there", "content": PROBLEM},
            **{key: said for key, said in _LEASED.items() if key not in (404, 409)},
        },
    )
    async def register(
        request: Request,
        response: Response,
        service: ServiceName,
        id: InstanceId,  # noqa: A002 - the API's name
        body: InstanceRegistration,
    ) -> dict[str, Any]:
        """Be listed. Whoever registers an id again takes it over, and the lease before it ends."""
        registry = _ready(control)
        must_speak_for(request, service)
        if (why := registry.closed_to(service)) is not None:
            raise Problem(403, why)
        url = _url_of(body, request)
        caller = request.scope.get("state", {}).get("caller")
        is_of_machine = caller is None or caller.kind == "user"
        client = request.client.host if request.client is not None else ""
        if not is_of_machine and (why := registry.stranger(client, url)) is not None:
            raise Problem(403, why)
        if "unix" in url.partition(":")[0] and (caller is None or caller.kind != "user"):
            raise Problem(
                403,
                "a Unix socket is of this machine: register it over the socket in the state "
                "directory, or name it in the file",
            )
        asked = Asked(
            service=service,
            id=id,
            url=url,
            zone=body.zone,
            version=body.version,
            weight=body.weight,
            priority=body.priority,
            metadata=body.metadata,
            ttl_s=_seconds(body.ttl, "ttl"),
        )
        try:
            held = await registry.register(
                asked, by=actor_of(request.scope), origin=origin_of(request.scope)
            )
        except Refused as error:
            raise _refused(error) from None
        if held.created:
            response.status_code = 201
        return _lease_row(registry, held)

    @router.post(
        "/api/registry/services/{service}/instances/{id}/beat",
        tags=["registry"],
        response_model=InstanceBeaten,
        responses=_LEASED,
    )
    async def beat(
        request: Request,
        service: ServiceName,
        id: InstanceId,  # noqa: A002 - the API's name
        body: InstanceBeat,
    ) -> Response:
        """Say that it lives, and how it does."""
        registry = _ready(control)
        must_speak_for(request, service)
        try:
            held = await registry.beat(service, id, body.fence, body.health)
        except Refused as error:
            raise _refused(error) from None
        if isinstance(held, Lost):
            raise _lost(held)
        # The call that comes most is answered without the detour by a model.
        return Response(registry.beaten(held), media_type="application/json")

    @router.delete(
        "/api/registry/services/{service}/instances/{id}",
        tags=["registry"],
        response_model=InstanceLease,
        responses=_LEASED,
    )
    async def leave(
        request: Request,
        service: ServiceName,
        id: InstanceId,  # noqa: A002 - the API's name
        fence: Annotated[
            int | None,
            Query(ge=0, le=2**63 - 1, description="Of its lease; only operators may leave it out"),
        ] = None,
        drain: Annotated[
            str | None,
            Query(max_length=50, description="How long it is told as draining; `0s`: gone at once"),
        ] = None,
    ) -> dict[str, Any]:
        """Go: it gets no new requests from now on, and is gone after `drain`."""
        registry = _ready(control)
        must_speak_for(request, service)
        caller = request.scope.get("state", {}).get("caller")
        if fence is None and caller is not None and caller.role is Role.SERVICE:
            raise Problem(422, "send the fence of the lease: whoever has it may end it")
        try:
            held = await registry.leave(
                service,
                id,
                fence,
                _seconds(drain, "drain"),
                by=actor_of(request.scope),
                origin=origin_of(request.scope),
            )
        except Refused as error:
            raise _refused(error) from None
        if isinstance(held, Lost):
            raise _lost(held)
        return _lease_row(registry, held)


def _add_views(router: APIRouter, control: HasRegistry) -> None:
    @router.get(
        "/api/registry/services",
        tags=["registry"],
        response_model=list[RegistryService],
        responses=_TOLD,
    )
    async def services(
        request: Request,
        q: Search = "",
        sort: Sort = "",
        limit: ListLimit = 1000,
        cursor: Cursor = "",
    ) -> Response:
        """Every service that has instances, whoever named them."""
        registry = _ready(control)
        return listed(
            request,
            service_rows(registry.book, registry.discovered),
            key=lambda row: str(row["service"]),
            limit=limit,
            cursor=cursor,
            sort=sort,
            q=q,
        )

    @router.get(
        "/api/registry/services/{service}",
        tags=["registry"],
        response_model=RegistryServiceSeen,
        responses=_TOLD,
    )
    async def service(service: ServiceName) -> Response:
        """One service with all that is said of its instances."""
        registry = _ready(control)
        rows = service_rows(registry.book, registry.discovered, service)
        if not rows:
            raise no_such("service in the registry", service, registry.book.services())
        found = [seen_row(seen) for seen in registry.claims(service)]
        head = rows[0].model_dump(mode="json")
        return JSONResponse({**head, "instances": found})

    @router.get(
        "/api/registry/history", tags=["registry"], response_model=RegistryHistory, responses=_TOLD
    )
    async def history(
        service: Annotated[str, Query(max_length=_NAME_MOST)] = "",
        instance: Annotated[str, Query(max_length=_NAME_MOST, description="Its id")] = "",
        before: Annotated[
            int | None, Query(ge=0, le=2**63 - 1, description="Only changes before this revision")
        ] = None,
        limit: ListLimit = 100,
    ) -> dict[str, Any]:
        """What happened, the newest first."""
        registry = _ready(control)
        book = registry.book
        found = book.history(service or None, instance or None, before=before, most=limit)
        return {
            "epoch": book.epoch,
            "revision": book.revision,
            "changes": [change.to_json() for change in found],
            "before": found[-1].revision if len(found) == limit else None,
        }

    @router.get(
        "/api/registry/stats", tags=["registry"], response_model=RegistryStats, responses=_TOLD
    )
    async def stats() -> dict[str, Any]:
        """The registry in figures."""
        return _ready(control).snapshot()

    @router.get(
        "/api/registry/watch",
        tags=["registry"],
        response_class=Response,
        responses={
            **{key: said for key, said in _TOLD.items() if key not in (304, 404)},
            200: {"description": "Events `all` and `change`", "content": {"text/event-stream": {}}},
        },
    )
    async def watch(
        request: Request,
        services: Annotated[
            str,
            Query(
                max_length=20_000, description="Only of these, with commas between; all if empty"
            ),
        ] = "",
    ) -> Response:
        """Every change as it happens, as Server-Sent Events.

        First comes `all` (`epoch`, `revision`, `instances`), then `change` after `change`. Whoever
        comes back with `Last-Event-ID` gets what was missed, and `all` again only where that cannot
        be said: then what is not in it is gone, after `grace_s` seconds if that is over 0. An
        event `orders` says what operators have said of instances (drained, ejected, weighed): all
        that stands, again whenever it changes. A comment comes every 10 seconds; a watcher that is
        too slow is cut and comes back.
        """
        registry = _ready(control)
        wanted = list(dict.fromkeys(name.strip() for name in services.split(",") if name.strip()))
        if len(wanted) > _SERVICES_MOST:
            raise Problem(422, f"{_SERVICES_MOST} services are the most; leave them out for all")
        return stream(
            request,
            lambda last_id: registry.watchers.watch(last_id, wanted, registry.grace_s),
            heartbeat_s=BEAT_COMMENT_S,
            retry_ms=1000,
            streams=registry.streams,
            is_paced=True,
        )


def _lease_row(registry: Registering, held: Held) -> dict[str, Any]:
    return {
        "instance": held.instance.to_json(),
        "fence": held.fence,
        "ttl_s": held.ttl_s,
        "beat_every_s": held.beat_every_s,
        "epoch": registry.book.epoch,
        "revision": registry.book.revision,
    }


def _refused(error: Refused) -> Problem:
    if error.kind == "full":
        return Problem(503, str(error), headers={"retry-after": "30"})
    return Problem(422, str(error))


def _lost(lost: Lost) -> Problem:
    status = 409 if lost.why == "fenced" else 404
    return Problem(status, lost.says or lost.why, lost=lost.why)


def _seconds(value: str | float | None, name: str) -> float | None:
    if value is None:
        return None
    try:
        return parse_duration(value)
    except UnitError as error:
        raise Problem(422, f"{name}: {error}") from None


def _url_of(body: InstanceRegistration, request: Request) -> str:
    if body.url is not None:
        if body.port is not None:
            raise Problem(422, "write url or port, and not both")
        return body.url
    if body.port is None:
        raise Problem(422, "write url, or port if it is reached where it asks from")
    client = request.client
    host = client.host if client is not None and client.host else "127.0.0.1"
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        # Over the socket in the state directory: it is on this machine.
        return f"http://127.0.0.1:{body.port}"
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped if mapped is not None else address
    shown = f"[{address}]" if address.version == 6 else str(address)
    return f"http://{shown}:{body.port}"

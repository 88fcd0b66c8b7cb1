"""The part of the admin API about traffic: instances, breakers, limits, splits, flags."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request

from headgate.control.admin import models
from headgate.control.admin.orders import Ordered, give, held, ordered, standing_of
from headgate.control.admin.problem import MEDIA_TYPE
from headgate.control.control import Control
from headgate.mesh.registry.model import Instance

__all__ = [
    "add_traffic",
    "breakers_of",
    "instances_out",
    "limits_of",
    "policies_of",
    "services_of",
]

_PROBLEM = {MEDIA_TYPE: {"schema": {"type": "object"}}}
_REFUSED: dict[int | str, dict[str, Any]] = {
    401: {"description": "The token is missing or wrong", "content": _PROBLEM},
    422: {"description": "There is no such thing, or it cannot be told so", "content": _PROBLEM},
}
# What a breaker is said to be when workers differ: the state that keeps most requests out.
_WORST = ("forced_open", "open", "half_open", "metrics_only", "disabled", "closed")


def add_traffic(router: APIRouter, control: Control) -> None:
    @router.get("/api/traffic", tags=["traffic"], responses=_REFUSED)
    async def traffic() -> dict[str, Any]:
        """What traffic policies know, worker by worker: everything, for programs."""
        await control.hub.refresh()
        return {f"worker-{index}": policies for index, policies in policies_of(control)}

    @router.post("/api/instances", tags=["instances"], status_code=202, responses=_REFUSED)
    async def instance(request: Request, order: models.InstanceOrder) -> Ordered:
        """Take an instance out of work, or put it back in: the same as `drain` and `undrain`."""
        given = give(
            control.orders.instance,
            request,
            order.service,
            order.instance,
            out=order.out,
            why=order.why,
        )
        done = "is taken out" if order.out else "may serve again"
        message = f"{order.instance} of {order.service} {done}"
        return await ordered(control, request, message, given)

    @router.get("/api/splits", tags=["traffic"], responses=_REFUSED)
    async def splits() -> list[SplitState]:
        """Every split, with the shares as they are now."""
        await control.hub.refresh()
        return _splits(control)

    @router.post("/api/splits", tags=["traffic"], status_code=202, responses=_REFUSED)
    async def split(request: Request, order: models.SplitOrder) -> Ordered:
        """Move traffic between the services of a split route, at once or over a time."""
        given = give(
            control.orders.split,
            request,
            order.route,
            order.source,
            order.target,
            order.share,
            held(order.over) or 0.0,
        )
        message = f"{order.route}: {order.source} to {order.target}"
        return await ordered(control, request, message, given)

    @router.get("/api/flags", tags=["traffic"], responses=_REFUSED)
    async def flags() -> list[FlagRow]:
        """Every feature that routes ask for, and for which share of clients it is on."""
        await control.hub.refresh()
        return _flags(control)

    @router.post("/api/flags", tags=["traffic"], status_code=202, responses=_REFUSED)
    async def flag(request: Request, order: models.FlagOrder) -> Ordered:
        """Switch a feature on, off, or on for a share of clients."""
        hold = held(order.hold)
        given = give(control.orders.flag, request, order.name, order.share, hold, order.why)
        said = "is left to the file" if order.share is None else f"is on for {order.share:.0%}"
        return await ordered(control, request, f"flag {order.name} {said}", given)

    @router.get("/api/degrade", tags=["traffic"], responses=_REFUSED)
    async def degraded() -> list[LevelState]:
        """The level of degradation, worker by worker, and what brought it about."""
        await control.hub.refresh()
        return [
            LevelState(worker=index, **policies["degrade"])
            for index, policies in policies_of(control)
            if policies.get("degrade") is not None
        ]

    @router.post("/api/degrade", tags=["traffic"], status_code=202, responses=_REFUSED)
    async def degrade(request: Request, order: models.LevelOrder) -> Ordered:
        """Set the level of degradation by hand, or leave it to breakers and load again."""
        given = give(control.orders.level, request, order.level, held(order.hold), order.why)
        said = "left to breakers and load" if order.level is None else str(order.level)
        return await ordered(control, request, f"level {said}", given)


class SplitState(models.Answer):
    route: str
    id: str
    of_file: dict[str, float]
    """Shares as the file says them."""
    now: dict[str, float]
    """The mean of the workers."""
    orders: list[str] = Field(default_factory=list)


class FlagRow(models.Answer):
    name: str
    routes: list[str]
    orders: list[str] = Field(default_factory=list)
    share: float | None = None
    """By an order; null: as the file or a level says."""


class LevelState(models.Answer):
    worker: int
    level: int
    name: str
    measures: list[str]
    off: list[str]
    reasons: list[dict[str, Any]]


def _splits(control: Control) -> list[SplitState]:
    rows = []
    seen = [policies["splits"] for _, policies in policies_of(control)]
    for route in control.plan().routes:
        if route.split is None:
            continue
        id_ = route.split.id
        parts = route.split.rules.parts
        whole = sum(weight for _, weight in parts)
        told = [shares[id_] for shares in seen if id_ in shares]
        rows.append(
            SplitState(
                route=route.name,
                id=id_,
                of_file={name: round(weight / whole, 6) for name, weight in parts},
                now={
                    name: round(sum(each[name] for each in told) / len(told), 6)
                    for name, _ in parts
                    if told
                },
                orders=standing_of(control, what="split", id=id_),
            )
        )
    return rows


def _flags(control: Control) -> list[FlagRow]:
    plan = control.plan()
    names = {route.flag for route in plan.routes if route.flag}
    if plan.degrade is not None:
        names |= {flag for flag, _ in plan.degrade.flags}
    said = {
        given.order["name"]: given.order["share"]
        for given in control.orders.standing()
        if given.order["what"] == "flag"
    }
    return [
        FlagRow(
            name=name,
            routes=[route.name for route in plan.routes if route.flag == name],
            orders=standing_of(control, what="flag", name=name),
            share=said.get(name),
        )
        for name in sorted(names)
    ]


def policies_of(control: Control) -> list[tuple[int, dict[str, Any]]]:
    return [
        (link.index, link.snapshot["policies"])
        for link in sorted(control.hub.links.values(), key=lambda link: link.index)
        if link.snapshot is not None and "policies" in link.snapshot
    ]


def services_of(control: Control) -> list[models.ServiceState]:
    workers = policies_of(control)
    checked = {(c.service, c.instance): c.in_words for c in control.health_checks.snapshot()}
    made = []
    for name, plan in control.plan().services.items():
        out: dict[str, list[str]] = defaultdict(list)
        in_flight: dict[str, int] = defaultdict(int)
        for _, policies in workers:
            said = policies["services"].get(name)
            if said is None:
                continue
            for url, why in said["out"].items():
                out[url].append(why)
            for member in said["group"]["members"]:
                in_flight[member["id"]] += member["in_flight"]
        listed = {one.url: one for one in control.registry.book.of(name)}
        made.append(
            models.ServiceState(
                name=name,
                balance=plan.balance,
                instances=[
                    models.InstanceState(
                        url=instance.url,
                        weight=instance.weight,
                        priority=instance.priority,
                        zone=instance.zone,
                        in_flight=in_flight[instance.url],
                        workers_out=len(out[instance.url]),
                        why_out=out[instance.url][0] if out[instance.url] else None,
                        health=checked.get((name, instance.url)),
                        **_listed(listed.get(instance.url)),
                    )
                    for instance in plan.instances
                ],
            )
        )
    return made


def _listed(one: Instance | None) -> dict[str, Any]:
    """What the registry says of an instance."""
    if one is None:
        return {}
    return {
        "source": one.source,
        "id": one.id,
        "version": one.version,
        "listed": one.state,
        "says": one.health,
        "since": one.since or None,
    }


def instances_out(control: Control, route: str | None) -> list[str]:
    """A line for each instance of a route's services that does not serve, for `explain`."""
    found = next((known for known in control.plan().routes if known.name == route), None)
    if found is None:
        return []
    services = found.services
    return [
        f"{instance.url} is out in {instance.workers_out} of {len(control.hub.links)} workers: "
        f"{instance.why_out}"
        for state in services_of(control)
        if state.name in services
        for instance in state.instances
        if instance.why_out is not None
    ]


def breakers_of(control: Control) -> list[models.BreakerState]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    by_worker: dict[str, dict[str, str]] = defaultdict(dict)
    for index, policies in policies_of(control):
        for service in policies["services"].values():
            for breaker in service["breakers"]:
                found[breaker["name"]].append(breaker)
                by_worker[breaker["name"]][f"worker-{index}"] = breaker["state"]
    made = []
    for name, states in sorted(found.items()):
        worst = min(states, key=lambda state: _WORST.index(state["state"]))
        made.append(
            models.BreakerState(
                name=name,
                state=worst["state"],
                failure_rate=max(state["failure_rate"] for state in states),
                slow_rate=max(state["slow_rate"] for state in states),
                calls=sum(state["calls"] for state in states),
                rejected_total=sum(state["rejected_total"] for state in states),
                retry_after_s=max(state["retry_after_s"] for state in states),
                history=[
                    models.BreakerMove(
                        before=moved["before"], after=moved["after"], why=moved["why"]
                    )
                    for moved in worst["history"]
                ],
                failed=sum(state["failed"] for state in states),
                slow=sum(state["slow"] for state in states),
                trials=sum(state["trials_out"] for state in states),
                states=by_worker[name],
                orders=standing_of(control, what="breaker", name=name),
            )
        )
    return made


def limits_of(control: Control) -> list[models.LimitState]:
    found: dict[str, dict[str, Any]] = {}
    for _, policies in policies_of(control):
        for name, limit in policies["limits"].items():
            known = found.setdefault(
                name, {"allowed": 0, "refused": 0, "shadowed": 0, "keys": 0, "home": limit["home"]}
            )
            for what in ("allowed", "refused", "shadowed", "keys"):
                known[what] += limit[what]
    for rule in control.shared.snapshot()["rules"]:
        if rule["rule"] in found:
            # Workers remember only what they lease; the home of this machine knows every key.
            found[rule["rule"]]["keys"] = rule["keys"]
    return [models.LimitState(id=name, **counts) for name, counts in sorted(found.items())]

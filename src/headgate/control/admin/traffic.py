"""The part of the admin API about traffic: instances, breakers, limits, splits, flags."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from fastapi import APIRouter

from headgate.control.admin import models
from headgate.control.admin.problem import MEDIA_TYPE, Problem
from headgate.control.control import Control
from headgate.control.orders import OrderRefused
from headgate.units import UnitError, parse_duration

__all__ = ["add_traffic", "instances_out", "services_of"]

_PROBLEM = {MEDIA_TYPE: {"schema": {"type": "object"}}}
_REFUSED: dict[int | str, dict[str, Any]] = {
    401: {"description": "The token is missing or wrong", "content": _PROBLEM},
    422: {"description": "There is no such thing, or it cannot be told so", "content": _PROBLEM},
}
# What a breaker is said to be when workers differ: the state that keeps most requests out.
_WORST = ("forced_open", "open", "half_open", "metrics_only", "disabled", "closed")


def add_traffic(router: APIRouter, control: Control) -> None:
    @router.get("/api/services", tags=["traffic"], responses=_REFUSED)
    async def services() -> list[models.ServiceState]:
        """Every service with its instances: who serves, who is out, since when and why."""
        await control.hub.refresh()
        return services_of(control)

    @router.get("/api/traffic", tags=["traffic"], responses=_REFUSED)
    async def traffic() -> dict[str, Any]:
        """What traffic policies know, worker by worker: everything, for programs."""
        await control.hub.refresh()
        return {f"worker-{index}": policies for index, policies in _policies(control)}

    @router.post("/api/instances", tags=["traffic"], status_code=202, responses=_REFUSED)
    async def instance(order: models.InstanceOrder) -> models.Accepted:
        """Take an instance out of work, or put it back in."""
        _order(control.orders.instance, order.service, order.instance, out=order.out, why=order.why)
        done = "is taken out" if order.out else "may serve again"
        return models.Accepted(message=f"{order.instance} of {order.service} {done}")

    @router.get("/api/breakers", tags=["traffic"], responses=_REFUSED)
    async def breakers() -> list[models.BreakerState]:
        """Every circuit breaker; of several workers the worst state."""
        await control.hub.refresh()
        return _breakers(control)

    @router.post("/api/breakers", tags=["traffic"], status_code=202, responses=_REFUSED)
    async def breaker(order: models.BreakerOrder) -> models.Accepted:
        """Force a breaker open or closed, switch it off, or give it back to its rules."""
        _order(control.orders.breaker, order.name, order.do, order.why)
        return models.Accepted(message=f"{order.name}: {order.do}")

    @router.get("/api/limits", tags=["traffic"], responses=_REFUSED)
    async def limits() -> list[models.LimitState]:
        """Every rate limit with what it decided; of all workers together."""
        await control.hub.refresh()
        return _limits(control)

    @router.post("/api/splits", tags=["traffic"], status_code=202, responses=_REFUSED)
    async def split(order: models.SplitOrder) -> models.Accepted:
        """Move traffic between the services of a split route, at once or over a time."""
        _order(
            control.orders.split,
            order.route,
            order.source,
            order.target,
            order.share,
            _seconds(order.over) or 0.0,
        )
        return models.Accepted(message=f"{order.route}: {order.source} to {order.target}")

    @router.post("/api/flags", tags=["traffic"], status_code=202, responses=_REFUSED)
    async def flag(order: models.FlagOrder) -> models.Accepted:
        """Switch a feature on, off, or on for a share of clients."""
        _order(control.orders.flag, order.name, order.share, _seconds(order.hold), order.why)
        return models.Accepted(message=f"flag {order.name}")

    @router.post("/api/degrade", tags=["traffic"], status_code=202, responses=_REFUSED)
    async def degrade(order: models.LevelOrder) -> models.Accepted:
        """Set the level of degradation by hand, or leave it to breakers and load again."""
        _order(control.orders.level, order.level, _seconds(order.hold), order.why)
        return models.Accepted(message=f"level {order.level}")


def _order(order: Any, *args: Any, **named: Any) -> None:
    try:
        order(*args, **named)
    except OrderRefused as error:
        raise Problem(422, str(error)) from error


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return parse_duration(text)
    except UnitError as error:
        raise Problem(422, str(error)) from error


def _policies(control: Control) -> list[tuple[int, dict[str, Any]]]:
    return [
        (link.index, link.snapshot["policies"])
        for link in sorted(control.hub.links.values(), key=lambda link: link.index)
        if link.snapshot is not None and "policies" in link.snapshot
    ]


def services_of(control: Control) -> list[models.ServiceState]:
    workers = _policies(control)
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
                    )
                    for instance in plan.instances
                ],
            )
        )
    return made


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


def _breakers(control: Control) -> list[models.BreakerState]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for _, policies in _policies(control):
        for service in policies["services"].values():
            for breaker in service["breakers"]:
                found[breaker["name"]].append(breaker)
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
            )
        )
    return made


def _limits(control: Control) -> list[models.LimitState]:
    found: dict[str, dict[str, Any]] = {}
    for _, policies in _policies(control):
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

"""What an operator tells traffic policies at run time: breakers, instances, splits, flags, levels.

Theory of operation. An order is judged here against the plan that serves (is there such a breaker?)
and then told on the shared board, where every worker takes it (`gateway.states`). It is retained
there under its subject, so that a worker that starts later hears it too; taking an order back is an
order as well, and replaces the first. Orders belong to a run of the gateway, not to the file: a
restart of everything begins without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from headgate.config.faults import did_you_mean
from headgate.errors import HeadgateError
from headgate.plan.plan import Plan

__all__ = ["BREAKER_ORDERS", "BreakerOrder", "OrderRefused", "Orders"]

BreakerOrder = Literal["open", "close", "disable", "metrics_only", "automatic"]
BREAKER_ORDERS: Final = ("open", "close", "disable", "metrics_only", "automatic")


_STEPS_MAX: Final = 50


class OrderRefused(HeadgateError):
    """What was named does not exist, or cannot be told so."""


@dataclass(frozen=True, slots=True)
class Orders:
    plan: Callable[[], Plan]
    tell: Callable[[dict[str, Any], str], None]
    """Publish an order under its subject."""
    _shifts: dict[str, tuple[list[list[Any]], list[dict[str, Any]]]] = field(default_factory=dict)

    def breaker(self, name: str, do: BreakerOrder, why: str) -> None:
        """`name` is a service's, or a service's and an instance's URL after a space."""
        known = breaker_names(self.plan())
        if name not in known:
            raise _unknown("circuit breaker", name, known)
        self._tell({"what": "breaker", "name": name, "do": do, "why": why}, f"breaker {name}")

    def instance(self, service: str, instance: str, *, out: bool, why: str) -> None:
        """Take an instance out of work, or put it back."""
        plan = self.plan().services.get(service)
        if plan is None:
            raise _unknown("service", service, list(self.plan().services))
        urls = [known.url for known in plan.instances]
        if instance not in urls:
            raise _unknown(f"instance of {service}", instance, urls)
        if len(urls) == 1:
            raise OrderRefused(
                f"{instance} is the only instance of {service}; change the file instead"
            )
        order = {
            "what": "instance",
            "service": service,
            "instance": instance,
            "out": out,
            "why": why,
        }
        self._tell(order, f"instance {service} {instance}")

    def split(self, route: str, source: str, target: str, share: float, over_s: float) -> None:
        """Move a share of one service's traffic to another, at once or little by little."""
        found = {known.name: known.split for known in self.plan().routes if known.split}
        split = found.get(route)
        if split is None:
            raise _unknown("route with a split", route, list(found))
        parts = [name for name, _ in split.rules.parts]
        for part in (source, target):
            if part not in parts:
                raise _unknown(f"service of {route}'s split", part, parts)
        if source == target:
            raise OrderRefused("source and target are the same service")
        _check_share(share)
        # A worker that starts later must come to the same shares, so all steps are told, and what
        # they begin with: a reload that changes the parts in the file ends them.
        parts_now = [list(part) for part in split.rules.parts]
        said_for, steps = self._shifts.get(split.id, (parts_now, []))
        if said_for != parts_now:
            steps = []
        if len(steps) >= _STEPS_MAX:
            raise OrderRefused(
                f"{route} has been shifted {_STEPS_MAX} times; write the shares into the file"
            )
        step = {"source": source, "target": target, "share": share, "over_s": over_s}
        self._shifts[split.id] = (parts_now, [*steps, step])
        order = {"what": "split", "id": split.id, "parts": parts_now, "steps": [*steps, step]}
        self._tell(order, f"split {split.id}")

    def hear(self, order: Mapping[str, Any]) -> None:
        """An order that was given elsewhere: later steps of a split follow upon its own."""
        if order.get("what") == "split":
            self._shifts[str(order["id"])] = (order["parts"], list(order["steps"]))

    def flag(self, name: str, share: float | None, for_s: float | None, why: str) -> None:
        """Switch a feature on (1), off (0) or on for a share; None gives it back to the file."""
        plan = self.plan()
        known = {route.flag for route in plan.routes if route.flag}
        if plan.degrade is not None:
            known |= {flag for flag, _ in plan.degrade.flags}
        if name not in known:
            raise _unknown("flag", name, sorted(known))
        if share is not None:
            _check_share(share)
        _check_hold(for_s)
        order = {"what": "flag", "name": name, "share": share, "for_s": for_s, "why": why}
        self._tell(order, f"flag {name}")

    def level(self, level: int | None, for_s: float | None, why: str) -> None:
        """Set the degradation level by hand; None ends that."""
        degrade = self.plan().degrade
        if degrade is None:
            raise OrderRefused("the file says nothing about `degrade`; add it to use levels")
        if level is not None and not 0 <= level < len(degrade.levels):
            raise OrderRefused(
                f"there is no level {level}; the highest is {len(degrade.levels) - 1}"
            )
        _check_hold(for_s)
        self._tell({"what": "level", "level": level, "for_s": for_s, "why": why}, "level")

    def _tell(self, order: Mapping[str, Any], subject: str) -> None:
        self.tell(dict(order), subject)


def breaker_names(plan: Plan) -> list[str]:
    names: list[str] = []
    for service in plan.services.values():
        if service.breaker is None:
            continue
        if service.breaker.per == "service":
            names.append(service.name)
        else:
            names.extend(f"{service.name} {instance.url}" for instance in service.instances)
    return names


def _check_share(share: float) -> None:
    if not 0.0 <= share <= 1.0:
        raise OrderRefused(f"{share:g} is no share; write a number from 0 to 1")


def _check_hold(for_s: float | None) -> None:
    if for_s is not None and for_s <= 0.0:
        raise OrderRefused("what holds for no time has no effect; write a longer `hold`")


def _unknown(kind: str, name: str, known: list[str]) -> OrderRefused:
    near = did_you_mean(name, known)
    if not near:
        near = f"known: {', '.join(known[:10])}" if known else f"there is no {kind} in the file"
    return OrderRefused(f'no {kind} named "{name[:100]}"; {near}')

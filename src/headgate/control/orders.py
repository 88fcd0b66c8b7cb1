"""What an operator tells traffic policies at run time: breakers, instances, splits, flags, levels.

Theory of operation. An order is judged here against the plan that serves (is there such a breaker?)
and then told on the shared board, where every worker takes it (`gateway.news`). It is retained
there under its subject, so that a worker that starts later hears it too; taking an order back is an
order as well, and replaces the first. Orders belong to a run of the gateway, not to the file: a
restart of everything begins without them.

What was told is kept in a book, by the subject's id: the same subject has the same id always, so an
order that is given twice stands once. Control keeps nothing on disk: after a new start it hears
from the workers what is retained, and the book is as it was. An order that is over, or that the
file has overtaken, stands no more and is left out when somebody asks.

An order has a revision, the wall time at which it was given, by which workers tell one they have
taken from a newer one, and operators how many workers have taken it.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from headgate.config.faults import did_you_mean
from headgate.errors import HeadgateError
from headgate.plan.plan import Plan, ServicePlan

__all__ = ["BREAKER_ORDERS", "BreakerOrder", "Given", "NoSuchThing", "OrderRefused", "Orders"]

BreakerOrder = Literal["open", "close", "disable", "metrics_only", "automatic", "reset"]
BREAKER_ORDERS: Final = ("open", "close", "disable", "metrics_only", "automatic", "reset")

log = logging.getLogger("headgate.control")

_STEPS_MAX: Final = 50
_KEPT: Final = 10_000
_HOLD_MAX_S: Final = 366 * 86400.0
_EJECT_MAX_S: Final = 86400.0
WEIGHT_MAX: Final = 1000
_OF_ITSELF: Final = frozenset({"order", "at", "by", "until"})
"""What an order says of itself and not of what is to be done."""


class OrderRefused(HeadgateError):
    """What was named does not exist, or cannot be told so."""


class NoSuchThing(OrderRefused):
    """What was named does not exist."""


@dataclass(frozen=True, slots=True)
class Given:
    """An order as it stands."""

    id: str
    subject: str
    order: Mapping[str, Any]
    is_new: bool
    """False: it stood so already, and nobody was told again."""


class Orders:
    def __init__(
        self,
        plan: Callable[[], Plan],
        tell: Callable[[dict[str, Any], str | None], None],
        wall: Callable[[], float] = time.time,  # noqa: TID251  told between machines
    ) -> None:
        self.plan = plan
        self._publish = tell
        """Publish an order under its subject."""
        self._wall = wall
        self._book: dict[str, tuple[str, dict[str, Any]]] = {}
        self._last_at = 0.0
        self._by = ""
        self.on_change: Callable[[], None] = lambda: None
        """Called when what stands may have changed."""

    # -- giving --------------------------------------------------------------------------------

    def breaker(
        self, name: str, do: BreakerOrder, why: str, *, for_s: float | None = None, by: str = ""
    ) -> Given:
        """`name` is a service's, or a service's and an instance's URL after a space."""
        known = breaker_names(self.plan())
        if name not in known:
            raise _unknown("circuit breaker", name, known)
        order = {"what": "breaker", "name": name, "do": do, "why": why}
        return self._tell(order, for_s, by, always=do in ("close", "reset"))

    def instance(
        self,
        service: str,
        instance: str,
        *,
        out: bool,
        why: str,
        for_s: float | None = None,
        by: str = "",
        force: bool = False,
    ) -> Given:
        """Take an instance out of work, or put it back."""
        plan = self._has(service, instance)
        if out and not force:
            self._leaves_one(plan, instance)
        what = {"what": "instance", "service": service, "instance": instance}
        return self._tell({**what, "out": out, "why": why}, for_s, by)

    def eject(
        self,
        service: str,
        instance: str,
        *,
        out: bool,
        why: str,
        for_s: float | None = None,
        by: str = "",
    ) -> Given:
        """Put an instance out for a while, as if for its answers; or let it in before its time."""
        plan = self._has(service, instance)
        if out:
            if for_s is None or for_s > _EJECT_MAX_S:
                raise OrderRefused("an ejection has an end, within a day; drain it to keep it out")
            self._leaves_one(plan, instance)
        what = {"what": "eject", "service": service, "instance": instance}
        return self._tell(
            {**what, "out": out, "readmit": not out, "why": why},
            for_s if out else None,
            by,
            always=not out,
        )

    def weight(
        self,
        service: str,
        instance: str,
        weight: int | None,
        *,
        why: str,
        for_s: float | None = None,
        by: str = "",
    ) -> Given:
        """Another weight than the file's, until it is taken back or the file says another."""
        plan = self._has(service, instance)
        if weight is not None and not 0 <= weight <= WEIGHT_MAX:
            raise OrderRefused(f"{weight} is no weight; write a whole number up to {WEIGHT_MAX}")
        if weight == 0:
            raise OrderRefused("a weight of 0 takes it out of work; drain it instead")
        if len(plan.instances) == 1 and weight is not None:
            raise OrderRefused(f"{instance} is the only instance of {service}; it has all there is")
        of_file = next(known.weight for known in plan.instances if known.url == instance)
        what = {"what": "weight", "service": service, "instance": instance, "why": why}
        return self._tell({**what, "weight": weight, "of_file": of_file}, for_s, by)

    def split(
        self, route: str, source: str, target: str, share: float, over_s: float, by: str = ""
    ) -> Given:
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
        _, before = self._book.get(_id_of(f"split {split.id}"), ("", {}))
        steps = before.get("steps", []) if before.get("parts") == parts_now else []
        if len(steps) >= _STEPS_MAX:
            raise OrderRefused(
                f"{route} has been shifted {_STEPS_MAX} times; write the shares into the file"
            )
        step = {"source": source, "target": target, "share": share, "over_s": over_s}
        order = {"what": "split", "id": split.id, "parts": parts_now, "steps": [*steps, step]}
        return self._tell(order, None, by, always=True)

    def flag(
        self, name: str, share: float | None, for_s: float | None, why: str, by: str = ""
    ) -> Given:
        """Switch a feature on (1), off (0) or on for a share; None gives it back to the file."""
        plan = self.plan()
        known = {route.flag for route in plan.routes if route.flag}
        if plan.degrade is not None:
            known |= {flag for flag, _ in plan.degrade.flags}
        if name not in known:
            raise _unknown("flag", name, sorted(known))
        if share is not None:
            _check_share(share)
        order = {"what": "flag", "name": name, "share": share, "for_s": for_s, "why": why}
        return self._tell(order, for_s, by)

    def level(self, level: int | None, for_s: float | None, why: str, by: str = "") -> Given:
        """Set the degradation level by hand; None ends that."""
        degrade = self.plan().degrade
        if degrade is None:
            raise OrderRefused("the file says nothing about `degrade`; add it to use levels")
        if level is not None and not 0 <= level < len(degrade.levels):
            raise OrderRefused(
                f"there is no level {level}; the highest is {len(degrade.levels) - 1}"
            )
        order = {"what": "level", "level": level, "for_s": for_s, "why": why}
        return self._tell(order, for_s, by)

    def limit_key(self, limit: str, key: str) -> None:
        """Tell workers to forget what a key has used. It happens once, and is not kept."""
        self._publish({"what": "limit", "id": limit, "key": key}, None)

    # -- those that stand ----------------------------------------------------------------------

    def standing(self) -> list[Given]:
        """Orders that hold now, the oldest first."""
        wall = self._wall()
        plan = self.plan()
        return sorted(
            (
                Given(id_, subject, order, is_new=False)
                for id_, (subject, order) in self._book.items()
                if _stands(order, wall, plan)
            ),
            key=lambda given: float(given.order.get("at", 0.0)),
        )

    def one(self, name: str) -> Given:
        """By its id, or by its subject, as lists show them."""
        standing = self.standing()
        for given in standing:
            if name in (given.id, given.subject):
                return given
        raise _unknown("order that stands", name, [given.id for given in standing])

    def withdraw(self, name: str, by: str = "") -> Given:
        """End an order: what it is about goes by the file and its own rules again."""
        given = self.one(name)
        order = {key: said for key, said in given.order.items() if key not in _OF_ITSELF}
        match order["what"]:
            case "breaker":
                order["do"] = "automatic"
            case "instance" | "eject":
                order["out"] = order["readmit"] = False
            case "weight":
                order["weight"] = None
            case "split":
                order["steps"] = []
            case "flag":
                order["share"] = None
            case _:
                order["level"] = None
        if "for_s" in order:
            order["for_s"] = None
        return self._tell({**order, "why": "withdrawn"}, None, by, always=True)

    def settle(self) -> None:
        """After a reload: end what the file has overtaken, so that it does not come back when the
        file says again what it said before.
        """
        if not self._book:
            return
        plan = self.plan()
        for subject, order in list(self._book.values()):
            if order.get("what") != "weight" or order.get("weight") is None:
                continue
            service = plan.services.get(str(order.get("service")))
            of_file = {each.url: each.weight for each in service.instances} if service else {}
            if of_file.get(str(order.get("instance"))) in (None, order.get("of_file")):
                continue
            said = {key: value for key, value in order.items() if key not in _OF_ITSELF}
            log.info("%s is over: the file says another weight", subject)
            self._tell({**said, "weight": None, "why": "the file says another"}, None, "the file")

    def hear(self, order: Mapping[str, Any]) -> None:
        """An order that was given elsewhere, or before this process began."""
        subject = subject_of(order)
        if subject is not None:
            self._keep(subject, dict(order))

    def _keep(self, subject: str, order: dict[str, Any]) -> str:
        id_ = _id_of(subject)
        self._book.pop(id_, None)
        self._book[id_] = (subject, order)
        if len(self._book) > _KEPT:
            del self._book[next(iter(self._book))]
        self.on_change()
        return id_

    def _tell(
        self, order: dict[str, Any], for_s: float | None, by: str, *, always: bool = False
    ) -> Given:
        """Tell it, unless it stands so already: one with an end begins anew."""
        _check_hold(for_s)
        subject = subject_of(order)
        if subject is None:
            raise RuntimeError("an order has a subject")
        wall = self._wall()
        _, before = self._book.get(_id_of(subject), ("", {}))
        if not always and for_s is None and before.get("until") is None and _same(order, before):
            return Given(_id_of(subject), subject, before, is_new=False)
        # Later than any before it, whatever the clock of the machine has done.
        at = max(wall, self._last_at + 1e-3, float(before.get("at", 0.0)) + 1e-3)
        self._last_at = at
        until = wall + for_s if for_s is not None else None
        made = {**order, "order": _id_of(subject), "at": at, "by": by, "until": until}
        self._keep(subject, made)
        self._publish(made, subject)
        return Given(_id_of(subject), subject, made, is_new=True)

    # -- judging -------------------------------------------------------------------------------

    def _has(self, service: str, instance: str) -> ServicePlan:
        plan = self.plan().services.get(service)
        if plan is None:
            raise _unknown("service", service, list(self.plan().services))
        urls = [known.url for known in plan.instances]
        if instance not in urls:
            raise _unknown(f"instance of {service}", instance, urls)
        return plan

    def _leaves_one(self, plan: ServicePlan, instance: str) -> None:
        """Refuse what would leave nobody to serve."""
        if len(plan.instances) == 1:
            raise OrderRefused(
                f"{instance} is the only instance of {plan.name}; "
                "start another first, or drain it with `force`"
            )
        out = {
            given.order["instance"]
            for given in self.standing()
            if given.order["what"] in ("instance", "eject") and given.order["service"] == plan.name
        }
        left = [one.url for one in plan.instances if one.weight and one.url not in out]
        if left in ([], [instance]):
            raise OrderRefused(
                f"{instance} is the last instance of {plan.name} that is in work; "
                "put another one back first"
            )


def subject_of(order: Mapping[str, Any]) -> str | None:
    """What an order is about; a later one with the same subject replaces it."""
    match order.get("what"):
        case "breaker" | "flag" as what:
            return f"{what} {order['name']}"
        case "instance" | "eject" | "weight" as what:
            return f"{what} {order['service']} {order['instance']}"
        case "split":
            return f"split {order['id']}"
        case "level":
            return "level"
        case _:
            return None


def _id_of(subject: str) -> str:
    digest = hashlib.blake2b(subject.encode("utf-8", "surrogatepass"), digest_size=4)
    return f"{subject.partition(' ')[0]}-{digest.hexdigest()}"


def _same(order: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    return order == {key: said for key, said in before.items() if key not in _OF_ITSELF}


def _stands(order: Mapping[str, Any], wall: float, plan: Plan) -> bool:
    """Whether an order changes anything still."""
    until = order.get("until")
    if until is not None and float(until) <= wall:
        return False
    match order.get("what"):
        case "breaker":
            return order.get("do") in ("open", "disable", "metrics_only")
        case "instance" | "eject":
            return bool(order.get("out"))
        case "weight":
            service = plan.services.get(str(order.get("service")))
            of_file = {each.url: each.weight for each in service.instances} if service else {}
            said = of_file.get(str(order.get("instance")))
            # Of an instance that the file has no more it is kept: it may come back.
            return order.get("weight") is not None and said in (None, order.get("of_file"))
        case "split":
            parts = {
                route.split.id: [list(part) for part in route.split.rules.parts]
                for route in plan.routes
                if route.split is not None
            }
            return bool(order.get("steps")) and parts.get(str(order.get("id"))) == order["parts"]
        case "flag":
            return order.get("share") is not None
        case "level":
            return order.get("level") is not None
        case _:
            return False


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
    if for_s is not None and for_s > _HOLD_MAX_S:
        raise OrderRefused("nothing is held for longer than 366 days; leave `hold` out")


def no_such(kind: str, name: str, known: list[str]) -> NoSuchThing:
    near = did_you_mean(name, known)
    if not near:
        near = f"known: {', '.join(known[:10])}" if known else f"there is no {kind} in the file"
    return NoSuchThing(f'no {kind} named "{name[:100]}"; {near}')


_unknown = no_such

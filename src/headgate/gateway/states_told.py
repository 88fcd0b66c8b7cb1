"""How traffic policies stand in one worker, for control and for metrics.

Theory of operation. With thousands of instances this is a lot to say, and requests are served by
the same loop; so it is said in steps of a fraction of a millisecond, between which services and
instances may come and go: what a step tells was so when it was told.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import asdict, fields
from operator import attrgetter
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from headgate.gateway.traffic import TrafficStats
from headgate.policy.balancer.group import MemberSnapshot, seen
from headgate.policy.breaker import BreakerSnapshot
from headgate.policy.outlier import OutlierMember

if TYPE_CHECKING:
    from headgate.gateway.service import ServiceState
    from headgate.gateway.states import States
    from headgate.observe import Rows
    from headgate.policy.balancer import Member

__all__ = ["rows_steps", "told_steps"]

_STEP: Final = 40
_STATES_OF_BREAKER: Final = (
    "closed",
    "open",
    "half_open",
    "forced_open",
    "disabled",
    "metrics_only",
)
_FIELDS: Final = {
    kind: tuple(field.name for field in fields(kind))
    for kind in (MemberSnapshot, BreakerSnapshot, OutlierMember)
}
_VALUES: Final = {kind: attrgetter(*names) for kind, names in _FIELDS.items()}


def told_steps(states: States, now: float) -> Generator[None, None, dict[str, Any]]:
    services = {}
    for name, service in list(states.services.items()):
        services[name] = yield from _service_steps(service, now)
    return {
        "services": services,
        "orders": states.news.taken(),
        "budgets": {name: asdict(budget.snapshot(now)) for name, budget in states.budgets.items()},
        "limits": {
            name: {
                "allowed": limit.allowed,
                "refused": limit.refused,
                "shadowed": limit.shadowed,
                "keys": limit.keys(),
                "home": "worker" if limit.home is None else "shared",
            }
            for name, limit in states.limits.items()
        },
        "concurrency": {
            name: asdict(gate.bulkhead.snapshot(now)) for name, gate in states.gates.items()
        },
        "splits": {name: split.weights_at(now) for name, split in states.splits.items()},
        "degrade": asdict(states.degrade.answer(now)) if states.degrade is not None else None,
    }


def _service_steps(service: ServiceState, now: float) -> Generator[None, None, dict[str, Any]]:
    members = []
    by, tiers = service.group.tiers(now)
    those_now = service.group.members
    for at in _steps(len(those_now)):
        members += [_flat(each) for each in seen(those_now[at : at + _STEP], now)]
        yield
    breakers = []
    every = service.all_breakers()
    for at in _steps(len(every)):
        for breaker in every[at : at + _STEP]:
            said = _flat(breaker.snapshot(now))
            said["history"] = [asdict(moved) for moved in said["history"]]
            breakers.append(said)
        yield
    outlier: dict[str, Any] | None = None
    if service.outlier is not None:
        whole = service.outlier.snapshot(now)
        yield
        judged: list[dict[str, Any]] = []
        for at in _steps(len(whole.members)):
            judged += [_flat(each) for each in whole.members[at : at + _STEP]]
            yield
        outlier = {"ejected": whole.ejected, "most": whole.most, "members": judged}
    sources: Iterable[dict[str, str]] = (
        dict.fromkeys(service.unchecked, "not checked yet"),
        service.ejected,
        service.put_out,
        service.down,
        {url: "it is leaving" for url in service.leaving if _is_out(service, url)},
        service.drained,
    )
    return {
        "group": {"by": by, "tiers": [asdict(tier) for tier in tiers], "members": members},
        "breakers": breakers,
        "outlier": outlier,
        "out": {url: why for source in sources for url, why in source.items()},
        "weights": {url: said[0] for url, said in service.weights.items()},
    }


def _is_out(service: ServiceState, url: str) -> bool:
    member = service.group.member(url)
    return member is not None and member.drained


def _steps(count: int) -> Iterable[int]:
    return range(0, count, _STEP)


def _flat(said: Any) -> dict[str, Any]:
    """A value without values in it, ten times as fast as `asdict`."""
    kind = said.__class__
    return dict(zip(_FIELDS[kind], _VALUES[kind](said), strict=True))


def _take_done(service: ServiceState, member: Member) -> None:
    """What a member has done is kept with the figures of its instance, which outlive it. They are
    shown from the next snapshot on.
    """
    line = service.line_of.get(member.id)
    if member.done and line is not None:
        stats = line.stats
        stats.attempts += member.done
        stats.attempts_s += member.done_s
        member.done, member.done_s = 0, 0.0


def rows_steps(states: States, rows: Rows) -> Iterator[None]:
    """Rows of metrics."""
    now = monotonic()
    usable, drained = rows["headgate_instance_usable"], rows["headgate_instance_drained"]
    state_rows, rejected = rows["headgate_breaker_state"], rows["headgate_breaker_rejected_total"]
    for name, service in list(states.services.items()):
        every = service.all_breakers()
        for at in _steps(len(every)):
            for breaker in every[at : at + _STEP]:
                labels = [name, breaker.name.removeprefix(name).strip()]
                is_now = breaker.state_at(now)
                state_rows += [
                    ([*labels, state], int(is_now == state)) for state in _STATES_OF_BREAKER
                ]
                rejected.append((labels, breaker.rejected_total))
            yield
        members = service.group.members
        for at in _steps(len(members)):
            for member in members[at : at + _STEP]:
                _take_done(service, member)
                labels = [name, member.id]
                usable.append((labels, int(member.usable and not member.drained)))
                drained.append((labels, int(member.drained)))
            yield
    for name, limit in states.limits.items():
        for outcome in ("allowed", "refused", "shadowed"):
            rows["headgate_limit_decisions_total"].append(
                ([name, outcome], getattr(limit, outcome))
            )
        rows["headgate_limit_keys"].append(([name], limit.keys()))
    for name, gate in states.gates.items():
        seats = gate.bulkhead.snapshot(now)
        rows["headgate_concurrency_limit"].append(([name], seats.limit))
        rows["headgate_concurrency_in_flight"].append(([name], seats.in_flight))
        rows["headgate_concurrency_waiting"].append(([name], seats.waiting))
        rows["headgate_concurrency_rejected_total"].append(
            ([name], seats.rejected + seats.evicted + seats.timed_out)
        )
    for route, stats in states.stats.items():
        for event in TrafficStats.__slots__:
            count = getattr(stats, event)
            if count:
                rows["headgate_policy_events_total"].append(([route, event], count))

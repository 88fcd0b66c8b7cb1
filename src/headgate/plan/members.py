"""A service with the instances that were found, beside those that its file names.

Theory of operation. What discovery finds is told as rows (topic `members`); `read` makes instances
of them, and `joined` a service's plan. Both keep the very objects of before for what has not
changed, because everything further down asks only what differs, and one of two thousand instances
may change many times a second.

A row that cannot be read is left out and named, and the others hold: one instance that registers
nonsense must not take the others along. Two rows with one URL are one instance: a process that
starts again at the same place registers while its predecessor is still said to be leaving, and
what counts is that somebody is there.

What the file says of an instance holds, whoever else names it; only that it is leaving is heard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from headgate.plan.plan import InstancePlan
from headgate.policy.balancer import MemberSpec
from headgate.wire.instance_url import parse_instance_url

if TYPE_CHECKING:
    from headgate.plan.calls import CallPlan
    from headgate.plan.plan import DiscoverPlan, Plan, ServicePlan

__all__ = [
    "NO_MEMBERS",
    "Found",
    "Members",
    "joined",
    "nobody_words",
    "read",
    "ways_of",
    "worries",
]

_WEIGHT_MAX: Final = 1000
_SHOWN_CHARS: Final = 100
_PRIORITY_MAX: Final = 1 << 16


class Found(NamedTuple):
    """An instance that was found, with the row that told of it."""

    instance: InstancePlan
    member: MemberSpec
    row: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Members:
    """What was found of one service's instances."""

    epoch: str = ""
    """Of the registry's numbers: another epoch begins them anew."""
    revision: int = 0
    found: Mapping[str, Found] = field(default_factory=dict)
    """By URL, in the order told."""
    unread: int = 0
    """Rows that were left out."""
    fault: str = ""
    """What is wrong with the first of them."""


NO_MEMBERS: Final = Members()


def read(message: Mapping[str, Any], before: Members = NO_MEMBERS) -> Members | None:
    """What a message of the topic says; None if something newer is known. Raises ValueError,
    TypeError or KeyError where nothing in it can be read: what was known is better than that.
    """
    epoch, revision, rows = message["epoch"], message["revision"], message["members"]
    if (
        not isinstance(epoch, str)
        or revision.__class__ is not int
        or not isinstance(rows, list | tuple)
        or not isinstance(message["service"], str)
    ):
        raise ValueError("members are a list, with a service, an epoch and a revision")
    if epoch == before.epoch and revision < before.revision:
        return None
    found: dict[str, Found] = {}
    unread = 0
    fault = ""
    last = before.found
    for row in rows:
        try:
            url = row["url"]
            one = last.get(url)
            if one is None or one.row != row:
                one = _read_row(row, one)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            unread += 1
            fault = fault or f"{ascii(row)[:_SHOWN_CHARS]}: {error}"
            continue
        known = found.get(url)
        if known is None or known.member.leaving:
            found[url] = one
    if unread and not found:
        raise ValueError(fault)
    return Members(epoch, revision, found, unread, fault)


def _read_row(row: Mapping[str, Any], known: Found | None) -> Found:
    """`known`: what was found at this URL before."""
    url = row["url"]
    weight = row.get("weight", 1)
    priority = row.get("priority", 0)
    zone = row.get("zone", "")
    leaving = bool(row.get("draining"))
    for name, number, most in (
        ("weight", weight, _WEIGHT_MAX),
        ("priority", priority, _PRIORITY_MAX),
    ):
        if number.__class__ is not int or not 0 <= number <= most:
            raise ValueError(f"{name} is no whole number from 0 to {most}")
    if not isinstance(zone, str) or not isinstance(url, str):
        raise ValueError("url and zone are text")
    endpoint = known.instance.endpoint if known is not None else parse_instance_url(url)
    instance = InstancePlan(url, weight, endpoint, priority, zone)
    return Found(instance, MemberSpec(url, weight, priority, zone, leaving), row)


P = TypeVar("P", "ServicePlan", "CallPlan")


def joined(plan: P, members: Members) -> P:
    """The service as its file has it, with what was found."""
    found = members.found
    if not found:
        return plan
    if not plan.instances:
        return replace(
            plan,
            instances=tuple([one.instance for one in found.values()]),
            members=tuple([one.member for one in found.values()]),
        )
    # One place may be written in two ways: `http://10.0.0.1` and `http://10.0.0.1:80`.
    at_place: dict[object, Found] = {one.instance.endpoint: one for one in found.values()}
    named: list[MemberSpec] = []
    for instance, member in zip(plan.instances, plan.members, strict=True):
        same = at_place.pop(instance.endpoint, None)
        is_leaving = same is not None and same.member.leaving
        named.append(replace(member, leaving=True) if is_leaving else member)
    others: list[Found] = list(at_place.values())
    return replace(
        plan,
        instances=(*plan.instances, *[one.instance for one in others]),
        members=(*named, *[one.member for one in others]),
    )


def ways_of(discover: DiscoverPlan) -> str:
    """How instances are found, for whoever reads what holds for a service."""
    ways = (
        ("registry", discover.registry),
        (f"dns {discover.dns.name}" if discover.dns is not None else "", discover.dns is not None),
        (f"directory {discover.directory}", discover.directory is not None),
    )
    return ", ".join(words for words, is_used in ways if is_used)


def nobody_words(discover: DiscoverPlan) -> str:
    """Why a service may have no instance, without the names of places: clients read it."""
    ways = (
        ("none has registered", discover.registry),
        ("its name in DNS gives none", discover.dns is not None),
        ("its directory names none", discover.directory is not None),
    )
    return ", ".join(words for words, is_used in ways if is_used)


def worries(plan: Plan) -> Iterator[str]:
    """Services that cannot serve because nobody is known of them; `plan` with what was found."""
    used = {name for route in plan.routes for name in route.services}
    for service in plan.services.values():
        if service.discover is not None and not service.instances and service.name in used:
            yield (
                f"{service.name} has no instance and answers 503: "
                f"{nobody_words(service.discover)} (discover: {ways_of(service.discover)})"
            )

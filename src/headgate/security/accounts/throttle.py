"""Slowing down who guesses, without locking out who does not.

Theory of operation. Failures are counted in lanes. A lane's level grows by one with each attempt
and drains with time; beyond its free ones, each attempt is followed by a delay that doubles up to
a cap. An attempt is charged before its password is looked at and refunded when it was right, so
that a hundred attempts at once are a hundred attempts. Which lanes an attempt is in:

    known device            (account, device)
    trusted network         (account, network)
    fresh network           (account, network) and (network) and (account, fresh)
    anything else           (account, network) and (network) and (account)

A network is fresh while it has no failure at this account to its name.

A device is known by a signed token it got when it logged in to this account; a network is trusted
when the account was logged in to from there lately. A stranger can make neither. What a stranger
can do to the owner of an account is therefore

    from elsewhere          nothing to a known device or a trusted network. Others have to find one
                            of the account's places, one a second, and those for fresh networks are
                            beyond whoever has failed: to keep them taken, thousands of networks are
                            needed, each good for one guess in ten minutes
    from the same network   fill (account, network); a known device does not notice

A success clears (account, network) or (account, device), for its owner has made it. It only takes
back its own charge elsewhere: with an account of one's own, one could wash the network lane.

Times are wall times, as they are stored and shared by machines. Where the clock jumps back, no
wait is longer than the cap; where it jumps ahead, a lane is empty early.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from headgate.security.accounts.rules import LaneRules, ThrottleRules

__all__ = [
    "EMPTY",
    "Admitted",
    "Count",
    "Lane",
    "Slowed",
    "admit",
    "charged",
    "lanes_of",
    "network_of",
    "refunded",
    "wait_s",
]

Lane = Literal["device", "pair", "network", "account", "fresh", "mfa", "mail", "asking"]

BEYOND: Final = 16.0
"""A level stays within this of the free ones: any cap is reached, and forgetting has an end."""


@dataclass(frozen=True, slots=True)
class Count:
    level: float = 0.0
    at: float = 0.0
    """When the level was true."""
    free_at: float = 0.0
    """When the next attempt may come."""
    succeeded_at: float = 0.0


EMPTY: Final = Count()


@dataclass(frozen=True, slots=True)
class Admitted:
    counts: Mapping[Lane, Count]
    """The charged lanes, to be stored and to be given back to `refunded`."""


@dataclass(frozen=True, slots=True)
class Slowed:
    retry_after_s: float
    lane: Lane


def rules_of(lane: Lane, rules: ThrottleRules) -> LaneRules:
    match lane:
        case "device" | "pair":
            return rules.pair
        case "network":
            return rules.network
        case "account" | "fresh":
            return rules.account
        case "mfa":
            return rules.mfa
        case "mail":
            return rules.mail
        case "asking":
            return rules.asking


def lanes_of(
    is_known_device: bool, pair: Count, wall: float, rules: ThrottleRules
) -> tuple[Lane, ...]:
    """The lanes of a login."""
    if is_known_device:
        return ("device",)
    if pair.succeeded_at > 0 and wall - pair.succeeded_at < rules.trusted_s:
        return ("pair",)
    if drained(pair, rules.pair, wall) <= 0:
        return ("pair", "network", "fresh")
    return ("pair", "network", "account")


def drained(count: Count, lane: LaneRules, wall: float) -> float:
    """The level now."""
    return max(0.0, count.level - max(0.0, wall - count.at) / lane.drain_s)


def wait_s(count: Count, lane: LaneRules, wall: float) -> float:
    return min(lane.cap_s, max(0.0, count.free_at - wall))


def charged(count: Count, lane: LaneRules, wall: float) -> Count:
    """One attempt more."""
    level = min(lane.free + BEYOND, drained(count, lane, wall) + 1.0)
    over = level - lane.free
    delay_s = min(lane.cap_s, lane.base_s * 2.0 ** (over - 1.0)) if over > 0 else 0.0
    return replace(count, level=level, at=wall, free_at=wall + delay_s)


def admit(counts: Mapping[Lane, Count], wall: float, rules: ThrottleRules) -> Admitted | Slowed:
    """Whether an attempt in these lanes may go on; it waits for the slowest."""
    waits = [(wait_s(count, rules_of(lane, rules), wall), lane) for lane, count in counts.items()]
    longest_s, slowest = max(waits, default=(0.0, "pair"))
    if longest_s > 0:
        return Slowed(longest_s, slowest)
    return Admitted(
        {lane: charged(count, rules_of(lane, rules), wall) for lane, count in counts.items()}
    )


def refunded(
    lane: Lane,
    count: Count,
    charge: Count,
    wall: float,
    rules: ThrottleRules,
    *,
    is_login: bool = True,
) -> Count:
    """An attempt was right: `count` is the lane now, `charge` what it was when it was charged.

    With `is_login` it went all the way; without, only this one attempt is taken back.
    """
    if is_login and lane in {"device", "pair"}:
        return Count(0.0, wall, 0.0, wall)
    level = max(0.0, drained(count, rules_of(lane, rules), wall) - 1.0)
    # The delay belongs to the latest attempt; another's stays.
    is_own = count.at == charge.at and count.free_at == charge.free_at
    return replace(count, level=level, at=wall, free_at=wall if is_own else count.free_at)


def network_of(ip: str, rules: ThrottleRules) -> str:
    """The network an address counts for; what is no address counts as it stands."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return ip[:64]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        else:
            address = ipaddress.IPv6Address(int(address))  # without its zone
            return str(ipaddress.ip_network((address, rules.ipv6_prefix), strict=False))
    return str(ipaddress.ip_network((address, rules.ipv4_prefix), strict=False))

"""Choosing an instance. `ALGORITHMS` is the one table from the name in the file to the class; a
`Group` holds a service's instances and puts one of them to work.

`BALANCERS` is the former table, of classes that know indexes and weights alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol

from headgate.policy.balancer.group import (
    ALGORITHMS,
    Algorithm,
    BalanceBy,
    BalanceRules,
    Group,
    GroupSnapshot,
    Member,
    MemberSnapshot,
    MemberSpec,
    TierSnapshot,
    hash_key,
)
from headgate.policy.balancer.round_robin import RoundRobin, smooth_cycle


class Balancer(Protocol):
    def pick(self, excluded: Collection[int]) -> int | None:
        """The index of the instance to use; None when all are excluded."""


BALANCERS: Final[dict[str, Callable[[Sequence[int]], Balancer]]] = {"round_robin": RoundRobin}

__all__ = [
    "ALGORITHMS",
    "BALANCERS",
    "Algorithm",
    "BalanceBy",
    "BalanceRules",
    "Balancer",
    "Group",
    "GroupSnapshot",
    "Member",
    "MemberSnapshot",
    "MemberSpec",
    "RoundRobin",
    "TierSnapshot",
    "hash_key",
    "smooth_cycle",
]

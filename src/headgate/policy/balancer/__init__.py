"""Choosing an instance. `BALANCERS` is the one table from the name in the file to the class."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol

from headgate.policy.balancer.round_robin import RoundRobin


class Balancer(Protocol):
    def pick(self, excluded: Collection[int]) -> int | None:
        """The index of the instance to use; None when all are excluded."""


BALANCERS: Final[dict[str, Callable[[Sequence[int]], Balancer]]] = {"round_robin": RoundRobin}

__all__ = ["BALANCERS", "Balancer", "RoundRobin"]

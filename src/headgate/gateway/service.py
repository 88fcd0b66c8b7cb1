"""A service at run time: its instances' pools and the balancer over them.

Pools are the registry's and outlive plans; this object is made anew with each plan and only
points at them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headgate.errors import UpstreamFailed
from headgate.policy.balancer import BALANCERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headgate.gateway.exchange import Exchange, Upstream
    from headgate.gateway.pool import Line
    from headgate.plan.plan import ServicePlan


class ServiceRuntime:
    __slots__ = ("_lines", "_pick", "host", "name", "plan", "size", "take")

    def __init__(self, plan: ServicePlan, lines: Sequence[Line]) -> None:
        self.plan = plan
        self.name = plan.name
        self.host = plan.host
        self._lines = tuple(lines)
        self.size = len(self._lines)
        balancer = BALANCERS[plan.balance]([i.weight for i in plan.instances])
        self._pick = balancer.pick
        self.take: Callable[[Exchange], Upstream | UpstreamFailed | None]
        """A connection, None when the exchange has to wait for one, or why there is none."""
        alone = self.size == 1 and plan.instances[0].weight > 0
        self.take = self._lines[0].take if alone else self._balanced

    def _balanced(self, ex: Exchange) -> Upstream | UpstreamFailed | None:
        found = self._pick(ex.excluded)
        if found is None:
            # Every instance has been tried; the last resort is to try one again.
            found = self._pick(())
            if found is None:
                return UpstreamFailed("connect", "no instance has any weight")
        ex.picked = found
        return self._lines[found].take(ex)

    def count_failure(self, picked: int, failure: UpstreamFailed) -> None:
        self._lines[picked].stats.failures.add(failure.kind)

    @property
    def lines(self) -> tuple[Line, ...]:
        return self._lines

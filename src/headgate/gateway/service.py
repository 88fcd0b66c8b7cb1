"""A service at run time: the pools that reach its instances, and what one plan makes of it.

Theory of operation
-------------------
`ServiceState` outlives plans. To what is known of the instances (`policy.serving`) it adds the
pools that lead to them. `ServiceRuntime` is made anew with each plan and only points at it. A
request that waits through a reload is given an instance of the group as it is by then, so
`line_of` belongs to the state: the runtimes of all plans see the pools there are.

Instances may come and go while a plan stays (`news`), and there may be none. So a runtime counts on
a single instance only where the file alone names instances: `is_plain`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headgate.errors import UpstreamFailed
from headgate.plan.members import nobody_words
from headgate.policy.affinity import Affinity as Signer
from headgate.policy.serving import Serving

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from headgate.gateway.affinity import Affinity
    from headgate.gateway.attempts import AttemptedExchange
    from headgate.gateway.pool import Line
    from headgate.plan.plan import ServicePlan


class ServiceState(Serving):
    """What outlives a plan, under the service's name."""

    def __init__(self, plan: ServicePlan, now: float, rng: random.Random) -> None:
        super().__init__(plan, now, rng)
        self.line_of: dict[str, Line] = {}
        """Pools by the instance's URL, as the newest plan has them."""
        self.signer: Signer | None = None
        """Of affinity cookies. It knows the instances there are."""
        self._signs_by = b""
        self.runtime: ServiceRuntime | None = None
        """Of the newest plan."""

    def take_signer(self, secret: bytes) -> Signer:
        """What signs affinity cookies; with the same secret those of before are good."""
        if self.signer is None or self._signs_by != secret:
            self.signer = Signer(secret)
            self._signs_by = secret
        self.signer.take_members(self.line_of)
        return self.signer


class ServiceRuntime:
    __slots__ = (
        "affinity",
        "errors",
        "failures",
        "group",
        "host",
        "is_plain",
        "key_of",
        "line",
        "line_of",
        "name",
        "nobody_why",
        "note",
        "pick",
        "plan",
        "state",
    )

    line: Line
    """To the only instance; where `is_plain`."""

    def __init__(
        self,
        plan: ServicePlan,
        state: ServiceState,
        *,
        key_of: Callable[[AttemptedExchange], int] | None = None,
        affinity: Affinity | None = None,
    ) -> None:
        self.plan = plan
        self.name = plan.name
        self.host = plan.host
        self.state = state
        self.group = state.group
        self.pick = state.pick
        self.note = state.note if plan.outlier is not None or state.hedge_delays else None
        """Whom to tell what became of attempts, where anybody listens."""
        self.line_of: Mapping[str, Line] = state.line_of
        self.key_of = key_of
        self.affinity = affinity
        breaker = plan.breaker
        self.failures: frozenset[int] = breaker.statuses if breaker is not None else _SERVER_ERRORS
        """Statuses that count against the instance."""
        self.errors: frozenset[str] | None = breaker.errors if breaker is not None else None
        """Kinds of failure that count; None: all."""
        self.is_plain = (
            plan.discover is None
            and len(plan.instances) == 1
            and plan.instances[0].weight > 0
            and breaker is None
            and plan.outlier is None
            and plan.health is None
            and affinity is None
        )
        """Nothing to choose and nothing to learn: the only instance is asked."""
        self.nobody_why = nobody_words(plan.discover) if plan.discover is not None else ""
        if self.is_plain:
            self.line = state.line_of[plan.instances[0].url]
        before, state.runtime = state.runtime, self
        if before is not None and before.is_plain:
            # Unless its only instance is still the only one, and where it was: ask the group.
            before.is_plain = self.is_plain and before.line is self.line

    @property
    def size(self) -> int:
        """How many instances there are now."""
        return len(self.group.members)

    def nobody(self) -> UpstreamFailed:
        """Why no instance could be picked."""
        why = "" if self.group.members else self.nobody_why
        return UpstreamFailed("no_instance", self.name, why)

    def counts(self, kind: str) -> bool:
        """Whether a failure of this kind says something about the instance."""
        return self.errors is None or kind in self.errors


_SERVER_ERRORS = frozenset(range(500, 600))

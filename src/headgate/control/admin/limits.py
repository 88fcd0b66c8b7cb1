"""How much may be asked of the admin API, by whom.

Theory of operation
-------------------
Three bounds, looked at in this order, each before anything dear is done:

- wrong tokens by address: whoever tries tokens is told to wait, and a right one among them is not
  looked at, so that trying tells nothing;
- requests by token, or by address where there is none;
- requests under way at one time, live views not counted: they have a bound of their own.

The socket in the state directory is exempt from the first two, so that whoever owns the gateway
gets through whatever comes over the network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from headgate.config.admin import AdminSpec
from headgate.policy.limiter.gcra import Gcra
from headgate.policy.limiter.rules import LimitRules
from headgate.units import Rate

__all__ = ["Limits"]

UNDER_WAY_MAX = 100
_KEYS_MAX = 10_000


def _rules(rate: Rate) -> LimitRules:
    """At least one a period; a burst is a period's worth."""
    return LimitRules(
        limit=max(1, round(rate.count)), period_s=max(rate.per_s, 0.001), max_keys=_KEYS_MAX
    )


@dataclass(slots=True)
class Limits:
    """The bounds of one control process, for all its listeners."""

    spec: AdminSpec = field(default_factory=AdminSpec)
    under_way: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """How many were not let in, by reason."""
    _requests: Gcra = field(init=False)
    _failures: Gcra = field(init=False)

    def __post_init__(self) -> None:
        self._requests = Gcra(_rules(self.spec.rate))
        self._failures = Gcra(_rules(self.spec.failures))

    def take(self, spec: AdminSpec, now: float) -> None:
        """After a reload: other rates. What was used stays used."""
        if spec.rate != self.spec.rate:
            self._requests.take_rules(_rules(spec.rate), now)
        if spec.failures != self.spec.failures:
            self._failures.take_rules(_rules(spec.failures), now)
        self.spec = spec

    def wait_after_failures_s(self, address: str, now: float) -> int:
        """0, or for how many seconds this address is not listened to."""
        verdict = self._failures.peek(address, now)
        if verdict.allowed and verdict.remaining >= 1:
            return 0
        return self._wait("failures", verdict.retry_after_s)

    def failed(self, address: str, now: float) -> None:
        self.count("token")
        self._failures.hit(address, now)

    def wait_s(self, key: str, now: float) -> int:
        """0 and the request is counted, or in how many seconds to come again."""
        verdict = self._requests.hit(key, now)
        return 0 if verdict.allowed else self._wait("rate", verdict.retry_after_s)

    def count(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def _wait(self, reason: str, seconds: float) -> int:
        self.count(reason)
        return max(1, math.ceil(seconds)) if math.isfinite(seconds) else 60

"""Faults on purpose: some calls are delayed, some are refused, by share.

Theory of operation. Delay and abort are drawn independently, so a call may have both: it is then
delayed first and refused afterwards, as a service does that times out. Whom a fault may hit at
all (a header, a route) is looked at by the rim before it asks; a call it is not asked for draws
nothing, so one header's share does not depend on other traffic.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

__all__ = ["Fault", "FaultRules", "decide"]


@dataclass(frozen=True, slots=True)
class Fault:
    delay_s: float
    abort_status: int | None
    """Answer this after the delay; 0: break the connection off; None: go on as usual."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRules:
    delay_s: float = 0.0
    delay_most_s: float | None = None
    """With it each delay is drawn evenly between `delay_s` and this."""
    delay_share: float = 0.0
    abort_status: int = 503
    """What is answered; 0 breaks the connection off without an answer."""
    abort_share: float = 0.0
    header: tuple[str, str | None] | None = None
    """Only requests with this header, and with this value of it unless that is None."""

    def problems(self) -> tuple[str, ...]:
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        for name, share in (("delay_share", self.delay_share), ("abort_share", self.abort_share)):
            if not 0.0 <= share <= 1.0:
                yield f"{name}={share:g} is no share between 0 and 1"
        longest = self.delay_s if self.delay_most_s is None else self.delay_most_s
        if not (self.delay_s >= 0.0 and math.isfinite(self.delay_s) and math.isfinite(longest)):
            yield f"delay_s={self.delay_s:g} is no time to wait"
        elif longest < self.delay_s:
            yield f"delay_most_s={longest:g} is less than delay_s={self.delay_s:g}"
        elif self.delay_share > 0.0 and not longest:
            yield f"delay_share={self.delay_share:g} delays nothing while delay_s is 0"
        if self.abort_status and not 200 <= self.abort_status <= 599:
            yield f"abort_status={self.abort_status} is no final HTTP status"
        if not self.delay_share and not self.abort_share:
            yield "delay_share and abort_share are both 0, so no call is ever hit"


def decide(rules: FaultRules, rng: Random) -> Fault | None:
    """The fault for one call, None for most."""
    delay_s = 0.0
    if rules.delay_share and rng.random() < rules.delay_share:
        delay_s = rules.delay_s
        if rules.delay_most_s is not None:
            delay_s = rng.uniform(delay_s, rules.delay_most_s)
    if rules.abort_share and rng.random() < rules.abort_share:
        return Fault(delay_s, rules.abort_status)
    return Fault(delay_s, None) if delay_s else None

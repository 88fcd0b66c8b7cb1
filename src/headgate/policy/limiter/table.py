"""Algorithms by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from headgate.policy.limiter.concurrency import Concurrency
from headgate.policy.limiter.fixed_window import FixedWindow
from headgate.policy.limiter.gcra import Gcra
from headgate.policy.limiter.rules import Algorithm, Limiter, LimitRules
from headgate.policy.limiter.sliding_log import SlidingLog
from headgate.policy.limiter.sliding_window import SlidingWindow
from headgate.policy.limiter.token_bucket import TokenBucket

LIMITERS: Final[Mapping[Algorithm, Callable[[LimitRules], Limiter]]] = MappingProxyType(
    {
        "gcra": Gcra,
        "token_bucket": TokenBucket,
        "sliding_window": SlidingWindow,
        "sliding_log": SlidingLog,
        "fixed_window": FixedWindow,
        "concurrency": Concurrency,
    }
)


def make(rules: LimitRules) -> Limiter:
    """The limiter of `rules.algorithm`; ValueError if the rules have problems."""
    return LIMITERS[rules.algorithm](rules)

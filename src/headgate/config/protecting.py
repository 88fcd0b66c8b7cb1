"""Protection from too much: concurrency limits, importance and load shedding."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator

from headgate.config.fields import (
    Count,
    MatchedHeader,
    Positive,
    Spec,
    Wait,
    text_of,
)
from headgate.config.forms import OrFalse, Shorthand
from headgate.policy.adaptive import AdaptiveRules
from headgate.policy.bulkhead import BulkheadRules
from headgate.policy.shed import Priority, ShedRules

__all__ = [
    "Concurrency",
    "ConcurrencySpec",
    "Importance",
    "ImportanceSpec",
    "Shed",
    "ShedSpec",
]

_B: Final = BulkheadRules()
_A: Final = AdaptiveRules()
_S: Final = ShedRules()


def _adaptive(value: object) -> object:
    if value is False or value in ("off", "false", "no"):
        return False
    if value is True or value in ("on", "true", "yes"):
        return _A.algorithm
    return text_of(value)


class ConcurrencySpec(Spec):
    """How many requests may be under way at once in each worker, so that one slow service does not
    take what the others need. A number is `limit`. A service has one for all its routes, and a
    route that says it has its own; said at the top, each service gets one.

    What is refused is answered with 503 at once, or by `fallback`.
    """

    limit: Positive = _B.limit
    """Most requests at once. With `adaptive`, what it starts from."""

    queue: Count = _B.queue
    """So many more may wait for their turn, the more important (see `importance`) first. None by
    default: a queue in front of something slow only makes answers later."""

    queue_timeout: Wait = _B.queue_timeout_s
    """How long a request waits at most."""

    adaptive: Annotated[Literal["gradient", "aimd", False], BeforeValidator(_adaptive)] = False
    """Find the limit by the time answers take: `gradient` compares with what is usual for the
    service, `aimd` with `target`. `true` is `gradient`."""

    least: Positive = _A.least
    """With `adaptive`, the lowest limit it may come to."""

    most: Positive = _A.most
    """With `adaptive`, the highest."""

    target: Wait = _A.target_s
    """With `aimd`, answers that take longer than this are too slow."""

    @property
    def start(self) -> int:
        """Where an adaptive limit begins: where it was said, or low, within its bounds."""
        if "limit" in self.model_fields_set:
            return self.limit
        return max(self.least, min(_A.start, self.most))

    def rules(self) -> BulkheadRules:
        """The bulkhead's own rules."""
        return BulkheadRules(
            limit=self.limit if self.adaptive is False else self.start,
            queue=self.queue,
            queue_timeout_s=self.queue_timeout,
        )

    def adaptive_rules(self) -> AdaptiveRules | None:
        """The adaptive limit's own rules, if there is one."""
        if self.adaptive is False:
            return None
        return AdaptiveRules(
            algorithm=self.adaptive,
            start=self.start,
            least=self.least,
            most=self.most,
            target_s=self.target,
        )


CONCURRENCY_IN_FILE: Final = {
    "queue_timeout_s": "queue_timeout",
    "start": "limit",
    "target_s": "target",
    "algorithm": "adaptive",
}


def _limit(value: Any) -> object:
    return value if isinstance(value, (dict, ConcurrencySpec)) else {"limit": value}


Concurrency = Annotated[
    Annotated[
        ConcurrencySpec,
        Shorthand(
            _limit,
            {"type": ["string", "integer"], "examples": [100]},
            "or a number, which is `limit`",
        ),
    ]
    | Literal[False],
    OrFalse(),
]


class ImportanceSpec(Spec):
    """What is turned away last when there is too much. Text, as in `importance: low`, is
    `default`.
    """

    default: Annotated[Priority, BeforeValidator(text_of)] = "normal"
    """How important requests are: `critical`, `high`, `normal`, `low` or `background`."""

    header: MatchedHeader | None = None
    """A request header that says it in one of these words. Believed only from `trusted_proxies`:
    every client would call itself critical."""


Importance = Annotated[
    ImportanceSpec,
    Shorthand(
        lambda value: value if isinstance(value, (dict, ImportanceSpec)) else {"default": value},
        {"enum": ["critical", "high", "normal", "low", "background"]},
        "or text, which is `default`",
    ),
]


class ShedSpec(Spec):
    """Turns requests away when a worker has more to do than it can, the least important first
    (see `importance`), so that those it takes are answered in time. Off unless said; `shed: true`
    is a good start. What is turned away is answered with 503 and `Retry-After`.
    """

    in_flight: Positive = _S.max_in_flight
    """Most requests under way at once in a worker."""

    lag: Wait = _S.lag_target_s
    """How late the worker's own clock may be before it counts as overloaded. That is the truest
    sign: a worker that is late for itself is late for everybody."""

    queue: Wait = _S.queue_target_s
    """How long requests may stand in line for a connection or a seat before it counts as
    overloaded."""

    interval: Wait = _S.interval_s
    """How long one of these must hold on: a short peak is no overload."""

    retry_after: Wait = _S.retry_after_s
    """When those turned away are asked to come back."""

    def rules(self) -> ShedRules:
        """The shedder's own rules."""
        return ShedRules(
            max_in_flight=self.in_flight,
            lag_target_s=self.lag,
            queue_target_s=self.queue,
            interval_s=self.interval,
            retry_after_s=self.retry_after,
        )


SHED_IN_FILE: Final = {
    "max_in_flight": "in_flight",
    "lag_target_s": "lag",
    "queue_target_s": "queue",
    "interval_s": "interval",
    "retry_after_s": "retry_after",
}

Shed = Annotated[ShedSpec | Literal[False], OrFalse()]

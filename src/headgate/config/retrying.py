"""Trying again, and trying twice at once: retries, their budget and hedging."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

from headgate.config.breaking import FailureKinds
from headgate.config.fields import (
    Duration,
    Flag,
    HeaderValue,
    MatchedHeader,
    Percent,
    Positive,
    Rate,
    Size,
    Spec,
    Wait,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import OrFalse, Shorthand
from headgate.config.http import Methods, Statuses, StatusRange, statuses_of
from headgate.policy.budget import BudgetRules
from headgate.policy.hedge import HedgeRules
from headgate.policy.retry import RetryRules
from headgate.units import Rate as RateValue
from headgate.units import UnitError, format_duration, format_percent, parse_duration

__all__ = ["BudgetSpec", "Hedge", "HedgeAfter", "HedgeSpec", "Retry", "RetrySpec", "RetryWhenSpec"]

_D: Final = RetryRules()
_B: Final = BudgetRules()
_H: Final = HedgeRules()
_METHODS: Final = tuple(
    m for m in ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE") if m in _D.methods
)


class RetryWhenSpec(Spec):
    """Which outcomes are tried again. One that fits is enough."""

    status: Statuses = tuple(StatusRange(status, status) for status in sorted(_D.statuses))
    """Statuses of answers: `503`, `500-504` or `5xx`; one or a list."""

    errors: FailureKinds = tuple(sorted(_D.errors))
    """Ways in which no answer comes; the names are those of `breaker.failures.errors`."""

    headers: dict[MatchedHeader, HeaderValue] = Field(default_factory=dict)
    """Headers of answers, by name and value; `"*"` is any value."""


class BudgetSpec(Spec):
    """How much of the traffic may be retries. When a service fails as a whole, retries without a
    bound multiply the load at the worst moment.
    """

    share: Percent = _B.share
    """Retries (and hedges) as a share of requests, counted over `window`."""

    floor: Rate = RateValue(_B.floor_per_s, 1.0)
    """So many are always allowed, so that a service with little traffic has retries at all."""

    window: Wait = _B.window_s
    """How far back requests and retries are counted."""

    def rules(self) -> BudgetRules:
        """The budget's own rules."""
        return BudgetRules(
            share=self.share, floor_per_s=self.floor.per_second, window_s=self.window
        )


_ZERO: Final = re.compile(r"0+(\.0+)? ?%?")


def _budget(value: object) -> object:
    if isinstance(value, (dict, BudgetSpec)):
        return value
    if _ZERO.fullmatch(text_of(value).strip()):
        return {"share": value, "floor": "0/s"}  # "budget: 0" is meant as none at all
    return {"share": value}


BUDGET_IN_FILE: Final = {"floor_per_s": "floor", "window_s": "window"}

Budget = Annotated[
    Annotated[
        BudgetSpec,
        Shorthand(
            _budget,
            {"type": ["string", "number"], "examples": ["20%"]},
            "or a percentage, which is `share`",
        ),
    ]
    | Literal[False],
    OrFalse(),
]


class RetrySpec(Spec):
    """Tries a request again that failed. Off unless said, with one exception: a request that
    cannot have reached the instance (the connection was refused, or closed before a byte was
    sent) is tried at another one in any case.

    A number, as in `retry: 3`, is `attempts`; `retry: false` switches off what an outer level
    says. Headgate tells services which attempt a request is, and does not itself retry what a
    Headgate before it retries: with retries at each of three layers, one request becomes 27.
    """

    attempts: Annotated[Positive, Field(le=10)] = _D.attempts
    """All tries, the first one included."""

    when: RetryWhenSpec = RetryWhenSpec()
    """Which outcomes are tried again."""

    methods: Methods = _METHODS
    """Methods that may be sent twice. By default those that are idempotent (RFC 9110 section
    9.2.2); with `POST` among them, the service has to recognise a request that comes twice."""

    wait: Duration = _D.wait_s
    """The wait before the second try; doubled before each further one."""

    wait_max: Duration = _D.wait_max_s
    """The longest wait."""

    jitter: Annotated[Literal["full", "decorrelated", "none"], BeforeValidator(text_of)] = _D.jitter
    """How waits are spread, so that clients which failed together do not come back together.
    `full` waits anything up to the bound, `decorrelated` up to three times the wait before, `none`
    exactly the bound."""

    retry_after: Flag = _D.retry_after
    """Wait for as long as the answer's `Retry-After` asks."""

    retry_after_max: Duration = _D.retry_after_max_s
    """When it asks for longer than this, the answer goes to the client instead."""

    body: Size = _D.body_max
    """Request bodies up to this size are kept for another try. A request with a larger one is
    tried once."""

    other_instance: Flag = _D.other_instance
    """Try another instance than those that failed, while there is one."""

    budget: Budget = BudgetSpec()
    """How much of the traffic may be retries; `off` for no bound. A service has one budget for all
    its routes, and a route that says `retry` itself has its own."""

    def rules(self, per_try_s: float | None = None) -> RetryRules:
        """The retry policy's own rules."""
        wait_max = self.wait_max
        if "wait_max" not in self.model_fields_set:
            wait_max = max(wait_max, self.wait)
        return RetryRules(
            attempts=self.attempts,
            wait_s=self.wait,
            wait_max_s=wait_max,
            jitter=self.jitter,
            statuses=statuses_of(self.when.status),
            errors=frozenset(self.when.errors),
            methods=frozenset(self.methods),
            headers=tuple(
                (name.lower(), None if value == "*" else value)
                for name, value in self.when.headers.items()
            ),
            per_try_s=per_try_s,
            retry_after=self.retry_after,
            retry_after_max_s=self.retry_after_max,
            body_max=self.body,
            other_instance=self.other_instance,
        )


RETRY_IN_FILE: Final = {
    "wait_s": "wait",
    "wait_max_s": "wait_max",
    "retry_after_max_s": "retry_after_max",
    "body_max": "body",
}


def _attempts(value: object) -> object:
    return value if isinstance(value, (dict, RetrySpec)) else {"attempts": value}


Retry = Annotated[
    Annotated[
        RetrySpec,
        Shorthand(
            _attempts,
            {"type": ["string", "integer"], "examples": [3]},
            "or a number, which is `attempts`",
        ),
    ]
    | Literal[False],
    OrFalse(),
]


@dataclass(frozen=True, slots=True)
class HedgeAfter:
    """When to ask a second instance: after a fixed time, or after that in which a share of calls
    is answered.
    """

    seconds: float | None = None
    percentile: float = _H.percentile

    def __str__(self) -> str:
        """As it is written in the file."""
        if self.seconds is not None:
            return format_duration(self.seconds)
        return "p" + format_percent(self.percentile).removesuffix("%")


_PERCENTILE: Final = re.compile(r"[pP]([0-9]{1,2}(?:\.[0-9]{1,3})?)")


def _after(value: object) -> HedgeAfter:
    if isinstance(value, HedgeAfter):
        return value
    text = text_of(value).strip()
    if found := _PERCENTILE.fullmatch(text):
        share = float(found[1]) / 100
        if share < 0.5:
            raise refuse("would ask twice for most requests; write p50 or more")
        return HedgeAfter(percentile=share)
    try:
        seconds = parse_duration(text)
    except UnitError:
        raise refuse("is neither a percentile nor a duration; write p95 or 50ms") from None
    if seconds <= 0:
        raise refuse("is no time at all: every request would be sent twice")
    return HedgeAfter(seconds=seconds)


class HedgeSpec(Spec):
    """Asks a second instance when the first is slow to answer, and takes whichever answers first.
    It cuts the slowest requests at the price of a few more, which are taken from the budget of
    `retry`. Off unless said.
    """

    after: Annotated[
        HedgeAfter,
        PlainValidator(_after),
        PlainSerializer(str, return_type=str),
        Words("percentile or duration"),
        WithJsonSchema(
            {
                "type": ["string", "number"],
                "pattern": r"^([pP][0-9]{1,2}(\.[0-9]+)?|[0-9]+(\.[0-9]+)? ?(us|ms|s|min)?)$",
                "examples": ["p95", "50ms"],
            }
        ),
    ] = HedgeAfter()
    """`p95` waits for as long as 95% of the service's answers take, as seen lately; a duration is
    fixed. The live percentile follows the service; a fixed time that was right yesterday doubles
    the load on a slow day."""

    most: Annotated[Positive, Field(le=3)] = _H.most
    """How many more instances may be asked for one request."""

    methods: Methods = ("GET", "HEAD", "OPTIONS")
    """Only for these methods: both requests are carried out."""

    def rules(self) -> HedgeRules:
        """The hedge's own rules."""
        return HedgeRules(
            after_s=self.after.seconds, percentile=self.after.percentile, most=self.most
        )


Hedge = Annotated[HedgeSpec | Literal[False], OrFalse()]

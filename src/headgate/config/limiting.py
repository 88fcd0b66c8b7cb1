"""Rate limits: how much of what, counted by whom."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from headgate.config.fields import (
    RATE_PATTERN,
    Count,
    Flag,
    HeaderName,
    Positive,
    Rate,
    Spec,
    Text,
    Whole,
    refuse,
    text_of,
)
from headgate.config.forms import OneOrList, OneOrMore, Shorthand
from headgate.config.http import Statuses, StatusRange
from headgate.config.keys import Key, KeySpec
from headgate.policy.limiter import LimitRules
from headgate.units import Rate as RateValue

__all__ = ["CostSpec", "LimitSpec", "Limits", "RefundSpec", "limit_names"]

_D: Final = LimitRules(limit=1)
_UNSAYABLE: Final = re.compile(r"[^\x20-\x7e]|[\"\\]")
"""What cannot stand in the name of a `RateLimit` header."""
_LONGEST: Final = 100


def _whole_rate(rate: RateValue) -> RateValue:
    if rate.count != int(rate.count):
        raise refuse("has a broken count; write 1/2s for one in two seconds")
    if rate.count < 1:
        raise refuse("refuses everything; to close a route, use respond: 403")
    return rate


LimitRate = Annotated[Rate, AfterValidator(_whole_rate)]
ALGORITHMS = Literal["gcra", "token_bucket", "sliding_window", "sliding_log", "fixed_window"]


class CostSpec(Spec):
    """What a request costs. A number is `units`."""

    units: Count = 1
    """Charged when the request comes."""

    header: HeaderName | None = None
    """A response header in which the service says what the request did cost. What it says beyond
    `units` is charged afterwards, or given back; the header goes no further."""


class RefundSpec(Spec):
    """Which requests are given back what they cost."""

    status: Statuses = (StatusRange(500, 599),)
    """By the status of the answer: `503`, `500-504` or `5xx`; one or a list."""


Cost = Annotated[
    CostSpec,
    Shorthand(
        lambda value: value if isinstance(value, (dict, CostSpec)) else {"units": value},
        {"type": ["string", "integer"], "examples": [5]},
        "or a number, which is `units`",
    ),
]


Refund = Annotated[
    RefundSpec,
    Shorthand(
        lambda value: value if isinstance(value, (dict, RefundSpec)) else {"status": value},
        {"type": ["string", "integer", "array"], "examples": ["5xx"]},
        "or statuses, which are `status`",
    ),
]


def _off(value: object) -> object:
    return "off" if value is False else text_of(value)


class LimitSpec(Spec):
    """How many requests a client may make. `limit: 1000/15min` counts by the client's address; a
    list is several limits at once, and a request must pass all of them. A request that is refused
    is answered with 429 and `Retry-After`, and costs nothing.

    Exactly one of `rate` and `concurrency`.
    """

    rate: LimitRate | None = None
    """So many requests in so much time, as in `1000/15min`."""

    concurrency: Positive | None = None
    """So many requests at one time, in place of a rate."""

    by: Annotated[tuple[Key, ...], OneOrMore] = (KeySpec("ip"),)
    """Who is counted: `ip`, `user`, `api_key`, `consumer`, `route` (all clients together),
    `header:NAME`, `cookie:NAME`, `query:NAME`, `claim:NAME`, `param:NAME`, or a template such as
    `"{ip} {header.x-tenant}"`. A list counts each combination. A request that has not what is
    asked for (no user is known, the header is not there) is counted by its address. Headers,
    cookies and query parameters are what the client writes: a client that makes up a new one for
    each request has a new count each time, so a limit by them needs one by `ip` beside it."""

    algorithm: Annotated[ALGORITHMS, BeforeValidator(text_of)] = _D.algorithm  # type: ignore[assignment]
    """`gcra` refills evenly and keeps one number for each client, so it is the default.
    `token_bucket` is the same in other words. `sliding_window` weighs the last window and the
    present one; `sliding_log` remembers each request, which is exact and needs memory for each;
    `fixed_window` lets through up to twice the rate around the edge of two windows."""

    burst: Positive | None = None
    """For `gcra` and `token_bucket`: so many at once after a rest. By default the whole rate."""

    name: Text | None = None
    """What `RateLimit` headers, logs and metrics call it. By default made from `by`. It is also
    what a reload knows the limit by, so give names where several limits count by the same."""

    cost: Cost = CostSpec()
    """What a request costs. By default 1."""

    refund: Refund | None = None
    """Which requests are given back what they cost, as in `5xx`. By default none: a failure is
    work too."""

    shadow: Flag = False
    """Count and log what would be refused, and let it through: to try out a limit."""

    when_away: Annotated[Literal["local", "open", "closed"], BeforeValidator(text_of)] = "local"
    """What happens while the home of shared state does not answer: each worker allows its own
    share (`local`), everything passes (`open`) or nothing does (`closed`)."""

    tiers: dict[Text, LimitRate] = Field(default_factory=dict)
    """Rates in place of `rate` for consumers of a tier, as in `{gold: 10000/15min}`."""

    scope: Annotated[Literal["route", "service", "global"], BeforeValidator(text_of)] | None = None
    """Whose count: each route's, the service's with all its routes, or one for everything. By
    default the place where the limit is said: at the top of the file it is `global`."""

    headers: Annotated[Literal["draft", "classic", "both", "off"], BeforeValidator(_off)] = "draft"
    """What answers tell: `draft` is `RateLimit` and `RateLimit-Policy` of the IETF draft, `classic`
    is `X-RateLimit-Limit`, `-Remaining` and `-Reset`."""

    status: Annotated[Whole, Field(ge=400, le=599)] = 429
    """Status of the refusal."""

    share: Annotated[Literal["shared", "worker"], BeforeValidator(text_of)] = "shared"
    """Whether workers (and with Redis, machines) count together. `worker` counts in each worker by
    itself, which is exact there and as much as workers times the rate in all."""

    ipv6_prefix: Annotated[Positive, Field(le=128)] = 64
    """IPv6 clients count by their network of this length: one subscriber has 2^64 addresses."""

    def rules(self, rate: RateValue | None = None) -> LimitRules:
        """The limiter's own rules; those of a tier when its rate is given."""
        if self.concurrency is not None:
            return LimitRules(limit=self.concurrency, algorithm="concurrency")
        counted = rate or self.rate or RateValue(1, 1.0)
        return LimitRules(
            limit=int(counted.count),
            period_s=counted.per_s,
            algorithm=self.algorithm,
            burst=self.burst if rate is None else None,
        )


def limit_names(limits: Sequence[LimitSpec]) -> tuple[str, ...]:
    """What limits of one place are called, each differently: by name, or by what they count."""
    names: list[str] = []
    for limit in limits:
        base = limit.name or ",".join(str(key) for key in limit.by) or "all"
        base = _UNSAYABLE.sub("_", base)[:_LONGEST]
        name = base
        count = 1
        while name in names:
            count += 1
            name = f"{base}-{count}"
        names.append(name)
    return tuple(names)


LIMIT_IN_FILE: Final = {"limit": "rate", "period_s": "rate"}

Limit = Annotated[
    LimitSpec,
    Shorthand(
        lambda value: value if isinstance(value, (dict, LimitSpec)) else {"rate": value},
        {"type": "string", "pattern": RATE_PATTERN, "examples": ["1000/15min"]},
        "or a rate",
    ),
]


def _limits(value: Any) -> object:
    if value is False or (isinstance(value, str) and value.lower() in ("false", "off", "no")):
        return ()
    return value if isinstance(value, (list, tuple)) else (value,)


Limits = Annotated[
    tuple[Limit, ...],
    OneOrList(_limits, {"const": False}, "one or a list"),
]

"""Several policies around one call, in the order in which they make sense.

    users = policies(
        deadline="5s",
        retry=retry(attempts=3),
        breaker=breaker("users"),
        timeout="1s",
    )

    @users
    async def fetch(user_id): ...

Theory of operation. From the outside in:

    fallback    whatever fails inside, also a refusal
    deadline    bounds all tries and the waits between them
    retry       each try passes all that follows; a refusal that says when is waited for
    hedge       one try may be two calls, and each of them is judged on its own
    breaker     before the limits, for an open breaker must not use them up
    limit       before the bulkhead, for a call that waits for its rate must not hold a seat
    bulkhead    a seat is held by one call, never through the wait before a retry
    timeout     around the call itself: the time in line is not the callee's, a time-out is, and
                the breaker outside sees it as the failure it is

A hedge made without a budget of its own draws on that of the retry around it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar, cast

from headgate.resilience.breaker import CircuitBreaker
from headgate.resilience.bulkhead import Bulkhead
from headgate.resilience.calls import is_async, name_of
from headgate.resilience.deadline import Deadline
from headgate.resilience.deadline import deadline as make_deadline
from headgate.resilience.fallback import Fallback
from headgate.resilience.hedge import Hedge
from headgate.resilience.limit import Limit
from headgate.resilience.retry import Retry
from headgate.resilience.settings import Duration
from headgate.resilience.shared_limit import SharedLimit
from headgate.resilience.timeout import Timeout
from headgate.resilience.timeout import timeout as make_timeout

__all__ = ["Policies", "policies"]

P = ParamSpec("P")
R = TypeVar("R")


class Policies:
    """Made by `policies()`."""

    def __init__(self, parts: tuple[tuple[str, Any], ...]) -> None:
        self.parts = parts
        """By name, from the outside in."""

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function, plain or async."""
        wrapped: Any = function
        for _, part in reversed(self.parts):
            wrapped = part(wrapped)
        return cast("Callable[P, R]", wrapped)

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Wraps anew for each call; decorate what is called often."""
        if is_async(function):
            raise TypeError(f"{name_of(function)} is async; use call_async")
        return self(function)(*args, **kwargs)

    async def call_async(
        self, function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        return await self(function)(*args, **kwargs)

    def snapshot(self) -> dict[str, Any]:
        """Of each part that has one."""
        return {name: part.snapshot() for name, part in self.parts if hasattr(part, "snapshot")}


def policies(
    *,
    fallback: Fallback | None = None,
    deadline: Deadline | Duration | None = None,
    retry: Retry | None = None,
    hedge: Hedge | None = None,
    breaker: CircuitBreaker | None = None,
    limit: Limit | SharedLimit | None = None,
    bulkhead: Bulkhead | None = None,
    timeout: Timeout | Duration | None = None,
) -> Policies:
    """Nest them in the order of the arguments, the first outermost."""
    if deadline is not None and not isinstance(deadline, Deadline):
        deadline = make_deadline(deadline)
    if timeout is not None and not isinstance(timeout, Timeout):
        timeout = make_timeout(timeout)
    if hedge is not None and hedge.counts and retry is not None and retry.budget is not None:
        hedge = hedge.sharing(retry.budget)
    parts = {
        "fallback": fallback,
        "deadline": deadline,
        "retry": retry,
        "hedge": hedge,
        "breaker": breaker,
        "limit": limit,
        "bulkhead": bulkhead,
        "timeout": timeout,
    }
    return Policies(tuple((name, part) for name, part in parts.items() if part is not None))

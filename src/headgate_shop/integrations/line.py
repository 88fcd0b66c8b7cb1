"""The line to one partner: as fast as both allow, tried again with a budget, cut by a breaker.

Theory of operation
-------------------
A request goes, from the outside in, through the retries, the breaker, our own limit, and the pace
that the partner asked for. `Pace` hears every answer: a bucket that is nearly full, a count of
what is left that is nearly used up, or a `Retry-After`. It holds all requests of the line back,
not only the one that was told.

    429           Throttled: not a failure of the partner; waited for if it is short
    5xx, no answer  Away: tried again, counted by the breaker
    other 4xx     answered: the connector knows what it means
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from headgate import observe
from headgate.errors import HeadgateError
from headgate.mesh import Response, Service
from headgate.resilience import Budget, Refused, breaker, limit, retry

__all__ = ["Away", "Line", "Pace", "Throttled", "Usage"]

TIMEOUT_S: Final = 10.0
WAIT_MAX: Final = "5s"
RESET_AFTER: Final = "5s"
HOLD_MAX_S: Final = 120.0


class Away(Exception):
    """The partner did not answer, or answered that it cannot."""

    def __init__(self, why: str, retry_after_s: float | None = None) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


class Throttled(Away):
    """The partner wants us to wait."""


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of what a partner allows is used, by the headers of its answer."""

    used: float
    most: float
    refill_s: float
    """For one more."""


class Pace:
    """When the partner may be asked again. Pure; `now` is monotonic."""

    def __init__(self) -> None:
        self._held_until = 0.0

    def wait_s(self, now: float) -> float:
        return max(0.0, self._held_until - now)

    def hold(self, seconds: float, now: float) -> None:
        until = now + min(HOLD_MAX_S, max(0.0, seconds))
        self._held_until = max(self._held_until, until)

    def hear(self, usage: Usage | None, now: float) -> None:
        """Slow down before the partner has to say so: at nine tenths, one at a time."""
        if usage is not None and usage.most > 0 and usage.used >= 0.9 * usage.most:
            self.hold(usage.refill_s, now)


class Line:
    def __init__(
        self,
        name: str,
        partner: Callable[[], Service],
        *,
        rate: str,
        usage: Callable[[Mapping[str, str]], Usage | None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        registry: observe.Registry = observe.REGISTRY,
    ) -> None:
        """`partner` is asked for with each request: the mesh may hear of it later than we begin."""
        self.name = name
        self.pace = Pace()
        self.calls_total = 0
        self.failures_total = 0
        self._partner = partner
        self._usage = usage
        self._clock, self._sleep = clock, sleep
        self._limit = limit(rate, name=f"integration {name}", wait=WAIT_MAX)
        # Not among BREAKERS: those are the process's, and this one ends with its service.
        self.breaker = breaker(
            f"integration {name}",
            window=10,
            minimum_calls=4,
            failure_rate="50%",
            reset_after=RESET_AFTER,
            reset_max="60s",
            failures=Away,
            ignore=Throttled,
            registry=None,
        )
        self._retry = retry(
            attempts=3,
            wait="200ms",
            on=Away,
            retry_after_max="10s",
            budget=Budget("20%"),
            name=f"integration {name}",
        )
        self._calls = registry.counter(
            "shop_integration_calls", "Requests to partners.", ("connector", "outcome")
        )

    @property
    def is_open(self) -> bool:
        """Whether the partner is not asked now, because it failed too often."""
        return self.breaker.state == "open"

    async def request(self, method: str, path: str, **more: Any) -> Response:
        """The answer, of a status below 500 that is not 429. Raise Away for everything else."""
        try:
            return await self._retry.call_async(
                self.breaker.call_async, self._once, method, path, more
            )
        except Refused as refused:
            why = f"{self.name} is not asked for a while: {refused}"
            raise Away(why, refused.retry_after_s) from refused

    async def _once(self, method: str, path: str, more: Mapping[str, Any]) -> Response:
        await self._limit.wait_async()
        while (wait_s := self.pace.wait_s(self._clock())) > 0:
            await self._sleep(wait_s)
        self.calls_total += 1
        try:
            answer = await self._partner().request(
                method, path, **{"timeout": TIMEOUT_S, "idempotent": False, **more}
            )
        except HeadgateError as error:
            self._failed("no_answer")
            raise Away(f"{method} {_shown(path)}: {error}") from error
        now = self._clock()
        headers = {name.lower(): value for name, value in answer.headers.items()}
        self.pace.hear(self._usage(headers), now)
        if answer.status_code == 429:
            wait_s = _retry_after(headers) or 1.0
            self.pace.hold(wait_s, now)
            self._calls.add(1, self.name, "throttled")
            raise Throttled(f"{method} {_shown(path)}: too fast for the partner", wait_s)
        if answer.status_code >= 500:
            self._failed("failed")
            raise Away(
                f"{method} {_shown(path)}: status {answer.status_code}", _retry_after(headers)
            )
        self._calls.add(1, self.name, "answered")
        return answer

    def _failed(self, outcome: str) -> None:
        self.failures_total += 1
        self._calls.add(1, self.name, outcome)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """In seconds; partners of ours do not send dates."""
    try:
        wait_s = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return wait_s if 0 <= wait_s < 86400 else None


def _shown(path: str) -> str:
    """Without what may be a secret: the chat's URL is one."""
    return path if not path.startswith("/chat/hooks/") else "/chat/hooks/..."

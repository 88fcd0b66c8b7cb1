"""How a partner is doing: down, slow, failing, silent after the deed; and how much it allows.

The weather is that of the payment company; what is refused here is refused in the partner's own
words, before its API sees the request.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field
from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headgate.resilience import Limit, limit
from headgate_shop.payments.weather import WeatherSpec

__all__ = ["MoodLayer", "MoodSpec", "Partner", "Refusal"]


class MoodSpec(WeatherSpec):
    """`hang_share` is what is carried out and then answered with 504: the answer was lost."""

    down: bool = False
    """Nobody answers: 503, without a word."""
    rate: float = Field(default=0, ge=0, le=10_000)
    """Requests a second; 0 is what the partner allows by itself."""


@dataclass(frozen=True, slots=True)
class Refusal:
    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> Response:
        return JSONResponse(self.body, self.status, headers=dict(self.headers))


class Partner:
    """One of them: its limit and its mood."""

    def __init__(
        self,
        name: str,
        *,
        rate: float,
        burst: int,
        too_many: Callable[[float], Refusal],
        told: Callable[[int, int], Mapping[str, str]],
        rng: random.Random,
    ) -> None:
        """`too_many` is what it says to one request too much, given the seconds to wait; `told` the
        headers of every answer, given what is used and what is allowed at once.
        """
        self.name = name
        self.spec = MoodSpec()
        self.rng = rng
        self.calls_total = 0
        self.refused_total = 0
        self._rate, self._burst = rate, burst
        self._too_many, self._told = too_many, told
        self._limit = self._made()

    def play(self, spec: MoodSpec) -> None:
        self.spec = spec
        self._limit = self._made()

    def _made(self) -> Limit:
        rate = self.spec.rate or self._rate
        a_minute = max(1, round(rate * 60))
        return limit(f"{a_minute}/min", algorithm="token_bucket", burst=self._burst)

    def admit(self) -> tuple[Refusal | None, Mapping[str, str]]:
        self.calls_total += 1
        verdict = self._limit.try_hit(self.name)
        told = self._told(verdict.limit - verdict.remaining, verdict.limit)
        if verdict.allowed:
            return None, told
        self.refused_total += 1
        return self._too_many(verdict.retry_after_s), told


class MoodLayer:
    """Stands before the partners' APIs; `partners` are found by the first part of the path."""

    def __init__(self, app: ASGIApp, *, partners: Mapping[str, Partner]) -> None:
        self._app = app
        self._partners = partners

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        partner = None
        if scope["type"] == "http":
            partner = self._partners.get(str(scope["path"]).split("/", 2)[1])
        if partner is None:
            await self._app(scope, receive, send)
            return
        spec = partner.spec
        if spec.latency_ms:
            await asyncio.sleep(spec.latency_ms / 1000)
        if spec.down:
            await Response(status_code=503)(scope, receive, send)
            return
        fate = spec.fate(partner.rng)
        if fate == "failed":
            await Response(status_code=500)(scope, receive, send)
            return
        refusal, told = partner.admit()
        if refusal is not None:
            await _with(told, send, refusal.response(), scope, receive)
            return
        if fate == "silent":
            await self._app(scope, receive, _nobody)
            await Response(status_code=504)(scope, receive, send)
            return

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in told.items():
                    headers[name] = value
            await send(message)

        await self._app(scope, receive, tell)


async def _with(
    told: Mapping[str, str], send: Send, response: Response, scope: Scope, receive: Receive
) -> None:
    for name, value in told.items():
        response.headers.setdefault(name, value)
    await response(scope, receive, send)


async def _nobody(_: Message) -> None:
    return

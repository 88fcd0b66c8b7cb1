"""Bad days of the payment company, on demand: late, failing, or silent after the deed.

A failure comes before anything is done. A silence comes after: the money is taken, and whoever
asked for it does not hear so. That is the case that callers get wrong.
"""

from __future__ import annotations

import asyncio
import random
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from headgate.kit import Problem

__all__ = ["Weather", "WeatherSpec"]

SILENCE_S: Final = 60.0

Fate = Literal["answered", "failed", "silent"]


class WeatherSpec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    latency_ms: float = Field(default=0, ge=0, le=60_000)
    """The way there and the way back: half of it is waited before the deed, half after it."""
    fail_share: float = Field(default=0, ge=0, le=1)
    """Of requests that are answered 503 before anything is done."""
    hang_share: float = Field(default=0, ge=0, le=1)
    """Of requests that are carried out and never answered."""

    def fate(self, rng: random.Random) -> Fate:
        chance = rng.random()
        if chance < self.fail_share:
            return "failed"
        # Of those that do not fail, so that both may be 1 and mean what they say.
        return "silent" if rng.random() < self.hang_share else "answered"


class Weather:
    """It holds for the process: who starts anew has a good day."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self.spec = WeatherSpec()
        self._rng = rng or random.Random()

    async def before(self) -> Fate:
        spec = self.spec
        await self._way()
        fate = spec.fate(self._rng)
        if fate == "failed":
            raise Problem(
                503,
                "the payment service has a bad day; nothing was done",
                code="unavailable",
                headers={"retry-after": "1"},
            )
        return fate

    async def after(self, fate: Fate) -> None:
        await self._way()
        if fate == "silent":
            await asyncio.sleep(SILENCE_S)
            raise Problem(504, "the answer was lost; ask what became of it", code="unknown")

    async def _way(self) -> None:
        if self.spec.latency_ms:
            await asyncio.sleep(self.spec.latency_ms / 2000)

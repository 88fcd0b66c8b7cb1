"""Testers of a new release: they ask the canary on purpose, where visitors come to it by chance.

Few visitors are sent to the canary, and most of what they ask is answered from the cache. As after
a deploy in earnest, somebody looks at the new version itself: while the bad release is played, and
for a while after it was taken back, a page of products is asked for through the gateway with the
header that chooses the canary. So it is judged within seconds, and found well again as soon.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

import httpx

from headgate_shop.base.background import Background

__all__ = ["Testers"]

TESTERS: Final = 3
"""Each has a connection of its own, so that all workers of the gateway see the canary's answers."""
EVERY_S: Final = 0.4
AFTER_S: Final = 25.0
"""Longer than a breaker waits for its next trial."""
ADDRESS: Final = "127.66.0.1"
"""Of this machine, and nobody else's: limits count by address, and theirs is not the visitors'."""
HEADER: Final = {"x-canary": "1"}


class Testers(Background):
    """At it while entered; `is_wanted` says whether the canary is to be looked at."""

    task_name = "testers"

    def __init__(self, url: str, is_wanted: Callable[[], bool]) -> None:
        self._url = url
        self._is_wanted = is_wanted
        self._until = 0.0
        self._prices = itertools.count(1)

    async def _run(self) -> None:
        await asyncio.gather(*(self._test() for _ in range(TESTERS)))

    async def _test(self) -> None:
        is_here = urlsplit(self._url).hostname in ("127.0.0.1", "localhost")
        transport = httpx.AsyncHTTPTransport(local_address=ADDRESS if is_here else None)
        async with httpx.AsyncClient(
            base_url=self._url, transport=transport, headers=HEADER, timeout=5, trust_env=False
        ) as client:
            while not self.is_ending():
                await self.rest(EVERY_S, is_deaf=True)
                if self._is_wanted():
                    self._until = time.monotonic() + AFTER_S
                if time.monotonic() < self._until:
                    # Each price is another page, which no cache has. What comes of it is for the
                    # gateway to judge.
                    with contextlib.suppress(httpx.HTTPError):
                        await client.get(f"/api/products?limit=1&min_price={next(self._prices)}")

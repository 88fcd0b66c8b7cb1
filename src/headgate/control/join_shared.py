"""The book of join tokens and denials in a Redis, for several control processes.

Theory of operation. One key holds the book whole, with a number that grows by one with each change,
and the mark of whoever began it. Who changes the book says which number he has read; if there is
another by then, nothing is written, and he reads again. So a token is used up once, at whichever
control it is shown. A mark that is another than before means that this Redis has lost its memory,
or is another one.

Nothing is decided while Redis is away: every question is answered with None.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, NamedTuple

from headgate.mesh.registry.redis_link import RedisLink
from headgate.state.redis_script import Script

__all__ = ["Found", "SharedBook"]

DEADLINE_S: Final = 2.0
_AGAIN_S: Final = 1.0

READ: Final = Script.of(
    """
local mark = redis.call('HGET', KEYS[1], 'mark') or ''
local n = tonumber(redis.call('HGET', KEYS[1], 'n') or 0)
if mark ~= '' and mark == ARGV[1] and n == tonumber(ARGV[2]) then return {mark, n} end
return {mark, n, redis.call('HGET', KEYS[1], 'book') or ''}
"""
)
"""Mark and number as they are known -> those there are, and the book where they are others."""

WRITE: Final = Script.of(
    """
if (redis.call('HGET', KEYS[1], 'mark') or '') ~= ARGV[1] then return 0 end
if tonumber(redis.call('HGET', KEYS[1], 'n') or 0) ~= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'mark', ARGV[3], 'book', ARGV[4])
return redis.call('HINCRBY', KEYS[1], 'n', 1)
"""
)
"""Mark and number that were read, the mark from now on, the book -> its number; 0: others were
faster.
"""


class Found(NamedTuple):
    mark: str
    """"": nobody has begun a book here."""
    number: int
    text: str | None
    """None: as it is known."""


class SharedBook(RedisLink):
    def __init__(
        self, url: str, *, prefix: str = "headgate", deadline_s: float = DEADLINE_S
    ) -> None:
        """Raises HeadgateError for a URL that is none."""
        super().__init__(url, prefix, deadline_s)
        self._keys = (f"{prefix}:{{registry}}:joining",)
        self._again_at = 0.0

    async def read(self, mark: str, number: int) -> Found | None:
        if self.away and not await self._try():
            return None
        said = await self._ask(READ, mark, number)
        if said is None:
            return None
        text = _text(said[2]) if len(said) > 2 else None
        return Found(_text(said[0]), int(said[1]), text)

    async def write(self, found: Found, mark: str, text: str) -> int | None:
        """Its number from now on; 0: somebody else has changed it since it was read."""
        said = await self._ask(WRITE, found.mark, found.number, mark, text)
        return None if said is None else int(said)

    async def close(self) -> None:
        await self._disconnect()

    async def _try(self) -> bool:
        """Whether it is back. Asked often, it is not looked for each time."""
        now = time.monotonic()
        if now < self._again_at:
            return False
        self._again_at = now + _AGAIN_S
        try:
            async with asyncio.timeout(self._deadline_s):
                if self._client is None:
                    self._connect()
                await self._greet()
        except TimeoutError:
            self.away = f"no answer within {self._deadline_s:g} s"
        except self._faults as error:
            self.away = self._place.words(error)
        else:
            self.away = ""
        return not self.away


def _text(said: bytes | str) -> str:
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else said

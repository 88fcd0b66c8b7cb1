"""Services' own figures: every instance is asked now and then, by few threads, within bounds."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from headgate.config import Config
from headgate.observe.history import Scrape

__all__ = ["Scraper"]

_AT_ONCE: Final = 4
_TIMEOUT_S: Final = 5.0
_MAX_BYTES: Final = 5_000_000
_MISSES: Final = 2.5  # how many rounds an instance may be silent before its series end
_ASKING: Final = {"accept": "text/plain;version=0.0.4", "accept-encoding": "gzip"}


class Scraper:
    """One task for each entry of the file."""

    def __init__(self, give: Callable[..., int]) -> None:
        self._give = give
        self._tasks: list[asyncio.Task[None]] = []
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._rng = random.Random()
        self.succeeded = 0
        self.failed = 0
        self.left_out = 0

    def take(self, config: Config, scrapes: Sequence[Scrape]) -> None:
        """Ask these from now on, and no others."""
        for task in self._tasks:
            task.cancel()
        self._tasks = []
        for one in scrapes:
            urls = [
                str(getattr(instance, "url", instance))
                for instance in getattr(config.services.get(one.service), "instances", ())
            ]
            work = self._again_and_again(one, urls)
            self._tasks.append(asyncio.get_running_loop().create_task(work, name="scrape"))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _again_and_again(self, scrape: Scrape, urls: Sequence[str]) -> None:
        await asyncio.sleep(self._rng.uniform(0, min(scrape.every_s, 1.0)))
        due = time.monotonic()
        while True:
            await asyncio.gather(*(self._ask(scrape, url) for url in urls))
            due = max(due + scrape.every_s, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    async def _ask(self, scrape: Scrape, url: str) -> None:
        import httpx

        from headgate.observe.history.families import of_text

        try:
            async with self._places, asyncio.timeout(_TIMEOUT_S):
                text = await _text_of(httpx, url, scrape.path)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError, ValueError):
            self.failed += 1
            return
        more = {"service": scrape.service, "service_instance": url}
        families, left_out = await asyncio.to_thread(of_text, text, more, scrape.max_series)
        self.left_out += left_out
        self.succeeded += 1
        holds_s = max(_MISSES * scrape.every_s, 5.0)
        self._give(f"scrape {scrape.service} {url}", families, holds_s=holds_s)


def _unpacker(encoding: str) -> Any:
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip":
            return zlib.decompressobj(16 + zlib.MAX_WBITS)
    raise ValueError("it is packed in a way that was not asked for")


def _unpacked(unpack: Any, packed: bytes, most: int) -> bytes:
    try:
        made: bytes = unpack.decompress(packed, most)
    except zlib.error as error:
        raise ValueError("it is spoilt") from error
    return made


async def _text_of(httpx: Any, url: str, path: str) -> str:
    found = bytearray()
    transport = None
    address = url.rstrip("/") + path
    for lead in ("unix:", "http+unix://"):
        if url.startswith(lead):
            transport = httpx.AsyncHTTPTransport(uds=url.removeprefix(lead))
            address = f"http://localhost{path}"
    async with (
        httpx.AsyncClient(trust_env=False, transport=transport) as client,
        client.stream("GET", address, headers=_ASKING) as answer,
    ):
        answer.raise_for_status()
        # Not unpacked by the client: a small piece may become very much.
        unpack = _unpacker(answer.headers.get("content-encoding", ""))
        async for piece in answer.aiter_raw():
            left: bytes = piece
            while left and not (unpack is not None and unpack.eof):
                if unpack is None:
                    found += left
                    left = b""
                else:
                    found += _unpacked(unpack, left, _MAX_BYTES + 1 - len(found))
                    left = unpack.unconsumed_tail
                if len(found) > _MAX_BYTES:
                    raise ValueError("it shows too much")
        if unpack is not None and not unpack.eof:
            raise ValueError("it is torn")
    with contextlib.suppress(UnicodeDecodeError):
        return found.decode()
    raise ValueError("it is no text")

"""A count is the same number everywhere: in memory, over Redis, over a file, for all who share it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headgate.cache import Cache
from tests.cache.redis_rig import run, server_in, until

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("where", ["memory", "redis", "file"])
def test_a_count_reads_as_what_was_counted_and_goes_on_from_what_was_set(
    tmp_path: Path, where: str
):
    async def main(url: str | None) -> None:
        one = Cache(url)
        other = Cache(url) if url else one
        async with one, other:
            if url:
                await until(lambda: one.health().is_ok and other.health().is_ok)
            assert await one.increment("visits") == 1
            assert await other.increment("visits", 4) == 5
            assert await one.get("visits") == 5
            assert await one.increment("visits") == 6
            assert await one.get("visits") == 6, "one's own counting is seen at once"
            while await other.get("visits") != 6:  # which held 5 for as long as news may take
                await asyncio.sleep(0.01)
            assert (await other.get_many(["visits", "none"])) == {"visits": 6}

            await one.set("stock", 40, tags=["stocks"])
            assert await other.get("stock") == 40
            assert await one.increment("stock", 2) == 42
            await asyncio.sleep(0.2 if url else 0)
            assert await other.get("stock") == 42
            assert await other.increment("stock", -2) == 40

            await one.set("stock", 7)
            assert await one.get("stock") == 7
            assert await other.increment("stock") == 8
            await one.delete("stock")
            assert await one.get("stock") is None
            assert await one.increment("stock") == 1

            await one.set("text", "x")
            with pytest.raises(TypeError, match="whole number"):
                await other.increment("text")
            assert await one.get("text") == "x"
            await one.increment("big", 2**62)
            with pytest.raises(OverflowError, match="64 bits"):
                await other.increment("big", 2**62)
            assert await other.increment("least", -(2**63)) == -(2**63)

            assert await one.touch("visits", 0.05)
            await until_gone(other, "visits")

    if where == "redis":
        with server_in(tmp_path / "redis") as server:
            run(lambda: main(server.url))
    else:
        run(lambda: main(None if where == "memory" else f"file:{tmp_path}/cache.db"))


async def until_gone(cache: Cache, key: str) -> None:
    while await cache.get(key) is not None:
        await asyncio.sleep(0.01)

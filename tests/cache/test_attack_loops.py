"""A cache as tests and scripts use one: closed or not, over loop after loop, with every warning on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cache.redis_rig import server_in

pytestmark = pytest.mark.integration

SCRIPT = """
import asyncio, gc, sys
from headgate.cache import Cache

where, how, loop = sys.argv[1:]
url = where or None
# A machine that stands still for a second must not look like a file that another holds.
settings = {"layer_settings": {"busy": 10, "deadline": 20}} if where.startswith("file:") else {}

async def use(cache):
    while not cache.health().is_ok:
        await cache.get("x")
        await asyncio.sleep(0.01)
    async def load():
        await asyncio.sleep(0)
        return 1
    assert await cache.get_or_set("k", load, tags=["t"]) == 1
    await cache.set("j", 2)
    await cache.invalidate(tags=["t"])
    left = asyncio.ensure_future(cache.get_or_set("slow", lambda: asyncio.sleep(30)))
    await asyncio.sleep(0.01)
    left.cancel()

async def closed():
    async with Cache(url, **settings) as cache:
        await use(cache)

async def unclosed():
    await use(Cache(url, **settings))

SHARED = Cache(url, **settings)

async def shared():
    await use(SHARED)

for _ in range(3):
    if loop == "uvloop":
        import uvloop
        uvloop.run({"closed": closed, "unclosed": unclosed, "shared": shared}[how]())
    else:
        asyncio.run({"closed": closed, "unclosed": unclosed, "shared": shared}[how]())
    gc.collect()
gc.collect()
print("well")
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("how", ["closed", "unclosed", "shared"])
@pytest.mark.parametrize("where", ["memory", "redis", "file"])
def test_nothing_is_left_open_or_pending_or_never_awaited(
    tmp_path: Path, where: str, how: str, loop: str
):
    def run(url: str) -> None:
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-c", SCRIPT, url, how, loop],
            env={**os.environ, "PYTHONASYNCIODEBUG": "1"},
            capture_output=True,
            text=True,
            timeout=50,
        )
        # In debug mode a loop also says what took long, which a busy machine makes many things.
        said = [line for line in done.stderr.splitlines() if line and " took " not in line]
        assert (done.stdout, said) == ("well\n", []), done.stderr

    if where == "redis":
        with server_in(tmp_path / "redis") as server:
            run(server.url)
    else:
        run("" if where == "memory" else f"file:{tmp_path}/cache.db")

"""Real processes that share a file."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.integration

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

CHILD = """
import asyncio, sys
from headgate.cache import Cache

async def main(path):
    async with Cache(f"file:{path}/cache") as cache:
        print("ready", flush=True)
        sys.stdin.readline()
        async def load():
            with open(f"{path}/loads", "a") as file:
                file.write("x")
            await asyncio.sleep(0.3)
            return {"made": "once"}
        got = await asyncio.gather(*[cache.get_or_set("k", load, tags=["t"]) for _ in range(10)])
        print(got == [{"made": "once"}] * 10, flush=True)
        sys.stdin.readline()
        for _ in range(100):
            if await cache.get("k") is None:
                break
            await asyncio.sleep(0.02)
        print(await cache.get("k"), flush=True)

asyncio.run(main(sys.argv[1]))
"""


def test_of_four_processes_one_loads_and_all_hear_what_is_invalidated(tmp_path):
    children: list[Any] = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(4)
    ]
    try:
        for each in children:
            assert each.stdout.readline() == "ready\n"
        for each in children:
            each.stdin.write("go\n")
            each.stdin.flush()
        for each in children:
            assert each.stdout.readline() == "True\n"
        assert (tmp_path / "loads").read_text() == "x"
        tell = "import sys; from headgate.cache import Cache; Cache('file:' + sys.argv[1]).sync.invalidate(tags=['t'])"
        subprocess.run(
            [sys.executable, "-c", tell, str(tmp_path / "cache")], check=True, timeout=60
        )
        for each in children:
            each.stdin.write("go\n")
            each.stdin.flush()
        for each in children:
            assert each.stdout.readline() == "None\n"
    finally:
        for each in children:
            each.kill()
            each.communicate(timeout=20)

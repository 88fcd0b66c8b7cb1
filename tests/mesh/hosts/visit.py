"""Calls a service by its name without a pause, and writes what became of it, line by line.

    python visit.py FILE CONTROL SERVICE

A line is JSON: {"ok": 12, "failed": ["why"], "by": {"a": 6, "b": 6}, "slowest_s": 0.1}, of all calls
since the beginning.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter


async def main(file: str, control: str, service: str) -> None:
    from headgate.mesh import Mesh

    by: Counter[str] = Counter()
    failed: list[str] = []
    slowest_s, told = 0.0, 0.0
    async with Mesh(file, control=control, name="visitor") as mesh:
        asked = mesh.service(service)
        while True:
            began = time.monotonic()
            try:
                found = await asked.get("/who")
                by[found.json()["who"] if found.status_code == 200 else str(found.status_code)] += 1
            except Exception as error:
                failed.append(f"{type(error).__name__}: {error}"[:300])
            now = time.monotonic()
            slowest_s = max(slowest_s, now - began)
            if now - told > 0.1:
                told = now
                said = {
                    "ok": by.total(),
                    "failed": failed[-20:],
                    "by": dict(by),
                    "slowest_s": round(slowest_s, 3),
                }
                print(json.dumps(said), flush=True)
            await asyncio.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))

"""What the page on health shows runs as written."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any, cast

import httpx

from headgate.config import load
from headgate.config.monitoring import monitors_of

PAGE = Path(__file__).resolve().parents[3] / "docs" / "howto" / "health.md"


def block(kind: str) -> str:
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return found


def test_the_file_of_the_page_has_no_fault(tmp_path):
    file = tmp_path / "headgate.yaml"
    file.write_text(block("yaml"))
    loaded = load(file)
    assert not [each for each in loaded.warnings if "monitors" in each.where]
    kinds = [each.kind for each in monitors_of(loaded.config.monitors)]
    assert kinds == ["url", "tcp", "dns", "certificate", "redis", "postgres"]


def test_the_service_of_the_page_answers():
    names: dict[str, object] = {}
    exec(compile(block("python"), str(PAGE), "exec"), names)

    async def main():
        transport = httpx.ASGITransport(cast("Any", names["app"]), client=("127.0.0.1", 5))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as asker:
            for path in ("live", "ready", "startup"):
                assert (await asker.get(f"/health/{path}")).status_code == 200
            said = (await asker.get("/health")).json()
        found = {name.partition(":")[0] for name in said["checks"]}
        assert found == {"disk", "memory", "loop", "ledger"}

    asyncio.run(main())

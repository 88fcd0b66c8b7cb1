"""The examples of docs/howto/cache.md, run from top to bottom as they stand there."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from headgate.cache.options import DEFAULTS, Settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "cache.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def page():
    names: dict = {}
    for number, block in enumerate(BLOCKS, 1):
        exec(compile(block, f"{PAGE.name}, example {number}", "exec"), names)
    return names


def test_the_examples_do_what_the_page_says(page, capsys):
    async def main():
        await page["values"]()
        assert await page["fetch_user"](7) == {"id": 7}
        await page["forget"]()
        assert await page["Shop"](1).price("pen") == 5
        await page["changed"]()
        assert await page["page"]() == await page["page"]() == "the page"
        assert await page["product"]() == {"id": 7, "max_age": 30}
        await page["cache"].invalidate(tags=["product:7"])
        assert await page["cache"].get("product:7") is None
        await page["warm"]()
        await page["look"]()
        with pytest.raises(OSError):
            await page["cache"].get_or_set("broken", broken)

    async def broken():
        raise OSError("down")

    asyncio.run(main())
    assert page["exchange_rate"]("eur") == 1.1
    assert capsys.readouterr().out.splitlines() == [
        "{'name': 'Ada'}",
        "nobody",
        "{'a': 1, 'b': 2}",
        "1",
        "user:7",
        "20 0 0",
        "True True",
        "failed: broken OSError",
    ]


def test_every_setting_in_the_table_is_one_and_none_is_missing():
    table = PAGE.read_text().split("| setting |")[1].split("\n\n")[0]
    named = {
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    beside = {"tags", "pause", "when_alone"}
    assert named | beside == set(Settings.__annotations__) | {"tags"}
    assert DEFAULTS.ttl_s == 300 and DEFAULTS.jitter == 0.05 and DEFAULTS.lease_wait_s == 10

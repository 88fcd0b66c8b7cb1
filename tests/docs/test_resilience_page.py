"""The examples of docs/howto/resilience-toolkit.md, run from top to bottom as they stand there."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from headgate.resilience import BREAKERS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "resilience-toolkit.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def page():
    """What the names of the page stand for once all of it has run."""
    before = {made.name for made in BREAKERS}
    names: dict[str, object] = {}
    for number, block in enumerate(BLOCKS, 1):
        exec(compile(block, f"{PAGE.name}, example {number}", "exec"), names)
    yield names
    for made in tuple(BREAKERS):
        if made.name not in before:
            BREAKERS.remove(made.name)


def test_the_examples_run(page, capsys):
    assert page["users"].state == "closed"
    assert page["orders"].state == "closed"
    assert page["quotes"].state == "forced_open"


def test_what_the_examples_print_is_what_the_page_says(capsys, page):
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "closed -1.0"
    assert "try 1" in said
    assert "True 4" in said
    assert "['breaker', 'bulkhead', 'hedge', 'retry']" in said
    assert said[-1] == "breaker quotes forced_open forced open 0.0"


def test_the_functions_of_the_examples_can_be_called(page, capsys):
    async def main():
        assert await page["fetch_user"](7) == {"id": 7}
        assert await page["ask"]() == "fine"
        assert await page["in_stock"](7) is True
        await page["work_async"]()
        assert await page["greet"]() == "hello user 42"
        assert await page["ask_database"]() is None
        await page["connections"].close()
        for name, arguments in (
            ("send_mail", ("ada",)),
            ("report", ()),
            ("product", (7,)),
            ("price", (7,)),
        ):
            assert await page[name](*arguments) is None

    asyncio.run(main())
    page["work"]()
    assert page["search"]("ada", "words") == "words"
    assert page["read"]() is None
    shown = capsys.readouterr().out
    assert "2.0\n" in shown
    assert "x-headgate-deadline" in shown

"""The page about tags: its code runs, and its tables of tags are so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headgate.cache.tables import tags_for

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "howto" / "tags.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_code_of_the_page_runs(number: int):
    names: dict[str, object] = {"__name__": "shop"}
    if "api = " not in BLOCKS[number] and "(api" in BLOCKS[number]:
        exec(BLOCKS[1], names)
    exec(BLOCKS[number], names)
    if "PAY" in names:
        assert tags_for(str(names["PAY"])) == ("table:orders",)
        assert tags_for(str(names["OPEN_ORDERS"])) == ("table:orders", "table:customers")
    if "TAGS" in names:
        assert names["TAGS"] == ("table:orders", "table:archived_orders")


def test_the_table_of_schemas_is_so():
    assert tags_for("SELECT * FROM orders") == tags_for("SELECT * FROM public.orders")
    assert tags_for("SELECT * FROM sales.orders") == ("table:sales.orders", "table:orders")
    for name in ("orders", "sales.orders"):
        assert tags_for(f"SELECT * FROM {name}", schema="sales") == ("table:sales.orders",)

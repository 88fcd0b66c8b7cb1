"""Entries for other programs: lines as they stand, or a table.

A cell that begins like a formula would be run by a spreadsheet that opens the table, and much of
an entry comes from strangers. Such a cell gets an apostrophe before it, which shows as text.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

__all__ = ["COLUMNS", "cell", "to_csv"]

COLUMNS: Final = (
    "seq", "time", "actor", "action", "target", "origin", "outcome", "request_id",
    "before", "after", "detail", "boot", "hash",
)  # fmt: skip
_FORMULA: Final = frozenset("=+-@|%\t\r\n＝＋－＠")  # noqa: RUF001 - wide forms are formulas too


def cell(value: Any) -> str:
    """A value as the text of a cell that no spreadsheet runs."""
    if value is None:
        return ""
    text = (
        value
        if isinstance(value, str)
        else json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    )
    text = text.replace("\0", "").encode("utf-8", "replace").decode()
    return f"'{text}" if text.lstrip()[:1] in _FORMULA or text[:1] in _FORMULA else text


def to_csv(entries: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The table line by line, its head first."""
    yield _row(COLUMNS)
    for entry in entries:
        yield _row([_time(entry) if name == "time" else cell(entry.get(name)) for name in COLUMNS])


def _row(cells: Iterable[str]) -> str:
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_MINIMAL).writerow(cells)
    return out.getvalue()


def _time(entry: dict[str, Any]) -> str:
    wall = entry.get("wall")
    if not isinstance(wall, int | float) or not 0 <= wall < 253402300800:
        return ""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(wall))}.{int(wall * 1000) % 1000:03d}Z"

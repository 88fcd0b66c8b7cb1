"""The tables of docs/security: every test they name exists, every page they link is there, and no
requirement of ASVS at levels 1 and 2 is left out or stands twice.
"""

from __future__ import annotations

import ast
import functools
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs" / "security"
PAGES = (DOCS / "owasp-api-top-10.md", DOCS / "asvs.md")
SHOWN = "Shown by"
SHOWN_STATES = frozenset({"covered", "in part"})
OTHER_STATES = frozenset({"not covered", "the service's own"})
NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
LINK = re.compile(r"\[[^\]]+\]\(([^)#\s]+)(?:#[^)\s]*)?\)")

# How many requirements ASVS 5.0.0 has at levels 1 and 2, by chapter.
REQUIREMENTS = {
    1: 27, 2: 11, 3: 19, 4: 10, 5: 9, 6: 35, 7: 18, 8: 7, 9: 7, 10: 29, 11: 14, 12: 9, 13: 13,
    14: 9, 15: 13, 16: 16, 17: 7,
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    page: Path
    id: str
    state: str
    what: str
    where: str
    shown: str

    @property
    def tests(self) -> list[tuple[str, str]]:
        return NAMED.findall(self.shown)


def rows(page: Path) -> list[Row]:
    """The rows of those tables that say by which test something is shown."""
    found: list[Row] = []
    columns: list[str] = []
    for line in page.read_text().splitlines():
        if not line.startswith("|"):
            columns = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not columns:
            columns = cells
        elif columns[-1] == SHOWN and not set(line) <= set("|-: "):
            assert len(cells) == len(columns), f"{page.name}: {line}"
            by = dict(zip(columns, cells, strict=True))
            found.append(Row(page, cells[0], by["State"], by["By"], by["Where"], by[SHOWN]))
    return found


ROWS = [row for page in PAGES for row in rows(page)]


@functools.cache
def functions(file: Path) -> frozenset[str]:
    return frozenset(
        node.name
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def test_there_are_tables_to_look_at():
    assert len(rows(PAGES[0])) >= 10
    assert len(rows(PAGES[1])) > 100


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.page.stem}-{row.id}")
def test_a_row_says_how_it_stands_and_by_what(row):
    assert row.what
    if row.state in SHOWN_STATES:
        assert row.tests, "what is covered is shown by a test"
        assert LINK.search(row.where), "what is covered is described on a page"
    else:
        assert row.state in OTHER_STATES
        assert len(row.what) > 20, "what is not covered has a reason"
    # What is not the name of a test has no place in that column.
    assert not NAMED.sub("", row.shown).strip(" ,-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_test_that_is_named_exists(page):
    missing = [
        f"{row.id}: {file}::{name}"
        for row in rows(page)
        for file, name in row.tests
        if not (ROOT / "tests" / file).is_file() or name not in functions(ROOT / "tests" / file)
    ]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_page_that_is_linked_exists(page):
    targets = set(LINK.findall(page.read_text()))
    local = {each for each in targets if not each.startswith("https://")}
    assert local
    assert not [each for each in local if not (page.parent / each).is_file()]


def test_every_requirement_stands_once():
    text = PAGES[1].read_text()
    named = [row.id for row in rows(PAGES[1])]
    for line in re.findall(r"^Left to the service: (.+?)$", text, re.MULTILINE):
        ids = re.findall(r"\b\d+\.\d+\.\d+\b", line)
        assert ids, line
        named += ids
    twice = {each for each in named if named.count(each) > 1}
    assert not twice
    found = dict.fromkeys(REQUIREMENTS, 0)
    for each in named:
        found[int(each.partition(".")[0])] += 1
    assert found == REQUIREMENTS

"""The reference page tells of every section that there are cases for, and of no others."""

from __future__ import annotations

import re
from pathlib import Path

from tests.gateway.caching import (
    test_conformance_directives,
    test_conformance_forgetting,
    test_conformance_reusing,
    test_conformance_storing,
    test_conformance_validating,
)

ROOT = Path(__file__).resolve().parents[3]
CASES = tuple(
    each
    for module in (
        test_conformance_directives,
        test_conformance_forgetting,
        test_conformance_reusing,
        test_conformance_storing,
        test_conformance_validating,
    )
    for each in module.CASES
)
SHOWN = {
    (found[1], found[2])
    for each in CASES
    if (found := re.match(r"([0-9]{4})-([0-9.]+)-", each.name)) is not None
}


def rows() -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    rfc = ""
    for line in (ROOT / "docs/reference/http-cache.md").read_text().splitlines():
        if line.startswith("## "):
            rfc = line.removeprefix("## RFC ")
        elif (row := re.match(r"\| ([0-9.]+) \|", line)) is not None:
            found[rfc, row[1]] = line
    return found


def test_every_section_with_cases_is_on_the_page():
    assert sorted(SHOWN - rows().keys()) == []


def test_every_row_of_the_page_has_cases_or_says_where_else_to_look():
    bare = {where: row for where, row in rows().items() if where not in SHOWN}
    assert sorted(where for where, row in bare.items() if "shown under" not in row) == []


def test_tests_that_the_page_names_are_there():
    named = [name for row in rows().values() for name in re.findall(r"`(tests/[^`]+)`", row)]
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_no_two_cases_have_one_name():
    names = [each.name for each in CASES]
    assert len(names) == len(set(names)) > 700

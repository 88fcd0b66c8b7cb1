"""Reads the corpora and reports what of them is found, by family.

python tests/security/corpus/report.py            print the table
python tests/security/corpus/report.py --write    put it into docs/howto/injection.md
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[2] / "docs" / "howto" / "injection.md"
BEGIN, END = "<!-- corpus -->\n", "<!-- /corpus -->\n"
_heading = re.compile(r"\[([a-z0-9. ]+)\]").fullmatch


class Case(NamedTuple):
    family: str
    text: str


def read(name: str) -> list[Case]:
    """A corpus: headings in brackets, one text a line, JSON where it has line breaks."""
    cases = []
    family = ""
    for line in (HERE / f"{name}.txt").read_text(encoding="utf-8").split("\n")[:-1]:
        if line.startswith("# Made by"):
            continue
        heading = _heading(line)
        if heading is not None:
            family = heading[1]
        elif line.startswith("json:"):
            cases.append(Case(family, json.loads(line[5:])))
        else:
            cases.append(Case(family, line))
    return cases


def blocked(
    cases: list[Case], score: Callable[[str], int], threshold: int = 5
) -> dict[str, tuple[int, int]]:
    """How many of each family are blocked, and of how many."""
    counts: dict[str, tuple[int, int]] = {}
    for family, text in cases:
        hit, total = counts.get(family, (0, 0))
        counts[family] = (hit + (score(text) >= threshold), total + 1)
    return counts


def share(counts: dict[str, tuple[int, int]], prefix: str = "") -> float:
    chosen = [pair for family, pair in counts.items() if family.startswith(prefix)]
    return sum(hit for hit, _ in chosen) / max(1, sum(total for _, total in chosen))


def table() -> str:
    from headgate.security.injection import score

    def heaviest(text: str) -> int:
        return score(text).score

    lines = ["| Family | Made by generators | Written by hand |", "|---|---|---|"]
    for made, hand in (("hostile", "held_out_hostile"), ("benign", "held_out_benign")):
        one, two = blocked(read(made), heaviest), blocked(read(hand), heaviest)
        word = "attacks found" if made == "hostile" else "harmless values blocked"
        lines.append(f"| **{word}** | {_cell(_sum(one))} | {_cell(_sum(two))} |")
        for family in sorted(one | two):
            lines.append(f"| {family} | {_cell(one.get(family))} | {_cell(two.get(family))} |")
    return "\n".join(lines) + "\n"


def _sum(counts: dict[str, tuple[int, int]]) -> tuple[int, int]:
    return sum(hit for hit, _ in counts.values()), sum(total for _, total in counts.values())


def _cell(pair: tuple[int, int] | None) -> str:
    return "" if pair is None else f"{pair[0]} of {pair[1]}"


def main() -> None:
    found = table()
    if "--write" not in sys.argv:
        print(found, end="")
        return
    page = PAGE.read_text(encoding="utf-8")
    begin, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    PAGE.write_text(page[:begin] + "\n" + found + "\n" + page[end:], encoding="utf-8")


if __name__ == "__main__":
    main()

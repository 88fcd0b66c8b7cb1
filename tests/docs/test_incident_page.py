"""The walk-through is played as it stands, on the demo."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "howto" / "incident.md"


@pytest.mark.timeout(240)
def test_the_commands_of_the_page_do_what_it_says():
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "incident.py"), "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=230,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shown = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    assert "one basket in twenty takes" in shown
    assert "SELECT items" in shown
    assert "basket" in shown and "took 31 statements" in shown
    assert "slow-baskets over" in shown


def test_every_picture_is_there_and_small_and_fetches_nothing():
    named = re.findall(r"\]\(\.\./images/(incident[\w-]*\.svg)\)", PAGE.read_text())
    there = {path.name for path in (ROOT / "docs" / "images").glob("incident*")}
    assert set(named) == there
    for name in named:
        text = (ROOT / "docs" / "images" / name).read_text()
        assert len(text) < 150_000, name
        assert not re.search(r"(?:href|src|url)\W{1,3}https?:", text.partition("<metadata>")[0]), (
            name
        )

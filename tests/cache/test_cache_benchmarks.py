"""The benchmarks of the cache still run, and what they show of a stampede holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(100)]


def run(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_hundred_callers_load_once_and_nobody_else_suffers_when_the_first_leaves() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in run("-m", "benchmarks.toolkit_stampede").splitlines()
        if "| headgate" in line
    ]
    assert len(rows) == 5  # two in a loop, twice, and one in threads
    assert [row[2:5] for row in rows] == [["1", "1", "0"]] * 5


def test_the_page_of_hit_ratios_is_what_the_results_say() -> None:
    show = "import json, sys; from benchmarks.hit_ratios_page import page; "
    found = ROOT / "benchmarks" / "results" / "hit_ratios.json"
    made = run("-c", show + f"print(page(json.load(open({str(found)!r}))), end='')")
    assert made == (ROOT / "docs" / "cache-hit-ratios.md").read_text()
    assert json.loads(found.read_text())["zipf_least"] >= -0.02

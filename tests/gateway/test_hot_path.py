"""The loop that measures the request path, because nobody else calls it and so it may break unseen.

It builds the data plane by hand and ends with an error where a request does not come through.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.integration


def test_the_loop_runs_in_every_case():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.hot_path", "2000"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) >= 10
    assert all(line.endswith(" us a request") and "inf" not in line for line in lines)

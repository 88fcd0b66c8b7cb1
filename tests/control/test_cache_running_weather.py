"""`python -m benchmarks.cache_weather`, in short: no request fails, and nothing is too old."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.control.running import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(150)]


def test_no_answer_fails_or_is_too_old_while_redis_is_in_trouble():
    options = ["--check", "--seconds", "3", "--rate", "60", "--pages", "10"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cache_weather", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=140,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1,620 requests, 0 failed, 0 too old" in done.stdout

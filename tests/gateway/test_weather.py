"""The faults of `make chaos`, in short: with policies no idempotent request may fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(150)]


def test_no_request_fails_while_instances_and_redis_do():
    options = ["--check", "--seconds", "3", "--rate", "40", "--slack", "4"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.weather", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=140,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1,080 requests, 0 failed" in done.stdout

"""The examples of docs/howto/metrics.md run as they are written."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

PAGE = Path(__file__).resolve().parents[3] / "docs" / "howto" / "metrics.md"

RUN = """
import sys
for at, block in enumerate(sys.stdin.read().split("\\0")):
    exec(compile(block, f"block {at}", "exec"), {"__name__": f"page_{at}"})
"""


def test_every_example_runs(tmp_path):
    importlib.import_module("prometheus_client")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) >= 7
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input="\0".join(blocks),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr

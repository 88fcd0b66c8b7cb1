"""A service that imports the toolkit does not get the gateway."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SRC = Path(__file__).resolve().parents[2] / "src"

HEAVY = {"pydantic", "yaml", "uvloop", "fastapi", "uvicorn", "rich", "typer", "watchfiles"}


def test_the_toolkit_pulls_in_neither_the_gateway_nor_pydantic():
    code = "import json, sys, headgate.resilience; print(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"PYTHONPATH": str(SRC)},
    )
    loaded = set(json.loads(done.stdout))
    rooms = {name.split(".")[1] for name in loaded if name.startswith("headgate.")}
    assert rooms <= {"resilience", "policy", "wire", "errors", "units"}
    # Of the wire only rules: how dates and hosts are read, and what fields are called.
    wire = {name for name in loaded if name.startswith("headgate.wire.")}
    assert wire == {f"headgate.wire.{name}" for name in ("forwarded", "host", "http_dates")}
    assert not {name.split(".")[0] for name in loaded} & HEAVY


def test_the_shop_window_shows_what_it_says():
    import headgate.resilience as room

    for name in room.__all__:
        assert hasattr(room, name)
    assert len(set(room.__all__)) == len(room.__all__)

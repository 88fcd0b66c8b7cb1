"""Fuzz the file: the loader answers with a Config or with faults, and with nothing else."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

from headgate.config import ConfigInvalid, load

SEEDS = tuple(
    path.read_bytes() for path in sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
)
FOLDER = Path(tempfile.mkdtemp(prefix="headgate-fuzz-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
FILE = FOLDER / "headgate.yaml"


def one(data: bytes) -> None:
    FILE.write_bytes(data)
    try:
        load(FILE, env={"A": "s3cret"})
    except ConfigInvalid as invalid:
        assert invalid.faults, data
        assert "s3cret" not in str(invalid), data

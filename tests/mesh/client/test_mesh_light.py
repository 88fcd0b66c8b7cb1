"""Who imports the client gets what it needs for calls, and nothing that reads files or serves."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "cryptography",
    "dns",
    "fastapi",
    "httpx",
    "pydantic",
    "redis",
    "sqlite3",
    "starlette",
    "uvloop",
    "yaml",
}


def test_an_import_stays_light():
    names = "Mesh, Service, get, lifespan, register, register_sync"
    code = (
        f"import json, sys; from headgate.mesh import {names}; print(json.dumps(list(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert not loaded & HEAVY
    assert not loaded & {"headgate.config", "headgate.gateway", "headgate.control"}


def test_a_name_that_is_not_there_is_an_attribute_error():
    import headgate.mesh

    assert "Mesh" in dir(headgate.mesh)
    with pytest.raises(AttributeError, match="has no attribute 'Mush'"):
        headgate.mesh.Mush

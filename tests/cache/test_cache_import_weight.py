from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration

HEAVY = (
    "redis",
    "sqlite3",
    "httpx",
    "msgpack",
    "pydantic",
    "headgate.gateway",
    "headgate.config",
    "uvloop",
)


def test_the_cache_comes_without_what_only_some_need():
    code = f"import sys, headgate.cache; headgate.cache.Cache(); print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr

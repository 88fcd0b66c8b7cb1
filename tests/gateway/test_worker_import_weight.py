"""What the processes of a gateway load: a worker only what serves, the supervisor next to nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration

_SHOWS = {"numpy", "fastapi", "starlette", "uvicorn", "jinja2", "rich", "typer", "sqlalchemy"}
_SENDS = {"httpx", "requests", "aiosmtpd", "smtplib", "urllib3", "prometheus_client", "msgpack"}
_KEEPS = {"headgate.observe.history.store", "headgate.observe.logs.store"}
_TELLS = {"headgate.observe.tracing.store", "headgate.observe.query", "headgate.control.admin"}
WORKER = _SHOWS | _SENDS | _KEEPS | _TELLS
SUPERVISOR = WORKER | {"pydantic", "yaml", "sqlite3", "headgate.gateway", "headgate.config"}
SERVICE = SUPERVISOR | {"uvloop", "headgate.plan", "headgate.control", "headgate.resilience"}


@pytest.mark.parametrize(
    ("imported", "unwanted"),
    [
        ("headgate.control.worker_main, headgate.gateway.worker", WORKER),
        ("headgate.control.supervisor", SUPERVISOR),
        ("headgate.observe", SERVICE),
    ],
    ids=["worker", "supervisor", "service"],
)
def test_a_process_comes_without_what_others_are_for(imported, unwanted):
    code = f"import json, sys, {imported}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(json.loads(done.stdout))
    assert not loaded & unwanted
    assert not [name for name in loaded if name.startswith(("google.protobuf", "opentelemetry"))]

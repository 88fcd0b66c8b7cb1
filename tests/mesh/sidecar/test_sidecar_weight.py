"""A sidecar stays small: what its process imports, and what it takes up instead."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import pytest

from headgate.config import from_document
from headgate.config.light import packed, unpacked
from headgate.errors import ConfigInvalid
from headgate.mesh.sidecar.document import Beside, document
from headgate.mesh.sidecar.preparing import prepare

HEAVY = {
    "alembic",
    "argon2",
    "cryptography",
    "dns",
    "fastapi",
    "httpx",
    "jinja2",
    "joserfc",
    "numpy",
    "opentelemetry",
    "redis",
    "rich",
    "sqlalchemy",
    "starlette",
    "structlog",
    "typer",
    "uvicorn",
    "yaml",
}
MODULES_MOST = 850
"""Today some 750. Each 100 more are two megabytes."""

PORTION = {
    "mesh": {"trust_domain": "shop.example", "access": {"rules": [{"from": "a", "to": "orders"}]}},
    "timeout": "7s",
    "services": {
        "users": {
            "discover": "registry",
            "retry": {"attempts": 2, "budget": "20%"},
            "breaker": {"failure_rate": "50%", "window": "20 calls", "reset_after": "60s"},
            "outlier": {"eject_max": "5min"},
            "balance": "least_connections",
            "tls": {"identity": "mesh"},
        },
        "orders": {"instances": ["http://10.0.0.1:80", {"url": "http://10.0.0.2", "weight": 2}]},
    },
}
BESIDE = Beside("orders", "http://127.0.0.1:3004", outbound="127.0.0.1:9901")

# As `headgate.mesh.sidecar.__main__` begins.
SCRIPT = """
import base64, importlib, json, sys
from headgate.mesh.sidecar.thin import install
install()
light = importlib.import_module("headgate.config.light")
light.install()
importlib.import_module("headgate.control.sidecar_main")
importlib.import_module("headgate.gateway.worker")
config = light.unpacked(base64.b85decode(sys.stdin.buffer.read()))
plan = importlib.import_module("headgate.plan.build").build(config)
importlib.import_module("headgate.gateway.compile").compile_plan(plan)
users = plan.services["users"]
print(json.dumps({
    "modules": sorted(sys.modules),
    "retry": config.services["users"].retry.attempts,
    "timeout": config.timeout.first_byte,
    "routes": [route.name for route in plan.routes],
    "members": [[member.id, member.weight] for member in plan.services["orders.mesh"].members],
    "breaker": users.breaker.rules.failure_rate,
    "drain": config.drain,
    "pydantic": type(sys.modules["pydantic"]).__name__,
}))
"""


@pytest.fixture(scope="module")
def said() -> dict:
    answer = prepare(document(PORTION, BESIDE))
    ran = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT],
        input=answer["config"].encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr.decode()
    return json.loads(ran.stdout)


def test_nothing_heavy_is_imported_by_a_sidecar(said):
    found = {name.partition(".")[0] for name in said["modules"]}
    assert not found & HEAVY
    assert said["pydantic"] == "_Light"  # in its place, and not the library
    assert "headgate.config.loader" not in said["modules"]
    assert len(said["modules"]) < MODULES_MOST


def test_light_models_make_the_plan_that_models_make(said):
    from headgate.plan.build import build

    config = from_document(document(PORTION, BESIDE))
    plan = build(config)
    assert said["routes"] == [route.name for route in plan.routes]
    members = [[member.id, member.weight] for member in plan.services["orders.mesh"].members]
    assert said["members"] == members
    breaker = plan.services["users"].breaker
    assert breaker is not None
    assert said["breaker"] == breaker.rules.failure_rate
    assert (said["retry"], said["timeout"], said["drain"]) == (2, 7.0, config.drain)


def test_what_cannot_be_used_is_told_with_its_place():
    broken = document({**PORTION, "timeout": "soon"}, BESIDE)
    answer = prepare(broken)
    assert [row["where"] for row in answer["faults"]] == ["timeout.first_byte"]
    with pytest.raises(ConfigInvalid):
        from_document(broken)


def test_a_configuration_comes_back_as_it_was_packed():
    config = from_document(document(PORTION, BESIDE))
    assert unpacked(packed(config)) == config


class _Elsewhere:
    def __reduce__(self):
        return (print, ("done",))


@pytest.mark.parametrize(
    "data",
    [b"", b"nonsense", pickle.dumps({"a": 1}), pickle.dumps(_Elsewhere())],
    ids=["nothing", "nonsense", "other", "code"],
)
def test_bytes_that_are_no_configuration_are_refused_and_run_nothing(data, capsys):
    with pytest.raises(ValueError, match="no configuration"):
        unpacked(data)
    assert capsys.readouterr().out == ""

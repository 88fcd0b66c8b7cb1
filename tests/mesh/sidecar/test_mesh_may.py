"""`headgate mesh may`: whether one service may call another, by the file."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate.cli.app import main

CONFIG: dict[str, Any] = {
    "listeners": ["127.0.0.1:8080"],
    "services": {"users": ["http://127.0.0.1:1"], "orders": ["http://127.0.0.1:2"]},
    "routes": [
        {"match": {"path": "/users/"}, "to": "users"},
        {"match": {"path": "/orders/"}, "to": "orders"},
    ],
    "mesh": {
        "access": {"rules": [{"from": "orders", "to": "users", "methods": "GET", "paths": "/u/"}]}
    },
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "headgate.yaml"
    path.write_text(json.dumps(CONFIG))
    return path


def run(capsys, *words) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["mesh", "may", *words])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            ("orders", "users", "GET", "/u/42"),
            0,
            "orders may GET /u/42 of users: mesh.access.rules",
        ),
        (("orders", "users", "head", "/u/42"), 0, "may HEAD"),
        (("orders", "users", "POST", "/u/42"), 1, "may not POST /u/42 of users: no rule"),
        (("orders", "users", "GET", "/u/%2e%2e/x"), 1, "may not GET"),
        (("anonymous", "users"), 1, "shows no identity"),
        (("spiffe://mesh.internal/service/orders", "users", "GET", "/u/1"), 0, "may GET"),
    ],
)
def test_it_says_whether_and_why(capsys, file, words, code, said):
    found = run(capsys, *words, "--file", str(file))
    assert found[0] == code
    assert said in found[1]


def test_a_service_that_is_none_is_named(capsys, file):
    code, _, err = run(capsys, "orders", "usrs", "--file", str(file))
    assert code == 1
    assert 'no service is named "usrs"' in err


def test_permissive_rules_let_pass_what_they_speak_against(capsys, file):
    access = {**CONFIG["mesh"]["access"], "mode": "permissive"}
    file.write_text(json.dumps({**CONFIG, "mesh": {"access": access}}))
    code, out, _ = run(capsys, "orders", "users", "POST", "/u/1", "--file", str(file))
    assert code == 0
    assert "passes all the same" in out
    code, out, _ = run(capsys, "orders", "users", "POST", "/u/1", "--file", str(file), "--json")
    assert json.loads(out)["allowed"] is False

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from headgate.cli.check import check
from headgate.cli.schema import schema

GOOD = """
listeners: [0.0.0.0:8080]
services: {users: http://127.0.0.1:3001}
routes: [{to: users, match: {path: /users}}]
"""
WARNED = GOOD.replace("services: {", "services: {spare: http://127.0.0.1:1, ")
BAD = GOOD.replace("to: users", "to: usres")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command("check")(check)
    app.command("schema")(schema)

    def run(*words: str, text: str | None = None):
        if text is not None:
            (tmp_path / "headgate.yaml").write_text(text)
        return CliRunner().invoke(app, words)

    return run


def test_a_good_file_is_summed_up(run):
    done = run("check", "headgate.yaml", text=GOOD)
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "listeners",
        "  http  0.0.0.0:8080 (http1, http2)",
        "  admin 127.0.0.1:9900",
        "services (1)",
        "  users: http://127.0.0.1:3001",
        "routes (1)",
        "  /users -> users",
        "headgate.yaml: good",
    ]


def test_faults_end_with_one(run):
    done = run("check", "headgate.yaml", text=BAD)
    assert done.exit_code == 1
    assert 'routes[0].to: no service named "usres"; did you mean "users"?' in done.output
    assert done.output.endswith("headgate.yaml: 1 error, 1 warning\n")


def test_warnings_are_errors_only_when_asked(run):
    assert run("check", "headgate.yaml", text=WARNED).exit_code == 0
    assert run("check", "--strict", "headgate.yaml").exit_code == 1


@pytest.mark.parametrize("words", [("nowhere.yaml",), (), ("headgate.yaml", "--format", "xml")])
def test_what_cannot_be_read_ends_with_two(run, words):
    assert run("check", *words).exit_code == 2


def test_json_is_for_programs(run):
    done = run("check", "headgate.yaml", "--format", "json", text=BAD)
    assert done.exit_code == 1
    told = json.loads(done.output)
    assert told["ok"] is False
    assert told["faults"][0] == {
        "file": "headgate.yaml",
        "line": 4,
        "column": 15,
        "where": "routes[0].to",
        "message": 'no service named "usres"',
        "hint": 'did you mean "users"?',
        "level": "error",
    }
    told = json.loads(run("check", "headgate.yaml", "--format", "json", text=GOOD).output)
    assert told["ok"] is True
    assert told["routes"] == ["/users -> users"]


def test_the_schema_goes_to_a_file(run, tmp_path):
    assert run("schema", "--output", "s.json").exit_code == 0
    assert json.loads((tmp_path / "s.json").read_text())["title"] == "Headgate configuration"
    assert run("schema").output == (tmp_path / "s.json").read_text()

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


def test_the_file_is_the_one_that_run_would_take(run):
    done = run("check", text=GOOD)
    assert done.exit_code == 0
    assert done.output.endswith("headgate.yaml: good\n")


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


PLUGIN = """
from headgate.gateway.filters import Filter

class Closed(Filter):
    class Options(Filter.Options):
        hours: int
"""


def test_what_only_building_finds_is_found_too(run, tmp_path):
    (tmp_path / "shop_hours_filter.py").write_text(PLUGIN)
    (tmp_path / "broken.pem").write_text("no certificate")
    text = """
listeners:
  - {bind: 127.0.0.1:8443, tls: {cert_file: broken.pem, key_file: broken.pem}}
services: {users: {instances: [https://a], tls: {ca_file: broken.pem}}}
headers: {request: {set: {x-route: "{roote}"}}}
routes:
  - {to: users, match: {path: /a}, plugins: [{use: shop_hours_filter:Closed, options: {huors: 9}}]}
  - {to: users, match: {path: /b}, plugins: [shop_hours_filter:Close]}
  - {to: users, match: {path: /c}}
  - {to: users, match: {path: /d}}
"""
    done = run("check", "headgate.yaml", text=text)
    assert done.exit_code == 1
    told = done.output.replace(f"{tmp_path}/", "").splitlines()
    assert [line.partition(": ")[2].partition("; ")[0] for line in told] == [
        "listeners[0].tls: broken.pem is not a PEM certificate",
        "listeners[0].tls: broken.pem is not a PEM private key",
        "services.users.tls: broken.pem has no PEM certificates of authorities",
        "headers.request.set.x-route: unknown value {roote}",
        "routes[0].plugins[0].options.hours: required option is missing",
        "routes[0].plugins[0].options.huors: unknown option",
        'routes[1].plugins[0].use: module shop_hours_filter has no class "Close"',
        "7 errors, 0 warnings",
    ]
    assert [line.split(":")[1] for line in told[:-1]] == ["3", "3", "4", "5", "7", "7", "8"]


def test_a_token_in_the_file_is_warned_of_and_not_shown(run, monkeypatch):
    done = run("check", "headgate.yaml", text=GOOD + "admin: {token: hunter22}\n")
    assert done.exit_code == 0
    assert "headgate.yaml:5:16: admin.token: warning: stands in the file as it is" in done.output
    assert "hunter22" not in done.output
    monkeypatch.setenv("TOKEN_OF_TEST", "hunter22")
    done = run("check", "headgate.yaml", text=GOOD + "admin: {token: '${env:TOKEN_OF_TEST}'}\n")
    assert "warning" not in done.output


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

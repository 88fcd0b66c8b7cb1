from __future__ import annotations

import subprocess
import sys

import pytest

from headgate import __version__
from headgate.cli import app
from headgate.errors import HeadgateError


def call(*words, **kwargs):
    return subprocess.run(
        [sys.executable, "-m", "headgate", *words], capture_output=True, text=True, **kwargs
    )


@pytest.mark.integration
def test_help_lists_every_command_with_its_line():
    done = call("--help")
    assert done.returncode == 0
    for name, summary in app.COMMANDS.items():
        assert name in done.stdout
        assert summary.rstrip(".")[:30] in " ".join(done.stdout.split())


@pytest.mark.integration
@pytest.mark.parametrize("words", [("--version",), ("version",)])
def test_the_version_can_be_asked_for(words):
    done = call(*words)
    assert done.returncode == 0
    assert f"headgate {__version__}" in done.stdout


@pytest.mark.integration
def test_a_misspelt_command_is_a_wrong_command_line():
    done = call("rnu")
    assert done.returncode == 2
    assert "rnu" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_command_that_cannot_be_loaded_breaks_no_other_one(monkeypatch, capsys):
    monkeypatch.setitem(app.COMMANDS, "broken", "Cannot be imported.")
    with pytest.raises(SystemExit) as ended:
        app.main(["version"])
    assert ended.value.code == 0
    with pytest.raises(SystemExit) as ended:
        app.main(["broken", "--whatever"])
    assert ended.value.code == 1
    assert 'headgate: the command "broken" cannot be loaded' in capsys.readouterr().err


def test_an_error_of_ours_is_one_line_and_exit_code_1(monkeypatch, capsys):
    def refuse() -> None:
        raise HeadgateError("no such thing")

    monkeypatch.setattr(app, "load", lambda name: refuse)
    with pytest.raises(SystemExit) as ended:
        app.main(["version"])
    assert ended.value.code == 1
    assert capsys.readouterr().err == "headgate: no such thing\n"


@pytest.mark.parametrize("name", list(app.COMMANDS))
def test_every_command_of_the_table_can_be_loaded(name):
    function = app.load(name)
    assert function.__doc__, f"{name} has no docstring, so no help"

"""Files with faults, and what is said about them, word for word.

Each `NAME.yaml`, and each folder with a `headgate.yaml`, has its report in `NAME.faults`. After a
change of wording, run with `UPDATE_GOLDEN=1` and read the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headgate.config import ConfigInvalid, load

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "config"
ENV = {"PORT": "8080", "SECRET": "hunter22top", "LINES": "hunter22top\nx", "EMPTY": ""}
SECRETS = ("hunter22", "file-secret-99")

CASES = sorted(
    [path.name for path in GOLDEN.glob("*.yaml")]
    + [f"{path.parent.name}/headgate.yaml" for path in GOLDEN.glob("*/headgate.yaml")]
)


def report(name: str) -> str:
    try:
        loaded = load(name, ENV)
    except ConfigInvalid as error:
        faults = error.faults
    else:
        faults = loaded.warnings
    return "".join(f"{fault}\n" for fault in faults)


@pytest.mark.parametrize("name", CASES)
def test_faults_are_reported_word_for_word(name, monkeypatch):
    monkeypatch.chdir(GOLDEN)
    expected = GOLDEN / f"{name.removesuffix('.yaml').removesuffix('/headgate')}.faults"
    text = report(name)
    if os.environ.get("UPDATE_GOLDEN"):
        expected.write_text(text)
    assert text == expected.read_text()


@pytest.mark.parametrize("name", CASES)
def test_no_report_shows_a_secret(name, monkeypatch):
    monkeypatch.chdir(GOLDEN)
    text = report(name)
    for secret in SECRETS:
        assert secret not in text


def test_every_report_has_its_file():
    names = {name.removesuffix(".yaml").removesuffix("/headgate") for name in CASES}
    assert {path.stem for path in GOLDEN.glob("*.faults")} == names

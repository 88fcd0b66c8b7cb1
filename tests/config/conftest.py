from __future__ import annotations

import textwrap
from collections.abc import Callable

import pytest

from headgate.config import ConfigInvalid, Loaded, load

ENV = {"PORT": "8080", "FLAG": "on", "TOKEN": "s3cret-token", "SERVICE": "users"}


@pytest.fixture
def write(tmp_path, monkeypatch) -> Callable[..., None]:
    """Write files into a fresh folder, which is the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(**files: str | bytes) -> None:
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_yaml", ".yaml")
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(text, bytes):
                path.write_bytes(text)
            else:
                path.write_text(textwrap.dedent(text))

    return write


@pytest.fixture
def loads(write) -> Callable[[str], Loaded]:
    """Load one file by its text."""

    def loads(text: str) -> Loaded:
        write(headgate_yaml=text)
        return load("headgate.yaml", ENV)

    return loads


@pytest.fixture
def faults(loads) -> Callable[[str], list[str]]:
    """What is wrong with a text."""

    def faults(text: str) -> list[str]:
        with pytest.raises(ConfigInvalid) as caught:
            loads(text)
        return [str(fault) for fault in caught.value.faults]

    return faults

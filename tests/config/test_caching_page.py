"""Every file in docs/howto/http-cache.md is one that loads, without a fault or a warning."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headgate.config import load

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "http-cache.md"
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("at", range(len(BLOCKS)))
def test_the_files_of_the_page_load(at, tmp_path):
    path = tmp_path / "headgate.yaml"
    path.write_text("listeners: [127.0.0.1:0]\n" + BLOCKS[at])
    assert [str(each) for each in load(path, {}).warnings] == []


def test_there_are_some():
    assert len(BLOCKS) >= 5

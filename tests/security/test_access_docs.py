"""The examples of the how-tos about access and browsers are true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headgate.config import load
from headgate.errors import ConfigInvalid

HOWTO = Path(__file__).resolve().parents[2] / "docs" / "howto"
BLOCKS = [
    (page, block)
    for page in ("access", "browsers")
    for block in re.findall(r"```yaml\n(.*?)```", (HOWTO / f"{page}.md").read_text(), re.DOTALL)
]


@pytest.mark.parametrize(
    ("page", "block"), BLOCKS, ids=[f"{p}-{n}" for n, (p, _) in enumerate(BLOCKS)]
)
def test_an_example_can_be_loaded(page, block, tmp_path):
    file = tmp_path / "headgate.yaml"
    text = f"listeners: [{{bind: 127.0.0.1:0}}]\n{block}"
    if "routes:" not in text:
        text += "routes: [{match: {path: /}, respond: {body: hi}}]\n"
    file.write_text(text)
    try:
        load(file, env={"CSRF_SECRET": "0123456789abcdef"})
    except ConfigInvalid as error:
        pytest.fail("\n".join(str(fault) for fault in error.faults))

"""docs/howto/service-kit.md says what there is, and its code is code."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from headgate.kit import PARTS, Problem
from headgate.kit.settings import Settings, Wishes

PAGE = (Path(__file__).resolve().parents[2] / "docs/howto/service-kit.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_every_part_and_every_setting_stands_there():
    for part in PARTS:
        assert f"| `{part}` |" in PAGE, part
    told = set(re.findall(r"`(\w+)=?`?", PAGE))
    missing = Wishes.__annotations__.keys() - told
    assert missing <= {"issuer", "identity_header", "interface"}, missing


def test_settings_and_wishes_name_the_same():
    assert Wishes.__annotations__.keys() == Settings.__dataclass_fields__.keys()


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_the_code_can_be_read(block):
    compile(block.replace("): ...", "): pass"), "page", "exec")


def test_the_first_line_hardens_an_app():
    told: dict = {}
    exec(BLOCKS[0], told)
    from tests.kit.rig import ask

    assert asyncio.run(ask(told["app"], path="/health/live")).status == 200


def test_the_problem_that_is_shown_is_the_problem_that_is_raised():
    with pytest.raises(Problem) as raised:
        exec(BLOCKS[1], {})
    import json

    from headgate.kit.problems import describe

    found = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
    described = describe(raised.value)
    assert found is not None
    assert described is not None
    shown = json.loads(found[1])
    made = described.document(shown["request_id"])
    assert made == shown

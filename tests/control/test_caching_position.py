"""How far the news of a Redis were heard, over a new start of control."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from headgate.control import caching_position
from headgate.control.caching_position import POSITION_FILE, Position
from headgate.control.state_dir import StateDir


class Layer:
    def __init__(self) -> None:
        self.position = (0, 0, "")
        self.resumed: tuple[int, int, str] | None = None

    def resume(self, position: tuple[int, int, str]) -> None:
        self.resumed = self.position = position


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path)


def test_the_next_process_goes_on_where_the_last_one_was(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(caching_position, "EVERY_S", 0.01)

    async def whole() -> None:
        layer = Layer()
        position = Position(state)
        position.follow(layer)
        assert layer.resumed is None
        layer.position = (9, 7, "history")
        position.moved()
        position.moved()
        async with asyncio.timeout(5):
            while not (state.path / POSITION_FILE).exists():
                await asyncio.sleep(0.001)
        # killed here
        again = Layer()
        Position(state).follow(again)
        assert again.resumed == (9, 7, "history")

    asyncio.run(whole())


def test_the_end_writes_what_was_not_written_yet(state: StateDir):
    async def whole() -> None:
        layer = Layer()
        position = Position(state)
        position.follow(layer)
        layer.position = (9, 7, "history")
        position.moved()
        position.leave()
        again = Layer()
        Position(state).follow(again)
        assert again.resumed == (9, 7, "history")

    asyncio.run(whole())


def test_a_layer_that_was_never_reached_leaves_what_is_known(state: StateDir):
    state.write_json(POSITION_FILE, {"position": [9, 7, "history"]})
    position = Position(state)
    layer = Layer()
    position.follow(layer)
    layer.position = (0, 0, "")
    position.leave()
    assert state.read_json(POSITION_FILE) == {"position": [9, 7, "history"]}


@pytest.mark.parametrize(
    "said",
    [None, 5, [], [1, 2], [1, 2, 3], ["1", 2, "h"], [1.5, 2, "h"], [True, 2, "h"], [1, 2, ""]],
    ids=range(9),
)
def test_a_spoilt_position_is_none(state: StateDir, said: object):
    (state.path / POSITION_FILE).write_text(json.dumps({"position": said}))
    layer = Layer()
    Position(state).follow(layer)
    assert layer.resumed is None


def test_a_layer_that_cannot_go_on_is_left_alone(state: StateDir):
    position = Position(state)
    position.follow(object())
    position.moved()
    position.leave()
    assert not (state.path / POSITION_FILE).exists()

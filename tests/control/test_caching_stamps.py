"""The clock of the barriers over restarts, clocks set back, and full disks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.control.caching_stamps import AHEAD_US, CLOCK_FILE, Stamps
from headgate.control.state_dir import StateDir


class Wall:
    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    made = StateDir(tmp_path / "state")
    made.prepare()
    return made


def test_a_stamp_is_the_wall_clock_in_microseconds_and_always_grows(state: StateDir):
    wall = Wall(1000.5)
    stamps = Stamps(state, wall)
    assert stamps.next() == 1_000_500_000
    assert stamps.next() == 1_000_500_001
    assert stamps.next(is_ours=False) == 1_000_500_002
    wall.at = 1000.6
    assert stamps.next() == 1_000_600_000
    wall.at = 3.0
    assert stamps.next() == 1_000_600_001


def test_stamps_grow_over_a_crash_and_a_clock_set_back(state: StateDir):
    wall = Wall(1000.0)
    first = Stamps(state, wall).next()
    wall.at = 5.0
    again = Stamps(state, wall)
    assert again.is_exact
    assert again.last == first
    assert again.next() == first + 1


def test_a_stamp_for_workers_alone_is_nothing_that_a_service_has_missed(state: StateDir):
    stamps = Stamps(state, Wall(1.0))
    told = stamps.next()
    assert stamps.next(is_told=False) == told + 1
    again = Stamps(state, Wall(1.0))
    assert (again.told, again.last) == (told, told + 1)
    assert again.next() == again.told == told + 2


@pytest.mark.parametrize("told", [None, -1, 10**15, "5", True, 5.0], ids=str)
def test_what_services_were_told_is_the_last_stamp_if_it_cannot_be_read(
    state: StateDir, told: object
):
    state.write_json(CLOCK_FILE, {"stamp": 77, "exact": True, "told": told})
    assert Stamps(state, Wall(1.0)).told == 77
    state.write_json(CLOCK_FILE, {"stamp": 77, "exact": False, "told": 5})
    assert Stamps(state, Wall(1.0)).told == 77


def test_a_stamp_heard_is_passed_on_or_raised_above_what_was_told(state: StateDir):
    stamps = Stamps(state, Wall(1.0))
    start = stamps.next()
    assert stamps.heard(start + 500) == start + 500
    assert stamps.heard(start + 400) == start + 501
    assert stamps.heard(start + 502) == start + 502


def test_after_a_crash_what_was_heard_is_below_but_not_known(state: StateDir):
    wall = Wall(10.0)
    stamps = Stamps(state, wall)
    heard = stamps.heard(900_000_000)
    again = Stamps(state, wall)
    assert not again.is_exact
    assert again.last == heard + AHEAD_US
    again.heard(5)
    again.close()
    assert Stamps(state, wall).is_exact


def test_what_is_heard_in_masses_is_written_once_a_second(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
):
    stamps = Stamps(state, Wall(0.0))
    written: list[int] = []
    monkeypatch.setattr(
        StateDir, "write_json", lambda _self, _name, said: written.append(said["stamp"])
    )
    for number in range(10_000):
        stamps.heard(1_000_000 + number * 300)
    assert len(written) == 6


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"stamp": "x"}',
        b'{"stamp": -5}',
        b'{"stamp": true}',
        b"\xff",
        json.dumps({"stamp": 10**17, "exact": True}).encode(),
    ],
    ids=["empty", "torn", "list", "null", "text", "negative", "bool", "bytes", "beyond"],
)
def test_a_spoilt_file_is_as_none(state: StateDir, content: bytes):
    (state.path / CLOCK_FILE).write_bytes(content)
    stamps = Stamps(state, Wall(7.0))
    assert (stamps.last, stamps.is_exact) == (0, False)
    assert stamps.next() == 7_000_000


def test_a_state_directory_that_is_gone_costs_a_warning(
    state: StateDir, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    stamps = Stamps(state, Wall(7.0))
    state.path.rename(tmp_path / "elsewhere")
    assert stamps.next() < stamps.next() < stamps.next()
    assert len(caplog.records) == 1
    assert "the clock of the caches is not kept" in caplog.text


def test_a_stamp_from_elsewhere_that_no_clock_gives_does_not_spoil_ours(state: StateDir):
    stamps = Stamps(state, Wall(7.0))
    assert stamps.heard(10**30) == stamps.last == 1


@given(st.lists(st.tuples(st.sampled_from("nhrc"), st.integers(0, 10**15)), max_size=40))
def test_whatever_happens_stamps_only_grow(steps: list[tuple[str, int]]):
    kept: dict[str, object] = {}

    class Dict(StateDir):
        def write_json(self, name: str, content: dict[str, object]) -> None:
            kept.update(content)

        def read_json(self, name: str) -> dict[str, object]:
            return dict(kept)

    wall = Wall(1.0)
    stamps = Stamps(Dict(Path("/nowhere")), wall)
    last = 0
    for what, number in steps:
        wall.at = number / 1e7
        match what:
            case "n":
                told = stamps.next()
            case "h":
                told = stamps.heard(number)
            case "r":
                stamps = Stamps(Dict(Path("/nowhere")), wall)
                continue
            case _:
                stamps.close()
                continue
        assert told > last
        last = told

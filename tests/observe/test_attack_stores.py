"""Stores whose files were spoilt, cut, zeroed, replaced: each begins, says so, keeps the rest."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from headgate.control.observing.monitors_store import MonitorStore, Seen, Stood
from headgate.observe.alerts.keeping import Keeper
from headgate.observe.health.uptime import Day
from headgate.observe.history.markers import Markers
from headgate.observe.history.rules import Family, Keep
from headgate.observe.history.store import Store
from headgate.observe.logs.rules import StoreRules as LogRules
from headgate.observe.logs.search import Query, stored_of
from headgate.observe.logs.store import LogStore
from headgate.observe.tracing.record import SpanRecord
from headgate.observe.tracing.rules import StoreRules as TraceRules
from headgate.observe.tracing.store import TraceStore

pytestmark = pytest.mark.integration

WALL = 1_800_000_000.0
TOLD = (1.0, "i", "r", "k", "s", "[]", 1, "sent", "", 1.0)
DAY_S = 86400.0


def span(number: int, at: float = WALL) -> SpanRecord:
    return SpanRecord(
        f"{number:032x}", f"{number:016x}", "", "n", "server", at, 0.1, "ok", "s", {}, ()
    )


def families(value: float) -> list[Family]:
    samples: dict[tuple[str, ...], float] = {(str(n),): value * n for n in range(20)}
    return [Family("x_total", "counter", ("a",), samples)]


# -- what is done to a file ------------------------------------------------------------------


def flip(path: Path) -> None:
    data, rng = bytearray(path.read_bytes()), random.Random(7)
    for _ in range(max(1, len(data) // 500) if data else 0):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "in").touch()


def link(to: str) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        path.unlink()
        path.symlink_to(to)

    return act


def foreign(path: Path) -> None:
    """A database of somebody else, with tables of our names."""
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as db:
        for name in (
            "days",
            "results",
            "stood",
            "rows",
            "words",
            "spans",
            "traces",
            "told",
            "kept",
        ):
            db.execute(f"CREATE TABLE {name} (other INTEGER)")
        db.commit()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


WAYS: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "noise": lambda path: path.write_bytes(random.Random(1).randbytes(path.stat().st_size)),
    "flipped": flip,
    "folder": folder,
    "nowhere": link("/nonexistent/place"),
    "loop": link("."),
    "pipe": pipe,
    "gone": lambda path: path.unlink(),
    "foreign": foreign,
}


# -- each store: made, and what it does after ------------------------------------------------


def make_logs(root: Path) -> None:
    store = LogStore(root / "logs", LogRules(), wall=lambda: WALL)
    store.start()
    store.add([stored_of(WALL, 20, '{"message":"before"}')] * 300)
    assert store.settle(20)
    assert store.close(20)


def go_on_with_logs(root: Path) -> None:
    store = LogStore(root / "logs", LogRules(), wall=lambda: WALL)
    store.start()
    try:
        store.add([stored_of(WALL, 20, '{"message":"after"}')])
        assert store.settle(20), "its thread has ended"
        assert store.find(Query(text="after")).lines
        assert store.snapshot().failed == 0
    finally:
        store.close(20)


def make_traces(root: Path) -> None:
    store = TraceStore(root / "traces" / "traces.sqlite", TraceRules(), wall=lambda: WALL)
    store.put(span(number) for number in range(1, 300))
    store.close()


def go_on_with_traces(root: Path) -> None:
    store = TraceStore(root / "traces" / "traces.sqlite", TraceRules(), wall=lambda: WALL)
    try:
        assert store.put([span(5000)]) == 1
        store.expire()
    finally:
        store.close()


def make_alerts(root: Path) -> None:
    keeper = Keeper(root / "alerts" / "alerts.db")
    keeper.open(WALL)
    keeper.write({"saved": {"at": WALL}, "rules": {}}, [TOLD] * 50)
    keeper.close()


def go_on_with_alerts(root: Path) -> None:
    keeper = Keeper(root / "alerts" / "alerts.db")
    try:
        keeper.open(WALL)
        keeper.write({"saved": {"at": WALL + 1}}, [TOLD])
        assert keeper.told(limit=100)
    finally:
        keeper.close()


def make_history(root: Path) -> None:
    store = Store(root / "history", Keep())
    for at in range(0, 200, 5):
        store.append(WALL - 1000 + at, at, families(at))
    store.close()
    store = Store(root / "history", Keep())
    store.append(WALL - 800, 0, families(1))
    store.append(WALL - 700, 100, families(2))
    assert (root / "history" / "open.log").exists()
    store.close()
    markers = Markers(root / "history" / "markers.jsonl")
    for number in range(20):
        markers.add(WALL, "deploy", f"n{number}", {})


def go_on_with_history(root: Path) -> None:
    store = Store(root / "history", Keep())
    try:
        store.append(WALL - 70, 0, families(1))
        store.append(WALL, 70, families(2))
        found = store.select("x_total", (), WALL - 2000, WALL, each_s=1.0)
        assert sum(len(one.times) for one in found) >= 40
        assert store.series("x_total", (), WALL - 2000, WALL)
        assert store.figures.trouble == ""
    finally:
        store.close()
    markers = Markers(root / "history" / "markers.jsonl")
    markers.add(WALL, "deploy", "after", {})
    assert markers.unwritten == 0
    assert Markers(root / "history" / "markers.jsonl").held[-1].text == "after"


SEEN = Seen(WALL, "ok", 0.1)


def make_monitors(root: Path) -> None:
    store = MonitorStore(root / "monitors" / "monitors.db")
    store.open(WALL)
    for number in range(50):
        day = Day(int(WALL // DAY_S) - number)
        store.write([("a", day)], [("a", SEEN)], [("a", Stood("ok", WALL, ""))], day.day)
    store.close()


def go_on_with_monitors(root: Path) -> None:
    path = root / "monitors" / "monitors.db"
    store = MonitorStore(path)
    try:
        store.open(WALL)
        day = Day(int(WALL // DAY_S))
        store.write([("b", day)], [("b", SEEN)], [("b", Stood("ok", WALL, ""))], day.day)
    finally:
        store.close()
    again = MonitorStore(path)
    assert again.open(WALL).results["b"]
    again.close()


STORES = {
    "logs": (make_logs, go_on_with_logs),
    "traces": (make_traces, go_on_with_traces),
    "alerts": (make_alerts, go_on_with_alerts),
    "history": (make_history, go_on_with_history),
    "monitors": (make_monitors, go_on_with_monitors),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    for make, _ in STORES.values():
        make(root)
    return root


def kinds(folder: Path) -> list[Path]:
    """One file of each kind."""
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            kind = path.suffix if path.suffix in {".hgb", ".hgs"} else path.name
            found.setdefault((path.parent.name, kind), path)
    return list(found.values())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", STORES)
def test_a_store_goes_on_whatever_was_done_to_one_of_its_files(made, tmp_path, name, way):
    files = kinds(made / name)
    assert files
    for number, file in enumerate(files):
        root = tmp_path / str(number)
        shutil.copytree(made / name, root / name)
        WAYS[way](root / file.relative_to(made))
        STORES[name][1](root)


def test_a_file_that_is_spoilt_while_it_is_open_is_set_aside_and_all_is_written_anew(tmp_path):
    make_alerts(tmp_path)
    path = tmp_path / "alerts" / "alerts.db"
    keeper = Keeper(path)
    kept = keeper.open(WALL)
    with sqlite3.connect(path) as other:
        other.execute("DROP TABLE told")
    other.close()
    keeper.write(kept, [TOLD])
    assert len(keeper.told(limit=10)) == 1
    assert [said for said in keeper.worries() if "was spoilt" in said]
    keeper.close()
    assert Keeper(path).open(WALL) == kept


def test_the_worry_of_a_spoilt_file_ends_when_somebody_has_taken_it_away(tmp_path):
    for make, _ in STORES.values():
        make(tmp_path)
    flip_all = [
        tmp_path / "alerts" / "alerts.db",
        tmp_path / "logs" / "logs-00000001.db",
        *sorted((tmp_path / "history" / "1s").iterdir()),
    ]
    for path in flip_all:
        path.write_bytes(bytes(path.stat().st_size))
    keeper = Keeper(tmp_path / "alerts" / "alerts.db")
    keeper.open(WALL)
    logs = LogStore(tmp_path / "logs", LogRules(), wall=lambda: WALL)
    logs.start()
    assert logs.settle(20)
    history = Store(tmp_path / "history", Keep())
    history.append(WALL, 0.0, families(1))
    try:
        assert list(keeper.worries())
        assert logs.worries()
        assert history.spoilt()
        for path in tmp_path.rglob("*"):
            if path.is_file() and ("spoilt" in path.name or path.parent.name == "spoilt"):
                path.unlink()
        assert not list(keeper.worries())
        assert not logs.worries()
        assert not history.spoilt()
    finally:
        keeper.close()
        logs.close(20)
        history.close()


KEPT = {
    "number": "5",
    "nothing": "null",
    "deep": "[" * 100_000,
    "text": '"x"',
    "broken": "{",
}


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT)
def test_kept_state_that_is_no_state_does_not_end_the_alerts(tmp_path, text):
    make_alerts(tmp_path)
    path = tmp_path / "alerts" / "alerts.db"
    with sqlite3.connect(path) as other:
        other.execute("UPDATE kept SET json = ?", (text,))
    other.close()
    keeper = Keeper(path)
    keeper.open(WALL)
    keeper.write({"saved": {"at": WALL}}, [TOLD])
    keeper.close()


def test_kept_state_of_a_newer_version_is_set_aside_and_not_mixed_up(tmp_path):
    make_alerts(tmp_path)
    path = tmp_path / "alerts" / "alerts.db"
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 9")
    other.close()
    keeper = Keeper(path)
    assert keeper.open(WALL) == {}
    assert "version 9" in "".join(keeper.worries())
    keeper.close()


# -- lines that no file takes -----------------------------------------------------------------

LINES = {
    "surrogate": (WALL, 20, r'{"message":"\ud800"}'),
    "raw": (WALL, 20, '{"message":"\ud800"}'),
    "logger": (WALL, 20, r'{"logger":"\udfff x"}'),
    "level": (WALL, 2**70, '{"message":"x"}'),
    "below": (WALL, -(2**70), '{"message":"x"}'),
    "nul": (WALL, 20, '{"message":"\\u0000"}'),
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_no_line_ends_the_thread_that_writes_lines(tmp_path, line):
    store = LogStore(tmp_path / "logs", LogRules(), wall=lambda: WALL)
    store.start()
    try:
        store.add([stored_of(*line)])
        store.add([stored_of(WALL, 20, '{"message":"after"}')])
        assert store.settle(20)
        assert len(store.find(Query()).lines) == 2
    finally:
        store.close(20)


@pytest.mark.parametrize("at", [float("nan"), float("inf"), -1.0, 1e300], ids=str)
def test_a_line_of_no_time_is_refused(at):
    with pytest.raises(ValueError, match="time"):
        stored_of(at, 20, "{}")


# -- clocks -----------------------------------------------------------------------------------


def test_a_clock_that_leaps_empties_no_store_of_traces(tmp_path):
    now = [WALL, 0.0]
    store = TraceStore(
        tmp_path / "traces.sqlite",
        TraceRules(keep_s=DAY_S),
        wall=lambda: now[0],
        mono=lambda: now[1],
    )
    store.put([span(1, WALL)])
    store.expire()
    now[:] = [WALL + 30 * DAY_S, 1.0]
    assert store.expire() == 0
    now[:] = [WALL + 2, 2.0]
    assert store.expire() == 0
    now[:] = [WALL + DAY_S + 60, DAY_S + 60]
    assert store.expire() == 1
    store.close()


def test_a_block_of_next_year_empties_no_history_at_the_next_start(tmp_path):
    store = Store(tmp_path, Keep())
    for at in range(0, 600, 10):
        store.append(WALL + at, at, families(at))
    store.append(WALL + 365 * DAY_S, 601, families(1))
    store.append(WALL + 365 * DAY_S + 61, 662, families(1))
    store.close()
    again = Store(tmp_path, Keep())
    for at in range(700, 900, 10):
        again.append(WALL + at, at, families(at))
    found = again.select("x_total", (), WALL, WALL + 900, each_s=1.0)
    assert min(float(one.times.min()) for one in found) == WALL
    again.close()


def test_a_line_of_next_year_empties_no_store_of_lines_at_the_next_start(tmp_path):
    first = LogStore(tmp_path, LogRules(keep_s=DAY_S), wall=lambda: WALL, mono=lambda: 0.0)
    first.start()
    first.add([stored_of(WALL, 20, '{"message":"today"}')])
    assert first.settle(20)
    assert first.close(20)
    (tmp_path / "logs-00000001.db").rename(tmp_path / "logs-00000000.db")
    second = LogStore(tmp_path, LogRules(keep_s=DAY_S), wall=lambda: WALL, mono=lambda: 0.0)
    second.start()
    second.add([stored_of(WALL + 365 * DAY_S, 20, '{"message":"next year"}')])
    assert second.settle(20)
    assert second.close(20)
    passed = [0.0]
    third = LogStore(
        tmp_path, LogRules(keep_s=DAY_S), wall=lambda: WALL + 5, mono=lambda: passed[0]
    )
    third.start()
    assert third.settle(20)
    passed[0] = 5.0
    assert third.settle(20)
    assert {line for _, line in third.find(Query()).lines} >= {'{"message":"today"}'}
    third.close(20)


def test_a_store_that_follows_another_waits_for_it_and_nobody_waits_for_both(tmp_path):
    first = LogStore(tmp_path, LogRules(), wall=lambda: WALL)
    first.start()
    first.add([stored_of(WALL, 20, '{"message":"one"}')] * 2000)
    first.close(0.0)
    second = LogStore(tmp_path, LogRules(), wall=lambda: WALL, after=first)
    began = time.monotonic()
    second.start()
    second.add([stored_of(WALL, 20, '{"message":"two"}')])
    assert second.settle(20)
    assert time.monotonic() - began < 20
    assert len(second.find(Query(text="one"), limit=1000).lines) == 1000
    assert len(second.find(Query(text="two")).lines) == 1
    second.close(20)

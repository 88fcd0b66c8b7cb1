"""The searchable store: what is found, in which order, and what it survives."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headgate.observe.logs.rules import StoreRules
from headgate.observe.logs.search import Query, match_of, stored_of
from headgate.observe.logs.store import LogStore

pytestmark = pytest.mark.integration


def row(message="said", at=100.0, level=20, **said):
    return stored_of(at, level, json.dumps({"message": message, "logger": "shop.pay", **said}))


@pytest.fixture
def store(tmp_path):
    made = []

    def make(**said):
        wall = said.pop("wall", lambda: 1000.0)
        mono = said.pop("mono", time.monotonic)
        queue = said.pop("queue_bytes", 16_000_000)
        rules = StoreRules(**said)
        folder = tmp_path / "logs"
        made.append(LogStore(folder, rules, wall=wall, mono=mono, queue_bytes=queue))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.close(20)


def messages(found):
    return [json.loads(line)["message"] for _, line in found.lines]


ROWS = [
    row("paid order 42", 1.0, service="shop", route="pay", trace_id="t1", amount=7),
    row("refused order 43", 2.0, 40, service="shop", error={"type": "CardError"}),
    row("Größe zählt", 3.0, 30, logger="shop", request_id="r9"),
    row("other", 4.0, 10, logger="shopping", route="pay"),
]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (Query(), [3, 2, 1, 0]),
        (Query(text="order"), [1, 0]),
        (Query(text="ORDER 42"), [0]),
        (Query(text='"order 42"'), [0]),
        (Query(text='"42 order"'), []),
        (Query(text="ref*"), [1]),
        (Query(text="carderror"), [1]),
        (Query(text="grosse"), []),
        (Query(text="große"), [2]),
        (Query(text="zahlt"), [2]),
        (Query(level=30), [2, 1]),
        (Query(logger="shop"), [2, 1, 0]),
        (Query(logger="shop.pay"), [1, 0]),
        (Query(service="shop", level=40), [1]),
        (Query(route="pay"), [3, 0]),
        (Query(trace_id="t1"), [0]),
        (Query(request_id="r9"), [2]),
        (Query(since=2.0, until=4.0), [2, 1]),
        (Query(text='" OR ) NEAR( *'), []),
        (Query(text="*** \x00 ''"), [3, 2, 1, 0]),
    ],
)
def test_the_store_and_the_tail_find_the_same(store, query, found):
    kept = store()
    kept.add(ROWS)
    assert kept.settle(20)
    wanted = [json.loads(ROWS[at].line)["message"] for at in found]
    assert messages(kept.find(query)) == wanted
    assert [json.loads(each.line)["message"] for each in reversed(ROWS) if query.takes(each)] == (
        wanted
    )


@given(st.text(max_size=60))
@example("\ud55c\uad6d")  # Hangul, whose letters come apart
@settings(max_examples=200)
def test_no_text_is_a_fault_of_the_question(text):
    db = sqlite3.connect(":memory:")
    db.execute("CREATE VIRTUAL TABLE words USING fts5(text, content='')")
    match = match_of(text)
    db.execute("INSERT INTO words (rowid, text) VALUES (1, ?)", (text,))
    if match:
        found = db.execute("SELECT rowid FROM words WHERE words MATCH ?", (match,)).fetchall()
        assert found == [(1,)]  # what is looked for finds itself
    db.close()


def test_pages_go_on_where_the_last_one_ended_while_lines_come_in(store):
    kept = store(size_bytes=1_000_000)
    seen = []
    after = None
    for number in range(500):
        kept.add([row(f"line {number} " + "x" * 400)])
    assert kept.settle(20)
    while True:
        found = kept.find(Query(text="line"), limit=70, after=after)
        seen += messages(found)
        kept.add([row("line late")])
        assert kept.settle(20)
        after = found.after
        if after is None:
            break
    assert [int(text.split()[1]) for text in seen] == list(range(499, -1, -1))


def test_the_store_stays_within_its_size_and_loses_the_oldest(store, tmp_path):
    kept = store(size_bytes=1024 * 1024)
    for number in range(40):
        kept.add([row(f"n{number} {os.urandom(600).hex()}") for _ in range(50)])
        assert kept.settle(20)
    time.sleep(1.1)  # a sweep a second
    kept.add([row("last")])
    assert kept.settle(20)
    files = sum(path.stat().st_size for path in (tmp_path / "logs").iterdir())
    assert files < 1.5 * 1024 * 1024
    assert messages(kept.find(Query(), limit=1)) == ["last"]
    assert not kept.find(Query(text="n0")).lines
    assert kept.snapshot().rows < 2000


def test_what_is_too_old_goes(store):
    now = [1000.0]
    first = store(keep_s=100.0, wall=lambda: now[0])
    first.add([row("old", at=950.0)])
    assert first.settle(20)
    first.close(20)
    now[0] = 1051.0
    passed = [0.0]
    second = store(keep_s=100.0, wall=lambda: now[0], mono=lambda: passed[0])
    assert second.settle(20)
    assert second.find(Query()).lines, "a clock that leaps is not believed at once"
    for passed[0] in (700.0, 1400.0):
        now[0] = 1051.0 + passed[0]
        assert second.settle(20)
    assert not second.find(Query()).lines


def test_a_full_queue_drops_and_counts(store):
    kept = store(queue_bytes=20_000)
    many = [row("x" * 1000) for _ in range(1000)]
    taken = kept.add(many)
    assert kept.settle(20)
    stats = kept.snapshot()
    assert stats.dropped == 1000 - taken > 0
    assert stats.written == taken


def test_a_spoilt_file_is_set_aside_and_the_rest_is_found(store, tmp_path):
    first = store(size_bytes=400_000)
    for number in range(6):
        first.add([row(f"n{number} {os.urandom(500).hex()}") for _ in range(100)])
        assert first.settle(20)
    first.close(20)
    files = sorted((tmp_path / "logs").glob("logs-*.db"))
    assert len(files) > 2
    files[0].write_bytes(b"this is no database" * 100)
    second = store(size_bytes=400_000)
    second.add([row("after")])
    assert second.settle(20)
    assert any("spoilt" in worry for worry in second.worries())
    assert list((tmp_path / "logs").glob("*.spoilt-1000"))
    assert messages(second.find(Query(text="after"))) == ["after"]
    assert second.find(Query(text="n5")).lines


def test_the_newest_file_spoilt_while_it_is_written_does_not_end_it(store, tmp_path):
    kept = store()
    kept.add([row("a")])
    assert kept.settle(20)
    (path,) = (tmp_path / "logs").glob("logs-*.db")
    with path.open("r+b") as file:
        file.write(b"\0" * 8192)
    for suffix in ("-wal", "-shm"):
        with (tmp_path / "logs" / f"{path.name}{suffix}").open("r+b") as file:
            file.write(b"\xff" * 4096)
    for _ in range(3):
        kept.add([row("b")])
        assert kept.settle(20)
    kept.close(20)
    again = store()
    again.add([row("c")])
    assert again.settle(20)
    assert "c" in messages(again.find(Query()))


def test_a_folder_that_cannot_be_is_a_worry(store, tmp_path):
    (tmp_path / "logs").write_text("in the way")
    kept = store()
    kept.add([row("a")])
    assert kept.settle(20)
    assert kept.worries()
    assert kept.snapshot().failed == 1
    assert not kept.find(Query()).lines


def test_a_kill_loses_no_line_that_was_written(tmp_path):
    code = f"""
import json, sys, time
from pathlib import Path
from headgate.observe.logs.rules import StoreRules
from headgate.observe.logs.search import stored_of
from headgate.observe.logs.store import LogStore
store = LogStore(Path({str(tmp_path / "logs")!r}), StoreRules()); store.start()
for number in range(100000):
    store.add([stored_of(1.0, 20, json.dumps({{"message": f"n{{number}}"}}))])
    store.settle(20)
    print(number, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        last = -1
        while last < 5:
            last = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        last = max([last, *(int(line) for line in process.stdout.read().split("\n")[:-1])])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    kept = LogStore(tmp_path / "logs", StoreRules(), wall=lambda: 1.0)
    kept.start()
    try:
        kept.settle(20)
        assert not kept.worries()
        assert kept.find(Query(text=f"n{last}")).lines
    finally:
        kept.close(20)


def test_a_place_that_is_none_is_refused(store):
    with pytest.raises(ValueError, match="no place"):
        store().find(Query(), after="1; DROP TABLE rows")

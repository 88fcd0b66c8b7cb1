"""The store of traces: what is found, what is bounded, what survives; trees; the waiting room."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.observe.tracing.record import UNDECIDED, SpanEvent, SpanLink, SpanRecord
from headgate.observe.tracing.room import WaitingRoom
from headgate.observe.tracing.rules import StoreRules, TracingRules
from headgate.observe.tracing.search import TraceQuery, find, services, spans_of
from headgate.observe.tracing.store import MOST_SPANS, TraceStore
from headgate.observe.tracing.tree import tree

NOW = 1_700_000_000.0


def tid(n):
    return f"{n:032x}"


def sid(n):
    return f"{n:016x}"


def span(trace=1, number=1, parent=0, name="GET /users", start=NOW, duration=0.1, **more):
    more.setdefault("service", "gateway")
    return SpanRecord(
        tid(trace), sid(number), sid(parent) if parent else "", name,
        more.pop("kind", "server"), start, duration, **more,
    )  # fmt: skip


@pytest.fixture
def store(tmp_path):
    opened = TraceStore(tmp_path / "traces" / "traces.sqlite", StoreRules(), wall=lambda: NOW)
    yield opened
    opened.close()


def asked(store, query=None, **more):
    with store.reader() as db:
        return find(db, query or TraceQuery(), **more)


def found(store, **query):
    return [int(one.trace_id, 16) for one in asked(store, TraceQuery(**query)).traces]


def test_a_span_comes_back_as_it_went(store):
    one = span(
        attributes={"a": "\ud800é", "b": True, "c": 1.5, "d": -3},
        events=(SpanEvent(NOW, "retry", {"n": 1}),),
        links=(SpanLink(tid(9), sid(9), {}),),
        status="error",
    )
    assert store.put([one, one]) == 1
    assert store.put([one]) == 0
    with store.reader() as db:
        assert spans_of(db, tid(1)) == [one]
    assert oct(store.path.stat().st_mode)[-3:] == "600"
    assert oct(store.path.parent.stat().st_mode)[-3:] == "700"


def test_a_trace_is_summed_up_whichever_span_comes_first(store):
    child = span(number=2, parent=1, name="select", service="users", start=NOW + 0.1, duration=2.0)
    store.put([replace(child, status="error")])
    assert asked(store).traces[0].name == "select"
    store.put([span(attributes={"http.response.status_code": 502, "headgate.route": "api"})])
    one = asked(store).traces[0]
    assert (one.name, one.service, one.route, one.status) == ("GET /users", "gateway", "api", 502)
    assert (one.spans, one.errors, one.start) == (2, 1, NOW)
    assert one.duration_s == pytest.approx(2.1)


def test_traces_are_found_by_what_is_said_of_them(store):
    def one(n, **more):
        return span(n, start=NOW + n, **more)

    store.put(
        [
            one(1, attributes={"headgate.route": "api", "http.response.status_code": 200}),
            one(
                2, status="error", attributes={"http.route": "/u", "http.response.status_code": 503}
            ),
            one(3, duration=5.0, service="users", name="Load_100%"),
            span(3, 2, 1, start=NOW + 3, service="db", attributes={"db.rows": 42, 'a"b.c': True}),
        ]
    )
    assert found(store) == [3, 2, 1]
    assert found(store, route="api") == [1]
    assert found(store, route="/u", status=(500, 599)) == [2]
    assert found(store, route="api", status=(500, 599)) == []
    assert found(store, service="db") == [3]
    assert found(store, errors_only=True) == [2]
    assert found(store, min_s=1.0) == [3]
    assert found(store, max_s=1.0) == [2, 1]
    assert found(store, since=NOW + 2, until=NOW + 2) == [2]
    assert found(store, text="load_100%") == [3]
    assert found(store, text="load%") == []
    assert found(store, attributes={"db.rows": "42"}) == [3]
    assert found(store, attributes={"db.rows": "42", 'a"b.c': "true"}) == [3]
    assert found(store, attributes={"db.rows": "42", "x": "y"}) == []
    assert found(store, service="users", attributes={"db.rows": "42"}) == []  # not one span


def test_pages_show_each_trace_once_whatever_comes_meanwhile(store):
    store.put([span(n, start=NOW + n // 2) for n in range(1, 31)])
    seen, after = [], None
    while True:
        page = asked(store, limit=7, after=after)
        seen += [int(one.trace_id, 16) for one in page.traces]
        store.put([span(100 + len(seen), start=NOW + 100)])
        after = page.after
        if after is None:
            break
    assert seen == sorted(range(1, 31), key=lambda n: (-(n // 2), -n))


def test_the_oldest_go_when_there_is_no_more_room(tmp_path):
    store = TraceStore(tmp_path / "t.sqlite", StoreRules(max_bytes=1_000_000), wall=lambda: NOW)
    for n in range(60):
        batch = [
            span(n * 50 + k + 1, start=NOW + n, attributes={"x": f"{n * 50 + k:0500}"})
            for k in range(50)
        ]
        store.put(batch)
        assert store.size() <= 1_000_000
    assert store.dropped_traces > 500
    numbers = [int(one.trace_id, 16) for one in asked(store, limit=5000).traces]
    assert max(numbers) == 3000
    assert min(numbers) > 1000
    store.close()
    assert (tmp_path / "t.sqlite").stat().st_size < 1_500_000


def test_the_old_go_by_their_age(tmp_path):
    wall = [NOW]
    store = TraceStore(tmp_path / "t.sqlite", StoreRules(keep_s=60), wall=lambda: wall[0])
    store.put([span(1, start=NOW - 30), span(2, start=NOW)])
    assert store.expire() == 0
    wall[0] = NOW + 45
    assert store.expire() == 1
    assert found(store) == [2]
    assert store.counts() == (1, 1)
    store.close()


def test_how_many_traces_there_are_is_known_and_not_counted_each_time(tmp_path, monkeypatch):
    wall = [1_700_000_000.0]
    rules = StoreRules(max_bytes=400_000, keep_s=1000.0)
    store = TraceStore(tmp_path / "t.sqlite", rules, wall=lambda: wall[0], mono=lambda: wall[0])
    for n in range(300):
        # Each comes twice, in two batches; some are of the future and refused.
        ahead = 1e6 if n % 7 == 0 else 0.0
        store.put([span(n // 2 + 1, n + 1, start=wall[0] + ahead, attributes={"a": "x" * 2000})])
        wall[0] += 1.0
        assert store.traces == store.counts()[0]
    assert store.dropped_traces
    held = store.traces
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(store, "_summarise", lambda _: 1 // 0)
        store.put([span(1000, start=wall[0]), span(1001, start=wall[0])])
    assert held == store.traces == store.counts()[0]
    store.close()
    again = TraceStore(tmp_path / "t.sqlite", rules, wall=lambda: wall[0], mono=lambda: wall[0])
    assert again.traces == held == again.counts()[0] > 0
    again.expire()
    for _ in range(100):
        wall[0] += 60.0
        again.expire()
    assert again.traces == again.counts()[0] == 0
    again.close()


def test_one_trace_cannot_fill_the_store(store):
    store.put([span(number=n + 1) for n in range(MOST_SPANS + 10)])
    store.put([span(number=MOST_SPANS + 100)])
    assert store.counts() == (1, MOST_SPANS)
    assert store.refused == 11


def test_a_clock_that_is_fast_does_not_fill_the_store_for_ever(store):
    store.put([span(1, start=NOW + 1000), span(2, start=NOW + 10**6)])
    assert found(store) == [1]
    assert store.refused == 1


def test_services_are_summed_up(store):
    store.put([span(n, duration=n / 10, service="users") for n in range(1, 11)])
    store.put([span(20, service="db", kind="client"), span(21, service="x", status="error")])
    with store.reader() as db:
        got = {one.service: one for one in services(db)}
    assert set(got) == {"users", "x"}
    assert (got["users"].spans, got["users"].max_s, got["x"].errors) == (10, 1.0, 1)


@pytest.mark.parametrize("how", ["nonsense", "torn", "other tables", "newer"])
def test_a_spoilt_file_is_put_aside_and_a_new_one_begun(tmp_path, how):
    path = tmp_path / "t.sqlite"
    if how == "nonsense":
        path.write_bytes(b"this is no database" * 1000)
    else:
        store = TraceStore(path, StoreRules())
        store.put([span(n, attributes={"x": "y" * 500}) for n in range(1, 500)])
        store.close()
    if how == "torn":
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(os.urandom(200_000))
    elif how != "nonsense":
        db = sqlite3.connect(path)
        db.execute("DROP TABLE traces" if how == "other tables" else "PRAGMA user_version=99")
        db.commit()
        db.close()
    store = TraceStore(path, StoreRules())
    assert store.spoilt is not None
    assert store.spoilt.exists()
    store.put([span()])
    assert found(store) == [1]
    store.close()
    again = TraceStore(path, StoreRules())
    assert again.spoilt is None
    assert again.counts() == (1, 1)
    again.close()


@pytest.mark.integration
def test_what_was_put_is_there_after_kill_9(tmp_path):
    code = textwrap.dedent(
        f"""
        from pathlib import Path
        from headgate.observe.tracing.record import SpanRecord
        from headgate.observe.tracing.rules import StoreRules
        from headgate.observe.tracing.store import TraceStore
        store = TraceStore(Path({str(tmp_path / "t.sqlite")!r}), StoreRules())
        n = 0
        while True:
            n += 1
            store.put([SpanRecord(f"{{n:032x}}", f"{{k:016x}}", "", "x", "server", 1.0 + n, 0.1)
                       for k in range(1, 6)])
            print(n, flush=True)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        last = 0
        while last < 20:
            last = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    last = int(rest[-1]) if rest else last
    store = TraceStore(tmp_path / "t.sqlite", StoreRules())
    assert store.spoilt is None
    traces, spans = store.counts()
    assert traces >= last
    assert spans == traces * 5
    store.close()


# -- trees ----------------------------------------------------------------------------------------


def test_a_tree_has_self_times_and_a_critical_path():
    spans = [
        span(number=1, duration=1.0),
        span(number=2, parent=1, start=NOW + 0.1, duration=0.2),
        span(number=3, parent=1, start=NOW + 0.2, duration=0.7),
        span(number=4, parent=1, start=NOW + 0.3, duration=0.1),
        span(number=5, parent=3, start=NOW + 0.2, duration=0.1),
        span(number=6, parent=3, start=NOW + 0.4, duration=0.4),
    ]
    got = tree(spans[::-1])
    assert [(int(node.span.span_id, 16), node.depth) for node in got.nodes] == [
        (1, 0), (2, 1), (3, 1), (5, 2), (6, 2), (4, 1),
    ]  # fmt: skip
    nodes = {int(node.span.span_id, 16): node for node in got.nodes}
    assert nodes[1].self_s == pytest.approx(0.2)
    assert nodes[3].self_s == pytest.approx(0.2)
    assert {number for number, node in nodes.items() if node.is_critical} == {1, 3, 5, 6}
    assert got.duration_s == 1.0


def test_what_is_missing_or_goes_round_is_shown_all_the_same():
    torn = tree([span(number=2, parent=77)])
    assert torn.nodes[0].is_torn
    circle = tree([span(number=1, parent=2), span(number=2, parent=1), span(number=3, parent=3)])
    assert len(circle.nodes) == 3
    assert tree([]).nodes == ()


rows = st.lists(
    st.tuples(st.integers(1, 8), st.integers(0, 9), st.floats(0, 10), st.floats(0, 10)), max_size=12
)


@given(rows)
def test_any_spans_make_a_tree(drawn):
    spans = [span(number=n, parent=p, start=NOW + s, duration=d) for n, p, s, d in drawn]
    got = tree(spans)
    assert sorted(node.span.span_id for node in got.nodes) == sorted({s.span_id for s in spans})
    for node in got.nodes:
        assert 0 <= node.self_s <= node.span.duration_s
    if spans:
        assert any(node.is_critical for node in got.nodes)


def test_a_chain_of_thousands_is_no_recursion():
    got = tree([span(number=n, parent=n - 1) for n in range(1, 5001)])
    assert got.nodes[-1].depth == 4999


# -- the waiting room -----------------------------------------------------------------------------

MAYBE = {UNDECIDED: True}


def test_undecided_spans_join_a_trace_that_somebody_keeps():
    room = WaitingRoom(TracingRules())
    assert room.take([span(1, 1, attributes=MAYBE), span(2, 1, attributes=MAYBE)], 0.0) == []
    got = room.take([span(1, 2)], 1.0)
    assert [(one.trace_id, one.span_id) for one in got] == [(tid(1), sid(1)), (tid(1), sid(2))]
    assert all(UNDECIDED not in one.attributes for one in got)
    late = room.take([span(1, 3, attributes=MAYBE)], 2.0)
    assert [one.span_id for one in late] == [sid(3)]
    assert room.count == 1
    room.expire(100.0)
    assert (room.count, room.expired) == (0, 1)


@pytest.mark.parametrize("more", [{"status": "error"}, {"duration": 1.0}])
def test_an_undecided_span_that_failed_or_was_slow_decides(more):
    room = WaitingRoom(TracingRules())
    room.take([span(1, 1, attributes=MAYBE)], 0.0)
    assert len(room.take([span(1, 2, attributes=MAYBE, **more)], 0.0)) == 2


@given(st.lists(st.tuples(st.integers(1, 6), st.booleans(), st.floats(0, 30)), max_size=40))
def test_no_span_is_lost_uncounted_and_the_room_is_bounded(steps):
    room = WaitingRoom(TracingRules(), most=5, wait_s=10.0)
    kept = now = 0
    for number, (trace, decided, wait) in enumerate(steps):
        now += wait
        attributes = {} if decided else MAYBE
        kept += len(room.take([span(trace, number + 1, attributes=attributes)], now))
        assert room.count <= 5
    assert kept + room.count + room.expired + room.overflowed == len(steps)

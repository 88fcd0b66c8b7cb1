"""The store: what is appended is found, whatever happens to clocks, disks and processes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from headgate.observe.history import Family, Keep, KeepRules, Markers
from headgate.observe.history.asking import ask, ask_range, unknown_names
from headgate.observe.history.openlog import replay
from headgate.observe.history.store import Store
from headgate.observe.query import Matcher, is_stale, parse

BASE = 1_700_006_400.0  # a whole hour
ROOT = Path(__file__).resolve().parents[3]


def families(count: float, level: float = 1.0, routes: tuple[str, ...] = ("a", "b")):
    return [
        Family("hits_total", "counter", ("route",), {(route,): count for route in routes}),
        Family("level", "gauge", (), {(): level}),
    ]


def fill(store: Store, seconds: int, start: float = BASE, mono: float = 0.0, **more) -> None:
    for second in range(seconds):
        store.append(start + second, mono + second, families(float(second), second % 7, **more))


def only(store: Store, name: str, start=BASE, end=BASE + 1e6, each_s=1.0, **labels):
    matchers = [Matcher(label, "=", value) for label, value in labels.items()]
    found = store.select(name, matchers, start, end, each_s=each_s)
    assert len(found) == 1
    return found[0]


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "h")
    yield made
    with contextlib.suppress(OSError):
        made.close()


def test_what_is_appended_is_found_before_and_after_sealing(store):
    fill(store, 150)
    found = only(store, "hits_total", route="a")
    assert found.times.tolist() == [BASE + n for n in range(150)]
    assert found.values.tolist() == list(range(150))
    assert store.figures.blocks["1s"] == 2
    assert dict(found.labels) == {"__name__": "hits_total", "route": "a"}


def test_a_select_keeps_to_its_time_and_its_labels(store):
    fill(store, 130)
    found = store.select("hits_total", [Matcher("route", "!=", "a")], BASE + 50, BASE + 70)
    assert [one.labels["route"] for one in found] == ["b"]
    assert found[0].times[0] == BASE + 50
    assert found[0].times[-1] == BASE + 70
    assert store.select("nothing", (), BASE, BASE + 1e6) == []


def test_minutes_keep_last_count_sum_least_and_greatest(store):
    fill(store, 300)
    found = only(store, "level", each_s=60)
    rolled = found.rollup
    assert rolled is not None
    first = [n % 7 for n in range(60)]
    assert (rolled.counts[0], rolled.sums[0]) == (60, sum(first))
    assert (rolled.mins[0], rolled.maxs[0]) == (0, 6)
    assert found.values[0] == first[-1]
    assert rolled.counts[-1] == 1  # what is not yet rolled up comes by the second
    assert found.times[-1] == BASE + 299


def test_functions_see_the_whole_of_a_minute_and_not_its_last_sample(store):
    fill(store, 1200)
    at = BASE + 1199
    (fine,) = ask(parse("avg_over_time(level[20s])"), store, at)
    expr = parse("max_over_time(level[10m])")
    (sample,) = ask(expr, store, at)
    assert sample.value == 6
    (total,) = ask(parse("count_over_time(level[10m])"), store, at)
    assert total.value == pytest.approx(600, abs=60)
    assert 0 <= fine.value <= 6


def test_hours_are_made_of_minutes(tmp_path):
    store = Store(tmp_path / "h", Keep(every_s=20))
    for step in range(3 * 180 + 1):
        store.append(BASE + 20 * step, 20.0 * step, families(float(step)))
    found = only(store, "hits_total", each_s=3600, route="a")
    assert found.values[:2].tolist() == [179, 359]
    assert store.figures.blocks == {"1s": 180, "1min": 2, "1h": 0}
    store.close()


def test_a_series_that_ends_says_so_and_frees_its_place(store):
    fill(store, 70)
    fill(store, 130, BASE + 70, 70.0, routes=("a",))
    found = only(store, "hits_total", route="b")
    assert is_stale(found.values)[-1]
    assert found.times[-1] == BASE + 70
    assert store.figures.series == 2


def test_series_too_many_are_left_out_and_counted(tmp_path):
    store = Store(tmp_path / "h", Keep(max_series=10))
    routes = tuple(f"r{n}" for n in range(20))
    fill(store, 3, routes=routes)
    assert store.figures.series == 10
    assert store.figures.dropped_series >= 10
    store.close()


def test_a_restart_goes_on_where_it_was(tmp_path):
    store = Store(tmp_path / "h")
    fill(store, 200)
    store.close()
    again = Store(tmp_path / "h")
    again.append(BASE + 200, 1000.0, families(200.0))
    assert only(again, "hits_total", route="a").values.tolist() == list(range(201))
    minutes = only(again, "level", each_s=60)
    assert minutes.rollup is not None
    assert minutes.rollup.counts[:3].tolist() == [60, 60, 60]
    again.close()


def test_a_restart_rolls_up_what_the_last_process_had_not(tmp_path):
    store = Store(tmp_path / "h", Keep(every_s=20))
    for step in range(270):
        store.append(BASE + 20 * step, 20.0 * step, families(float(step)))
    store.close()
    again = Store(tmp_path / "h", Keep(every_s=20))
    for step in range(270, 541):
        again.append(BASE + 20 * step, 20.0 * step, families(float(step)))
    found = only(again, "hits_total", each_s=3600, route="a")
    assert found.values[:2].tolist() == [179, 359]
    again.close()


def test_a_torn_log_gives_what_is_whole(tmp_path):
    store = Store(tmp_path / "h")
    fill(store, 30)
    store.close()
    log = tmp_path / "h" / "open.log"
    data = log.read_bytes()
    for cut in (0, 5, len(data) // 2, len(data) - 1):
        log.write_bytes(data[:cut])
        keys, _, moments = replay(log)
        assert len(moments) < 30
        assert all(values.shape[0] <= len(keys) for _, values in moments)


def test_spoilt_blocks_are_set_aside_and_the_rest_is_served(tmp_path):
    store = Store(tmp_path / "h")
    fill(store, 250)
    store.close()
    first, second, third = sorted((tmp_path / "h" / "1s").glob("*.hgb"))[:3]
    first.write_bytes(b"nonsense")
    data = bytearray(second.read_bytes())
    data[-10] ^= 0xFF
    second.write_bytes(data)
    third.write_bytes(third.read_bytes()[:-20])
    again = Store(tmp_path / "h")
    again.append(BASE + 250, 250.0, families(250.0))
    found = again.select("level", (), BASE, BASE + 1e6)
    assert found[0].times[-1] == BASE + 250
    assert len(found[0].times) >= 70
    assert len(again.spoilt()) >= 2
    assert len(list((tmp_path / "h" / "spoilt").iterdir())) >= 2
    again.close()


def test_a_lost_set_of_names_loses_its_blocks_and_no_more(tmp_path):
    store = Store(tmp_path / "h")
    fill(store, 130)
    store.close()
    for path in (tmp_path / "h" / "sets").iterdir():
        path.write_bytes(b"?")
    again = Store(tmp_path / "h")
    again.append(BASE + 130, 130.0, families(130.0))
    assert only(again, "level").times[-1] == BASE + 130
    again.close()


def test_a_second_process_keeps_its_history_in_memory_until_the_first_has_gone(tmp_path):
    first, second = Store(tmp_path / "h"), Store(tmp_path / "h")
    fill(first, 10)
    fill(second, 70, BASE + 10, 10.0)
    assert "another process" in second.figures.trouble
    assert len(only(second, "level").times) == 70
    first.close()
    fill(second, 70, BASE + 80, 80.0)
    assert second.figures.trouble == ""
    assert only(second, "level").times[0] == BASE
    assert second.figures.unwritten_blocks == 0
    second.close()


def test_a_full_disk_is_lived_through_in_memory_and_written_later(tmp_path, monkeypatch):
    store = Store(tmp_path / "h")
    fill(store, 65)
    disk = store._disk
    assert disk is not None

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(type(disk), "_put", full)
        fill(store, 120, BASE + 65, 65.0)
        assert "No space left" in store.figures.trouble
        assert store.figures.unwritten_blocks >= 1
        assert len(only(store, "level").times) == 185
    fill(store, 70, BASE + 185, 185.0)
    assert store.figures.trouble == ""
    assert store.figures.unwritten_blocks == 0
    assert len(only(store, "level").times) == 255
    store.close()


def test_what_waits_for_a_disk_is_bounded(tmp_path):
    (tmp_path / "h").write_text("a file where the folder should be")
    store = Store(tmp_path / "h", Keep(max_memory_bytes=3000))
    fill(store, 900)
    assert store.figures.lost_blocks > 0
    assert sum(one.size for one in store._blocks) <= 3000
    assert only(store, "level").times[-1] == BASE + 899
    store.close()


def test_a_clock_that_goes_back_an_hour_loses_nothing(store):
    fill(store, 100)
    fill(store, 100, BASE - 3600, 100.0)
    found = only(store, "level", BASE - 1e6)
    assert len(found.times) == 200
    assert (np.diff(found.times) > 0).all()


def test_a_clock_that_goes_back_over_what_is_there_is_believed_later(store):
    fill(store, 100)
    for second in range(50):
        store.append(BASE + 20 + second, 100.0 + second, families(1000.0 + second))
    found = only(store, "hits_total", route="a")
    assert found.values[20] == 1000
    assert found.values[80] == 80
    assert (np.diff(found.times) > 0).all()


def test_a_clock_that_leaps_a_day_does_not_empty_the_store(store):
    fill(store, 130)
    fill(store, 130, BASE + 86400, 130.0)
    assert only(store, "level").times[0] == BASE
    fill(store, 130, BASE + 260, 260.0)
    assert only(store, "level").times[0] == BASE


def test_what_is_too_old_goes_by_tier(tmp_path):
    store = Store(tmp_path / "h", Keep(every_s=20, keep=KeepRules(3600, 86400, 86400)))
    for step in range(3 * 180):
        store.append(BASE + 20 * step, 20.0 * step, families(float(step)))
    assert store.figures.blocks["1s"] <= 62
    assert only(store, "hits_total", each_s=60, route="a").times[0] < BASE + 60
    store.close()


def test_what_is_too_much_goes_oldest_and_finest_first(tmp_path):
    store = Store(tmp_path / "h", Keep(every_s=20, disk_bytes=20_000))
    for step in range(3 * 180):
        store.append(BASE + 20 * step, 20.0 * step, families(float(step)))
    assert store.figures.bytes_on_disk <= 20_000
    assert 0 < store.figures.blocks["1s"] < 170
    assert store.figures.blocks["1min"] == 2
    store.close()


def test_old_stretches_come_from_minutes_and_new_ones_by_the_second(tmp_path):
    store = Store(tmp_path / "h", Keep(every_s=1, keep=KeepRules(120, 86400, 86400)))
    fill(store, 600)
    found = only(store, "hits_total", route="a")
    apart = np.diff(found.times)
    assert apart[0] == 60
    assert apart[-1] == 1
    assert (apart > 0).all()
    store.close()


def test_it_is_read_while_it_is_written_and_sealed(store):
    fill(store, 2)
    faults: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                found = only(store, "hits_total", route="a")
                assert (np.diff(found.times) > 0).all()
                assert found.values.tolist() == [at - BASE for at in found.times]
        except BaseException as error:
            faults.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for second in range(2, 700):
        store.append(BASE + second, second, families(float(second)))
    done.set()
    reader.join(30)
    assert not faults


def test_a_killed_process_loses_no_moment_that_was_appended(tmp_path):
    code = f"""
    import sys, os
    sys.path.insert(0, {str(ROOT)!r})
    from pathlib import Path
    from tests.observe.history.test_history_store import *
    store = Store(Path({str(tmp_path / "h")!r}))
    fill(store, 150)
    print("ready", flush=True)
    os.kill(os.getpid(), 9)
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert b"ready" in done.stdout, done.stderr.decode()
    store = Store(tmp_path / "h")
    store.append(BASE + 150, 0.0, families(150.0))
    assert only(store, "hits_total", route="a").values.tolist() == list(range(151))
    store.close()


def test_questions_over_time_and_names_that_are_unknown(store):
    fill(store, 400)
    expr = parse("sum(rate(hits_total[1m]))")
    (answer,) = ask_range(expr, store, BASE + 100, BASE + 390, 10)
    assert answer.values == pytest.approx([2.0] * len(answer.values))
    said = unknown_names(parse("hit_total + level"), store, BASE, BASE + 400)
    assert said == ['no series is named "hit_total" in that time; did you mean "hits_total"?']


def test_markers_survive_and_a_torn_line_harms_no_other(tmp_path):
    path = tmp_path / "markers.jsonl"
    markers = Markers(path)
    markers.add(5.0, "deploy", "two", {"version": 2})
    markers.add(3.0, "config", "one", {})
    with path.open("a") as file:
        file.write('{"at": 9, "kin')
    Markers(path).add(7.0, "deploy", "three", {})
    again = Markers(path)
    assert [one.text for one in again.between(0, 10)] == ["one", "two", "three"]
    assert again.between(0, 10, "deploy")[0].attributes == {"version": "2"}


def test_to_note_a_marker_and_to_look_at_them_waits_for_no_disk(tmp_path, monkeypatch):
    path = tmp_path / "markers.jsonl"
    markers = Markers(path, most=10)
    released, hung = threading.Event(), threading.Event()
    real = os.open

    def hangs(*args):
        hung.set()
        released.wait(60.0)
        return real(*args)

    monkeypatch.setattr(os, "open", hangs)
    markers.note(1.0, "deploy", "m1", {})
    writer = threading.Thread(target=markers.write)
    writer.start()
    try:
        assert hung.wait(20.0)
        for number in range(2, 14):
            markers.note(number, "deploy", f"m{number}", {})
        assert [one.at for one in markers.between(0, 99)] == [*range(4, 14)]
        assert markers.unwritten == 2
    finally:
        released.set()
        writer.join(20.0)
    assert [one.at for one in Markers(path).between(0, 99)] == [1, *range(4, 14)]


def test_markers_noted_while_the_file_is_rewritten_stand_in_it_once(tmp_path):
    path = tmp_path / "markers.jsonl"
    markers = Markers(path, most=5)
    for number in range(10):
        markers.add(float(number), "deploy", "x", {})
    for number in range(10, 14):
        markers.note(float(number), "deploy", "x", {})
    markers.write()
    said = [json.loads(line)["at"] for line in path.read_text().splitlines()]
    assert said == [9.0, 10.0, 11.0, 12.0, 13.0]


def test_markers_are_bounded_in_memory_and_in_the_file(tmp_path):
    path = tmp_path / "markers.jsonl"
    markers = Markers(path, most=10)
    for number in range(95):
        markers.add(float(number), "deploy", "x", {})
    assert len(markers.held) == 10
    assert len(path.read_text().splitlines()) <= 20

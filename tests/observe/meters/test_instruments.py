"""Counters, gauges, histograms, summaries and timers: what they count, and that none is lost."""

from __future__ import annotations

import asyncio
import dis
import logging
import math
import os
import signal
import sys
import threading
import warnings

import pytest

from headgate.observe.meters import counter, exemplars, gauge, histogram
from headgate.observe.meters.counter import Counter, CounterChild
from headgate.observe.meters.gauge import Gauge, GaugeChild
from headgate.observe.meters.histogram import Histogram, HistogramChild, Timer
from headgate.observe.meters.metric import HAS_GIL
from headgate.observe.meters.registry import Registry
from headgate.observe.meters.summary import Summary


def counted(metric):
    return metric.family().numbers


def test_a_counter_counts_by_place_by_name_and_bound():
    requests = Counter("requests", "Requests", ("route", "code"))
    bound = requests.labels(route="a", code="200")
    bound.inc()
    bound.inc(2)
    requests.add(3, "a", "200")
    requests.labels("b", 500).inc(0.5)
    requests.add(1, "b", 500)
    assert counted(requests) == {("a", "200"): 6, ("b", "500"): 1.5}
    assert requests.name == "requests_total"


def test_a_metric_without_labels_counts_itself():
    jobs = Counter("jobs")
    jobs.inc()
    jobs.add(2)
    assert counted(jobs) == {(): 3}


@pytest.mark.parametrize("amount", [-1, -0.1, math.nan])
def test_a_counter_never_falls(amount):
    requests = Counter("requests", "", ("a",))
    for count in (requests.labels("x").inc, lambda n: requests.add(n, "x")):
        with pytest.raises(ValueError, match="only grows"):
            count(amount)
    assert counted(requests) == {("x",): 0}


def test_a_use_that_does_not_fit_says_the_way_out():
    requests = Counter("requests", "", ("route", "code"))
    with pytest.raises(ValueError, match=r"requests_total.labels\(route=..., code=...\).inc"):
        requests.inc()
    with pytest.raises(ValueError, match=r"has the labels \(route, code\), and 1 values"):
        requests.add(1, "a")
    with pytest.raises(ValueError, match="'code' has no value"):
        requests.labels(route="a")
    with pytest.raises(ValueError, match="has no label host"):
        requests.labels(route="a", code="1", host="b")


@pytest.mark.parametrize(
    ("name", "labels", "message"),
    [
        ("my-metric", (), "my_metric"),
        ("", (), "no name of a metric"),
        ("1st", (), "_1st"),
        ("ok", ("__name",), "Prometheus' own"),
        ("ok", ("a-b",), "no name of a label"),
        ("ok", ("a", "a"), "stands twice"),
        ("ok", "route", r'\("route",\)'),
        ("ok", tuple(f"l{n}" for n in range(21)), "at most 20"),
    ],
)
def test_names_are_checked(name, labels, message):
    with pytest.raises(ValueError, match=message):
        Counter(name, "", labels)


def test_a_histogram_keeps_le_for_itself():
    with pytest.raises(ValueError, match="itself puts there"):
        Histogram("h", "", ("le",))


def test_too_many_series_are_counted_as_other_and_warned_of_once(caplog):
    requests = Counter("requests", "", ("user",), max_series=3)
    with caplog.at_level(logging.WARNING, "headgate.observe"):
        for user in range(10):
            requests.add(1, f"u{user}")
        requests.add(1, "u1")
    assert counted(requests) == {("u0",): 1, ("u1",): 2, ("u2",): 1, ("other",): 7}
    assert requests.overflowed == 7
    assert len(caplog.records) == 1
    requests.remove("u0")
    requests.add(1, "u9")
    assert counted(requests)[("u9",)] == 1


def test_labels_of_any_type_become_text():
    requests = Counter("requests", "", ("a",))
    for value in (1, True, 1.0, None, [2]):
        requests.add(1, value)
    assert counted(requests) == {("1",): 1, ("True",): 1, ("1.0",): 1, ("None",): 1, ("[2]",): 1}


def test_a_value_that_is_too_long_is_cut():
    requests = Counter("requests", "", ("a",))
    for _ in range(2):
        requests.add(1, "x" * 10_000_000)
    ((label,),) = counted(requests)
    assert label == "x" * 297 + "..."
    assert counted(requests) == {(label,): 2}


def test_a_gauge_goes_up_and_down():
    open_ = Gauge("open")
    open_.set(5)
    open_.inc(2)
    open_.dec()
    with open_.held():
        assert counted(open_) == {(): 7}
    assert counted(open_) == {(): 6}
    by_kind = Gauge("kinds", "", ("kind",), merge="max")
    by_kind.put(3, "a")
    by_kind.add(-1, "a")
    assert by_kind.family().numbers == {("a",): 2}
    assert by_kind.family().merge == "max"


def test_a_gauge_asks_and_survives_a_function_that_fails():
    depth, broken = Gauge("depth"), Gauge("broken")
    depth.ask(lambda: 42)
    broken.ask(lambda: 1 / 0)
    assert counted(depth) == {(): 42}
    assert math.isnan(counted(broken)[()])


def test_a_histogram_counts_all_and_leaves_out_what_is_no_number():
    sizes = Histogram("sizes", "", ("route",), bounds=(1, 10, 100))
    for value in (0, 1, 5, 50, 500, -3, math.nan, math.inf, 1e-15, 1e200):
        sizes.put(value, "a")
    sketch = sizes.family().sketches["a",]
    assert sketch.cumulative(sizes.bounds) == [4, 5, 6, 8]
    assert sketch.count == 8


@pytest.mark.parametrize("bounds", [(), (2, 1), (1, 1), (math.nan,), range(201)])
def test_bounds_are_checked(bounds):
    with pytest.raises(ValueError, match="bound"):
        Histogram("h", bounds=bounds)


def test_a_timer_times_blocks_functions_and_coroutines():
    took = Timer("took_seconds", "", ("what",))
    with took.time("block") as running:
        pass
    assert running.elapsed_s >= 0

    @took.labels("plain")
    def plain(a, b=1):
        return a + b

    @took.labels("async")
    async def slow():
        await asyncio.sleep(0)
        raise LookupError

    assert plain(1, b=2) == 3
    assert plain.__name__ == "plain"
    with pytest.raises(LookupError):
        asyncio.run(slow())
    counts = {labels: sketch.count for labels, sketch in took.family().sketches.items()}
    assert counts == {("block",): 1, ("plain",): 1, ("async",): 1}
    with pytest.raises(TypeError, match="is a generator"):

        @took.labels("x")
        def generator():
            yield


def test_a_cancelled_coroutine_is_timed_too():
    took = Timer("took_seconds")

    @took
    async def forever():
        await asyncio.Event().wait()

    async def scene():
        task = asyncio.get_running_loop().create_task(forever())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scene())
    assert took.family().sketches[()].count == 1


def test_a_summary_forgets_what_is_older_than_its_window():
    now = [0.0]
    took = Summary("took", window_s=10, clock=lambda: now[0])
    took.observe(1.0)
    now[0] = 5.0
    took.observe(100.0)
    assert took.labels().quantile(0.0) == pytest.approx(1.0, rel=0.01)
    now[0] = 11.0
    assert took.labels().quantile(0.0) == pytest.approx(100.0, rel=0.01)
    now[0] = 1e9
    assert took.labels().quantile(0.5) is None
    assert took.family().totals == {(): (2, 101.0)}


def test_an_exemplar_is_kept_with_the_trace_that_is_recorded(monkeypatch):
    took = Histogram("took_seconds", "", bounds=(0.1, 1))
    took.observe(0.05)
    monkeypatch.setattr(exemplars, "current", lambda: "ab" * 16)
    took.observe(0.05)
    took.observe(5)
    monkeypatch.setattr(exemplars, "current", lambda: None)
    took.observe(0.5)
    shown = took.family().exemplars[()]
    assert [(one.value, one.trace_id) for one in shown] == [(0.05, "ab" * 16), (5, "ab" * 16)]


# ---- threads

_MAY_SWITCH = ("CALL", "JUMP_BACKWARD", "RESUME", "PRECALL", "FOR_ITER", "YIELD", "SEND")


@pytest.mark.skipif(not HAS_GIL, reason="without a GIL children are locked")
@pytest.mark.parametrize(
    ("function", "target"),
    [
        (CounterChild.inc, "STORE_ATTR"),
        (Counter._add_in_place, "STORE_ATTR"),
        (GaugeChild.inc, "STORE_ATTR"),
        (GaugeChild.dec, "STORE_ATTR"),
        (HistogramChild.observe, "STORE_SUBSCR"),
        (HistogramChild._observe_rare, "STORE_SUBSCR"),
    ],
    ids=["inc", "add", "gauge-inc", "gauge-dec", "observe", "observe-rare"],
)
def test_no_thread_can_come_between_load_and_store(function, target):
    """See `metric`: the interpreter switches threads only at these instructions."""
    code = [instruction.opname for instruction in dis.get_instructions(function)]
    adds = [
        at for at, name in enumerate(code) if name == "BINARY_OP" and target in code[at : at + 5]
    ]
    assert adds
    for at in adds:
        stored = next(i for i in range(at, len(code)) if code[i] == target)
        loaded = next(
            i
            for i in range(at, -1, -1)
            if code[i] == "COPY"  # of what is loaded and stored
        )
        between = code[loaded : stored + 1]
        assert not [name for name in between if name.startswith(_MAY_SWITCH)], between


def test_threads_lose_no_count():
    requests = Counter("requests", "", ("a",))
    took = Histogram("took")
    summary = Summary("sum")
    threads, each = 4, 5_000
    begin = threading.Barrier(threads)

    def work(number):
        begin.wait(30)
        for at in range(each):
            requests.add(1, "x")
            requests.labels("y").inc(2)
            took.observe(1 + at % 7)
            summary.observe(1.0)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
    finally:
        sys.setswitchinterval(before)
    whole = threads * each
    assert counted(requests) == {("x",): whole, ("y",): 2 * whole}
    assert took.family().sketches[()].count == whole
    assert took.family().sketches[()].sum == threads * sum(1 + at % 7 for at in range(each))
    assert summary.family().totals[()] == (whole, float(whole))


def test_children_with_locks_count_the_same():
    """What is used where there is no GIL."""
    count, level, spread = (
        counter._LockedChild(),
        gauge._LockedChild(),
        histogram._LockedChild((0.1, 1.0)),
    )
    count.inc(2)
    level.inc(3)
    level.dec()
    for value in (0.05, 0.0, -1, math.nan):
        spread.observe(value)
    assert (count.value, level.value, spread.sketch().count) == (2, 2, 3)
    requests = Counter("requests", "", ("a",))
    requests._add_by_child(2, "x")
    assert counted(requests) == {("x",): 2}


def test_a_signal_may_count_while_a_child_is_made():
    requests = Counter("requests", "", ("a",))
    before = signal.signal(signal.SIGUSR1, lambda *_: requests.add(1, f"s{os.urandom(4).hex()}"))
    try:
        with requests._lock:
            os.kill(os.getpid(), signal.SIGUSR1)
            requests.add(1, "x")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert sum(counted(requests).values()) == 2


def test_a_fork_does_not_inherit_a_lock_that_is_held():
    registry = Registry()
    requests = registry.counter("requests", "", ("a",))
    waits = registry.summary("waits", "", ("a",))
    child = waits.labels("x")
    with requests._lock, waits._lock, child._lock, registry._lock:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pid = os.fork()
        if not pid:
            signal.alarm(30)
            try:
                # In another thread, as a lock lets its own one in again.
                worker = threading.Thread(target=_count_in_child, args=(requests, waits, registry))
                worker.start()
                worker.join(20)
                os._exit(1 if worker.is_alive() else 0)
            finally:
                os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _count_in_child(requests, waits, registry):
    requests.add(1, "new")
    waits.put(1, "x")
    registry.counter("more").inc()
    registry.collect()


def test_threads_that_make_the_same_child_get_the_same_child():
    requests = Counter("requests", "", ("a",), max_series=50)
    begin = threading.Barrier(4)

    def work():
        begin.wait(30)
        for at in range(2000):
            requests.add(1, f"s{at % 100}")

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert sum(counted(requests).values()) == 8000
    assert len(counted(requests)) == 51
    assert requests.overflowed == 50 * 80

"""Counting over windows: what is counted once is counted once, whatever the history looks like."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.observe.history import Family, Keep
from headgate.observe.history.store import Store
from headgate.observe.slo.reading import read
from headgate.observe.slo.rules import Term, availability, latency
from headgate.observe.slo.tally import Tally, increases, joined, known_cells

BASE = 1_700_006_400.0  # a whole hour
REQUESTS = "headgate_http_requests_total"


def tally_of(times, counts, known=None) -> Tally:
    sums = np.concatenate([[0.0], np.cumsum(counts)])
    held = np.cumsum(np.diff(times, prepend=times[0])) if known is None else known
    return Tally(np.array(times, dtype=float), sums.reshape(1, -1), np.array(held, dtype=float))


@pytest.mark.parametrize(
    ("values", "before", "from_zero", "expected"),
    [
        ([1, 3, 6], 0.0, False, [1, 2, 3]),
        ([5, 6], None, False, [0, 1]),
        ([5, 6], None, True, [5, 1]),
        ([5, 6, 2, 3], 5.0, False, [0, 1, 2, 1]),
        ([2], 9.0, False, [2]),
        ([0, 0], None, True, [0, 0]),
        ([], None, True, []),
    ],
    ids=["rises", "first-unknown", "first-from-zero", "reset", "reset-at-once", "flat", "none"],
)
def test_increases_of_a_counter(values, before, from_zero, expected):
    found = increases(np.array(values, dtype=float), before, is_from_zero=from_zero)
    assert found.tolist() == expected


moments = st.lists(st.floats(0.5, 5000), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(gaps=moments, data=st.data())
def test_windows_beside_each_other_add_up(gaps, data):
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    counts = data.draw(
        st.lists(st.floats(0, 1e6), min_size=len(gaps), max_size=len(gaps)), label="counts"
    )
    tally = tally_of(times, counts)
    cut = data.draw(st.floats(-10, times[-1] + 10))
    whole = tally.between(-10, times[-1] + 10)[0]
    parts = tally.between(-10, cut)[0] + tally.between(cut, times[-1] + 10)[0]
    assert whole == pytest.approx(sum(counts), abs=1e-6)
    assert parts == pytest.approx(whole, rel=1e-9, abs=1e-6)
    without = tally.between(-10, times[-1] + 10, [(-10, cut)])[0]
    assert without == pytest.approx(tally.between(cut, times[-1] + 10)[0], rel=1e-9, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(gaps=moments, data=st.data())
def test_a_tally_cut_in_two_and_joined_is_the_same(gaps, data):
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    counts = [float(n % 7) for n in range(len(gaps))]
    tally = tally_of(times, counts)
    at = data.draw(st.integers(0, len(gaps)))
    back = data.draw(st.integers(0, at))
    older = Tally(tally.times[: at + 1], tally.sums[:, : at + 1], tally.known[: at + 1])
    newer = tally.after(float(times[back]))
    again = joined(older, newer)
    assert again.times.tolist() == tally.times.tolist()
    assert np.allclose(again.sums, tally.sums)
    assert np.allclose(again.known, tally.known)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 50), st.booleans()), min_size=1, max_size=40),
)
def test_resets_lose_nothing_that_was_seen(steps):
    """A counter that is set back right after a sample loses nothing."""
    value, values, truth = 0.0, [], 0.0
    for rise, is_reset in steps:
        if is_reset:
            value = 0.0
        value += rise
        truth += rise
        values.append(value)
    found = increases(np.array(values), 0.0, is_from_zero=False)
    # Where it is set back and rises beyond what it was, less is seen, and never more.
    assert found.sum() <= truth + 1e-9
    if all(not is_reset or rise == 0 for rise, is_reset in steps):
        assert found.sum() == pytest.approx(truth)
    assert (found >= 0).all()


def test_known_time_is_of_samples_and_a_late_one_leaves_nothing_out():
    times = np.array([0.0, 1.0, 2.1, 5.0, 65.0, 125.0])
    counts = np.array([1, 1, 1, 1, 60, 30])
    found = known_cells(times, counts, 1.0)
    assert found.tolist() == [0.0, 1.0, pytest.approx(1.1), 1.0, 60.0, 30.0]


# -- out of a real store ----------------------------------------------------------------------


def put(store, second, good, bad, routes=("a",), mono=None, **more):
    samples: dict[tuple[str, ...], float] = {}
    for route in routes:
        samples[route, "s", "GET", "200"] = float(good)
        if bad is not None:
            samples[route, "s", "GET", "503"] = float(bad)
    families = [
        Family(REQUESTS, "counter", ("route", "service", "method", "code"), samples),
        Family("headgate_workers", "gauge", (), {(): 2.0}),
    ]
    store.append(BASE + second, second if mono is None else mono, families)


def lead(store, seconds=60, value=0, bad=None):
    """The minute before: what was shown at its end is where counting begins."""
    for second in range(-seconds, 0, 5 if seconds > 60 else 1):
        put(store, second, value, bad)


def counted(store, start, end, **more):
    objective = availability(0.999, (("route", "=", "a"),), ("5xx",), ("499",))
    return read(store, (objective.good, objective.total), start, end, **more)


@pytest.fixture
def store():
    made = Store(None, Keep())
    yield made
    made.close()


def test_the_first_failure_counts_though_its_series_is_new(store):
    lead(store)
    for second in range(400):
        put(store, second, 10 * second, None if second < 200 else 3)
    tally = counted(store, BASE - 1, BASE + 400)
    good, total = tally.between(BASE - 1, BASE + 399)
    assert total == pytest.approx(3990 + 3, abs=1)
    assert total - good == pytest.approx(3)
    assert tally.known_s(BASE, BASE + 399) == pytest.approx(399, abs=2)


def test_what_a_counter_showed_when_figures_began_does_not_count(store):
    for second in range(120):
        put(store, second, 1_000_000 + second, 500)
    good, total = counted(store, BASE - 100, BASE + 120).between(BASE - 100, BASE + 120)
    assert total <= 119
    assert total - good == pytest.approx(0)


def test_a_gap_of_our_own_is_unknown_and_no_failure(store):
    lead(store)
    for second in [*range(300), *range(1500, 1800)]:
        put(store, second, 2 * second, 0)
    tally = counted(store, BASE - 1, BASE + 1800)
    assert tally.known_s(BASE, BASE + 1799) == pytest.approx(600, abs=62)
    good, total = tally.between(BASE - 1, BASE + 1799)
    assert total == good == pytest.approx(2 * 1799)  # workers served on, and counted


def test_a_restart_counts_what_was_shown_after_it(store):
    lead(store)
    for second in range(130):
        put(store, second, second if second < 65 else second - 65, 0)
    _, total = counted(store, BASE - 1, BASE + 130).between(BASE - 1, BASE + 129)
    assert total == pytest.approx(64 + 64, abs=5)  # a minute in which it was set back says less


def test_excluded_statuses_and_other_routes_are_in_no_figure(store):
    for second in range(-60, 100):
        samples: dict[tuple[str, ...], float] = {
            ("a", "s", "GET", "200"): 5.0 * max(second, 0),
            ("a", "s", "GET", "499"): 7.0 * max(second, 0),
            ("b", "s", "GET", "500"): 9.0 * max(second, 0),
        }
        names = ("route", "service", "method", "code")
        store.append(BASE + second, second, [Family(REQUESTS, "counter", names, samples)])
    good, total = counted(store, BASE - 1, BASE + 99).between(BASE - 1, BASE + 99)
    assert total == good == pytest.approx(5 * 99)


def test_tiers_and_slices_do_not_change_the_sum(store, monkeypatch):
    """Five hours by the second, read by minute, in stretches of two hours."""
    monkeypatch.setattr("headgate.observe.slo.reading._AT_ONCE", 1)
    lead(store, 3600)
    for second in range(0, 5 * 3600, 5):
        put(store, second, 3 * second, second // 100)
    end = BASE + 5 * 3600 - 5
    by_minute = counted(store, BASE, end, every_s=5.0)
    by_hour = counted(store, BASE, end, each_s=3600.0, every_s=5.0)
    for tally in (by_minute, by_hour):
        good, total = tally.between(BASE, end)
        bad = (5 * 3600 - 5) // 100
        assert total == pytest.approx(3 * (5 * 3600 - 5) + bad, rel=1e-3)
        assert total - good == pytest.approx(bad, abs=2)
    assert len(by_minute.times) < 400
    assert by_minute.known_s(BASE, end) == pytest.approx(5 * 3600, rel=0.01)
    late = by_minute.between(end - 3600, end)[1]
    assert late == pytest.approx(3 * 3600 + 36, rel=0.01)


def test_a_store_without_anything_counts_nothing(store):
    tally = counted(store, BASE, BASE + 3600)
    assert tally.between(BASE, BASE + 3600).tolist() == [0.0, 0.0]
    assert tally.known_s(BASE, BASE + 3600) == 0.0


def test_a_bound_between_buckets_is_taken_from_both():
    between = latency(0.95, (), 0.3)
    assert not between.is_exact
    weights = [term.weight for term in between.good]
    assert weights == pytest.approx([0.8, 0.2])
    assert [term.matching[-1][2] for term in between.good] == [
        "0.25",
        "0.5",
    ]
    exact = latency(0.99, (), 1.0)
    assert exact.is_exact
    assert exact.good == (
        Term("headgate_http_request_duration_seconds_bucket", (("le", "=~", "1|1[.]0"),)),
    )
    tiny = latency(0.5, (), 0.0001)
    assert [term.weight for term in tiny.good] == [pytest.approx(0.4)]
    assert latency(0.5, (), 80.0).good[0].matching[-1][2] == "50|50[.]0"

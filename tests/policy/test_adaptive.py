"""The adaptive limit: when it moves, by how much, and what must not move it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.adaptive import AdaptiveLimit, AdaptiveRules


def limit_of(algorithm="gradient", **rules) -> AdaptiveLimit:
    return AdaptiveLimit(AdaptiveRules(algorithm=algorithm, **rules), 0.0)


def window(
    limit: AdaptiveLimit,
    at: float,
    took_s: float,
    in_flight: int,
    dropped: int = 0,
    calls: int = 10,
) -> int | None:
    """Ten calls that end together at the end of a window."""
    moved = None
    for number in range(calls):
        moved = limit.record(took_s, in_flight, "dropped" if number < dropped else "ok", at)
        if number + 1 < calls:
            assert moved is None
    return moved


# ---- windows


def test_a_window_needs_time_and_samples():
    limit = limit_of("aimd", start=20, window_s=1.0, window_samples=3)
    for _ in range(10):
        assert limit.record(0.1, 20, "ok", 0.9) is None
    assert limit.record(0.1, 20, "ok", 1.0) == 21
    for _ in range(2):
        assert limit.record(0.1, 20, "ok", 5.0) is None
    assert limit.record(0.1, 20, "ok", 5.0) == 22


def test_calls_that_say_nothing_are_no_samples():
    limit = limit_of("aimd")
    for _ in range(50):
        assert limit.record(9.0, 20, "ignored", 1.0) is None
    assert limit.limit == 20


# ---- aimd


@pytest.mark.parametrize(
    "took_s, dropped, in_flight, moved",
    [
        (0.1, 0, 20, 21),  # good and in use
        (0.1, 0, 10, 21),  # half is in use
        (0.1, 0, 9, None),  # less than half: nothing has shown that more is fine
        (0.6, 0, 20, 18),  # slow
        (0.6, 0, 1, 18),  # slow even while it is not in use
        (0.1, 1, 20, 18),  # a tenth was dropped
    ],
)
def test_one_window_of_aimd(took_s, dropped, in_flight, moved):
    limit = limit_of("aimd", start=20, target_s=0.5)
    assert window(limit, 1.0, took_s, in_flight, dropped) == moved


def test_less_than_the_share_of_bad_calls_is_borne():
    limit = limit_of("aimd", start=20, bad_share=0.2)
    assert window(limit, 1.0, 0.1, 20, dropped=1) == 21


def test_bad_calls_from_before_a_cut_do_not_cut_again():
    limit = limit_of("aimd", start=100)
    assert window(limit, 10.0, 6.0, 100, dropped=10) == 90
    assert window(limit, 12.0, 6.0, 100, dropped=10) is None  # began at 6.0
    assert window(limit, 16.0, 5.0, 90, dropped=10) == 81  # began at 11.0


def test_the_bounds_hold():
    limit = limit_of("aimd", start=10, least=9, most=11)
    for at in range(1, 9):
        window(limit, at, 0.1, 11)
    assert limit.limit == 11
    for at in range(10, 90, 10):
        window(limit, at, 0.1, 11, dropped=10)
    assert limit.limit == 9


# ---- gradient


def test_a_steady_latency_lets_the_limit_grow_by_its_allowance():
    limit = limit_of(start=100, smoothing=1.0)
    assert window(limit, 1.0, 0.1, 100) == 110
    assert window(limit, 2.0, 0.1, 110) == 120  # 110 + sqrt(110)


def test_latency_within_the_tolerance_is_fine():
    limit = limit_of(start=100, smoothing=1.0, tolerance=2.0)
    window(limit, 1.0, 0.1, 100)
    assert window(limit, 2.0, 0.2, 100) == 120


def test_latency_above_the_tolerance_shrinks_it_in_proportion():
    limit = limit_of(start=100, smoothing=1.0, tolerance=1.5)
    window(limit, 1.0, 0.1, 100)
    assert window(limit, 2.0, 0.2, 110) == int(110 * 0.75 + math.sqrt(110))


def test_it_shrinks_to_half_at_most():
    limit = limit_of(start=100, smoothing=1.0)
    window(limit, 1.0, 0.1, 100)
    assert window(limit, 2.0, 50.0, 110) == int(110 * 0.5 + math.sqrt(110))


def test_smoothing_takes_it_a_part_of_the_way():
    limit = limit_of(start=100, smoothing=0.2)
    assert window(limit, 1.0, 0.1, 100) == 102


def test_less_than_half_in_use_moves_nothing():
    limit = limit_of(start=100, smoothing=1.0)
    assert window(limit, 1.0, 0.1, 49) is None
    assert window(limit, 2.0, 5.0, 49) is None


def test_drops_cut_the_gradient_too():
    limit = limit_of(start=100)
    assert window(limit, 1.0, 0.1, 100, dropped=2) == 90
    assert limit.snapshot(1.0).cuts == 1


def test_the_baseline_follows_both_ways_while_nothing_waits():
    limit = limit_of(start=100, baseline_windows=3)
    window(limit, 1.0, 0.1, 10)
    window(limit, 2.0, 0.3, 10)
    assert limit.snapshot(2.0).baseline_s == pytest.approx(0.2)
    window(limit, 3.0, 0.1, 10)
    assert limit.snapshot(3.0).baseline_s == pytest.approx(0.15)


def test_the_baseline_does_not_learn_an_overload():
    limit = limit_of(start=100, baseline_windows=1, probe_s=1e6)
    window(limit, 1.0, 0.1, 100)
    for at in range(2, 500):
        window(limit, at, 0.149, limit.limit)
        window(limit, at + 0.5, 0.3, limit.limit)
    assert limit.snapshot(500.0).baseline_s == pytest.approx(0.1)


def saturated(probe_s: float) -> tuple[AdaptiveLimit, float, int]:
    """A gradient that has just begun to probe, since when, and its limit before."""
    limit = limit_of(start=100, window_s=1.0, probe_s=probe_s)
    window(limit, 1.0, 0.1, 100)
    at, before = 1.0, limit.limit
    while not limit.snapshot(at).is_probing:
        at, before = at + 1.0, limit.limit
        window(limit, at, 0.2, limit.limit)
    return limit, at, before


def test_after_long_above_the_tolerance_half_the_limit_measures_the_baseline_anew():
    limit, at, before = saturated(probe_s=5.0)
    assert at == 6.0
    assert limit.limit == before // 2
    assert window(limit, at + 1.0, 9.9, before) is None  # these began before the probe
    assert window(limit, at + 2.0, 0.15, before // 2) == before
    seen = limit.snapshot(at + 2.0)
    assert seen.baseline_s == pytest.approx(0.15)
    assert not seen.is_probing


def test_a_probe_without_calls_of_its_own_ends_as_well():
    limit, at, before = saturated(probe_s=5.0)
    assert limit.record(0.2, before, "ok", at + 9.9) is None
    assert limit.record(0.2, before, "ok", at + 10.0) == before
    assert limit.snapshot(at + 10.0).baseline_s == pytest.approx(0.1)


# ---- both


@given(
    st.sampled_from(["gradient", "aimd"]),
    st.lists(
        st.tuples(
            st.floats(0.001, 10.0),
            st.integers(1, 200),
            st.sampled_from(["ok", "dropped", "ignored"]),
        ),
        max_size=200,
    ),
)
def test_it_stays_within_its_bounds_and_never_grows_unused(algorithm, calls):
    limit = limit_of(algorithm, start=20, least=5, most=50, window_s=0.1, window_samples=3)
    now = 0.0
    peak = 0
    for took_s, in_flight, outcome in calls:
        now += 0.05
        before = limit.limit
        was_probing = limit.snapshot(now).is_probing
        peak = max(peak, in_flight) if outcome != "ignored" else peak
        moved = limit.record(took_s, in_flight, outcome, now)
        assert moved is None or moved == limit.limit != before
        assert 5 <= limit.limit <= 50
        if limit.limit > before and not was_probing:
            assert peak * 2 >= before
            peak = 0


def test_new_rules_keep_what_was_learnt():
    limit = limit_of(start=100)
    window(limit, 1.0, 0.1, 100)
    assert limit.take_rules(AdaptiveRules(start=20, most=60), 2.0) == 60
    assert limit.snapshot(2.0).baseline_s == pytest.approx(0.1)
    assert limit.take_rules(AdaptiveRules(algorithm="aimd"), 2.0) is None
    assert limit.limit == 60
    assert window(limit, 3.0, 0.6, 60) == 54


@pytest.mark.parametrize(
    "rules, problem",
    [
        ({"least": 0}, "least=0"),
        ({"least": 10, "most": 5}, "least=10 must lie between 1 and most=5"),
        ({"start": 5, "least": 10}, "start=5 lies outside"),
        ({"start": 7, "least": 7, "most": 7}, "cannot adapt"),
        ({"window_s": 0.0}, "window_s=0"),
        ({"window_samples": 0}, "window_samples=0"),
        ({"tolerance": 0.9}, "tolerance=0.9"),
        ({"smoothing": 0.0}, "smoothing=0"),
        ({"baseline_windows": 0}, "baseline_windows=0"),
        ({"probe_s": 0.1}, "probe_s=0.1 is shorter"),
        ({"target_s": 0.0}, "target_s=0"),
        ({"bad_share": 0.0}, "bad_share=0"),
        ({"backoff": 1.0}, "backoff=1"),
    ],
)
def test_senseless_rules_are_refused_in_words(rules, problem):
    (said,) = AdaptiveRules(**rules).problems()
    assert problem in said
    with pytest.raises(ValueError, match="."):
        AdaptiveLimit(AdaptiveRules(**rules), 0.0)


def test_the_defaults_are_sound():
    assert AdaptiveRules().problems() == ()

"""Windows of outcomes, against a list that is counted anew each time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.window import FAILED, OK, SLOW, CallWindow, TimeWindow

OUTCOMES = st.sampled_from([OK, FAILED, SLOW, FAILED | SLOW])


def counted(outcomes):
    return (
        len(outcomes),
        sum(bool(one & FAILED) for one in outcomes),
        sum(bool(one & SLOW) for one in outcomes),
    )


@given(st.integers(1, 12), st.lists(OUTCOMES, max_size=60))
def test_a_window_of_calls_holds_the_last_so_many(size, outcomes):
    window = CallWindow(size)
    for count, outcome in enumerate(outcomes, 1):
        window.add(outcome, 0.0)
        kept = outcomes[max(0, count - size) : count]
        assert (window.calls, window.failed, window.slow) == counted(kept)
        assert window.is_clean == (kept == [OK] * size)


@given(st.integers(1, 12), st.integers(1, 12), st.lists(OUTCOMES, max_size=40), OUTCOMES)
def test_a_resized_window_keeps_the_newest_and_goes_on(size, new_size, outcomes, further):
    window = CallWindow(size)
    for outcome in outcomes:
        window.add(outcome, 0.0)
    resized = window.resized(new_size)
    kept = outcomes[-min(size, new_size) :]
    assert (resized.calls, resized.failed, resized.slow) == counted(kept)
    resized.add(further, 0.0)
    kept = [*kept, further][-new_size:]
    assert (resized.calls, resized.failed, resized.slow) == counted(kept)


# Steps in sixteenths and a bucket of one second: exact in floats.
@given(st.lists(st.tuples(st.integers(0, 60), OUTCOMES), max_size=60))
def test_a_window_of_seconds_holds_its_last_ten_buckets(steps):
    window = TimeWindow(10.0, 100.0)
    now = 100.0
    seen: list[tuple[int, int]] = []
    for step, outcome in steps:
        now += step / 16
        window.add(outcome, now)
        bucket = int(now - 100.0)
        seen.append((bucket, outcome))
        kept = [one for at, one in seen if at > bucket - 10]
        assert (window.calls, window.failed, window.slow) == counted(kept)


def test_a_window_of_seconds_forgets_without_new_calls():
    window = TimeWindow(10.0, 0.0)
    window.add(FAILED, 0.5)
    window.advance(9.9)
    assert window.calls == 1
    window.advance(10.0)
    assert (window.calls, window.failed) == (0, 0)
    window.advance(1e9)
    window.add(SLOW, 1e9)
    assert (window.calls, window.failed, window.slow) == (1, 0, 1)


def test_a_clock_that_does_not_move_is_no_fault():
    window = TimeWindow(1.0, 5.0)
    for _ in range(3):
        window.add(FAILED, 5.0)
    window.advance(4.0)
    assert window.calls == 3


@pytest.mark.parametrize("window", [CallWindow(3), TimeWindow(3.0, 0.0)])
def test_a_fresh_window_is_not_clean(window):
    assert not window.is_clean

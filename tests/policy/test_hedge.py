"""The hedging delay: close to the true percentile, and forgetful."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.hedge import _EVERY, HedgeDelay, HedgeRules


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[math.ceil(share * len(values)) - 1]


def recorded(values: list[float], now: float = 0.0, **rules) -> HedgeDelay:
    delay = HedgeDelay(HedgeRules(**rules), now)
    for value in values:
        delay.record(value, now)
    return delay


@given(
    st.lists(st.floats(0.0005, 90.0), min_size=50, max_size=300),
    st.floats(0.5, 0.99),
)
def test_the_delay_is_within_a_tenth_of_the_true_percentile(values, share):
    got = recorded(values, percentile=share, least_s=0.0).snapshot(0.0).delay_s
    assert got is not None
    true = percentile(values, share)
    assert true / 1.101 <= got <= true * 1.101


def test_a_delay_beyond_the_histogram_is_its_end():
    got = recorded([1e6] * 100).snapshot(0.0).delay_s
    assert got == pytest.approx(100.4, abs=0.1)


def test_it_does_not_hedge_before_it_has_seen_enough():
    delay = recorded([0.1] * 49, minimum_calls=50)
    assert delay.snapshot(0.0).delay_s is None
    delay.record(0.1, 0.0)
    assert delay.snapshot(0.0).delay_s == pytest.approx(0.1, rel=0.1)


def test_the_delay_is_worked_out_every_so_many_records():
    delay = recorded([0.1] * _EVERY, minimum_calls=1)
    assert delay.delay_s(0.0) is None
    delay.record(0.1, 0.0)
    assert delay.delay_s(0.0) is not None


def test_the_delay_is_worked_out_after_an_eighth_of_a_half_life():
    delay = recorded([0.1] * 10, minimum_calls=1, half_life_s=8.0)
    assert delay.delay_s(0.9) is None
    assert delay.delay_s(1.0) is not None


def test_a_call_counts_for_half_after_the_half_life():
    delay = recorded([0.1] * 100, half_life_s=10.0)
    assert delay.snapshot(10.0).calls == pytest.approx(50.0)
    assert delay.snapshot(30.0).calls == pytest.approx(12.5)


def test_after_a_silence_there_is_too_little_left_to_hedge_by():
    delay = recorded([0.1] * 100, minimum_calls=50, half_life_s=10.0)
    assert delay.delay_s(9.0) == pytest.approx(0.1, rel=0.1)
    assert delay.delay_s(12.0) is None


def test_the_first_call_after_a_silence_weighs_as_much_as_the_next():
    delay = HedgeDelay(HedgeRules(minimum_calls=1, percentile=0.5, half_life_s=10.0), 0.0)
    for _ in range(100):
        delay.record(0.1, 0.0)
    for _ in range(3):
        delay.record(5.0, 100.0)
    assert delay.snapshot(100.0).calls == pytest.approx(3.0 + 100 / 2**10)
    assert delay.snapshot(100.0).delay_s == pytest.approx(5.0, rel=0.1)


def test_it_follows_a_service_that_becomes_slower():
    delay = HedgeDelay(HedgeRules(half_life_s=10.0), 0.0)
    now = 0.0
    for took_s in [0.05] * 10_000 + [0.5] * 10_000:
        now += 0.01
        delay.record(took_s, now)
    assert delay.delay_s(now) == pytest.approx(0.5, rel=0.1)


def test_months_of_records_leave_finite_numbers():
    delay = HedgeDelay(HedgeRules(half_life_s=1.0), 0.0)
    rng = Random(1)
    now = 0.0
    for _ in range(20_000):
        now += rng.choice((0.01, 30.0, 700.0, 1e5))
        delay.record(0.1, now)
    for _ in range(100):
        delay.record(0.1, now)
    seen = delay.snapshot(now)
    assert 100.0 <= seen.calls < 300.0
    assert seen.delay_s == pytest.approx(0.1, rel=0.1)


def test_never_sooner_than_the_least():
    assert recorded([0.0002] * 100, least_s=0.004).snapshot(0.0).delay_s == 0.004


def test_a_fixed_delay_needs_no_records():
    delay = HedgeDelay(HedgeRules(after_s=0.25), 0.0)
    assert delay.delay_s(0.0) == 0.25
    for _ in range(1000):
        delay.record(3.0, 0.0)
    assert delay.delay_s(1000.0) == 0.25


def test_new_rules_keep_the_latencies():
    delay = recorded([0.1] * 90 + [1.0] * 10, percentile=0.99)
    delay.take_rules(HedgeRules(percentile=0.5, half_life_s=7.0), 0.0)
    assert delay.delay_s(0.0) == pytest.approx(0.1, rel=0.1)
    assert delay.snapshot(0.0).calls == pytest.approx(100.0)
    delay.take_rules(HedgeRules(after_s=2.0), 1.0)
    assert delay.delay_s(1.0) == 2.0


def test_another_half_life_counts_from_now_on():
    delay = recorded([0.1] * 100, half_life_s=10.0)
    delay.take_rules(HedgeRules(half_life_s=1000.0), 10.0)
    assert delay.snapshot(10.0).calls == pytest.approx(50.0)
    assert delay.snapshot(1010.0).calls == pytest.approx(25.0)


@pytest.mark.parametrize(
    "rules, problem",
    [
        ({"after_s": 0.0}, "after_s=0"),
        ({"percentile": 1.0}, "percentile=1"),
        ({"percentile": 0.3}, "more than half"),
        ({"most": 0}, "most=0"),
        ({"minimum_calls": 0}, "minimum_calls=0"),
        ({"least_s": -1.0}, "least_s=-1"),
        ({"half_life_s": 0.0}, "half_life_s=0"),
    ],
)
def test_senseless_rules_are_refused_in_words(rules, problem):
    (said,) = HedgeRules(**rules).problems()
    assert problem in said
    with pytest.raises(ValueError, match="."):
        HedgeDelay(HedgeRules(**rules), 0.0)


def test_the_defaults_are_sound():
    assert HedgeRules().problems() == ()
    assert HedgeRules(after_s=1.0, percentile=0.1).problems() == ()  # not in use

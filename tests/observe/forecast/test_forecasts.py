"""Forecasts on series whose future is known, and what follows from them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.observe.forecast.filling import full
from headgate.observe.forecast.fitting import Way, continued, shift_of, theil_sen
from headgate.observe.forecast.forecasting import Forecast, TooLittle, forecast
from headgate.observe.forecast.instances import Knee, knee, wanted
from headgate.observe.forecast.planning import Planning, ServicePlan, capacity_rules
from headgate.observe.forecast.regular import Regular, regular
from headgate.observe.query import parse

DAY = 86400.0


def wave(days: int, *, weekend: float = 1.0, growth: float = 0.0, seed: int = 1, noise=0.05):
    rng = np.random.default_rng(seed)
    at = np.arange(days * 24)
    shape = 1.5 + np.sin(2 * np.pi * (at % 24) / 24)
    shape = shape * np.where((at // 24) % 7 >= 5, weekend, 1.0) * (1 + growth * at / 24)
    return 100 * shape * np.exp(rng.standard_normal(len(at)) * noise)


def made(values, days=7.0, **more) -> Forecast:
    found = forecast(Regular(0.0, 3600.0, np.asarray(values, dtype=float)), days * DAY, **more)
    assert isinstance(found, Forecast)
    return found


def test_days_and_weeks_are_continued_and_the_interval_holds_most():
    values = wave(42, weekend=0.5)
    found = made(values[: 35 * 24])
    truth = values[35 * 24 :]
    assert found.way.season == "week"
    assert np.mean(np.abs(found.middle - truth)) < 0.08 * truth.mean()
    assert np.mean((truth >= found.low80) & (truth <= found.high80)) > 0.7
    assert np.mean((truth >= found.low95) & (truth <= found.high95)) > 0.88
    assert found.start == 35 * DAY
    assert found.error < 0.1


def test_growth_is_seen_and_goes_on():
    values = wave(56, growth=0.02, noise=0.03)
    found = made(values[: 42 * 24], days=14)
    truth = values[42 * 24 :]
    assert found.per_day > 0
    assert np.mean(np.abs(found.middle - truth)) < 0.1 * truth.mean()


def test_outages_and_campaigns_move_nothing():
    values = wave(35)
    plain = made(values[: 28 * 24])
    hurt = values[: 28 * 24].copy()
    hurt[200:212] = 0.0
    hurt[450:456] *= 6
    hurt[300:330] = np.nan
    found = made(hurt)
    assert np.mean(np.abs(found.middle - plain.middle)) < 0.05 * plain.middle.mean()


def test_a_series_that_was_moved_at_once_goes_on_at_its_new_level():
    values = wave(42)
    values[15 * 24 :] *= 2
    found = made(values[: 35 * 24])
    truth = values[35 * 24 :]
    assert np.mean(np.abs(found.middle - truth)) < 0.12 * truth.mean()
    assert found.shifted_at == pytest.approx(15 * DAY, abs=1.5 * DAY)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (np.empty(0), "2 days"),
        (wave(1), "2 days"),
        (np.full(100, np.nan), "2 days"),
        (np.where(np.arange(240) % 2, np.nan, 5.0), "missing"),
        (np.concatenate([wave(10), np.full(30, np.nan)]), "last day"),
    ],
    ids=["empty", "a-day", "nothing", "half", "ended"],
)
def test_too_little_is_said_and_nothing_guessed(values, why):
    found = forecast(Regular(0.0, 3600.0, values), 7 * DAY)
    assert isinstance(found, TooLittle)
    assert why in found.why


def test_a_forecast_does_not_reach_farther_than_its_past():
    found = made(wave(3), days=30)
    assert found.reach_s == 3 * DAY
    assert found.asked_s == 30 * DAY


values_of_days = st.lists(
    st.one_of(st.floats(0, 1e12), st.just(float("nan"))), min_size=48, max_size=120
)


@settings(max_examples=25, deadline=None)
@given(values=values_of_days)
def test_intervals_hold_the_middle_and_each_other_whatever_comes(values):
    found = forecast(Regular(0.0, 3600.0, np.array(values)), 2 * DAY)
    if isinstance(found, TooLittle):
        return
    for line in (found.middle, found.low80, found.high80, found.low95, found.high95):
        assert np.isfinite(line).all()
        assert (line >= 0).all()
    assert (found.low95 <= found.low80 + 1e-6 * np.abs(found.low80)).all()
    assert (found.low80 <= found.middle).all()
    assert (found.middle <= found.high80).all()
    assert (found.high80 <= found.high95 + 1e-6 * np.abs(found.high95)).all()


def test_a_constant_stays_what_it_is():
    found = made(np.full(240, 7.0))
    assert found.middle == pytest.approx(np.full(len(found.middle), 7.0))
    assert found.high95 == pytest.approx(found.middle)
    zero = made(np.zeros(240))
    assert not zero.middle.any()


@given(st.floats(-100, 100), st.floats(-5, 5), st.integers(5, 60))
def test_theil_sen_finds_a_line_through_outliers(level, slope, count):
    values = level + slope * np.arange(count)
    values[count // 2] += 1e6
    assert theil_sen(values) == pytest.approx(slope, abs=0.35 * abs(slope) + 1e-6)


def test_a_trend_is_no_shift():
    rng = np.random.default_rng(3)
    assert shift_of(np.arange(40.0) + rng.standard_normal(40) * 0.3)[0] == 0
    moved = np.concatenate([np.full(20, 10.0), np.full(20, 30.0)]) + rng.standard_normal(40)
    place, size = shift_of(moved)
    assert place == 20
    assert size == pytest.approx(20, abs=4)


def test_every_way_continues_a_day():
    for season in ("none", "day", "week"):
        for trend in ("none", "damped", "straight", "recent"):
            for level in ("steady", "now"):
                way = Way("plain", season, trend, level)
                assert np.isfinite(continued(wave(22), 48, way)).all()


# -- full ---------------------------------------------------------------------------------------


def disk(days, pace=1.0):
    rng = np.random.default_rng(5)
    return 100 + np.cumsum(np.maximum(0, rng.normal(pace / 24, 0.02, days * 24)))


def test_a_disk_that_fills_is_full_when_it_will_be():
    values = disk(60)
    found = made(values[: 30 * 24], days=30)
    limit = float(values[40 * 24])
    said = full(found, limit, now=float(values[30 * 24 - 1]))
    assert said.likely_s == pytest.approx(10 * DAY, rel=0.15)
    assert said.soonest_s is not None and said.likely_s is not None
    assert said.soonest_s <= said.likely_s
    assert said.latest_s is None or said.latest_s >= said.likely_s


def test_what_is_full_is_full_now_and_what_is_not_says_nothing():
    found = made(np.full(240, 50.0))
    assert full(found, 40.0, now=50.0).likely_s == 0.0
    never = full(found, 60.0, now=50.0)
    assert (never.likely_s, never.soonest_s, never.latest_s) == (None, None, None)


# -- instances ----------------------------------------------------------------------------------


def test_the_knee_is_where_durations_leave_the_target():
    rng = np.random.default_rng(2)
    rates = rng.uniform(5, 100, 2000)
    took = 0.05 / np.maximum(0.02, 1 - rates / 110) * np.exp(rng.standard_normal(2000) * 0.1)
    found = knee(rates, took, 0.2)
    assert found is not None
    assert found.is_seen
    assert found.per_s == pytest.approx(110 * (1 - 0.05 / 0.2), rel=0.1)
    line = [value for _, value in found.curve]
    assert line == sorted(line)


@pytest.mark.parametrize("count", [0, 5, 23])
def test_few_stretches_say_nothing_of_an_instance(count):
    assert knee(np.ones(count), np.ones(count), 1.0) is None


def test_a_limit_that_was_never_seen_is_a_lower_bound():
    rng = np.random.default_rng(2)
    found = knee(rng.uniform(1, 20, 500), np.full(500, 0.02), 0.5)
    assert found is not None
    assert not found.is_seen
    assert found.per_s == pytest.approx(19.6, abs=0.5)
    assert knee(rng.uniform(1, 20, 500), np.full(500, 0.9), 0.5) is None


@pytest.mark.parametrize(
    ("peak", "headroom", "spare", "expected"),
    [(100, 0.0, 0, 2), (100, 0.3, 0, 3), (100, 0.3, 1, 4), (0, 0.3, 1, 2), (50, 0.0, 0, 1)],
)
def test_instances_are_enough_with_some_to_spare(peak, headroom, spare, expected):
    assert wanted(peak, Knee(50.0, True, ()), headroom=headroom, spare=spare).instances == expected


# -- values -------------------------------------------------------------------------------------


def test_samples_become_means_of_hours():
    found = regular(
        np.array([0.0, 10.0, 3600.0, 9000.0, -5.0]),
        np.array([1.0, 3.0, 5.0, np.nan, 9.0]),
        0.0,
        10800.0,
        3600.0,
    )
    assert found.values[:2].tolist() == [2.0, 5.0]
    assert np.isnan(found.values[2])
    assert found.end == 10800.0


def test_rules_on_what_will_be_full_can_be_read_and_switched_off():
    rules = capacity_rules(Planning())
    assert [rule.name for rule in rules] == ["capacity-disk", "capacity-memory"]
    assert all(parse(rule.expr) for rule in rules)
    assert capacity_rules(Planning(disk_s=0.0, memory_s=0.0)) == []
    plan = Planning(headroom=0.5, services=(ServicePlan("a", 0.1),))
    assert plan.of("a").latency_s == 0.1
    assert plan.of("b").headroom == 0.5

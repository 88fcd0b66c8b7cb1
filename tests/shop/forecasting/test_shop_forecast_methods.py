from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest

from headgate_shop.data import SeedSize
from headgate_shop.data.history import history
from headgate_shop.forecasting.choosing import COVERAGE, HORIZON, forecast_all
from headgate_shop.forecasting.methods import WAYS, Past, shop_weeks
from headgate_shop.forecasting.reckoning import share_gone
from headgate_shop.forecasting.running_out import lasting

DAYS = 150
BY_NAME = {way.name: way for way in WAYS}


def past_of(sales, weekday=0):
    sales = np.asarray(sales, dtype=float)
    is_sale = sales > 0
    begins = np.where(is_sale.any(axis=1), np.argmax(is_sale, axis=1), sales.shape[1])
    return Past(sales, begins.astype(np.intp), shop_weeks(sales.sum(axis=0), weekday), weekday)


def forecast_one(row, sold_today=0.0, gone=0.0):
    return forecast_all(past_of([row]), np.array([sold_today]), gone)[0]


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_what_never_changes_is_continued_as_it_is(name):
    past = past_of(np.full((2, 70), 4.0))
    found = BY_NAME[name].guess(past, [40, 70], 14)
    assert found.shape == (2, 2, 14)
    assert found == pytest.approx(np.full((2, 2, 14), 4.0), rel=0.06)


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_no_way_looks_beyond_its_origin(name):
    rng = np.random.default_rng(1)
    one = rng.poisson(3.0, (3, 90)).astype(float)
    other = one.copy()
    other[:, 60:] = 50
    weeks = shop_weeks(one.sum(axis=0), 2)
    begins = np.zeros(3, dtype=np.intp)
    guesses = []
    for sales in (one, other):
        known = np.concatenate([weeks[:61], np.ones((30, 7))]) if sales is other else weeks
        guesses.append(BY_NAME[name].guess(Past(sales, begins, known, 2), [60], 10))
    assert np.array_equal(guesses[0], guesses[1])


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_no_way_expects_less_than_nothing(name):
    rng = np.random.default_rng(2)
    sales = rng.poisson(0.2, (5, 100)).astype(float)
    sales[:, 50:] = 0
    assert (BY_NAME[name].guess(past_of(sales), [100], HORIZON) >= 0).all()


def test_a_week_is_found_and_continued():
    week = [2, 2, 2, 3, 6, 14, 10]
    rng = np.random.default_rng(3)
    row = rng.poisson(np.tile(week, 20)).astype(float)
    found = forecast_one(row)
    expected = np.array(found.expected[:14])
    assert expected[5] > 2.5 * expected[1]
    assert expected.sum() == pytest.approx(2 * sum(week), rel=0.2)
    assert found.error < found.naive_error


def test_a_step_up_is_followed():
    rng = np.random.default_rng(4)
    row = np.concatenate([rng.poisson(2.0, 90), rng.poisson(8.0, 60)]).astype(float)
    assert np.mean(forecast_one(row).expected) > 6


def test_what_sells_now_and_then_is_expected_in_parts():
    rng = np.random.default_rng(5)
    row = (rng.random(150) < 0.1).astype(float) * 2
    found = forecast_one(row)
    assert 0.08 < np.mean(found.expected) < 0.4
    assert found.low[3] == 0


def test_sales_of_today_move_today_and_the_days_after_it():
    rng = np.random.default_rng(6)
    row = rng.poisson(3.0, 120).astype(float)
    before, after = forecast_one(row, 0, 0.3), forecast_one(row, 12, 0.3)
    assert after.expected[0] == pytest.approx(before.expected[0] + 12, abs=0.01)
    assert after.expected[1] > before.expected[1]
    assert after.low[0] >= 12
    whole = forecast_one(row, 5, 1.0)
    assert (whole.low[0], whole.expected[0], whole.high[0]) == (5, 5, 5)


def test_a_young_product_has_its_mean_and_the_spread_of_chance():
    row = np.zeros(60)
    row[50:] = 3
    found = forecast_one(row)
    assert (found.method, found.error) == ("mean", None)
    assert found.expected[5] == pytest.approx(3, rel=0.01)
    assert found.low[5] <= 1 and found.high[5] >= 5
    nothing = forecast_one(np.zeros(60))
    assert (nothing.method, nothing.expected[0]) == ("nothing sold yet", 0)


def test_intervals_cover_what_they_say_on_days_that_were_not_seen():
    """The stated coverage, over some hundred products and three fortnights of a made-up past."""
    size = SeedSize(products=220, customers=200, days=DAYS, orders_per_day=110)
    today = date(2026, 7, 1)
    first = today - timedelta(days=DAYS)
    sales = np.zeros((size.products, DAYS))
    for order in history(size, today=today):
        for line in order.lines if order.is_sale else ():
            day = (order.placed_at.date() - first).days
            sales[int(line.product_id[2:]) - 1, day] += line.quantity
    inside, better = [], []
    for end in (DAYS - 42, DAYS - 28, DAYS - 14):
        past = past_of(sales[:, :end], first.weekday())
        truth = sales[:, end : end + 14]
        made = forecast_all(past, np.zeros(size.products), 0.0)
        low = np.array([one.low[:14] for one in made])
        high = np.array([one.high[:14] for one in made])
        expected = np.array([one.expected[:14] for one in made])
        sells = past.sales[:, -28:].mean(axis=1) > 0.5
        inside.append(((truth >= low) & (truth <= high))[sells])
        naive = np.abs(truth - np.tile(past.sales[:, -7:], 2))[sells].mean()
        better.append(np.abs(truth - expected)[sells].mean() / naive)
    covered = np.concatenate(inside).mean()
    assert COVERAGE <= covered <= 0.97
    assert max(better) < 0.95


def test_a_table_without_days_is_no_error():
    past = Past(np.zeros((2, 5)), np.full(2, 5, dtype=np.intp), np.ones((6, 7)), 0)
    found = forecast_all(past, np.array([0.0, 3.0]), 0.5)
    assert [one.method for one in found] == ["nothing sold yet", "mean"]


@pytest.mark.parametrize(
    ("wall", "share"),
    [(0.0, 0.0), (43200.0, 0.5), (86399.0, 1.0), (86400 * 3 + 21600.0, 0.25)],
    ids=["midnight", "noon", "end", "six"],
)
def test_the_day_goes_by_its_hours(wall, share):
    assert share_gone((1.0,) * 24, wall) == pytest.approx(share, abs=0.001)
    assert share_gone((0.0,) * 24, wall) == pytest.approx(share, abs=0.001)
    evening = (0.0,) * 20 + (1.0,) * 4
    assert share_gone(evening, 43200.0) == 0


@pytest.mark.parametrize(
    ("stock", "days"),
    [(0, 0.0), (1, 0.5), (4, 2.0), (5, 2.5), (99, None)],
    ids=["none", "half", "two", "part", "plenty"],
)
def test_stock_lasts_until_the_sums_reach_it(stock, days):
    found = lasting(stock, [2.0] * 7, [3.0 * day for day in range(1, 8)])
    assert found.days == days
    assert found.expected == 14


def test_what_was_sold_today_has_left_the_stock_already():
    found = lasting(3, [4.0, 2.0, 2.0], [5.0, 8.0, 11.0], sold_today=3.0)
    assert found.days == 2.0
    assert found.days_at_least == 1.3

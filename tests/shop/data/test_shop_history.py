from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import combinations

import pytest

from headgate_shop.data import TINY, SeedSize
from headgate_shop.data.catalogue import catalogue
from headgate_shop.data.history import companions, history

TODAY = date(2026, 7, 1)
SIZE = SeedSize(products=200, customers=100, days=84, orders_per_day=40)


@pytest.fixture(scope="module")
def past():
    return list(history(SIZE, today=TODAY))


def test_the_same_seed_gives_the_same_orders_and_another_gives_others(past):
    assert list(history(SIZE, today=TODAY)) == past
    assert list(history(SIZE, today=TODAY, seed=2)) != past


def test_orders_come_in_time_and_the_last_is_before_today(past):
    times = [order.placed_at for order in past]
    assert times == sorted(times)
    assert times[0] >= datetime(2026, 7, 1, tzinfo=UTC) - timedelta(days=84)
    assert times[-1] < datetime(2026, 7, 1, tzinfo=UTC)
    assert len({order.order_id for order in past}) == len(past)


def test_every_line_is_of_a_product_at_its_price_or_less(past):
    items = {item.id: item for item in catalogue(SIZE.products)}
    for order in past:
        assert order.lines
        assert len({line.product_id for line in order.lines}) == len(order.lines)
        for line in order.lines:
            item = items[line.product_id]
            assert 0 < line.price <= item.price
            assert line.quantity > 0
            assert (line.name, line.category) == (item.name, item.category)


def test_weekends_and_evenings_sell_more(past):
    weekdays = Counter(order.placed_at.weekday() for order in past)
    assert weekdays[5] > 1.15 * weekdays[1]
    hours = Counter(order.placed_at.hour for order in past)
    assert hours[20] > 5 * hours[4]


def test_a_few_products_sell_much_and_most_a_little(past):
    units: Counter[str] = Counter()
    for order in past:
        for line in order.lines:
            units[line.product_id] += line.quantity
    ranked = [count for _, count in units.most_common()]
    assert sum(ranked[:20]) > 0.35 * sum(ranked)
    assert len(ranked) > 100


def test_companions_are_bought_together_more_often_than_by_chance(past):
    items = catalogue(SIZE.products)
    pairs = {
        tuple(sorted((items[place].id, items[other].id)))
        for place, others in enumerate(companions(items))
        for other in others
    }
    together: Counter[bool] = Counter()
    for order in past:
        ids = sorted(line.product_id for line in order.lines)
        together.update(pair in pairs for pair in combinations(ids, 2))
    assert together[True] > 0.15 * together[False]


def test_customers_come_back_and_those_who_can_sign_in_are_among_them(past):
    by_customer = Counter(order.customer_id for order in past)
    assert sum(count > 5 for count in by_customer.values()) > 50
    assert sum(customer.startswith("a") for customer in by_customer) == 2


def test_most_orders_are_sales_and_some_are_not(past):
    kinds = Counter(order.status for order in past)
    assert set(kinds) == {"paid", "shipped", "cancelled", "refused"}
    assert sum(order.is_sale for order in past) > 0.9 * len(past)
    newest = TODAY - timedelta(days=3)
    assert all(o.placed_at.date() >= newest for o in past if o.status == "paid")


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(SeedSize(0, 0, 10, 5), id="nothing"),
        pytest.param(SeedSize(5, 0, 0, 5), id="no-days"),
        pytest.param(SeedSize(1, 1, 3, 0), id="no-orders"),
    ],
)
def test_a_shop_without_something_has_no_past(size):
    assert list(history(size, today=TODAY)) == []


def test_the_smallest_shop_has_a_past_too():
    assert list(history(SeedSize(1, 1, 5, 3), today=TODAY))
    assert len(list(history(TINY, today=TODAY))) > 30

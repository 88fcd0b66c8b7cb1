from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate_shop.analytics.companions import evidence, ranked
from headgate_shop.analytics.events import Gathering, seen_of
from headgate_shop.analytics.reckoning import ALL, PAIRED_MAX, Line, Seen, Sold, Sums
from headgate_shop.analytics.span import last_days

NOON = 1_767_268_800.0  # 2026-01-01T12:00:00Z

LINES = st.lists(
    st.builds(
        Line,
        product_id=st.sampled_from("abcdef"),
        quantity=st.integers(1, 9),
        price=st.integers(0, 10_000),
        category=st.sampled_from(["kitchen", "garden"]),
    ),
    min_size=1,
    max_size=8,
)
ORDERS = st.lists(st.tuples(st.floats(0, 10 * 86400), LINES), max_size=8)


@given(ORDERS)
def test_what_is_taken_and_given_back_leaves_nothing(orders):
    sums = Sums()
    for sign in (1, -1):
        for at, lines in orders:
            sums.take(Sold(at, sum(line.total for line in lines), tuple(lines)), sign)
    for table in (sums.hours, sums.products, sums.categories, sums.funnel):
        assert not any(any(change) for change in table.values())
    assert not any(sums.baskets.values())
    assert not any(sums.pairs.values())


@given(ORDERS)
def test_products_and_categories_add_up_to_the_whole(orders):
    sums = Sums()
    for at, lines in orders:
        sums.take(Sold(at, sum(line.total for line in lines), tuple(lines)))
    whole = [sum(row[place] for row in sums.hours.values()) for place in range(3)]
    assert whole[0] == len(orders) == sums.baskets.get(ALL, 0)
    assert whole[1] == sum(row[1] for row in sums.products.values())
    assert whole[2] == sum(row[1] for row in sums.categories.values())
    assert all(sums.pairs[b, a] == times for (a, b), times in sums.pairs.items())


def test_pairs_of_a_huge_order_are_bounded():
    sums = Sums()
    lines = tuple(Line(f"p{number}", 1, 1) for number in range(500))
    sums.take(Sold(NOON, 500, lines))
    assert len(sums.pairs) == PAIRED_MAX * (PAIRED_MAX - 1)
    assert len(sums.products) == 500


def test_companions_are_ordered_by_evidence_and_chance_is_left_out():
    others = [
        ("rare", 2, 2),  # always together, and twice only
        ("good", 30, 60),
        ("common", 10, 500),  # as often as by chance
        ("once", 1, 1),
    ]
    found = ranked(1000, 100, others, most=8)
    assert [one.product_id for one in found] == ["good", "rare"]
    assert found[0].lift == pytest.approx(5.0)
    assert ranked(0, 0, others, most=8) == []
    assert ranked(1000, 5, [("odd", 9, 4)], most=8) == []  # counts that cannot be are left out


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_evidence_is_never_negative_nor_without_end(both, one, other, neither):
    baskets = both + one + other + neither
    found = evidence(both, both + one, both + other, baskets)
    assert math.isfinite(found)
    assert found >= -1e-9


def test_a_span_is_compared_with_the_same_hours_before():
    now, before = last_days(7, NOON)
    assert (now.first, now.last, now.hour) == ("2025-12-26", "2026-01-01", 12)
    assert (before.first, before.last, before.hour) == ("2025-12-19", "2025-12-25", 12)
    assert len(now.days()) == 7


@pytest.mark.parametrize(
    "at", [NOON - 90 * 86400, NOON + 3600, -1e300, 1e300], ids=["old", "ahead", "low", "high"]
)
def test_a_browser_with_a_wrong_clock_counts_for_now(at):
    from headgate_shop.analytics.events import Event

    assert seen_of(Event(type="view", session="s", at=at), NOON).at == NOON


@pytest.mark.anyio
async def test_events_wait_for_a_database_that_is_away_and_their_number_is_bounded(monkeypatch):
    from headgate_shop.analytics import events

    monkeypatch.setattr(events, "WAITING_MAX", 3)
    is_away = True
    written = []

    async def write(some):
        if is_away:
            raise OSError("away")
        written.extend(some)

    gathering = Gathering(write)
    assert gathering.try_add([Seen("view", NOON, "s")] * 3)
    assert not gathering.try_add([Seen("view", NOON, "s")])
    await gathering.flush()
    assert (gathering.waiting, written) == (3, [])
    is_away = False
    await gathering.flush()
    assert (gathering.waiting, len(written)) == (0, 3)


@pytest.fixture
def anyio_backend():
    return "asyncio"

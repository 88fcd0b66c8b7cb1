"""Repeats are counted and said once; levels end by themselves. Pure."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.observe.logs.levels import LevelOrder, Levels
from headgate.observe.logs.repeats import Repeats
from headgate.observe.logs.rules import RepeatRules, level_name, level_number

PLACE = ("shop", 30, "slow")


def test_the_first_few_are_written_and_the_rest_is_said_once():
    repeats = Repeats(RepeatRules(most=3, within_s=10))
    assert [repeats.admits(PLACE, 0.1 * n) for n in range(6)] == [True] * 3 + [False] * 3
    assert list(repeats.due(5.0)) == []
    (said,) = repeats.due(10.0)
    assert (said.place, said.more) == (PLACE, 3)
    assert list(repeats.due(11.0)) == []


def test_a_line_after_the_window_begins_another():
    repeats = Repeats(RepeatRules(most=1, within_s=10))
    assert repeats.admits(PLACE, 0) and not repeats.admits(PLACE, 1)
    assert repeats.admits(PLACE, 10)
    assert [said.more for said in repeats.due(10)] == [1]


def test_a_clock_that_jumps_back_ends_the_window():
    repeats = Repeats(RepeatRules(most=1, within_s=10))
    assert repeats.admits(PLACE, 100) and repeats.admits(PLACE, 5)


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.floats(0, 3, allow_nan=False)), min_size=1, max_size=300
    )
)
def test_every_line_is_written_or_told_and_places_are_bounded(steps):
    repeats = Repeats(RepeatRules(most=2, within_s=5, places=8))
    now = 0.0
    written = told = 0
    for which, step in steps:
        now += step
        written += repeats.admits(("l", 30, str(which)), now)
        assert len(repeats._windows) <= 8
        told += sum(said.more for said in repeats.due(now))
    told += sum(said.more for said in repeats.due(now, all_of_them=True))
    assert written + told == len(steps)


@pytest.mark.parametrize(
    ("name", "number"), [("debug", 10), ("WARN", 30), ("fatal", 50), (" info ", 20)]
)
def test_levels_have_names(name, number):
    assert level_number(name) == number


def test_a_level_that_is_none_says_what_there_is():
    with pytest.raises(ValueError, match="there are debug, info"):
        level_number("loud")
    assert [level_name(number) for number in (0, 25, 39, 45, 99)] == [
        "debug",
        "info",
        "warning",
        "error",
        "critical",
    ]


def test_an_order_covers_the_rules_until_its_time_is_over():
    levels = Levels()
    levels.take(logging.INFO, {"test_log.a": logging.ERROR})
    levels.order(LevelOrder("test_log.a", logging.DEBUG, until=100.0))
    assert levels.effective()["test_log.a"] == logging.DEBUG
    assert not levels.expire(99.9)
    assert levels.expire(100.0)
    assert levels.effective()["test_log.a"] == logging.ERROR


def test_orders_are_bounded_and_outlive_rules():
    levels = Levels()
    for number in range(200):
        levels.order(LevelOrder(f"test_log.{number}", 10))
    with pytest.raises(ValueError, match="take some back"):
        levels.order(LevelOrder("one.more", 10))
    levels.take(logging.WARNING, {})
    assert len(levels.orders) == 200
    levels.take_back()
    assert levels.effective() == {"": logging.WARNING}

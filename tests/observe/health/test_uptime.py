"""Uptime by day: what is known, what is not, and what clocks may do."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.observe.health.uptime import DAY_S, Day, Uptime, day_of, pieces_by_day

NOON = 20_000 * DAY_S + DAY_S / 2


def looked(steps, *, every_s=30.0, slack_s=10.0) -> Uptime:
    """`steps` are (seconds since the look before, status)."""
    uptime = Uptime(every_s, slack_s)
    now, wall = 1000.0, NOON
    for gone_s, status in steps:
        now, wall = now + gone_s, wall + gone_s
        uptime.saw(status, 0.1, now, wall)
    return uptime


def only(uptime: Uptime) -> Day:
    (day,) = uptime.days.values()
    return day


def test_a_finding_holds_until_the_next_look():
    day = only(looked([(0, "ok"), (30, "failing"), (30, "degraded"), (30, "ok")]))
    assert (day.up_s, day.down_s, day.degraded_s) == (60, 30, 30)
    assert day.uptime == pytest.approx(2 / 3)
    assert (day.checks, day.failures) == (4, 1)


def test_time_in_which_nobody_looked_is_unknown():
    uptime = looked([(0, "ok"), (600, "ok")])
    assert only(uptime).up_s == 30
    assert only(uptime).unknown_s(NOON + 600) == pytest.approx(DAY_S / 2 + 570)


def test_before_the_first_look_and_after_a_restart_nothing_is_known():
    uptime = looked([(0, "failing")])
    assert only(uptime).known_s == 0
    assert only(uptime).uptime is None
    uptime.pause()
    uptime.saw("ok", 0.1, 5.0, NOON + 3600)  # another life: its clock began anew
    assert only(uptime).known_s == 0


def test_a_stretch_over_midnight_is_in_both_days():
    assert list(pieces_by_day(2 * DAY_S - 10, 2 * DAY_S + 20)) == [(1, 10), (2, 20)]
    uptime = Uptime(60.0, 10.0)
    uptime.saw("ok", 0.1, 0.0, 5 * DAY_S - 20)
    uptime.saw("ok", 0.1, 60.0, 5 * DAY_S + 40)
    assert (uptime.days[4].up_s, uptime.days[5].up_s) == (20, 40)


def test_a_clock_that_is_set_makes_nothing_longer():
    uptime = Uptime(30.0, 10.0)
    uptime.saw("failing", 0.1, 0.0, NOON)
    uptime.saw("ok", 0.1, 30.0, NOON + 400 * DAY_S)
    assert sum(day.down_s for day in uptime.days.values()) == 30


def test_the_end_counts_what_has_gone_by():
    uptime = looked([(0, "ok")])
    uptime.until(1012.0, NOON + 12)
    assert only(uptime).up_s == 12
    uptime.until(1015.0, NOON + 15)
    assert only(uptime).up_s == 12


def test_days_beyond_those_to_keep_go():
    uptime = Uptime(DAY_S, DAY_S, keep_days=3)
    for number in range(10):
        uptime.saw("ok", 0.1, number * DAY_S, NOON + number * DAY_S)
    assert sorted(uptime.days) == [day_of(NOON) + number for number in (7, 8, 9)]


def test_response_times_are_those_of_answers():
    uptime = looked([(0, "ok"), (30, "failing"), (30, "ok")])
    assert only(uptime).times.count == 2
    assert uptime.over(1, NOON + 60).times.quantile(0.5) == pytest.approx(0.1, rel=0.01)


@given(
    st.lists(
        st.tuples(st.floats(0, 500), st.sampled_from(["ok", "degraded", "failing", "unknown"])),
        max_size=40,
    ),
    st.floats(0, 1e9),
)
def test_a_day_never_has_more_than_a_day_and_survives_being_written(steps, wall):
    uptime, now = Uptime(30.0, 10.0), 0.0
    for gone_s, status in steps:
        now, wall = now + gone_s, wall + gone_s
        uptime.saw(status, gone_s / 100, now, wall)
    for day in uptime.days.values():
        assert 0 <= day.known_s <= DAY_S + 1e-6
        assert day.degraded_s <= day.up_s + 1e-6
        assert day.unknown_s(wall) >= 0
        again = Day.of_json(day.day, json.loads(json.dumps(day.to_json())))
        assert again.to_json() == day.to_json()


@pytest.mark.parametrize(
    "said", [None, [], {}, {"up": "x"}, {**Day(1).to_json(), "bins": [[1]]}], ids=range(5)
)
def test_a_day_that_was_never_written_so_is_refused(said):
    with pytest.raises((ValueError, TypeError, KeyError)):
        Day.of_json(1, said)

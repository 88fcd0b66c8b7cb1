"""Shedding: what begins it, what ends it, and whom it hits.

How well it does as a whole is in `test_overload_simulation.py`.
"""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.answers import Rejected
from headgate.policy.shed import PRIORITIES, Shedder, ShedRules

TICK_S = 0.05


class Worker:
    """A shedder with the timer of its worker."""

    def __init__(self, **rules) -> None:
        self.shedder = Shedder(ShedRules(**rules), 0.0)
        self.now = 0.0
        self.in_flight = 0

    def ticks(
        self,
        count: int,
        lag_s: float = 0.0,
        queue_s: float | None = None,
        asked: dict[int, int] | None = None,
        is_busy: bool = True,
    ) -> list[float]:
        """So many ticks, with calls asked for evenly before each; the shares that were admitted.

        What is admitted is also finished by the next tick.
        """
        asked = asked or {}
        let_in = dict.fromkeys(asked, 0)
        for _ in range(count):
            total = sum(asked.values())
            done = 0
            for priority, calls in asked.items():
                for _ in range(calls):
                    done += 1
                    at = self.now + TICK_S * done / (total + 1)
                    if self.shedder.admit(priority, at, self.in_flight) is None:
                        let_in[priority] += 1
            self.now += TICK_S
            if queue_s is not None:
                self.shedder.waited(queue_s, self.now)
            self.shedder.tick(self.now, lag_s, self.in_flight, is_busy=is_busy)
        return [let_in[priority] / (asked[priority] * count) for priority in asked]

    def overload(self) -> None:
        """Two hundred calls a second are what it can do; shedding begins."""
        self.ticks(10, lag_s=0.1, asked={2: 10})
        assert self.shedder.is_shedding


# ---- beginning


def test_an_idle_worker_admits_everybody():
    worker = Worker()
    assert worker.ticks(100, asked=dict.fromkeys(range(5), 100)) == [1.0] * 5
    assert not worker.shedder.is_shedding


@pytest.mark.parametrize("lag_s, sheds", [(0.019, False), (0.02, False), (0.021, True)])
def test_lag_that_stands_above_its_target_begins_it(lag_s, sheds):
    worker = Worker()
    worker.ticks(10, lag_s=lag_s, asked={2: 10})
    assert worker.shedder.is_shedding is sheds


@pytest.mark.parametrize("queue_s, sheds", [(0.1, False), (0.101, True)])
def test_so_does_a_line_in_which_everybody_waits(queue_s, sheds):
    worker = Worker()
    worker.ticks(6, queue_s=queue_s, asked={2: 10})
    assert worker.shedder.is_shedding is sheds


def test_one_that_need_not_wait_shows_that_no_delay_stands():
    worker = Worker()
    for _ in range(20):
        worker.ticks(3, queue_s=5.0, asked={2: 10})
        worker.ticks(1, queue_s=0.0, asked={2: 10})
    assert not worker.shedder.is_shedding


def test_an_interval_without_waits_has_no_delay():
    worker = Worker()
    worker.ticks(3, queue_s=5.0)
    worker.ticks(100)
    assert not worker.shedder.is_shedding
    assert worker.shedder.snapshot(worker.now).queue_s == 0.0


def test_one_late_tick_is_not_a_delay_that_stands():
    worker = Worker()
    for between in range(1, 12):
        worker.now += 0.5
        worker.shedder.tick(worker.now, 0.45, 0)  # a pause of half a second
        worker.ticks(between)
        assert not worker.shedder.is_shedding


def test_a_loop_that_never_comes_round_to_its_timer_is_noticed_by_admit():
    worker = Worker()
    worker.ticks(4, asked={2: 10})
    at = worker.now
    while at < worker.now + 0.5:
        at += 0.001
        worker.shedder.admit(2, at, 0)
    assert worker.shedder.is_shedding
    assert worker.shedder.snapshot(at).lag_s > 0.1


def test_a_worker_that_does_not_tick_admits_everybody():
    shedder = Shedder(ShedRules(), 0.0)
    assert all(shedder.admit(4, at / 10, 0) is None for at in range(10_000))


# ---- shedding


def test_most_important_first():
    worker = Worker()
    worker.overload()
    worker.ticks(10, lag_s=0.015, asked={0: 2, 1: 3, 2: 10, 3: 10, 4: 10})
    critical, high, normal, low, background = worker.ticks(
        40, lag_s=0.015, asked={0: 2, 1: 3, 2: 10, 3: 10, 4: 10}
    )
    assert critical == high == 1.0
    assert 0.25 < normal < 0.55
    assert low == background == 0.0
    accepted = worker.shedder.snapshot(worker.now).accepted
    assert accepted[:2] == (1.0, 1.0)
    assert accepted[3:] == (0.0, 0.0)


def test_what_is_admitted_is_what_was_finished_less_a_little():
    worker = Worker()
    worker.overload()
    (share,) = worker.ticks(100, lag_s=0.015, asked={2: 30})
    assert 30 / TICK_S * share == pytest.approx(10 / TICK_S, rel=0.15)


def test_a_burst_of_critical_calls_overdraws_the_bucket():
    worker = Worker()
    worker.overload()
    worker.ticks(20, lag_s=0.015, asked={0: 5, 2: 30})
    burst = [worker.shedder.admit(0, worker.now + 0.001, 0) for _ in range(10)]
    assert burst == [None] * 10


def test_a_load_that_comes_all_at_once_is_stopped_before_the_next_tick():
    worker = Worker()
    worker.overload()
    worker.ticks(20, lag_s=0.015, asked={2: 9})
    admitted = sum(worker.shedder.admit(2, worker.now + 0.001, 0) is None for _ in range(1000))
    assert admitted <= 16


def test_the_critical_alone_can_be_too_much():
    worker = Worker()
    worker.overload()
    worker.ticks(20, lag_s=0.015, asked={0: 30})
    (share,) = worker.ticks(20, lag_s=0.015, asked={0: 30})
    assert 0.2 < share < 0.5


def test_those_turned_away_are_told_when_to_come_back():
    worker = Worker(retry_after_s=7.0)
    worker.overload()
    worker.ticks(10, lag_s=0.015, asked={2: 100})
    assert worker.shedder.admit(4, worker.now, 0) == Rejected("shed", "overload", 7.0)
    assert worker.shedder.snapshot(worker.now).rejected[4] == 1


def test_a_standing_line_is_worked_off():
    """What stands in a line has been admitted already; so much less may follow."""
    worker = Worker()
    worker.ticks(6, queue_s=0.6, asked={2: 10})
    seen = worker.shedder.snapshot(worker.now)
    assert seen.rate_per_s == pytest.approx(10 / TICK_S * 0.98 * 0.5, rel=0.3)


def test_calls_that_take_long_do_not_pass_for_a_worker_that_does_nothing():
    worker = Worker()
    for _ in range(10):
        worker.in_flight += 10  # none has finished yet
        worker.ticks(1, lag_s=0.03, asked={2: 10})
    rate = worker.shedder.snapshot(worker.now).rate_per_s
    assert rate is not None
    assert rate > 10 / TICK_S / 2.5


def test_what_is_asked_for_is_what_comes_in_and_not_what_is_read():
    """Falling behind by half of each tick, the loop reads half of what comes in."""
    worker = Worker()
    worker.overload()
    lag_s = 0.1
    for _ in range(40):
        lag_s += TICK_S / 2
        worker.ticks(1, lag_s=lag_s, asked={2: 30})
    seen = worker.shedder.snapshot(worker.now)
    assert seen.rate_per_s is not None
    assert seen.accepted[2] == pytest.approx(seen.rate_per_s / (2 * 30 / TICK_S), rel=0.03)


# ---- ending


def test_it_ends_by_itself_when_the_load_has_gone():
    worker = Worker(calm_s=1.0)
    worker.overload()
    since = worker.now
    while worker.shedder.is_shedding:
        worker.ticks(1, asked={2: 1})
    assert 1.0 <= worker.now - since <= 2.0
    assert worker.shedder.snapshot(worker.now).accepted == (1.0,) * 5
    assert worker.shedder.admit(4, worker.now, 0) is None


def test_without_any_calls_it_ends_as_well():
    worker = Worker()
    worker.overload()
    worker.ticks(40)
    assert not worker.shedder.is_shedding


@pytest.mark.parametrize("calm_s", [0.0, 1.0])
def test_it_does_not_end_while_anybody_is_turned_away(calm_s):
    worker = Worker(calm_s=calm_s)
    worker.overload()
    worker.ticks(20, asked={2: 40})
    assert worker.shedder.is_shedding


def test_between_half_the_target_and_the_target_the_rate_is_held():
    worker = Worker()
    worker.overload()
    rate = worker.shedder.snapshot(worker.now).rate_per_s
    worker.ticks(100, lag_s=0.015, asked={2: 30})
    assert worker.shedder.snapshot(worker.now).rate_per_s == rate


def test_a_rate_that_has_collapsed_is_back_in_less_than_thirty_seconds():
    """Something hung for a long time: nothing finished. Then all is well, under the usual load."""
    worker = Worker()
    for _ in range(1200):
        before = worker.shedder.snapshot(worker.now).rejected
        worker.ticks(1, queue_s=3.0, asked={2: 250})
        rejected = sum(worker.shedder.snapshot(worker.now).rejected) - sum(before)
        worker.in_flight += 250 - rejected
    assert worker.shedder.snapshot(worker.now).rate_per_s == 10.0
    worker.in_flight = 0
    since = worker.now
    while worker.shedder.is_shedding:
        worker.ticks(1, queue_s=0.0, asked={2: 250})
    assert worker.now - since < 30.0


def test_a_second_overload_knows_nothing_of_the_first():
    worker = Worker()
    worker.overload()
    worker.ticks(60, asked={4: 1})
    assert not worker.shedder.is_shedding
    while not worker.shedder.is_shedding:
        worker.ticks(1, lag_s=0.1, asked={4: 100})
    seen = worker.shedder.snapshot(worker.now)
    assert seen.rate_per_s is not None
    assert seen.accepted[4] == pytest.approx(seen.rate_per_s / (100 / TICK_S), rel=0.001)


# ---- in flight


def test_each_priority_may_fill_its_share():
    shedder = Shedder(ShedRules(max_in_flight=100), 0.0)
    bounds = [
        next(n for n in range(200) if shedder.admit(priority, 0.0, n) is not None)
        for priority in range(len(PRIORITIES))
    ]
    assert bounds == [100, 95, 90, 80, 70]
    assert shedder.admit(0, 0.0, 100) == Rejected("shed", "in_flight", 2.0)


def test_new_rules_keep_the_shedding_and_move_the_bounds():
    worker = Worker()
    worker.overload()
    rate = worker.shedder.snapshot(worker.now).rate_per_s
    worker.shedder.take_rules(ShedRules(max_in_flight=10), worker.now)
    assert worker.shedder.snapshot(worker.now).rate_per_s == rate
    (share,) = worker.ticks(20, lag_s=0.015, asked={2: 30})
    assert share < 0.5
    worker.ticks(4, lag_s=0.015)
    assert worker.shedder.admit(0, worker.now, 10) == Rejected("shed", "in_flight", 2.0)
    worker.ticks(60)
    assert worker.shedder.admit(4, worker.now, 7) is not None
    assert worker.shedder.admit(4, worker.now, 6) is None


@given(
    st.lists(
        st.tuples(
            st.floats(0.0, 2.0),
            st.floats(0.0, 1.0),
            st.one_of(st.none(), st.floats(0.0, 5.0)),
            st.integers(0, 30),
            st.integers(0, 200),
        ),
        max_size=60,
    )
)
def test_whatever_is_reported_it_stays_sane(reports):
    shedder = Shedder(ShedRules(max_in_flight=100), 0.0)
    now = 0.0
    for wait_s, lag_s, queue_s, calls, in_flight in reports:
        for number in range(calls):
            got = shedder.admit(number % 5, now + wait_s * number / (calls + 1), in_flight)
            if in_flight >= 100:
                assert got is not None
        now += wait_s
        if queue_s is not None:
            shedder.waited(queue_s, now)
        shedder.tick(now, lag_s, in_flight)
        seen = shedder.snapshot(now)
        assert all(0.0 <= share <= 1.0 for share in seen.accepted)
        assert list(seen.accepted) == sorted(seen.accepted, reverse=True)
        assert seen.rate_per_s is None or 10.0 <= seen.rate_per_s < math.inf
    for _ in range(1000):
        now += TICK_S
        shedder.tick(now, 0.0, 0)
    assert not shedder.is_shedding


@pytest.mark.parametrize(
    "rules, problem",
    [
        ({"max_in_flight": 0}, "max_in_flight=0"),
        ({"shares": (1.0,)}, "shares names 1 priorities; there are 5"),
        ({"shares": (1.0, 1.0, 1.0, 1.0, 1.5)}, "at most 1"),
        ({"shares": (0.1, 0.2, 0.3, 0.4, 0.5)}, "give a lower priority more"),
        ({"lag_target_s": 0.0}, "lag_target_s=0"),
        ({"queue_target_s": 0.0}, "queue_target_s=0"),
        ({"interval_s": 0.0}, "interval_s=0"),
        ({"drain_s": 0.0}, "drain_s=0"),
        ({"least_per_s": 0.0}, "least_per_s=0"),
        ({"calm_s": 60.0}, "calm_s=60"),
        ({"retry_after_s": -1.0}, "retry_after_s=-1"),
    ],
)
def test_senseless_rules_are_refused_in_words(rules, problem):
    (said,) = ShedRules(**rules).problems()
    assert problem in said
    with pytest.raises(ValueError, match="."):
        Shedder(ShedRules(**rules), 0.0)


def test_the_defaults_are_sound():
    assert ShedRules().problems() == ()


# -- on a machine that others use as well ----------------------------------------------------------


def test_a_worker_that_had_rest_is_not_overloaded_however_late_it_is():
    worker = Worker()
    worker.ticks(40, lag_s=0.1, asked={2: 10}, is_busy=False)
    assert not worker.shedder.is_shedding
    worker.overload()
    worker.ticks(60, lag_s=0.1, asked={2: 1}, is_busy=False)
    assert not worker.shedder.is_shedding


def test_a_delay_that_shedding_does_not_end_is_not_followed_down_to_nothing():
    worker = Worker()
    worker.ticks(40, asked={2: 20})
    worker.ticks(8, lag_s=0.5, asked={2: 60})
    assert worker.shedder.is_shedding
    for interval in range(80):
        worker.ticks(4, lag_s=0.5, asked={2: 60})
        rate = worker.shedder.snapshot(worker.now).rate_per_s
        assert rate is not None
        assert rate >= 0.5 * 1100 * 0.98 ** (interval + 3)


def test_what_a_worker_could_do_long_ago_does_not_count():
    worker = Worker()
    worker.ticks(40, asked={2: 20})
    worker.in_flight = 0
    for _ in range(2400):  # two minutes in which next to nothing is finished
        worker.in_flight += 20
        worker.ticks(1, lag_s=1.0, asked={2: 20})
    rate = worker.shedder.snapshot(worker.now).rate_per_s
    assert rate is not None
    assert rate < 100

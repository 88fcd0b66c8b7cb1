"""The wheel by itself: deadlines are kept to the tick, whatever is set and however time jumps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.wire.wheel import NEVER, Wheel

TICK = 0.25


class Sleeper:
    def __init__(self, wheel: Wheel) -> None:
        self.deadline = NEVER
        self.wake = NEVER
        self.woken: list[float] = []
        self._wheel = wheel

    def set(self, deadline: float) -> None:
        """As the rims do it."""
        self.deadline = deadline
        if deadline < self.wake:
            self._wheel.arm(self)

    def on_deadline(self, now: float) -> None:
        self.woken.append(now)
        self.deadline = NEVER


def test_it_wakes_within_a_tick_and_not_before():
    wheel = Wheel(100.0, TICK)
    sleeper = Sleeper(wheel)
    sleeper.set(101.1)
    for at in range(1, 40):
        wheel.turn(100.0 + at * 0.05)
    assert len(sleeper.woken) == 1
    assert 101.1 <= sleeper.woken[0] <= 101.1 + TICK + 0.05
    assert len(wheel) == 0


def test_a_later_deadline_costs_no_second_entry():
    wheel = Wheel(0.0, TICK)
    sleeper = Sleeper(wheel)
    for at in range(1, 1000):
        sleeper.set(float(at))
    assert len(wheel) == 1
    wheel.turn(2.0)
    assert sleeper.woken == []
    assert len(wheel) == 1
    wheel.turn(999.5)
    assert len(sleeper.woken) == 1


def test_an_earlier_deadline_leaves_a_stale_entry_that_wakes_nobody():
    wheel = Wheel(0.0, TICK)
    sleeper = Sleeper(wheel)
    sleeper.set(10.0)
    sleeper.set(1.0)
    wheel.turn(2.0)
    assert sleeper.woken == [2.0]
    sleeper.set(20.0)
    wheel.turn(15.0)
    assert sleeper.woken == [2.0]
    wheel.turn(21.0)
    assert sleeper.woken == [2.0, 21.0]
    assert len(wheel) == 0


def test_a_deadline_given_up_wakes_nobody():
    wheel = Wheel(0.0, TICK)
    sleeper = Sleeper(wheel)
    sleeper.set(1.0)
    sleeper.deadline = NEVER
    wheel.turn(100.0)
    assert sleeper.woken == []
    assert len(wheel) == 0


def test_a_deadline_in_the_past_is_due_at_the_next_turn():
    wheel = Wheel(100.0, TICK)
    sleeper = Sleeper(wheel)
    sleeper.set(1.0)
    wheel.turn(100.0 + 2 * TICK)
    assert len(sleeper.woken) == 1


def test_after_a_long_stall_everyone_is_woken_once():
    wheel = Wheel(0.0, TICK)
    sleepers = [Sleeper(wheel) for _ in range(1000)]
    for at, sleeper in enumerate(sleepers):
        sleeper.set(at / 10)
    wheel.turn(1e6)
    assert all(len(sleeper.woken) == 1 for sleeper in sleepers)
    assert len(wheel) == 0


def test_one_that_sets_a_new_deadline_when_woken_is_woken_again():
    wheel = Wheel(0.0, TICK)

    class Again(Sleeper):
        def on_deadline(self, now):
            super().on_deadline(now)
            self.deadline = now + 1.0  # as a rim does that judges and goes on

    sleeper = Again(wheel)
    sleeper.set(1.0)
    for at in range(100):
        wheel.turn(at * 0.1)
    assert len(sleeper.woken) in (6, 7, 8, 9)
    assert all(b - a >= 1.0 for a, b in zip(sleeper.woken, sleeper.woken[1:], strict=False))


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 3), st.floats(0, 20)),
        st.tuples(st.just("never"), st.integers(0, 3), st.just(0.0)),
        st.tuples(st.just("wait"), st.just(0), st.floats(0, 8)),
    ),
    max_size=60,
)


@given(ACTIONS, st.floats(0, 1e6))
def test_never_early_and_never_late_by_more_than_a_tick(actions, began):
    now = began
    wheel = Wheel(now, TICK)
    sleepers = [Sleeper(wheel) for _ in range(4)]
    for action, which, amount in actions:
        sleeper = sleepers[which]
        if action == "set":
            sleeper.set(now + amount)
        elif action == "never":
            sleeper.deadline = NEVER
        else:
            due = {one: one.deadline for one in sleepers}
            before = {one: len(one.woken) for one in sleepers}
            now += amount
            wheel.turn(now)
            for one in sleepers:
                if len(one.woken) > before[one]:
                    assert due[one] <= now
                    assert len(one.woken) == before[one] + 1
                elif due[one] is not NEVER:
                    assert now < due[one] + 2 * TICK + 1e-6
    # Whatever has been set is found in the end, and the wheel is empty.
    due = {one: one.deadline for one in sleepers}
    before = {one: len(one.woken) for one in sleepers}
    wheel.turn(now + 100)
    for one in sleepers:
        assert len(one.woken) - before[one] == (due[one] < NEVER)
    assert len(wheel) == 0


@pytest.mark.parametrize("tick", [0.01, 0.25, 1.0])
def test_other_ticks(tick):
    wheel = Wheel(5.0, tick)
    sleeper = Sleeper(wheel)
    sleeper.set(7.0)
    wheel.turn(7.0 - tick)
    assert sleeper.woken == []
    wheel.turn(7.0 + tick)
    assert len(sleeper.woken) == 1

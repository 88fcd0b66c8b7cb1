"""Asking twice when the first answer is late."""

from __future__ import annotations

import asyncio

import pytest

from headgate.policy.hedge import HedgeRules
from headgate.resilience import Budget, hedge
from tests.resilience.virtual import cancel_at_each_step


class Callee:
    """Its calls take what it is told, one after the other."""

    def __init__(self, *ends):
        self.ends = list(ends)
        self.started = 0
        self.cancelled = 0

    async def get(self):
        number = self.started
        self.started += 1
        takes_s, error = self.ends[number]
        try:
            await asyncio.sleep(takes_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if error is not None:
            raise error
        return number


def run(time, policy, callee):
    async def main():
        start = time.now
        try:
            return await policy(callee.get)(), time.now - start
        finally:
            assert len(asyncio.all_tasks()) == 1

    return time.run(main())


@pytest.mark.parametrize(
    ("ends", "winner", "took_s", "started", "cancelled"),
    [
        ([(0.5, None)], 0, 0.5, 1, 0),
        ([(9.0, None), (0.5, None)], 1, 1.5, 2, 1),
        ([(1.2, None), (0.5, None)], 0, 1.2, 2, 1),
        ([(1.2, OSError()), (0.5, None)], 1, 1.5, 2, 0),
        ([(9.0, None), (0.5, OSError())], 0, 9.0, 2, 0),
    ],
)
def test_the_first_good_answer_wins(time, ends, winner, took_s, started, cancelled):
    callee = Callee(*ends)
    got, took = run(time, hedge(after="1s", clock=time.clock), callee)
    assert got == winner
    assert took == pytest.approx(took_s)
    assert (callee.started, callee.cancelled) == (started, cancelled)


def test_a_failure_before_the_delay_is_raised_at_once(time):
    callee = Callee((0.5, OSError("first")), (0.1, None))
    with pytest.raises(OSError, match="first"):
        run(time, hedge(after="1s", clock=time.clock), callee)
    assert callee.started == 1


def test_when_all_fail_the_first_failure_is_raised(time):
    callee = Callee((2.0, OSError("first")), (0.5, OSError("second")))
    with pytest.raises(OSError, match="second"):  # the second ended first
        run(time, hedge(after="1s", clock=time.clock), callee)


def test_there_may_be_more_than_one(time):
    callee = Callee((9.0, None), (9.0, None), (0.5, None), (0.1, None))
    got, took = run(time, hedge(after="1s", most=2, clock=time.clock), callee)
    assert (got, took, callee.started) == (2, pytest.approx(2.5), 3)
    callee = Callee((9.0, None), (9.0, None), (9.0, None), (0.1, None))
    got, took = run(time, hedge(after="1s", most=2, clock=time.clock), callee)
    assert (got, took, callee.started) == (0, pytest.approx(9.0), 3)


def test_two_that_end_together_are_both_ended(time):
    callee = Callee((2.0, OSError("first")), (1.0, None))
    got, _ = run(time, hedge(after="1s", clock=time.clock), callee)
    assert got == 1


def test_the_budget_bounds_them(time, events):
    budget = Budget(0.0, floor="1/10s", clock=time.clock)
    policy = hedge(after="1s", budget=budget, clock=time.clock, on_event=events.append)
    for _ in range(3):
        run(time, policy, Callee((3.0, None), (0.5, None)))
    assert [event.what for event in events] == ["hedged"]
    assert budget.snapshot().firsts == 0  # its owner counts them


def test_a_budget_of_its_own_counts_first_calls(time):
    policy = hedge(after="1s", budget="50%", clock=time.clock)
    for _ in range(3):
        run(time, policy, Callee((0.5, None)))
    assert policy.budget is not None
    assert policy.budget.snapshot().firsts == 3
    assert hedge(after="1s", budget=False).budget is None


def test_the_delay_is_learnt_from_the_calls(time):
    policy = hedge(after="p90", minimum_calls=100, clock=time.clock)
    for _ in range(200):
        run(time, policy, Callee((0.1, None)))
    delay_s = policy.snapshot().delay_s
    assert delay_s == pytest.approx(0.1, rel=0.15)
    callee = Callee((9.0, None), (0.1, None))
    got, took = run(time, policy, callee)
    assert got == 1
    assert took < 0.3


def test_until_it_is_known_calls_are_simply_awaited(time):
    callee = Callee((9.0, None), (0.1, None))
    got, took = run(time, hedge(clock=time.clock), callee)
    assert (got, took, callee.started) == (0, 9.0, 1)


def test_losers_are_recorded_with_the_time_they_were_out(time):
    policy = hedge(after="1s", clock=time.clock)
    run(time, policy, Callee((9.0, None), (0.5, None)))
    assert policy.snapshot().calls == pytest.approx(2.0, rel=0.1)


def test_failures_are_not_recorded(time):
    policy = hedge(after="1s", clock=time.clock)
    with pytest.raises(OSError):
        run(time, policy, Callee((0.5, OSError())))
    assert policy.snapshot().calls == 0.0


@pytest.mark.parametrize("after", ["1s", "p95"])
def test_no_task_outlives_the_call_wherever_it_is_cancelled(time, after):
    async def main():
        policy = hedge(after=after, most=2, clock=time.clock)

        async def one():
            await policy(Callee((9.0, None), (9.0, None), (1.0, None)).get)()

        def left():
            names = {task.get_name() for task in asyncio.all_tasks() if not task.done()}
            assert not any(name.startswith("headgate-hedge") for name in names)

        # In the waits for the two delays, for the first answer and for the losers; the last wait
        # cannot be cut short, so there is nothing left after it either.
        assert await cancel_at_each_step(one, left) == (4 if after == "1s" else 1)

    time.run(main())


def test_a_plain_function_is_refused():
    with pytest.raises(TypeError, match="cannot stop the plain function"):
        hedge()(len)  # type: ignore[arg-type]


def test_settings_may_be_written_as_in_the_file():
    assert hedge(after="p99").rules == HedgeRules(percentile=0.99)
    assert hedge(after="p99.9").rules.percentile == pytest.approx(0.999)
    assert hedge(after="50ms", most=2).rules == HedgeRules(after_s=0.05, most=2)
    assert hedge().rules == HedgeRules()
    with pytest.raises(ValueError, match="after: "):
        hedge(after="soon")
    with pytest.raises(ValueError, match="percentile"):
        hedge(after="p40")

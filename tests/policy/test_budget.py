"""The retry budget, against a list of all that has happened."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.budget import BudgetRules, RetryBudget

STEPS = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from(["first", "first", "retry"])), max_size=120
)


# Buckets of a second and steps in sixteenths, shares in quarters: exact in floats.
@given(STEPS, st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.sampled_from([0.0, 0.25, 1.0]))
def test_retries_are_a_share_of_the_first_tries_in_the_window_and_the_floor(steps, share, floor):
    if share == 0.0 and floor * 10 < 1:
        return
    budget = RetryBudget(BudgetRules(share=share, floor_per_s=floor, window_s=10.0), 0.0)
    now = 0.0
    seen: list[tuple[int, str]] = []
    taken = refused = 0
    for step, what in steps:
        now += step / 16
        bucket = int(now)
        seen = [one for one in seen if one[0] > bucket - 10]
        firsts = sum(kind == "first" for _, kind in seen)
        retries = len(seen) - firsts
        if what == "first":
            budget.count(now)
            seen.append((bucket, "first"))
            firsts += 1
        else:
            may = retries + 1 <= floor * 10 + share * firsts
            assert budget.try_take(now) is may
            if may:
                seen.append((bucket, "retry"))
                retries += 1
                taken += 1
            else:
                refused += 1
        found = budget.snapshot(now)
        assert (found.firsts, found.retries) == (firsts, retries)
        assert found.left == max(0, int(floor * 10 + share * firsts - retries))
        assert (found.taken_total, found.refused_total) == (taken, refused)


def test_when_every_call_fails_retries_stay_a_share_of_the_traffic():
    budget = RetryBudget(BudgetRules(share=0.2, floor_per_s=1.0), 0.0)
    rng = random.Random(1)
    now, firsts, retries = 0.0, 0, 0
    while now < 60.0:  # 100 calls a second, each would like two retries
        now += rng.expovariate(100.0)
        firsts += 1
        budget.count(now)
        retries += budget.try_take(now) + budget.try_take(now)
    assert retries <= 0.2 * firsts + 1.0 * 70
    assert retries >= 0.15 * firsts


def test_a_client_with_one_call_a_minute_may_retry_each_of_them():
    budget = RetryBudget(BudgetRules(), 0.0)
    for minute in range(30):
        now = minute * 60.0
        budget.count(now)
        assert budget.try_take(now)
        assert budget.try_take(now)


def test_a_retry_that_is_not_made_is_put_back():
    budget = RetryBudget(BudgetRules(share=0.0, floor_per_s=0.1), 0.0)
    assert budget.try_take(0.0)
    assert not budget.try_take(0.0)
    budget.put_back(0.0)
    assert budget.snapshot(0.0).taken_total == 0
    assert budget.try_take(0.0)
    budget.put_back(5.0)  # its bucket is over: it ages there
    assert budget.snapshot(5.0).retries == 1
    assert budget.snapshot(10.0).retries == 0


def test_new_rules_keep_the_counts_unless_the_window_changes():
    budget = RetryBudget(BudgetRules(share=0.5, floor_per_s=0.0), 0.0)
    for _ in range(10):
        budget.count(1.0)
    budget.take_rules(BudgetRules(share=0.1, floor_per_s=0.0), 1.0)
    assert budget.snapshot(1.0).left == 1
    budget.take_rules(BudgetRules(share=0.1, floor_per_s=0.0, window_s=5.0), 1.0)
    assert budget.snapshot(1.0).firsts == 0


def test_the_rules_taken_are_those_that_count_the_floor():
    budget = RetryBudget(BudgetRules(share=0.0, floor_per_s=0.1), 0.0)
    budget.take_rules(BudgetRules(share=0.0, floor_per_s=0.3), 0.0)
    assert [budget.try_take(0.0) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        (BudgetRules(share=-0.1), "share=-0.1"),
        (BudgetRules(share=1.5), "share=1.5"),
        (BudgetRules(share=float("nan")), "share=nan"),
        (BudgetRules(floor_per_s=-1), "floor_per_s=-1"),
        (BudgetRules(window_s=0), "window_s=0"),
        (BudgetRules(share=0.0, floor_per_s=0.0), "never allows a retry"),
        (BudgetRules(share=0.0, floor_per_s=0.05), "never allows a retry"),
    ],
)
def test_senseless_rules_are_refused_in_words(rules, says):
    (problem,) = rules.problems()
    assert says in problem
    with pytest.raises(ValueError, match="retry budget: "):
        RetryBudget(rules, 0.0)
    budget = RetryBudget(BudgetRules(), 0.0)
    with pytest.raises(ValueError):
        budget.take_rules(rules, 0.0)
    assert budget.rules == BudgetRules()


def test_the_defaults_have_no_problems():
    rules = BudgetRules()
    assert (rules.share, rules.floor_per_s, rules.window_s) == (0.2, 1.0, 10.0)
    assert BudgetRules().problems() == ()
    assert BudgetRules(share=0.0, floor_per_s=0.1).problems() == ()

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from headgate.cache.early import REACH, Costs, early_from, is_due_early


def share_due(wall, cost_s, beta, rng):
    return sum(is_due_early(wall, 100.0, cost_s, beta, rng) for _ in range(4000)) / 4000


def test_what_is_over_is_always_due():
    assert is_due_early(100.0, 100.0, 0.1, 1.0, random.Random(1))


def test_the_chance_is_that_of_the_exponential():
    # At one cost before the end it is 1/e, at three of them 1/e^3.
    rng = random.Random(2)
    assert abs(share_due(99.0, 1.0, 1.0, rng) - 0.368) < 0.03
    assert abs(share_due(97.0, 1.0, 1.0, rng) - 0.050) < 0.02


def test_what_costs_more_or_has_a_greater_beta_is_due_earlier():
    rng = random.Random(3)
    assert share_due(90.0, 10.0, 1.0, rng) > share_due(90.0, 1.0, 1.0, rng)
    assert share_due(95.0, 1.0, 5.0, rng) > share_due(95.0, 1.0, 1.0, rng)


@given(
    made_at=st.floats(0, 1e6),
    life=st.floats(0.001, 1e6),
    cost_s=st.floats(0, 1e4),
    beta=st.floats(0, 10),
)
def test_no_draw_is_needed_in_the_first_half_of_a_life(made_at, life, cost_s, beta):
    until = early_from(made_at + life, made_at, cost_s, beta)
    assert made_at + life / 2 - 1e-6 <= until <= made_at + life + 1e-6


def test_without_cost_or_beta_nothing_is_early():
    assert early_from(100.0, 0.0, 0.0, 1.0) == 100.0
    assert early_from(100.0, 0.0, 1.0, 0.0) == 100.0
    assert early_from(100.0, 0.0, 1.0, 1.0) == 100.0 - REACH


def test_the_cost_of_a_family_follows_what_is_seen():
    costs = Costs()
    assert costs.of("a") == 0.0
    assert costs.learn("a", 1.0) == 1.0
    for _ in range(50):
        costs.learn("a", 3.0)
    assert 2.9 < costs.of("a") <= 3.0
    assert costs.of("b") == 0.0


def test_families_are_bounded_and_the_oldest_goes():
    costs = Costs(most=3)
    for name in "abcd":
        costs.learn(name, 1.0)
    costs.learn("b", 1.0)
    costs.learn("e", 1.0)
    assert set(costs.snapshot()) == {"b", "d", "e"}

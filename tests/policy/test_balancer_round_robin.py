"""Turns over a group: exact over a cycle, smooth within, also where no cycle is worked out."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.balancer.group import BalanceRules, Group, MemberSpec
from headgate.policy.balancer.round_robin import Turns
from tests.policy.simulation_balancing import pick

RULES = BalanceRules(by="round_robin")
WEIGHTS = st.lists(st.integers(0, 20), min_size=1, max_size=12).filter(any)


def group_of(weights, seed=1):
    specs = [MemberSpec(str(at), weight) for at, weight in enumerate(weights)]
    return Group(RULES, specs, 0.0, Random(seed))


def picks(group, count, excluded=()):
    return [int(pick(group, excluded=excluded).id) for _ in range(count)]


@given(WEIGHTS, st.integers(0, 9))
def test_over_a_cycle_each_gets_exactly_its_weight(weights, seed):
    got = Counter(picks(group_of(weights, seed), sum(weights)))
    assert got == Counter({at: weight for at, weight in enumerate(weights) if weight})


LONG = st.lists(st.integers(1, 1000), min_size=150, max_size=160)


@given(st.one_of(WEIGHTS, LONG), st.integers(0, 9))
def test_over_any_stretch_nobody_is_far_from_the_share(weights, seed):
    total = sum(weights)
    counts = Counter[int]()
    for length, chosen in enumerate(picks(group_of(weights, seed), 400), 1):
        counts[chosen] += 1
        # One turn early or late, and whatever the others together are early or late.
        assert abs(counts[chosen] - length * weights[chosen] / total) < len(weights)


def test_a_heap_of_turns_is_exact_to_one_turn():
    weights = [1 + at % 7 for at in range(300)]
    group = group_of(weights)
    counts = Counter(picks(group, 20 * sum(weights)))
    (pool,) = group._pools.values()
    assert isinstance(pool, Turns)
    assert len(pool._heap) == 300
    assert all(abs(counts[at] - 20 * weight) <= 2 for at, weight in enumerate(weights))


def test_a_heavy_member_is_spread_among_many_light_ones():
    weights = [300, *[1] * 298, 2]
    assert sum(weights) * len(weights) > 16384  # no cycle is worked out
    runs = "".join("h" if at == 0 else " " for at in picks(group_of(weights), 1200)).split()
    assert max(map(len, runs)) <= 3
    gaps = "".join("h" if at else " " for at in picks(group_of(weights), 1200)).split()
    assert max(map(len, gaps)) <= 6


def test_the_excluded_are_passed_over():
    group = group_of([1, 1, 1])
    out = group.members[1]
    assert Counter(picks(group, 30, (out,))) == {0: 15, 2: 15}


@pytest.mark.parametrize("light", [1, 40])
def test_a_member_that_has_nearly_all_turns_can_be_excluded(light):
    group = group_of([1000, *[1] * light])
    heavy = group.members[0]
    for _ in range(50):
        assert group.pick(0.0, 0, (heavy,)) is not heavy
    assert group.pick(0.0, 0, group.members) is None


def test_rebuilding_often_does_not_favour_the_first_of_the_list():
    group = group_of([1] * 10)
    got = Counter[str]()
    for round_ in range(3000):
        group.set_usable("9", round_ % 2 == 0, "flaps", 0.0)
        got[pick(group).id] += 1
    assert all(240 < got[str(at)] < 440 for at in range(9))


def test_two_workers_do_not_walk_in_step():
    starts = {picks(group_of([1] * 50, seed), 1)[0] for seed in range(20)}
    assert len(starts) > 10

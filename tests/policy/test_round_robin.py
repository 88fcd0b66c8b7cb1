"""Weighted round-robin: exact over a cycle, smooth within it, and it skips what it is told to."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.balancer.round_robin import _CYCLE_MAX, RoundRobin, smooth_cycle

WEIGHTS = st.lists(st.integers(0, 20), min_size=1, max_size=12)


@given(WEIGHTS)
def test_over_a_cycle_each_gets_exactly_its_weight(weights):
    balancer = RoundRobin(weights)
    total = sum(weights)
    got = Counter(balancer.pick(()) for _ in range(total))
    assert got == Counter({at: weight for at, weight in enumerate(weights) if weight})


@given(WEIGHTS)
def test_over_any_stretch_nobody_is_far_from_the_share(weights):
    cycle = smooth_cycle(weights) * 2
    total = sum(weights)
    counts = Counter[int]()
    for length, chosen in enumerate(cycle, 1):
        counts[chosen] += 1
        for at, weight in enumerate(weights):
            assert abs(counts[at] - length * weight / total) < len(weights)


@pytest.mark.parametrize(
    "weights, cycle",
    [
        ((1,), (0,)),
        ((1, 1, 1), (0, 1, 2)),
        ((2, 2), (0, 1)),
        ((5, 1, 1), (0, 0, 1, 0, 2, 0, 0)),
        ((0, 3), (1,)),
        ((0, 0), ()),
    ],
)
def test_cycles(weights, cycle):
    assert smooth_cycle(weights) == cycle


def test_a_heavy_instance_is_spread_through_the_cycle():
    cycle = smooth_cycle((10, 10, 1))
    runs = max(len(run) for run in "".join(map(str, cycle)).replace("1", " ").split())
    assert runs <= 2


def test_huge_weights_make_no_huge_cycle():
    cycle = smooth_cycle((1_000_003, 1))
    assert len(cycle) <= _CYCLE_MAX + 2
    assert 1 in cycle


@given(WEIGHTS, st.sets(st.integers(0, 11)), st.integers(0, 50))
def test_the_excluded_are_never_picked(weights, excluded, before):
    balancer = RoundRobin(weights)
    for _ in range(before):
        balancer.pick(())
    left = {at for at, weight in enumerate(weights) if weight} - excluded
    for _ in range(30):
        found = balancer.pick(excluded)
        assert found in left if left else found is None


@given(WEIGHTS)
def test_it_goes_round_for_ever(weights):
    balancer = RoundRobin(weights)
    total = sum(weights)
    if total:
        first = [balancer.pick(()) for _ in range(total)]
        assert [balancer.pick(()) for _ in range(total)] == first
    else:
        assert balancer.pick(()) is None

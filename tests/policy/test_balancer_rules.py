"""Settings that cannot work are named, with the reason."""

from __future__ import annotations

from typing import get_args

import pytest

from headgate.policy.balancer.group import ALGORITHMS, BalanceBy, BalanceRules


def test_the_defaults_have_no_problems():
    for by in get_args(BalanceBy):
        assert BalanceRules(by=by).problems() == ()


def test_every_name_has_its_algorithm():
    assert set(ALGORITHMS) == set(get_args(BalanceBy))


@pytest.mark.parametrize(
    "setting, words",
    [
        ({"by": "round_robbin"}, "it may be round_robin, least_connections"),
        ({"slow_start_s": -1.0}, "slow_start_s is -1.0"),
        ({"slow_start_s": float("inf")}, "slow_start_s is inf"),
        ({"by": "consistent_hash", "slow_start_s": 5.0}, "no effect with consistent_hash"),
        ({"bound": 1.0}, "it must be over 1"),
        ({"bound": float("nan")}, "it must be over 1"),
        ({"bound_from": -1}, "bound_from is -1"),
        ({"decay_s": 0.0}, "decay_s is 0.0"),
        ({"panic": 1.5}, "panic is 1.5"),
        ({"spill": 0.0}, "spill is 0.0"),
        ({"zone_spill": 1.1}, "zone_spill is 1.1"),
        ({"panic": 0.8}, "never in panic"),
    ],
)
def test_problems(setting, words):
    (problem,) = BalanceRules(**setting).problems()
    assert words in problem


def test_no_bound_and_no_panic_are_no_problems():
    assert BalanceRules(bound=0.0, panic=0.0).problems() == ()


def test_all_problems_are_told_at_once():
    assert len(BalanceRules(decay_s=-1.0, spill=2.0, panic=-1.0).problems()) == 3

"""Settings without sense are named, and no limiter is made of them."""

from __future__ import annotations

import pytest

from headgate.policy.limiter import (
    LIMITERS,
    Home,
    Leased,
    LeaseRules,
    LimitRules,
    home_of,
    leased_of,
    make,
)


@pytest.mark.parametrize(
    "rules, said",
    [
        (LimitRules(limit=0), "limit=0 refuses every hit"),
        (LimitRules(limit=-3), "limit=-3"),
        (LimitRules(limit=1, period_s=0.0), "period_s=0"),
        (LimitRules(limit=1, period_s=-1.0), "period_s=-1"),
        (LimitRules(limit=1, period_s=float("inf")), "period_s=inf"),
        (LimitRules(limit=1, period_s=float("nan")), "period_s=nan"),
        (LimitRules(limit=1, period_s=1e-6), "period_s=1e-06"),
        (LimitRules(limit=1, burst=0), "burst=0"),
        (LimitRules(limit=9, burst=5, algorithm="fixed_window"), "no meaning for fixed_window"),
        (LimitRules(limit=9, burst=5, algorithm="concurrency"), "no meaning for concurrency"),
        (LimitRules(limit=10**6, algorithm="sliding_log"), "remembers every hit"),
        (LimitRules(limit=1, max_keys=0), "max_keys=0"),
    ],
)
def test_senseless_rules_are_named_and_refused(rules, said):
    assert any(said in problem for problem in rules.problems())
    with pytest.raises(ValueError, match=said.split("=")[0]):
        make(rules)


def test_all_problems_are_named_at_once():
    rules = LimitRules(limit=0, period_s=0.0, burst=0, max_keys=0)
    assert len(rules.problems()) == 4


@pytest.mark.parametrize("algorithm", LIMITERS)
def test_sensible_rules_have_no_problems(algorithm):
    rules = LimitRules(limit=1000, period_s=900.0, algorithm=algorithm)
    assert rules.problems() == ()
    assert make(rules).rules is rules


def test_the_capacity_is_the_burst_or_the_limit():
    assert LimitRules(limit=5).capacity == 5
    assert LimitRules(limit=5, burst=2).capacity == 2
    assert LimitRules(limit=5, burst=50).capacity == 50


@pytest.mark.parametrize(
    "lease, said",
    [
        (LeaseRules(share=1.5), "share=1.5"),
        (LeaseRules(share=-0.1), "share=-0.1"),
        (LeaseRules(ttl_s=0.0), "ttl_s=0"),
        (LeaseRules(seat_ttl_s=float("inf")), "seat_ttl_s=inf"),
        (LeaseRules(max_keys=0), "max_keys=0"),
    ],
)
@pytest.mark.parametrize("algorithm", ["gcra", "concurrency"])
def test_senseless_leases_are_named_and_refused(lease, said, algorithm):
    assert any(said in problem for problem in lease.problems())
    with pytest.raises(ValueError, match=said.split("=")[0]):
        leased_of(LimitRules(limit=5, algorithm=algorithm), lease)


@pytest.mark.parametrize("algorithm", LIMITERS)
def test_homes_and_leases_are_made_by_the_rules(algorithm):
    rules = LimitRules(limit=5, algorithm=algorithm)
    home, leased = home_of(rules), leased_of(rules, LeaseRules(), holders=4)
    assert home.rules is rules
    assert leased.rules is rules
    assert isinstance(home, Home)
    assert isinstance(leased, Leased)
    assert leased.holders == 4
    with pytest.raises(ValueError, match="limit"):
        home_of(LimitRules(limit=0, algorithm=algorithm))

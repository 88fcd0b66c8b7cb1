"""What each tier and zone gets: filled in order of priority, panic only where nobody else can."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.balancer.tiers import Weights, share_of_own_zone, shares_of_tiers

SPILL = 0.7


def weights(*pairs):
    return [Weights(usable, whole) for usable, whole in pairs]


@pytest.mark.parametrize(
    "tiers, shares, panicking",
    [
        # one tier takes all, however much of it is left
        (((10, 10),), (1,), ()),
        (((6, 10),), (1,), ()),
        (((5, 10),), (1,), ()),
        (((4, 10),), (1,), (0,)),
        (((1, 10),), (1,), (0,)),
        (((0, 10),), (1,), (0,)),
        # a backup gets nothing until less than 70 % is left, and then what the first cannot reach
        (((10, 10), (10, 10)), (1, 0), ()),
        (((7, 10), (10, 10)), (1, 0), ()),
        (((35, 100), (10, 10)), (0.5, 0.5), ()),
        (((0, 10), (10, 10)), (0, 1), ()),
        # no panic where a backup reaches the rest
        (((1, 10), (10, 10)), (1 / 7, 6 / 7), ()),
        # three tiers, filled in order
        (((35, 100), (14, 100), (100, 100)), (0.5, 0.2, 0.3), ()),
        # together not enough: scaled up, and panic in those below the threshold
        (((14, 100), (35, 100)), (2 / 7, 5 / 7), (0, 1)),
        (((5, 100), (60, 100)), (5 / 65, 60 / 65), (0,)),
        (((1, 10), (0, 10)), (1, 0), (0,)),
        # nothing left at all: the first tier
        (((0, 10), (0, 10)), (1, 0), (0,)),
        # nobody has any weight
        (((0, 0),), (0,), ()),
        (((0, 0), (0, 10)), (0, 1), (1,)),
        ((), (), ()),
    ],
)
def test_shares(tiers, shares, panicking):
    got = shares_of_tiers(weights(*tiers), SPILL, 0.5)
    assert [one.share for one in got] == pytest.approx(shares)
    assert tuple(at for at, one in enumerate(got) if one.is_panicking) == panicking


def test_without_panic_nothing_usable_is_nothing():
    assert [t.share for t in shares_of_tiers(weights((0, 3), (0, 3)), SPILL, 0.0)] == [0, 0]


def test_without_panic_the_last_one_takes_it_all():
    (only,) = shares_of_tiers(weights((1, 100)), SPILL, 0.0)
    assert only.share == 1
    assert not only.is_panicking


TIERS = st.lists(
    st.integers(1, 100).flatmap(lambda whole: st.tuples(st.integers(0, whole), st.just(whole))),
    min_size=1,
    max_size=5,
)


@given(TIERS, st.floats(0.1, 1.0), st.floats(0.0, 1.0))
def test_all_traffic_goes_somewhere_and_none_to_nobody(tiers, spill, panic):
    tiers = weights(*tiers)
    shares = shares_of_tiers(tiers, spill, panic)
    assert all(one.share >= 0 for one in shares)
    any_usable = any(tier.usable for tier in tiers)
    assert sum(one.share for one in shares) == pytest.approx(1 if any_usable or panic else 0)
    for tier, one in zip(tiers, shares, strict=True):
        if one.share and not one.is_panicking:
            assert tier.usable
        if one.is_panicking:
            assert tier.usable_share < panic


@given(TIERS, st.floats(0.1, 1.0))
def test_a_tier_gets_something_only_when_those_before_it_are_full(tiers, spill):
    tiers = weights(*tiers)
    shares = [one.share for one in shares_of_tiers(tiers, spill, 0.0)]
    reaches = [min(1.0, tier.usable_share / spill) for tier in tiers]
    if sum(reaches) < 1:
        return
    for at, share in enumerate(shares):
        if share > 1e-9:
            assert shares[:at] == pytest.approx(reaches[:at])


@pytest.mark.parametrize(
    "own, others, share",
    [
        ((10, 10), (30, 30), 1),
        ((7, 10), (30, 30), 1),
        ((35, 100), (30, 30), 0.5),
        ((0, 10), (30, 30), 0),
        ((1, 10), (0, 30), 1),
    ],
)
def test_the_own_zone_is_preferred_while_it_can(own, others, share):
    assert share_of_own_zone(Weights(*own), Weights(*others), 0.7) == pytest.approx(share)

"""Where requests go, tested by chi-square with a seeded generator; and slow start's ramp."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import get_args

import pytest

from headgate.policy.balancer.group import BalanceBy, BalanceRules, Group, MemberSpec, hash_key
from tests.policy.simulation_balancing import is_spread_by

ALL = get_args(BalanceBy)
BY_CHANCE = ("random", "power_of_two", "peak_ewma")
PICKS = 20_000


def group_of(by, weights, seed=3, **settings):
    specs = [MemberSpec(str(at), weight) for at, weight in enumerate(weights)]
    return Group(BalanceRules(by=by, **settings), specs, 0.0, Random(seed))


def count(group, picks=PICKS, now=0.0, excluded=(), keys=None):
    got = Counter[str]()
    for at in range(picks):
        member = group.pick(now, keys[at] if keys else 0, excluded)
        got[member.id] += 1
    return got


def weights_of(group):
    return {member.id: member.weight for member in group.members}


def test_the_bound_of_the_test_itself():
    rng = Random(1)
    fair = {str(at): 1.0 for at in range(10)}
    assert is_spread_by(Counter(str(rng.randrange(10)) for _ in range(5000)), fair)
    skewed = Counter(str(min(9, rng.randrange(11))) for _ in range(5000))
    assert not is_spread_by(skewed, fair)
    assert not is_spread_by(Counter({"stranger": 5000}), fair)


@pytest.mark.parametrize("by", ALL)
@pytest.mark.parametrize("weights", [[1] * 10, [5, 1, 1, 0, 3], [1, 1]])
def test_an_idle_group_is_used_by_weight(by, weights):
    group = group_of(by, weights)
    got = count(group)
    if by == "consistent_hash":  # the ring itself is uneven; 8 % is its standard deviation
        total = sum(weights)
        for at, weight in enumerate(weights):
            assert got[str(at)] == pytest.approx(PICKS * weight / total, rel=0.3)
    else:
        assert is_spread_by(got, weights_of(group))


@pytest.mark.parametrize("by", BY_CHANCE)
def test_what_an_excluded_member_leaves_goes_to_the_others_by_weight(by):
    group = group_of(by, [4, 1, 2, 3])
    got = count(group, excluded=(group.members[0],))
    assert is_spread_by(got, {"1": 1, "2": 2, "3": 3})


@pytest.mark.parametrize("by", ALL)
def test_an_excluded_member_with_nearly_all_weight_does_not_hide_the_others(by):
    group = group_of(by, [100_000, 1, 1])
    got = count(group, 300, excluded=(group.members[0],))
    assert (got["1"] > 50 and got["2"] > 50) or by == "consistent_hash"
    assert set(got) <= {"1", "2"}


class Counting(Random):
    drawn = 0

    def random(self):
        self.drawn += 1
        return super().random()


@pytest.mark.parametrize("by", [*BY_CHANCE, "round_robin"])
def test_looking_for_one_not_excluded_by_chance_has_an_end(by):
    rng = Counting(1)
    specs = [MemberSpec("heavy", 10**9), MemberSpec("light", 1)]
    group = Group(BalanceRules(by=by), specs, 0.0, rng)
    found = group.pick(0.0, 0, (group.members[0],))
    assert found is group.members[1]
    assert rng.drawn < 50


@pytest.mark.parametrize("by", BY_CHANCE)
def test_both_candidates_are_drawn_from_all(by):
    group = group_of(by, [1] * 4)
    got = count(group)
    assert is_spread_by(got, weights_of(group))


def test_power_of_two_prefers_the_less_loaded_of_the_two():
    group = group_of("power_of_two", [1] * 4)
    for _ in range(5):
        group.started(group.members[2])
    got = count(group)
    assert got["2"] == 0  # it is never drawn against itself
    assert is_spread_by(got, {"0": 1, "1": 1, "3": 1})


def test_power_of_two_compares_what_is_in_flight_for_its_weight():
    group = group_of("power_of_two", [4, 1])
    for _ in range(3):
        group.started(group.members[0])
    group.started(group.members[1])
    assert count(group, 200) == {"0": 200}  # 3/4 is less than 1/1
    for _ in range(2):
        group.started(group.members[0])
    got = count(group, 200)
    assert got["1"] > 150  # 5/4 is more, but the light one is not always drawn


def test_two_with_unequal_weights_are_both_candidates():
    group = group_of("power_of_two", [3, 1])
    group.started(group.members[0])
    got = count(group, 400)
    assert got["1"] > 380


@pytest.mark.parametrize("by", [by for by in ALL if by != "consistent_hash"])
def test_slow_start_gives_a_newcomer_its_weight_little_by_little(by):
    rules = BalanceRules(by=by, slow_start_s=30.0)
    specs = [MemberSpec(str(at)) for at in range(4)]
    group = Group(rules, specs, 0.0, Random(1))
    group.update(rules, [*specs, MemberSpec("new")], 100.0)
    for age_s, part in ((0.0, 0.1), (6.0, 0.28), (15.0, 0.55), (30.0, 1.0), (300.0, 1.0)):
        got = count(group, 10_000, now=100.0 + age_s)
        assert got["new"] == pytest.approx(10_000 * part / (4 + part), rel=0.15)


def test_slow_start_is_taken_in_steps_of_a_tenth():
    rules = BalanceRules(by="random", slow_start_s=10.0)
    group = Group(rules, [MemberSpec("a"), MemberSpec("b")], 0.0, Random(1))
    group.set_usable("b", False, "down", 50.0)
    group.set_usable("b", True, None, 60.0)
    seen = []
    for at in range(121):
        group.pick(60.0 + at * 0.1)
        seen.append(group.members[1].effective)
    assert seen[0] == pytest.approx(0.1)
    assert len(set(seen)) in (10, 11, 12)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert group._refresh_at == float("inf")


def test_the_consistent_hash_has_no_slow_start():
    rules = BalanceRules(by="consistent_hash", slow_start_s=30.0)
    group = Group(rules, [MemberSpec("a")], 0.0, Random(1))
    group.update(rules, [MemberSpec("a"), MemberSpec("b")], 1.0)
    assert [m.effective_weight for m in group.snapshot(1.0).members] == [1.0, 1.0]


def test_one_that_was_drained_warms_up_again():
    group = group_of("random", [1, 1], slow_start_s=30.0)
    group.set_drained("0", True, 10.0)
    assert not group.snapshot(10.0).members[0].is_warming
    group.set_drained("0", False, 20.0)
    assert group.snapshot(20.0).members[0].effective_weight == pytest.approx(0.1)


def test_in_a_new_group_nobody_is_in_slow_start():
    group = group_of("random", [1, 2], slow_start_s=30.0)
    assert [m.effective_weight for m in group.snapshot(0.0).members] == [1.0, 2.0]
    assert not any(m.is_warming for m in group.snapshot(0.0).members)


def test_one_that_comes_back_warms_up_again_and_reloads_do_not_restart_it():
    rules = BalanceRules(slow_start_s=10.0)
    specs = [MemberSpec("a"), MemberSpec("b")]
    group = Group(rules, specs, 0.0, Random(1))
    group.set_usable("a", False, "down", 5.0)
    group.set_usable("a", True, None, 20.0)
    assert group.snapshot(25.0).members[0].effective_weight == pytest.approx(0.55)
    group.update(rules, specs, 26.0)
    assert group.snapshot(28.0).members[0].effective_weight == pytest.approx(0.82)
    assert group.snapshot(30.0).members[0].effective_weight == 1.0


def test_keys_are_spread_over_the_ring():
    group = group_of("consistent_hash", [1] * 20)
    keys = [hash_key(b"user-%d" % at) for at in range(PICKS)]
    got = count(group, keys=keys)
    mean = PICKS / 20
    assert len(got) == 20
    deviation = (sum((n - mean) ** 2 for n in got.values()) / 20) ** 0.5 / mean
    assert deviation < 0.12
    assert max(got.values()) < 1.3 * mean

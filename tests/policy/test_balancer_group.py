"""Groups: what outlives a change, who is asked when others are out, and late news."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headgate.policy.balancer import (
    ALGORITHMS,
    BalanceBy,
    BalanceRules,
    Group,
    MemberSpec,
    TierSnapshot,
    hash_key,
)
from headgate.policy.balancer.consistent_hash import ConsistentHash

ALL = get_args(BalanceBy)
SPECS = [MemberSpec("a"), MemberSpec("b"), MemberSpec("c")]


def group_of(specs, **settings):
    return Group(BalanceRules(**settings), specs, 0.0, Random(2))


def tiers_of(group):
    return group.snapshot(0.0).tiers


def seen(group, picks=300, excluded=(), now=0.0):
    return {group.pick(now, hash_key(b"%d" % at), excluded).id for at in range(picks)}


def shares(group, picks=4000):
    got = Counter(group.pick(0.0, hash_key(b"%d" % at)).id[0] for at in range(picks))
    return {first: count / picks for first, count in got.items()}


def out(group, *ids):
    for member_id in ids:
        group.set_usable(member_id, False, "down", 1.0)


@pytest.mark.parametrize("by", ALL)
def test_nobody_is_there_to_be_picked(by):
    assert group_of([], by=by).pick(0.0) is None
    assert group_of([MemberSpec("a", 0)], by=by).pick(0.0) is None
    assert group_of([MemberSpec("a", -3)], by=by).pick(0.0) is None


@pytest.mark.parametrize("by", ALL)
def test_one_member_serves_everything(by):
    group = group_of([MemberSpec("a")], by=by)
    assert seen(group) == {"a"}
    assert group.pick(0.0, 0, group.members) is None


@pytest.mark.parametrize("by", ALL)
def test_a_member_that_is_out_is_not_picked_and_comes_back(by):
    group = group_of(SPECS, by=by)
    assert seen(group) == {"a", "b", "c"}
    assert group.set_usable("b", False, "500s", 1.0)
    assert seen(group) == {"a", "c"}
    assert group.snapshot(3.5).members[1].out_reason == "500s"
    assert group.snapshot(3.5).members[1].since_s == 2.5
    assert group.set_usable("b", True, None, 4.0)
    assert seen(group) == {"a", "b", "c"}
    assert group.snapshot(5.0).members[1].out_reason is None


def test_news_that_changes_nothing_says_so_but_a_new_reason_is_taken():
    group = group_of(SPECS)
    assert not group.set_usable("a", True, None, 1.0)
    assert not group.set_usable("stranger", False, "down", 1.0)
    assert group.set_usable("a", False, "down", 1.0)
    assert not group.set_usable("a", False, "ejected", 2.0)
    assert group.members[0].out_reason == "ejected"
    assert group.members[0].since == 1.0


def test_many_changes_cost_one_rebuild():
    group = group_of([MemberSpec(str(at)) for at in range(50)])
    group.pick(0.0)
    (pool,) = group._pools.values()
    before = pool._step
    for at in range(20):
        group.set_usable(str(at), False, "down", 0.0)
        assert pool._step is before
    assert len(seen(group)) == 30


@pytest.mark.parametrize("by", ALL)
def test_when_all_usable_are_excluded_the_answer_is_none(by):
    group = group_of(SPECS, by=by, panic=0.0)
    out(group, "c")
    assert group.pick(0.0, 5, group.members[:2]) is None
    assert group.pick(0.0, 5, group.members[:1]).id == "b"


@pytest.mark.parametrize("by", ALL)
def test_a_retry_may_use_a_backup_that_has_no_share(by):
    group = group_of([MemberSpec("a"), MemberSpec("b", 1, 1), MemberSpec("c", 1, 2)], by=by)
    a, b, c = group.members
    assert seen(group) == {"a"}
    assert group.pick(0.0, 5, (a,)) is b
    assert group.pick(0.0, 5, (a, b)) is c
    assert group.pick(0.0, 5, (a, b, c)) is None


@pytest.mark.parametrize("by", ALL)
def test_a_tier_overflows_to_its_backups_in_proportion(by):
    specs = [MemberSpec(f"a{at}") for at in range(10)] + [
        MemberSpec(f"b{at}", 1, 1) for at in range(4)
    ]
    group = group_of(specs, by=by, spill=0.7)
    assert shares(group) == {"a": 1.0}
    out(group, "a0", "a1", "a2")
    assert shares(group) == {"a": 1.0}
    out(group, "a3", "a4", "a5")
    assert shares(group)["b"] == pytest.approx(3 / 7, abs=0.05)
    out(group, *(f"a{at}" for at in range(10)))
    assert shares(group) == {"b": 1.0}
    for at in range(10):
        group.set_usable(f"a{at}", True, None, 2.0)
    assert shares(group) == {"a": 1.0}


@pytest.mark.parametrize("by", ALL)
def test_in_panic_health_is_not_believed(by):
    group = group_of(SPECS, by=by, panic=0.5)
    out(group, "a")
    assert seen(group) == {"b", "c"}
    out(group, "b")
    assert seen(group) == {"a", "b", "c"}
    assert tiers_of(group) == (TierSnapshot(0, 1.0, 1 / 3, True, None),)
    out(group, "c")
    assert seen(group) == {"a", "b", "c"}
    group.set_usable("a", True, None, 2.0)
    group.set_usable("b", True, None, 2.0)
    assert seen(group) == {"a", "b"}
    assert not tiers_of(group)[0].is_panicking


def test_with_panic_off_nothing_usable_is_none():
    group = group_of(SPECS, panic=0.0)
    out(group, "a", "b", "c")
    assert group.pick(0.0) is None
    assert tiers_of(group)[0].share == 0.0


def test_the_first_tier_is_not_in_panic_while_a_backup_can_serve():
    group = group_of([*SPECS, MemberSpec("z", 1, 1)])
    out(group, "a", "b", "c")
    assert seen(group) == {"z"}
    assert [tier.share for tier in tiers_of(group)] == [0.0, 1.0]
    out(group, "z")
    assert seen(group) == {"a", "b", "c"}
    assert [tier.is_panicking for tier in tiers_of(group)] == [True, False]


@pytest.mark.parametrize("by", ALL)
def test_the_own_zone_is_preferred_while_enough_of_it_is_usable(by):
    specs = [MemberSpec(f"a{at}", 1, 0, "east") for at in range(10)]
    specs += [MemberSpec(f"b{at}", 1, 0, "west") for at in range(10)]
    group = group_of(specs, by=by, zone="east", zone_spill=0.7)
    assert shares(group) == {"a": 1.0}
    out(group, "a0", "a1", "a2")
    assert shares(group) == {"a": 1.0}
    out(group, "a3", "a4", "a5")
    assert shares(group)["b"] == pytest.approx(3 / 7, abs=0.05)
    assert tiers_of(group)[0].own_zone_share == pytest.approx(4 / 7)
    out(group, *(f"a{at}" for at in range(10)))
    assert shares(group) == {"b": 1.0}


def test_a_retry_leaves_the_zone_before_it_gives_up():
    specs = [
        MemberSpec("a", 1, 0, "east"),
        MemberSpec("b", 1, 0, "west"),
        MemberSpec("c", 1, 1, "east"),
    ]
    group = group_of(specs, zone="east")
    a, b, c = group.members
    assert group.pick(0.0) is a
    assert group.pick(0.0, 0, (a,)) is b
    assert group.pick(0.0, 0, (a, b)) is c


@pytest.mark.parametrize("zone", ["", "north"])
def test_a_zone_that_nobody_is_in_changes_nothing(zone):
    specs = [MemberSpec("a", 1, 0, "east"), MemberSpec("b", 1, 0, "west")]
    group = group_of(specs, zone=zone)
    assert seen(group) == {"a", "b"}
    assert tiers_of(group)[0].own_zone_share is None


def test_a_tier_that_is_all_in_the_own_zone_is_one_pool():
    specs = [MemberSpec("a", 1, 0, "east"), MemberSpec("b", 1, 0, "east")]
    group = group_of(specs, zone="east")
    assert seen(group) == {"a", "b"}
    assert tiers_of(group)[0].own_zone_share is None


def test_panic_does_not_stop_at_the_zone():
    specs = [MemberSpec(f"a{at}", 1, 0, "east") for at in range(3)]
    specs += [MemberSpec(f"b{at}", 1, 0, "west") for at in range(3)]
    group = group_of(specs, zone="east")
    out(group, "a0", "a1", "a2", "b0")
    assert seen(group) == {spec.id for spec in specs}


@pytest.mark.parametrize("by", ALL)
def test_a_drained_member_is_out_of_work_in_panic_too_and_is_not_missed(by):
    group = group_of(SPECS, by=by)
    assert group.set_drained("a", True, 1.0)
    assert group.set_drained("b", True, 1.0)
    assert not group.set_drained("b", True, 1.0)
    assert not group.set_drained("stranger", True, 1.0)
    assert seen(group) == {"c"}
    assert not tiers_of(group)[0].is_panicking
    assert tiers_of(group)[0].usable_share == 1.0
    out(group, "c")
    assert seen(group) == {"c"}
    assert [m.is_drained for m in group.snapshot(1.0).members] == [True, True, False]
    group.update(BalanceRules(by=by), SPECS, 2.0)
    assert seen(group) == {"c"}
    assert group.set_drained("a", False, 3.0)
    group.set_usable("c", True, None, 3.0)
    assert seen(group) == {"a", "c"}


def test_what_is_in_flight_is_counted():
    group = group_of(SPECS)
    member = group.pick(0.0)
    group.started(member)
    group.started(member)
    assert member.in_flight == 2
    group.finished(member, 0.1, False, 1.0)
    assert member.in_flight == 1
    group.finished(member, 0.1, False, 1.0)
    group.finished(member, 0.1, False, 1.0)
    assert member.in_flight == 0


@pytest.mark.parametrize("by", ALL)
def test_late_results_of_one_that_is_gone_or_out_touch_nobody(by):
    group = group_of(SPECS, by=by, panic=0.0)
    a, b, c = group.members
    group.pick(0.0)
    for member in (a, b, c):
        group.started(member)
    group.update(BalanceRules(by=by, panic=0.0), SPECS[1:], 1.0)
    out(group, "b")
    group.pick(1.0)
    assert a.index == -1
    group.finished(a, 9.0, True, 2.0)
    group.finished(b, 9.0, True, 2.0)
    group.started(a)  # a connection that was waited for
    group.finished(a, 9.0, True, 2.0)
    assert [m.in_flight for m in (a, b, c)] == [0, 0, 1]
    assert a.ewma_s == b.ewma_s == 0.0
    assert seen(group) == {"c"}
    group.set_usable("b", True, None, 3.0)
    group.finished(c, 0.1, False, 3.0)
    assert seen(group, now=3.0) == {"b", "c"}
    if by == "consistent_hash":
        assert [pool._in_flight for pool in group._pools.values()] == [0]


def test_one_that_comes_back_under_its_old_id_is_another_member():
    group = group_of(SPECS)
    old = group.members[0]
    group.started(old)
    out(group, "a")
    group.update(BalanceRules(), SPECS[1:], 1.0)
    group.update(BalanceRules(), SPECS, 2.0)
    new = group.members[0]
    assert new is not old
    assert new.usable and new.in_flight == 0
    group.finished(old, 0.1, False, 3.0)
    assert new.in_flight == 0


@pytest.mark.parametrize("by", ALL)
def test_a_reload_keeps_what_is_known_of_those_that_stay(by):
    group = group_of(SPECS, by="least_connections")
    a, b, c = group.members
    group.started(b)
    out(group, "c")
    group.pick(2.0)
    group.update(
        BalanceRules(by=by), [MemberSpec("c"), MemberSpec("b", 5, 1, "x"), MemberSpec("d")], 9.0
    )
    assert [m.id for m in group.members] == ["c", "b", "d"]
    assert [m.index for m in group.members] == [0, 1, 2]
    assert group.members[:2] == (c, b)
    assert (b.in_flight, b.weight, b.priority, b.zone) == (1, 5, 1, "x")
    assert not c.usable and c.since == 1.0
    assert group.snapshot(9.0).by == by
    assert {type(pool) for pool in group._pools.values()} == {ALGORITHMS[by]}
    assert seen(group) == {"d", "b"}  # half of the first tier is out: 0.5 / 0.7 reaches 5 of 7
    assert a.index == -1


def test_the_pools_of_rules_that_stay_are_kept():
    group = group_of(SPECS, by="least_connections")
    group.pick(0.0)
    before = dict(group._pools)
    group.update(BalanceRules(by="least_connections"), [*SPECS, MemberSpec("d")], 1.0)
    group.pick(1.0)
    assert group._pools == before
    group.update(BalanceRules(by="least_connections"), [MemberSpec("a", 1, 7)], 1.0)
    group.pick(1.0)
    assert list(group._pools) == [(7, "all")]


def test_an_id_listed_twice_is_one_member_with_both_weights():
    group = group_of([MemberSpec("a", 1), MemberSpec("b", 2), MemberSpec("a", 3)])
    assert [(m.id, m.weight) for m in group.members] == [("a", 4), ("b", 2)]


def test_pools_that_have_nobody_hold_nobody():
    specs = [MemberSpec("a", 1, 0, "east"), MemberSpec("b", 1, 0, "west")]
    group = group_of(specs, zone="east", panic=0.9, spill=1.0)
    group.pick(0.0)
    out(group, "a")
    group.pick(0.0)
    assert tiers_of(group)[0].is_panicking
    assert {key: len(pool.members) for key, pool in group._pools.items()} == {
        (0, "own"): 0,
        (0, "others"): 0,
        (0, "all"): 2,
    }


class AnyOrder(RuleBasedStateMachine):
    """Every algorithm in one group, in any order of calls, against what may be picked at all."""

    @initialize(
        by=st.sampled_from(ALL),
        zone=st.sampled_from(["", "x"]),
        slow_start_s=st.sampled_from([0.0, 10.0]),
        panic=st.sampled_from([0.0, 0.5]),
        seed=st.integers(0, 5),
    )
    def begin(self, by, zone, slow_start_s, panic, seed):
        self.settled = BalanceRules(by=by, zone=zone, slow_start_s=slow_start_s, panic=panic)
        self.now = 0.0
        self.flying = []
        self.specs = [MemberSpec(str(at), 1, at // 3, "xy"[at % 2]) for at in range(4)]
        self.group = Group(self.settled, self.specs, 0.0, Random(seed))

    @rule(excluded=st.sets(st.integers(0, 7), max_size=4), key=st.integers(0, 2**64 - 1))
    def start(self, excluded, key):
        members = self.group.members
        out_of_it = [members[at] for at in excluded if at < len(members)]
        got = self.group.pick(self.now, key, out_of_it)
        tiers = {tier.priority: tier for tier in self.group.snapshot(self.now).tiers}
        working = [m for m in members if m.weight and not m.drained and m not in out_of_it]
        fit = [m for m in working if m.usable or tiers[m.priority].is_panicking]
        if got is None:
            assert not fit
            return
        assert got in fit
        self.group.started(got)
        self.flying.append(got)

    @precondition(lambda self: self.flying)
    @rule(which=st.integers(0, 10**6), failed=st.booleans(), took_s=st.floats(0, 10))
    def end(self, which, failed, took_s):
        member = self.flying.pop(which % len(self.flying))
        self.group.finished(member, took_s, failed, self.now)

    @rule(which=st.integers(0, 7), usable=st.booleans())
    def news(self, which, usable):
        self.group.set_usable(str(which), usable, "news", self.now)

    @rule(which=st.integers(0, 7), drained=st.booleans())
    def drain(self, which, drained):
        self.group.set_drained(str(which), drained, self.now)

    @rule(
        weights=st.lists(st.integers(0, 3), max_size=8),
        by=st.one_of(st.none(), st.sampled_from(ALL)),
        tier=st.integers(1, 8),
    )
    def reload(self, weights, by, tier):
        self.specs = [
            MemberSpec(str(at), w, at // tier, "xy"[at % 2]) for at, w in enumerate(weights)
        ]
        if by is not None:
            self.settled = BalanceRules(
                by=by,
                zone=self.settled.zone,
                slow_start_s=self.settled.slow_start_s,
                panic=self.settled.panic,
            )
        self.group.update(self.settled, self.specs, self.now)

    @rule(passed_s=st.floats(0, 20))
    def wait(self, passed_s):
        self.now += passed_s

    @invariant()
    def what_is_in_flight_is_right(self):
        if not hasattr(self, "group"):
            return
        for member in self.group.members:
            assert member.in_flight == self.flying.count(member)

    @invariant()
    def a_snapshot_adds_up(self):
        if not hasattr(self, "group"):
            return
        snapshot = self.group.snapshot(self.now)
        assert [m.id for m in snapshot.members] == [spec.id for spec in self.specs]
        total = sum(tier.share for tier in snapshot.tiers)
        assert total == pytest.approx(1) or total == 0
        for member in self.group.members:
            assert 0.1 * member.weight - 1e-9 <= member.effective <= member.weight
            if not member.warming:
                assert member.effective == member.weight
        for pool in self.group._pools.values():
            if isinstance(pool, ConsistentHash):
                assert pool._in_flight == sum(m.in_flight for m in pool.members)


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestAnyOrder = AnyOrder.TestCase


@pytest.mark.parametrize("by", ALL)
def test_an_update_says_at_once_who_is_out_of_work(by):
    group = group_of(SPECS, by=by, slow_start_s=10.0)
    group.update(BalanceRules(by=by, slow_start_s=10.0), SPECS, 1.0, {"a", "stranger"})
    assert seen(group, now=1.0) == {"b", "c"}
    # One that comes and is out of work begins its slow start when it is put to work.
    more = [*SPECS, MemberSpec("d")]
    group.update(BalanceRules(by=by, slow_start_s=10.0), more, 2.0, {"b", "d"})
    assert seen(group, now=2.0) == {"a", "c"}
    group.update(BalanceRules(by=by, slow_start_s=10.0), more, 30.0, ())
    assert [m.is_warming for m in group.snapshot(31.0).members] == (
        [False] * 4 if not ALGORITHMS[by].WARMS else [False, True, False, True]
    )
    # Whoever says nothing of it leaves it as it is.
    group.set_drained("c", True, 32.0)
    group.update(BalanceRules(by=by), more, 33.0)
    assert seen(group, now=99.0) == {"a", "b", "d"}


def test_an_id_that_is_listed_twice_weighs_the_same_after_every_update():
    twice = [MemberSpec("a", 2), MemberSpec("b"), MemberSpec("a", 3)]
    group = group_of(twice)
    for at in range(3):
        assert [m.weight for m in group.members] == [5, 1]
        group.update(BalanceRules(), twice, float(at))
    group.update(BalanceRules(), twice[:2], 9.0)
    assert [m.weight for m in group.members] == [2, 1]

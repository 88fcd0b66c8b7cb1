"""The same key to the same member; who leaves takes only its own keys away; load is bounded."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from math import ceil
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.balancer.consistent_hash import _LONG, ConsistentHash
from headgate.policy.balancer.group import BalanceRules, Group, Member, MemberSpec, hash_key

RULES = BalanceRules(by="consistent_hash", panic=0.0)
KEYS = [hash_key(b"user-%d" % at) for at in range(4000)]


def specs_of(weights):
    return [MemberSpec(f"http://10.0.0.{at}", weight) for at, weight in enumerate(weights)]


def group_of(weights, rules=RULES, seed=1):
    return Group(rules, specs_of(weights), 0.0, Random(seed))


def homes(group, keys=KEYS, excluded=()):
    return [group.pick(0.0, key, excluded).id for key in keys]


def moved(before, after):
    return {at for at, (one, other) in enumerate(zip(before, after, strict=True)) if one != other}


def test_a_key_does_not_depend_on_the_process():
    code = "from headgate.policy.balancer.group import hash_key; print(hash_key(b'user'))"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert int(out.stdout) == hash_key(b"user") == 7173623408806911919
    assert 0 < hash_key(b"") < 1 << 64


def test_a_ring_does_not_depend_on_order_or_chance():
    forwards = group_of([1] * 30)
    backwards = Group(RULES, specs_of([1] * 30)[::-1], 0.0, Random(99))
    assert homes(forwards) == homes(backwards)


def test_a_ring_that_has_changed_often_is_the_ring_made_at_once():
    rng = Random(4)
    group = group_of([1] * 10)
    for _ in range(30):
        group.update(RULES, specs_of([rng.choice((0, 1, 1, 2)) for _ in range(12)]), 0.0)
        group.pick(0.0, 1)
    weights = [1, 2, 1, 0, 1, 1, 1, 1, 2, 1, 1]
    group.update(RULES, specs_of(weights), 0.0)
    assert homes(group) == homes(group_of(weights))
    (pool,) = group._pools.values()
    assert sorted(pool._owner) == [
        label for _, label in sorted(pool._known.values(), key=lambda k: k[1])
    ]


@pytest.mark.parametrize("out_of", ["list", "use", "both"])
def test_only_the_keys_of_one_that_leaves_move(out_of):
    group = group_of([1] * 30)
    before = homes(group)
    gone = group.members[7].id
    if out_of in {"use", "both"}:
        group.set_usable(gone, False, "down", 0.0)
        while_out = homes(group)
    if out_of in {"list", "both"}:
        group.update(RULES, [spec for spec in specs_of([1] * 30) if spec.id != gone], 0.0)
    after = homes(group)
    its = {at for at, home in enumerate(before) if home == gone}
    assert its
    assert moved(before, after) == its
    if out_of == "both":
        assert after == while_out
    # They do not all fall on one neighbour.
    assert max(Counter(after[at] for at in its).values()) < len(its) / 3


def test_keys_come_back_with_their_member():
    group = group_of([1] * 10)
    before = homes(group)
    group.set_usable(group.members[3].id, False, "down", 0.0)
    homes(group)
    group.set_usable(group.members[3].id, True, None, 0.0)
    assert homes(group) == before


def test_one_that_joins_takes_keys_from_all_and_moves_no_other():
    group = group_of([1] * 30)
    before = homes(group)
    group.update(RULES, specs_of([1] * 31), 0.0)
    after = homes(group)
    came = group.members[30].id
    changed = moved(before, after)
    assert {after[at] for at in changed} == {came}
    assert len(changed) == pytest.approx(len(KEYS) / 31, rel=0.35)


def test_an_excluded_member_moves_only_its_keys():
    group = group_of([1] * 12)
    before = homes(group)
    out = group.members[5]
    after = homes(group, excluded=(out,))
    assert moved(before, after) == {at for at, home in enumerate(before) if home == out.id}


def test_weights_are_shares_of_the_ring():
    group = group_of([4, 2, 1, 1])
    got = Counter(homes(group))
    for member in group.members:
        assert got[member.id] == pytest.approx(len(KEYS) * member.weight / 8, rel=0.3)


def test_equal_weights_make_a_ring_of_equals_whatever_they_are():
    for weight in (1, 3, 100, 10_000):
        group = group_of([weight] * 20)
        homes(group, KEYS[:1])
        (pool,) = group._pools.values()
        assert 100 <= len(pool._points) / 20 <= 240


def test_requests_without_a_key_go_anywhere():
    group = group_of([1] * 5)
    assert len({group.pick(0.0).id for _ in range(200)}) == 5


def test_with_nearly_all_out_keys_still_stick_and_the_one_left_is_found():
    group = group_of([1] * 2000)
    for member in group.members[2:]:
        group.set_usable(member.id, False, "down", 0.0)
    first = homes(group, KEYS[:200])
    assert set(first) == {group.members[0].id, group.members[1].id}
    assert homes(group, KEYS[:200]) == first
    only = homes(group, KEYS[:200], excluded=(group.members[0],))
    assert set(only) == {group.members[1].id}
    assert group.pick(0.0, KEYS[0], group.members[:2]) is None


def test_a_long_ring_is_an_array_and_picks_the_same():
    weights = [1] * (_LONG // 160 + 5)
    group = group_of(weights)
    got = homes(group, KEYS[:500])
    (pool,) = group._pools.values()
    assert not isinstance(pool._points, list)
    pool._points = list(pool._points)
    assert homes(group, KEYS[:500]) == got
    group.update(RULES, specs_of(weights[:-40]), 0.0)
    short = homes(group, KEYS[:500])
    assert isinstance(pool._points, list)
    left = {member.id for member in group.members}
    assert moved(got, short) == {at for at, home in enumerate(got) if home not in left}


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=8),
    st.lists(st.tuples(st.booleans(), st.integers(0, 10**6)), max_size=150),
    st.sampled_from([1.01, 1.25, 2.0]),
)
def test_nobody_takes_more_than_the_bound_allows(weights, steps, bound):
    rules = BalanceRules(by="consistent_hash", bound=bound, bound_from=0, panic=0.0)
    group = group_of(weights, rules)
    flying: list[Member] = []
    for starts, value in steps:
        if starts or not flying:
            # A hot key: nearly all requests have it.
            member = group.pick(0.0, KEYS[value % 2])
            share = member.weight / sum(weights)
            assert member.in_flight + 1 <= ceil(bound * (len(flying) + 1) * share * (1 + 1e-12))
            group.started(member)
            flying.append(member)
        else:
            group.finished(flying.pop(value % len(flying)), 0.01, False, 0.0)
    assert all(member.in_flight == flying.count(member) for member in group.members)


def test_the_bound_follows_what_is_usable():
    rules = BalanceRules(by="consistent_hash", bound=1.5, bound_from=0, panic=0.0)
    group = group_of([1] * 4, rules)
    for _ in range(40):
        group.started(group.pick(0.0, KEYS[0]))
    assert max(member.in_flight for member in group.members) == 15
    out = [member for member in group.members if member.in_flight < 15][:2]
    for member in out:
        group.set_usable(member.id, False, "down", 0.0)
    for member in out:  # late results of those that are out are not the others' load
        while member.in_flight:
            group.finished(member, 0.01, False, 0.0)
    (pool,) = group._pools.values()
    group.pick(0.0, KEYS[0])
    assert pool._in_flight == sum(member.in_flight for member in group.members)
    for _ in range(40):
        group.started(group.pick(0.0, KEYS[0]))
    assert max(member.in_flight for member in group.members) <= ceil(1.5 * pool._in_flight / 2)


def test_in_an_idle_group_a_key_is_at_home_whatever_the_bound():
    bounded = BalanceRules(by="consistent_hash", bound=1.25, bound_from=0)
    unbounded = BalanceRules(by="consistent_hash", bound=0.0)
    assert homes(group_of([1, 2, 3, 4], bounded)) == homes(group_of([1, 2, 3, 4], unbounded))


def test_a_few_requests_at_once_are_kept_together():
    rules = BalanceRules(by="consistent_hash", bound=1.25, bound_from=8)
    group = group_of([1] * 10, rules)
    got = []
    for _ in range(9):
        member = group.pick(0.0, KEYS[0])
        group.started(member)
        got.append(member.id)
    assert len(set(got[:8])) == 1
    assert got[8] != got[0]


def test_without_a_bound_a_key_stays_whatever_the_load():
    group = group_of([1] * 10, BalanceRules(by="consistent_hash", bound=0.0))
    got = set()
    for _ in range(100):
        member = group.pick(0.0, KEYS[0])
        group.started(member)
        got.add(member.id)
    assert len(got) == 1


def test_when_all_with_room_are_excluded_the_least_loaded_of_the_others_serves():
    rules = BalanceRules(by="consistent_hash", bound=1.25, bound_from=0)
    group = group_of([1] * 4, rules)
    for member, load in zip(group.members, (9, 7, 0, 0), strict=True):
        for _ in range(load):
            group.started(member)
    group.pick(0.0, KEYS[0])
    assert homes(group, KEYS[:50], excluded=group.members[2:]) == [group.members[1].id] * 50


def test_pools_share_keys_and_not_requests():
    rules = BalanceRules(by="consistent_hash", spill=1.0, panic=0.0)
    specs = [MemberSpec(f"a{at}") for at in range(10)] + [
        MemberSpec(f"b{at}", 1, 1) for at in range(10)
    ]
    group = Group(rules, specs, 0.0, Random(1))
    before = homes(group)
    for at in range(5):
        group.set_usable(f"a{at}", False, "down", 0.0)
    after = homes(group)
    assert homes(group) == after
    assert sum(home.startswith("b") for home in after) / len(KEYS) == pytest.approx(0.5, abs=0.05)
    stayed = [at for at, home in enumerate(before) if home[1] > "4" and after[at].startswith("a")]
    assert all(before[at] == after[at] for at in stayed)


def test_the_ring_is_not_made_anew_when_health_changes(monkeypatch):
    group = group_of([1] * 10)
    homes(group, KEYS[:10])
    monkeypatch.setattr(ConsistentHash, "know", lambda self, members: pytest.fail("made anew"))
    group.set_usable(group.members[0].id, False, "down", 0.0)
    homes(group, KEYS[:10])


@pytest.mark.parametrize("many", [3, 410, 600], ids=["short", "about-long", "long"])
def test_a_ring_that_changed_step_by_step_is_the_ring_of_those_who_are_left(many):
    specs = [MemberSpec(f"http://10.0.{at // 250}.{at % 250}") for at in range(many)]
    rules = BalanceRules(by="consistent_hash")
    group = Group(rules, specs, 0.0, Random(1))
    rng = Random(3)
    listed = list(specs)
    for step in range(3):
        listed.pop(rng.randrange(len(listed)))
        listed.append(MemberSpec(f"http://10.9.9.{step}", rng.choice((1, 2))))
        group.update(rules, listed, float(step))
        anew = Group(rules, listed, 0.0, Random(1))
        assert homes(group, KEYS[:200]) == homes(anew, KEYS[:200])

"""Least connections against a model that looks at every member, every time."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.balancer.group import BalanceRules, Group, Member, MemberSpec
from headgate.policy.balancer.least_connections import LeastConnections
from tests.policy.simulation_balancing import pick

RULES = BalanceRules(by="least_connections", panic=0.0)


def group_of(weights):
    specs = [MemberSpec(str(at), weight) for at, weight in enumerate(weights)]
    return Group(RULES, specs, 0.0, Random(1))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("start"), st.sets(st.integers(0, 5), max_size=3)),
        st.tuples(st.just("pick"), st.sets(st.integers(0, 5), max_size=6)),
        st.tuples(st.just("end"), st.integers(0, 10**6)),
        st.tuples(st.just("flip"), st.integers(0, 5)),
    ),
    max_size=200,
)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), STEPS)
def test_nobody_has_less_for_its_weight_than_the_one_picked(weights, steps):
    group = group_of(weights)
    members = group.members
    flying: list[Member] = []
    for what, value in steps:
        if what == "end":
            if flying:
                group.finished(flying.pop(value % len(flying)), 0.01, False, 0.0)
        elif what == "flip":
            if value < len(members):
                group.set_usable(str(value), not members[value].usable, "flipped", 0.0)
        else:
            excluded = [members[at] for at in value if at < len(members)]
            fit = [m for m in members if m.usable and m.weight and m not in excluded]
            got = group.pick(0.0, 0, excluded)
            if not fit:
                assert got is None
                continue
            assert got in fit
            least = min(m.in_flight / m.weight for m in fit)
            assert got.in_flight / got.weight <= least + 1e-9
            if what == "start":
                group.started(got)
                flying.append(got)
    assert Counter(m.id for m in flying) == Counter(
        {m.id: m.in_flight for m in members if m.in_flight}
    )


def test_an_idle_group_takes_turns():
    group = group_of([1] * 5)
    got = []
    for _ in range(10):
        member = pick(group)
        group.started(member)
        group.finished(member, 0.01, False, 0.0)
        got.append(member.id)
    assert set(got[:5]) == set("01234")
    assert got[:5] == got[5:]


def test_an_idle_group_takes_turns_by_weight():
    group = group_of([3, 1])
    got = Counter(pick(group).id for _ in range(400))
    assert abs(got["0"] - 300) <= 1


def test_turns_missed_under_load_are_not_made_up_for():
    group = group_of([1] * 4)
    busy = group.members[0]
    for _ in range(3):
        group.started(busy)
    for _ in range(300):
        assert pick(group) is not busy
    for _ in range(3):
        group.finished(busy, 0.01, False, 0.0)
    got = Counter(pick(group).id for _ in range(40))
    assert got[busy.id] <= 11


def test_a_member_from_another_tier_waits_no_longer_than_the_others():
    rules = BalanceRules(by="least_connections")
    backup = [MemberSpec("0", 1, 1), MemberSpec("1", 1, 1)]
    group = Group(rules, [*backup, MemberSpec("2")], 0.0, Random(1))
    for _ in range(1000):
        assert pick(group).id == "2"
    group.update(rules, [MemberSpec("2", 1, 1), *backup], 0.0)
    got = Counter(pick(group).id for _ in range(300))
    assert got == {"0": 100, "1": 100, "2": 100}


def test_of_thousands_of_requests_each_goes_where_least_is():
    group = group_of([1, 2, 3, 5, 8])
    rng = Random(5)
    flying: list[Member] = []
    for at in range(6000):
        # In waves, so that members go up and down through many loads.
        if flying and rng.random() < (0.3 if at // 100 % 2 else 0.7):
            group.finished(flying.pop(rng.randrange(len(flying))), 0.01, False, 0.0)
        else:
            member = pick(group)
            least = min(m.in_flight / m.weight for m in group.members)
            assert member.in_flight / member.weight <= least + 1e-9
            group.started(member)
            flying.append(member)


def test_entries_of_the_past_give_nobody_a_turn_more():
    group = group_of([1] * 4)
    for _ in range(8):
        group.started(pick(group))
    # Two of the four go down to nothing and up again, past entries that were right once.
    for member, ends in zip(group.members, (2, 2, 1, 1), strict=True):
        for _ in range(ends):
            group.finished(member, 0.01, False, 0.0)
    for member in group.members[:2]:
        group.started(member)
    got = Counter(pick(group).id for _ in range(40))
    assert all(9 <= got[member.id] <= 11 for member in group.members)


def test_entries_of_the_past_are_cleared_away():
    group = group_of([1, 2, 3])
    pick(group)
    (pool,) = group._pools.values()
    assert isinstance(pool, LeastConnections)
    for _ in range(50):
        member = pick(group)
        group.started(member)
        group.finished(member, 0.01, False, 0.0)
    assert len(pool._heap) == 3  # an idle group makes none
    flying: list[Member] = []
    for _ in range(200):
        member = pick(group)
        group.started(member)
        flying.append(member)
    while flying:
        group.finished(flying.pop(), 0.01, False, 0.0)
        assert len(pool._heap) <= 4 * 3 + 16

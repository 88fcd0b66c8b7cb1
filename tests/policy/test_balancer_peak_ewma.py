"""Peak EWMA: up at once, down slowly, failures are slow, newcomers are neither mobbed nor shunned."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from headgate.policy.balancer.group import BalanceRules, Group, MemberSpec
from tests.policy.simulation_balancing import pick

RULES = BalanceRules(by="peak_ewma", decay_s=10.0)


def group_of(count, rules=RULES):
    return Group(rules, [MemberSpec(str(at)) for at in range(count)], 0.0, Random(7))


def serve(group, member, took_s, now, failed=False):
    group.started(member)
    group.finished(member, took_s, failed, now)


def counted(group, picks, now):
    return Counter(group.pick(now).id for _ in range(picks))


def test_a_slow_answer_counts_at_once_and_is_forgotten_slowly():
    group = group_of(1)
    (member,) = group.members
    group.pick(0.0)
    serve(group, member, 0.01, 1.0)
    serve(group, member, 1.0, 2.0)
    assert member.ewma_s == 1.0
    serve(group, member, 0.01, 3.0)
    # e**-0.1 of the old is left after a tenth of the decay
    assert member.ewma_s == pytest.approx(0.01 + 0.99 * 0.904837, rel=1e-4)
    serve(group, member, 0.01, 103.0)
    assert member.ewma_s == pytest.approx(0.01, rel=0.02)


def test_the_quicker_of_two_is_chosen():
    group = group_of(2)
    group.pick(0.0)
    serve(group, group.members[0], 0.005, 0.0)
    serve(group, group.members[1], 0.050, 0.0)
    assert counted(group, 100, 0.0) == {"0": 100}


def test_load_makes_up_for_latency():
    group = group_of(2)
    group.pick(0.0)
    serve(group, group.members[0], 0.010, 0.0)
    serve(group, group.members[1], 0.035, 0.0)
    got = []
    for _ in range(8):
        member = group.pick(0.0)
        group.started(member)
        got.append(member.id)
    assert got == ["0", "0", "0", "1", "0", "0", "0", "1"]


def test_a_refusal_in_no_time_does_not_look_quick():
    group = group_of(2)
    group.pick(0.0)
    for _ in range(3):
        serve(group, group.members[0], 0.010, 0.0)
    serve(group, group.members[1], 0.0001, 0.0, failed=True)
    assert group.members[1].ewma_s == pytest.approx(0.020)
    assert counted(group, 50, 0.0) == {"0": 50}


def test_failures_in_a_row_count_for_more_but_not_for_ever():
    group = group_of(2)
    group.pick(0.0)
    for _ in range(3):
        serve(group, group.members[0], 0.010, 0.0)
    seen = []
    for _ in range(12):
        serve(group, group.members[1], 0.0001, 0.0, failed=True)
        seen.append(group.members[1].ewma_s)
    assert seen[:3] == pytest.approx([0.02, 0.04, 0.08])
    assert seen[-1] == pytest.approx(0.2)  # 20 times the typical


def test_a_failure_counts_what_it_took_if_that_is_more():
    group = group_of(2)
    group.pick(0.0)
    serve(group, group.members[0], 0.010, 0.0)
    serve(group, group.members[0], 5.0, 0.0, failed=True)
    assert group.members[0].ewma_s == 5.0


def test_a_first_failure_is_not_the_best_there_is():
    group = group_of(3)
    group.pick(0.0)
    serve(group, group.members[0], 0.0, 0.0, failed=True)
    assert counted(group, 300, 0.0)["0"] == 0


def test_who_is_avoided_is_asked_again_some_time():
    group = group_of(2)
    group.pick(0.0)
    serve(group, group.members[0], 2.0, 0.0)
    for at in range(1000):
        now = 0.1 * at
        member = group.pick(now)
        if member is group.members[0]:
            break
        serve(group, member, 0.010, now)
    else:
        pytest.fail("never asked again")
    assert 45 < now < 60  # 10 s times ln(200) is 53 s


def test_a_frozen_instance_gets_one_request_at_a_time():
    group = group_of(2)
    group.pick(0.0)
    frozen, quick = group.members
    serve(group, frozen, 0.5, 0.0)
    most = 0
    for at in range(2000):
        now = 0.1 * at
        member = group.pick(now)
        group.started(member)
        if member is quick:
            group.finished(member, 0.010, False, now)
        most = max(most, frozen.in_flight)
    assert most == 1


def test_a_newcomer_is_neither_mobbed_nor_shunned():
    group = group_of(4)
    now = 0.0
    for at in range(400):
        now = 0.01 * at
        serve(group, group.pick(now), 0.050, now)
    specs = [MemberSpec(str(at)) for at in range(5)]
    group.update(RULES, specs, now)
    got = Counter[str]()
    for _ in range(40):  # nobody has answered yet
        member = group.pick(now)
        group.started(member)
        got[member.id] += 1
    assert 4 <= got["4"] <= 12


def test_latency_outlives_a_reload():
    group = group_of(2)
    group.pick(0.0)
    serve(group, group.members[0], 0.3, 0.0)
    group.update(RULES, [MemberSpec("1"), MemberSpec("0", 2)], 1.0)
    group.pick(1.0)
    assert {m.id: m.latency_s for m in group.snapshot(1.0).members} == {"0": 0.3, "1": 0.0}


def test_a_busy_group_fills_by_weight():
    specs = [MemberSpec("heavy", 3), MemberSpec("light", 1)]
    group = Group(RULES, specs, 0.0, Random(7))
    group.pick(0.0)
    for member in group.members:
        serve(group, member, 0.010, 0.0)
    for _ in range(80):
        group.started(pick(group))
    heavy, light = group.members
    assert heavy.in_flight == pytest.approx(3 * light.in_flight, abs=6)

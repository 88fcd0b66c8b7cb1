"""Several limits at once: all or nothing, and the tightest is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.limiter import (
    LIMITERS,
    Ask,
    Decision,
    LeaseRules,
    LimitRules,
    Pending,
    Rule,
    RuleSet,
    home_of,
    leased_of,
    make,
)

ALGORITHMS = sorted(LIMITERS)


def limiter(limit, period_s=60.0, algorithm="fixed_window"):
    return make(LimitRules(limit=limit, period_s=period_s, algorithm=algorithm))


def left(rules, keys, now=5.0):
    return [
        rule.limiter.peek(key, now, 0).remaining
        for rule, key in zip(rules.rules, keys, strict=True)
    ]


def decided(got):
    assert isinstance(got, Decision)
    return got


def test_all_are_charged_when_all_agree():
    rules = RuleSet([Rule("a", limiter(5)), Rule("b", limiter(3), cost=2)])
    decision = decided(rules.hit(["x", "y"], 5.0))
    assert decision.allowed
    assert left(rules, ["x", "y"]) == [4, 1]
    assert decision.tightest == 1
    assert decision.verdict is decision.verdicts[1]
    decision = decided(RuleSet([Rule("a", limiter(5))]).hit(["x"], 5.0))
    assert decision.verdict is decision.verdicts[0]


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_none_is_charged_when_one_refuses(at, algorithm):
    rules = RuleSet([Rule(str(number), limiter(5, 60.0, algorithm)) for number in range(3)])
    rules.rules[at].limiter.hit("key", 5.0, 5)
    before = left(rules, ["key"] * 3)
    for _ in range(3):
        decision = decided(rules.hit(["key"] * 3, 5.0))
        assert not decision.allowed
        assert decision.tightest == at
        assert [verdict.remaining for verdict in decision.verdicts if verdict] == before
    assert left(rules, ["key"] * 3) == before


@given(
    st.lists(st.tuples(st.integers(1, 6), st.sampled_from(ALGORITHMS)), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.1, 3.0])), max_size=30),
)
def test_a_set_passes_what_every_limit_alone_would_pass(kinds, hits):
    rules = RuleSet([Rule("r", limiter(limit, 10.0, kind)) for limit, kind in kinds])
    copies = [limiter(limit, 10.0, kind) for limit, kind in kinds]
    now = 3.0
    for cost, step in hits:
        now += step
        expected = all(copy.peek("key", now, cost).allowed for copy in copies)
        decision = decided(rules.hit(["key"] * len(kinds), now, [cost] * len(kinds)))
        assert decision.allowed == expected
        if expected:
            for copy in copies:
                copy.hit("key", now, cost)
        assert left(rules, ["key"] * len(kinds), now) == [
            copy.peek("key", now, 0).remaining for copy in copies
        ]


def test_of_those_that_refuse_the_longest_is_told():
    rules = RuleSet([Rule("second", limiter(1, 1.0)), Rule("day", limiter(1, 86_400.0))])
    rules.hit(["k", "k"], 0.5)
    decision = decided(rules.hit(["k", "k"], 0.5))
    assert decision.tightest == 1
    assert decision.verdict is not None
    assert decision.verdict.retry_after_s == pytest.approx(86_399.5)


def test_a_rule_that_does_not_apply_is_left_out():
    rules = RuleSet([Rule("user", limiter(1)), Rule("all", limiter(9))])
    for _ in range(3):
        decision = decided(rules.hit([None, "k"], 5.0))
        assert decision.allowed
        assert decision.verdicts[0] is None
        assert decision.tightest == 1
    nothing = decided(rules.hit([None, None], 5.0))
    assert nothing.allowed
    assert (nothing.tightest, nothing.verdict) == (-1, None)
    assert decided(RuleSet([]).hit([], 5.0)).allowed


def test_keys_and_costs_are_by_rule():
    rules = RuleSet([Rule("a", limiter(5)), Rule("b", limiter(3))])
    for keys, costs in ((["x"], None), (["x", "y", "z"], None), (["x", "y"], [1])):
        with pytest.raises(ValueError, match="2 rules"):
            rules.hit(keys, 5.0, costs)


def test_a_shadow_counts_and_never_refuses():
    rules = RuleSet([Rule("trial", limiter(2), shadow=True), Rule("real", limiter(4))])
    decisions = [decided(rules.hit(["k", "k"], 5.0)) for _ in range(6)]
    assert [decision.allowed for decision in decisions] == [True] * 4 + [False] * 2
    assert [decision.shadowed for decision in decisions] == [(), (), (0,), (0,), (0,), (0,)]
    assert {decision.tightest for decision in decisions} == {1}


def test_a_refused_hit_does_not_count_in_a_shadow():
    rules = RuleSet([Rule("trial", limiter(2), shadow=True), Rule("real", limiter(1))])
    for _ in range(5):
        rules.hit(["k", "k"], 5.0)
    assert left(rules, ["k", "k"]) == [1, 0]


def test_seats_are_left_and_hits_refunded():
    rules = RuleSet([Rule("seats", limiter(3, 1.0, "concurrency")), Rule("rate", limiter(9))])
    decision = decided(rules.hit(["k", "k"], 5.0))
    rules.leave(decision, 6.0)
    assert left(rules, ["k", "k"]) == [3, 8]
    rules.refund(decision, 6.0)
    assert left(rules, ["k", "k"]) == [3, 9]


def test_what_was_not_charged_is_not_refunded():
    rules = RuleSet([Rule("trial", limiter(1), shadow=True), Rule("real", limiter(9))])
    rules.hit(["k", "k"], 5.0)
    decision = decided(rules.hit(["k", "k"], 5.0))
    assert decision.shadowed == (0,)
    rules.refund(decision, 5.0)
    assert left(rules, ["k", "k"]) == [0, 8]


def test_a_price_named_afterwards_is_taken_from_all_but_the_seats():
    rules = RuleSet([Rule("seats", limiter(3, 1.0, "concurrency")), Rule("rate", limiter(9))])
    decision = decided(rules.hit(["k", "k"], 5.0))
    rules.charge(decision, 20, 5.0)
    assert left(rules, ["k", "k"]) == [2, 0]


# ---- with leases


def leased(limit, period_s=60.0):
    rules = LimitRules(limit=limit, period_s=period_s, algorithm="fixed_window")
    return leased_of(rules, LeaseRules(share=0.0), 2), home_of(rules)


def grants(pending, homes, now=5.0):
    return [
        homes[at].grant(ask.key, ask.want, ask.least, "w", now, ask.owed)
        for at, ask in pending.asks
    ]


def test_limits_that_must_ask_are_asked_together():
    one, other = leased(5), leased(3)
    rules = RuleSet([Rule("a", one[0]), Rule("own", limiter(9)), Rule("b", other[0])])
    pending = rules.hit(["x", "y", "z"], 5.0)
    assert isinstance(pending, Pending)
    assert [(at, ask.key) for at, ask in pending.asks] == [(0, "x"), (2, "z")]
    decision = rules.settle(pending, grants(pending, {0: one[1], 2: other[1]}), 5.1)
    assert decision.allowed
    assert decision.tightest == 2
    assert rules.rules[1].limiter.peek("y", 5.1).remaining == 8


def test_when_a_home_refuses_nobody_is_charged():
    one, other = leased(5), leased(3)
    rules = RuleSet([Rule("a", one[0]), Rule("own", limiter(9)), Rule("b", other[0])])
    other[1].grant("z", 3, 3, "another", 5.0)
    pending = rules.hit(["x", "y", "z"], 5.0)
    assert isinstance(pending, Pending)
    decision = rules.settle(pending, grants(pending, {0: one[1], 2: other[1]}), 5.1)
    assert not decision.allowed
    assert decision.tightest == 2
    assert rules.rules[1].limiter.peek("y", 5.1).remaining == 9
    for back in one[0].expired(5.1):
        one[1].give_back(back.key, back.n, 5.1, "w", back.at)
    assert one[1].grant("x", 0, 0, "w", 5.1).remaining == 5


def test_when_an_own_limit_refuses_no_home_is_asked():
    one = leased(5)
    rules = RuleSet([Rule("a", one[0]), Rule("own", limiter(1))])
    rules.rules[1].limiter.hit("y", 5.0)
    one[0].charge("x", 2, 5.0)
    decision = decided(rules.hit(["x", "y"], 5.0))
    assert not decision.allowed
    assert decision.tightest == 1
    assert decision.verdicts[0] is not None
    # What the ask would have told is told later.
    assert [ask.owed for ask in one[0].wants(5.0)] == [2]
    assert one[0].expired(5.0) == []


def test_an_ask_without_answer_is_decided_by_its_fail_mode():
    one = leased(4)
    rules = RuleSet([Rule("a", one[0])])
    passed = 0
    for _ in range(4):
        pending = rules.hit(["x"], 5.0)
        assert isinstance(pending, Pending)
        passed += rules.settle(pending, [None], 5.1).allowed
    assert passed == 2  # its share of 4 among 2 workers


def test_a_set_of_leases_gives_back_what_it_took():
    one = leased(5)
    rules = RuleSet([Rule("a", one[0], cost=2)])
    pending = rules.hit(["x"], 5.0)
    assert isinstance(pending, Pending)
    assert isinstance(pending.asks[0][1], Ask)
    decision = rules.settle(pending, grants(pending, {0: one[1]}), 5.1)
    rules.refund(decision, 6.0)
    assert sum(back.n for back in one[0].expired(6.0)) == 2

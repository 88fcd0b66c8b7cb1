"""The home's book: rules that change, holders that die, bounds."""

from __future__ import annotations

import pytest

from headgate.policy.limiter.lease import Ask, Back
from headgate.policy.limiter.rules import LimitRules
from headgate.state.ledger import IDLE_S, Ledger

TEN = LimitRules(limit=10, period_s=10.0, algorithm="fixed_window")
SEATS = LimitRules(limit=4, algorithm="concurrency")
TTL_S = 10.0


def ask(key: str, n: int, *, owed: int = 0, holding: int | None = None) -> Ask:
    return Ask(key, n, n, owed, holding)


def take(ledger: Ledger, rules: LimitRules, n: int, now: float, who: str = "a", rule: str = "r"):
    return ledger.take(rule, rules, TTL_S, ask("k", n), who, now)


def test_all_holders_spend_from_one_limit():
    ledger = Ledger()
    assert take(ledger, TEN, 6, 1.0, "a").granted == 6
    assert take(ledger, TEN, 5, 1.0, "b").granted == 0
    assert take(ledger, TEN, 4, 1.0, "b").granted == 4


def test_what_is_given_back_can_be_had_again():
    ledger = Ledger()
    grant = take(ledger, TEN, 10, 1.0)
    ledger.give_back("r", Back("k", 3, grant.at), "a", 1.5)
    assert take(ledger, TEN, 3, 2.0, "b").granted == 3


def test_what_is_given_back_of_an_unknown_rule_is_dropped():
    Ledger().give_back("nobody knows", Back("k", 3, 0.0), "a", 1.0)


def test_rules_with_one_name_and_two_keys_do_not_meet():
    ledger = Ledger()
    assert ledger.take("r", TEN, TTL_S, ask("k", 10), "a", 1.0).granted == 10
    assert ledger.take("r", TEN, TTL_S, ask("l", 10), "a", 1.0).granted == 10
    assert ledger.take("s", TEN, TTL_S, ask("k", 10), "a", 1.0).granted == 10


def test_a_declared_change_keeps_what_was_used():
    ledger = Ledger()
    take(ledger, TEN, 8, 1.0)
    ledger.declare("r", LimitRules(limit=9, period_s=10.0, algorithm="fixed_window"), TTL_S, 1.0)
    assert take(ledger, TEN, 2, 1.0).granted == 0
    assert take(ledger, TEN, 1, 1.0).granted == 1


def test_an_ask_under_older_rules_does_not_bring_them_back():
    ledger = Ledger()
    take(ledger, TEN, 1, 1.0)
    ledger.declare("r", LimitRules(limit=3, period_s=10.0, algorithm="fixed_window"), TTL_S, 1.0)
    assert take(ledger, TEN, 3, 1.0).granted == 0


def test_another_algorithm_begins_anew():
    ledger = Ledger()
    take(ledger, TEN, 10, 1.0)
    ledger.declare("r", LimitRules(limit=10, period_s=10.0), TTL_S, 1.0)
    assert take(ledger, TEN, 10, 1.0).granted == 10


def test_senseless_rules_are_refused():
    with pytest.raises(ValueError, match="limit=0"):
        Ledger().declare("r", LimitRules(limit=0), TTL_S, 0.0)


def test_the_seats_of_a_holder_that_died_are_free_at_once():
    ledger = Ledger()
    assert take(ledger, SEATS, 3, 1.0, "a").granted == 3
    assert take(ledger, SEATS, 2, 1.0, "b").granted == 0
    assert ledger.leave("a", 1.1) == 3
    assert take(ledger, SEATS, 4, 1.2, "b").granted == 4


def test_only_the_seats_that_are_left_come_free():
    ledger = Ledger()
    grant = take(ledger, SEATS, 3, 1.0, "a")
    ledger.give_back("r", Back("k", 1, grant.at), "a", 1.0)
    assert ledger.leave("a", 1.1) == 2
    assert ledger.leave("a", 1.1) == 0


def test_what_a_holder_says_it_holds_is_what_comes_free():
    ledger = Ledger()
    take(ledger, SEATS, 3, 1.0, "a")
    ledger.take("r", SEATS, TTL_S, Ask("k", 0, 0, 0, 1), "a", 1.0)
    assert take(ledger, SEATS, 3, 1.0, "b").granted == 3
    assert ledger.leave("a", 1.1) == 1


def test_hits_of_a_holder_that_died_stay_charged():
    ledger = Ledger()
    take(ledger, TEN, 10, 1.0, "a")
    assert ledger.leave("a", 1.0) == 0
    assert take(ledger, TEN, 1, 1.0, "b").granted == 0


def test_beyond_its_bound_the_rule_asked_longest_ago_is_forgotten():
    ledger = Ledger(max_rules=2)
    for at, rule in enumerate(("one", "two", "one", "three")):
        take(ledger, TEN, 5, float(at), rule=rule)
    assert {found.rule for found in ledger.snapshot()} == {"one", "three"}


def test_sweeping_drops_keys_that_have_run_out_and_rules_nobody_asks_for():
    ledger = Ledger()
    gcra = LimitRules(limit=10, period_s=10.0)
    for key in range(100):
        ledger.take("r", gcra, TTL_S, ask(str(key), 1), "a", 0.0)
    ledger.take("s", gcra, TTL_S, ask("k", 1), "a", 0.0)
    assert ledger.sweep(0.5) == 0
    assert sum(ledger.sweep(5.0) for _ in range(10)) == 101
    assert len(ledger) == 2
    ledger.sweep(IDLE_S + 6.0)
    assert len(ledger) == 0


def test_a_sweep_looks_at_no_more_rules_than_its_share_of_keys():
    ledger = Ledger()
    gcra = LimitRules(limit=10, period_s=10.0)
    for rule in ("r", "s"):
        for key in range(100):
            ledger.take(rule, gcra, TTL_S, ask(str(key), 1), "a", 0.0)
    assert ledger.sweep(50.0, 100) == 100
    assert ledger.sweep(50.0, 100) == 100

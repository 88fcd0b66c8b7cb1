"""Leased seats, step by step."""

from __future__ import annotations

from math import inf

import pytest

from headgate.policy.limiter import Ask, Grant, LeaseRules, LimitRules, Verdict, home_of, leased_of


def pair(limit=10, holders=2, **lease):
    rules = LimitRules(limit=limit, period_s=2.0, algorithm="concurrency")
    lent = LeaseRules(**lease)
    return leased_of(rules, lent, holders), home_of(rules, lent)


def answer(leased, home, ask, now=100.0, holder="w"):
    grant = home.grant(ask.key, ask.want, ask.least, holder, now, ask.owed, ask.holding)
    return leased.take(ask, grant, now)


def hit(leased, home, now=100.0, cost=1, key="key"):
    got = leased.hit(key, now, cost)
    return answer(leased, home, got, now) if isinstance(got, Ask) else got


def give_back(leased, home, now=100.0, holder="w"):
    backs = leased.expired(now)
    for back in backs:
        home.give_back(back.key, back.n, now, holder, back.at)
    return sum(back.n for back in backs)


def test_a_seat_is_leased_before_it_is_taken():
    leased, home = pair()
    got = leased.hit("key", 100.0)
    assert isinstance(got, Ask)
    assert (got.want, got.least, got.holding) == (1, 1, None)
    verdict = answer(leased, home, got)
    assert verdict.allowed
    assert (verdict.limit, verdict.remaining, verdict.reset_s) == (10, 9, 2.0)


def test_a_seat_left_is_taken_again_without_asking():
    leased, home = pair()
    hit(leased, home)
    leased.refund("key", 1, 100.0)
    verdict = leased.hit("key", 100.0)
    assert isinstance(verdict, Verdict)
    assert verdict.allowed


def test_a_busy_key_keeps_some_empty_seats_and_gives_back_the_rest():
    leased, home = pair(limit=100, holders=2, share=0.1)
    for _ in range(12):
        assert hit(leased, home).allowed
    for _ in range(12):
        leased.refund("key", 1, 100.0)
    assert give_back(leased, home) > 0
    assert leased.snapshot(100.0).unspent == 5
    # Nobody came since: the rest goes too.
    assert give_back(leased, home) == 5
    assert leased.snapshot(100.0).unspent == 0
    assert home.grant("key", 0, 0, "w", 100.0).remaining == 100


def test_seats_lent_ahead_and_never_used_go_back():
    leased, home = pair(limit=100, holders=2, share=0.2)
    for _ in range(8):
        assert hit(leased, home).allowed
    assert leased.snapshot(100.0).unspent > 0
    give_back(leased, home, 100.0)
    give_back(leased, home, 100.3)
    assert leased.snapshot(100.3).unspent == 0
    assert home.grant("key", 0, 0, "w", 100.3).remaining == 92


def test_where_the_share_is_below_one_no_empty_seat_is_kept():
    leased, home = pair(limit=5, holders=4)
    hit(leased, home)
    leased.refund("key", 1, 100.0)
    assert give_back(leased, home) == 1
    assert isinstance(leased.hit("key", 100.0), Ask)


def test_a_hit_that_needs_several_seats_keeps_those_there_are_while_it_waits():
    leased, home = pair(limit=10)
    hit(leased, home)
    leased.refund("key", 1, 100.0)
    first = leased.hit("key", 100.0, 3)
    assert isinstance(first, Ask)
    assert first.least == 2
    second = leased.hit("key", 100.0)
    assert isinstance(second, Ask)
    assert second.least == 1
    assert answer(leased, home, first).allowed
    assert answer(leased, home, second).allowed
    assert home.grant("key", 0, 0, "w", 100.0).remaining == 6


@pytest.mark.parametrize("end", ["refused", "failed", "dropped"])
def test_kept_seats_are_free_again_when_the_rest_does_not_come(end):
    leased, home = pair(limit=10, fail="closed")
    hit(leased, home)
    leased.refund("key", 1, 100.0)
    ask = leased.hit("key", 100.0, 3)
    assert isinstance(ask, Ask)
    if end == "refused":
        assert not leased.take(ask, Grant(0, 1, 2.0, 2.0, 100.0), 100.0).allowed
    elif end == "failed":
        assert not leased.fail(ask, 100.0).allowed
    else:
        leased.drop(ask, 100.0)
    assert leased.hit("key", 100.0).allowed
    assert leased.snapshot(100.0).unspent == 0


def test_a_refusal_is_remembered_for_a_moment_or_until_someone_leaves():
    leased, home = pair(limit=2)
    assert hit(leased, home, cost=2).allowed
    assert not hit(leased, home).allowed
    verdict = leased.hit("key", 100.04)
    assert isinstance(verdict, Verdict)
    assert (verdict.allowed, verdict.retry_after_s) == (False, 2.0)
    assert isinstance(leased.hit("key", 100.06), Ask)
    leased, home = pair(limit=2)
    hit(leased, home, cost=2)
    hit(leased, home)
    leased.refund("key", 1, 100.01)
    assert leased.hit("key", 100.02).allowed


def test_more_than_the_limit_a_look_and_a_broken_call():
    leased, home = pair(limit=3)
    verdict = leased.hit("key", 100.0, 4)
    assert isinstance(verdict, Verdict)
    assert verdict.retry_after_s == inf
    assert len(leased) == 0
    assert leased.hit("key", 100.0, 0).remaining == 3
    hit(leased, home, cost=2)
    assert leased.peek("key", 100.0).allowed
    assert leased.peek("key", 100.0, 2).retry_after_s == 2.0
    assert leased.peek("key", 100.0, 4).retry_after_s == inf
    assert leased.hit("key", 100.0, 0).remaining == 1
    with pytest.raises(ValueError, match="negative"):
        leased.hit("key", 100.0, -1)


def test_a_worker_says_what_it_holds_three_times_a_ttl():
    leased, home = pair(seat_ttl_s=9.0)
    hit(leased, home, cost=2)
    said = []
    for second in range(100, 110):
        for ask in leased.wants(float(second)):
            assert (ask.want, ask.least) == (0, 0)
            said.append((second, ask.holding))
            answer(leased, home, ask, float(second))
    assert said == [(103, 2), (106, 2), (109, 2)]


def test_while_an_ask_is_unanswered_what_is_held_is_not_said():
    leased, home = pair(seat_ttl_s=9.0)
    hit(leased, home)
    waiting = leased.hit("key", 102.9)
    (renewal,) = leased.wants(103.0)
    assert isinstance(waiting, Ask)
    assert renewal.holding is None
    assert answer(leased, home, waiting).allowed
    answer(leased, home, renewal)
    assert home.grant("key", 0, 0, "w", 103.0).remaining == 8


def test_keys_without_seats_are_forgotten():
    leased, home = pair(limit=5, holders=4, seat_ttl_s=9.0)
    for number in range(100):
        hit(leased, home, key=number)
        leased.refund(number, 1, 100.0)
    assert give_back(leased, home) == 100
    assert leased.wants(103.0) == []
    assert len(leased) == 0
    assert home.sweep(103.0) == 100
    assert len(home) == 0


def test_a_key_that_was_forgotten_and_came_back_is_renewed_once():
    leased, home = pair(limit=5, holders=4, seat_ttl_s=9.0)
    hit(leased, home)
    leased.refund("key", 1, 100.0)
    give_back(leased, home)
    assert leased.wants(103.0) == []
    hit(leased, home, 103.5)
    assert leased.wants(104.0) == []
    assert len(leased.wants(106.5)) == 1


# ---- the home


def test_the_home_lends_a_quarter_of_what_is_free_to_those_who_do_not_wait():
    _, home = pair(limit=100)
    assert home.grant("key", 50, 1, "a", 1.0).granted == 25
    assert home.grant("key", 50, 0, "b", 1.0).granted == 18
    assert home.grant("key", 50, 50, "b", 1.0).granted == 50
    assert home.grant("key", 8, 8, "b", 1.0) == Grant(0, 7, 2.0, 2.0, 1.0)
    assert home.grant("key", 100, 100, "b", 1.0).retry_after_s == 2.0
    assert home.grant("key", 101, 101, "b", 1.0).retry_after_s == inf


def test_the_home_lends_the_seats_of_the_silent_to_others():
    _, home = pair(limit=4, seat_ttl_s=5.0)
    assert home.grant("key", 3, 3, "a", 1.0).granted == 3
    assert home.grant("key", 2, 2, "b", 5.9).granted == 0
    assert home.grant("key", 2, 2, "b", 6.0).granted == 2
    # The silent one speaks again, and is believed.
    assert home.grant("key", 1, 1, "a", 6.5, 0, 3).granted == 0
    assert home.grant("key", 0, 0, "b", 6.5).remaining == 0
    assert home.sweep(6.5) == 0
    assert home.sweep(20.0) == 1


def test_a_home_that_forgot_is_told():
    leased, _ = pair(limit=4, seat_ttl_s=9.0)
    first = home_of(leased.rules)
    hit(leased, first, cost=3)
    second = home_of(leased.rules)
    (renewal,) = leased.wants(103.0)
    answer(leased, second, renewal, 103.0)
    assert second.grant("key", 2, 2, "other", 103.0).granted == 0
    assert second.grant("key", 1, 1, "other", 103.0).granted == 1


def test_giving_back_more_than_was_lent_gives_nothing():
    _, home = pair(limit=4)
    home.grant("key", 2, 2, "a", 1.0)
    home.give_back("key", 5, 1.0, "a", 1.0)
    home.give_back("key", 1, 1.0, "stranger", 1.0)
    home.give_back("unknown", 1, 1.0, "a", 1.0)
    assert home.grant("key", 0, 0, "a", 1.0).remaining == 4


def test_a_full_home_refuses_new_keys_and_believes_what_is_held():
    rules = LimitRules(limit=4, period_s=2.0, algorithm="concurrency", max_keys=2)
    home = home_of(rules)
    home.grant("a", 1, 1, "w", 1.0)
    home.grant("b", 1, 1, "w", 1.0)
    assert home.grant("c", 1, 1, "w", 1.0) == Grant(0, 0, 2.0, 2.0, 1.0)
    assert home.grant("c", 1, 1, "w", 1.0, 0, 2).granted == 1
    assert home.grant("d", 0, 0, "w", 1.0).remaining == 4
    assert len(home) == 3


def test_senseless_rules_do_not_replace_sensible_ones():
    leased, home = pair(limit=4)
    rules = LimitRules(limit=0, algorithm="concurrency")
    with pytest.raises(ValueError, match="limit=0"):
        leased.take_rules(rules, LeaseRules(), 100.0)
    with pytest.raises(ValueError, match="limit=0"):
        home.take_rules(rules, 100.0)
    assert leased.rules.limit == home.rules.limit == 4


def test_nothing_is_given_back_where_nothing_is_spare():
    leased, home = pair(limit=10, holders=1, share=1.0)
    hit(leased, home, cost=3)
    leased.refund("key", 1, 100.0)
    assert leased.expired(100.0) == []
    assert [back.n for back in leased.expired(100.1)] == [1]
    assert leased.expired(100.2) == []


def test_a_lower_limit_lends_nothing_until_enough_have_left():
    leased, home = pair(limit=4)
    assert hit(leased, home, cost=4).allowed
    rules = LimitRules(limit=2, period_s=2.0, algorithm="concurrency")
    home.take_rules(rules, 100.0)
    leased.take_rules(rules, LeaseRules(fail="closed"), 100.0)
    assert leased.snapshot(100.0).fail == "closed"
    assert not hit(leased, home).allowed
    for _ in range(3):
        leased.refund("key", 1, 100.0)
    give_back(leased, home)
    assert hit(leased, home).allowed
    assert not hit(leased, home, 100.1).allowed


# ---- away


@pytest.mark.parametrize("fail, seated", [("open", 20), ("closed", 2), ("local", 5)])
def test_alone(fail, seated):
    leased, home = pair(limit=10, holders=2, fail=fail)
    hit(leased, home, cost=2)
    leased.refund("key", 2, 100.0)
    leased.away(100.0)
    assert sum(leased.hit("key", 100.0).allowed for _ in range(20)) == seated
    assert leased.wants(110.0) == []
    assert leased.expired(110.0) == []


def test_who_held_more_than_the_share_lets_it_go_seat_by_seat():
    leased, home = pair(limit=10, holders=2)
    hit(leased, home, cost=8)
    leased.away(100.0)
    assert not leased.hit("key", 100.0).allowed
    leased.refund("key", 1, 100.0)
    assert not leased.hit("key", 100.0, 2).allowed
    for _ in range(4):
        leased.refund("key", 1, 100.0)
    assert [leased.hit("key", 100.0).allowed for _ in range(3)] == [True, True, False]


def test_back_at_the_home_what_was_seated_alone_is_said_first():
    leased, home = pair(limit=10, holders=2, fail="open")
    leased.away(100.0)
    for _ in range(12):
        leased.hit("key", 100.0)
    leased.back(101.0)
    (said,) = leased.wants(101.0)
    assert said.holding == 12
    answer(leased, home, said, 101.0)
    assert not hit(leased, home, 101.0).allowed
    for _ in range(12):
        leased.refund("key", 1, 101.5)
    give_back(leased, home, 101.5)
    assert home.grant("key", 0, 0, "w", 101.5).remaining >= 9


def test_an_ask_says_what_was_seated_alone_after_a_failure():
    leased, home = pair(limit=10, holders=2)
    ask = leased.hit("key", 100.0, 3)
    assert isinstance(ask, Ask)
    assert leased.fail(ask, 100.5).allowed
    got = leased.hit("key", 101.0)
    assert isinstance(got, Ask)
    assert got.holding == 3
    answer(leased, home, got, 101.0)
    assert home.grant("key", 0, 0, "w", 101.0).remaining == 6


def test_a_seat_taken_by_force_is_said_with_the_next_renewal():
    leased, home = pair(limit=2, seat_ttl_s=9.0)
    leased.charge("key", 3, 100.0)
    (said,) = leased.wants(103.0)
    assert said.holding == 3
    answer(leased, home, said, 103.0)
    assert not hit(leased, home, 103.0).allowed
    leased.refund("key", 5, 103.0)
    assert leased.snapshot(103.0).unspent == 3

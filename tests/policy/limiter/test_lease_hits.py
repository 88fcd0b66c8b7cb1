"""A worker's leases, step by step: what it asks for, spends, gives back, and does alone."""

from __future__ import annotations

from math import inf

import pytest

from headgate.policy.limiter import (
    Ask,
    Back,
    Grant,
    LeaseRules,
    LimitRules,
    Verdict,
    home_of,
    leased_of,
)

MINUTE = LimitRules(limit=1_000, period_s=60.0)


def pair(rules=MINUTE, lease=None, holders=1):
    lease = lease or LeaseRules()
    return leased_of(rules, lease, holders), home_of(rules, lease)


def served(leased, home, ask, now, home_now=None):
    grant = home.grant(ask.key, ask.want, ask.least, "w", home_now or now, ask.owed, ask.holding)
    return leased.take(ask, grant, now)


def hit(leased, home, key, now, cost=1):
    got = leased.hit(key, now, cost)
    return served(leased, home, got, now) if isinstance(got, Ask) else got


def warm(leased, home, key="key", now=100.0, hits=200, every_s=0.001):
    """Hit until there is a lease to spend."""
    for number in range(hits):
        hit(leased, home, key, now + number * every_s)
    return now + hits * every_s


# ---- asking


def test_a_key_seen_for_the_first_time_asks_for_its_cost_and_no_more():
    leased, _ = pair()
    got = leased.hit("key", 100.0, 3)
    assert isinstance(got, Ask)
    assert (got.key, got.want, got.least, got.cost, got.at) == ("key", 3, 3, 3, 100.0)
    assert (got.owed, got.holding) == (0, None)


def test_a_key_seen_seldom_asks_for_its_cost_each_time():
    leased, home = pair()
    for second in range(100, 150, 2):
        got = leased.hit("key", float(second))
        assert isinstance(got, Ask)
        assert got.want == got.least == 1
        served(leased, home, got, float(second))


def test_leases_grow_with_the_rate_at_most_doubling_up_to_the_share():
    leased, home = pair(holders=2)
    extras = []
    now = 100.0
    for _ in range(300):
        now += 0.001
        got = leased.hit("key", now)
        if isinstance(got, Ask):
            extras.append(got.want - got.least)
            served(leased, home, got, now)
    assert extras[0] == 0
    assert max(extras) == 50  # 1000 x 0.1 / 2
    assert all(later <= 2 * before + 1 for before, later in zip(extras, extras[1:], strict=False))
    assert len(extras) < 20


def test_a_lease_lasts_half_a_ttl_at_the_rate_seen():
    rules = LimitRules(limit=100_000, period_s=1.0)
    leased, home = pair(rules)
    now = 100.0
    wants = []
    for _ in range(2_000):
        now += 0.01
        got = leased.hit("key", now)
        if isinstance(got, Ask):
            wants.append(got.want)
            served(leased, home, got, now)
    assert wants[-1] == pytest.approx(51, abs=2)  # 100 a second for half a second


def test_where_the_share_is_below_one_every_hit_asks():
    leased, home = pair(LimitRules(limit=5, period_s=60.0), holders=4)
    now = 100.0
    for number in range(5):
        got = leased.hit("key", now + number * 1e-4)
        assert isinstance(got, Ask)
        assert got.want == got.least == 1
        assert served(leased, home, got, now).allowed
    assert leased.snapshot(now).unspent == 0


def test_what_waits_beside_a_larger_ask_asks_for_itself_only():
    leased, home = pair()
    now = warm(leased, home, hits=3)
    first = leased.hit("key", now)
    second = leased.hit("key", now)
    assert isinstance(first, Ask)
    assert isinstance(second, Ask)
    assert first.want > first.least
    assert second.want == second.least == 1
    assert served(leased, home, second, now).allowed
    assert served(leased, home, first, now).allowed


def test_a_lease_too_small_for_a_hit_is_added_to_and_not_wasted():
    leased, home = pair(LimitRules(limit=100, period_s=1e6), LeaseRules(share=0.1))
    now = warm(leased, home, hits=4)
    unspent = leased.snapshot(now).unspent
    assert unspent > 0
    got = leased.hit("key", now, 30)
    assert isinstance(got, Ask)
    assert got.least == 30 - unspent
    assert leased.snapshot(now).unspent == 0
    assert served(leased, home, got, now).allowed
    left = home.grant("key", 0, 0, "w", now).remaining + leased.snapshot(now).unspent
    assert left == 100 - 4 - 30


def test_held_tokens_come_back_when_the_rest_is_refused():
    leased, home = pair(LimitRules(limit=100, period_s=1e6), LeaseRules(share=0.1))
    now = warm(leased, home, hits=4)
    unspent = leased.snapshot(now).unspent
    home.grant("key", 90, 90, "another", now)
    got = leased.hit("key", now, 30)
    assert isinstance(got, Ask)
    assert not served(leased, home, got, now).allowed
    assert leased.snapshot(now).unspent == unspent
    verdict = leased.hit("key", now, unspent)
    assert isinstance(verdict, Verdict)
    assert verdict.allowed


def test_held_tokens_whose_time_has_run_out_go_home():
    leased, home = pair(LimitRules(limit=100, period_s=1e6), LeaseRules(share=0.1))
    now = warm(leased, home, hits=4)
    unspent = leased.snapshot(now).unspent
    got = leased.hit("key", now, 30)
    assert isinstance(got, Ask)
    leased.drop(got, now + 1.5)
    assert leased.snapshot(now).unspent == 0
    assert [back.n for back in leased.expired(now + 1.5)] == [unspent]


def test_the_answer_to_a_small_ask_does_not_make_room_for_another_large_one():
    leased, home = pair()
    now = warm(leased, home, hits=3)
    large = leased.hit("key", now)
    small = leased.hit("key", now)
    assert isinstance(large, Ask)
    assert isinstance(small, Ask)
    served(leased, home, small, now)
    third = leased.hit("key", now)
    assert isinstance(third, Ask)
    assert third.want == third.least
    served(leased, home, large, now)
    fourth = leased.hit("key", now)
    while not isinstance(fourth, Ask):
        fourth = leased.hit("key", now)
    assert fourth.want > fourth.least


def test_a_cost_above_the_limit_does_not_bother_the_home():
    leased, home = pair()
    verdict = leased.hit("key", 100.0, 1_001)
    assert verdict == Verdict(False, 1_000, 1_000, 0.0, inf)
    now = warm(leased, home)
    verdict = leased.hit("key", now, 1_001)
    assert isinstance(verdict, Verdict)
    assert (verdict.allowed, verdict.retry_after_s) == (False, inf)
    look = leased.peek("key", now, 1_001)
    assert (look.allowed, look.remaining, look.reset_s) == (
        verdict.allowed,
        verdict.remaining,
        verdict.reset_s,
    )


def test_a_cost_of_nothing_is_a_look_and_a_negative_one_a_broken_call():
    leased, home = pair()
    verdict = leased.hit("key", 100.0, 0)
    assert isinstance(verdict, Verdict)
    assert verdict.remaining == 1_000
    now = warm(leased, home)
    before = leased.snapshot(now).unspent
    verdict = leased.hit("key", now, 0)
    assert isinstance(verdict, Verdict)
    assert verdict.allowed
    assert verdict.remaining < 1_000
    assert leased.snapshot(now).unspent == before
    left = leased.peek("key", now).remaining
    assert leased.peek("key", now, left).allowed
    assert not leased.peek("key", now, left + 1).allowed
    assert leased.peek("key", now, 1_000).retry_after_s == 0
    assert leased.peek("key", now, 1_001).retry_after_s == inf
    with pytest.raises(ValueError, match="negative"):
        leased.hit("key", now, -1)


def test_verdicts_from_a_lease_count_down():
    leased, home = pair()
    now = warm(leased, home)
    before = None
    for _ in range(leased.snapshot(now).unspent):
        verdict = leased.hit("key", now)
        assert isinstance(verdict, Verdict)
        assert verdict.allowed
        assert verdict.limit == 1_000
        assert 700 <= verdict.remaining <= 803  # 1000 less 200, and what refilled since
        assert verdict.retry_after_s == 0
        assert before is None or verdict.remaining == before - 1
        before = verdict.remaining


# ---- refusals


def test_a_refusal_is_remembered_until_there_is_more():
    leased, home = pair(LimitRules(limit=6, period_s=60.0), LeaseRules(ttl_s=30.0), holders=4)
    for _ in range(6):
        assert hit(leased, home, "key", 100.0).allowed
    assert not hit(leased, home, "key", 100.0).allowed
    for now in (100.0, 103.0, 109.9):
        verdict = leased.hit("key", now)
        assert isinstance(verdict, Verdict)
        assert not verdict.allowed
        assert verdict.remaining == 0
        assert verdict.retry_after_s == pytest.approx(110.0 - now)
        assert verdict.reset_s == pytest.approx(160.0 - now)
    assert isinstance(leased.hit("key", 110.0), Ask)


def test_a_refusal_is_remembered_for_a_ttl_at_most():
    leased, home = pair(LimitRules(limit=5, period_s=3600.0), LeaseRules(ttl_s=2.0), holders=4)
    for _ in range(6):
        hit(leased, home, "key", 100.0)
    assert isinstance(leased.hit("key", 101.9), Verdict)
    assert isinstance(leased.hit("key", 102.0), Ask)


def test_where_leases_are_large_a_refusal_lasts_until_half_of_one_is_there():
    leased, home = pair(LimitRules(limit=1_000, period_s=10.0), LeaseRules(share=0.2))
    assert leased.snapshot(100.0).largest == 200
    hit(leased, home, "key", 100.0)
    home.grant("key", 999, 999, "another", 100.0)
    # Half a ttl, in which 50 refill; half a lease would be 100.
    assert hit(leased, home, "key", 100.0).retry_after_s == pytest.approx(0.5)
    verdict = leased.hit("key", 100.49)
    assert isinstance(verdict, Verdict)
    assert verdict.retry_after_s == pytest.approx(0.01)
    assert isinstance(leased.hit("key", 100.51), Ask)


def test_a_smaller_hit_may_pass_where_a_larger_was_refused():
    leased, home = pair(LimitRules(limit=5, period_s=3600.0), holders=4)
    assert hit(leased, home, "key", 100.0, 3).allowed
    assert not hit(leased, home, "key", 100.0, 4).allowed
    assert isinstance(leased.hit("key", 100.0, 4), Verdict)
    assert isinstance(leased.hit("key", 100.0, 5), Verdict)
    got = leased.hit("key", 100.0, 2)
    assert isinstance(got, Ask)
    assert served(leased, home, got, 100.0).allowed


def test_a_refund_ends_the_memory_of_a_refusal():
    leased, home = pair(LimitRules(limit=5, period_s=3600.0), holders=4)
    for _ in range(6):
        hit(leased, home, "key", 100.0)
    assert isinstance(leased.hit("key", 100.1), Verdict)
    leased.refund("key", 1, 100.1, 100.0)
    assert isinstance(leased.hit("key", 100.1), Ask)


# ---- ahead of need


def test_a_lease_half_spent_is_filled_up_ahead_and_nobody_waits():
    leased, home = pair()
    now = warm(leased, home)
    waited = 0
    for number in range(400):
        now += 0.001
        got = leased.hit("key", now)
        if isinstance(got, Ask):
            waited += 1
            served(leased, home, got, now)
        if number % 10 == 0:
            for ask in leased.wants(now):
                assert ask.least == 0
                assert ask.want > 0
                served(leased, home, ask, now)
    assert waited == 0


def test_what_comes_ahead_does_not_lift_the_lease_above_the_share():
    leased, home = pair(holders=3)
    now = 100.0
    for _ in range(500):
        now += 0.001
        hit(leased, home, "key", now)
        for ask in leased.wants(now):
            assert ask.want + leased.snapshot(now).unspent <= 33
            served(leased, home, ask, now)
        assert leased.snapshot(now).unspent <= 33
    assert leased.snapshot(now).largest == 33


def test_what_is_on_its_way_is_not_asked_for_again():
    leased, home = pair()
    now = warm(leased, home)
    spent = leased.snapshot(now).unspent * 2 // 3
    for _ in range(spent):
        leased.hit("key", now)
    (ahead,) = leased.wants(now)
    leased.hit("key", now)
    assert leased.wants(now) == []
    got = leased.hit("key", now)
    while not isinstance(got, Ask):
        got = leased.hit("key", now)
    assert got.want == got.least
    served(leased, home, ahead, now)
    assert leased.snapshot(now).unspent > 0


def test_nothing_is_asked_ahead_for_keys_nobody_hits():
    leased, home = pair()
    now = warm(leased, home)
    for ask in leased.wants(now):
        served(leased, home, ask, now)
    assert leased.wants(now + 0.1) == []


def test_the_home_gives_a_quarter_of_what_it_has_to_those_who_do_not_wait():
    _, home = pair(LimitRules(limit=100, period_s=1e6))
    assert home.grant("key", 80, 0, "w", 1.0).granted == 25
    assert home.grant("key", 80, 30, "w", 1.0).granted == 30
    assert home.grant("key", 80, 1, "w", 1.0).granted == 11
    grant = home.grant("key", 80, 40, "w", 1.0)
    assert (grant.granted, grant.remaining, grant.retry_after_s) == (0, 34, pytest.approx(6e4))
    assert home.grant("key", 34, 34, "w", 1.0).granted == 34
    assert home.grant("key", 3, 0, "w", 1.0).granted == 0


# ---- giving back


def test_what_is_unspent_after_the_ttl_goes_back():
    leased, home = pair()
    now = warm(leased, home)
    unspent = leased.snapshot(now).unspent
    assert unspent > 10
    assert leased.expired(now + 0.1) == []
    backs = leased.expired(now + 1.01)
    assert [(back.key, back.n) for back in backs] == [("key", unspent)]
    assert leased.snapshot(now).unspent == 0
    assert leased.expired(now + 1.02) == []
    for key, n, at in backs:
        home.give_back(key, n, now + 1.01, "w", at)
    left = home.grant("key", 0, 0, "w", now + 1.01).remaining
    assert left == pytest.approx(1_000 - 200 + 1.2 * 1_000 / 60, abs=2)


def test_an_expired_lease_is_not_spent():
    leased, home = pair()
    now = warm(leased, home)
    unspent = leased.snapshot(now).unspent
    got = leased.hit("key", now + 1.5)
    assert isinstance(got, Ask)
    assert got.least == 1
    assert [back.n for back in leased.expired(now + 1.5)] == [unspent]


def test_idle_keys_are_forgotten():
    leased, home = pair()
    for number in range(500):
        hit(leased, home, number, 100.0)
    assert len(leased) == 500
    leased.expired(102.5)
    leased.expired(104.0)
    assert len(leased) == 0


def test_the_rate_of_a_key_is_remembered_for_a_ttl_after_it_asked():
    leased, home = pair()
    hit(leased, home, "key", 100.0)
    leased.expired(100.9)
    assert len(leased) == 1
    hit(leased, home, "key", 100.95)
    leased.expired(101.5)
    assert len(leased) == 1
    leased.expired(102.5)
    assert len(leased) == 0


def test_no_more_keys_are_remembered_than_allowed():
    leased, home = pair(lease=LeaseRules(max_keys=10))
    for number in range(50):
        assert hit(leased, home, number, 100.0).allowed
    assert len(leased) == 10
    ask = leased.hit(49, 100.0)
    assert isinstance(ask, Ask)
    # Granted more than it asked for a key that is not remembered: the rest goes back.
    leased.take(ask, Grant(5, 0, 1.0, 0.0, 7.0), 100.0)
    assert leased.expired(100.0) == [Back(49, 4, 7.0)]


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window", "sliding_log"])
def test_what_comes_back_late_does_not_lift_the_next_window(algorithm):
    rules = LimitRules(limit=100, period_s=10.0, algorithm=algorithm)
    home = home_of(rules)
    grant = home.grant("key", 20, 1, "w", 9.9)
    assert grant.at == 9.9
    home.grant("key", 10, 10, "w", 10.1)
    before = home.grant("key", 0, 0, "w", 10.2).remaining
    home.give_back("key", grant.granted, 10.2, "w", grant.at)
    after = home.grant("key", 0, 0, "w", 10.2).remaining
    assert after - before == {"fixed_window": 0, "sliding_window": 20, "sliding_log": 20}[algorithm]


def test_a_lease_of_a_fixed_window_ends_with_the_window():
    rules = LimitRules(limit=1_000, period_s=10.0, algorithm="fixed_window")
    leased, home = pair(rules, LeaseRules(ttl_s=5.0))
    now = warm(leased, home, now=108.0)
    assert leased.snapshot(now).unspent > 0
    assert isinstance(leased.hit("key", 109.99), Verdict)
    got = leased.hit("key", 110.0)
    assert isinstance(got, Ask)
    assert got.least == 1


# ---- charges and refunds


def test_what_is_charged_afterwards_comes_out_of_the_lease_and_then_is_owed():
    leased, home = pair()
    now = warm(leased, home)
    unspent = leased.snapshot(now).unspent
    leased.charge("key", unspent - 1, now)
    assert leased.snapshot(now).unspent == 1
    leased.charge("key", 40, now)
    leased.charge("other", 7, now)
    owed = {ask.key: ask.owed for ask in leased.wants(now)}
    assert owed == {"key": 39, "other": 7}
    assert [ask for ask in leased.wants(now) if ask.owed] == []


def test_what_is_owed_goes_with_the_next_ask_and_is_charged_first():
    leased, home = pair(LimitRules(limit=10, period_s=1e6), holders=4)
    leased.charge("key", 8, 100.0)
    got = leased.hit("key", 100.0)
    assert isinstance(got, Ask)
    assert got.owed == 8
    verdict = served(leased, home, got, 100.0)
    assert verdict.allowed
    assert verdict.remaining == 1
    assert leased.wants(100.0) == []


def test_an_ask_that_fails_keeps_what_is_owed():
    leased, _ = pair()
    leased.charge("key", 8, 100.0)
    got = leased.hit("key", 100.0)
    assert isinstance(got, Ask)
    leased.fail(got, 100.1)
    owed = [ask.owed for ask in leased.wants(100.1)]
    assert owed == [9]  # 8, and the hit that was let in alone


def test_a_refund_fills_the_lease_and_what_is_too_much_goes_home():
    leased, home = pair()
    now = warm(leased, home)
    unspent = leased.snapshot(now).unspent
    leased.refund("key", 2, now, now)
    assert leased.snapshot(now).unspent == unspent + 2
    leased.refund("key", 1_000, now, now)
    assert leased.snapshot(now).unspent == 100
    assert sum(back.n for back in leased.expired(now)) == 1_000 - (98 - unspent)


def test_a_refund_without_a_lease_goes_home_in_the_homes_time():
    leased, home = pair(holders=1_000)
    got = leased.hit("key", 100.0)
    assert isinstance(got, Ask)
    served(leased, home, got, 100.001, home_now=5_000.0)
    leased.refund("key", 1, 100.5, 100.0)
    (back,) = leased.expired(100.5)
    assert (back.key, back.n) == ("key", 1)
    assert back.at == pytest.approx(5_000.0)


# ---- the home is away


def lost(fail, rules=MINUTE, holders=4):
    leased, home = pair(rules, LeaseRules(fail=fail), holders)
    leased.away(100.0)
    assert leased.is_away
    return leased, home


def test_open_lets_all_pass_and_tells_nothing_afterwards():
    leased, _ = lost("open", LimitRules(limit=5, period_s=60.0))
    for _ in range(50):
        verdict = leased.hit("key", 100.0)
        assert isinstance(verdict, Verdict)
        assert verdict.allowed
    leased.back(101.0)
    assert leased.wants(101.0) == []
    assert isinstance(leased.hit("key", 101.0), Ask)


def test_closed_refuses_all_but_what_is_leased():
    leased, home = pair(lease=LeaseRules(fail="closed"))
    now = warm(leased, home)
    unspent = leased.snapshot(now).unspent
    leased.away(now)
    verdicts = [leased.hit("key", now) for _ in range(unspent + 5)]
    assert [verdict.allowed for verdict in verdicts] == [True] * unspent + [False] * 5
    assert verdicts[-1].retry_after_s == 1.0
    leased.back(now)
    assert isinstance(leased.hit("key", now), Ask)


@pytest.mark.parametrize(
    "limit, holders, passed",
    [(20, 4, 5), (21, 4, 5), (5, 5, 1), (5, 1, 5), (3, 4, 1)],
)
def test_local_lets_each_worker_spend_its_share(limit, holders, passed):
    leased, _ = lost("local", LimitRules(limit=limit, period_s=60.0), holders)
    verdicts = [leased.hit("key", 100.0) for _ in range(limit + 1)]
    assert sum(verdict.allowed for verdict in verdicts) == passed


def test_a_share_below_one_is_one_hit_in_so_much_more_time():
    leased, _ = lost("local", LimitRules(limit=3, period_s=60.0), 12)
    times = [second for second in range(100, 2_000) if leased.hit("key", float(second)).allowed]
    assert [later - before for before, later in zip(times, times[1:], strict=False)] == [240] * 7


def test_more_than_the_share_is_refused_but_not_for_ever():
    leased, _ = lost("local", LimitRules(limit=20, period_s=60.0), 4)
    verdict = leased.hit("key", 100.0, 10)
    assert isinstance(verdict, Verdict)
    assert not verdict.allowed
    assert verdict.retry_after_s == 1.0


def test_what_was_spent_alone_is_reported_before_anything_is_asked():
    leased, home = lost("local", LimitRules(limit=400, period_s=1e6), 4)
    for _ in range(60):
        assert leased.hit("key", 100.0).allowed
    leased.hit("other", 100.0)
    leased.back(101.0)
    # The others may not have reported yet: alone for a while longer.
    verdict = leased.hit("key", 101.1)
    assert isinstance(verdict, Verdict)
    assert {ask.key: (ask.want, ask.owed) for ask in leased.wants(101.25)} == {
        "key": (0, 61),
        "other": (0, 1),
    }
    assert leased.hit("key", 101.3).allowed
    got = leased.hit("key", 101.5)
    assert isinstance(got, Ask)
    assert got.owed == 1
    assert served(leased, home, got, 101.5).allowed


@pytest.mark.parametrize(("away_s", "alone_s"), [(0.0, 0.5), (0.2, 0.5), (1.25, 1.25), (60.0, 2.0)])
def test_who_finds_the_home_again_waits_for_those_who_may_find_it_later(away_s, alone_s):
    leased, home = pair(MINUTE, LeaseRules(), 4)
    got = leased.hit("another", 99.0)
    assert isinstance(got, Ask)
    served(leased, home, got, 99.0)
    leased.away(100.0)
    leased.back(100.0 + away_s)
    until = 100.0 + away_s + alone_s
    assert isinstance(leased.hit("key", until - 0.01), Verdict)
    assert isinstance(leased.hit("key", until), Ask)


def test_of_a_long_time_alone_only_what_still_counts_is_reported():
    leased, _ = lost("local", LimitRules(limit=40, period_s=40.0), 4)
    for second in range(100, 1_000):
        leased.hit("key", float(second))
    leased.back(1_000.0)
    (ask,) = leased.wants(1_000.0)
    assert 9 <= ask.owed <= 10


def test_charges_and_refunds_of_what_passed_alone_stay_alone():
    leased, _ = lost("local", LimitRules(limit=40, period_s=1e6), 4)
    leased.hit("key", 100.0, 4)
    leased.charge("key", 3, 100.0)
    leased.refund("key", 2, 100.5, 100.0)
    assert leased.peek("key", 100.5).remaining == 5
    leased.back(101.0)
    leased.refund("key", 1, 102.0, 100.2)
    assert leased.expired(102.0) == []
    assert [ask.owed for ask in leased.wants(102.0)] == [4]


def test_nothing_is_sent_while_the_home_is_away():
    leased, home = pair()
    now = warm(leased, home)
    leased.hit("key", now)
    leased.away(now)
    leased.refund("key", 3, now, now - 0.1)
    assert leased.wants(now + 0.1) == []
    assert leased.expired(now + 2.0) == []
    leased.back(now + 3.0)
    assert leased.expired(now + 3.0) == []


def test_a_single_failure_is_decided_alone_too():
    leased, _ = pair(LimitRules(limit=8, period_s=60.0), holders=4)
    got = leased.hit("key", 100.0)
    assert isinstance(got, Ask)
    assert leased.fail(got, 101.0).allowed
    got = leased.hit("key", 101.0)
    assert isinstance(got, Ask)
    assert got.owed == 1


def test_a_dropped_ask_leaves_nothing_behind():
    leased, home = pair(LimitRules(limit=100, period_s=1e6))
    now = warm(leased, home, hits=4)
    leased.charge("key", 50, now)
    leased.refund("key", 2, now, now)
    unspent = leased.snapshot(now).unspent
    assert unspent == 2
    got = leased.hit("key", now, 20)
    assert isinstance(got, Ask)
    leased.drop(got, now)
    assert leased.snapshot(now).unspent == unspent
    assert [ask.owed for ask in leased.wants(now)] == [got.owed]


# ---- reload


def test_new_rules_and_more_workers_shrink_leases_and_keep_what_is_leased():
    leased, home = pair()
    now = warm(leased, home)
    unspent = leased.snapshot(now).unspent
    leased.holders = 10
    assert leased.snapshot(now).largest == 10
    leased.holders = 0
    assert leased.holders == 10
    leased.take_rules(LimitRules(limit=200, period_s=60.0), LeaseRules(share=0.5), now)
    home.take_rules(LimitRules(limit=200, period_s=60.0), now)
    assert leased.snapshot(now).largest == 10
    assert leased.snapshot(now).unspent == unspent
    assert leased.rules.limit == home.rules.limit == 200
    with pytest.raises(ValueError, match="cannot go on as"):
        home.take_rules(LimitRules(limit=200, algorithm="sliding_log"), now)


def test_the_home_sweeps():
    _, home = pair()
    for number in range(100):
        home.grant(number, 1, 1, "w", 100.0)
    assert len(home) == 100
    assert home.sweep(1_000.0) == 100

"""Many keys: bounded memory, sweeping in pieces, and what an attacker with many keys can do."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.limiter import LIMITERS, LimitRules, make
from headgate.policy.limiter.keyed import shards_for

ALGORITHMS = sorted(LIMITERS)
BY_TIME = [name for name in ALGORITHMS if name != "concurrency"]
ROBBED = [name for name in BY_TIME if name != "fixed_window"]


@pytest.mark.parametrize(
    "max_keys, shards",
    [(1, 1), (2048, 1), (2049, 2), (10_000, 8), (1_000_000, 512), (10**9, 4096)],
)
def test_a_shard_has_about_two_thousand_keys(max_keys, shards):
    assert shards_for(max_keys) == shards


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_hundred_thousand_keys_have_a_state_each(algorithm):
    limiter = make(LimitRules(limit=3, period_s=60.0, algorithm=algorithm, max_keys=200_000))
    keys = [f"key {number}" for number in range(100_000)]
    for key in keys:
        limiter.hit(key, 5.0, 2)
    assert len(limiter) == 100_000
    assert {limiter.peek(key, 5.0).remaining for key in keys} == {1}
    assert limiter.snapshot(5.0).evicted == 0


@pytest.mark.parametrize("algorithm", BY_TIME)
def test_sweeping_drops_what_is_full_and_nothing_else(algorithm):
    limiter = make(LimitRules(limit=10, period_s=10.0, algorithm=algorithm))
    for number in range(300):
        limiter.hit(f"old {number}", 1.0, 10)
    for number in range(200):
        limiter.hit(f"new {number}", 19.0, 10)
    now = 21.0 if algorithm == "sliding_window" else 19.5  # old: 2 windows ago; new: last window
    there = len(limiter)  # new keys may have freed some of a past window already
    gone = sum(limiter.sweep(now) for _ in range(3))
    assert gone == there - 200 > 0
    assert len(limiter) == 200
    left = {limiter.peek(f"new {number}", now).remaining for number in range(200)}
    assert left == {limiter.peek("new 0", now).remaining}
    assert left != {10}


@pytest.mark.parametrize("algorithm", BY_TIME)
def test_one_sweep_does_a_piece_and_many_do_the_whole(algorithm):
    limiter = make(LimitRules(limit=10, period_s=10.0, algorithm=algorithm))
    for number in range(20_000):
        limiter.hit(f"key {number}", 1.0)
    shard = 20_000 // 512
    most = 1_000
    sweeps = 0
    while len(limiter):
        gone = limiter.sweep(1_000.0, most)
        assert 0 < gone <= most + 3 * shard
        sweeps += 1
    assert sweeps >= 18


def test_sweeping_goes_round_where_it_left_off():
    limiter = make(LimitRules(limit=10, period_s=100.0))
    for number in range(5_000):
        limiter.hit(f"key {number}", 1.0 if number % 2 else 500.0)
    assert sum(limiter.sweep(505.0, 100) for _ in range(50)) == pytest.approx(2_500, abs=300)


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window"])
def test_past_windows_are_freed_by_new_keys_also_when_nobody_sweeps(algorithm):
    limiter = make(LimitRules(limit=10, period_s=1.0, algorithm=algorithm, max_keys=10_000))
    most = 0
    for second in range(20):
        for number in range(1_000):
            limiter.hit(f"{second} {number}", second + 0.5)
        most = max(most, len(limiter))
    assert most <= 3 * 1_000 + 500


@pytest.mark.parametrize("algorithm", BY_TIME)
@pytest.mark.parametrize("max_keys", [1, 2, 7, 100, 5_000])
def test_there_are_never_more_than_max_keys(algorithm, max_keys):
    rules = LimitRules(limit=3, period_s=1e6, algorithm=algorithm, max_keys=max_keys)
    limiter = make(rules)
    for number in range(3 * max_keys + 10):
        assert limiter.hit(f"key {number}", 5.0).allowed
        assert limiter.snapshot(5.0).keys <= max_keys + shards_for(max_keys)
    if max_keys == 100:
        assert limiter.snapshot(5.0).evicted > 0


@pytest.mark.parametrize("algorithm", BY_TIME)
def test_charges_make_room_as_hits_do(algorithm):
    rules = LimitRules(limit=3, period_s=1e6, algorithm=algorithm, max_keys=100)
    limiter = make(rules)
    for number in range(1_000):
        limiter.charge(f"key {number}", 1, 5.0)
        assert len(limiter) <= 100
    assert limiter.peek("key 999", 5.0).remaining == 2
    limiter.charge("looked at", 0, 5.0)
    assert limiter.peek("looked at", 5.0).remaining == 3


@pytest.mark.parametrize("algorithm", BY_TIME)
def test_a_flood_of_fresh_keys_does_not_reset_a_victim(algorithm):
    rules = LimitRules(limit=5, period_s=1e6, algorithm=algorithm, max_keys=1_000)
    limiter = make(rules)
    for _ in range(5):
        limiter.hit("victim", 5.0)
    for number in range(50_000):
        limiter.hit(f"flood {number}", 5.0)
    assert not limiter.peek("victim", 5.0).allowed
    assert len(limiter) <= 1_000
    assert limiter.snapshot(5.0).evicted >= 49_000


@pytest.mark.parametrize("algorithm", BY_TIME)
def test_to_reset_a_victim_most_keys_must_spend_more_than_it(algorithm):
    rules = LimitRules(limit=5, period_s=1e6, algorithm=algorithm, max_keys=800)
    limiter = make(rules)
    limiter.hit("victim", 5.0, 3)
    hits = 0
    number = 0
    while limiter.peek("victim", 5.0).remaining < 5:
        number += 1
        hits += 4
        limiter.hit(f"flood {number}", 5.0, 4)
    assert hits > 4 * 790


@pytest.mark.parametrize("algorithm", BY_TIME)
def test_where_one_hit_is_the_limit_the_oldest_goes_first(algorithm):
    limiter = make(LimitRules(limit=1, period_s=1e6, algorithm=algorithm, max_keys=80))
    for number in range(81):
        limiter.hit(number, 5.0)
    assert limiter.peek(0, 5.0).allowed
    assert limiter.peek(9, 5.0).allowed
    assert not limiter.peek(10, 5.0).allowed
    assert not limiter.peek(80, 5.0).allowed


@pytest.mark.parametrize("algorithm", ["gcra", "token_bucket", "sliding_log"])
def test_what_has_run_out_makes_room_before_anything_that_counts(algorithm):
    limiter = make(LimitRules(limit=5, period_s=10.0, algorithm=algorithm, max_keys=100))
    for number in range(60):
        limiter.hit(f"old {number}", 5.0, 5)
    for number in range(100):
        limiter.hit(f"new {number}", 100.0)
    assert limiter.snapshot(100.0).evicted == 0 or len(limiter) > 87
    # 60 old ones were there when the shard was full at 40 new ones: all could go first.
    left = sum(limiter.peek(f"new {number}", 100.0).remaining == 4 for number in range(100))
    assert left == 100


def test_a_seat_is_never_taken_away_so_new_keys_are_refused_at_max_keys():
    rules = LimitRules(limit=2, period_s=3.0, algorithm="concurrency", max_keys=10)
    limiter = make(rules)
    assert all(limiter.hit(number, 5.0).allowed for number in range(10))
    verdict = limiter.hit("new", 5.0)
    assert not verdict.allowed
    assert verdict.retry_after_s == 3.0
    assert limiter.hit(3, 5.0).allowed
    limiter.refund(4, 1, 5.0)
    assert limiter.hit("new", 5.0).allowed
    assert limiter.sweep(1e9) == 0
    assert len(limiter) == 10


def test_seats_are_forgotten_when_the_last_one_is_empty():
    limiter = make(LimitRules(limit=2, algorithm="concurrency"))
    for number in range(1_000):
        limiter.hit(number, 5.0)
        limiter.refund(number, 1, 5.0)
    assert len(limiter) == 0
    limiter.refund("unknown", 1, 5.0)
    assert len(limiter) == 0


@pytest.mark.parametrize("algorithm", BY_TIME)
@given(seed=st.integers(0, 10_000))
def test_sweeping_changes_no_answer(algorithm, seed):
    rng = random.Random(seed)
    rules = LimitRules(limit=4, period_s=10.0, algorithm=algorithm)
    swept, kept = make(rules), make(rules)
    now = 3.0
    for _ in range(60):
        now += rng.choice((0.0, 0.5, 3.0, 11.0))
        key, cost = rng.choice("abc"), rng.choice((1, 1, 2))
        one, other = swept.hit(key, now, cost), kept.hit(key, now, cost)
        assert one.allowed == other.allowed
        assert one.remaining == other.remaining
        if rng.choice((True, False)):
            swept.sweep(now)


def test_fewer_max_keys_take_effect_as_new_keys_come():
    limiter = make(LimitRules(limit=5, period_s=1e6, max_keys=4_000))
    for number in range(4_000):
        limiter.hit(number, 5.0)
    limiter.take_rules(LimitRules(limit=5, period_s=1e6, max_keys=100), 5.0)
    for number in range(4_000, 4_200):
        limiter.hit(number, 5.0)
    assert len(limiter) < 4_000


def test_after_a_reload_what_has_run_out_still_makes_room_first():
    limiter = make(LimitRules(limit=10, period_s=1.0, max_keys=80))
    limiter.take_rules(LimitRules(limit=10, period_s=100.0, max_keys=80), 1_000.0)
    for number in range(40):
        limiter.hit(f"old {number}", 1_000.0)
    for number in range(100):
        limiter.hit(f"new {number}", 1_050.0)
    assert limiter.snapshot(1_050.0).evicted <= 20

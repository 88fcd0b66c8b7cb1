"""Workers and a home under uneven load in virtual time: the stated bounds hold, and little is lost.

`fleet.py` is the world: messages take time, the home has its own clock, workers take their turns.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.policy.limiter import LeaseRules, LimitRules, make
from tests.policy.limiter.fleet import Fleet, overshoot

BY_TIME = ("gcra", "token_bucket", "sliding_log", "sliding_window", "fixed_window")


def drive(fleet, rng, seconds, per_s, *, keys="k", costs=(1,), refunds=0.0):
    """Hits at random times; one worker at a time has nearly all of them, and which one changes."""
    begin = max(fleet.now, 0.0)
    workers = range(len(fleet.workers))
    now = begin
    hits = 0
    times = []
    while (now := now + rng.expovariate(per_s)) < begin + seconds:
        hot = int((now - begin) / seconds * 5) % len(fleet.workers)
        worker = rng.choices(workers, [20 if at == hot else 1 for at in workers])[0]
        key, cost = rng.choice(keys), rng.choice(costs)
        fleet.at(now, fleet.hit, worker, key, cost)
        times.append((now, key, cost))
        hits += 1
    fleet.run(begin + seconds)
    return times


def room(rules, lease, workers):
    """The stated bound: what all workers together may hold unspent."""
    largest = int(rules.capacity * lease.share / workers)
    bound = 0 if rules.algorithm == "fixed_window" else largest * workers
    assert bound <= rules.capacity * lease.share
    return bound


@pytest.mark.parametrize("algorithm", BY_TIME)
@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32),
    limit=st.sampled_from([3, 20, 100, 1_000]),
    period_s=st.sampled_from([0.5, 2.0, 10.0]),
    workers=st.integers(1, 8),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    ttl_s=st.sampled_from([0.2, 1.0, 5.0]),
    load=st.sampled_from([0.5, 1.0, 4.0]),
    way_s=st.sampled_from([0.0, 0.001, 0.05]),
    costs=st.sampled_from([(1,), (1, 1, 1, 3)]),
)
def test_what_passes_stays_within_the_stated_bound(
    algorithm, seed, limit, period_s, workers, share, ttl_s, load, way_s, costs
):
    rules = LimitRules(limit=limit, period_s=period_s, algorithm=algorithm)
    lease = LeaseRules(share=share, ttl_s=ttl_s)
    fleet = Fleet(rules, lease, workers, way_s=way_s)
    per_s = load * limit / period_s
    drive(fleet, random.Random(seed), min(3 * period_s, 1_500 / per_s), per_s, costs=costs)
    # Tokens held for a hit that waits for the rest of its cost come on top.
    slack = workers * (max(costs) - 1) if algorithm != "fixed_window" else 0
    assert overshoot(rules, fleet.passed) <= room(rules, lease, workers) + slack + 1e-3


@pytest.mark.parametrize("algorithm", BY_TIME)
@pytest.mark.parametrize("limit, period_s", [(100, 1.0), (1_000, 10.0)])
@pytest.mark.parametrize("load", [0.8, 3.0])
def test_little_of_the_limit_is_lost_to_leases(algorithm, limit, period_s, load):
    rules = LimitRules(limit=limit, period_s=period_s, algorithm=algorithm)
    fleet = Fleet(rules, LeaseRules(), 4)
    single = make(rules)
    times = drive(fleet, random.Random(7), 2 * period_s, load * limit / period_s)
    alone = sum(single.hit(key, now + fleet.home_clock, cost).allowed for now, key, cost in times)
    assert len(fleet.passed) >= alone - 0.1 * limit
    assert len(fleet.passed) >= 0.95 * alone


@pytest.mark.parametrize("algorithm", BY_TIME)
def test_five_a_minute_shared_by_four_workers_is_exactly_five(algorithm):
    rules = LimitRules(limit=5, period_s=60.0, algorithm=algorithm)
    fleet = Fleet(rules, LeaseRules(), 4, start=1_020.0, home_clock=0.0)
    for number in range(40):
        fleet.at(1_020.0 + number * 0.1, fleet.hit, number % 4)
    fleet.run(1_030.0)
    assert len(fleet.passed) == 5
    assert len(fleet.refused) == 35


def test_most_hits_are_answered_without_the_home():
    rules = LimitRules(limit=1_000, period_s=1.0)
    fleet = Fleet(rules, LeaseRules(), 4)
    drive(fleet, random.Random(3), 5.0, 800.0)
    hits = len(fleet.passed) + len(fleet.refused)
    assert fleet.sent["waited"] < 0.15 * hits
    assert fleet.sent["asks"] < 0.2 * hits


def test_a_flood_on_a_spent_key_hardly_reaches_the_home():
    rules = LimitRules(limit=5, period_s=60.0)
    fleet = Fleet(rules, LeaseRules(), 2)
    drive(fleet, random.Random(3), 20.0, 200.0)
    assert len(fleet.passed) <= 7
    assert fleet.sent["asks"] < 80


@pytest.mark.parametrize("algorithm", BY_TIME)
def test_what_a_worker_leaves_unspent_others_have_after_the_ttl(algorithm):
    rules = LimitRules(limit=100, period_s=1_000.0, algorithm=algorithm)
    fleet = Fleet(rules, LeaseRules(share=1.0, ttl_s=1.0), 2, start=2_000.0, home_clock=0.0)
    for number in range(20):
        fleet.at(2_000.01 + number / 100, fleet.hit, 0)
    fleet.run(2_000.3)
    assert fleet.workers[0].snapshot(fleet.now).unspent > 5
    for number in range(100):
        fleet.at(2_003.0 + number / 100, fleet.hit, 1)
    fleet.run(2_020.0)
    assert 99 <= len(fleet.passed) <= 102


# ---- the home is away


@pytest.mark.parametrize("algorithm", BY_TIME)
@pytest.mark.parametrize("load", [0.8, 4.0])
def test_alone_all_workers_together_pass_no_more_than_the_limit(algorithm, load):
    rules = LimitRules(limit=200, period_s=1.0, algorithm=algorithm)
    lease = LeaseRules()
    fleet = Fleet(rules, lease, 4)
    rng = random.Random(5)
    drive(fleet, rng, 1.0, load * 200)
    fleet.lose(range(4))
    drive(fleet, rng, 5.0, load * 200)
    # In stretches with the moment of the loss in it, one limit more; after it none.
    assert overshoot(rules, fleet.passed) <= 200 + 20
    assert overshoot(rules, [hit for hit in fleet.passed if hit[0] > 32_002.5]) <= 1e-3


@pytest.mark.parametrize("algorithm", BY_TIME)
@pytest.mark.parametrize("load", [0.8, 4.0])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_coming_back_makes_no_burst(algorithm, load, workers):
    rules = LimitRules(limit=200, period_s=4.0, algorithm=algorithm)
    lease = LeaseRules()
    fleet = Fleet(rules, lease, workers)
    rng = random.Random(5)
    fleet.lose(range(workers))
    drive(fleet, rng, 10.0, load * 50)
    fleet.find(range(workers))
    drive(fleet, rng, 14.0, load * 50)
    after_loss = [hit for hit in fleet.passed if hit[0] > 32_004.1]
    # What is on its way while a worker reports, at the rate of one share in a quarter of a ttl.
    reporting = 0.25 * 50 + 1
    assert overshoot(rules, after_loss) <= room(rules, lease, workers) + reporting
    # And a period later it goes on as before: nothing is owed for ever.
    late = [hit for hit in fleet.passed if hit[0] > 32_016.0]
    assert len(late) >= 0.85 * min(load, 1.0) * 50 * 8


def test_a_worker_that_was_cut_off_alone_joins_again_without_a_burst():
    rules = LimitRules(limit=100, period_s=10.0)
    fleet = Fleet(rules, LeaseRules(share=0.2), 2)
    rng = random.Random(9)
    drive(fleet, rng, 10.0, 8.0)
    fleet.lose([1])
    drive(fleet, rng, 10.0, 8.0)
    fleet.find([1])
    drive(fleet, rng, 10.0, 8.0)
    # Cut off it had half the limit beside the home that did not know of it.
    assert overshoot(rules, fleet.passed) <= 50 + 20
    late = [hit for hit in fleet.passed if hit[0] > 32_000 + 21]
    assert overshoot(rules, late) <= 20


# ---- concurrency


def busy(fleet, rng, seconds, per_s, took_s, check, key="key"):
    """Requests that take a seat, stay for a while and leave."""

    def done(worker, verdict):
        check()
        if verdict.allowed:
            fleet.at(fleet.now + rng.expovariate(1 / took_s), leave, worker)

    def leave(worker):
        fleet.leave(worker, key)

    now = begin = fleet.now
    workers = range(len(fleet.workers))
    while (now := now + rng.expovariate(per_s)) < begin + seconds:
        hot = int((now - begin) / seconds * 5) % len(workers)
        worker = rng.choices(workers, [20 if at == hot else 1 for at in workers])[0]
        fleet.at(now, fleet.hit, worker, key, 1, done)
    fleet.run(begin + seconds)


def seats(limit, workers, *, share=0.1, way_s=0.001, fail="local", ttl_s=1.0):
    rules = LimitRules(limit=limit, algorithm="concurrency")
    lease = LeaseRules(share=share, ttl_s=ttl_s, seat_ttl_s=3.0, fail=fail)
    return Fleet(rules, lease, workers, way_s=way_s)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    limit=st.sampled_from([1, 5, 50]),
    workers=st.integers(1, 6),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    load=st.sampled_from([0.5, 1.0, 4.0]),
    way_s=st.sampled_from([0.0, 0.001, 0.02]),
)
def test_never_more_than_the_limit_is_under_way(seed, limit, workers, share, load, way_s):
    fleet = seats(limit, workers, share=share, way_s=way_s)
    most = [0]

    def check():
        most[0] = max(most[0], fleet.under_way["key"])
        assert fleet.under_way["key"] <= limit

    busy(fleet, random.Random(seed), 4.0, load * limit / 0.1, 0.1, check)
    if load == 4.0:
        assert most[0] >= 0.7 * limit


def test_seats_are_well_used_under_load():
    fleet = seats(20, 4)
    busy(fleet, random.Random(1), 10.0, 600.0, 0.1, lambda: None)
    assert len(fleet.passed) >= 0.8 * 20 / 0.1 * 10


def test_most_requests_on_a_busy_key_find_a_seat_without_the_home():
    fleet = seats(1_000, 4, share=0.4)
    busy(fleet, random.Random(1), 5.0, 1_000.0, 0.1, lambda: None)
    assert fleet.sent["waited"] < 0.4 * (len(fleet.passed) + len(fleet.refused))


def test_the_seats_of_a_dead_worker_come_back_after_the_ttl():
    fleet = seats(4, 2)
    for _ in range(4):
        fleet.at(1_000.0, fleet.hit, 0)
    fleet.at(1_001.0, fleet.hit, 1)
    fleet.run(1_002.0)
    assert (len(fleet.passed), len(fleet.refused)) == (4, 1)
    fleet.dead.add(0)
    fleet.at(1_004.0, fleet.hit, 1)
    fleet.run(1_004.5)
    assert len(fleet.refused) == 2  # a living one is silent for a third of the ttl as well
    for _ in range(5):
        fleet.at(1_006.0, fleet.hit, 1)
    fleet.run(1_007.0)
    assert len(fleet.passed) == 8


def test_a_living_worker_keeps_its_seats_for_as_long_as_it_takes():
    fleet = seats(2, 2)
    for _ in range(2):
        fleet.at(1_000.0, fleet.hit, 0)
    fleet.at(1_060.0, fleet.hit, 1)
    fleet.run(1_061.0)
    assert (len(fleet.passed), len(fleet.refused)) == (2, 1)


@pytest.mark.parametrize("workers, limit", [(2, 10), (4, 10), (3, 2)])
def test_alone_each_seats_its_share_and_together_at_most_twice_the_limit(workers, limit):
    fleet = seats(limit, workers)
    most = [0]

    def check():
        most[0] = max(most[0], fleet.under_way["key"])

    rng = random.Random(2)
    busy(fleet, rng, 2.0, 100.0 * limit, 0.05, check)
    fleet.lose(range(workers))
    busy(fleet, rng, 1.0, 100.0 * limit, 0.05, check)
    assert most[0] <= limit + max(limit, workers)
    most[0] = 0
    busy(fleet, rng, 2.0, 100.0 * limit, 0.05, check)
    assert 0 < most[0] <= max(limit, workers)
    fleet.find(range(workers))
    busy(fleet, rng, 1.0, 100.0 * limit, 0.05, check)
    most[0] = 0
    busy(fleet, rng, 2.0, 100.0 * limit, 0.05, check)
    assert most[0] <= limit


def test_a_worker_that_was_only_stuck_says_what_it_holds():
    fleet = seats(4, 2)
    for _ in range(4):
        fleet.at(1_000.0, fleet.hit, 0)
    fleet.run(1_001.0)
    fleet.cut.add(0)  # stuck: it says nothing, and its requests go on
    for _ in range(4):
        fleet.at(1_006.0, fleet.hit, 1)
    fleet.run(1_006.5)
    assert fleet.under_way["key"] == 8
    fleet.cut.discard(0)
    fleet.run(1_009.0)
    for _ in range(4):
        fleet.at(1_009.0, fleet.leave, 1)
    fleet.at(1_010.0, fleet.hit, 1)
    fleet.run(1_011.0)
    assert fleet.under_way["key"] == 4
    assert len(fleet.refused) == 1

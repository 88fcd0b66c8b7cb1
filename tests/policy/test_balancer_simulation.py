"""Balancing at the size of thousands of instances, in seeded virtual time."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from headgate.policy.balancer.group import BalanceRules, Group, MemberSpec, hash_key
from tests.policy.simulation_balancing import Simulation, is_spread_by, pick, specs_of

LOOKING = ("least_connections", "power_of_two", "peak_ewma")
"""Algorithms that look at load."""


def steady(id, rng):
    return rng.expovariate(1 / 0.010)


def run(by, specs, work_s, *, load=0.7, requests=20_000, keys=(), **settings):
    """`load`: of what all instances could do with work of 10 ms."""
    simulation = Simulation(BalanceRules(by=by, **settings), specs, work_s)
    simulation.run(requests, load * len(specs) / 0.010, keys)
    return simulation.finish_all()


def test_two_thousand_instances_are_used_evenly():
    specs = specs_of(2000)
    worst = {}
    for by in ("round_robin", "random", *LOOKING):
        seen = run(by, specs, steady)
        assert seen.unserved == 0
        # Evenly, or more evenly than chance: that is not what the chi-square test refuses.
        assert by == "peak_ewma" or is_spread_by(seen.served, {s.id: 1.0 for s in specs})
        worst[by] = (seen.in_flight_most, seen.percentile(0.99))
    assert worst["power_of_two"][0] <= worst["random"][0] - 3
    assert worst["power_of_two"][1] < 0.75 * worst["random"][1]
    assert worst["least_connections"][0] <= 3
    assert worst["least_connections"][1] < 0.75 * worst["round_robin"][1]


def test_weights_hold_at_the_size_of_thousands():
    specs = [MemberSpec(str(at), 1 + at % 5) for at in range(3000)]
    for by in ("round_robin", "random", "power_of_two", "least_connections"):
        group = Group(BalanceRules(by=by), specs, 0.0, Random(1))
        got = Counter(pick(group).weight for _ in range(30_000))
        by_weight = {str(weight): float(weight) for weight in range(1, 6)}
        assert is_spread_by(Counter({str(w): n for w, n in got.items()}), by_weight)


def slow_half(id, rng):
    return rng.expovariate(1 / (0.005 if int(id.split("-")[1]) % 2 else 0.015))


def test_under_skewed_latencies_the_quick_ones_get_more():
    specs = specs_of(1000)
    quick = [spec.id for spec in specs if int(spec.id.split("-")[1]) % 2]
    by_turns = run("round_robin", specs, slow_half, load=0.6)
    for by in LOOKING:
        seen = run(by, specs, slow_half, load=0.6)
        assert seen.share_of(quick) > 0.53
        assert seen.percentile(0.99) < 0.6 * by_turns.percentile(0.99)
    by_latency = run("peak_ewma", specs, slow_half, load=0.6)
    assert by_latency.share_of(quick, since=0.2) > 0.65
    assert by_latency.percentile(0.5) < run("power_of_two", specs, slow_half, load=0.6).percentile(
        0.5
    )


def test_one_slow_instance_does_not_make_a_slow_service():
    specs = specs_of(20)

    def work_s(id, rng):
        return rng.expovariate(1 / (1.0 if id == "0-0" else 0.010))

    def at_p99(by):
        return run(by, specs, work_s, load=0.5, requests=20_000)

    assert at_p99("round_robin").percentile(0.99) > 5
    for by in LOOKING:
        seen = at_p99(by)
        assert seen.percentile(0.99) < 0.5
        assert seen.share_of(["0-0"]) < 0.01


def test_a_newcomer_gets_its_share_little_by_little():
    specs = specs_of(50)
    for by in ("round_robin", "random", "power_of_two", "least_connections", "peak_ewma"):
        rules = BalanceRules(by=by, slow_start_s=10.0)
        simulation = Simulation(rules, specs, steady)
        simulation.run(5000, 2000)
        joined = simulation.now
        simulation.group.update(rules, [*specs, MemberSpec("new")], joined)
        seen = simulation.run(40_000, 2000)
        fair = 1 / 51
        first = seen.share_of(["new"], joined, joined + 2)
        middle = seen.share_of(["new"], joined + 4, joined + 6)
        last = seen.share_of(["new"], joined + 11, joined + 19)
        assert first < 0.4 * fair
        assert 0.3 * fair < middle < 0.85 * fair
        assert last == pytest.approx(fair, rel=0.25)


@pytest.mark.parametrize(
    "by", ["round_robin", "power_of_two", "least_connections", "consistent_hash"]
)
def test_backups_take_over_as_a_tier_goes_down_and_give_back(by):
    first, backups = specs_of(1000), specs_of(300, priority=1)
    keys = [hash_key(b"%d" % at) for at in range(5000)]
    simulation = Simulation(BalanceRules(by=by), [*first, *backups], steady)
    ids = [spec.id for spec in first]

    def share_of_first():
        since = simulation.now
        simulation.run(4000, 20_000, keys)
        return simulation.seen.share_of(ids, since)

    assert share_of_first() == 1.0
    for down, share in ((300, 1.0), (650, 0.5), (860, 0.2), (1000, 0.0)):
        for member_id in ids[:down]:
            simulation.group.set_usable(member_id, False, "down", simulation.now)
        assert share_of_first() == pytest.approx(share, abs=0.04)
    for member_id in ids:
        simulation.group.set_usable(member_id, True, None, simulation.now)
    assert share_of_first() == 1.0
    assert simulation.seen.unserved == 0


def test_of_a_thousand_on_a_ring_one_leaves_and_only_its_keys_move():
    rules = BalanceRules(by="consistent_hash")
    specs = specs_of(1000)
    group = Group(rules, specs, 0.0, Random(1))
    keys = [hash_key(b"user-%d" % at) for at in range(20_000)]
    before = [pick(group, 0.0, key).id for key in keys]
    group.update(rules, [spec for spec in specs if spec.id != "0-500"], 1.0)
    after = [pick(group, 1.0, key).id for key in keys]
    changed = [old for old, new in zip(before, after, strict=True) if old != new]
    assert set(changed) == {"0-500"}
    assert len(changed) == before.count("0-500")
    loads = Counter(before)
    assert (
        max(loads.values()) < 2.5 * 20
    )  # of ten a thousandth, with chance of the ring and the keys


def test_a_hot_key_fills_one_after_the_other_and_not_beyond_the_bound():
    specs = specs_of(1000)
    keys = [hash_key(b"hot")] * 9 + [hash_key(b"cool")]
    bounded = run("consistent_hash", specs, steady, keys=keys, requests=8_000, bound=1.25)
    unbounded = run("consistent_hash", specs, steady, keys=keys, requests=3_000, bound=0.0)
    assert bounded.in_flight_most <= 8
    assert bounded.percentile(0.99) < 0.2
    assert unbounded.in_flight_most > 2000

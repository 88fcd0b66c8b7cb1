"""Every algorithm against a naive model of it, and what all of them promise."""

from __future__ import annotations

from fractions import Fraction
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.policy.limiter import LIMITERS, LimitRules, make
from tests.policy.limiter.models import MODELS, NEVER

ALGORITHMS = sorted(LIMITERS)
BY_TIME = [name for name in ALGORITHMS if name != "concurrency"]
BURSTING = ("gcra", "token_bucket")

# Periods that no float holds, and months of uptime: sums of such times are never quite right.
PERIODS = st.sampled_from([0.1, 0.3, 1.0, 7.0, 60.0, 900.0, 86400.0])
LIMITS = st.integers(1, 40)
STARTS = st.sampled_from([0, 1, 12_345, 10_000_000])


@st.composite
def all_rules(draw, algorithm):
    burst = draw(st.none() | st.integers(1, 60)) if algorithm in BURSTING else None
    return LimitRules(
        limit=draw(LIMITS), period_s=draw(PERIODS), algorithm=algorithm, burst=burst, max_keys=50
    )


# Steps are quarters of the time of one hit, so that ties are met exactly: the moment at which
# there is enough again, the edge of a window, the age of one period.
STEPS = st.one_of(
    st.just(0), st.integers(0, 8), st.sampled_from([4, 40, 160, 161]), st.integers(0, 1000)
)
COSTS = st.one_of(st.just(1), st.integers(0, 5), st.integers(0, 70))
CALLS = st.lists(
    st.tuples(
        STEPS,
        st.sampled_from(["hit", "hit", "hit", "hit", "peek", "charge", "refund"]),
        COSTS,
        st.sampled_from("ab"),
    ),
    max_size=60,
)


class Pair:
    """A limiter and its models, told the same."""

    def __init__(self, rules, start):
        self.rules = rules
        self.limiter = make(rules)
        self.models = {key: MODELS[rules.algorithm](rules) for key in "ab"}
        period = Fraction(rules.period_s)
        self.step = period / rules.limit / 4
        self.now = period * int(start / period)

    def call(self, steps, kind, cost, key):
        self.now += steps * self.step
        now = float(self.now)
        model = self.models[key]
        if kind == "charge":
            self.limiter.charge(key, cost, now)
            model.charge(cost, self.now)
        elif kind == "refund":
            self.limiter.refund(key, cost, now)
            model.refund(cost, self.now)
        else:
            got = getattr(self.limiter, kind)(key, now, cost)
            self.agree(got, getattr(model, kind)(self.now, cost))
        self.agree(self.limiter.peek(key, now, 1), model.peek(self.now, 1))

    def agree(self, got, answer):
        about = 1e-6 * self.rules.period_s + 1e-7
        assert got.allowed == answer.allowed
        assert got.limit == self.rules.capacity
        assert got.remaining == answer.remaining
        assert 0 <= got.remaining <= got.limit
        assert got.reset_s == pytest.approx(float(answer.reset), abs=about)
        retry = inf if answer.retry is NEVER else float(answer.retry)
        assert got.retry_after_s == pytest.approx(retry, abs=about)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(max_examples=60)
@given(data=st.data(), start=STARTS, calls=CALLS)
def test_it_answers_as_the_naive_model_does(algorithm, data, start, calls):
    pair = Pair(data.draw(all_rules(algorithm)), start)
    for call in calls:
        pair.call(*call)


@pytest.mark.parametrize("algorithm", BY_TIME)
@settings(max_examples=60)
@given(data=st.data(), start=STARTS, calls=CALLS, cost=st.integers(1, 40))
def test_a_refused_hit_is_allowed_after_the_time_told_and_not_before(
    algorithm, data, start, calls, cost
):
    pair = Pair(data.draw(all_rules(algorithm)), start)
    for call in calls:
        pair.call(*call)
    limiter, now = pair.limiter, float(pair.now)
    verdict = limiter.peek("a", now, cost)
    if verdict.allowed or verdict.retry_after_s == inf:
        return
    before = now + verdict.retry_after_s - pair.rules.period_s * 1e-4
    if before > now:
        assert not limiter.peek("a", before, cost).allowed
    assert limiter.hit("a", now + verdict.retry_after_s, cost).allowed


@pytest.mark.parametrize("algorithm", BY_TIME)
@settings(max_examples=60)
@given(data=st.data(), start=STARTS, calls=CALLS)
def test_the_whole_limit_is_there_after_the_reset_and_not_before(algorithm, data, start, calls):
    pair = Pair(data.draw(all_rules(algorithm)), start)
    for call in calls:
        pair.call(*call)
    limiter, now, whole = pair.limiter, float(pair.now), pair.rules.capacity
    reset_s = limiter.peek("a", now).reset_s
    before = now + reset_s - pair.rules.period_s * 1e-4
    if before > now:
        assert not limiter.peek("a", before, whole).allowed
    verdict = limiter.peek("a", now + reset_s, whole)
    assert verdict.allowed
    assert verdict.remaining == whole


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(data=st.data(), start=STARTS, calls=CALLS, costs=st.lists(st.integers(1, 9), max_size=5))
def test_a_refund_at_the_same_time_undoes_a_hit(algorithm, data, start, calls, costs):
    pair = Pair(data.draw(all_rules(algorithm)), start)
    for call in calls:
        pair.call(*call)
    now = float(pair.now)
    before = pair.limiter.peek("a", now, 1)
    taken = [cost for cost in costs if pair.limiter.hit("a", now, cost).allowed]
    for cost in taken:
        pair.limiter.refund("a", cost, now, now)
    after = pair.limiter.peek("a", now, 1)
    assert (after.allowed, after.remaining) == (before.allowed, before.remaining)
    about = 1e-6 * pair.rules.period_s + 1e-7
    assert after.retry_after_s == pytest.approx(before.retry_after_s, abs=about)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("count", [1, 5, 1000])
def test_at_one_time_exactly_the_limit_passes(algorithm, count):
    limiter = make(LimitRules(limit=count, period_s=0.7, algorithm=algorithm))
    now = 1_234_567.891
    verdicts = [limiter.hit("key", now) for _ in range(count + 3)]
    assert [verdict.allowed for verdict in verdicts] == [True] * count + [False] * 3
    assert [verdict.remaining for verdict in verdicts] == [*range(count - 1, -1, -1), 0, 0, 0]


def test_a_burst_of_a_hundred_thousand_is_exact_after_months_of_uptime():
    limiter = make(LimitRules(limit=100_000, period_s=0.1))
    now = 10_000_000.1
    assert limiter.hit("key", now, 60_000).allowed
    assert all(limiter.hit("key", now).allowed for _ in range(40_000))
    assert not limiter.hit("key", now).allowed


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_cost_above_the_limit_is_refused_for_ever_and_charged_never(algorithm):
    limiter = make(LimitRules(limit=5, algorithm=algorithm))
    for _ in range(3):
        verdict = limiter.hit("key", 10.0, 6)
        assert not verdict.allowed
        assert verdict.retry_after_s == inf
        assert verdict.remaining == 5
    assert len(limiter) == 0
    assert limiter.hit("key", 10.0, 5).allowed
    assert limiter.hit("key", 10.0, 6).retry_after_s == inf


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_cost_of_nothing_is_a_look(algorithm):
    limiter = make(LimitRules(limit=5, algorithm=algorithm))
    assert limiter.hit("key", 10.0, 0).remaining == 5
    assert len(limiter) == 0
    limiter.hit("key", 10.0, 5)
    for _ in range(3):
        verdict = limiter.hit("key", 10.0, 0)
        assert verdict.allowed
        assert verdict.remaining == 0
        assert verdict.retry_after_s == 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_negative_cost_is_a_broken_call(algorithm):
    limiter = make(LimitRules(limit=5, algorithm=algorithm))
    for call in (limiter.hit, limiter.peek):
        with pytest.raises(ValueError, match="negative"):
            call("key", 10.0, -1)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_refused_hits_push_nothing_back(algorithm):
    limiter = make(LimitRules(limit=4, period_s=60.0, algorithm=algorithm))
    limiter.hit("key", 0.0, 4)
    first = limiter.hit("key", 1.0, 2).retry_after_s
    for _ in range(100):
        assert limiter.hit("key", 1.0, 2).retry_after_s == pytest.approx(first)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_refund_never_lifts_above_full(algorithm):
    limiter = make(LimitRules(limit=4, period_s=60.0, algorithm=algorithm))
    limiter.refund("key", 3, 0.0)
    limiter.hit("key", 0.0, 2)
    limiter.refund("key", 1_000, 0.0)
    assert limiter.peek("key", 0.0).remaining == 4
    limiter.hit("key", 0.0, 2)
    limiter.refund("key", 2, 0.0)
    assert len(limiter) == 0
    assert sum(limiter.hit("key", 0.0).allowed for _ in range(9)) == 4


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_debt_is_one_limit_at_most(algorithm):
    limiter = make(LimitRules(limit=4, period_s=60.0, algorithm=algorithm))
    limiter.hit("key", 0.0, 3)
    for _ in range(5):
        limiter.charge("key", 1_000, 0.0)
    assert limiter.peek("key", 0.0).remaining == 0
    limiter.refund("key", 4, 0.0)
    assert limiter.peek("key", 0.0).remaining == 0
    limiter.refund("key", 1, 0.0)
    assert limiter.peek("key", 0.0).remaining == 1


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_cleared_key_is_full(algorithm):
    limiter = make(LimitRules(limit=4, period_s=60.0, algorithm=algorithm))
    limiter.hit("key", 59.0, 1)
    limiter.hit("key", 61.0, 2)
    limiter.clear("key")
    limiter.clear("unknown")
    assert len(limiter) == 0
    assert limiter.hit("key", 61.0, 4).allowed


@given(data=st.data(), start=STARTS, calls=CALLS)
def test_gcra_and_the_token_bucket_agree(data, start, calls):
    rules = data.draw(all_rules("gcra"))
    gcra = Pair(rules, start)
    bucket = make(
        LimitRules(
            limit=rules.limit,
            period_s=rules.period_s,
            burst=rules.burst,
            algorithm="token_bucket",
        )
    )
    for steps, kind, cost, key in calls:
        gcra.now += steps * gcra.step
        if kind == "hit":
            one = gcra.limiter.hit(key, float(gcra.now), cost)
            other = bucket.hit(key, float(gcra.now), cost)
            assert (one.allowed, one.remaining) == (other.allowed, other.remaining)


# ---- windows and the log: when something was


@pytest.mark.parametrize(
    "algorithm, remaining",
    [
        ("fixed_window", 7),  # the past window's hits count no more, nor does their refund
        ("sliding_window", 4),  # 6 of the last window at half their weight
        ("sliding_log", 1),
    ],
)
def test_a_late_refund_goes_to_where_the_hit_was(algorithm, remaining):
    limiter = make(LimitRules(limit=10, period_s=10.0, algorithm=algorithm))
    limiter.hit("key", 8.0, 8)
    limiter.hit("key", 9.0, 2)
    limiter.charge("key", 3, 14.0)
    limiter.refund("key", 4, 15.0, at=8.0)
    limiter.refund("key", 0, 15.0, at=14.0)
    limiter.refund("key", 9, 15.0, at=2.0 if algorithm != "sliding_window" else -11.0)
    assert limiter.peek("key", 15.0).remaining == remaining
    limiter.refund("key", 1, 15.0, at=14.0)
    assert limiter.peek("key", 15.0).remaining == remaining + 1


def test_the_log_forgets_the_refunded_hit_and_not_the_newest():
    limiter = make(LimitRules(limit=3, period_s=10.0, algorithm="sliding_log"))
    for now in (1.0, 2.0, 3.0):
        limiter.hit("key", now)
    limiter.refund("key", 1, 4.0, at=2.0)
    assert limiter.hit("key", 4.0).allowed
    # Of 1, 3 and 4 the first to come free is that of 1.
    assert limiter.hit("key", 4.0).retry_after_s == pytest.approx(7.0)
    limiter.hit("key", 11.0)
    assert limiter.hit("key", 11.0).retry_after_s == pytest.approx(2.0)


def test_the_log_is_exact_in_every_stretch_where_the_counter_is_not():
    lump = [9.9] * 10 + [10.0 + tenth / 10 for tenth in range(100)]
    passed = {}
    for algorithm in ("fixed_window", "sliding_window", "sliding_log"):
        limiter = make(LimitRules(limit=10, period_s=10.0, algorithm=algorithm))
        times = [now for now in lump if limiter.hit("key", now).allowed]
        passed[algorithm] = max(sum(at <= t < at + 10 for t in times) for at in times)
    assert passed["sliding_log"] == 10
    assert passed["fixed_window"] == 20
    assert 10 < passed["sliding_window"] < 20


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window"])
def test_where_rounding_makes_the_edge_doubtful_the_window_does_not_begin_twice(algorithm):
    # The edge, worked out as the product, is at this time; the quotient says it is still ahead.
    edge = 583074102.0999999
    limiter = make(LimitRules(limit=3, period_s=0.7, algorithm=algorithm))
    limiter.hit("key", edge - 0.6, 3)
    assert not limiter.hit("key", edge).allowed
    assert limiter.hit("key", edge + 0.71).allowed


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window"])
def test_a_hair_before_the_edge_belongs_to_the_next_window(algorithm):
    limiter = make(LimitRules(limit=1, period_s=0.1, algorithm=algorithm))
    now = 3 * 0.1 - 1e-12
    limiter.hit("key", now)
    limiter.hit("key", 0.3)
    assert limiter.peek("key", 0.3).remaining == 0


# ---- reload


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_new_rules_keep_what_was_used(algorithm):
    limiter = make(LimitRules(limit=10, period_s=10.0, algorithm=algorithm))
    limiter.hit("key", 100.0, 6)
    limiter.take_rules(LimitRules(limit=20, period_s=10.0, algorithm=algorithm), 100.0)
    assert limiter.peek("key", 100.0).remaining in (14, 4)  # a token bucket keeps its tokens
    limiter.take_rules(LimitRules(limit=3, period_s=10.0, algorithm=algorithm), 100.0)
    verdict = limiter.peek("key", 100.0)
    assert not verdict.allowed or algorithm == "token_bucket"
    assert verdict.limit == 3
    assert limiter.rules.limit == 3


@given(used=st.integers(1, 10), later=st.floats(0, 20), limit=st.integers(10, 50))
def test_gcra_goes_on_at_the_new_rate_from_what_was_used(used, later, limit):
    limiter = make(LimitRules(limit=10, period_s=10.0))
    limiter.hit("key", 1_000.0, used)
    limiter.take_rules(LimitRules(limit=limit, period_s=2.0), 1_000.0 + used / 2)
    verdict = limiter.peek("key", 1_000.0 + used / 2 + later)
    left = max(0.0, used / 2 - later * limit / 2)
    assert verdict.reset_s == pytest.approx(left * 2 / limit, abs=1e-6)


def test_after_reloads_gcra_still_charges_refunds_and_sweeps_by_its_own_clock():
    limiter = make(LimitRules(limit=10, period_s=10.0))
    limiter.hit("key", 1_000.0, 10)
    for now, limit in ((1_001.0, 20), (1_002.0, 40), (1_003.0, 10)):
        limiter.take_rules(LimitRules(limit=limit, period_s=10.0), now)
    # 10 used, less 1 at the first rate, 2 at the second, 4 at the third.
    assert limiter.peek("key", 1_003.0).reset_s == pytest.approx(3.0)
    limiter.charge("key", 1, 1_003.0)
    limiter.refund("key", 2, 1_003.0)
    assert limiter.peek("key", 1_003.0).reset_s == pytest.approx(2.0)
    assert limiter.sweep(1_004.9) == 0
    assert limiter.sweep(1_005.1) == 1
    limiter.charge("new", 5, 1_006.0)
    assert limiter.peek("new", 1_006.0).reset_s == pytest.approx(5.0)
    limiter.charge("new", 1_000, 1_006.0)
    assert limiter.peek("new", 1_006.0).reset_s == pytest.approx(20.0)


@pytest.mark.parametrize("algorithm", BY_TIME)
def test_after_a_reload_the_new_period_counts(algorithm):
    limiter = make(LimitRules(limit=10, period_s=100.0, algorithm=algorithm))
    limiter.hit("key", 1_001.0, 3)
    limiter.take_rules(LimitRules(limit=10, period_s=3.0, algorithm=algorithm), 1_002.0)
    limiter.hit("key", 1_002.0, 7)
    assert limiter.peek("key", 1_009.0).remaining == 10


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window"])
def test_a_window_that_had_ended_before_a_reload_is_past(algorithm):
    limiter = make(LimitRules(limit=10, period_s=10.0, algorithm=algorithm))
    limiter.hit("key", 101.0, 6)
    limiter.take_rules(LimitRules(limit=10, period_s=60.0, algorithm=algorithm), 135.0)
    assert limiter.peek("key", 135.0).remaining == 10
    limiter.hit("key", 135.0)
    reset_s = 45.0 if algorithm == "fixed_window" else 105.0
    assert limiter.peek("key", 135.0).reset_s == pytest.approx(reset_s)


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window"])
def test_windows_of_another_length_begin_with_the_counts_of_the_running_one(algorithm):
    limiter = make(LimitRules(limit=10, period_s=10.0, algorithm=algorithm))
    limiter.hit("key", 101.0, 6)
    limiter.take_rules(LimitRules(limit=10, period_s=60.0, algorithm=algorithm), 102.0)
    verdict = limiter.peek("key", 102.0)
    assert verdict.remaining == 4
    assert limiter.peek("key", 119.9).remaining == 4
    if algorithm == "fixed_window":
        assert limiter.peek("key", 120.0).remaining == 10


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_another_algorithm_is_another_limiter(algorithm):
    limiter = make(LimitRules(limit=10, algorithm=algorithm))
    other = LimitRules(limit=10, algorithm="gcra" if algorithm != "gcra" else "fixed_window")
    with pytest.raises(ValueError, match="cannot go on as"):
        limiter.take_rules(other, 0.0)
    with pytest.raises(ValueError, match="limit=0"):
        limiter.take_rules(LimitRules(limit=0, algorithm=algorithm), 0.0)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_operator_can_ask(algorithm):
    limiter = make(LimitRules(limit=10, period_s=60.0, algorithm=algorithm))
    limiter.hit("a", 0.0)
    limiter.hit("b", 0.0)
    snapshot = limiter.snapshot(0.0)
    assert (snapshot.algorithm, snapshot.limit, snapshot.keys) == (algorithm, 10, 2)
    assert snapshot.evicted == 0

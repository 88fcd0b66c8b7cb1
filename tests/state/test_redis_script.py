"""The script in Redis against the pure home: the same asks at the same times, the same answers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from redis import Redis

from headgate.policy.limiter.lease import Ask, Back, Grant, LeaseRules, home_of
from headgate.policy.limiter.rules import Algorithm, LimitRules
from headgate.state.redis_script import LIMITS, Wire, grants_of, tag_of
from tests.state.redis_server import RedisServer

pytestmark = pytest.mark.integration

_serial = itertools.count()

AS_FOUND = (Phase.explicit, Phase.reuse, Phase.generate)
"""Without shrinking: what Redis answers depends on its clock, and no run is like the last."""


@pytest.fixture(scope="module")
def redis(quiet_redis: RedisServer) -> Iterator[Redis]:
    client = Redis(port=quiet_redis.port)
    yield client
    client.close()


@dataclass
class Asked:
    key: str
    want: int
    least: int
    owed: int
    holding: int | None
    holder: str


@dataclass
class Returned:
    key: str
    n: int
    of: int
    """Which of the earlier grants."""
    holder: str


small = st.integers(0, 6)
keys = st.sampled_from("kl")
holders = st.sampled_from(["a", "b", "c"])
asked = st.builds(
    lambda key, least, more, owed, holding, holder: Asked(
        key, least + more, least, owed, holding, holder
    ),
    keys,
    st.integers(0, 9),
    small,
    st.one_of(st.just(0), st.integers(0, 20)),
    st.one_of(st.none(), small),
    holders,
)
returned = st.builds(Returned, keys, small, st.integers(0, 50), holders)
batches = st.lists(st.lists(st.one_of(asked, asked, returned), min_size=1, max_size=4), max_size=25)


class Both:
    """The home in Redis and the pure one, told the same."""

    def __init__(self, redis: Redis, rules: LimitRules, seat_ttl_s: float) -> None:
        self.redis = redis
        self.rules = rules
        self.seat_ttl_s = seat_ttl_s
        self.wire = Wire(f"t{next(_serial)}")
        self.home = home_of(rules, LeaseRules(seat_ttl_s=seat_ttl_s))
        self.began_us: int | None = None
        self.times_us: list[int] = []

    def say(self, batch: list[Asked | Returned]) -> list[tuple[Grant, Grant]]:
        """Every grant of Redis with that of the pure home. A call has one holder."""
        pairs = []
        for holder, part in itertools.groupby(batch, key=lambda one: one.holder):
            pairs += self._call(holder, list(part))
        return pairs

    def _call(self, holder: str, said: list[Asked | Returned]) -> list[tuple[Grant, Grant]]:
        rows = []
        ats = []
        self.wire.rule("r", self.rules, self.seat_ttl_s)
        for one in said:
            if isinstance(one, Asked):
                ask = Ask(one.key, one.want, one.least, one.owed, self._holding(one))
                rows.append(self.wire.ask("r", self.rules, ask, self.seat_ttl_s))
            else:
                at_us = self.times_us[one.of % len(self.times_us)] if self.times_us else 0
                ats.append(at_us)
                row = self.wire.back("r", Back(one.key, one.n, at_us / 1e6))
                assert row is not None
                rows.append(row)
        words = [word for row in rows for word in row[1:]]
        reply = self.redis.eval(LIMITS.text, len(rows), *[row[0] for row in rows], holder, *words)
        now_us = reply[0]
        if self.began_us is None:
            # Windows begin at whole periods of the clock, so the model's clock does as well.
            period_us = round(self.rules.period_s * 1e6)
            self.began_us = now_us - now_us % period_us - 10 * period_us
        self.times_us.append(now_us)
        grants = iter(grants_of(reply))
        backs = iter(ats)
        pairs = []
        now = (now_us - self.began_us) / 1e6
        for one in said:
            if isinstance(one, Asked):
                model = self.home.grant(
                    one.key, one.want, one.least, holder, now, one.owed, self._holding(one)
                )
                pairs.append((next(grants), model))
            else:
                at = (next(backs) - self.began_us) / 1e6
                self.home.give_back(one.key, one.n, now, holder, at)
        assert next(grants, None) is None
        return pairs

    def _holding(self, one: Asked) -> int | None:
        return one.holding if self.rules.algorithm == "concurrency" else None


rates: tuple[Algorithm, ...] = (
    "gcra",
    "token_bucket",
    "fixed_window",
    "sliding_window",
    "sliding_log",
)


@pytest.mark.parametrize("algorithm", rates)
def test_redis_answers_as_the_pure_home_does(redis: Redis, algorithm: Algorithm):
    @settings(max_examples=120, phases=AS_FOUND)
    @given(batches, st.integers(1, 12), st.sampled_from([0.001, 0.003, 0.02, 3600.0]))
    def compare(said: list[list[Asked | Returned]], limit: int, period_s: float) -> None:
        both = Both(redis, LimitRules(limit=limit, period_s=period_s, algorithm=algorithm), 10.0)
        late_s = 2e-6
        if algorithm == "sliding_log":  # hits that it joined count until the last of them is out
            late_s += period_s / 1000
        for batch in said:
            for ours, model in both.say(batch):
                assert ours.granted == model.granted
                assert ours.remaining == model.remaining
                assert ours.reset_s == pytest.approx(model.reset_s, abs=late_s)
                assert ours.retry_after_s == pytest.approx(model.retry_after_s, abs=late_s)

    compare()


def test_redis_lends_seats_as_the_pure_home_does(redis: Redis):
    @settings(max_examples=200, phases=AS_FOUND)
    @given(batches, st.integers(1, 12), st.sampled_from([0.002, 10.0]))
    def compare(said: list[list[Asked | Returned]], limit: int, ttl_s: float) -> None:
        rules = LimitRules(limit=limit, period_s=1.0, algorithm="concurrency")
        both = Both(redis, rules, ttl_s)
        for batch in said:
            for ours, model in both.say(batch):
                assert ours.granted == model.granted
                assert ours.remaining == model.remaining
                assert ours.retry_after_s == model.retry_after_s

    compare()


@pytest.mark.parametrize("algorithm", [*rates, "concurrency"])
def test_every_key_goes_by_itself_once_it_would_be_full(redis: Redis, algorithm: Algorithm):
    both = Both(redis, LimitRules(limit=10, period_s=2.0, algorithm=algorithm), 1.0)
    both.say([Asked("k", 6, 6, 0, None, "a")])
    (key,) = redis.keys(f"{both.wire._prefix}:*")
    assert 0 < redis.pttl(key) <= 4010


@pytest.mark.parametrize("algorithm", rates)
def test_what_is_refused_writes_nothing(redis: Redis, algorithm: Algorithm):
    both = Both(redis, LimitRules(limit=3, period_s=100.0, algorithm=algorithm), 1.0)
    both.say([Asked("k", 3, 3, 0, None, "a")])
    before = redis.info("replication")["master_repl_offset"]
    (key,) = redis.keys(f"{both.wire._prefix}:*")
    kept = redis.dump(key)
    ((ours, _),) = both.say([Asked("k", 9, 1, 0, None, "a")])
    assert ours.granted == 0
    assert redis.dump(key) == kept
    assert redis.info("replication")["master_repl_offset"] == before


def test_a_log_joins_hits_close_to_each_other_and_stays_small(redis: Redis):
    both = Both(redis, LimitRules(limit=100_000, period_s=3600.0, algorithm="sliding_log"), 1.0)
    for _ in range(50):
        both.say([Asked("k", 3, 3, 0, None, "a")])
    (key,) = redis.keys(f"{both.wire._prefix}:*")
    assert redis.llen(key) == 2  # all within a thousandth of an hour, and their sum
    ((ours, model),) = both.say([Asked("k", 0, 0, 0, None, "a")])
    assert ours.remaining == model.remaining == 100_000 - 150
    both.say([Returned("k", 149, 25, "a")])
    ((ours, model),) = both.say([Asked("k", 0, 0, 0, None, "a")])
    assert ours.remaining == model.remaining == 100_000 - 1


# ---- wall clocks step; the state is written as another clock would have

HOUR_US = 3_600_000_000


def stored(redis: Redis, algorithm: Algorithm, text: str) -> Both:
    rules = LimitRules(limit=10, period_s=3600.0, algorithm=algorithm)
    both = Both(redis, rules, 1.0)
    key = both.wire.ask("r", rules, Ask("k", 0, 0), 1.0)[0]
    seconds, micros = redis.time()
    now_us = seconds * 1_000_000 + micros
    number = now_us // HOUR_US
    redis.set(key, text.format(now=now_us, number=number, next=number + 1, far=number + 9))
    return both


def left(both: Both) -> int:
    return both.say([Asked("k", 0, 0, 0, None, "a")])[0][0].remaining


def test_a_bucket_written_by_a_clock_ahead_keeps_what_was_used_and_drains_from_now_on(redis: Redis):
    both = stored(redis, "gcra", "4 9{now}")
    assert left(both) == 6
    both.say([Asked("k", 1, 1, 0, None, "a")])
    (key,) = redis.keys(f"{both.wire._prefix}:*")
    state = redis.get(key)
    assert isinstance(state, bytes)
    assert int(state.split()[1]) == both.times_us[-1]


@pytest.mark.parametrize(
    ("algorithm", "text", "remaining"),
    [
        ("fixed_window", "{number} 4", 6),
        ("fixed_window", "{next} 4", 6),
        ("fixed_window", "{far} 4", 10),
        ("sliding_window", "{next} 4 0", 6),
        ("sliding_window", "{far} 4 4", 10),
    ],
)
def test_a_window_to_come_counts_as_the_present_one_if_it_is_the_next(
    redis: Redis, algorithm: Algorithm, text: str, remaining: int
):
    assert left(stored(redis, algorithm, text)) == remaining


# ---- names


def test_keys_of_redis_have_one_length_and_show_no_key_of_a_client():
    rules = LimitRules(limit=10)
    wire = Wire("headgate")
    names = [
        wire.ask("route:orders/limit[0]", rules, Ask(key, 1, 1), 10.0)[0]
        for key in ("1.2.3.4", "secret-key-" * 500, "{a}b}", "\udcff")
    ]
    assert len({len(name) for name in names}) == 1
    assert all(name.startswith("headgate:{") for name in names)
    assert all(name.endswith("}:b:route:orders/limit[0]") for name in names)
    assert len(set(names)) == 4
    assert "secret" not in "".join(names)


def test_all_rules_of_one_key_share_a_hash_tag():
    wire = Wire("headgate")
    names = {
        wire.ask(rule, LimitRules(limit=1, algorithm=algorithm), Ask("k", 1, 1), 10.0)[0]
        for rule in ("one", "two")
        for algorithm in ("gcra", "fixed_window", "concurrency")
    }
    assert len(names) == 6
    assert {name[name.index("{") + 1 : name.index("}")] for name in names} == {tag_of("k")}


def test_another_period_of_a_window_is_another_key_and_of_a_bucket_the_same():
    wire = Wire("headgate")

    def name(algorithm: Algorithm, period_s: float) -> str:
        rules = LimitRules(limit=1, period_s=period_s, algorithm=algorithm)
        return wire.ask("r", rules, Ask("k", 1, 1), 10.0)[0]

    assert name("fixed_window", 1.0) != name("fixed_window", 2.0)
    assert name("gcra", 1.0) == name("gcra", 2.0)


def test_what_is_returned_of_a_rule_never_asked_for_is_left_out():
    assert Wire("headgate").back("r", Back("k", 1, 0.0)) is None


def test_a_cost_that_can_never_be_had_says_so():
    (grant,) = grants_of([5_000_000, 0, 3, 1_500_000, -1])
    assert grant == Grant(0, 3, 1.5, inf, 5.0)

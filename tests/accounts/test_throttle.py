"""The rules of slowing down: what they promise, whatever the order of attempts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headgate.security.accounts import LaneRules, ThrottleRules
from headgate.security.accounts.throttle import (
    EMPTY,
    Admitted,
    Count,
    Slowed,
    admit,
    charged,
    lanes_of,
    network_of,
    refunded,
    rules_of,
    wait_s,
)

RULES = ThrottleRules()
LANE = LaneRules(free=3, base_s=1, cap_s=60, drain_s=100)
NOON = 1_800_000_000.0


def test_the_free_failures_cost_nothing_and_the_next_ones_double():
    count, waits = EMPTY, []
    for _ in range(12):
        count = charged(count, LANE, NOON)
        waits.append(wait_s(count, LANE, NOON))
    assert waits == [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_failures_are_forgotten_one_by_one():
    count = EMPTY
    for _ in range(3):
        count = charged(count, LANE, NOON)
    assert wait_s(charged(count, LANE, NOON + 99), LANE, NOON + 99) > 0
    assert wait_s(charged(count, LANE, NOON + 101), LANE, NOON + 101) == 0


def test_a_clock_that_jumps_back_makes_nobody_wait_longer_than_the_cap():
    count = EMPTY
    for _ in range(9):
        count = charged(count, LANE, NOON)
    assert wait_s(count, LANE, NOON - 10_000_000) == LANE.cap_s


def test_a_known_device_is_in_no_lane_that_a_stranger_can_fill():
    assert lanes_of(True, EMPTY, NOON, RULES) == ("device",)


def test_a_network_of_an_earlier_login_is_trusted_for_a_time():
    pair = Count(succeeded_at=NOON)
    assert lanes_of(False, pair, NOON + 10, RULES) == ("pair",)
    late = NOON + RULES.trusted_s
    assert lanes_of(False, pair, late, RULES) == ("pair", "network", "fresh")


def test_a_network_that_has_failed_is_fresh_no_more():
    assert lanes_of(False, EMPTY, NOON, RULES) == ("pair", "network", "fresh")
    pair = charged(EMPTY, RULES.pair, NOON)
    assert lanes_of(False, pair, NOON + 1, RULES) == ("pair", "network", "account")
    assert lanes_of(False, pair, NOON + 600, RULES) == ("pair", "network", "fresh")


def test_a_success_washes_only_the_lanes_of_its_own_account():
    network = EMPTY
    for _ in range(66):
        network = charged(network, RULES.network, NOON)
    later = NOON + RULES.network.cap_s
    charge = charged(network, RULES.network, later)
    back = refunded("network", charge, charge, later, RULES)
    assert back.level > RULES.network.free
    assert wait_s(charged(back, RULES.network, later), RULES.network, later) > 10
    pair = charged(EMPTY, RULES.pair, NOON)
    assert refunded("pair", pair, pair, NOON, RULES) == Count(0.0, NOON, 0.0, NOON)


def test_a_refund_leaves_the_delay_that_another_attempt_has_earned():
    mine = charged(Count(60.0, NOON), RULES.network, NOON)
    others = charged(mine, RULES.network, NOON + 1)
    back = refunded("network", others, mine, NOON + 1, RULES)
    assert back.free_at == others.free_at


def test_a_refund_without_a_login_makes_no_network_trusted():
    pair = charged(EMPTY, RULES.pair, NOON)
    back = refunded("pair", pair, pair, NOON, RULES, is_login=False)
    assert back.succeeded_at == 0
    assert back.level == 0


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("192.0.2.7", "192.0.2.7/32"),
        ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unix", "unix"),
        ("x" * 1000, "x" * 64),
    ],
    ids=["v4", "mapped", "v6", "capitals", "zone", "none", "text", "long"],
)
def test_the_network_of_an_address(ip, network):
    assert network_of(ip, RULES) == network


@given(
    st.floats(0, 1e9),
    st.floats(0, 2e9),
    st.floats(0, 2e9),
    st.floats(0, 2e9),
    st.sampled_from(["device", "pair", "network", "account", "mfa", "mail", "asking"]),
)
def test_no_wait_is_longer_than_the_cap_of_its_lane(level, at, free_at, wall, lane):
    rules = rules_of(lane, RULES)
    count = Count(level, at, free_at)
    answer = admit({lane: count}, wall, RULES)
    if isinstance(answer, Slowed):
        assert 0 < answer.retry_after_s <= rules.cap_s
    else:
        after = answer.counts[lane]
        assert 0 < after.level <= rules.free + 16
        assert wait_s(after, rules, wall) <= rules.cap_s


class Siege(RuleBasedStateMachine):
    """Strangers attack one account from many networks; its owner is at home, or away."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOON
        self.counts: dict[tuple[str, str], Count] = {}
        self.passed: list[tuple[str, float]] = []

    def attempt(self, network: str, device: str = "", is_right: bool = False) -> float:
        """One attempt; answers how long it has to wait, 0.0 when it passed."""
        names = {
            "device": ("device", device),
            "pair": ("pair", network),
            "network": ("network", network),
            "account": ("account", "ada"),
            "fresh": ("fresh", "ada"),
        }
        pair = self.counts.get(names["pair"], EMPTY)
        lanes = lanes_of(bool(device), pair, self.now, RULES)
        answer = admit(
            {lane: self.counts.get(names[lane], EMPTY) for lane in lanes}, self.now, RULES
        )
        if isinstance(answer, Slowed):
            return answer.retry_after_s
        assert isinstance(answer, Admitted)
        for lane, count in answer.counts.items():
            self.counts[names[lane]] = count
        if is_right:
            for lane, charge in answer.counts.items():
                self.counts[names[lane]] = refunded(lane, charge, charge, self.now, RULES)
        else:
            self.passed.append((network, self.now))
        return 0.0

    @rule(network=st.sampled_from([f"bot {n}" for n in range(40)]), times=st.integers(1, 60))
    def strangers_guess(self, network, times):
        for _ in range(times):
            self.attempt(network)

    @rule(times=st.integers(1, 60))
    def all_strangers_guess_at_once(self, times):
        for number in range(times):
            self.attempt(f"bot {number}")

    @rule(seconds=st.floats(0, 7200))
    def time_passes(self, seconds):
        self.now += seconds

    @rule()
    def the_owner_logs_in_with_a_known_device_at_once(self):
        assert self.attempt("home", device="mine", is_right=True) == 0

    @rule()
    def the_owner_logs_in_from_anywhere_within_a_second(self):
        waits = self.attempt("hotel", is_right=True)
        assert waits <= RULES.account.cap_s

    @invariant()
    def one_network_gets_few_guesses(self):
        for network in {network for network, _ in self.passed}:
            times = [at for name, at in self.passed if name == network]
            spent = self.now - NOON
            most = RULES.pair.free + 17 + spent / RULES.pair.drain_s + spent / RULES.pair.cap_s
            assert len(times) <= most

    @invariant()
    def all_networks_together_get_few_guesses(self):
        spent = self.now - NOON
        one = RULES.account.free + 1 + spent / RULES.account.cap_s + spent / RULES.account.drain_s
        assert len(self.passed) <= 2 * one


TestSiege = Siege.TestCase


def test_hundreds_of_networks_that_never_rest_do_not_keep_the_owner_out():
    """Each stranger tries every second, before the owner does."""
    siege = Siege()
    for tick in range(400):
        siege.now = NOON + tick
        for number in range(300):
            siege.attempt(f"bot {number}")
    tries = 1
    while siege.attempt("hotel", is_right=True) > 0:
        tries += 1
        siege.now += 1
        for number in range(300):
            siege.attempt(f"bot {number}")
    assert tries <= 2

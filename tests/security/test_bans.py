"""Bans: how long, who never, what a lift and a reload do, and that lists stay within bounds."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.security.ban_rules import BanRule, BanRules
from headgate.security.bans import HAND_MAX, BanRefused, Bans, Change

WALL = 1_700_000_000.0
RULE = BanRule("injections", ("injection",), 2, 60.0, 100.0)
RULES = BanRules(rules=(RULE,))
IP = "198.51.100.1"


class Time:
    def __init__(self) -> None:
        self.now = 1000.0
        self.offset = WALL

    def wall(self) -> float:
        return self.now + self.offset


def bans_of(time: Time | None = None, rules: BanRules = RULES, **more: Any) -> Bans:
    time = time or Time()
    rules = dataclasses.replace(rules, **more)
    return Bans(rules, time.now, lambda: time.now, time.wall)


def offend(bans: Bans, client_ip: str, now: float, times: int = 3) -> None:
    for _ in range(times):
        bans.saw(client_ip, "injection", now=now)


def is_out(bans: Bans, client_ip: str, now: float) -> bool:
    return bans.check(client_ip, now) is not None


def test_more_than_allowed_is_banned_for_a_while_and_then_let_in():
    bans = bans_of()
    offend(bans, IP, 1000.0, 2)
    assert not is_out(bans, IP, 1000.0)
    offend(bans, IP, 1000.0, 1)
    denied = bans.check(IP, 1000.5)
    assert denied is not None
    assert (denied.policy, denied.status, denied.retry_after_s) == ("bans", 403, 100.0)
    assert "injections" in denied.detail
    assert "injection" not in denied.reason
    assert not is_out(bans, "198.51.100.2", 1000.5)
    assert is_out(bans, IP, 1099.9)
    assert not is_out(bans, IP, 1100.0)


def test_what_comes_slowly_is_never_too_much():
    bans = bans_of()
    for turn in range(100):
        bans.saw(IP, "injection", now=1000.0 + 31.0 * turn)
        assert not is_out(bans, IP, 1000.0 + 31.0 * turn)


def test_each_further_ban_is_twice_as_long_up_to_a_day():
    time = Time()
    bans = bans_of(time)
    for_s = []
    for _ in range(13):
        offend(bans, IP, time.now)
        (row,) = bans.snapshot(time.now)
        for_s.append(row["remaining_s"])
        time.now += row["remaining_s"]
    assert for_s[:5] == [100, 200, 400, 800, 1600]
    assert for_s[-2:] == [86_400, 86_400]
    assert bans.snapshot(time.now) == []
    time.now += 86_401.0
    bans.sweep(time.now)
    assert bans.figures()["remembered"] == 0
    offend(bans, IP, time.now)
    assert bans.snapshot(time.now)[0]["remaining_s"] == 100


def test_a_ban_that_is_long_ago_does_not_make_the_next_one_longer():
    bans = bans_of()
    offend(bans, IP, 1000.0)
    offend(bans, IP, 1100.0 + 86_400.0)
    (row,) = bans.snapshot(1100.0 + 86_400.0)
    assert (row["times"], row["remaining_s"]) == (1, 100)


def test_many_bans_do_not_overflow_a_float():
    time = Time()
    bans = bans_of(time, grow=10.0, longest_s=200.0)
    for _ in range(400):
        offend(bans, IP, time.now)
        time.now += 200.0
    offend(bans, IP, time.now)
    assert bans.snapshot(time.now)[0]["remaining_s"] == 200


def test_what_happens_during_a_ban_neither_lengthens_it_nor_counts_afterwards():
    bans = bans_of()
    offend(bans, IP, 1000.0)
    offend(bans, IP, 1050.0, 50)
    assert bans.snapshot(1050.0)[0]["remaining_s"] == 50
    assert not is_out(bans, IP, 1100.0)
    offend(bans, IP, 1100.0, 2)
    assert not is_out(bans, IP, 1100.0)


def test_an_ipv6_client_is_its_network():
    bans = bans_of()
    for number in range(3):
        bans.saw(f"2001:db8::{number:x}", "injection", now=1000.0)
    assert is_out(bans, "2001:db8::ffff:1", 1000.0)
    assert not is_out(bans, "2001:db8:0:1::1", 1000.0)
    assert bans.snapshot(1000.0)[0]["key"] == "2001:db8::/64"


def test_what_happens_while_the_network_is_banned_does_not_count():
    bans = bans_of()
    bans.ban("198.51.100.0/24", 60, "noise", now=1000.0)
    offend(bans, IP, 1000.0, 50)
    assert bans.lift("198.51.100.0/24", now=1001.0)
    assert not is_out(bans, IP, 1001.0)


def test_who_has_a_48_is_one_client_where_that_is_the_prefix():
    bans = bans_of(ipv6_prefix=48)
    for number in range(3):
        bans.saw(f"2001:db8:1:{number:x}::1", "injection", now=1000.0)
    assert is_out(bans, "2001:db8:1:abcd::1", 1000.0)
    assert not is_out(bans, "2001:db8:2::1", 1000.0)


def test_an_ipv4_address_in_ipv6_form_is_the_same_client():
    bans = bans_of()
    for client_ip in (IP, f"::ffff:{IP}", IP):
        bans.saw(client_ip, "injection", now=1000.0)
    assert is_out(bans, IP, 1000.0)
    assert is_out(bans, f"::ffff:{IP}", 1000.0)


@pytest.mark.parametrize(
    ("client_ip", "more"),
    [
        ("192.0.2.9", {"exempt": ("192.0.2.0/24",)}),
        ("::ffff:192.0.2.9", {"exempt": ("192.0.2.0/24",)}),
        ("2001:db8::9", {"exempt": ("2001:db8::9",)}),
        ("127.0.0.1", {}),
        ("127.9.9.9", {}),
        ("::1", {}),
        ("10.0.0.1", {}),
        ("fd00::1", {}),
        ("fe80::1%eth0", {}),
        ("100.64.9.9", {}),
        ("unix", {}),
        ("", {}),
    ],
)
def test_who_is_exempt_is_never_banned(client_ip: str, more: dict[str, Any]):
    bans = bans_of(**more)
    offend(bans, client_ip, 1000.0, 100)
    assert not is_out(bans, client_ip, 1000.0)
    assert bans.snapshot(1000.0) == []


@pytest.mark.parametrize(
    ("client_ip", "more"),
    [("127.0.0.1", {"loopback": True}), ("10.0.0.1", {"private": True})],
)
def test_loopback_and_private_addresses_are_banned_where_told(client_ip: str, more: dict[str, Any]):
    bans = bans_of(**more)
    offend(bans, client_ip, 1000.0)
    assert is_out(bans, client_ip, 1000.0)


def test_an_exempt_address_comes_in_although_its_network_is_banned():
    bans = bans_of(exempt=("2001:db8::5", "203.0.113.5"))
    offend(bans, "2001:db8::6", 1000.0)
    bans.ban("203.0.113.0/24", 60, "noise", now=1000.0)
    assert is_out(bans, "2001:db8::6", 1000.0)
    assert not is_out(bans, "2001:db8::5", 1000.0)
    assert is_out(bans, "203.0.113.6", 1000.0)
    assert not is_out(bans, "203.0.113.5", 1000.0)


def test_the_mode_that_only_tells_refuses_nobody_but_whom_an_operator_bans():
    bans = bans_of(blocks=False)
    changes: list[Change] = []
    bans.on_change = changes.append
    offend(bans, IP, 1000.0, 50)
    assert not is_out(bans, IP, 1000.0)
    assert [change.what for change in changes] == ["detected"]  # told once, not at each request
    (row,) = bans.snapshot(1000.0)
    assert row["blocks"] is False
    bans.ban("203.0.113.7", 60, "noise", now=1000.0)
    assert is_out(bans, "203.0.113.7", 1000.0)
    assert changes[-1].what == "banned"


def test_a_network_of_an_operator_holds_an_address_that_rules_only_tell_of():
    bans = bans_of(blocks=False)
    offend(bans, IP, 1000.0)
    bans.ban("198.51.100.0/24", 60, "noise", now=1000.0)
    assert is_out(bans, IP, 1000.0)


def test_a_cut_is_said_to_be_one():
    bans = bans_of(is_cut=True)
    offend(bans, IP, 1000.0)
    denied = bans.check(IP, 1000.0)
    assert denied is not None
    assert denied.is_cut


# -- by hand


@pytest.mark.parametrize(
    ("said", "key", "inside", "outside"),
    [
        ("203.0.113.7", "203.0.113.7", "203.0.113.7", "203.0.113.8"),
        (" 203.0.113.7 ", "203.0.113.7", "203.0.113.7", "203.0.113.8"),
        ("203.0.113.0/24", "203.0.113.0/24", "203.0.113.255", "203.0.114.0"),
        ("::ffff:203.0.113.7", "203.0.113.7", "203.0.113.7", "203.0.113.8"),
        ("2001:db8::1", "2001:db8::/64", "2001:db8::2", "2001:db8:0:1::2"),
        ("2001:db8::1/128", "2001:db8::1", "2001:db8::1", "2001:db8::2"),
        ("2001:db8::/32", "2001:db8::/32", "2001:db8:f::1", "2001:db9::1"),
    ],
)
def test_an_operator_bans_addresses_and_networks(said: str, key: str, inside: str, outside: str):
    bans = bans_of()
    assert bans.ban(said, 60, "noise", now=1000.0).key == key
    for _ in range(2):
        assert is_out(bans, inside, 1000.0)
        assert not is_out(bans, outside, 1000.0)
    assert not is_out(bans, inside, 1060.0)
    assert bans.lift(said, now=1030.0)
    assert not is_out(bans, inside, 1030.0)
    assert not bans.lift(said, now=1030.0)


@pytest.mark.parametrize(
    ("key", "for_s", "reason"),
    [
        ("0.0.0.0/0", 60, "too wide"),
        ("10.0.0.0/7", 60, "bits set|too wide"),
        ("2001::/15", 60, "bits set|too wide"),
        ("127.0.0.1", 60, "exempt"),
        ("127.0.0.0/8", 60, "exempt"),
        ("192.0.2.5", 60, "exempt"),
        ("192.0.2.0/25", 60, "exempt"),
        ("example.com", 60, "is not an address"),
        ("fe80::1%eth0", 60, "is not an address"),
        ("203.0.113.1/24", 60, "has bits set"),
        ("203.0.113.7", 0, "lasts for some time"),
        ("203.0.113.7", -1, "lasts for some time"),
        ("203.0.113.7", float("nan"), "lasts for some time"),
        ("203.0.113.7", 1e9, "lasts for some time"),
    ],
)
def test_a_ban_by_hand_that_makes_no_sense_is_refused(key: str, for_s: float, reason: str):
    bans = bans_of(exempt=("192.0.2.0/24",))
    with pytest.raises(BanRefused, match=reason):
        bans.ban(key, for_s, "noise", now=1000.0)
    assert bans.snapshot(1000.0) == []


def test_a_private_address_may_be_banned_by_hand():
    bans = bans_of()
    bans.ban("10.0.0.7", 60, "noise", now=1000.0)
    assert is_out(bans, "10.0.0.7", 1000.0)


def test_of_networks_that_hold_an_address_the_longest_ban_counts():
    bans = bans_of()
    bans.ban("203.0.0.0/16", 600, "wide", now=1000.0)
    bans.ban("203.0.113.0/24", 60, "narrow", now=1000.0)
    bans.ban("203.0.113.7", 30, "one", now=1000.0)
    assert is_out(bans, "203.0.113.7", 1100.0)
    assert bans.lift("203.0.0.0/16", now=1010.0)
    assert is_out(bans, "203.0.113.7", 1050.0)
    assert not is_out(bans, "203.0.113.7", 1060.0)


def test_a_shorter_ban_by_hand_leaves_the_longer_one():
    bans = bans_of()
    bans.ban(IP, 600, "long", now=1000.0)
    assert bans.ban(IP, 60, "short", now=1000.0).why == "long"
    assert is_out(bans, IP, 1500.0)


def test_after_a_lift_what_was_done_is_forgotten():
    bans = bans_of()
    offend(bans, IP, 1000.0)
    assert bans.lift(IP, now=1001.0)
    offend(bans, IP, 1001.0, 2)
    assert not is_out(bans, IP, 1001.0)
    offend(bans, IP, 1001.0, 1)
    assert bans.snapshot(1001.0)[0]["remaining_s"] == 100  # not grown
    offend(bans, "198.51.100.9", 1001.0, 2)
    assert not bans.lift("198.51.100.9", now=1001.0)
    offend(bans, "198.51.100.9", 1001.0, 2)
    assert not is_out(bans, "198.51.100.9", 1001.0)


def test_the_list_is_bounded_and_what_ends_first_makes_room_but_none_by_hand():
    bans = bans_of(keys=1000)
    bans.ban("203.0.113.7", 1, "by hand", now=1000.0)
    for number in range(3000):
        offend(bans, f"9.0.{number >> 8}.{number & 255}", 1000.0 + number / 1000)
    rows = bans.snapshot(1000.5, most=5000)
    assert bans.figures()["banned"] == 1000
    assert bans.figures()["remembered"] <= 1000
    assert "203.0.113.7" in {row["key"] for row in rows}
    assert is_out(bans, "9.0.11.183", 1003.0)
    assert not is_out(bans, "9.0.0.0", 1003.0)


def test_there_is_a_most_of_bans_by_hand_and_the_way_out_is_named():
    bans = bans_of()
    for number in range(HAND_MAX):
        bans.ban(f"9.0.{number >> 8}.{number & 255}", 60, "list", now=1000.0)
    with pytest.raises(BanRefused, match="addresses.deny_file"):
        bans.ban("8.8.8.8", 60, "list", now=1000.0)
    assert bans.lift("9.0.0.1", now=1000.0)
    bans.ban("8.8.8.8", 60, "list", now=1000.0)


def test_bans_that_were_lengthened_and_lifted_many_times_leave_nothing_behind():
    bans = bans_of()
    for turn in range(20_000):
        bans.ban(IP, 60 + turn, "again", now=1000.0)
    assert len(bans._bans._ends) < 2000
    bans.lift(IP, now=1000.0)
    bans.sweep(90_000.0)
    assert bans.figures()["banned"] == 0


def test_ended_bans_leave_the_list():
    bans = bans_of()
    for number in range(100):
        offend(bans, f"198.51.100.{number}", 1000.0)
    bans.ban("203.0.113.0/24", 50, "noise", now=1000.0)
    bans.sweep(1099.0)
    assert bans.figures()["banned"] == 100
    bans.sweep(1100.0)
    assert bans.figures()["banned"] == 0


# -- reloads


def test_a_reload_keeps_bans_and_counts_of_rules_that_stay():
    bans = bans_of()
    offend(bans, IP, 1000.0)
    offend(bans, "198.51.100.2", 1000.0, 2)
    bans.take_rules(BanRules(rules=(dataclasses.replace(RULE, ban_s=7.0),)), 1001.0)
    assert is_out(bans, IP, 1001.0)
    offend(bans, "198.51.100.2", 1001.0, 1)
    assert bans.find("198.51.100.2", 1001.0) is not None
    assert not is_out(bans, "198.51.100.2", 1008.0)


@pytest.mark.parametrize(
    "rules",
    [
        BanRules(),
        BanRules(rules=(dataclasses.replace(RULE, name="other"),)),
        BanRules(rules=(RULE,), exempt=(IP,)),
        BanRules(rules=(RULE,), exempt=("198.51.100.0/24",)),
    ],
    ids=["off", "renamed", "exempt", "exempt_network"],
)
def test_a_reload_ends_bans_of_rules_that_are_gone_and_of_who_is_exempt_now(rules: BanRules):
    bans = bans_of()
    offend(bans, IP, 1000.0)
    bans.ban("203.0.113.7", 60, "by hand", now=1000.0)
    bans.take_rules(rules, 1001.0)
    assert not is_out(bans, IP, 1001.0)
    assert is_out(bans, "203.0.113.7", 1001.0)


def test_a_reload_may_change_what_an_ipv6_client_is():
    bans = bans_of()
    offend(bans, "2001:db8:1:2::3", 1000.0)
    offend(bans, "2001:db8:1:3::3", 1000.0, 2)
    bans.take_rules(dataclasses.replace(RULES, ipv6_prefix=48), 1001.0)
    assert is_out(bans, "2001:db8:1:2::9", 1001.0)
    assert not is_out(bans, "2001:db8:1:9::9", 1001.0)
    offend(bans, "2001:db8:1:3::3", 1001.0, 1)
    assert not is_out(bans, "2001:db8:1:3::3", 1001.0)


def test_a_reload_that_holds_no_network_changes_nothing():
    bans = bans_of()
    offend(bans, IP, 1000.0)
    with pytest.raises(ValueError, match="is not an address"):
        bans.take_rules(BanRules(exempt=("nonsense",)), 1001.0)
    assert bans.rules == RULES
    assert is_out(bans, IP, 1001.0)


def test_a_reload_to_fewer_keys_lets_go_of_the_shortest_but_none_by_hand():
    bans = bans_of()
    for number in range(50):
        offend(bans, f"198.51.100.{number}", 1000.0 + number)
    bans.ban("203.0.113.7", 1000, "by hand", now=1000.0)
    bans.take_rules(dataclasses.replace(RULES, keys=10), 1050.0)
    assert bans.figures()["banned"] == 10
    assert is_out(bans, "203.0.113.7", 1050.0)
    assert is_out(bans, "198.51.100.49", 1050.0)


# -- whatever happens

ADDRESSES = (
    "192.0.2.1",
    "192.0.2.200",
    "::ffff:192.0.2.1",
    "198.51.100.1",
    "198.51.100.2",
    "2001:db8::1",
    "2001:db8::2",
    "2001:db8:0:1::1",
    "127.0.0.1",
    "::1",
    "10.0.0.1",
)
NETWORKS = (
    *ADDRESSES,
    "192.0.2.0/24",
    "192.0.0.0/8",
    "2001:db8::/32",
    "2001:db8::/64",
    "2001:db8::/126",
    "198.51.100.0/24",
    "127.0.0.0/8",
    "0.0.0.0/0",
)
EXEMPT = ("192.0.2.1", "2001:db8::1")
NEVER = ("192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "127.0.0.1", "::1")

steps = st.lists(
    st.one_of(
        st.tuples(st.just("saw"), st.sampled_from(ADDRESSES), st.sampled_from([0.5, 1.0, 5.0])),
        st.tuples(st.just("ban"), st.sampled_from(NETWORKS), st.sampled_from([1.0, 50.0, 5000.0])),
        st.tuples(st.just("hear"), st.sampled_from(NETWORKS), st.sampled_from([1.0, 50.0, 5e9])),
        st.tuples(st.just("lift"), st.sampled_from(NETWORKS), st.just(0.0)),
        st.tuples(st.just("hear_lift"), st.sampled_from(NETWORKS), st.sampled_from([-9.0, 0.0])),
        st.tuples(st.just("wait"), st.just(""), st.sampled_from([0.1, 10.0, 300.0])),
        st.tuples(st.just("sweep"), st.just(""), st.just(0.0)),
        st.tuples(st.just("reload"), st.sampled_from(["48", "64", "128"]), st.just(0.0)),
    ),
    max_size=40,
)


@settings(max_examples=250, deadline=None)
@given(steps=steps)
def test_whatever_happens_the_exempt_come_in_and_the_rest_as_a_plain_list_says(
    steps: list[tuple[str, str, float]],
):
    """The plain list holds bans by hand and what was heard; rules have so high a limit that they
    ban nobody here but by weight, which it takes from what `on_change` tells.
    """
    time = Time()
    rules = dataclasses.replace(RULES, exempt=EXEMPT)
    bans = Bans(rules, time.now, lambda: time.now, time.wall)
    plain: dict[str, float] = {}

    def changed(change: Change) -> None:
        if change.what == "lifted":
            plain.pop(change.key, None)
        else:
            plain[change.key] = max(plain.get(change.key, 0.0), time.now + change.for_s)

    bans.on_change = changed
    for what, key, number in steps:
        if what == "saw":
            bans.saw(key, "injection", number)
        elif what == "ban":
            try:
                bans.ban(key, number, "by hand")
            except BanRefused:
                continue
        elif what == "lift":
            bans.lift(key)
        elif what == "hear":
            at = time.wall()
            message = {
                "what": "ban",
                "key": key,
                "for_s": number,
                "at": at,
                "by": "hand",
                "why": "",
            }
            bans.hear(message, time.now)
        elif what == "hear_lift":
            bans.hear({"what": "lift", "key": key, "at": time.wall() + number}, time.now)
        elif what == "wait":
            time.now += number
        elif what == "sweep":
            bans.sweep(time.now)
        else:
            bans.take_rules(dataclasses.replace(rules, ipv6_prefix=int(key)), time.now)
        plain = {key: until for key, until in plain.items() if until > time.now}
        for client_ip in ADDRESSES:
            said = ipaddress.ip_address(client_ip)
            address = getattr(said, "ipv4_mapped", None) or said
            holds = any(address in ipaddress.ip_network(key) for key in plain)
            if client_ip in NEVER:
                holds = False
            assert is_out(bans, client_ip, time.now) is holds, (client_ip, plain)

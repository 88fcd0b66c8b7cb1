"""What is counted: windows against a list of everything, and the bounds of what is remembered."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.security.ban_rules import (
    DEFAULT_RULES,
    KINDS,
    PARTS,
    BanRule,
    BanRules,
    Count,
    is_kind,
)
from headgate.security.bans import Bans

WALL = 1_700_000_000.0

events = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 3), st.integers(0, 40), st.just(500)),
        st.sampled_from([0.5, 1.0, 2.0]),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(events=events, within_s=st.sampled_from([6.0, 60.0, 7.0]))
def test_a_count_spans_between_five_sixths_of_its_window_and_all_of_it(
    events: list[tuple[int, float]], within_s: float
):
    now, happened = 1000.0, []
    count = Count(int(now * PARTS / within_s))
    for wait_tenths, weight in events:
        now += wait_tenths / 10
        happened.append((now, weight))
        total = count.add(weight, int(now * PARTS / within_s))
        slack = 1e-6
        most = sum(weight for at, weight in happened if at > now - within_s - slack)
        least = sum(w for at, w in happened if at > now - within_s * (PARTS - 1) / PARTS + slack)
        assert least <= total + slack
        assert total <= most + slack


def test_a_clock_that_goes_back_counts_into_the_part_that_runs():
    count = Count(1000)
    for tick in (1000, 900, 0, -5, 1000):
        count.add(1, tick)
    assert count.total == 5
    assert count.add(1, 10**12) == 1


@pytest.mark.parametrize(
    ("kind", "is_one"),
    [
        *((kind, True) for kind in KINDS),
        ("status_4xx", True),
        ("status_5xx", True),
        ("status_401", True),
        ("status_599", True),
        ("status_200", False),
        ("status_40", False),
        ("status_4xx\n", False),
        ("status_4x1", False),
        ("anything", False),
    ],
)
def test_what_may_be_counted_is_known(kind: str, is_one: bool):
    assert is_kind(kind) is is_one


def test_the_default_rules_count_everything_there_is_to_count():
    assert {kind for rule in DEFAULT_RULES for kind in rule.kinds} == {*KINDS, "status_4xx"}


def bans_of(*rules: BanRule, **more: object) -> Bans:
    return Bans(BanRules(rules=rules, **more), 0.0, lambda: 0.0, lambda: WALL)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("counted", "told", "counts"),
    [
        ("status_4xx", "status_404", True),
        ("status_4xx", "status_4xx", True),
        ("status_404", "status_404", True),
        ("status_404", "status_403", False),
        ("status_404", "status_4xx", False),
        ("status_5xx", "status_503", True),
        ("status_4xx", "status_503", False),
        ("injection", "injection", True),
        ("injection", "nonsense", False),
    ],
)
def test_a_status_counts_for_itself_and_its_class(counted: str, told: str, counts: bool):
    bans = bans_of(BanRule("it", (counted,), 2, 60.0, 10.0))
    for _ in range(3):
        bans.saw("198.51.100.1", told, now=1.0)
    assert (bans.check("198.51.100.1", 1.0) is not None) is counts


def test_a_rule_of_several_kinds_counts_them_together_and_none_twice():
    bans = bans_of(BanRule("it", ("status_4xx", "status_404", "injection"), 3, 60.0, 10.0))
    for kind in ("status_404", "injection", "status_404"):
        bans.saw("198.51.100.1", kind, now=1.0)
    assert bans.check("198.51.100.1", 1.0) is None
    bans.saw("198.51.100.1", "injection", now=1.0)
    assert bans.check("198.51.100.1", 1.0) is not None


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_does_not_count(weight: float):
    bans = bans_of(BanRule("it", ("injection",), 1, 60.0, 10.0))
    bans.saw("198.51.100.1", "injection", weight, now=1.0)
    assert bans.figures()["counted"] == 0


def test_a_weight_counts_as_often():
    bans = bans_of(BanRule("it", ("injection",), 10, 60.0, 10.0))
    bans.saw("198.51.100.1", "injection", 10.0, now=1.0)
    assert bans.check("198.51.100.1", 1.0) is None
    bans.saw("198.51.100.1", "injection", 0.5, now=1.0)
    assert bans.check("198.51.100.1", 1.0) is not None


def test_a_million_addresses_are_counted_within_the_bound_and_the_oldest_makes_room():
    bans = bans_of(BanRule("it", ("injection",), 2, 60.0, 10.0), keys=1000)
    bans.saw("198.51.100.1", "injection", now=0.0)
    for number in range(20_000):
        bans.saw(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "injection", now=1.0)
        if number % 500 == 0:
            bans.saw("198.51.100.2", "status_404", now=1.0)
    assert bans.figures()["counted"] == 1000
    bans.saw("198.51.100.1", "injection", 2.0, now=1.0)
    assert bans.check("198.51.100.1", 1.0) is None  # what it did before is forgotten


def test_whoever_keeps_doing_it_is_not_pushed_out():
    bans = bans_of(BanRule("it", ("injection",), 20, 600.0, 10.0), keys=1000)
    for turn in range(21):
        bans.saw("198.51.100.1", "injection", now=1.0)
        for number in range(900):
            bans.saw(f"192.0.{turn}.{number % 256}", "injection", 0.01, now=1.0)
    assert bans.check("198.51.100.1", 1.0) is not None


def test_what_is_counted_is_let_go_of_when_its_window_is_over():
    bans = bans_of(
        BanRule("short", ("injection",), 2, 60.0, 10.0),
        BanRule("long", ("malformed",), 2, 600.0, 10.0),
    )
    for number in range(100):
        bans.saw(f"198.51.100.{number}", "injection", now=1.0)
    bans.sweep(600.0)
    assert bans.figures()["counted"] == 100
    bans.sweep(602.0)
    assert bans.figures()["counted"] == 0


NAT = "203.0.113.1"


@pytest.mark.parametrize(
    ("kind", "people", "each", "over_s"),
    [
        # An office of 50, each with three broken links a minute.
        ("status_404", 50, 3, 60),
        # A class of 15 that has forgotten its password, one try each, within five minutes.
        ("bad_credentials", 15, 1, 300),
        # A mobile network of 1000 behind one address, each with one client error every 6 minutes.
        ("status_403", 1000, 10, 3600),
        # A page of 60 pictures that are gone, opened by three.
        ("status_404", 3, 60, 60),
    ],
)
def test_people_behind_one_address_are_not_banned_by_the_default_rules(
    kind: str, people: int, each: int, over_s: int
):
    bans = bans_of(*DEFAULT_RULES)
    count = people * each
    for number in range(count):
        bans.saw(NAT, kind, now=1000.0 + over_s * number / count)
        assert bans.check(NAT, 1000.0 + over_s * number / count) is None


@pytest.mark.parametrize(
    ("kind", "per_s"),
    [("status_404", 20), ("bad_credentials", 1), ("injection", 0.1), ("limited", 20), ("bot", 1)],
)
def test_an_attacker_is_banned_by_the_default_rules(kind: str, per_s: float):
    bans = bans_of(*DEFAULT_RULES)
    now = 1000.0
    while now < 1600.0 and bans.check(NAT, now) is None:
        bans.saw(NAT, kind, now=now)
        now += 1 / per_s
    assert bans.check(NAT, now) is not None

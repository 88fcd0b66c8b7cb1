"""Faults: as often as was asked for, and nobody else."""

from __future__ import annotations

from random import Random

import pytest

from headgate.policy.fault import Fault, FaultRules, decide


def drawn(rules: FaultRules, calls: int = 20_000) -> list[Fault | None]:
    rng = Random(7)
    return [decide(rules, rng) for _ in range(calls)]


def share(faults: list[Fault | None], kind) -> float:
    return sum(fault is not None and kind(fault) for fault in faults) / len(faults)


@pytest.mark.parametrize("wanted", [0.01, 0.3, 0.9])
def test_the_shares_are_met(wanted):
    delayed = drawn(FaultRules(delay_s=2.0, delay_share=wanted))
    assert share(delayed, lambda f: f == Fault(2.0, None)) == pytest.approx(wanted, abs=0.012)
    aborted = drawn(FaultRules(abort_status=418, abort_share=wanted))
    assert share(aborted, lambda f: f == Fault(0.0, 418)) == pytest.approx(wanted, abs=0.012)


def test_delay_and_abort_are_drawn_independently():
    faults = drawn(FaultRules(delay_s=1.0, delay_share=0.5, abort_share=0.2))
    assert share(faults, lambda f: f.delay_s > 0) == pytest.approx(0.5, abs=0.015)
    assert share(faults, lambda f: f.abort_status == 503) == pytest.approx(0.2, abs=0.015)
    both = share(faults, lambda f: f.delay_s > 0 and f.abort_status == 503)
    assert both == pytest.approx(0.1, abs=0.015)


def test_all_or_nothing_is_exact():
    assert drawn(FaultRules(), 100) == [None] * 100
    assert drawn(FaultRules(abort_share=1.0), 100) == [Fault(0.0, 503)] * 100


def test_delays_are_spread_up_to_the_longest():
    faults = drawn(FaultRules(delay_s=1.0, delay_most_s=3.0, delay_share=1.0))
    delays = [fault.delay_s for fault in faults if fault is not None]
    assert 1.0 <= min(delays) < 1.01
    assert 2.99 < max(delays) <= 3.0
    assert sum(delays) / len(delays) == pytest.approx(2.0, abs=0.02)


def test_a_share_of_nothing_leaves_chance_alone():
    rng = Random(3)
    before = rng.getstate()
    assert decide(FaultRules(), rng) is None
    assert rng.getstate() == before


@pytest.mark.parametrize(
    "rules, problem",
    [
        ({"delay_s": 1.0, "delay_share": 1.5}, "delay_share=1.5"),
        ({"abort_share": -0.1}, "abort_share=-0.1"),
        ({"delay_s": -1.0, "delay_share": 0.1}, "delay_s=-1"),
        ({"delay_s": float("inf"), "delay_share": 0.1}, "delay_s=inf"),
        ({"delay_s": 2.0, "delay_most_s": 1.0, "delay_share": 0.1}, "delay_most_s=1 is less"),
        ({"delay_share": 0.1}, "delays nothing"),
        ({"abort_status": 101, "abort_share": 0.1}, "abort_status=101"),
        ({"abort_status": 600, "abort_share": 0.1}, "abort_status=600"),
        ({}, "no call is ever hit"),
    ],
)
def test_senseless_rules_are_said_in_words(rules, problem):
    (said,) = FaultRules(**rules).problems()
    assert problem in said


def test_breaking_the_connection_off_is_a_fault_like_others():
    rules = FaultRules(abort_status=0, abort_share=1.0)
    assert rules.problems() == ()
    assert drawn(rules, 1) == [Fault(0.0, 0)]

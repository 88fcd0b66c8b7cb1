"""Outlier ejection: who is ejected, for how long, never too many, and never for old results."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headgate.policy.outlier import Ejected, Outlier, OutlierRules, Restored

ERRORS = OutlierRules(consecutive_errors=3, eject_s=30.0, eject_max_s=100.0)
RATE = OutlierRules(consecutive_errors=None, failure_rate=0.5, minimum_requests=10)
LATENCY = OutlierRules(consecutive_errors=None, latency_factor=3.0, minimum_requests=5)
ABCD = ("a", "b", "c", "d")


def fail(outlier: Outlier, member: str, times: int, now: float, kind: str = "") -> Ejected | None:
    ejected = None
    for _ in range(times):
        ejected = outlier.record(member, True, 0.0, now, kind) or ejected
    return ejected


def send(outlier: Outlier, member: str, good: int, bad: int, now: float = 1.0) -> None:
    for _ in range(bad):
        outlier.record(member, True, 0.0, now)
    for _ in range(good):
        outlier.record(member, False, 0.0, now)


def answer(outlier: Outlier, member: str, took_s: float, times: int = 10, now: float = 1.0) -> None:
    for _ in range(times):
        outlier.record(member, False, took_s, now)


def ids(news: list[Restored | Ejected]) -> list[str]:
    return [each.id for each in news]


# ---- errors in a row


def test_so_many_errors_in_a_row_eject():
    outlier = Outlier(ERRORS, ABCD, 0.0)
    assert fail(outlier, "a", 2, 1.0) is None
    assert outlier.record("a", True, 0.1, 1.0, "connect") == Ejected(
        "a", 1.0, 31.0, 1, "3 errors in a row (the last: connect)"
    )
    assert outlier.is_ejected("a")


def test_a_success_in_between_begins_the_count_anew():
    outlier = Outlier(ERRORS, ABCD, 0.0)
    for _ in range(5):
        assert fail(outlier, "a", 2, 1.0) is None
        outlier.record("a", False, 0.1, 1.0)


def test_errors_of_others_do_not_add_up():
    outlier = Outlier(ERRORS, ABCD, 0.0)
    assert all(outlier.record(member, True, 0.1, 1.0) is None for member in ABCD * 2)


@pytest.mark.parametrize(
    ("kinds", "text"),
    [
        (("connect", "connect", "connect"), "3 errors in a row (connect)"),
        (("connect", "reset", "reset"), "3 errors in a row (the last: reset)"),
        (("reset", "connect", "reset"), "3 errors in a row (the last: reset)"),
        (("", "", ""), "3 errors in a row"),
    ],
)
def test_the_reason_names_the_kind_of_error(kinds, text):
    outlier = Outlier(ERRORS, ABCD, 0.0)
    for kind in ("timeout", "tls"):
        outlier.record("a", True, 0.0, 0.5, kind)
    outlier.record("a", False, 0.0, 0.5)
    told = [outlier.record("a", True, 0.0, 1.0, kind) for kind in kinds]
    assert told[-1] is not None
    assert told[-1].why == text


def test_a_single_error_is_said_in_the_singular():
    ejected = fail(Outlier(replace(ERRORS, consecutive_errors=1), ABCD, 0.0), "a", 1, 1.0, "tls")
    assert ejected is not None
    assert ejected.why == "1 error (tls)"


def test_without_the_rule_errors_in_a_row_do_not_eject():
    assert fail(Outlier(RATE, ABCD, 0.0), "a", 100, 1.0) is None


# ---- the failure rate


@pytest.mark.parametrize(
    ("good", "bad", "ejects"),
    [(5, 5, True), (6, 5, False), (0, 10, True), (0, 9, False), (500, 500, True)],
)
def test_the_rate_ejects_at_the_end_of_the_interval_with_enough_requests(good, bad, ejects):
    outlier = Outlier(RATE, ABCD, 0.0)
    send(outlier, "a", good, bad)
    assert outlier.sweep(9.9) == []
    assert ids(outlier.sweep(10.0)) == (["a"] if ejects else [])


def test_each_interval_is_judged_at_its_own_end():
    outlier = Outlier(RATE, ABCD, 0.0)
    outlier.sweep(10.0)
    send(outlier, "a", 0, 10, 11.0)
    assert outlier.sweep(19.9) == []
    assert ids(outlier.sweep(20.0)) == ["a"]


def test_the_reason_of_the_rate_has_the_counts():
    outlier = Outlier(RATE, ABCD, 0.0)
    send(outlier, "a", 8, 12)
    (ejected,) = outlier.sweep(10.0)
    assert ejected.why == "12 of 20 requests failed (60%)"


def test_a_window_without_enough_requests_goes_on():
    outlier = Outlier(RATE, ABCD, 0.0)
    for interval in range(2):
        send(outlier, "a", 1, 3, 10.0 * interval)
        assert outlier.sweep(10.0 * (interval + 1)) == []
    send(outlier, "a", 1, 3, 21.0)
    (ejected,) = outlier.sweep(30.0)
    assert ejected.why == "9 of 12 requests failed (75%)"


def test_a_window_does_not_go_on_for_ever():
    outlier = Outlier(RATE, ABCD, 0.0)
    send(outlier, "a", 0, 9, 1.0)
    for interval in range(1, 7):
        assert outlier.sweep(10.0 * interval) == []
    send(outlier, "a", 0, 9, 61.0)
    assert outlier.sweep(70.0) == []


def test_an_interval_with_enough_requests_ends_the_window():
    outlier = Outlier(RATE, ABCD, 0.0)
    send(outlier, "a", 11, 9, 1.0)
    assert outlier.sweep(10.0) == []
    send(outlier, "a", 0, 9, 11.0)
    assert outlier.sweep(20.0) == []


def test_where_the_room_does_not_suffice_the_worst_is_taken():
    outlier = Outlier(replace(RATE, max_ejected=0.25), ABCD, 0.0)
    for member, bad in zip(ABCD, (6, 9, 7, 0), strict=True):
        send(outlier, member, 10 - bad, bad)
    assert ids(outlier.sweep(10.0)) == ["b"]
    assert [each.spared for each in outlier.snapshot(10.0).members] == [1, 0, 1, 0]


# ---- latency


@pytest.mark.parametrize(
    ("means", "ejected"),
    [
        ({"a": 0.9, "b": 0.2, "c": 0.2, "d": 0.2}, ["a"]),
        ({"a": 0.75, "b": 0.25, "c": 0.25, "d": 0.25}, []),  # exactly three times is not more
        ({"a": 0.09, "b": 0.01, "c": 0.01, "d": 0.01}, []),  # under the floor
        ({"a": 0.9, "b": 0.8, "c": 0.2, "d": 0.2}, ["a", "b"]),
        ({"a": 0.9, "b": 0.9, "c": 0.9, "d": 0.2}, []),  # the majority is the norm
        ({"a": 0.9, "b": 0.2}, ["a"]),
        ({"a": 0.9}, []),
        ({"a": 0.9, "b": 0.0, "c": 0.0}, ["a"]),
        ({}, []),
    ],
)
def test_an_instance_much_slower_than_its_peers_is_ejected(means, ejected):
    outlier = Outlier(LATENCY, ABCD, 0.0)
    for member, mean_s in means.items():
        answer(outlier, member, mean_s)
    assert sorted(ids(outlier.sweep(10.0))) == ejected


def test_the_reason_of_latency_compares():
    outlier = Outlier(LATENCY, ABCD, 0.0)
    for member, mean_s in (("a", 1.25), ("b", 0.25), ("c", 0.25)):
        answer(outlier, member, mean_s)
    (ejected,) = outlier.sweep(10.0)
    assert ejected.why == "1.2 s on average, 5.0 times the 250 ms of its peers"


def test_peers_with_few_requests_are_no_measure():
    outlier = Outlier(LATENCY, ABCD, 0.0)
    answer(outlier, "a", 0.9)
    for member in "bcd":
        answer(outlier, member, 0.1, times=4)
    assert outlier.sweep(10.0) == []


def test_latencies_of_different_intervals_are_not_compared():
    outlier = Outlier(LATENCY, ABCD, 0.0)
    for member in "bcd":
        answer(outlier, member, 0.1)
    outlier.sweep(10.0)
    answer(outlier, "a", 0.9, now=11.0)
    assert outlier.sweep(20.0) == []


def test_each_interval_has_its_own_mean():
    outlier = Outlier(LATENCY, ABCD, 0.0)
    answer(outlier, "a", 0.9)
    assert outlier.sweep(10.0) == []
    for member in ABCD:
        answer(outlier, member, 0.2, now=11.0)
    assert outlier.sweep(20.0) == []


def test_only_successes_make_enough_for_a_mean():
    outlier = Outlier(LATENCY, ABCD, 0.0)
    answer(outlier, "a", 0.9, times=4)
    send(outlier, "a", 0, 10)
    for member in "bcd":
        answer(outlier, member, 0.1)
    assert outlier.sweep(10.0) == []


def test_the_slowest_is_taken_where_the_room_does_not_suffice():
    outlier = Outlier(replace(LATENCY, max_ejected=0.25), "abcdef", 0.0)
    for member, mean_s in zip("abcdef", (1.0, 2.0, 0.1, 0.1, 0.1, 0.1), strict=True):
        answer(outlier, member, mean_s)
    assert ids(outlier.sweep(10.0)) == ["b"]


def test_one_that_fails_and_is_slow_is_ejected_once():
    outlier = Outlier(replace(LATENCY, failure_rate=0.5), ABCD, 0.0)
    answer(outlier, "a", 0.9)
    send(outlier, "a", 0, 20)
    for member in "bcd":
        answer(outlier, member, 0.1)
    assert ids(outlier.sweep(10.0)) == ["a"]


def test_quick_failures_do_not_make_an_instance_look_fast():
    outlier = Outlier(LATENCY, ("a", "b"), 0.0)
    answer(outlier, "a", 0.9)
    for _ in range(1000):
        outlier.record("a", True, 0.0, 1.0)
    answer(outlier, "b", 0.2)
    assert ids(outlier.sweep(10.0)) == ["a"]


def test_failing_is_worse_than_being_slow():
    rules = replace(LATENCY, failure_rate=0.5, max_ejected=0.25)
    outlier = Outlier(rules, ABCD, 0.0)
    for member, mean_s in (("a", 9.0), ("b", 0.2), ("c", 0.2), ("d", 0.2)):
        answer(outlier, member, mean_s)
    send(outlier, "d", 0, 10)
    assert ids(outlier.sweep(10.0)) == ["d"]


@given(
    st.sampled_from([1.25, 1.5, 3.0]),
    st.dictionaries(st.sampled_from("abcdefg"), st.integers(1, 4000), min_size=1),
)
@example(1.5, {"a": 1, "b": 1000, "c": 1400})
def test_latency_agrees_with_a_reference_that_takes_the_median_of_the_others(factor, means_ms):
    rules = replace(LATENCY, latency_factor=factor, max_ejected=1.0)
    outlier = Outlier(rules, "abcdefg", 0.0)
    for member, mean_ms in means_ms.items():
        answer(outlier, member, mean_ms / 1024, times=8)  # exact in binary
    expected = set()
    for member, mean_ms in means_ms.items():
        peers = [other for name, other in means_ms.items() if name != member]
        if peers and mean_ms / 1024 > 0.1 and mean_ms > factor * statistics.median(peers):
            expected.add(member)
    assert set(ids(outlier.sweep(10.0))) == expected


# ---- how long


def test_the_end_of_an_ejection_is_kept_to_the_sweep():
    outlier = Outlier(ERRORS, ABCD, 0.0)
    fail(outlier, "a", 3, 1.0)
    assert outlier.sweep(30.9) == []
    assert outlier.sweep(31.0) == [Restored("a", 31.0, "its time was over")]
    assert not outlier.is_ejected("a")


def lengths(
    outlier: Outlier, member: str, good_times: list[float], now: float = 1.0
) -> list[float]:
    """How long each ejection is, when after each the instance is good for so long."""
    found = []
    for good_s in good_times:
        ejected = fail(outlier, member, 3, now)
        assert ejected is not None
        found.append(ejected.until - now)
        outlier.sweep(ejected.until)
        now = ejected.until + good_s
    return found


def test_each_ejection_in_a_row_is_longer_up_to_the_most():
    outlier = Outlier(ERRORS, ABCD, 0.0)
    assert lengths(outlier, "a", [1.0] * 6) == [30.0, 60.0, 90.0, 100.0, 100.0, 100.0]


def test_good_time_makes_the_next_one_shorter_again():
    outlier = Outlier(ERRORS, ABCD, 0.0)
    assert lengths(outlier, "a", [1.0, 1.0, 29.0, 31.0, 61.0, 1.0]) == [
        *(30.0, 60.0, 90.0),
        *(100.0, 100.0, 90.0),
    ]


def test_however_long_it_was_bad_good_time_of_the_longest_ejection_clears_it():
    outlier = Outlier(ERRORS, ABCD, 0.0)
    assert lengths(outlier, "a", [1.0] * 50 + [120.0, 1.0])[-1] == 30.0


def test_the_members_of_a_service_grow_alone():
    outlier = Outlier(ERRORS, ABCD, 0.0)
    lengths(outlier, "a", [1.0] * 3)
    assert lengths(outlier, "b", [1.0]) == [30.0]


# ---- old results


def test_results_during_the_ejection_do_not_prolong_it():
    outlier = Outlier(ERRORS, ABCD, 0.0)
    fail(outlier, "a", 3, 1.0)
    assert fail(outlier, "a", 100, 20.0) is None
    assert ids(outlier.sweep(31.0)) == ["a"]


def test_errors_of_attempts_from_before_the_ejection_do_not_cause_the_next():
    outlier = Outlier(ERRORS, ABCD, 0.0)
    fail(outlier, "a", 3, 1.0)
    outlier.sweep(31.0)
    for _ in range(100):
        assert outlier.record("a", True, 40.0, 32.0) is None  # began before the ejection
        assert outlier.record("a", True, 2.0, 32.0) is None  # began in it
    assert outlier.snapshot(32.0).members[0].in_a_row == 0
    assert fail(outlier, "a", 3, 32.0) is not None


def test_late_successes_do_not_make_it_slow_after_its_return():
    outlier = Outlier(replace(LATENCY, consecutive_errors=3), ABCD, 0.0)
    fail(outlier, "a", 3, 1.0)
    outlier.sweep(31.0)
    answer(outlier, "a", 35.0, now=36.0)
    answer(outlier, "a", 0.2, now=36.0)
    for member in "bcd":
        answer(outlier, member, 0.2, now=36.0)
    assert outlier.sweep(41.0) == []


def test_what_was_counted_before_an_ejection_is_forgotten_with_it():
    outlier = Outlier(replace(RATE, consecutive_errors=3), ABCD, 0.0)
    send(outlier, "a", 3, 2)
    fail(outlier, "a", 3, 1.0)
    outlier.sweep(31.0)
    shown = outlier.snapshot(31.0).members[0]
    assert (shown.requests, shown.failed, shown.in_a_row) == (0, 0, 0)


def test_results_of_unknown_instances_are_ignored():
    assert fail(Outlier(ERRORS, ABCD, 0.0), "gone", 10, 1.0) is None


# ---- never too many


@pytest.mark.parametrize(
    ("members", "share", "most"),
    [
        (0, 0.5, 0),
        (1, 0.5, 0),
        (1, 1.0, 0),
        (2, 0.1, 1),
        (2, 0.5, 1),
        (2, 1.0, 2),
        (3, 0.5, 1),
        (10, 0.5, 5),
        (100, 0.29, 29),
        (10, 0.0, 0),
    ],
)
def test_the_share_is_rounded_down_but_one_of_two_may_be_out(members, share, most):
    assert OutlierRules(max_ejected=share).most(members) == most


def test_the_last_one_stays_whatever_it_does():
    outlier = Outlier(ERRORS, ("a", "b"), 0.0)
    assert fail(outlier, "a", 3, 1.0) is not None
    assert fail(outlier, "b", 30, 1.0) is None
    shown = outlier.snapshot(1.0)
    assert (shown.ejected, shown.most) == (1, 1)
    assert shown.members[1].spared == 28
    assert shown.members[1].in_words == "in after 30 errors in a row: no more instances may be out"


def test_who_was_spared_goes_out_at_its_next_error_once_there_is_room():
    outlier = Outlier(ERRORS, ("a", "b"), 0.0)
    fail(outlier, "a", 3, 1.0)
    fail(outlier, "b", 3, 2.0)
    outlier.sweep(31.0)
    assert fail(outlier, "b", 1, 32.0) is not None


# ---- by hand, and from others


def test_an_ejection_on_somebody_elses_word_has_its_own_time_and_is_not_counted_in_the_row():
    outlier = Outlier(ERRORS, ABCD, 0.0)
    told = outlier.eject("a", 12.0, "worker 2: 3 errors in a row (connect)", 1.0)
    assert told == Ejected("a", 1.0, 13.0, 0, "worker 2: 3 errors in a row (connect)")
    assert outlier.eject("a", 99.0, "again", 2.0) is None
    assert ids(outlier.sweep(13.0)) == ["a"]
    assert lengths(outlier, "a", [1.0], now=14.0) == [30.0]


def test_nobody_elses_word_lasts_longer_than_our_rules_allow_or_ejects_too_many():
    outlier = Outlier(ERRORS, ("a", "b"), 0.0)
    told = outlier.eject("a", 1e9, "", 0.0)
    assert told is not None
    assert told.until == 100.0
    assert outlier.eject("b", 10.0, "", 0.0) is None
    assert outlier.eject("gone", 10.0, "", 0.0) is None


def test_one_can_be_brought_back_by_hand():
    outlier = Outlier(ERRORS, ABCD, 0.0)
    fail(outlier, "a", 3, 1.0)
    assert outlier.restore("a", "by hand", 5.0) == Restored("a", 5.0, "by hand")
    assert outlier.restore("a", "by hand", 5.0) is None
    assert fail(outlier, "a", 2, 6.0) is None
    assert fail(outlier, "a", 1, 6.0) is not None


# ---- a reload


def test_those_that_stay_keep_ejections_and_counts():
    outlier = Outlier(ERRORS, ABCD, 0.0)
    fail(outlier, "a", 3, 1.0)
    fail(outlier, "b", 2, 1.0)
    assert outlier.update(("b", "a", "new", "d"), 2.0) == []
    assert outlier.is_ejected("a")
    assert fail(outlier, "b", 1, 3.0) is not None


def test_one_that_is_gone_is_forgotten_and_makes_room():
    outlier = Outlier(ERRORS, ("a", "b", "c"), 0.0)
    fail(outlier, "a", 3, 1.0)
    outlier.update(("b", "c"), 2.0)
    assert outlier.snapshot(2.0).ejected == 0
    assert fail(outlier, "b", 3, 3.0) is not None


def test_one_that_left_and_came_again_is_not_blamed_for_old_attempts():
    outlier = Outlier(ERRORS, ABCD, 0.0)
    outlier.update(("b", "c", "d"), 2.0)
    outlier.update(ABCD, 4.0)
    for _ in range(5):
        assert outlier.record("a", True, 3.0, 5.0) is None
    assert fail(outlier, "a", 3, 5.0) is not None


def test_when_too_many_would_be_out_those_nearest_to_their_end_come_back():
    outlier = Outlier(replace(ERRORS, max_ejected=0.75), ABCD, 0.0)
    for at, member in enumerate("cab"):
        fail(outlier, member, 3, float(at))
    news = outlier.update("abc", 5.0)
    assert news == [Restored("c", 5.0, "too few instances are left")]


def test_a_smaller_share_brings_back_the_surplus():
    outlier = Outlier(ERRORS, ABCD, 0.0)
    fail(outlier, "a", 3, 1.0)
    fail(outlier, "b", 3, 2.0)
    assert ids(outlier.take_rules(replace(ERRORS, max_ejected=0.25), 3.0)) == ["a"]


def test_new_rules_hold_for_what_is_out_and_what_is_counted():
    outlier = Outlier(ERRORS, ABCD, 0.0)
    fail(outlier, "a", 3, 1.0)
    fail(outlier, "b", 2, 1.0)
    rules = replace(ERRORS, consecutive_errors=2, eject_s=1.0, eject_max_s=5.0, interval_s=2.0)
    assert outlier.take_rules(rules, 2.0) == []
    assert ids(outlier.sweep(7.0)) == ["a"]
    assert fail(outlier, "b", 1, 8.0) is not None


def test_a_shorter_interval_holds_at_once():
    outlier = Outlier(replace(RATE, interval_s=600.0), ABCD, 0.0)
    send(outlier, "a", 0, 20)
    outlier.take_rules(RATE, 2.0)
    assert ids(outlier.sweep(12.0)) == ["a"]


# ---- what an operator is told


def test_an_ejected_instance_is_explained_in_a_sentence():
    outlier = Outlier(replace(ERRORS, consecutive_errors=5), ABCD, 0.0)
    fail(outlier, "a", 5, 1.0, "connect")
    assert outlier.snapshot(13.0).members[0].in_words == (
        "out since 12 s: 5 errors in a row (connect), back in 18 s"
    )


def test_one_that_is_in_is_explained_too():
    outlier = Outlier(RATE, ABCD, 0.0)
    send(outlier, "a", 6, 2)
    a, b, *_ = outlier.snapshot(1.0).members
    assert a.in_words == "in, 2 of 8 requests failed lately"
    assert b.in_words == "in, nothing counted lately"


def test_the_snapshot_shows_the_window_and_the_row():
    outlier = Outlier(replace(RATE, consecutive_errors=3), ABCD, 0.0)
    send(outlier, "a", 3, 1)
    outlier.sweep(10.0)
    answer(outlier, "a", 0.5, times=2, now=11.0)
    outlier.record("a", True, 0.0, 11.0)
    shown = outlier.snapshot(12.0).members[0]
    assert (shown.requests, shown.failed, shown.in_a_row, shown.mean_s) == (7, 2, 1, 0.5)
    fail(outlier, "a", 2, 12.0)
    outlier.sweep(42.0)
    assert [outlier.snapshot(at).members[0].times for at in (42.0, 71.9, 72.0)] == [1, 1, 0]


# ---- rules


def test_the_defaults_have_no_problems():
    assert OutlierRules().problems() == ()


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"consecutive_errors": 0}, "consecutive_errors=0"),
        ({"failure_rate": 0.0}, "failure_rate=0"),
        ({"failure_rate": 1.5}, "failure_rate=1.5"),
        ({"minimum_requests": 0}, "minimum_requests=0"),
        ({"latency_factor": 1.0}, "latency_factor=1"),
        ({"latency_factor": math.nan}, "latency_factor=nan"),
        ({"latency_floor_s": -1.0}, "latency_floor_s=-1"),
        ({"interval_s": 0.0}, "interval_s=0"),
        ({"eject_s": 0.0}, "eject_s=0"),
        ({"eject_s": 400.0}, "eject_max_s=300 is less than eject_s=400"),
        ({"eject_max_s": math.inf}, "eject_max_s=inf"),
        ({"max_ejected": 0.0}, "max_ejected=0"),
        ({"max_ejected": 1.01}, "max_ejected=1.01"),
        ({"consecutive_errors": None}, "nothing is ever ejected"),
    ],
)
def test_senseless_rules_are_named(wrong, problem):
    (found,) = OutlierRules(**wrong).problems()
    assert problem in found


# ---- whatever happens

ALL = OutlierRules(
    consecutive_errors=2,
    failure_rate=0.4,
    minimum_requests=3,
    latency_factor=2.0,
    interval_s=5.0,
    eject_s=7.0,
    eject_max_s=25.0,
)


class AnyCourse(RuleBasedStateMachine):
    """Any order of results, sweeps and reloads, beside the news as they were told."""

    @initialize(share=st.sampled_from([0.1, 0.34, 0.5, 0.99, 1.0]), count=st.integers(0, 7))
    def begin(self, share: float, count: int) -> None:
        self.now = 100.0
        self.ruled = replace(ALL, max_ejected=share)
        self.ids = list("abcdefgh"[:count])
        self.outlier = Outlier(self.ruled, self.ids, self.now)
        self.out: dict[str, float] = {}

    def take(self, news: list[Restored | Ejected]) -> None:
        for each in news:
            if isinstance(each, Ejected):
                assert each.id not in self.out
                assert 0.0 < each.until - self.now <= self.ruled.eject_max_s
                self.out[each.id] = each.until
            else:
                del self.out[each.id]

    @rule(
        member=st.sampled_from("abcdefgh"),
        failed=st.booleans(),
        took_s=st.sampled_from([0.0, 0.01, 1.0, 30.0]),
        times=st.integers(1, 4),
    )
    def result(self, member: str, failed: bool, took_s: float, times: int) -> None:
        was_out = dict(self.out)
        for _ in range(times):
            ejected = self.outlier.record(member, failed, took_s, self.now)
            if ejected is not None:
                assert failed
                assert member not in was_out
                self.take([ejected])

    @rule(seconds=st.sampled_from([0.25, 1.0, 6.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.outlier.sweep(self.now))
        assert all(until > self.now for until in self.out.values())

    @rule(members=st.lists(st.sampled_from("abcdefgh"), unique=True))
    def reload(self, members: list[str]) -> None:
        self.ids = members
        for gone in self.out.keys() - set(members):
            del self.out[gone]
        self.take(self.outlier.update(members, self.now))

    @rule(share=st.sampled_from([0.1, 0.5, 1.0]), errors=st.sampled_from([None, 1, 3]))
    def other_rules(self, share: float, errors: int | None) -> None:
        self.ruled = replace(self.ruled, max_ejected=share, consecutive_errors=errors)
        self.take(self.outlier.take_rules(self.ruled, self.now))

    @rule(member=st.sampled_from("abcdefgh"))
    def by_hand(self, member: str) -> None:
        ejected = self.outlier.eject(member, 3.0, "", self.now)
        if ejected is not None:
            self.take([ejected])

    @invariant()
    def never_too_many_are_out(self) -> None:
        if hasattr(self, "out"):
            most = int(len(self.ids) * self.ruled.max_ejected)
            assert len(self.out) <= (max(1, most) if len(self.ids) > 1 else 0)

    @invariant()
    def what_was_told_is_what_is(self) -> None:
        if hasattr(self, "out"):
            shown = self.outlier.snapshot(self.now)
            assert {each.id for each in shown.members if each.is_ejected} == self.out.keys()
            assert all(self.outlier.is_ejected(member) for member in self.out)
            assert shown.ejected == len(self.out)

    def teardown(self) -> None:
        if hasattr(self, "out"):
            self.now += self.ruled.eject_max_s
            before = set(self.out)
            news = self.outlier.sweep(self.now)
            assert before <= {each.id for each in news if isinstance(each, Restored)}
            self.take(news)
            assert self.out.keys() <= set(self.ids)


TestAnyCourse = AnyCourse.TestCase

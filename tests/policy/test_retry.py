"""What is retried, how long the wait is, and how `Retry-After` is read."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.budget import BudgetRules
from headgate.policy.retry import RetryRules, parse_retry_after, wait_before

EXACT = RetryRules(jitter="none", wait_s=0.1, wait_max_s=1.0)


@pytest.mark.parametrize(
    ("attempt", "wait_s"),
    [(1, 0.1), (2, 0.2), (3, 0.4), (4, 0.8), (5, 1.0), (6, 1.0), (5000, 1.0)],
)
def test_without_jitter_the_wait_doubles_up_to_its_bound(attempt, wait_s):
    assert wait_before(EXACT, attempt, 0.0, random.Random(1)) == pytest.approx(wait_s)


@given(st.integers(1, 2000), st.integers(0, 1 << 30))
def test_full_jitter_lies_between_nothing_and_the_bound(attempt, seed):
    rules = RetryRules(wait_s=0.1, wait_max_s=1.0)
    bound = wait_before(EXACT, attempt, 0.0, random.Random(1))
    wait_s = wait_before(rules, attempt, 0.0, random.Random(seed))
    assert bound is not None
    assert wait_s is not None
    assert 0.0 <= wait_s <= bound


def test_full_jitter_uses_all_of_the_bound():
    rng = random.Random(3)
    rules = RetryRules(wait_s=0.8, wait_max_s=1.0)
    waits = [wait_before(rules, 1, 0.0, rng) or 0.0 for _ in range(2000)]
    assert min(waits) < 0.01
    assert max(waits) > 0.79
    assert sum(waits) / len(waits) == pytest.approx(0.4, abs=0.02)


@given(st.integers(1, 100), st.floats(0, 50), st.integers(0, 1 << 30))
def test_decorrelated_jitter_lies_between_the_first_wait_and_three_times_the_last(
    attempt, previous_s, seed
):
    rules = RetryRules(jitter="decorrelated", wait_s=0.1, wait_max_s=10.0)
    wait_s = wait_before(rules, attempt, previous_s, random.Random(seed))
    assert wait_s is not None
    assert 0.1 <= wait_s <= min(10.0, max(0.1, previous_s) * 3.0 + 1e-9)


def test_what_the_server_asks_for_is_waited_in_full():
    rng = random.Random(1)
    for jitter in ("full", "decorrelated"):
        rules = RetryRules(jitter=jitter, wait_s=0.1, wait_max_s=1.0)
        waits = [wait_before(rules, 1, 0.0, rng, 3.0) or 0.0 for _ in range(100)]
        assert min(waits) >= 3.0
        assert max(waits) <= 4.0
        assert len(set(waits)) > 50
    assert wait_before(EXACT, 1, 0.0, rng, 3.0) == 3.0
    assert wait_before(EXACT, 1, 0.0, rng, 0.0) == 0.1


def test_a_wait_beyond_what_we_hold_a_request_for_means_no_retry():
    rng = random.Random(1)
    assert wait_before(EXACT, 1, 0.0, rng, 10.0) == 10.0
    assert wait_before(EXACT, 1, 0.0, rng, 10.1) is None
    deaf = RetryRules(jitter="none", wait_s=0.1, retry_after=False)
    assert wait_before(deaf, 1, 0.0, rng, 10.1) == 0.1


WALL = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 120\t", 120.0),
        ("Fri, 20 Nov 2026 12:01:30 GMT", 90.0),
        ("Friday, 20-Nov-26 12:01:30 GMT", 90.0),
        ("Fri Nov 20 12:01:30 2026", 90.0),
        ("Thu Dec  3 12:00:00 2026", 13 * 86400.0),
        ("Fri, 20 Nov 2026 11:00:00 GMT", 0.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0.0),  # 1994, not 2094
        ("Fri, 20 Nov 2026 12:00:60 GMT", 59.0),  # a leap second
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("1e3", None),
        ("soon", None),
        ("٣", None),
        ("1234567890", 1234567890.0),
        ("12345678901", None),
        ("Friday, 20-Nov-76 12:00:00 GMT", 1577923200.0),  # fifty years ahead may be meant
        ("Friday, 20-Nov-77 12:00:00 GMT", 0.0),
        ("Fri, 31 Feb 2027 12:00:00 GMT", None),
        ("Fri, 20 Nox 2026 12:00:00 GMT", None),
        ("Fri, 20 Nov 0000 12:00:00 GMT", None),
        ("Fri, 20 Nov 2026 12:01:30 CET", None),
        ("Fri, 20 Nov 2026 25:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text, seconds):
    assert parse_retry_after(text, WALL) == seconds
    assert parse_retry_after(text.encode(), WALL) == seconds


@given(st.integers(-10_000_000, 10_000_000_000))
def test_any_date_that_can_be_written_is_read(left_s):
    then = datetime.fromtimestamp(int(WALL) + left_s, UTC)
    assert parse_retry_after(format_datetime(then, usegmt=True), WALL) == max(0.0, left_s)


@given(st.binary(max_size=40))
def test_no_bytes_from_outside_make_it_fail(text):
    found = parse_retry_after(text, WALL)
    assert found is None or found >= 0.0


@pytest.mark.parametrize(
    ("headers", "retries"),
    [
        ([(b"x-retry", b"yes")], True),
        ([(b"x-retry", b"no")], False),
        ([(b"x-any", b"whatever")], True),
        ([(b"other", b"yes"), (b"x-any", b"")], True),
        ([(b"other", b"yes")], False),
        ([], False),
    ],
)
def test_a_response_header_may_ask_for_a_retry(headers, retries):
    rules = RetryRules(headers=(("X-Retry", "yes"), ("x-any", None)))
    assert rules.retries_response(200, headers) is retries
    assert rules.retries_response(503, headers)
    assert not RetryRules().retries_response(200, headers)


def test_only_what_can_be_repeated_is_retried_by_default():
    rules = RetryRules()
    assert rules.may_repeat("GET")
    assert rules.may_repeat("PUT")
    assert not rules.may_repeat("POST")
    assert not rules.may_repeat("PATCH")
    assert rules.retries_status(503)
    assert not rules.retries_status(500)
    assert rules.retries_error("connect")
    assert not rules.retries_error("protocol")


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        (RetryRules(attempts=0), "attempts=0"),
        (RetryRules(wait_s=-1), "wait_s=-1"),
        (RetryRules(wait_s=2, wait_max_s=1), "wait_max_s=1 is less than wait_s=2"),
        (RetryRules(per_try_s=0), "per_try_s=0"),
        (RetryRules(retry_after_max_s=-1), "retry_after_max_s=-1"),
        (RetryRules(body_max=-1), "body_max=-1"),
        (RetryRules(statuses=frozenset({99})), "status 99"),
        (RetryRules(statuses=frozenset(), errors=frozenset()), "asks for a retry"),
        (RetryRules(methods=frozenset()), "no method may be sent twice"),
    ],
)
def test_senseless_rules_are_named(rules, says):
    (problem,) = rules.problems()
    assert says in problem


@pytest.mark.parametrize(
    "rules",
    [
        RetryRules(),
        RetryRules(attempts=1, statuses=frozenset(), errors=frozenset(), methods=frozenset()),
        RetryRules(wait_s=0.0, wait_max_s=0.0, retry_after_max_s=0.0, body_max=0),
        RetryRules(wait_s=1.0, wait_max_s=1.0, retry_after_max_s=0.5),
        RetryRules(per_try_s=0.5),
        RetryRules(statuses=frozenset({200, 599})),
        RetryRules(statuses=frozenset(), errors=frozenset(), headers=(("x", None),)),
    ],
)
def test_what_is_at_the_edge_has_still_sense(rules):
    assert rules.problems() == ()


@pytest.mark.parametrize("status", [199, 600])
def test_a_status_beyond_the_edge_is_named(status):
    assert RetryRules(statuses=frozenset({status})).problems() != ()


def test_two_attempts_need_a_condition():
    assert RetryRules(attempts=2, statuses=frozenset(), errors=frozenset()).problems() != ()
    budget = BudgetRules(share=0.0, floor_per_s=0.05)  # half a retry in ten seconds
    assert RetryRules(attempts=2).problems_with(budget) != ()
    assert RetryRules(attempts=2).problems_with(BudgetRules(share=0.0, floor_per_s=0.1)) == ()
    assert RetryRules(attempts=2).problems_with(BudgetRules(share=0.01, floor_per_s=0.0)) == ()
    assert RetryRules(attempts=2, per_try_s=1.0).problems_with(BudgetRules(), 1.0) != ()
    assert RetryRules(attempts=2).problems_with(BudgetRules(), 0.5) == ()


def test_the_defaults_are_what_the_manual_says():
    rules = RetryRules()
    assert (rules.attempts, rules.wait_s, rules.wait_max_s) == (3, 0.025, 1.0)
    assert (rules.retry_after_max_s, rules.body_max) == (10.0, 65536)
    assert rules.statuses == {502, 503, 504}
    assert (rules.jitter, rules.retry_after, rules.other_instance) == ("full", True, True)


def test_one_attempt_needs_no_conditions():
    none: frozenset[str] = frozenset()
    rules = RetryRules(attempts=1, statuses=frozenset(), errors=frozenset(), methods=none)
    assert rules.problems() == ()


@pytest.mark.parametrize(
    ("rules", "budget", "total_s", "says"),
    [
        (RetryRules(attempts=5), BudgetRules(share=0, floor_per_s=0), None, "attempts=5 with a"),
        (RetryRules(per_try_s=5.0), BudgetRules(), 5.0, "no time is left"),
        (RetryRules(per_try_s=5.0), BudgetRules(), 6.0, None),
        (RetryRules(per_try_s=5.0), BudgetRules(), None, None),
        (RetryRules(), BudgetRules(), 5.0, None),
        (
            RetryRules(attempts=1, per_try_s=9.0),
            BudgetRules(share=0, floor_per_s=0),
            5.0,
            None,
        ),
    ],
)
def test_what_contradicts_the_budget_or_the_total_is_named(rules, budget, total_s, says):
    found = rules.problems_with(budget, total_s)
    if says is None:
        assert found == ()
    else:
        assert says in found[0]

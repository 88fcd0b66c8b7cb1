"""Health counting: what decides, when the next check is, and what an operator is told."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.health import FIRST_WITHIN_S, HISTORY, HealthRules, HealthState
from headgate.policy.in_words import span

RULES = HealthRules(every_s=30.0, rise=2, fall=3)


class Fixed(random.Random):
    """Chance that always draws the same."""

    def __init__(self, drawn: float) -> None:
        super().__init__()
        self.drawn = drawn

    def random(self) -> float:
        return self.drawn


def after(answers: str, rules: HealthRules = RULES) -> HealthState:
    """A state that saw passed (+) and failed (-) checks, one a second."""
    state = HealthState(rules, 0.0)
    for at, answer in enumerate(answers, start=1):
        state.saw(answer == "+", "status 200" if answer == "+" else "connect refused", float(at))
    return state


# ---- what is remembered


def test_what_is_recalled_stands_in_place_of_a_first_check():
    state = HealthState(RULES, 0.0)
    assert state.recall(True, "as before", 0.0)
    assert (state.state, state.why) == ("up", "as before")
    assert [state.saw(False, "connect refused", at) for at in (1.0, 2.0)] == [None, None]
    change = state.saw(False, "connect refused", 3.0)
    assert change is not None
    assert change.became == "down"


def test_one_that_was_down_needs_as_many_good_checks_as_before():
    state = HealthState(RULES, 0.0)
    assert state.recall(False, "as before", 0.0)
    assert state.saw(True, "status 200", 1.0) is None
    assert state.saw(True, "status 200", 2.0) is not None


def test_what_was_seen_is_not_overruled_by_what_is_recalled():
    state = after("-")
    assert not state.recall(True, "as before", 2.0)
    assert state.state == "down"
    again = HealthState(RULES, 0.0)
    assert again.recall(True, "one", 0.0)
    assert not again.recall(False, "another", 0.0)
    assert again.state == "up"


def test_what_is_recalled_is_looked_at_as_soon_as_what_is_new():
    state = HealthState(RULES, 0.0)
    state.recall(True, "as before", 0.0)
    assert state.next_check(0.0, Fixed(0.5)) == 0.5 * FIRST_WITHIN_S
    assert "next check" in state.snapshot(0.0).in_words


# ---- what decides


@pytest.mark.parametrize(
    ("answers", "state"),
    [
        ("", "unknown"),
        ("+", "up"),
        ("-", "down"),
        ("+-", "up"),
        ("+--", "up"),
        ("+---", "down"),
        ("+--+--", "up"),
        ("+--+---", "down"),
        ("-+", "down"),
        ("-++", "up"),
        ("-+-+", "down"),
        ("-+-++", "up"),
        ("+---+", "down"),
    ],
)
def test_so_many_in_a_row_decide(answers, state):
    assert after(answers).state == state


@pytest.mark.parametrize(("start", "is_usable"), [("up", True), ("down", False)])
def test_until_the_first_check_an_instance_counts_as_the_rules_say(start, is_usable):
    rules = replace(RULES, start=start)
    assert after("", rules).is_usable is is_usable
    assert after("+", rules).is_usable
    assert not after("-", rules).is_usable


def test_a_change_is_told_once_and_says_what_it_was_before():
    state = HealthState(RULES, 0.0)
    told = [state.saw(ok, "status 503", at) for at, ok in enumerate([True, False, False, False])]
    told += [state.saw(False, "status 503", 9.0)]
    first, *rest = told
    assert first is not None
    assert (first.was, first.became, first.why) == ("unknown", "up", "the first check passed")
    assert rest[0] is rest[1] is rest[3] is None
    change = rest[2]
    assert change is not None
    assert (change.at, change.was, change.became) == (3, "up", "down")
    assert change.why == "3 checks in a row failed (status 503)"


class Reference:
    """The rule once more, from all answers at every step."""

    def __init__(self, rise: int, fall: int) -> None:
        self.rise, self.fall = rise, fall
        self.answers: list[bool] = []
        self.state = "unknown"

    def saw(self, ok: bool) -> bool:
        before = self.state
        self.answers.append(ok)
        if len(self.answers) == 1:
            self.state = "up" if ok else "down"
        elif self.answers[-self.rise :] == [True] * self.rise:
            self.state = "up"
        elif self.answers[-self.fall :] == [False] * self.fall:
            self.state = "down"
        return self.state != before


@given(st.integers(1, 4), st.integers(1, 4), st.lists(st.booleans(), max_size=60))
def test_counting_agrees_with_a_reference_that_looks_at_all_answers(rise, fall, answers):
    state = HealthState(HealthRules(rise=rise, fall=fall), 0.0)
    reference = Reference(rise, fall)
    for at, ok in enumerate(answers):
        told = state.saw(ok, "", float(at))
        assert (told is not None) is reference.saw(ok)
        assert state.state == reference.state
        assert state.is_usable is (reference.state == "up")


@given(st.integers(1, 4), st.integers(1, 4), st.lists(st.booleans(), min_size=1, max_size=40))
def test_the_snapshot_knows_how_many_more_would_change_the_state(rise, fall, answers):
    state = HealthState(HealthRules(rise=rise, fall=fall), 0.0)
    for ok in answers:
        state.saw(ok, "", 0.0)
    before = state.state
    needed = state.snapshot(0.0).needed
    for _ in range(needed):
        assert state.state == before
        state.saw(before == "down", "", 0.0)
    assert state.state != before


def test_the_history_is_bounded_and_keeps_the_newest():
    state = HealthState(HealthRules(rise=1, fall=1), 0.0)
    for at in range(100):
        state.saw(at % 2 == 0, "", float(at))
    assert [change.at for change in state.history] == [float(at) for at in range(100)][-HISTORY:]


# ---- when the next check is


@pytest.mark.parametrize("drawn", [0.0, 0.25, 0.999])
def test_first_checks_come_soon_and_not_all_at_once(drawn):
    state = HealthState(RULES, 100.0)
    assert state.next_check(100.0, Fixed(drawn)) == 100.0 + drawn * FIRST_WITHIN_S


def test_a_first_check_does_not_wait_longer_than_a_short_interval():
    state = HealthState(replace(RULES, every_s=0.2), 0.0)
    assert state.next_check(0.0, Fixed(0.5)) == 0.1


def test_the_second_check_comes_after_any_part_of_the_interval():
    assert after("+").next_check(10.0, Fixed(0.5)) == 25.0
    assert after("+").next_check(10.0, Fixed(0.0)) == 10.0


@pytest.mark.parametrize(("drawn", "due"), [(0.0, 37.0), (0.5, 40.0), (1.0, 43.0)])
def test_later_checks_vary_by_the_jitter(drawn, due):
    state = after("++")
    state.next_check(9.0, Fixed(0.5))
    assert state.next_check(10.0, Fixed(drawn)) == pytest.approx(due)


def test_without_jitter_intervals_are_exact():
    assert after("+", replace(RULES, jitter=0.0)).next_check(10.0, Fixed(0.1)) == 40.0


@pytest.mark.parametrize(
    ("answers", "every_s"),
    [("+", 30.0), ("+-", 5.0), ("+---", 5.0), ("+---+", 5.0), ("+---++", 30.0), ("-", 5.0)],
)
def test_checks_are_more_frequent_while_down_or_in_doubt(answers, every_s):
    rules = replace(RULES, unhealthy_every_s=5.0, jitter=0.0)
    assert after(answers, rules).next_check(0.0, Fixed(0.5)) == every_s
    rules = replace(rules, unhealthy_every_s=None)
    assert after(answers, rules).next_check(0.0, Fixed(0.5)) == 30.0


def test_a_thousand_instances_of_one_moment_are_spread_over_the_interval_after_one_round():
    rng = random.Random(7)
    seconds = [0] * 30
    for _ in range(3000):
        state = HealthState(RULES, 0.0)
        state.saw(True, "", state.next_check(0.0, rng))
        seconds[int(state.next_check(0.0, rng))] += 1
    assert max(seconds) < 2 * 3000 / 30


# ---- a reload


def test_a_reload_that_changes_only_the_pace_keeps_state_and_counts():
    state = after("+--")
    state.take_rules(replace(RULES, every_s=5.0, rise=4), 10.0)
    assert state.state == "up"
    change = state.saw(False, "status 500", 11.0)
    assert change is not None
    assert change.became == "down"


def test_after_a_reload_that_changes_only_the_pace_one_failure_does_not_decide():
    state = after("+")
    state.take_rules(replace(RULES, every_s=5.0), 10.0)
    assert state.saw(False, "", 11.0) is None


def test_how_many_checks_are_needed_is_never_less_than_one():
    assert after("").snapshot(0.0).needed == 1
    state = after("+--")
    state.take_rules(replace(RULES, fall=1), 10.0)
    assert state.snapshot(10.0).needed == 1
    state.take_rules(replace(RULES, path="/ready"), 10.0)
    assert state.snapshot(10.0).needed == 1


def test_fewer_failures_needed_holds_from_the_next_check_on():
    state = after("+-")
    state.take_rules(replace(RULES, fall=1), 10.0)
    assert state.state == "up"
    assert state.saw(False, "", 11.0) is not None


@pytest.mark.parametrize(
    "asked",
    [
        {"path": "/ready"},
        {"timeout_s": 5.0},
        {"statuses": ((200, 200),)},
        {"port": 9000},
        {"kind": "tcp"},
        {"headers": (("x-key", "1"),)},
        {"body": "ok"},
        {"host": "users"},
        {"method": "HEAD"},
        {"grpc_service": "users"},
    ],
)
def test_when_something_else_is_asked_the_next_answer_decides_at_once(asked):
    state = after("-")
    state.take_rules(replace(RULES, **asked), 10.0)
    assert (state.state, state.snapshot(10.0).needed) == ("down", 1)
    change = state.saw(True, "status 200", 11.0)
    assert change is not None
    assert change.why == "the first check by new rules passed"
    assert state.saw(False, "", 12.0) is None


# ---- what an operator is told


def said(answers: str, now: float, rules: HealthRules = RULES) -> str:
    state = after(answers, rules)
    state._due = 60.0
    return state.snapshot(now).in_words


@pytest.mark.parametrize(
    ("answers", "now", "text"),
    [
        ("", 0.2, "not checked yet, used meanwhile, next check in 60 s"),
        ("+", 13.0, "up since 12 s: the first check passed, next check in 47 s"),
        (
            "+--",
            3.5,
            "up since 2 s: the first check passed, but the last failed (connect refused): "
            "down after 1 more, next check in 56 s",
        ),
        (
            "+---",
            16.0,
            "down since 12 s: 3 checks in a row failed (connect refused), "
            "up after 2 that pass, next check in 44 s",
        ),
        (
            "+---+",
            16.0,
            "down since 12 s: 3 checks in a row failed (connect refused), "
            "up after 1 check that passes, next check in 44 s",
        ),
    ],
)
def test_the_state_is_explained_in_a_sentence(answers, now, text):
    assert said(answers, now) == text


def test_the_sentence_tells_a_new_reason_beside_the_one_that_decided():
    state = after("-")
    state.saw(False, "timed out after 2s", 2.0)
    assert "(connect refused), the last: timed out after 2s, up after" in state.snapshot(3).in_words


def test_an_instance_that_waits_for_its_first_check_says_so():
    rules = replace(RULES, start="down")
    assert said("", 0.0, rules).startswith("not checked yet, not used meanwhile")


def test_the_snapshot_keeps_counts_and_the_last_check():
    state = HealthState(RULES, 0.0)
    state.saw(True, "status 200", 1.0, took_s=0.004)
    state.saw(False, "status 503", 3.0, took_s=0.02)
    state.next_check(3.0, Fixed(0.5))
    shown = state.snapshot(5.0)
    assert (shown.checks, shown.failures, shown.in_a_row) == (2, 1, 1)
    assert (shown.last_ok, shown.last_why, shown.last_took_s) == (False, "status 503", 0.02)
    assert (shown.last_ago_s, shown.for_s, shown.next_in_s) == (2.0, 4.0, 13.0)
    state.begun()
    assert state.snapshot(5.0).next_in_s is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "less than 1 s"),
        (0.99, "less than 1 s"),
        (1.0, "1 s"),
        (119.0, "119 s"),
        (120.0, "2 min"),
        (7199.0, "120 min"),
        (7200.0, "2 h"),
        (86400.0 * 2, "2 d"),
    ],
)
def test_spans_are_said_roughly(seconds, text):
    assert span(seconds) == text


# ---- rules


@pytest.mark.parametrize(
    ("status", "passes"), [(199, False), (200, True), (302, True), (399, True), (400, False)]
)
def test_ranges_of_statuses_include_both_ends(status, passes):
    assert HealthRules().passes(status) is passes
    assert HealthRules(statuses=((500, 503), (200, 200))).passes(503)


def test_the_defaults_have_no_problems():
    assert HealthRules().problems() == ()


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"every_s": 0.0}, "every_s=0 must be over 0"),
        ({"every_s": float("nan")}, "every_s=nan must be over 0"),
        ({"timeout_s": -1.0}, "timeout_s=-1 must be over 0"),
        ({"unhealthy_every_s": 0.0}, "unhealthy_every_s=0"),
        ({"rise": 0}, "rise=0 must be at least 1"),
        ({"fall": 0}, "fall=0 must be at least 1"),
        ({"jitter": 1.1}, "jitter=1.1"),
        ({"port": 0}, "port=0"),
        ({"port": 65536}, "port=65536"),
        ({"statuses": ()}, "no status passes"),
        ({"statuses": ((399, 200),)}, "statuses 399-200"),
        ({"statuses": ((99, 200),)}, "statuses 99-200"),
        ({"kind": "tcp", "path": "/x"}, "path means nothing to a check of kind tcp"),
        ({"kind": "tcp", "headers": (("a", "b"),)}, "headers means nothing"),
        ({"kind": "grpc", "body": "ok"}, "body means nothing to a check of kind grpc"),
        ({"grpc_service": "users"}, "grpc_service means nothing to a check of kind http"),
        ({"body": "ok", "method": "HEAD"}, "an answer to HEAD has none"),
        ({"body": "x" * 65537}, "longer than what is read"),
        ({"path": "ready"}, "must begin with /"),
        ({"path": "/a b"}, "without spaces"),
        ({"path": "/a\r\nhost: b"}, "path"),
        ({"method": "get"}, "upper-case"),
        ({"host": "a\r\nb"}, "host"),
        ({"headers": (("a b", "c"),)}, "header 'a b' cannot be sent"),
        ({"headers": (("a", "b\r\nc: d"),)}, "header 'a' cannot be sent"),
        ({"headers": (("a", "\u0142"),)}, "header 'a' cannot be sent"),
        ({"headers": (("Connection", "keep-alive"),)}, "written by the check itself"),
    ],
)
def test_senseless_rules_are_named(wrong, problem):
    (found,) = HealthRules(**wrong).problems()
    assert problem in found


@pytest.mark.parametrize("kind", ["tcp", "grpc"])
def test_the_other_kinds_have_no_problems_by_default(kind):
    assert HealthRules(kind=kind).problems() == ()

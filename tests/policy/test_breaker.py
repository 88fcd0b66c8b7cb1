"""The breaker: its states by example, and its whole behaviour against a naive model."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.policy.answers import Rejected
from headgate.policy.breaker import Breaker, BreakerRules, Permit, Transition

QUICK = BreakerRules(
    window_calls=4, minimum_calls=4, trial_calls=2, trial_wait_s=5.0, reset_s=10.0, jitter=0.0
)


def make(rules: BreakerRules = QUICK, now: float = 0.0) -> Breaker:
    return Breaker("users", rules, now, random.Random(1))


def state_of(breaker: Breaker) -> str:
    """A call, so that the type checker forgets what it was a line before."""
    return breaker.state


def permit(breaker: Breaker, now: float) -> Permit:
    got = breaker.admit(now)
    assert isinstance(got, Permit)
    return got


def rejection(breaker: Breaker, now: float) -> Rejected:
    got = breaker.admit(now)
    assert isinstance(got, Rejected)
    return got


def feed(breaker: Breaker, outcomes: str, now: float = 0.0) -> None:
    """`.` a success, `x` a failure, `s` a slow success, `-` an abandoned call."""
    for outcome in outcomes:
        got = permit(breaker, now)
        if outcome == "x":
            breaker.fail(got, now)
        elif outcome == "-":
            breaker.abandon(got, now)
        else:
            breaker.succeed(got, now, 100.0 if outcome == "s" else 0.01)


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ("....", "closed"),
        ("xxx", "closed"),  # too few to say
        ("xxxx", "open"),
        ("xx..", "open"),  # half is enough, and it is a success that completes the four
        ("x...", "closed"),
        ("xx------", "closed"),  # abandoned calls are no calls
        ("x...x", "closed"),  # the first has left the window
        ("..xx", "open"),
        ("....x...x", "closed"),  # good calls count again once there is a bad one
        ("....x..x", "open"),
        ("x..x", "open"),
        ("ssss", "open"),
        ("sss.", "closed"),
    ],
)
def test_it_opens_when_enough_of_the_window_failed(outcomes, state):
    breaker = make()
    feed(breaker, outcomes)
    assert state_of(breaker) == state


def test_it_opens_at_exactly_the_rate_asked_for():
    # 0.1 * 30 is a little more than 3 in floats
    breaker = make(BreakerRules(failure_rate=0.1, window_calls=30, minimum_calls=30))
    feed(breaker, "." * 27 + "xxx")
    assert state_of(breaker) == "open"


def test_totals_count_what_has_come_and_gone():
    breaker = make()
    feed(breaker, "...s.x")
    found = breaker.snapshot(0.0)
    assert (found.ok_total, found.failed_total, found.slow_total) == (5, 1, 1)
    feed(breaker, "x")
    for _ in range(3):
        rejection(breaker, 1.0)
    trials = [permit(breaker, 10.0), permit(breaker, 10.0)]
    breaker.succeed(trials[0], 10.0, 60.0)  # not slower than slow_s
    breaker.fail(trials[1], 10.0, 61.0)
    found = breaker.snapshot(10.0)
    assert (found.ok_total, found.failed_total, found.slow_total) == (6, 3, 2)
    assert found.rejected_total == 3


def test_a_call_as_long_as_slow_s_is_not_slow():
    breaker = make(BreakerRules(window_calls=4, minimum_calls=4, slow_rate=0.25, slow_s=1.0))
    for _ in range(8):
        breaker.succeed(permit(breaker, 0.0), 0.0, 1.0)
    breaker.fail(permit(breaker, 0.0), 0.0, 1.0)
    assert breaker.snapshot(0.0).slow == 0


def test_an_open_breaker_that_is_due_is_shown_as_half_open_though_nobody_calls():
    breaker = make()
    feed(breaker, "xxxx")
    assert (breaker.state_at(9.9), breaker.snapshot(9.9).state) == ("open", "open")
    found = breaker.snapshot(10.0)
    assert (breaker.state_at(10.0), found.state) == ("half_open", "half_open")
    assert (found.retry_after_s, found.calls, found.failure_rate) == (0.0, 0, -1.0)
    # To look is not to move: that is for the first trial.
    assert state_of(breaker) == "open"
    permit(breaker, 10.0)
    assert state_of(breaker) == "half_open"


def test_what_was_forced_open_is_not_due_at_any_time():
    breaker = make()
    breaker.force_open(0.0)
    assert breaker.state_at(1e6) == "forced_open"


def test_old_calls_leave_the_snapshot_without_new_ones():
    breaker = make(BreakerRules(window_s=10.0))
    feed(breaker, "xx")
    assert breaker.snapshot(1.0).calls == 2
    assert breaker.snapshot(20.0).calls == 0


def test_a_slow_failure_counts_as_both():
    breaker = make(BreakerRules(window_calls=4, minimum_calls=4, slow_rate=0.25, slow_s=1.0))
    feed(breaker, "...")
    breaker.fail(permit(breaker, 0.0), 2.0, 1.5)
    assert state_of(breaker) == "open"
    assert breaker.history[-1].why == "1 of 4 calls were slow"
    found = breaker.snapshot(2.0)
    assert (found.failed_total, found.slow_total) == (1, 1)


def test_failures_beyond_the_window_of_seconds_do_not_count():
    rules = BreakerRules(window_s=10.0, minimum_calls=4, jitter=0.0)
    breaker = make(rules)
    feed(breaker, "xxx", now=0.0)
    feed(breaker, "x...", now=20.0)
    assert state_of(breaker) == "closed"
    feed(breaker, "xx", now=25.0)
    assert state_of(breaker) == "open"


def test_an_open_breaker_says_when_to_come_back():
    breaker = make()
    feed(breaker, "xxxx", now=100.0)
    assert rejection(breaker, 100.0) == Rejected("breaker", "open", 10.0)
    assert rejection(breaker, 109.0).retry_after_s == 1.0
    assert isinstance(breaker.admit(110.0), Permit)
    assert state_of(breaker) == "half_open"


def opened(rules: BreakerRules = QUICK) -> tuple[Breaker, float]:
    breaker = make(rules)
    feed(breaker, "x" * (rules.calls_kept or 0))
    assert state_of(breaker) == "open"
    return breaker, breaker.snapshot(0.0).retry_after_s


def test_half_open_lets_only_the_trials_through():
    breaker, now = opened()
    assert breaker.snapshot(now).retry_after_s == 0.0
    first = permit(breaker, now)
    assert breaker.snapshot(now).retry_after_s == 0.0  # a place is free
    second = permit(breaker, now)
    assert first is not second
    got = rejection(breaker, now)
    assert (got.reason, got.retry_after_s) == ("half_open", 1.0)
    assert rejection(breaker, now + 4.5).retry_after_s == 0.5
    breaker.succeed(first, now, 0.1)
    rejection(breaker, now)  # a result takes its place for good
    breaker.succeed(second, now, 0.1)
    assert state_of(breaker) == "closed"
    assert breaker.snapshot(now).opens_in_a_row == 0


def test_enough_failed_trials_open_it_again_for_longer():
    breaker, now = opened()
    waits = []
    for _ in range(8):
        breaker.fail(permit(breaker, now), now)
        assert state_of(breaker) == "open"
        waits.append(breaker.snapshot(now).retry_after_s)
        now += waits[-1]
    assert waits == [20.0, 40.0, 80.0, 160.0, 320.0, 600.0, 600.0, 600.0]


def test_it_does_not_wait_for_trials_that_can_change_nothing():
    breaker, now = opened(
        BreakerRules(window_calls=4, minimum_calls=4, trial_calls=5, failure_rate=0.5, jitter=0.0)
    )
    trials = [permit(breaker, now) for _ in range(5)]
    breaker.fail(trials[0], now)
    breaker.fail(trials[1], now)
    assert state_of(breaker) == "half_open"
    breaker.fail(trials[2], now)
    assert state_of(breaker) == "open"


def test_slow_trials_open_it_again():
    breaker, now = opened()
    trials = [permit(breaker, now), permit(breaker, now)]
    breaker.succeed(trials[0], now, 61.0)
    assert state_of(breaker) == "half_open"
    breaker.succeed(trials[1], now, 61.0)
    assert state_of(breaker) == "open"
    assert breaker.history[-1].why == "2 of 2 trials were slow"


def test_an_abandoned_trial_frees_its_place():
    breaker, now = opened()
    for _ in range(50):
        breaker.abandon(permit(breaker, now), now)
    trials = [permit(breaker, now), permit(breaker, now)]
    breaker.abandon(trials[0], now)
    breaker.abandon(trials[0], now)  # twice frees one place, not two
    trials[0] = permit(breaker, now)
    rejection(breaker, now)
    for trial in trials:
        breaker.succeed(trial, now, 0.0)
    assert state_of(breaker) == "closed"


def test_a_trial_that_hangs_opens_it_again():
    breaker, now = opened()
    hung = permit(breaker, now)
    breaker.succeed(permit(breaker, now + 1), now + 1, 0.1)
    rejection(breaker, now + 4.9)
    assert state_of(breaker) == "half_open"
    assert rejection(breaker, now + 5.0) == Rejected("breaker", "open", 20.0)
    breaker.succeed(hung, now + 6.0, 6.0)  # too late to close it
    assert state_of(breaker) == "open"
    assert breaker.snapshot(now).late_total == 1


def test_without_traffic_it_waits_half_open_for_its_trials():
    breaker, now = opened()
    breaker.succeed(permit(breaker, now), now, 0.1)
    now += 3600.0
    breaker.succeed(permit(breaker, now), now, 0.1)
    assert state_of(breaker) == "closed"


def test_a_late_failure_does_not_decide_the_probe():
    breaker = make()
    before = [permit(breaker, 0.0) for _ in range(20)]
    feed(breaker, "xxxx")
    trials = [permit(breaker, 10.0), permit(breaker, 10.0)]
    for late in before:
        breaker.fail(late, 11.0)
    assert state_of(breaker) == "half_open"
    for trial in trials:
        breaker.succeed(trial, 11.0, 0.1)
    assert state_of(breaker) == "closed"
    for late in before + trials:
        breaker.fail(late, 12.0)
    found = breaker.snapshot(12.0)
    assert (found.state, found.calls, found.late_total) == ("closed", 0, 42)


def test_a_trial_can_be_ended_only_once():
    breaker, now = opened()
    trial = permit(breaker, now)
    breaker.succeed(trial, now, 0.1)
    breaker.succeed(trial, now, 0.1)
    assert state_of(breaker) == "half_open"


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_jitter_only_lengthens_the_reset(share):
    rng = random.Random(7)
    resets = []
    for _ in range(200):
        breaker = Breaker("a", BreakerRules(window_calls=10, jitter=share), 0.0, rng)
        feed(breaker, "x" * 10)
        resets.append(breaker.snapshot(0.0).retry_after_s)
    assert min(resets) >= 60.0
    assert max(resets) <= 60.0 * (1 + share)
    assert (len(set(resets)) > 100) == (share > 0)


def test_the_reset_time_may_be_computed():
    rules = BreakerRules(
        window_calls=4, minimum_calls=4, jitter=0.0, reset_of=lambda row: 7.0 * row, trial_calls=1
    )
    breaker, first = opened(rules)
    breaker.fail(permit(breaker, 7.0), 7.0)
    assert (first, breaker.snapshot(7.0).retry_after_s) == (7.0, 14.0)


# ---- news from a peer, and the hand


def test_a_peer_trips_it_for_the_time_it_names():
    breaker = make()
    breaker.trip(100.0, 30.0, "worker-1: 5 of 10 calls failed")
    assert rejection(breaker, 100.0).retry_after_s == 30.0
    breaker.trip(110.0, 5.0, "worker-2")  # never sooner
    assert rejection(breaker, 110.0).retry_after_s == 20.0
    breaker.trip(110.0, 50.0, "worker-3")
    assert rejection(breaker, 110.0).retry_after_s == 50.0
    assert [moved.by for moved in breaker.history] == ["peer"]
    permit(breaker, 160.0)
    breaker.trip(161.0, 5.0, "worker-1")
    assert state_of(breaker) == "open"


@pytest.mark.parametrize("hand", ["force_open", "disable", "metrics_only"])
def test_a_peer_does_not_undo_what_was_set_by_hand(hand):
    breaker = make()
    getattr(breaker, hand)(0.0)
    state = breaker.state
    breaker.trip(0.0, 30.0, "worker-1")
    feed(breaker, "" if hand == "force_open" else "x" * 50)
    assert state_of(breaker) == state
    breaker.automatic(1.0)
    assert state_of(breaker) == "closed"
    feed(breaker, "...")
    assert breaker.snapshot(1.0).calls == 3


def test_forced_open_lets_nothing_through_for_ever():
    breaker = make()
    breaker.force_open(0.0)
    assert rejection(breaker, 1e9).reason == "forced_open"
    breaker.force_close(1e9)
    feed(breaker, "xxxx", now=1e9)
    assert state_of(breaker) == "open"


def test_disabled_counts_nothing_into_the_window_and_metrics_only_does():
    breaker = make()
    breaker.disable(0.0)
    feed(breaker, "xxxx..ss")
    found = breaker.snapshot(0.0)
    assert (found.calls, found.failed_total, found.ok_total) == (0, 4, 4)
    breaker.metrics_only(0.0)
    feed(breaker, "xxxx")
    assert breaker.snapshot(0.0).failure_rate == 1.0
    assert state_of(breaker) == "metrics_only"


def test_automatic_leaves_an_open_breaker_open():
    breaker, _ = opened()
    breaker.automatic(1.0)
    assert state_of(breaker) == "open"


def test_every_change_is_told_and_remembered():
    breaker = make()
    told: list[Transition] = []
    breaker.on_change = told.append
    feed(breaker, "xxxx", now=1.0)
    permit(breaker, 11.0)
    breaker.force_close(12.0, "by ada")
    assert [(m.at, m.before, m.after, m.why, m.by, m.for_s) for m in told] == [
        (1.0, "closed", "open", "4 of 4 calls failed", "calls", 10.0),
        (11.0, "open", "half_open", "reset time over", "clock", 0.0),
        (12.0, "half_open", "closed", "by ada", "hand", 0.0),
    ]
    assert breaker.snapshot(12.0).history == tuple(told)
    for _ in range(500):
        breaker.force_open(13.0)
        breaker.force_open(13.0)
        breaker.force_close(13.0)
    assert len(told) == 1003
    assert len(breaker.history) == 64


# ---- a reload


def test_new_rules_keep_the_calls_of_the_window():
    breaker = make(BreakerRules(window_calls=8, minimum_calls=8))
    feed(breaker, "xx...")
    breaker.take_rules(BreakerRules(window_calls=4, minimum_calls=4, failure_rate=0.25), 0.0)
    found = breaker.snapshot(0.0)
    assert (found.calls, found.failed) == (4, 1)
    feed(breaker, "x")
    assert state_of(breaker) == "open"


def test_a_healthy_full_window_stays_so_only_while_it_is_full():
    breaker = make()
    feed(breaker, "....")
    breaker.take_rules(BreakerRules(window_calls=8, minimum_calls=8), 0.0)
    feed(breaker, "....")
    feed(breaker, "xxx")
    assert state_of(breaker) == "closed"
    assert breaker.snapshot(0.0).calls == 8


def test_another_kind_of_window_starts_empty():
    breaker = make()
    feed(breaker, "xx")
    breaker.take_rules(BreakerRules(window_s=10.0), 0.0)
    assert breaker.snapshot(0.0).calls == 0
    feed(breaker, "x")
    breaker.take_rules(BreakerRules(window_s=20.0), 0.0)
    assert breaker.snapshot(0.0).calls == 0
    feed(breaker, "x")
    breaker.take_rules(BreakerRules(window_s=20.0, failure_rate=0.9), 0.0)
    assert breaker.snapshot(0.0).calls == 1


def test_a_new_slow_bound_is_taken_at_once():
    breaker = make()
    breaker.take_rules(
        BreakerRules(window_calls=4, minimum_calls=4, slow_s=0.001, slow_rate=0.5), 0.0
    )
    feed(breaker, "....")
    assert state_of(breaker) == "open"


def test_an_open_breaker_keeps_its_time_but_no_longer_than_the_new_longest():
    breaker, _ = opened()
    longer = BreakerRules(reset_s=100.0, jitter=0.0)
    breaker.take_rules(longer, 0.0)
    assert breaker.snapshot(0.0).retry_after_s == 10.0
    breaker.take_rules(BreakerRules(reset_s=1.0, reset_max_s=3.0, jitter=0.0), 0.0)
    assert breaker.snapshot(0.0).retry_after_s == 3.0


def test_fewer_trials_than_have_been_made_decide_at_once():
    rules = BreakerRules(window_calls=4, minimum_calls=4, trial_calls=5, jitter=0.0)
    breaker, now = opened(rules)
    breaker.succeed(permit(breaker, now), now, 0.1)
    breaker.succeed(permit(breaker, now), now, 0.1)
    breaker.take_rules(QUICK, now)
    assert state_of(breaker) == "closed"


def test_a_changed_mode_is_applied_and_an_unchanged_one_leaves_the_hand_alone():
    breaker = make()
    breaker.force_open(0.0)
    breaker.take_rules(BreakerRules(), 0.0)
    assert state_of(breaker) == "forced_open"
    breaker.take_rules(BreakerRules(mode="metrics_only"), 0.0)
    assert state_of(breaker) == "metrics_only"
    breaker.take_rules(BreakerRules(), 0.0)
    assert state_of(breaker) == "closed"
    assert make(BreakerRules(mode="disabled")).state == "disabled"


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        (BreakerRules(failure_rate=0.0), "failure_rate=0 must"),
        (BreakerRules(failure_rate=50), "failure_rate=50 must"),
        (BreakerRules(slow_rate=float("nan")), "slow_rate=nan must"),
        (BreakerRules(slow_s=0.0), "slow_s=0"),
        (BreakerRules(trial_wait_s=-1.0), "trial_wait_s=-1"),
        (BreakerRules(reset_s=0.0), "reset_s=0"),
        (BreakerRules(minimum_calls=0), "minimum_calls=0"),
        (BreakerRules(trial_calls=0), "trial_calls=0"),
        (BreakerRules(window_calls=50, window_s=10.0), "not both"),
        (BreakerRules(window_s=0.0), "window_s=0"),
        (
            BreakerRules(window_calls=10, minimum_calls=20),
            "window of 10 calls can never hold minimum_calls=20",
        ),
        (BreakerRules(minimum_calls=101), "window of 100 calls"),
        (BreakerRules(window_calls=0), "window_calls=0"),
        (BreakerRules(reset_growth=0.5), "reset_growth=0.5"),
        (BreakerRules(reset_s=60.0, reset_max_s=30.0), "reset_max_s=30 is less"),
        (BreakerRules(jitter=1.5), "jitter=1.5"),
    ],
)
def test_senseless_rules_are_refused_in_words(rules, says):
    (problem,) = rules.problems()
    assert says in problem
    with pytest.raises(ValueError, match="breaker users: "):
        make(rules)
    breaker = make()
    with pytest.raises(ValueError):
        breaker.take_rules(rules, 0.0)
    assert breaker.rules is QUICK


def test_the_defaults_have_no_problems_and_are_what_the_manual_says():
    rules = BreakerRules()
    assert rules.problems() == ()
    assert (rules.failure_rate, rules.slow_rate, rules.slow_s) == (0.5, 1.0, 60.0)
    assert (rules.calls_kept, rules.minimum_calls) == (100, 10)
    assert (rules.trial_calls, rules.trial_wait_s) == (5, 30.0)
    assert (rules.reset_s, rules.reset_growth, rules.reset_max_s) == (60.0, 2.0, 600.0)
    assert rules.jitter == 0.1


def test_what_is_at_the_edge_has_still_sense():
    assert BreakerRules(failure_rate=1.0, slow_rate=1.0, jitter=1.0).problems() == ()
    assert BreakerRules(window_calls=1, minimum_calls=1, trial_calls=1).problems() == ()
    assert BreakerRules(reset_growth=1.0, reset_s=5.0, reset_max_s=5.0).problems() == ()
    assert BreakerRules(window_s=10.0, minimum_calls=500).problems() == ()


# ---- against a naive model


class Model:
    """The rules as they are told, with lists and without a thought for speed."""

    def __init__(self, rules: BreakerRules) -> None:
        self.rules = rules
        self.generation = 0
        self.row = 0
        self.until = 0.0
        self.begin("closed")

    def begin(self, state: str) -> None:
        self.state = state
        self.generation += 1
        self.calls: list[tuple[bool, bool]] = []
        self.out: dict[int, float] = {}
        if state in ("closed", "disabled", "metrics_only"):
            self.row = 0

    def open(self, now: float) -> None:
        self.row += 1
        grown = self.rules.reset_s * self.rules.reset_growth ** (self.row - 1)
        self.until = now + min(grown, self.rules.reset_max_s)
        self.begin("open")

    def admit(self, ticket: int, now: float) -> bool:
        if self.state == "open" and now >= self.until:
            self.begin("half_open")
        if self.state == "half_open":
            if len(self.out) + len(self.calls) < self.rules.trial_calls:
                self.out[ticket] = now
                return True
            if any(now - at >= self.rules.trial_wait_s for at in self.out.values()):
                self.open(now)
            return False
        return self.state in ("closed", "disabled", "metrics_only")

    def end(self, ticket: int, generation: int, failed: bool, slow: bool, now: float) -> None:
        rules = self.rules
        if generation != self.generation:
            return
        if self.state == "half_open":
            if self.out.pop(ticket, None) is None:
                return
            self.calls.append((failed, slow))
            wanted = rules.trial_calls
            if self.reached(wanted):
                self.open(now)
            elif len(self.calls) == wanted:
                self.begin("closed")
        elif self.state in ("closed", "metrics_only"):
            self.calls = [*self.calls, (failed, slow)][-(rules.window_calls or 0) :]
            enough = len(self.calls) >= rules.minimum_calls
            if self.state == "closed" and enough and self.reached(len(self.calls)):
                self.open(now)

    def reached(self, of: int) -> bool:
        failed = sum(one[0] for one in self.calls)
        slow = sum(one[1] for one in self.calls)
        return failed / of >= self.rules.failure_rate or slow / of >= self.rules.slow_rate


HANDS = ("force_open", "force_close", "disable", "metrics_only", "automatic")
COMMANDS = st.one_of(
    st.tuples(st.just("admit"), st.just(0)),
    st.tuples(st.just("admit"), st.just(0)),
    st.tuples(st.sampled_from(["ok", "fail", "fail", "slow", "slow_fail"]), st.integers(0, 30)),
    st.tuples(st.just("oks"), st.integers(1, 8)),
    st.tuples(st.just("abandon"), st.integers(0, 30)),
    st.tuples(st.just("wait"), st.sampled_from([1, 3, 10, 40])),
    st.tuples(st.just("hand"), st.integers(0, 60)),  # few: beyond the hands it does nothing
    st.tuples(st.just("trip"), st.integers(0, 60)),
)


@settings(max_examples=400)
@given(
    commands=st.lists(COMMANDS, max_size=200),
    window=st.integers(1, 6),
    minimum=st.integers(1, 6),
    trials=st.integers(1, 4),
    rate=st.sampled_from([0.25, 0.5, 0.75, 1.0]),
)
def test_it_does_what_the_naive_model_does(commands, window, minimum, trials, rate):
    rules = BreakerRules(
        window_calls=window,
        minimum_calls=min(minimum, window),
        trial_calls=trials,
        failure_rate=rate,
        slow_rate=rate,
        slow_s=1.0,
        trial_wait_s=5.0,
        reset_s=10.0,
        reset_max_s=35.0,
        jitter=0.0,
    )
    breaker, model = make(rules), Model(rules)
    now = 0.0
    tickets: list[tuple[int, Permit, int]] = []
    for count, (what, detail) in enumerate(commands):
        if what == "wait":
            now += detail
        elif what == "admit":
            got = breaker.admit(now)
            assert isinstance(got, Permit) == model.admit(count, now)
            if isinstance(got, Permit):
                assert got.generation == model.generation
                tickets.append((count, got, model.generation))
            elif state_of(breaker) == "open":
                assert got.retry_after_s == model.until - now
            else:
                assert got.retry_after_s >= 0.0
        elif what == "oks":
            for at in range(detail):
                got = breaker.admit(now)
                assert isinstance(got, Permit) == model.admit(1000 * count + at, now)
                if isinstance(got, Permit):
                    breaker.succeed(got, now, 0.5)
                    model.end(1000 * count + at, got.generation, False, False, now)
        elif what == "hand":
            if detail < len(HANDS):
                hand = HANDS[detail]
                getattr(breaker, hand)(now)
                by_hand = model.state in ("forced_open", "disabled", "metrics_only")
                after = {"force_open": "forced_open", "disable": "disabled"}.get(hand, hand)
                if hand in ("force_close", "automatic"):
                    after = "closed"
                if hand == "force_close" or (
                    after != model.state if hand != "automatic" else by_hand
                ):
                    model.begin(after)
        elif what == "trip":
            if detail < 2:
                breaker.trip(now, 20.0, "peer")
                if model.state == "open":
                    model.until = max(model.until, now + 20.0)
                elif model.state in ("closed", "half_open"):
                    model.until = now + 20.0
                    model.row += 1
                    model.begin("open")
        elif tickets:
            ticket, held, generation = tickets[detail % len(tickets)]
            if what == "abandon":
                breaker.abandon(held, now)
                if generation == model.generation:
                    model.out.pop(ticket, None)
            else:
                slow = what.startswith("slow")
                failed = what.endswith("fail")
                took_s = 2.0 if slow else 0.5
                if failed:
                    breaker.fail(held, now, took_s)
                else:
                    breaker.succeed(held, now, took_s)
                model.end(ticket, generation, failed, slow, now)
        assert state_of(breaker) == model.state
        found = breaker.snapshot(now)
        assert found.generation == model.generation
        if model.state not in ("open", "forced_open"):  # these show the window that was
            assert found.calls == len(model.calls)
            assert found.failed == sum(one[0] for one in model.calls)
            assert found.slow == sum(one[1] for one in model.calls)
        assert found.trials_out == len(model.out)
        assert found.opens_in_a_row == model.row


@given(st.lists(st.sampled_from(["ok", "fail", "abandon", "hang"]), max_size=80))
def test_half_open_never_hangs(ends):
    """Whatever becomes of its trials: who keeps asking is let through within the longest times."""
    breaker, now = opened()
    longest = QUICK.reset_max_s + QUICK.trial_wait_s
    last = now
    for end in ends:
        got = breaker.admit(now)
        while isinstance(got, Rejected):
            assert now - last <= longest
            now += max(0.25, got.retry_after_s)
            got = breaker.admit(now)
        last = now
        if end == "ok":
            breaker.succeed(got, now, 0.0)
        elif end == "fail":
            breaker.fail(got, now)
        elif end == "abandon":
            breaker.abandon(got, now)

"""The circuit breaker: stop calling what fails, and find out with few calls when it is well again.

Theory of operation
-------------------
    closed ---- failure or slow-call rate reached ----> open
    open ------ reset time over, a call comes --------> half_open
    half_open - enough trials failed, or one is -------> open, for longer than the last time
                out for longer than trial_wait_s
    half_open - trial_calls results, rate not reached -> closed, with an empty window

    forced_open, disabled, metrics_only: by hand or by the file; left by hand only.

Every change of state begins a new generation, and a permit names the one that issued it. A result
decides only the generation of its permit: what was let through before a trip says nothing about
the trials after it. In the states that let everything through, all calls share one permit
(`ready`), so the common path allocates nothing.

The window is looked at when a result comes, good ones too: the tenth call may be a good one and
yet be the one that makes `minimum_calls`.

Half-open has `trial_calls` places. A place is taken by a trial under way or by its result, and
comes free again when the trial is abandoned (the client left, the error is an ignored one). So
there is always a trial out, a place free, or a decision made: it cannot hang. A trial that is out
for longer than `trial_wait_s` counts as the answer "still hangs". Without traffic it stays
half-open, and nothing is wrong with that. It opens as soon as the trials left can no longer turn
the result; it closes only after all of them, since closing early would let the herd in on less
evidence than was asked for.

What an editor must not break: no transition without `_move` (it begins the generation), and
`succeed` on a clean window is what a healthy service pays per call (`benchmarks/toolkit.py`).
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from headgate.policy.answers import Rejected
from headgate.policy.window import FAILED, OK, SLOW, CallWindow, TimeWindow, Window

__all__ = [
    "Breaker",
    "BreakerMode",
    "BreakerRules",
    "BreakerSnapshot",
    "BreakerState",
    "Permit",
    "Transition",
]

BreakerState = Literal["closed", "open", "half_open", "forced_open", "disabled", "metrics_only"]
BreakerMode = Literal["on", "forced_open", "disabled", "metrics_only"]
MovedBy = Literal["calls", "clock", "hand", "peer", "rules"]

_HISTORY: Final = 64
_TRIAL_HINT_S: Final = 1.0
"""When all trials are out their results are near; to wait for `trial_wait_s` would be too long."""
_ROUNDING: Final = 1e-9
"""3 of 30 are 10 %, although 0.1 * 30 is a little more than 3."""
_GROWTH_STEPS: Final = 64
"""Beyond this many opens in a row the growing reset has long met its limit (or the float its)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRules:
    failure_rate: float = 0.5
    """Share of failed calls in the window from which on the breaker opens."""
    slow_rate: float = 1.0
    """Share of slow calls from which on it opens."""
    slow_s: float = 60.0
    """A call that takes longer is slow, whether it succeeds or not."""
    window_calls: int | None = None
    """Judge by the last so many calls. Without any window given: 100."""
    window_s: float | None = None
    """Judge by the calls of the last so many seconds instead."""
    minimum_calls: int = 10
    """With fewer calls in the window nothing is decided."""
    trial_calls: int = 5
    """Calls let through half-open, and results needed to close."""
    trial_wait_s: float = 30.0
    """A trial without a result for so long opens it again."""
    reset_s: float = 60.0
    """Time it stays open before trials."""
    reset_growth: float = 2.0
    """Each time trials fail, the reset time is multiplied by this."""
    reset_max_s: float = 600.0
    jitter: float = 0.1
    """Up to this share is added to the reset time, so that not all callers try at once."""
    mode: BreakerMode = "on"
    reset_of: Callable[[int], float] | None = None
    """Computes the reset time from the number of opens in a row (1 at first); for programs."""

    @property
    def calls_kept(self) -> int | None:
        """The size of the window of calls; None when the window is one of seconds."""
        if self.window_calls is None and self.window_s is None:
            return 100
        return self.window_calls

    def problems(self) -> tuple[str, ...]:
        found: list[str] = []
        for name, share in (("failure_rate", self.failure_rate), ("slow_rate", self.slow_rate)):
            if not 0.0 < share <= 1.0:
                found.append(f"{name}={share:g} must be over 0 and at most 1 (100%)")
        for name, seconds in (
            ("slow_s", self.slow_s),
            ("trial_wait_s", self.trial_wait_s),
            ("reset_s", self.reset_s),
        ):
            if not seconds > 0.0:
                found.append(f"{name}={seconds:g} must be over 0")
        for name, count in (
            ("minimum_calls", self.minimum_calls),
            ("trial_calls", self.trial_calls),
        ):
            if count < 1:
                found.append(f"{name}={count} must be at least 1")
        if self.window_calls is not None and self.window_s is not None:
            found.append("give window_calls or window_s, not both")
        if self.window_s is not None and not self.window_s > 0.0:
            found.append(f"window_s={self.window_s:g} must be over 0")
        size = self.calls_kept
        if size is not None and size < 1:
            found.append(f"window_calls={size} must be at least 1")
        elif size is not None and size < self.minimum_calls:
            found.append(
                f"window of {size} calls can never hold minimum_calls={self.minimum_calls}: "
                "the breaker would never open"
            )
        if not self.reset_growth >= 1.0:
            found.append(f"reset_growth={self.reset_growth:g} must be at least 1")
        if not self.reset_max_s >= self.reset_s:
            found.append(f"reset_max_s={self.reset_max_s:g} is less than reset_s={self.reset_s:g}")
        if not 0.0 <= self.jitter <= 1.0:
            found.append(f"jitter={self.jitter:g} must be between 0 and 1")
        return tuple(found)


class Permit:
    """Leave for one call; ends in one of succeed, fail, abandon."""

    __slots__ = ("at", "generation")

    def __init__(self, generation: int, at: float) -> None:
        self.generation = generation
        self.at = at

    def __repr__(self) -> str:
        return f"Permit(generation={self.generation})"


@dataclass(frozen=True, slots=True)
class Transition:
    at: float
    before: BreakerState
    after: BreakerState
    why: str
    by: MovedBy
    for_s: float
    """How long it stays open; 0.0 when nothing is timed. What a peer is to be told."""


@dataclass(frozen=True, slots=True)
class BreakerSnapshot:
    name: str
    state: BreakerState
    generation: int
    calls: int
    """Calls in the window (when open: as it was then), or results of trials when half-open. So
    are the two below."""
    failed: int
    slow: int
    failure_rate: float
    """-1.0 below `minimum_calls`: nothing can be said."""
    slow_rate: float
    retry_after_s: float
    """When open: until trials. 0.0 says that the next call is let through."""
    trials_out: int
    opens_in_a_row: int
    ok_total: int
    failed_total: int
    slow_total: int
    rejected_total: int
    late_total: int
    history: tuple[Transition, ...]


class Breaker:
    """One per service or per instance, or per anything that fails by itself."""

    __slots__ = (
        "_clean",
        "_counting",
        "_generation",
        "_ok",
        "_slow_s",
        "_trials",
        "_trials_done",
        "_trials_failed",
        "_trials_slow",
        "_until",
        "_window",
        "_rng",
        "failed_total",
        "history",
        "late_total",
        "name",
        "on_change",
        "opens_in_a_row",
        "ready",
        "rejected_total",
        "rules",
        "slow_total",
        "state",
    )

    def __init__(self, name: str, rules: BreakerRules, now: float, rng: random.Random) -> None:
        _check(name, rules)
        self.name = name
        self.rules = rules
        self.state: BreakerState = "closed"
        self.ready: Permit | None = None
        """The permit all calls share; None when `admit` has to be asked."""
        self.on_change: Callable[[Transition], None] | None = None
        self.history: deque[Transition] = deque(maxlen=_HISTORY)
        self.opens_in_a_row = 0
        self.failed_total = 0
        self.slow_total = 0
        self.rejected_total = 0
        self.late_total = 0
        self._ok = 0
        self._rng = rng
        self._generation = 0
        self._until = 0.0
        self._trials: dict[Permit, None] = {}  # oldest first
        self._trials_done = 0
        self._trials_failed = 0
        self._trials_slow = 0
        self._window = _window_of(rules, now)
        self._begin("closed" if rules.mode == "on" else rules.mode, now)

    # ---- one call

    def admit(self, now: float) -> Permit | Rejected:
        ready = self.ready
        if ready is not None:
            return ready
        return self._admit_when_open(now)

    def succeed(self, permit: Permit, now: float, took_s: float) -> None:
        if permit is not self.ready:
            self._end_trial(permit, SLOW if took_s > self.rules.slow_s else OK, now)
        elif took_s > self._slow_s:
            self.slow_total += 1
            self._ok += 1
            self._record(SLOW, now)
        else:
            self._ok += 1
            if not self._clean:
                self._record(OK, now)

    def fail(self, permit: Permit, now: float, took_s: float = 0.0) -> None:
        outcome = FAILED | SLOW if took_s > self.rules.slow_s else FAILED
        if permit is not self.ready:
            self._end_trial(permit, outcome, now)
        else:
            self.failed_total += 1
            self.slow_total += outcome >> 1
            if self._counting:
                self._record(outcome, now)

    def abandon(self, permit: Permit, now: float) -> None:
        """The call ended without a say: cancelled, or failed in a way that does not count."""
        self._trials.pop(permit, None)

    # ---- by hand, by a peer, by the file

    def trip(self, now: float, for_s: float, reason: str) -> None:
        """Another worker has opened its breaker for `for_s`. What was set by hand stays."""
        until = now + for_s
        if self.state == "open":
            self._until = max(self._until, until)
        elif self.state in ("closed", "half_open"):
            self._until = until
            self.opens_in_a_row += 1
            self._move("open", now, reason, "peer")

    def force_open(self, now: float, why: str = "forced open") -> None:
        self._move("forced_open", now, why, "hand")

    def force_close(self, now: float, why: str = "forced closed") -> None:
        """Closed, with an empty window; it goes on judging."""
        self._move("closed", now, why, "hand")

    def disable(self, now: float, why: str = "disabled") -> None:
        self._move("disabled", now, why, "hand")

    def metrics_only(self, now: float, why: str = "metrics only") -> None:
        self._move("metrics_only", now, why, "hand")

    def automatic(self, now: float, why: str = "automatic") -> None:
        """End what was set by hand. A breaker that judges by itself is left as it is."""
        if self.state in ("forced_open", "disabled", "metrics_only"):
            self._move("closed", now, why, "hand")

    def take_rules(self, rules: BreakerRules, now: float) -> None:
        """Change the rules in place.

        Kept: state, generation (permits out stay good), history, trials, totals and what was set
        by hand; the calls in the window too, if it was and is one of calls (the newest of them
        when it shrinks). A window of seconds of another length, or of another kind, starts empty.
        An open breaker keeps its reset time, cut to the new longest one. A changed `mode` is
        applied and ends what was set by hand.
        """
        _check(self.name, rules)
        old, self.rules = self.rules, rules
        if rules.calls_kept != old.calls_kept or rules.window_s != old.window_s:
            window = self._window
            if isinstance(window, CallWindow) and rules.calls_kept is not None:
                self._window = window.resized(rules.calls_kept)
            else:
                self._window = _window_of(rules, now)
        self._look(self.state)
        if rules.mode != old.mode:
            after: BreakerState = "closed" if rules.mode == "on" else rules.mode
            self._move(after, now, f"mode {rules.mode}", "rules")
        elif self.state == "open":
            self._until = min(self._until, now + rules.reset_max_s * (1.0 + rules.jitter))
        elif self.state == "half_open":
            self._judge_trials(now)  # fewer trials may be wanted than have been made

    def state_at(self, now: float) -> BreakerState:
        """The state as the next call would find it. An open breaker whose time is over is moved by
        a call, and without traffic none comes; whoever looks must not be told that it is shut.
        """
        return "half_open" if self.state == "open" and now >= self._until else self.state

    def snapshot(self, now: float) -> BreakerSnapshot:
        window = self._window
        window.advance(now)
        state = self.state_at(now)
        if state == "half_open":
            calls, failed, slow = self._trials_done, self._trials_failed, self._trials_slow
        else:
            calls, failed, slow = window.calls, window.failed, window.slow
        known = calls >= (1 if state == "half_open" else self.rules.minimum_calls)
        return BreakerSnapshot(
            name=self.name,
            state=state,
            generation=self._generation,
            calls=calls,
            failed=failed,
            slow=slow,
            failure_rate=failed / calls if known else -1.0,
            slow_rate=slow / calls if known else -1.0,
            retry_after_s=self._retry_after_s(now),
            trials_out=len(self._trials),
            opens_in_a_row=self.opens_in_a_row,
            ok_total=self._ok,
            failed_total=self.failed_total,
            slow_total=self.slow_total,
            rejected_total=self.rejected_total,
            late_total=self.late_total,
            history=tuple(self.history),
        )

    # ---- how it decides

    def _record(self, outcome: int, now: float) -> None:
        window = self._window
        window.add(outcome, now)
        if window.failed or window.slow:
            self._clean = False
            calls = window.calls
            rules = self.rules
            if calls >= rules.minimum_calls and self.state == "closed":
                if window.failed >= rules.failure_rate * calls - _ROUNDING:
                    self._open(now, f"{window.failed} of {calls} calls failed", "calls")
                elif window.slow >= rules.slow_rate * calls - _ROUNDING:
                    self._open(now, f"{window.slow} of {calls} calls were slow", "calls")
        else:
            self._clean = window.is_clean

    def _admit_when_open(self, now: float) -> Permit | Rejected:
        if self.state == "open" and now >= self._until:
            self._move("half_open", now, "reset time over", "clock")
        if self.state == "half_open":
            if self._trials_done + len(self._trials) < self.rules.trial_calls:
                permit = Permit(self._generation, now)
                self._trials[permit] = None
                return permit
            # All places taken and nothing decided: so there is one out, and the oldest is first.
            if now - next(iter(self._trials)).at >= self.rules.trial_wait_s:
                self._open(now, f"no result of a trial in {self.rules.trial_wait_s:g} s", "clock")
        self.rejected_total += 1
        return Rejected("breaker", self.state, self._retry_after_s(now))

    def _end_trial(self, permit: Permit, outcome: int, now: float) -> None:
        if permit not in self._trials:
            self.late_total += 1  # of an older generation, or ended twice
            return
        del self._trials[permit]
        self._trials_done += 1
        if outcome & FAILED:
            self.failed_total += 1
            self._trials_failed += 1
        else:
            self._ok += 1
        if outcome & SLOW:
            self.slow_total += 1
            self._trials_slow += 1
        self._judge_trials(now)

    def _judge_trials(self, now: float) -> None:
        rules = self.rules
        wanted = rules.trial_calls
        if self._trials_failed >= rules.failure_rate * wanted - _ROUNDING:
            self._open(now, f"{self._trials_failed} of {wanted} trials failed", "calls")
        elif self._trials_slow >= rules.slow_rate * wanted - _ROUNDING:
            self._open(now, f"{self._trials_slow} of {wanted} trials were slow", "calls")
        elif self._trials_done >= wanted:
            self._move("closed", now, f"{wanted} trials passed", "calls")

    def _open(self, now: float, why: str, by: MovedBy) -> None:
        rules = self.rules
        self.opens_in_a_row += 1
        row = self.opens_in_a_row
        if rules.reset_of is not None:
            reset_s = max(0.0, rules.reset_of(row))
        else:
            grown = rules.reset_s * rules.reset_growth ** min(row - 1, _GROWTH_STEPS)
            reset_s = min(grown, rules.reset_max_s)
        if rules.jitter:
            reset_s *= 1.0 + rules.jitter * self._rng.random()
        self._until = now + reset_s
        self._move("open", now, why, by)

    def _move(self, after: BreakerState, now: float, why: str, by: MovedBy) -> None:
        before = self.state
        if before == after and after != "closed":
            return
        self._begin(after, now)
        for_s = self._until - now if after == "open" else 0.0
        moved = Transition(now, before, after, why, by, for_s)
        self.history.append(moved)
        if self.on_change is not None:
            self.on_change(moved)

    def _begin(self, state: BreakerState, now: float) -> None:
        """A new generation: what is under way has no say in it."""
        self.state = state
        self._generation += 1
        self._trials.clear()
        self._trials_done = self._trials_failed = self._trials_slow = 0
        if state in ("closed", "disabled", "metrics_only"):
            self.ready = Permit(self._generation, now)
            self.opens_in_a_row = 0
            self._window = _window_of(self.rules, now)
        else:
            self.ready = None
        self._look(state)

    def _look(self, state: BreakerState) -> None:
        """Set what the common path reads in place of the rules and the state."""
        self._counting = state != "disabled"
        self._slow_s = self.rules.slow_s if self._counting else math.inf
        self._clean = self._window.is_clean or not self._counting

    def _retry_after_s(self, now: float) -> float:
        if self.state == "open":
            return max(0.0, self._until - now)
        if self.state == "half_open":
            if self._trials_done + len(self._trials) < self.rules.trial_calls:
                return 0.0
            left = next(iter(self._trials)).at + self.rules.trial_wait_s - now
            return max(0.0, min(left, _TRIAL_HINT_S))
        return self.rules.reset_s if self.state == "forced_open" else 0.0


def _window_of(rules: BreakerRules, now: float) -> Window:
    if rules.window_s is not None:
        return TimeWindow(rules.window_s, now)
    return CallWindow(rules.calls_kept or 100)


def _check(name: str, rules: BreakerRules) -> None:
    if problems := rules.problems():
        raise ValueError(f"breaker {name}: " + "; ".join(problems))

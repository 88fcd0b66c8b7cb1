"""How many calls at once are good for a service, learnt from its latency.

Theory of operation. Calls are gathered in windows: a window ends when it is `window_s` old and
holds `window_samples`. Within one, a record only adds; at its end the limit moves once.

AIMD. A window is bad when at least `bad_share` of its calls were dropped (refused for overload,
timed out) or slower than `target_s`: the limit is multiplied by `backoff`. A good window adds one.

Gradient. The mean latency of the window is set against the baseline, what a call takes without a
line before it. Up to `tolerance` times the baseline is fine and the limit grows; above it shrinks
in proportion, at most to half. What it aims for is smoothed, and holds an allowance of the
square root of the limit, so that it keeps trying whether more is possible. Dropped calls cut it
as in AIMD.

The baseline. While less than half of the limit is in use there is no line, so what is measured is
the baseline and it follows, both ways. While more is in use it only follows downwards: a mean over
all windows (as other gradient limits have it) learns the latency of the overload as the normal
one and lets the limit creep up without end. But a service may have become slower for good. So
after `probe_s` worth of windows above the tolerance, the limit is halved for one window, and the
calls that began under it give the new baseline.

What an editor must not break: the limit never grows while less than half of it is in use, for
then nothing has shown that more would be borne. A bad call that began before the last cut does not
cut again; it tells of the limit before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = ["AdaptiveLimit", "AdaptiveRules", "AdaptiveSnapshot", "Outcome"]

Outcome = Literal["ok", "dropped", "ignored"]
"""Answered (well or badly); lost to overload or a timeout; says nothing, as when a client left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveRules:
    algorithm: Literal["gradient", "aimd"] = "gradient"
    start: int = 20
    least: int = 1
    most: int = 1000
    window_s: float = 0.5
    window_samples: int = 10
    tolerance: float = 1.5
    """Gradient: how many times the baseline is still fine."""
    smoothing: float = 0.2
    """Gradient: how far a window moves the limit towards what it aims for."""
    baseline_windows: int = 60
    """Gradient: over how many windows the baseline follows."""
    probe_s: float = 60.0
    """Gradient: how long above the tolerance until the baseline is measured anew."""
    target_s: float = 0.5
    """AIMD: what is slower counts as bad."""
    bad_share: float = 0.1
    """The share of bad calls that makes a window bad; with 0.1 AIMD holds the p90 at `target_s`."""
    backoff: float = 0.9
    """What a bad window multiplies the limit by."""

    def problems(self) -> tuple[str, ...]:
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        if not 1 <= self.least <= self.most:
            yield f"least={self.least} must lie between 1 and most={self.most}"
        elif not self.least <= self.start <= self.most:
            yield f"start={self.start} lies outside of least={self.least} to most={self.most}"
        elif self.least == self.most:
            yield f"least and most are both {self.most}, so the limit cannot adapt"
        if not self.window_s > 0.0:
            yield f"window_s={self.window_s:g} must be above 0"
        if self.window_samples < 1:
            yield f"window_samples={self.window_samples} must be at least 1"
        if self.tolerance < 1.0:
            yield f"tolerance={self.tolerance:g} would shrink the limit of an idle service"
        if not 0.0 < self.smoothing <= 1.0:
            yield f"smoothing={self.smoothing:g} must be above 0 and at most 1"
        if self.baseline_windows < 1:
            yield f"baseline_windows={self.baseline_windows} must be at least 1"
        if self.probe_s < self.window_s:
            yield f"probe_s={self.probe_s:g} is shorter than window_s={self.window_s:g}"
        if not self.target_s > 0.0:
            yield f"target_s={self.target_s:g} must be above 0"
        if not 0.0 < self.bad_share <= 1.0:
            yield f"bad_share={self.bad_share:g} must be above 0 and at most 1"
        if not 0.0 < self.backoff < 1.0:
            yield f"backoff={self.backoff:g} must lie between 0 and 1"


@dataclass(frozen=True, slots=True)
class AdaptiveSnapshot:
    algorithm: str
    limit: int
    baseline_s: float | None
    latency_s: float | None
    """The mean of the last window."""
    is_probing: bool
    cuts: int


class AdaptiveLimit:
    __slots__ = (
        "_aim",
        "_bad",
        "_baseline_s",
        "_cut_at",
        "_cuts",
        "_is_probing",
        "_latency_s",
        "_ok",
        "_peak",
        "_probe_until",
        "_rules",
        "_saturated",
        "_slow_s",
        "_sum_s",
        "_window_end",
        "limit",
    )

    def __init__(self, rules: AdaptiveRules, now: float) -> None:
        self._rules = _sound(rules)
        self.limit = rules.start
        """The limit in force."""
        self._aim = float(rules.start)
        self._slow_s = rules.target_s if rules.algorithm == "aimd" else math.inf
        self._baseline_s: float | None = None
        self._latency_s: float | None = None
        self._cut_at = -math.inf
        self._cuts = 0
        self._saturated = 0
        self._is_probing = False
        """The limit is halved to measure the baseline."""
        self._probe_until = 0.0
        self._peak = 0
        self._begin(now)

    def record(self, took_s: float, in_flight: int, outcome: Outcome, now: float) -> int | None:
        """Count a call that has ended; the new limit where that has moved it.

        `took_s` is without the wait for the seat, `in_flight` what was under way when it began,
        itself included.
        """
        if outcome == "ignored":
            return None
        if self._is_probing:
            if now >= self._probe_until:
                return self._stop_probe(now)
            if in_flight > self.limit:
                return None  # began before the probe
        if outcome == "dropped" or took_s > self._slow_s:
            if now - took_s < self._cut_at:
                return None
            self._bad += 1
        else:
            self._ok += 1
            self._sum_s += took_s
        if in_flight > self._peak:  # noqa: PLR1730 - max() takes several times as long
            self._peak = in_flight
        if now < self._window_end or self._ok + self._bad < self._rules.window_samples:
            return None
        return self._decide(now)

    def take_rules(self, rules: AdaptiveRules, now: float) -> int | None:
        """The limit and the baseline learnt so far are kept, within the new bounds.

        Another algorithm starts from the limit of the former. The open window begins anew.
        """
        _sound(rules)
        self._rules = rules
        self._slow_s = rules.target_s if rules.algorithm == "aimd" else math.inf
        self._is_probing = False
        self._begin(now)
        return self._move(self._aim)

    def snapshot(self, now: float) -> AdaptiveSnapshot:
        return AdaptiveSnapshot(
            self._rules.algorithm,
            self.limit,
            self._baseline_s,
            self._latency_s,
            self._is_probing,
            self._cuts,
        )

    def _begin(self, now: float) -> None:
        self._window_end = now + self._rules.window_s
        self._ok = 0
        self._bad = 0
        self._sum_s = 0.0
        self._peak = 0

    def _decide(self, now: float) -> int | None:
        rules = self._rules
        ok, bad, peak = self._ok, self._bad, self._peak
        latency_s = self._sum_s / ok if ok else None
        self._latency_s = latency_s
        self._begin(now)
        if bad and bad >= rules.bad_share * (ok + bad):
            self._cut_at = now
            self._cuts += 1
            self._is_probing = False
            return self._move(self._aim * rules.backoff)
        if self._is_probing:
            self._baseline_s = latency_s
            return self._stop_probe(now)
        is_used = peak * 2 >= self.limit
        if rules.algorithm == "aimd":
            return self._move(self._aim + 1.0) if is_used else None
        if latency_s is None:
            return None
        return self._follow(latency_s, is_used, now)

    def _follow(self, latency_s: float, is_used: bool, now: float) -> int | None:
        """The gradient: move the limit by one window's latency, and the baseline with it."""
        rules = self._rules
        baseline_s = self._baseline_s
        if baseline_s is None:
            baseline_s = self._baseline_s = latency_s
        elif not is_used or latency_s < baseline_s:
            self._baseline_s = baseline_s + (latency_s - baseline_s) * 2 / (
                rules.baseline_windows + 1
            )
        if not is_used:
            return None
        gradient = 1.0
        if latency_s > rules.tolerance * baseline_s:
            gradient = max(0.5, rules.tolerance * baseline_s / latency_s)
            self._saturated += 1
            if self._saturated * rules.window_s >= rules.probe_s and self.limit > rules.least:
                self._saturated = 0
                self._is_probing = True
                self._probe_until = now + 10 * rules.window_s
                return self._set(max(rules.least, self.limit // 2))
        aim = self._aim * gradient + math.sqrt(self._aim)
        return self._move(self._aim + (aim - self._aim) * rules.smoothing)

    def _stop_probe(self, now: float) -> int | None:
        """Go back to the limit from before the probe, whether it has measured anything or not."""
        self._is_probing = False
        self._begin(now)
        return self._move(self._aim)

    def _move(self, aim: float) -> int | None:
        rules = self._rules
        self._aim = min(float(rules.most), max(float(rules.least), aim))
        return self._set(int(self._aim))

    def _set(self, limit: int) -> int | None:
        if limit == self.limit:
            return None
        self.limit = limit
        return limit


def _sound(rules: AdaptiveRules) -> AdaptiveRules:
    if problems := rules.problems():
        raise ValueError("; ".join(problems))
    return rules

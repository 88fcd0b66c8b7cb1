"""What a check found, and what many of them come to.

Theory of operation
-------------------
A check ends in one of three ways:

    ok         it does what it is there for
    degraded   it works, and somebody should look: slow, nearly full, about to end
    failing    it does not work

`unknown` is none of these: nobody has looked yet, or what was seen at the start does not count yet.

Of the whole: a critical check that fails, fails it; any other failure, and whatever is degraded,
degrades it. What is unknown and critical is `unknown` for the whole, unless something is worse.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

__all__ = [
    "LONGEST_WHY",
    "RANK",
    "Bounds",
    "Degraded",
    "Failing",
    "Outcome",
    "Result",
    "Status",
    "degraded",
    "failing",
    "ok",
    "outcome_of",
    "overall",
    "said",
    "worst",
]

Status = Literal["ok", "unknown", "degraded", "failing"]

RANK: Final[dict[Status, int]] = {"ok": 0, "unknown": 1, "degraded": 2, "failing": 3}
LONGEST_WHY: Final = 300
"""A reason goes to logs and probes; a driver's error may be a page long."""


class Degraded(Exception):
    """Raise it in a check: it works, but somebody should look."""


class Failing(Exception):
    """Raise it in a check: it does not work. Any other exception says so as well, with its kind."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run of a check found."""

    status: Status
    why: str = ""
    """In a few words; empty where all is well and there is nothing to add."""
    value: float | None = None
    """What was measured, if anything was."""
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What is known of a check."""

    name: str
    status: Status
    why: str
    critical: bool
    value: float | None = None
    unit: str = ""
    at: float | None = None
    """Wall time of the last run."""
    took_s: float = 0.0
    since: float | None = None
    """Wall time since when it is in this state."""
    runs: int = 0
    failures: int = 0


def ok(why: str = "", value: float | None = None, unit: str = "") -> Outcome:
    return Outcome("ok", said(why), value, unit)


def degraded(why: str, value: float | None = None, unit: str = "") -> Outcome:
    return Outcome("degraded", said(why), value, unit)


def failing(why: str, value: float | None = None, unit: str = "") -> Outcome:
    return Outcome("failing", said(why), value, unit)


def said(text: object) -> str:
    """A reason as one line of bounded length, without control characters."""
    words = " ".join(str(text)[: 4 * LONGEST_WHY].split())
    line = "".join(each if each.isprintable() else "?" for each in words)
    return line if len(line) <= LONGEST_WHY else f"{line[: LONGEST_WHY - 3]}..."


def outcome_of(answer: object) -> Outcome:
    """What the answer of a check's function means."""
    if isinstance(answer, Outcome):
        return answer
    if answer is None or answer is True:
        return Outcome("ok")
    if answer is False:
        return Outcome("failing", "it answered False")
    return Outcome(
        "failing",
        f"a check answers None, a bool or an Outcome; this one gave {type(answer).__name__}",
    )


@dataclass(frozen=True, slots=True)
class Bounds:
    """From where on a figure is degraded, and from where on it fails. None is no bound."""

    warn: float | None = None
    fail: float | None = None
    below: bool = False
    """Small figures are the bad ones."""

    def __post_init__(self) -> None:
        if self.warn is None or self.fail is None:
            return
        if (self.warn < self.fail) if self.below else (self.warn > self.fail):
            order = "above" if self.below else "below"
            raise ValueError(
                f"the bound for degraded ({self.warn:g}) must be {order} that for failing "
                f"({self.fail:g})"
            )

    def judge(self, value: float) -> Status:
        if math.isnan(value):  # not a number: whoever measured it did not
            return "failing"
        if self.fail is not None and self._is_past(value, self.fail):
            return "failing"
        if self.warn is not None and self._is_past(value, self.warn):
            return "degraded"
        return "ok"

    def _is_past(self, value: float, bound: float) -> bool:
        return value <= bound if self.below else value >= bound


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The worst of several findings of one check; reasons of all that are as bad, in order."""
    found = list(outcomes)
    if not found:
        return Outcome("ok")
    top = max(RANK[one.status] for one in found)
    bad = [one for one in found if RANK[one.status] == top]
    measured = next((one for one in (*bad, *found) if one.value is not None), Outcome("ok"))
    why = "; ".join(one.why for one in bad if one.why)
    return Outcome(bad[0].status, said(why), measured.value, measured.unit)


def overall(results: Iterable[Result]) -> tuple[Status, list[str]]:
    """One status for all, and why it is not ok: the worst first."""
    status: Status = "ok"
    reasons: list[tuple[int, str]] = []
    for one in results:
        means = one.status
        if not one.critical:
            means = {"failing": "degraded", "unknown": "ok"}.get(means, means)  # type: ignore[assignment]
        if RANK[means] > RANK[status]:
            status = means
        if means != "ok":
            word = "not checked yet" if one.status == "unknown" else one.status
            reasons.append((-RANK[means], f"{one.name}: {one.why or word}"))
    return status, [why for _, why in sorted(reasons, key=lambda each: each[0])]

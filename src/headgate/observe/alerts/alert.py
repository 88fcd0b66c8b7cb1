"""An alert as everybody outside the judge sees it: a value that does not change."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from headgate.observe.alerts.rules import Level

__all__ = ["Alert", "Labels", "State", "fingerprint", "sorted_labels"]

Labels = tuple[tuple[str, str], ...]
"""Sorted by name."""
State = Literal["pending", "firing", "resolved"]


def sorted_labels(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted(labels.items()))


def fingerprint(labels: Labels) -> str:
    """The same for the same labels, in every process and after every restart."""
    text = "\x00".join(f"{name}\x01{value}" for name, value in labels)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Alert:
    """One label set of one rule."""

    id: str
    """Of the rule and its labels, not of the level: an alert that gets worse stays the same."""
    rule: str
    labels: Labels
    """Without `severity`, which `matched` adds."""
    level: Level
    state: State
    value: float
    since: float
    """When it first held, in seconds since 1970."""
    fired_at: float | None = None
    resolved_at: float | None = None
    is_flapping: bool = False
    summary: str = ""
    description: str = ""
    runbook: str = ""

    @property
    def matched(self) -> dict[str, str]:
        """The labels that routes, silences and inhibitions look at."""
        return {**dict(self.labels), "severity": self.level}

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "rule": self.rule,
            "labels": dict(self.labels),
            "level": self.level,
            "state": self.state,
            "value": finite(self.value),
            "since": self.since,
            "fired_at": self.fired_at,
            "resolved_at": self.resolved_at,
            "flapping": self.is_flapping,
            "summary": self.summary,
            "description": self.description,
            "runbook": self.runbook,
        }

    @classmethod
    def of_json(cls, said: Mapping[str, Any]) -> Alert:
        return cls(
            id=str(said["id"]),
            rule=str(said["rule"]),
            labels=sorted_labels({str(k): str(v) for k, v in said["labels"].items()}),
            level=cast("Level", said["level"]),
            state=cast("State", said["state"]),
            value=float("nan") if said["value"] is None else float(said["value"]),
            since=float(said["since"]),
            fired_at=said["fired_at"],
            resolved_at=said["resolved_at"],
            is_flapping=bool(said["flapping"]),
            summary=str(said["summary"]),
            description=str(said["description"]),
            runbook=str(said.get("runbook", "")),
        )


def finite(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None

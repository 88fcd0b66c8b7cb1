"""The counts of all processes as one.

Theory of operation. A snapshot is cumulative since the start of its process. Merging adds samples
with the same labels up, family by family. `Merged.total` of a living set of processes falls when
one of them dies and its successor begins at zero; `Carried` prevents that: it remembers the newest
snapshot of each process and, when the same process reports a new start (or is said to have ended),
folds the counters and histograms of the old life into a carried sum. Gauges say what is now, so
they die with their process.

A process of another version, as there are while one is replaced, may tell families that we do not
know, or rows of another shape. Those are left out, and which families had some is told: the others
stay right, and whoever asks gets an answer.

Bounds. A family holds at most its number of label sets, and which sets those are must not change
from one merge to the next, or counters would seem to fall: the first to come keep their place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from headgate.observe import histogram
from headgate.observe.metrics import METRICS, OTHER, Metric
from headgate.observe.shard import DEFAULT_MAX_SETS

Labels = tuple[str, ...]
Exemplar = tuple[str, float, float]
"""A trace id, the value that was counted, and the wall time."""

# The pairs of method and code belong to a route that is itself bounded.
_WIDER = {"headgate_http_requests_total": 10}
_PLACES = len(histogram.BOUNDS) + 1
_MISSHAPEN = (ValueError, TypeError, LookupError, AttributeError)
LEFT_OUT = "headgate_metrics_left_out"


@dataclass(slots=True)
class Histogram:
    """Counts as in `histogram`, and the sum of the values."""

    counts: list[int]
    sum: float = 0.0
    exemplars: dict[int, Exemplar] = field(default_factory=dict)
    """The newest of each bucket, by its place among `histogram.SHOWN_BOUNDS`."""


@dataclass(slots=True)
class Merged:
    """Samples by family and labels."""

    numbers: dict[str, dict[Labels, float]] = field(default_factory=dict)
    """Counters and gauges."""
    histograms: dict[str, dict[Labels, Histogram]] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    """Families with rows that could not be added up."""
    lives: frozenset[tuple[str, str]] = frozenset()
    """Whose newest counts are in it: processes with their starts."""

    def total(self, name: str, **labels: str) -> float:
        """Add the samples of a counter or gauge up, of those with the given labels."""
        wanted = [(METRICS[name].labels.index(key), value) for key, value in labels.items()]
        return sum(
            value
            for have, value in self.numbers.get(name, {}).items()
            if all(have[at] == value_wanted for at, value_wanted in wanted)
        )


class _Places:
    """Which label sets a family shows: the first to come, then `other`."""

    def __init__(self, max_sets: int) -> None:
        self._max = max_sets
        self._taken: dict[str, set[Labels]] = {}

    def place(self, metric: Metric, labels: Labels) -> Labels:
        taken = self._taken.setdefault(metric.name, set())
        if labels in taken:
            return labels
        if len(taken) >= self._max * _WIDER.get(metric.name, 1):
            return (OTHER,) * len(labels)
        taken.add(labels)
        return labels

    def forget(self, merged: Merged) -> None:
        """Give back the places of sets that are in no family of `merged`."""
        for name, taken in self._taken.items():
            taken.intersection_update(
                (*merged.numbers.get(name, ()), *merged.histograms.get(name, ()))
            )


def merge(snapshots: Iterable[Mapping[str, Any]], *, max_sets: int = DEFAULT_MAX_SETS) -> Merged:
    """Add snapshots up. A family without a row in the metric table is left out, and told."""
    merged, places = Merged(), _Places(max_sets)
    for snapshot in snapshots:
        _add(merged, snapshot["rows"], places)
    return merged


class Carried:
    """Totals that outlive the workers that counted them."""

    def __init__(self, *, max_sets: int = DEFAULT_MAX_SETS) -> None:
        self._places = _Places(max_sets)
        self._ended = Merged()
        self._newest: dict[str, Mapping[str, Any]] = {}

    def take(self, snapshot: Mapping[str, Any]) -> None:
        """Note the newest snapshot of a process."""
        process = snapshot["process"]
        before = self._newest.get(process)
        if before is not None and before["start"] != snapshot["start"]:
            self.end(process)
        self._newest[process] = snapshot

    def end(self, process: str) -> None:
        """The process has ended: keep what it counted, forget what it was in the middle of."""
        snapshot = self._newest.pop(process, None)
        if snapshot is not None:
            rows = {
                name: family
                for name, family in snapshot["rows"].items()
                if name not in METRICS or METRICS[name].kind != "gauge"
            }
            _add(self._ended, rows, self._places)

    def merged(self) -> Merged:
        """Everything counted, by the living and the dead."""
        merged = Merged(
            {name: dict(family) for name, family in self._ended.numbers.items()},
            {
                name: {
                    k: Histogram(h.counts.copy(), h.sum, h.exemplars.copy())
                    for k, h in family.items()
                }
                for name, family in self._ended.histograms.items()
            },
        )
        merged.left_out = set(self._ended.left_out)
        for snapshot in self._newest.values():
            _add(merged, snapshot["rows"], self._places)
        self._places.forget(merged)
        merged.lives = frozenset((name, str(one["start"])) for name, one in self._newest.items())
        merged.numbers[LEFT_OUT] = {(): len(merged.left_out)}
        return merged


def _add(merged: Merged, rows: Mapping[str, Any], places: _Places) -> None:
    for name, family_rows in rows.items():
        metric = METRICS.get(name)
        if metric is None:
            merged.left_out.add(name)
        elif metric.kind == "histogram":
            family = merged.histograms.setdefault(name, {})
            if not _add_histograms(family, metric, family_rows, places):
                merged.left_out.add(name)
        else:
            numbers = merged.numbers.setdefault(name, {})
            if not _add_numbers(numbers, metric, family_rows, places):
                merged.left_out.add(name)


def _add_numbers(family: dict[Labels, float], metric: Metric, rows: Any, places: _Places) -> bool:
    """Whether all could be added."""
    is_whole = True
    width, keep_larger = len(metric.labels), metric.merge == "max"
    for row in rows:
        try:
            labels, value = row
            value = 0 + value  # of anything but a number that is an error
            if len(labels) != width:
                is_whole = False
                continue
            key = places.place(metric, tuple(labels))
        except _MISSHAPEN:
            is_whole = False
            continue
        have = family.get(key)
        if have is None:
            family[key] = value
        else:
            family[key] = max(have, value) if keep_larger else have + value
    return is_whole


def _add_histograms(
    family: dict[Labels, Histogram], metric: Metric, rows: Any, places: _Places
) -> bool:
    is_whole = True
    width = len(metric.labels)
    for row in rows:
        try:
            labels, value = row
            counts, total = value["counts"], 0.0 + value["sum"]
            if len(labels) != width or len(counts) != _PLACES:
                is_whole = False
                continue
            key = places.place(metric, tuple(labels))
            have = family.get(key)
            if have is None:
                have = family[key] = Histogram(list(counts), total)
            else:
                histogram.add(have.counts, counts)
                have.sum += total
            for at, trace_id, seconds, wall in value.get("exemplars", ()):
                known = have.exemplars.get(at)
                if known is None or known[2] < wall:
                    have.exemplars[at] = (trace_id, seconds, wall)
        except _MISSHAPEN:
            is_whole = False
    return is_whole

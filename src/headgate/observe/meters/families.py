"""Metrics as values: what a registry answers, what processes tell each other, what is shown.

A family has a name, a kind and samples by the values of its labels: numbers, or sketches for
histograms and summaries. `samples` are those of somebody else's metrics, taken as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from headgate.observe.meters.exemplars import Exemplar
from headgate.observe.meters.sketch import Sketch

__all__ = ["Collect", "Family", "Kind", "Labels", "Merge", "Sample", "merge"]

Kind: TypeAlias = Literal[
    "counter", "gauge", "histogram", "summary", "unknown", "info", "stateset", "gaugehistogram"
]
Merge: TypeAlias = Literal["sum", "max", "min", "each"]
"""How gauges of several processes become one; `each` shows all, by the label `pid`."""
Labels: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample that is shown as it is; its name has the suffix already."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float
    exemplar: Exemplar | None = None


@dataclass(slots=True)
class Family:
    name: str
    """As shown in the text format; that of a counter ends with `_total`."""
    kind: Kind
    help: str = ""
    labels: tuple[str, ...] = ()
    unit: str = ""
    merge: Merge = "sum"
    bounds: tuple[float, ...] = ()
    quantiles: tuple[float, ...] = ()
    numbers: dict[Labels, float] = field(default_factory=dict)
    sketches: dict[Labels, Sketch] = field(default_factory=dict)
    buckets: dict[Labels, tuple[Sequence[int], float]] = field(default_factory=dict)
    """Of a histogram with fixed `bounds`: how many values in each, and beyond; and their sum."""
    totals: dict[Labels, tuple[int, float]] = field(default_factory=dict)
    """Of a summary: how many values there ever were, and their sum; its sketch forgets."""
    exemplars: dict[Labels, tuple[Exemplar, ...]] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.numbers or self.sketches or self.samples or self.buckets)

    def alike(self, other: Family) -> bool:
        """Whether the two may be added up."""
        return (self.kind, self.labels, self.merge) == (other.kind, other.labels, other.merge)


Collect: TypeAlias = Callable[[], Iterable[Family]]
"""Answers families when asked; for figures that are kept elsewhere."""


def merge(whole: dict[str, Family], found: Iterable[Family], *, is_over: bool = False) -> int:
    """Add the families of one process to those of all; the answer is how many did not fit.

    `is_over` says that the process has ended: its gauges and windows ended with it. A family that
    two processes define differently (during a roll-out, say) is shown as the first one has it.
    """
    misfits = 0
    for family in found:
        if is_over and family.kind not in ("counter", "histogram", "summary"):
            continue
        have = whole.get(family.name)
        if have is None:
            have = whole[family.name] = Family(
                family.name,
                family.kind,
                family.help,
                family.labels,
                family.unit,
                family.merge,
                family.bounds,
                family.quantiles,
            )
        elif not have.alike(family):
            misfits += 1
            continue
        _add_numbers(have, family)
        _add_sketches(have, family, is_over=is_over)
        for labels, total in family.totals.items():
            count, added = have.totals.get(labels, (0, 0.0))
            have.totals[labels] = (count + total[0], added + total[1])
        for labels, seen in family.exemplars.items():
            have.exemplars[labels] = (*have.exemplars.get(labels, ()), *seen)
        if family.samples:
            have.samples = _added(have, family.samples)
    return misfits


def _added(have: Family, samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """Foreign samples of the same name and labels are one; figures add up, facts stay."""
    found = {(one.name, one.labels): one for one in have.samples}
    is_fact = have.kind in ("info", "stateset", "unknown")
    for one in samples:
        there = found.get((one.name, one.labels))
        if there is None:
            found[one.name, one.labels] = one
        elif not is_fact:
            added = Sample(one.name, one.labels, there.value + one.value, one.exemplar)
            found[one.name, one.labels] = added
    return tuple(found.values())


def _add_numbers(have: Family, family: Family) -> None:
    numbers = have.numbers
    if not numbers:
        numbers.update(family.numbers)
    elif have.kind == "gauge" and have.merge in ("max", "min"):
        pick = max if have.merge == "max" else min
        for labels, value in family.numbers.items():
            numbers[labels] = pick(numbers.get(labels, value), value)
    else:
        get = numbers.get
        for labels, value in family.numbers.items():
            numbers[labels] = get(labels, 0) + value


def _add_sketches(have: Family, family: Family, *, is_over: bool) -> None:
    for labels, sketch in family.sketches.items():
        mine = have.sketches.get(labels)
        if is_over and family.kind == "summary":
            # Its window is closed; the total remains, and the place of the series.
            have.sketches.setdefault(labels, Sketch())
        elif mine is None:
            have.sketches[labels] = sketch.copy()
        else:
            mine.add(sketch)

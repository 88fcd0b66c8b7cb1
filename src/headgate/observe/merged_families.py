"""The gateway's own figures, merged, in the form in which services' figures are handed on."""

from __future__ import annotations

from itertools import pairwise

from headgate.observe import histogram
from headgate.observe.merge import Histogram, Merged
from headgate.observe.meters.exemplars import Exemplar
from headgate.observe.meters.families import Family
from headgate.observe.metrics import METRICS

__all__ = ["families_of"]


def families_of(merged: Merged) -> list[Family]:
    """Every family that has samples, in the order of the metric table."""
    found = []
    for metric in METRICS.values():
        family = Family(metric.name, metric.kind, metric.help, metric.labels)
        family.numbers = merged.numbers.get(metric.name) or {}
        if counted := merged.histograms.get(metric.name):
            family.bounds = histogram.SHOWN_BOUNDS
            family.buckets = {labels: (_each(one), one.sum) for labels, one in counted.items()}
            family.exemplars = {
                labels: tuple(Exemplar(value, trace, at) for trace, value, at in shown)
                for labels, one in counted.items()
                if (shown := one.exemplars.values())
            }
        if not family.is_empty:
            found.append(family)
    return found


def _each(counted: Histogram) -> list[int]:
    """How many values in each bucket; the exposition's are running totals."""
    running = histogram.cumulative(counted.counts)
    return [running[0], *(after - before for before, after in pairwise(running))]

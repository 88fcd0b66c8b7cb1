"""Merged figures as the families of samples that `/metrics` shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from headgate.observe import histogram
from headgate.observe.histogram import SHOWN_BOUNDS
from headgate.observe.history.rules import Family
from headgate.observe.merge import Merged
from headgate.observe.metrics import METRICS

__all__ = ["families_of", "of_text"]

_LE: Final = (*((f"{bound:g}",) for bound in SHOWN_BOUNDS), ("+Inf",))


def families_of(merged: Merged) -> Iterator[Family]:
    """Histograms come as `_bucket`, `_sum` and `_count`."""
    for name, numbers in merged.numbers.items():
        metric = METRICS[name]
        kind = "counter" if metric.kind == "counter" else "gauge"
        if numbers:
            is_counter = kind == "counter"
            yield Family(name, kind, metric.labels, numbers, is_counter)  # type: ignore[arg-type]
    for name, histograms in merged.histograms.items():
        labels = METRICS[name].labels
        buckets: dict[tuple[str, ...], float] = {}
        sums: dict[tuple[str, ...], float] = {}
        counts: dict[tuple[str, ...], float] = {}
        for key, counted in histograms.items():
            running = histogram.cumulative(counted.counts)
            for le, count in zip(_LE, running, strict=True):
                buckets[key + le] = count
            sums[key] = counted.sum
            counts[key] = running[-1]
        if sums:
            yield Family(f"{name}_bucket", "counter", (*labels, "le"), buckets, from_zero=True)
            yield Family(f"{name}_sum", "counter", labels, sums, from_zero=True)
            yield Family(f"{name}_count", "counter", labels, counts, from_zero=True)


_LINE: Final = re.compile(
    r"([a-zA-Z_:][a-zA-Z0-9_:]*)"
    r'(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?'
    r"[ \t]+(\S+)(?:[ \t]+-?[0-9.]+)?(?:[ \t]+#.*)?"
)
_LABEL: Final = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')
_ESCAPE: Final = re.compile(r"\\(.)")
_LONGEST: Final = 1024


def of_text(text: str, more: dict[str, str], most: int) -> tuple[list[Family], int]:
    """What a service shows as Prometheus text or OpenMetrics, with `more` labels of ours, and how
    many samples were left out because they are too many or cannot be read.
    """
    kinds: dict[str, str] = {}
    found: dict[tuple[str, tuple[str, ...]], dict[tuple[str, ...], float]] = {}
    taken = left_out = 0
    for line in text.splitlines():
        if not line or line.startswith("#"):
            words = line.split(None, 3)
            if len(words) == 4 and words[1] == "TYPE":
                kinds[words[2]] = words[3].strip()
            continue
        match = _LINE.fullmatch(line.strip())
        labels = _labels(match[2] or "") if match else None
        try:
            value = float(match[3]) if match else None
        except ValueError:
            value = None
        if match is None or labels is None or value is None or taken >= most:
            left_out += 1
            continue
        labels |= more
        names = tuple(sorted(name for name in labels if name != "__name__"))
        samples = found.setdefault((match[1], names), {})
        samples[tuple(labels[name] for name in names)] = value
        taken += 1
    made = []
    for (name, names), samples in found.items():
        is_counter = kinds.get(name) == "counter" or name.endswith(
            ("_total", "_bucket", "_sum", "_count")
        )
        made.append(Family(name, "counter" if is_counter else "gauge", names, samples))
    return made, left_out


def _labels(text: str) -> dict[str, str] | None:
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _LABEL.match(text, at)
        if match is None:
            return None
        value = _ESCAPE.sub(lambda one: "\n" if one[1] == "n" else one[1], match[2])
        if len(value) > _LONGEST:
            return None
        found[match[1]] = value
        at = match.end()
    return found

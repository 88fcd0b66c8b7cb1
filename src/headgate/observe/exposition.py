"""Merged samples as text in the Prometheus format, version 0.0.4."""

from __future__ import annotations

from headgate.observe import histogram
from headgate.observe.histogram import SHOWN_BOUNDS
from headgate.observe.merge import Histogram, Labels, Merged
from headgate.observe.metrics import METRICS, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LE = (*(f"{bound:g}" for bound in SHOWN_BOUNDS), "+Inf")
_VALUE_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
_HELP_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n"})


def to_prometheus(merged: Merged) -> str:
    """Render every family that has samples, in the order of the metric table."""
    lines: list[str] = []
    for metric in METRICS.values():
        numbers = merged.numbers.get(metric.name)
        histograms = merged.histograms.get(metric.name)
        if not (numbers or histograms):
            continue
        lines.append(f"# HELP {metric.name} {metric.help.translate(_HELP_ESCAPES)}")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        if numbers:
            for labels, value in sorted(numbers.items()):
                lines.append(f"{metric.name}{_braced(_pairs(metric, labels))} {_number(value)}")
        if histograms:
            for labels, counted in sorted(histograms.items(), key=lambda item: item[0]):
                _histogram_lines(lines, metric, labels, counted)
    return "\n".join(lines) + "\n" if lines else ""


def _histogram_lines(lines: list[str], metric: Metric, labels: Labels, counted: Histogram) -> None:
    name, pairs = metric.name, _pairs(metric, labels)
    lead = f"{name}_bucket{{{pairs}," if pairs else f"{name}_bucket{{"
    running = histogram.cumulative(counted.counts)
    lines += [f'{lead}le="{le}"}} {n}' for le, n in zip(_LE, running, strict=True)]
    lines.append(f"{name}_sum{_braced(pairs)} {_number(counted.sum)}")
    lines.append(f"{name}_count{_braced(pairs)} {running[-1]}")


def _pairs(metric: Metric, labels: Labels) -> str:
    return ",".join(
        f'{name}="{value.translate(_VALUE_ESCAPES)}"'
        for name, value in zip(metric.labels, labels, strict=True)
    )


def _braced(pairs: str) -> str:
    return f"{{{pairs}}}" if pairs else ""


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.9g}"

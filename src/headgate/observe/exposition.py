"""Merged samples as text: the Prometheus format 0.0.4, or OpenMetrics 1.0 for those who ask.

Theory of operation. A scraper names the formats it reads in `Accept`. OpenMetrics is answered only
to those who name it, and not below the text format; everybody else, a person with curl included,
gets the text format. The two differ in the name of a counter in its head (without `_total`), in
bounds, which are always floats, and in the line that ends it.

A scrape of 10,000 series renders in some 15 ms, because nothing is escaped that needs no escape and
the names of labels are joined once a family.
"""

from __future__ import annotations

from typing import Final

from headgate.observe import histogram
from headgate.observe.histogram import SHOWN_BOUNDS
from headgate.observe.merge import Exemplar, Histogram, Labels, Merged
from headgate.observe.metrics import METRICS, Metric

__all__ = [
    "CONTENT_TYPE",
    "OPENMETRICS_TYPE",
    "to_accepted",
    "to_openmetrics",
    "to_prometheus",
    "wants_openmetrics",
]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_LE = (*(f"{bound:g}" for bound in SHOWN_BOUNDS), "+Inf")
_LE_OPEN = (*(f"{bound:g}" if bound % 1.0 else f"{bound:.1f}" for bound in SHOWN_BOUNDS), "+Inf")
_VALUE_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
_HELP_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n"})
_ACCEPT_MAX: Final = 2000


def wants_openmetrics(accept: str) -> bool:
    """Whether an `Accept` header prefers OpenMetrics to the text format."""
    asked = text = 0.0
    for offer in accept[:_ACCEPT_MAX].split(","):
        media, *parameters = (part.strip().lower() for part in offer.split(";"))
        weight, version = 1.0, ""
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                weight = _weight(value)
            elif name.strip() == "version":
                version = value.strip(' "')
        if media == "application/openmetrics-text" and version in ("", "1.0.0", "0.0.1"):
            asked = max(asked, weight)
        elif media in ("text/plain", "text/*") and version in ("", "0.0.4"):
            text = max(text, weight)
    return asked > 0.0 and asked >= text


def _weight(value: str) -> float:
    try:
        weight = float(value)
    except ValueError:
        return 0.0
    return weight if 0.0 <= weight <= 1.0 else 0.0


def to_accepted(merged: Merged, accept: str = "") -> tuple[str, str]:
    """The text in the format that the scraper prefers, and its content type."""
    if wants_openmetrics(accept):
        return to_openmetrics(merged), OPENMETRICS_TYPE
    return to_prometheus(merged), CONTENT_TYPE


def to_prometheus(merged: Merged) -> str:
    """Render every family that has samples, in the order of the metric table."""
    lines: list[str] = []
    for metric in METRICS.values():
        if _is_empty(merged, metric):
            continue
        lines.append(f"# HELP {metric.name} {metric.help.translate(_HELP_ESCAPES)}")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        _samples(lines, merged, metric, metric.name, _LE)
    return "\n".join(lines) + "\n" if lines else ""


def to_openmetrics(merged: Merged) -> str:
    """Render every family that has samples, and the end."""
    lines: list[str] = []
    for metric in METRICS.values():
        if _is_empty(merged, metric):
            continue
        name, sample = metric.name, metric.name
        if metric.kind == "counter":
            name = name.removesuffix("_total")
            sample = f"{name}_total"
        lines.append(f"# TYPE {name} {metric.kind}")
        lines.append(f"# HELP {name} {metric.help.translate(_VALUE_ESCAPES)}")
        _samples(lines, merged, metric, sample, _LE_OPEN)
    lines.append("# EOF\n")
    return "\n".join(lines)


def _is_empty(merged: Merged, metric: Metric) -> bool:
    return not (merged.numbers.get(metric.name) or merged.histograms.get(metric.name))


def _samples(
    lines: list[str], merged: Merged, metric: Metric, name: str, les: tuple[str, ...]
) -> None:
    heads = tuple(f'{label}="' for label in metric.labels)
    numbers = merged.numbers.get(metric.name)
    if numbers:
        for labels in sorted(numbers):
            value = numbers[labels]
            shown = str(value) if isinstance(value, int) else f"{value:.9g}"
            pairs = _pairs(heads, labels)
            lines.append(f"{name}{{{pairs}}} {shown}" if pairs else f"{name} {shown}")
    histograms = merged.histograms.get(metric.name)
    if histograms:
        for labels in sorted(histograms):
            _histogram_lines(lines, name, _pairs(heads, labels), histograms[labels], les)


def _histogram_lines(
    lines: list[str], name: str, pairs: str, counted: Histogram, les: tuple[str, ...]
) -> None:
    lead = f"{name}_bucket{{{pairs}," if pairs else f"{name}_bucket{{"
    running = histogram.cumulative(counted.counts)
    if counted.exemplars and les is _LE_OPEN:
        shown = counted.exemplars
        lines += [
            f'{lead}le="{le}"}} {n}{_exemplar(shown[at]) if at in shown else ""}'
            for at, (le, n) in enumerate(zip(les, running, strict=True))
        ]
    else:
        lines += [f'{lead}le="{le}"}} {n}' for le, n in zip(les, running, strict=True)]
    ends = f"{{{pairs}}}" if pairs else ""
    lines.append(f"{name}_sum{ends} {counted.sum:.9g}")
    lines.append(f"{name}_count{ends} {running[-1]}")


def _exemplar(shown: Exemplar) -> str:
    trace_id, value, wall = shown
    return f' # {{trace_id="{trace_id}"}} {value:.9g} {wall:.3f}'


def _pairs(heads: tuple[str, ...], labels: Labels) -> str:
    return ",".join(
        [
            f'{head}{value.translate(_VALUE_ESCAPES) if _is_odd(value) else value}"'
            for head, value in zip(heads, labels, strict=True)
        ]
    )


def _is_odd(value: str) -> bool:
    # Three searches in C cost a quarter of one translation.
    return "\\" in value or '"' in value or "\n" in value

"""Families as text: the Prometheus format 0.0.4, and OpenMetrics 1.0.

Where they differ: OpenMetrics names a counter without `_total` in its head, writes bounds and
values of histograms as floats, has units and exemplars, and ends with `# EOF`. A sample that is not
a number or is infinite is written as both have it: NaN, +Inf, -Inf.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from headgate.observe.meters.exemplars import Exemplar
from headgate.observe.meters.families import Family, Labels, Sample

__all__ = ["families_text", "to_openmetrics", "to_text"]

_VALUE: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
_HELP: Final = str.maketrans({"\\": "\\\\", "\n": "\\n"})
_EXEMPLAR_MAX: Final = 128
"""Characters of names and values of an exemplar's labels together, as OpenMetrics limits them."""
_AS_GAUGE: Final = ("info", "stateset", "gaugehistogram")


def to_text(families: Iterable[Family]) -> str:
    """In the Prometheus text format 0.0.4."""
    lines: list[str] = []
    for family in families:
        if family.is_empty:
            continue
        name, kind = _head_of(family)
        lines.append(f"# HELP {name} {_clean(family.help).translate(_HELP)}")
        lines.append(f"# TYPE {name} {kind}")
        _body(lines, family, is_open=False)
    return _encodable("\n".join(lines) + "\n") if lines else ""


def to_openmetrics(families: Iterable[Family]) -> str:
    """In the format of OpenMetrics 1.0."""
    lines: list[str] = []
    for family in families:
        if family.is_empty:
            continue
        name = family.name.removesuffix("_total") if family.kind == "counter" else family.name
        lines.append(f"# TYPE {name} {family.kind}")
        if family.unit and name.endswith(f"_{family.unit}"):
            lines.append(f"# UNIT {name} {family.unit}")
        help_text = _clean(family.help).translate(_VALUE)
        lines.append(f"# HELP {name} {help_text}")
        _body(lines, family, is_open=True)
    lines.append("# EOF\n")
    return _encodable("\n".join(lines))


def _head_of(family: Family) -> tuple[str, str]:
    if family.kind == "info":
        return f"{family.name}_info", "gauge"
    if family.kind in _AS_GAUGE:
        return family.name, "gauge"
    return family.name, "untyped" if family.kind == "unknown" else family.kind


def _body(lines: list[str], family: Family, *, is_open: bool) -> None:
    name = family.name
    if family.kind == "counter" and not name.endswith("_total") and is_open:
        name += "_total"
    heads = _heads(family.labels)
    exemplars = family.exemplars if is_open else {}
    for labels, value in family.numbers.items():
        line = f"{name}{_braced(_pairs(heads, labels))} {number(value)}"
        shown = exemplars.get(labels)
        lines.append(line + _exemplar(shown[-1]) if shown else line)
    for labels in family.sketches:
        if family.kind == "summary":
            _summary(lines, family, heads, labels)
        else:
            _histogram(lines, family, heads, labels, is_open=is_open)
    for sample in family.samples:
        lines.append(_sample(sample, is_open=is_open))


def _histogram(
    lines: list[str], family: Family, heads: tuple[str, ...], labels: Labels, *, is_open: bool
) -> None:
    sketch = family.sketches[labels]
    pairs = _pairs(heads, labels)
    lead = f"{family.name}_bucket{{{pairs}," if pairs else f"{family.name}_bucket{{"
    running = sketch.cumulative(family.bounds)
    bounds = [bound_text(bound) if is_open else f"{bound:g}" for bound in family.bounds]
    buckets = [
        f'{lead}le="{le}"}} {count}' for le, count in zip((*bounds, "+Inf"), running, strict=True)
    ]
    if is_open:
        for one in family.exemplars.get(labels, ()):
            at = bisect_left(family.bounds, one.value)
            if " # " not in buckets[at]:
                buckets[at] += _exemplar(one)
    lines += buckets
    ends = _braced(pairs)
    # A sum that can fall is no counter; OpenMetrics leaves it out.
    if not (is_open and sketch.below):
        lines.append(f"{family.name}_sum{ends} {number(sketch.sum)}")
    if not (is_open and sketch.below):
        lines.append(f"{family.name}_count{ends} {running[-1]}")


def _summary(lines: list[str], family: Family, heads: tuple[str, ...], labels: Labels) -> None:
    pairs = _pairs(heads, labels)
    lead = f"{family.name}{{{pairs}," if pairs else f"{family.name}{{"
    found = family.sketches[labels].quantiles(family.quantiles)
    for q, value in zip(family.quantiles, found, strict=True):
        shown = "NaN" if value is None else number(value)
        lines.append(f'{lead}quantile="{bound_text(q)}"}} {shown}')
    count, total = family.totals.get(labels, (0, 0.0))
    lines.append(f"{family.name}_sum{_braced(pairs)} {number(total)}")
    lines.append(f"{family.name}_count{_braced(pairs)} {count}")


def _sample(sample: Sample, *, is_open: bool) -> str:
    pairs = ",".join(f'{name}="{_clean(value).translate(_VALUE)}"' for name, value in sample.labels)
    line = f"{sample.name}{_braced(pairs)} {number(sample.value)}"
    if is_open and sample.exemplar is not None:
        line += _exemplar(sample.exemplar)
    return line


def _exemplar(one: Exemplar) -> str:
    trace_id = _clean(one.trace_id)
    if not trace_id or len("trace_id") + len(trace_id) > _EXEMPLAR_MAX:
        return ""
    return f' # {{trace_id="{trace_id.translate(_VALUE)}"}} {number(one.value)} {one.wall:.3f}'


def _heads(labels: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f'{name}="' for name in labels)


def _pairs(heads: tuple[str, ...], labels: Labels) -> str:
    return ",".join(
        [
            f'{head}{value.translate(_VALUE) if _is_odd(value) else value}"'
            for head, value in zip(heads, labels, strict=True)
        ]
    )


def _is_odd(value: str) -> bool:
    # Three searches in C cost a quarter of one translation.
    return "\\" in value or '"' in value or "\n" in value


def _braced(pairs: str) -> str:
    return f"{{{pairs}}}" if pairs else ""


def _clean(text: str) -> str:
    return text.replace("\r", " ") if "\r" in text else text


def _encodable(text: str) -> str:
    """Without lone surrogates, which are no text to a scraper."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def number(value: float) -> str:
    """As both formats have it."""
    if type(value) is int:
        return str(value)
    if value != value:  # noqa: PLR0124 - not a number
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return repr(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def bound_text(bound: float) -> str:
    """The canonical form of OpenMetrics: always with a point or an exponent."""
    text = f"{bound:g}" if float(f"{bound:g}") == bound else repr(bound)
    return text if any(mark in text for mark in ".en") else f"{text}.0"


def families_text(families: Iterable[Family], *, is_open: bool) -> str:
    return to_openmetrics(families) if is_open else to_text(families)

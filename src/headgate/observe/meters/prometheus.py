"""Side by side with prometheus_client: theirs are shown by ours, and ours by theirs.

    registry.include(prometheus_client.REGISTRY)            # theirs in ours
    prometheus_client.REGISTRY.register(Exposed(registry))  # ours in theirs

Both at once would go round in a circle; a collector that is asked while it asks answers nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, Final

from headgate.errors import ExtraMissing
from headgate.observe.meters.exemplars import Exemplar
from headgate.observe.meters.families import Collect, Family, Kind, Sample
from headgate.observe.meters.registry import Registry

__all__ = ["Exposed", "collect_of"]

_KINDS: Final[dict[str, Kind]] = {
    "counter": "counter",
    "gauge": "gauge",
    "histogram": "histogram",
    "summary": "summary",
    "info": "info",
    "stateset": "stateset",
    "gaugehistogram": "gaugehistogram",
}

_asking = threading.local()


def collect_of(registry: Any) -> Collect:
    """A function that answers the families of a registry (or a collector) of prometheus_client."""

    def collect() -> list[Family]:
        if getattr(_asking, "is_busy", False):
            return []
        _asking.is_busy = True
        try:
            return [family_of(metric) for metric in registry.collect()]
        finally:
            _asking.is_busy = False

    return collect


def family_of(metric: Any) -> Family:
    """One of their metrics as a family with samples as they are."""
    kind = _KINDS.get(metric.type, "unknown")
    name = f"{metric.name}_total" if kind == "counter" else metric.name
    samples = tuple(
        Sample(one.name, tuple(one.labels.items()), one.value, _exemplar_of(one))
        for one in metric.samples
        # The time of creation is a gauge in the text format and stands beside its metric there.
        if not one.name.endswith(("_created", "_gsum", "_gcount"))
    )
    return Family(name, kind, metric.documentation, unit=metric.unit or "", samples=samples)


def _exemplar_of(sample: Any) -> Exemplar | None:
    seen = getattr(sample, "exemplar", None)
    if seen is None or "trace_id" not in seen.labels:
        return None
    return Exemplar(float(seen.value), seen.labels["trace_id"], float(seen.timestamp or 0.0))


class Exposed:
    """A collector of prometheus_client that shows a Registry of ours."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def describe(self) -> list[Any]:
        # Asked when it is registered; names may come later, so none are promised.
        return []

    def collect(self) -> Iterator[Any]:
        if getattr(_asking, "is_busy", False):
            return
        try:
            from prometheus_client.metrics_core import Metric
        except ImportError as error:
            raise ExtraMissing(
                "prometheus", "metrics in a registry of prometheus_client"
            ) from error
        _asking.is_busy = True
        try:
            families = self._registry.collect()
        finally:
            _asking.is_busy = False
        for family in families:
            if not family.is_empty:
                yield _metric_of(family, Metric)


def _metric_of(family: Family, make: Any) -> Any:
    name = family.name.removesuffix("_total") if family.kind == "counter" else family.name
    unit = family.unit if family.unit and name.endswith(f"_{family.unit}") else ""
    metric = make(name, family.help, family.kind, unit)
    sample_name = f"{name}_total" if family.kind == "counter" else name
    for labels, value in family.numbers.items():
        named = dict(zip(family.labels, labels, strict=True))
        metric.add_sample(sample_name, named, value)
    for labels, sketch in family.sketches.items():
        named = dict(zip(family.labels, labels, strict=True))
        if family.kind == "summary":
            found = sketch.quantiles(family.quantiles)
            for q, reached_by in zip(family.quantiles, found, strict=True):
                shown = float("nan") if reached_by is None else reached_by
                metric.add_sample(name, {**named, "quantile": str(q)}, shown)
            count, total = family.totals.get(labels, (0, 0.0))
        else:
            running = sketch.cumulative(family.bounds)
            for bound, reached in zip((*family.bounds, float("inf")), running, strict=True):
                le = "+Inf" if bound == float("inf") else str(bound)
                metric.add_sample(f"{name}_bucket", {**named, "le": le}, reached)
            count, total = running[-1], sketch.sum
        metric.add_sample(f"{name}_sum", named, total)
        metric.add_sample(f"{name}_count", named, count)
    for sample in family.samples:
        metric.add_sample(sample.name, dict(sample.labels), sample.value)
    return metric

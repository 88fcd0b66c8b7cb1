"""Figures of the business by one call, wherever it is at hand.

    observe.count("orders", 1, tier="gold")
    observe.measure("basket_eur", 12.5)

The first call decides which labels a name has. A call that does not fit is left out, counted in
`observe_misused_total` and warned of once: an order must not fail because of how it is counted.
"""

from __future__ import annotations

import threading
from typing import Any, Final

from headgate.observe.meters.counter import Counter
from headgate.observe.meters.histogram import Histogram
from headgate.observe.meters.metric import Metric, log
from headgate.observe.meters.registry import REGISTRY, Registry

__all__ = ["NAMES_MAX", "Business", "count", "measure"]

NAMES_MAX: Final = 500
AMOUNTS: Final = (
    *(float(f"{step}e{power}") for power in range(-2, 6) for step in (1, 2.5, 5)),
    1e6,
)


class Business:
    """Counts and measures in one registry."""

    def __init__(self, registry: Registry = REGISTRY) -> None:
        self._registry = registry
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, Histogram] = {}
        self._misused: Counter | None = None
        self._warned: set[str] = set()
        self._lock = threading.Lock()

    def count(self, name: str, amount: float = 1, /, **labels: object) -> None:
        """Count `amount` more of `name`."""
        try:
            counter = self._counters.get(name) or self._counter(name, labels)
            counter.add(amount, *_values(counter, labels))
        except (ValueError, TypeError) as error:
            self._misuse(name, error)

    def measure(self, name: str, value: float, /, **labels: object) -> None:
        """Note a value of `name`, to know its quantiles."""
        try:
            histogram = self._histograms.get(name) or self._histogram(name, labels)
            histogram.put(value, *_values(histogram, labels))
        except (ValueError, TypeError) as error:
            self._misuse(name, error)

    def _counter(self, name: str, labels: dict[str, object]) -> Counter:
        with self._lock:
            self._check_room()
            made = self._registry.counter(name, "Counted by the service.", tuple(labels))
            return self._counters.setdefault(name, made)

    def _histogram(self, name: str, labels: dict[str, object]) -> Histogram:
        with self._lock:
            self._check_room()
            made = self._registry.histogram(
                name, "Measured by the service.", tuple(labels), bounds=AMOUNTS
            )
            return self._histograms.setdefault(name, made)

    def _check_room(self) -> None:
        if len(self._counters) + len(self._histograms) >= NAMES_MAX:
            raise ValueError(
                f"there are {NAMES_MAX} names already; what differs belongs into a label"
            )

    def _misuse(self, name: str, error: Exception) -> None:
        shown = name if name in self._counters or name in self._histograms else "other"
        with self._lock:
            if self._misused is None:
                self._misused = self._registry.counter(
                    "observe_misused", "Figures left out because they do not fit.", ("metric",)
                )
            is_new = shown not in self._warned
            self._warned.add(shown)
        self._misused.add(1, shown)
        if is_new:
            log.warning("a figure was left out: %s", error)


def _values(metric: Metric[Any], labels: dict[str, object]) -> tuple[object, ...]:
    if tuple(labels) == metric.label_names:
        return tuple(labels.values())
    return metric.ordered(labels)


_default: Final = Business()
count = _default.count
measure = _default.measure

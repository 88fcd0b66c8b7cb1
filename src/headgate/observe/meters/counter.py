"""Counters: what only grows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from headgate.observe.meters.exemplars import Exemplar
from headgate.observe.meters.families import Family
from headgate.observe.meters.metric import HAS_GIL, MAX_SERIES, Metric
from headgate.observe.meters.names import checked_name

if TYPE_CHECKING:
    from headgate.observe.meters.registry import Registry

__all__ = ["Counter", "CounterChild"]


class CounterChild:
    """The count of one set of labels. See `metric` for why no lock is needed."""

    __slots__ = ("exemplar", "value")

    def __init__(self) -> None:
        self.value: float = 0
        self.exemplar: Exemplar | None = None

    def inc(self, amount: float = 1, trace_id: str | None = None) -> None:
        """Count `amount` more; `trace_id` becomes the example shown with it."""
        if not amount >= 0:
            raise ValueError(f"a counter only grows, and {amount} is not above zero; use a Gauge")
        self.value += amount
        if trace_id is not None:
            self.exemplar = Exemplar(amount, trace_id, time.time())  # noqa: TID251 - shown to people


class _LockedChild(CounterChild):
    __slots__ = ("_lock",)

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()

    def inc(self, amount: float = 1, trace_id: str | None = None) -> None:
        with self._lock:
            super().inc(amount, trace_id)


class Counter(Metric[CounterChild]):
    """What only grows: requests, errors, bytes. Shown with `_total` at the end of its name.

    orders = Counter("orders", "Orders that were placed", ("tier",))
    gold = orders.labels(tier="gold")  # keep it where it is used often
    gold.inc()
    orders.add(1, "gold")
    """

    kind = "counter"
    suffixes = ("", "_created")
    inc: Callable[..., None]

    def __init__(
        self,
        name: str,
        help: str = "",  # noqa: A002 - as Prometheus calls it
        labels: Sequence[str] = (),
        *,
        unit: str = "",
        max_series: int = MAX_SERIES,
        registry: Registry | None = None,
    ) -> None:
        name = f"{checked_name(name).removesuffix('_total')}_total"
        super().__init__(name, help, labels, unit=unit, max_series=max_series, registry=registry)
        self.inc = self._no_labels("inc") if self.label_names else self._only.inc

    @property
    def base_name(self) -> str:
        return self.name.removesuffix("_total")

    def _add_in_place(self, amount: float, *labels: object) -> None:
        """Count `amount` more under these labels, given in their order."""
        try:
            child = self._children[labels]  # type: ignore[index]  # a miss if not all are text
        except (KeyError, TypeError):
            child = self.child_of(labels)
        if not amount >= 0:
            raise ValueError(f"{self.name} only grows, and {amount} is not above zero; use a Gauge")
        child.value += amount

    def _add_by_child(self, amount: float, *labels: object) -> None:
        self.labels(*labels).inc(amount)

    add = _add_in_place if HAS_GIL else _add_by_child

    def family(self) -> Family:
        family = self._blank()
        series = self.series()
        family.numbers = {labels: child.value for labels, child in series.items()}
        family.exemplars = {
            labels: (seen,)
            for labels, child in series.items()
            if (seen := child.exemplar) is not None
        }
        return family

    def _make(self) -> CounterChild:
        return CounterChild() if HAS_GIL else _LockedChild()

    def _zero(self, child: CounterChild) -> None:
        child.value = 0

    def _bind(self, child: CounterChild) -> None:
        super()._bind(child)
        self.inc = child.inc

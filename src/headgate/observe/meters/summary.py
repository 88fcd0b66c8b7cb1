"""Summaries: quantiles of the last minutes.

Theory of operation. The window is cut into slices; a value goes to the newest slice, and once in a
slice's time the oldest is thrown away. Quantiles are those of all slices together, so they cover
the window, give or take a slice. The count and the sum are of all time, as Prometheus has it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Final

from headgate.observe.meters.families import Family
from headgate.observe.meters.histogram import HistogramChild
from headgate.observe.meters.metric import MAX_SERIES, Metric
from headgate.observe.meters.sketch import Sketch, merged

if TYPE_CHECKING:
    from headgate.observe.meters.registry import Registry

__all__ = ["QUANTILES", "Summary", "SummaryChild"]

QUANTILES: Final = (0.5, 0.9, 0.95, 0.99)
_SLICES: Final = 5


class SummaryChild:
    """The values of one set of labels."""

    __slots__ = ("_clock", "_count", "_lock", "_slice_s", "_slices", "_sum", "_turn_at")

    def __init__(self, window_s: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._slice_s = window_s / _SLICES
        self.reset()

    def observe(self, value: float) -> None:
        """Count a value. What is not a finite number is left out."""
        now = self._clock()
        if not isfinite(value):
            return
        # One lock for all of it: a slice must not be thrown away while it is written to.
        with self._lock:
            if now >= self._turn_at:
                self._turn(now)
            self._slices[-1].observe(value)
            self._count += 1
            self._sum += value

    def window(self) -> Sketch:
        """What the window holds now."""
        now = self._clock()
        with self._lock:
            if now >= self._turn_at:
                self._turn(now)
            return merged(one.sketch() for one in self._slices)

    def quantile(self, q: float) -> float | None:
        return self.window().quantile(q)

    @property
    def total(self) -> tuple[int, float]:
        """How many values there ever were, and their sum."""
        with self._lock:
            return self._count, self._sum

    def reset(self) -> None:
        self.renew_lock()
        self._count, self._sum = 0, 0.0
        self._slices: deque[HistogramChild] = deque([HistogramChild()], maxlen=_SLICES)
        self._turn_at = self._clock() + self._slice_s

    def renew_lock(self) -> None:
        self._lock = threading.RLock()

    def _turn(self, now: float) -> None:
        turns = int((now - self._turn_at) // self._slice_s) + 1
        for _ in range(min(turns, _SLICES)):
            self._slices.append(HistogramChild())
        self._turn_at += turns * self._slice_s


class Summary(Metric[SummaryChild]):
    """Quantiles of a sliding window, for those who read them without a Prometheus.

    Use a Histogram where several processes or services are to be added up over time.
    """

    kind = "summary"
    suffixes = ("", "_sum", "_count", "_created")
    observe: Callable[[float], None]

    def __init__(
        self,
        name: str,
        help: str = "",  # noqa: A002 - as Prometheus calls it
        labels: Sequence[str] = (),
        *,
        quantiles: Sequence[float] = QUANTILES,
        window_s: float = 600.0,
        unit: str = "",
        max_series: int = MAX_SERIES,
        registry: Registry | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.quantiles = tuple(sorted(float(q) for q in quantiles))
        if any(not 0.0 <= q <= 1.0 for q in self.quantiles):
            raise ValueError(f"{name}: quantiles lie between 0 and 1: {list(quantiles)}")
        if not 1.0 <= window_s <= 86_400.0:
            raise ValueError(f"{name}: window_s={window_s:g} lies between a second and a day")
        self.window_s = window_s
        self._clock = clock
        super().__init__(name, help, labels, unit=unit, max_series=max_series, registry=registry)
        self.observe = self._no_labels("observe") if self.label_names else self._only.observe

    @property
    def definition(self) -> tuple[object, ...]:
        return (*super().definition, self.quantiles, self.window_s)

    def put(self, value: float, *labels: object) -> None:
        """Count a value under these labels, given in their order."""
        self.labels(*labels).observe(value)

    def family(self) -> Family:
        family = self._blank()
        family.quantiles = self.quantiles
        series = self.series()
        family.sketches = {labels: child.window() for labels, child in series.items()}
        family.totals = {labels: child.total for labels, child in series.items()}
        return family

    def renew_locks(self) -> None:
        super().renew_locks()
        for child in self.series().values():
            child.renew_lock()

    def _make(self) -> SummaryChild:
        return SummaryChild(self.window_s, self._clock)

    def _zero(self, child: SummaryChild) -> None:
        child.reset()

    def _bind(self, child: SummaryChild) -> None:
        super()._bind(child)
        self.observe = child.observe

"""Gauges: what goes up and down."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from headgate.observe.meters.families import Family, Merge
from headgate.observe.meters.metric import HAS_GIL, MAX_SERIES, Metric, log

if TYPE_CHECKING:
    from headgate.observe.meters.registry import Registry

__all__ = ["Gauge", "GaugeChild"]


class GaugeChild:
    """The figure of one set of labels."""

    __slots__ = ("_ask", "value")

    def __init__(self) -> None:
        self.value: float = 0
        self._ask: Callable[[], float] | None = None

    def set(self, value: float) -> None:
        self.value = value

    def inc(self, amount: float = 1) -> None:
        self.value += amount

    def dec(self, amount: float = 1) -> None:
        self.value -= amount

    def set_to_now(self) -> None:
        """To the time, in seconds since 1970: when something last happened."""
        self.value = time.time()  # noqa: TID251 - shown to people

    def ask(self, function: Callable[[], float] | None) -> None:
        """Have `function` called whenever the figure is read, from the thread that reads."""
        self._ask = function

    @contextmanager
    def held(self) -> Iterator[None]:
        """One more for as long as the block runs."""
        self.inc()
        try:
            yield
        finally:
            self.dec()

    def read(self) -> float:
        """The figure now; not a number when the function that knows it fails."""
        if self._ask is None:
            return self.value
        try:
            return float(self._ask())
        except Exception:  # noqa: BLE001 - one bad figure must not spoil a scrape
            log.debug("a gauge's function failed", exc_info=True)
            return math.nan


class _LockedChild(GaugeChild):
    __slots__ = ("_lock",)

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()

    def inc(self, amount: float = 1) -> None:
        with self._lock:
            self.value += amount

    def dec(self, amount: float = 1) -> None:
        with self._lock:
            self.value -= amount


class Gauge(Metric[GaugeChild]):
    """What goes up and down: things open, waiting, free. Ends with its process.

    `merge` says what several processes show: their "sum", "max" or "min", or "each" by its pid.
    """

    kind = "gauge"
    inc: Callable[..., None]
    dec: Callable[..., None]
    set: Callable[..., None]

    def __init__(
        self,
        name: str,
        help: str = "",  # noqa: A002 - as Prometheus calls it
        labels: Sequence[str] = (),
        *,
        unit: str = "",
        merge: Merge = "sum",
        max_series: int = MAX_SERIES,
        registry: Registry | None = None,
    ) -> None:
        if merge not in ("sum", "max", "min", "each"):
            raise ValueError(f"{name}: merge={merge!r} must be sum, max, min or each")
        self.merge: Merge = merge
        super().__init__(name, help, labels, unit=unit, max_series=max_series, registry=registry)
        if self.label_names:
            for what in ("inc", "dec", "set"):
                setattr(self, what, self._no_labels(what))
        else:
            self._bind(self._only)

    @property
    def definition(self) -> tuple[object, ...]:
        return (*super().definition, self.merge)

    def ask(self, function: Callable[[], float]) -> None:
        """Have `function` called whenever the figure is read; of a gauge without labels."""
        self.labels().ask(function)

    def put(self, value: float, *labels: object) -> None:
        """Set the figure of these labels, given in their order."""
        self.labels(*labels).value = value

    def add(self, amount: float, *labels: object) -> None:
        """Add to the figure of these labels; `amount` may be negative."""
        self.labels(*labels).inc(amount)

    def held(self, *labels: object) -> AbstractContextManager[None]:
        return self.labels(*labels).held()

    def family(self) -> Family:
        family = self._blank()
        family.merge = self.merge
        family.numbers = {labels: child.read() for labels, child in self.series().items()}
        return family

    def _make(self) -> GaugeChild:
        return GaugeChild() if HAS_GIL else _LockedChild()

    def _zero(self, child: GaugeChild) -> None:
        child.value = 0

    def _bind(self, child: GaugeChild) -> None:
        super()._bind(child)
        self.inc, self.dec, self.set = child.inc, child.dec, child.set

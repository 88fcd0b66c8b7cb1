"""Histograms: how values are spread, by a sketch; and timers, which are histograms of seconds."""

from __future__ import annotations

import functools
import inspect
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import isfinite, log2
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from headgate.observe.histogram import SHOWN_BOUNDS
from headgate.observe.meters import exemplars
from headgate.observe.meters.exemplars import Exemplar
from headgate.observe.meters.families import Family
from headgate.observe.meters.metric import HAS_GIL, MAX_SERIES, Metric
from headgate.observe.meters.sketch import CEILING, FLOOR, Sketch, key_of, sketch_of

if TYPE_CHECKING:
    from headgate.observe.meters.registry import Registry

__all__ = ["SECONDS", "SIZES", "Histogram", "HistogramChild", "Timer"]

SECONDS: Final = SHOWN_BOUNDS
SIZES: Final = tuple(float(4**power) for power in range(3, 15))
"""Bytes, from 64 to 256 Mi."""

F = TypeVar("F", bound=Callable[..., Any])


class HistogramChild:
    """The values of one set of labels."""

    __slots__ = ("_below", "_bounds", "_counts", "_examples", "_sum", "_zeros")

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self._counts: dict[float, int] = {}
        self._below: dict[float, int] = {}
        self._zeros = 0
        self._sum = 0.0
        self._bounds = bounds
        self._examples: dict[int, Exemplar] = {}

    def observe(self, value: float) -> None:
        """Count a value. What is not a finite number is left out."""
        try:
            self._counts[(4096.0 - log2(value) * 64.0) // 1.0] += 1
        except (KeyError, ValueError):
            self._observe_rare(value)
        else:
            self._sum += value
        if exemplars.current is not None:
            self._show(value)

    def _observe_rare(self, value: float) -> None:
        """A bin that is new, or a value that is zero, negative, huge or no number."""
        size = abs(value)
        if not isfinite(size):
            return
        self._sum += value
        if size < FLOOR:
            self._zeros += 1
            return
        counts = self._counts if value > 0.0 else self._below
        key = key_of(min(size, CEILING))
        # In two steps, each of them atomic: another thread may come between.
        counts.setdefault(key, 0)
        counts[key] += 1

    def _show(self, value: float) -> None:
        ask = exemplars.current
        trace_id = None if ask is None else ask()
        if trace_id:
            at = bisect_left(self._bounds, value)
            wall = time.time()  # noqa: TID251 - shown to people
            self._examples[at] = Exemplar(value, trace_id, wall)

    def time(self) -> Running:
        """`with child.time():` counts how long the block runs, in seconds."""
        return Running(self)

    def __call__(self, function: F) -> F:
        """`@child` counts how long each call takes, also of coroutine functions."""
        return _timed(function, lambda: self)

    def sketch(self) -> Sketch:
        """What was counted so far."""
        return sketch_of(self._counts.copy(), self._below.copy(), self._zeros, self._sum)

    def quantile(self, q: float) -> float | None:
        return self.sketch().quantile(q)

    def shown_exemplars(self) -> tuple[Exemplar, ...]:
        return tuple(self._examples.copy().values())

    def reset(self) -> None:
        self._counts, self._below = {}, {}
        self._zeros, self._sum = 0, 0.0
        self._examples = {}


class _LockedChild(HistogramChild):
    __slots__ = ("_lock",)

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        super().__init__(bounds)
        self._lock = threading.RLock()

    def observe(self, value: float) -> None:
        with self._lock:
            super().observe(value)


class Running:
    """A time being taken."""

    __slots__ = ("_child", "_since", "elapsed_s")

    def __init__(self, child: HistogramChild) -> None:
        self._child = child
        self._since = 0.0
        self.elapsed_s = 0.0
        """Once it is over."""

    def __enter__(self) -> Self:
        self._since = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.elapsed_s = time.perf_counter() - self._since
        self._child.observe(self.elapsed_s)


class Histogram(Metric[HistogramChild]):
    """How values are spread. Quantiles err by less than one per cent, at any size of value.

    `bounds` are the buckets shown to Prometheus; they may be changed at any time, for what is kept
    is finer. A bucket may hold what lies up to 1.1 % above its bound.
    """

    kind = "histogram"
    suffixes = ("_bucket", "_sum", "_count", "_created")
    observe: Callable[[float], None]

    def __init__(
        self,
        name: str,
        help: str = "",  # noqa: A002 - as Prometheus calls it
        labels: Sequence[str] = (),
        *,
        bounds: Sequence[float] = SECONDS,
        unit: str = "",
        max_series: int = MAX_SERIES,
        registry: Registry | None = None,
    ) -> None:
        self.bounds = checked_bounds(name, bounds)
        super().__init__(name, help, labels, unit=unit, max_series=max_series, registry=registry)
        if self.label_names:
            self.observe = self._no_labels("observe")
        else:
            self._bind(self._only)

    @property
    def definition(self) -> tuple[object, ...]:
        return (*super().definition, self.bounds)

    def put(self, value: float, *labels: object) -> None:
        """Count a value under these labels, given in their order."""
        try:
            child = self._children[labels]  # type: ignore[index]  # a miss if not all are text
        except (KeyError, TypeError):
            child = self.child_of(labels)
        child.observe(value)

    def time(self, *labels: object) -> Running:
        """`with histogram.time("GET"):` counts how long the block runs, in seconds."""
        return Running(self.labels(*labels))

    def __call__(self, function: F) -> F:
        """`@histogram` counts how long each call takes; of one without labels."""
        self.labels()  # says what is wrong now, not at the first call
        return _timed(function, lambda: self._only)

    def family(self) -> Family:
        family = self._blank()
        family.bounds = self.bounds
        series = self.series()
        family.sketches = {labels: child.sketch() for labels, child in series.items()}
        family.exemplars = {
            labels: shown for labels, child in series.items() if (shown := child.shown_exemplars())
        }
        return family

    def _make(self) -> HistogramChild:
        return HistogramChild(self.bounds) if HAS_GIL else _LockedChild(self.bounds)

    def _zero(self, child: HistogramChild) -> None:
        child.reset()

    def _bind(self, child: HistogramChild) -> None:
        super()._bind(child)
        self.observe = child.observe


class Timer(Histogram):
    """A histogram of seconds: `with timer.time("index"):`, `@timer`, `@timer.labels("index")`."""


def checked_bounds(name: str, bounds: Sequence[float]) -> tuple[float, ...]:
    found = tuple(float(bound) for bound in bounds)
    if found and found[-1] == float("inf"):
        found = found[:-1]  # it is always there
    if not found or any(not low < high for low, high in pairwise(found)):
        raise ValueError(f"{name}: bounds ascend, and there is at least one: {list(bounds)}")
    if len(found) > 200:
        raise ValueError(f"{name}: {len(found)} bounds; at most 200 are shown")
    if any(bound != bound or abs(bound) == float("inf") for bound in found):  # noqa: PLR0124 - NaN
        raise ValueError(f"{name}: a bound is a finite number: {list(bounds)}")
    return found


def _timed(function: F, child: Callable[[], HistogramChild]) -> F:
    clock = time.perf_counter
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{function.__qualname__} is a generator, whose call ends at once; time its loop with "
            "`with timer.time():`"
        )
    timed: Any
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def timed(*args: Any, **kwargs: Any) -> Any:
            since = clock()
            try:
                return await function(*args, **kwargs)
            finally:
                child().observe(clock() - since)
    else:

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            since = clock()
            try:
                return function(*args, **kwargs)
            finally:
                child().observe(clock() - since)

    return timed  # type: ignore[no-any-return]

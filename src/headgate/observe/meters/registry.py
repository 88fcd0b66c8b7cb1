"""The metrics of a process, by name."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from headgate.observe.meters.counter import Counter
from headgate.observe.meters.families import Collect, Family, Labels, Merge
from headgate.observe.meters.gauge import Gauge
from headgate.observe.meters.histogram import SECONDS, Histogram, Timer
from headgate.observe.meters.metric import MAX_SERIES, Metric, log
from headgate.observe.meters.summary import QUANTILES, Summary

if TYPE_CHECKING:
    from headgate.observe.meters.shards import Shards

__all__ = ["OVERFLOWED", "REGISTRY", "Registry"]

OVERFLOWED: Final = "observe_series_overflowed_total"

M = TypeVar("M", bound=Metric[Any])

_all: weakref.WeakSet[Registry] = weakref.WeakSet()


class Registry:
    """Makes metrics, keeps them, and answers all of them at once.

    registry = Registry()
    requests = registry.counter("requests", "Requests answered", ("route",))
    registry.include(prometheus_client.REGISTRY)  # theirs are shown as well
    """

    def __init__(self, *, max_series: int = MAX_SERIES) -> None:
        self.max_series = max_series
        """What a metric may have that does not say otherwise."""
        self.started_wall = time.time()  # noqa: TID251 - shown to people
        self.collect_failures = 0
        self._metrics: dict[str, Metric[Any]] = {}
        self._claimed: dict[str, str] = {}
        self._collects: list[Collect] = []
        self._lock = threading.Lock()
        self._failed: set[Collect] = set()
        self.shards: Shards | None = None
        _all.add(self)

    def __repr__(self) -> str:
        return f"<Registry {len(self._metrics)} metrics>"

    def __getitem__(self, name: str) -> Metric[Any]:
        try:
            return self._metrics[name]
        except KeyError:
            known = ", ".join(sorted(self._metrics)) or "none"
            raise KeyError(f'no metric named "{name}"; there are: {known}') from None

    def __contains__(self, name: object) -> bool:
        return name in self._metrics

    # ---- making: the one that is there, or a new one

    def counter(
        self,
        name: str,
        help: str = "",  # noqa: A002 - as Prometheus calls it
        labels: Sequence[str] = (),
        *,
        unit: str = "",
        max_series: int | None = None,
    ) -> Counter:
        most = max_series or self.max_series
        return self._keep(Counter(name, help, labels, unit=unit, max_series=most))

    def gauge(
        self,
        name: str,
        help: str = "",  # noqa: A002
        labels: Sequence[str] = (),
        *,
        unit: str = "",
        merge: Merge = "sum",
        max_series: int | None = None,
    ) -> Gauge:
        most = max_series or self.max_series
        return self._keep(Gauge(name, help, labels, unit=unit, merge=merge, max_series=most))

    def histogram(
        self,
        name: str,
        help: str = "",  # noqa: A002
        labels: Sequence[str] = (),
        *,
        bounds: Sequence[float] = SECONDS,
        unit: str = "",
        max_series: int | None = None,
    ) -> Histogram:
        most = max_series or self.max_series
        return self._keep(Histogram(name, help, labels, bounds=bounds, unit=unit, max_series=most))

    def timer(
        self,
        name: str,
        help: str = "",  # noqa: A002
        labels: Sequence[str] = (),
        *,
        bounds: Sequence[float] = SECONDS,
        unit: str = "",
        max_series: int | None = None,
    ) -> Timer:
        most = max_series or self.max_series
        return self._keep(Timer(name, help, labels, bounds=bounds, unit=unit, max_series=most))

    def summary(
        self,
        name: str,
        help: str = "",  # noqa: A002
        labels: Sequence[str] = (),
        *,
        quantiles: Sequence[float] = QUANTILES,
        window_s: float = 600.0,
        unit: str = "",
        max_series: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> Summary:
        return self._keep(
            Summary(
                name,
                help,
                labels,
                quantiles=quantiles,
                window_s=window_s,
                unit=unit,
                max_series=max_series or self.max_series,
                clock=clock,
            )
        )

    def _keep(self, made: M) -> M:
        with self._lock:
            there = self._metrics.get(made.name)
            if there is None:
                self._claim(made)
                return made
        if there.definition != made.definition:
            raise ValueError(
                f"there is already a {there.kind} {there.name} ({', '.join(there.label_names)}); a "
                f"{made.kind} ({', '.join(made.label_names)}) with other settings needs another "
                "name"
            )
        return there  # type: ignore[return-value]  # its definition holds its type

    # ---- adding what was made elsewhere

    def add(self, metric: Metric[Any]) -> None:
        """Show a metric that was made by hand."""
        with self._lock:
            if metric.name in self._metrics:
                raise ValueError(
                    f"there is already a metric {metric.name}; get it with registry"
                    f'["{metric.name}"], or make it with registry.{metric.kind}(...)'
                )
            self._claim(metric)

    def remove(self, name: str) -> None:
        """Show a metric no longer; it need not be there."""
        with self._lock:
            self._metrics.pop(name, None)
            self._claimed = {
                sample: owner for sample, owner in self._claimed.items() if owner != name
            }

    def include(self, source: Any) -> Callable[[], None]:
        """Show what `source` has too; the answer ends that.

        It is another Registry, a registry of prometheus_client, or a function that answers
        families.
        """
        collect: Collect
        if isinstance(source, Registry):
            if source is self:
                raise ValueError("a registry cannot include itself")
            collect = source.own
        elif hasattr(source, "collect"):
            from headgate.observe.meters.prometheus import collect_of

            collect = collect_of(source)
        elif callable(source):
            collect = source
        else:
            raise TypeError(f"{source!r} is no registry and no function that answers families")
        with self._lock:
            self._collects.append(collect)

        def end() -> None:
            with self._lock:
                if collect in self._collects:
                    self._collects.remove(collect)

        return end

    def _claim(self, metric: Metric[Any]) -> None:
        names = {metric.name, *(metric.base_name + suffix for suffix in metric.suffixes)}
        for name in sorted(names):
            if name in self._claimed:
                raise ValueError(
                    f"{metric.name}: its samples would be mixed up with those of "
                    f"{self._claimed[name]}, as {name}; give it another name"
                )
        self._claimed.update(dict.fromkeys(names, metric.name))
        self._metrics[metric.name] = metric

    # ---- reading

    def metrics(self) -> list[Metric[Any]]:
        with self._lock:
            return list(self._metrics.values())

    def own(self) -> list[Family]:
        """All families of this process."""
        metrics = self.metrics()
        found = {metric.name: metric.family() for metric in metrics}
        overflowed: dict[Labels, float] = {
            (metric.name,): metric.overflowed for metric in metrics if metric.overflowed
        }
        if overflowed:
            found[OVERFLOWED] = Family(
                OVERFLOWED,
                "counter",
                "Counts under `other`, because the metric has no room for more series.",
                ("metric",),
                numbers=overflowed,
            )
        with self._lock:
            collects = self._collects.copy()
        for collect in collects:
            for family in self._asked(collect):
                # Names that are there already stay whose they are.
                found.setdefault(family.name, family)
        return list(found.values())

    def collect(self) -> list[Family]:
        """All families, of all processes if they are shared."""
        shards = self.shards
        return self.own() if shards is None else shards.merged()

    def share(self, folder: str | os.PathLike[str], *, every_s: float = 1.0) -> Shards:
        """Add up with all other processes that share the same folder; see `shards`."""
        from headgate.observe.meters.shards import Shards

        if self.shards is not None:
            self.shards.close()
        self.shards = Shards(self, folder, every_s=every_s)
        self.shards.start()
        return self.shards

    def begin_anew(self) -> None:
        """In a forked child: nothing is counted yet, and no lock is held."""
        self.renew_locks()
        self.started_wall = time.time()  # noqa: TID251 - shown to people
        for metric in self._metrics.values():
            metric.begin_anew()

    def renew_locks(self) -> None:
        """In a forked child: a thread that held a lock has stayed with the parent."""
        self._lock = threading.Lock()
        for metric in self._metrics.values():
            metric.renew_locks()

    def _asked(self, collect: Collect) -> Iterable[Family]:
        try:
            return list(collect())
        except Exception:  # noqa: BLE001 - one bad source must not spoil a scrape
            self.collect_failures += 1
            if collect not in self._failed:
                self._failed.add(collect)
                log.exception("a source of metrics failed, and is left out while it does")
            return ()


def _after_fork() -> None:
    for registry in list(_all):
        registry.renew_locks()


os.register_at_fork(after_in_child=_after_fork)

REGISTRY: Final = Registry()
"""Where metrics go that name no other."""

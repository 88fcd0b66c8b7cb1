"""What all kinds of metrics have in common: a definition, and a child for each set of labels.

Theory of operation
-------------------
Exactness among threads. A count is `child.value += n`, without a lock. With a GIL, CPython switches
threads only where it looks at its "eval breaker": at the begin of a Python function, at a jump
backwards and after a call. Between the load and the store of this statement there is none of the
three, as long as the numbers are ints and floats; so it is atomic. The same is true of
`counts[key] += 1` for keys whose hash is in C. A test disassembles the methods and fails if a call
comes between; another counts with many threads at the shortest switch interval. Where there is no
GIL (`HAS_GIL` is false), children take a lock instead.

Bounds. Each metric has at most `max_series` sets of labels. What comes later is counted under
`other` for every label, is itself counted in `overflowed`, and is warned of once: a label that
holds a user's id or a raw path must not eat the memory of the service. Children are made under a
lock and are never moved, so a bound child can be kept for ever; after `remove` it counts on,
unseen.
"""

from __future__ import annotations

import logging
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Final, Generic, TypeVar

from headgate.observe.meters.families import Family, Kind, Labels
from headgate.observe.meters.names import checked_labels, checked_name

if TYPE_CHECKING:
    from headgate.observe.meters.registry import Registry

__all__ = ["HAS_GIL", "MAX_SERIES", "OTHER", "Metric"]

log = logging.getLogger("headgate.observe")

HAS_GIL: Final[bool] = getattr(sys, "_is_gil_enabled", lambda: True)()
MAX_SERIES: Final = 1000
OTHER: Final = "other"
VALUE_MAX: Final = 300
"""Characters of a label's value; more is cut, as a value that long was hardly meant."""

C = TypeVar("C")


class Metric(ABC, Generic[C]):
    """One metric with its children."""

    kind: ClassVar[Kind]
    suffixes: ClassVar[tuple[str, ...]] = ()
    """What samples of this kind append to the name."""

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
        if max_series < 1:
            raise ValueError(f"{name}: max_series={max_series} must be at least 1")
        self.name = checked_name(name)
        self.help = help
        self.unit = unit
        if unit and not self.base_name.endswith(f"_{unit}"):
            raise ValueError(f'{name}: a name ends with its unit; write "{self.base_name}_{unit}"')
        self.label_names = checked_labels(name, labels, self.kind)
        self.max_series = max_series
        self.overflowed = 0
        """How many counts went to `other`, or bindings if a child was bound."""
        self.shape = 0
        """Changes whenever a child comes or goes."""
        self._children: dict[Labels, C] = {}
        # Reentrant: a signal's handler or a finaliser may count while a child is being made.
        self._lock = threading.RLock()
        self._other: C | None = None
        self._is_warned = False
        if not self.label_names:
            self._only = self._children[()] = self._make()
        if registry is not None:
            registry.add(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {len(self._children)} series>"

    @property
    def base_name(self) -> str:
        """The name without what the kind appends."""
        return self.name

    @property
    def definition(self) -> tuple[object, ...]:
        """Two metrics with the same definition are the same metric."""
        return (type(self), self.name, self.label_names, self.unit)

    def labels(self, *values: object, **named: object) -> C:
        """The child of these labels, to be kept by whoever counts."""
        if named:
            if values:
                raise ValueError(f"{self.name}: labels are given by place or by name, not both")
            values = self.ordered(named)
        child = self._children.get(values)  # type: ignore[arg-type]  # a miss if not all are text
        return self.child_of(values) if child is None else child

    def child_of(self, values: tuple[object, ...]) -> C:
        """Find or make a child; the slow way."""
        if len(values) != len(self.label_names):
            raise ValueError(
                f"{self.name} has the labels ({', '.join(self.label_names)}), "
                f"and {len(values)} values were given"
            )
        texts = tuple(map(_text, values))
        with self._lock:
            child = self._children.get(texts)
            if child is not None:
                return child
            if self.label_names and len(self._children) >= self.max_series:
                return self._overflow()
            if self._other is not None and texts == (OTHER,) * len(self.label_names):
                return self._other
            child = self._children[texts] = self._make()
            self.shape += 1
            return child

    def remove(self, *values: object, **named: object) -> None:
        """Forget a child; it need not be there."""
        texts = tuple(map(_text, self.ordered(named) if named else values))
        with self._lock:
            if self.label_names and self._children.pop(texts, None) is not None:
                self.shape += 1

    def clear(self) -> None:
        """Forget all children, and all that was counted."""
        with self._lock:
            self._children.clear()
            self._other = None
            self.overflowed = 0
            self._is_warned = False
            self.shape += 1
            if not self.label_names:
                self._bind(self._make())

    def series(self) -> dict[Labels, C]:
        """All children now, also `other`."""
        with self._lock:
            found = self._children.copy()
            if self._other is not None:
                found[(OTHER,) * len(self.label_names)] = self._other
            return found

    def renew_locks(self) -> None:
        """In a forked child: a thread that held a lock has stayed with the parent."""
        self._lock = threading.RLock()

    def begin_anew(self) -> None:
        """In a forked child: what the parent counted is the parent's."""
        self.renew_locks()
        for child in self.series().values():
            self._zero(child)

    @abstractmethod
    def family(self) -> Family:
        """As it is now."""

    @abstractmethod
    def _make(self) -> C: ...

    @abstractmethod
    def _zero(self, child: C) -> None: ...

    def _bind(self, child: C) -> None:
        """The one child of a metric without labels has changed."""
        self._only = self._children[()] = child

    def ordered(self, named: dict[str, object]) -> tuple[object, ...]:
        """The values of labels given by name, in the order of the labels."""
        try:
            values = tuple(named[name] for name in self.label_names)
        except KeyError as error:
            raise ValueError(f"{self.name}: the label {error} has no value") from None
        if len(named) != len(values):
            unknown = ", ".join(sorted(set(named) - set(self.label_names)))
            raise ValueError(f"{self.name} has no label {unknown}")
        return values

    def _overflow(self) -> C:
        self.overflowed += 1
        if self._other is None:
            # A label may have this value by itself: then both are counted in one series.
            self._other = self._children.get((OTHER,) * len(self.label_names))
            if self._other is None:
                self._other = self._make()
                self.shape += 1
        if not self._is_warned:
            self._is_warned = True
            log.warning(
                'the metric %s has %d series, the most it may have: more are counted under "%s". '
                "Does a label hold an id or a raw path? If not, give it a larger max_series",
                self.name,
                self.max_series,
                OTHER,
            )
        return self._other

    def _blank(self) -> Family:
        return Family(self.name, self.kind, self.help, self.label_names, self.unit)

    def _no_labels(self, what: str) -> Callable[..., None]:
        """Stands in for a method that only metrics without labels have."""

        def refuse(*_: object, **__: object) -> None:
            shown = ", ".join(f"{name}=..." for name in self.label_names)
            raise ValueError(
                f"{self.name} has labels: write {self.name}.labels({shown}).{what}(...)"
            )

        return refuse


def _text(value: object) -> str:
    # A plain str, whose hash is in C; an enum's value, not its name.
    text = str.__str__(value) if isinstance(value, str) else str(value)
    return text if len(text) <= VALUE_MAX else f"{text[: VALUE_MAX - 3]}..."

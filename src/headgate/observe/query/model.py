"""What goes into a query and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from headgate.errors import HeadgateError
from headgate.observe.label_patterns import label_pattern

__all__ = [
    "STALE",
    "Floats",
    "Matcher",
    "QueryFault",
    "Rollup",
    "Rules",
    "Sample",
    "Series",
    "Source",
    "is_stale",
]

Floats = NDArray[np.float64]

_STALE_BITS: Final = 0x7FF0000000000002
STALE: Final = float(np.array([_STALE_BITS], dtype=np.uint64).view(np.float64)[0])
"""The value that says "this series ends here": a NaN with bits of its own, as in Prometheus. Only
`is_stale` tells it from any other NaN."""


def is_stale(values: Floats) -> NDArray[np.bool_]:
    """Where the series ends."""
    bits = np.ascontiguousarray(values).view(np.uint64)
    found: NDArray[np.bool_] = bits == np.uint64(_STALE_BITS)
    return found


class QueryFault(HeadgateError):
    """An expression that cannot be read or answered, with the place and the way out."""

    def __init__(self, message: str, position: int = 0, hint: str = "") -> None:
        super().__init__(f"{message} (at {position + 1}){f'; {hint}' if hint else ''}")
        self.message = message
        self.position = position
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Matcher:
    """A condition on one label; a label that is not there is an empty text."""

    label: str
    op: Literal["=", "!=", "=~", "!~"]
    value: str

    def is_met(self, labels: Mapping[str, str]) -> bool:
        """Whether a series with these labels is meant."""
        return self.is_met_by(labels.get(self.label, ""))

    def is_met_by(self, have: str) -> bool:
        """Whether this value of the label will do."""
        match self.op:
            case "=":
                return have == self.value
            case "!=":
                return have != self.value
            case "=~":
                return label_pattern(self.value).fits(have)
            case "!~":
                return not label_pattern(self.value).fits(have)

    def __str__(self) -> str:
        said = self.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'{self.label}{self.op}"{said}"'


@dataclass(frozen=True, slots=True)
class Rollup:
    """What is known of the samples that one rolled-up sample stands for, place by place."""

    counts: Floats
    sums: Floats
    mins: Floats
    maxs: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Samples of one series in the order of time (seconds since 1970).

    `labels` has the name as `__name__`, unless a function took it away. Where `rollup` is there,
    `values` are the last of each stretch of time, and `avg_over_time` and its like see the rest.
    """

    labels: Mapping[str, str]
    times: Floats
    values: Floats
    rollup: Rollup | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One series at one moment."""

    labels: Mapping[str, str]
    value: float


class Source(Protocol):
    """Where series come from."""

    def select(
        self, name: str, matchers: Sequence[Matcher], start: float, end: float
    ) -> Sequence[Series]:
        """All series that meet the matchers, with their samples from `start` to `end`, both
        included. `name` is empty where the expression gives none; then `matchers` may ask for
        `__name__`.
        """


@dataclass(frozen=True, slots=True)
class Rules:
    """How expressions are answered, and how much may be asked."""

    lookback_s: float = 300.0
    """How old a sample may be and still be the current value of its series."""

    is_closed: bool = False
    """Whether a sample exactly as old as `x[5m]` or the look-back allows is included: no, as of
    Prometheus 3."""

    is_eager: bool = False
    """Whether a rate is carried on to zero before it is asked how far: as until Prometheus 2.52."""

    max_text: int = 10_000
    max_depth: int = 60
    max_steps: int = 11_000
    max_series: int = 50_000
    max_samples: int = 50_000_000
    """Of all selectors and all intermediate results together."""

    is_over: Callable[[], bool] = field(default=lambda: False)
    """Asked now and then; once it says yes, the query ends with a fault."""

"""One metric of Headgate's own, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Kind", "Metric"]

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    merge: Literal["sum", "max"] = "sum"
    """How samples with the same labels from several processes become one."""

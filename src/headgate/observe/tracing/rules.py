"""How much is traced and kept, and where the defaults stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headgate.units import MB

__all__ = ["AUTO", "ExportRules", "Format", "StoreRules", "TracingRules", "Whose"]

Format = Literal["w3c", "b3", "b3multi"]
Whose = Literal["all", "proxies", "none"]
AUTO = -1.0
"""`keep_slow` that follows a percentile of each route."""


@dataclass(frozen=True, slots=True)
class ExportRules:
    """Where spans go as well, by OTLP over HTTP."""

    url: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    timeout_s: float = 10.0
    queue: int = 8192
    """Spans that may wait; of more than that the oldest are dropped and counted."""
    batch: int = 512
    every_s: float = 1.0
    give_up_s: float = 300.0
    """A batch that could not be delivered for so long is dropped and counted."""

    def __repr__(self) -> str:
        return f"ExportRules(url={self.url!r})"  # headers hold keys


@dataclass(frozen=True, slots=True)
class StoreRules:
    """What the built-in store keeps."""

    max_bytes: int = 64 * MB
    keep_s: float = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class TracingRules:
    """What is kept of all that passes."""

    sample: float = 0.01
    """The part of all traces that is kept whatever comes of them, 0 to 1."""
    keep_slow_s: float = 1.0
    """Kept as well: whatever takes longer. 0 is none, `AUTO` the slowest of each route."""
    keep_errors: bool = True
    propagate: tuple[Format, ...] = ("w3c",)
    trust: bool = True
    trust_sampled: Whose = "proxies"
    """Of which callers the decision is followed as well, and not only the trace id."""

"""What a store tells of itself."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Figures"]


@dataclass(slots=True)
class Figures:
    samples: int = 0
    series: int = 0
    dropped_series: int = 0
    skipped_moments: int = 0
    lost_blocks: int = 0
    unwritten_blocks: int = 0
    bytes_on_disk: int = 0
    blocks: dict[str, int] = field(default_factory=dict)
    spoilt: int = 0
    trouble: str = ""

"""What the registry counts, by service and in all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Counts", "Seen", "Statistics"]

from headgate.mesh.registry.model import Instance


@dataclass(slots=True)
class Counts:
    """Since the start of this process."""

    registrations: int = 0
    """Also of those who were there already."""
    beats: int = 0
    left: int = 0
    expired: int = 0
    fenced: int = 0
    """Beats and leaves of those whose id another has registered since."""
    unknown: int = 0
    """Beats and leaves of whom nobody knows (any more)."""
    suspected: int = 0
    """Leases that ran out and were kept, since most were silent."""
    changes: int = 0


@dataclass(frozen=True, slots=True)
class Statistics:
    epoch: str
    revision: int
    services: int
    instances: int
    """Listed."""
    hidden: int
    """Claims that are not: another source, or another instance, has the same id or URL."""
    leases: int
    silent: int
    suspect: int
    draining: int
    refused: int
    """Registrations and rows of sources that were not taken."""
    held_changes: int
    counts: Counts
    by_service: Mapping[str, tuple[int, Counts]]
    """Instances that are listed, and counts."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One claim, as operators look at it."""

    instance: Instance
    source_key: str
    is_listed: bool
    ttl_s: float | None = None
    """None: nobody holds a lease of it."""
    silent_s: float | None = None
    """Since its last beat."""
    beats: int = 0

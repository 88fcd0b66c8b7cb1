"""The bounds and times of the registry of instances; what the file leaves out is as it stands here.

Here, and not beside the registry (`headgate.mesh.registry`), because the file is read by them too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["RegistryRules"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryRules:
    ttl_s: float = 30.0
    """Of a lease that does not say. A third of it between beats: two may be lost."""
    min_ttl_s: float = 1.0
    max_ttl_s: float = 3600.0
    """What is asked for beyond these is cut to them, and the answer says what was given."""
    drain_s: float = 30.0
    """How long who leaves is told as draining, unless it says."""
    max_drain_s: float = 3600.0
    protect_share: float = 0.5
    """More than this share of leases silent at once: the network is suspected, and none ends."""
    protect_least: int = 3
    """Fewer silent leases than these are no sign of anything."""
    protect_last: bool = True
    """When all that a service has are silent, none ends either, however few they are: who has no
    better address loses nothing by trying these."""
    suspect_max_s: float = 3600.0
    """Then a suspect one ends all the same."""
    max_services: int = 2_000
    max_instances: int = 20_000
    """Of all services, and every source that names one counted."""
    max_metadata_entries: int = 32
    max_metadata_bytes: int = 4096
    changes_kept: int = 10_000

    def problems(self) -> Iterator[str]:
        if self.min_ttl_s > self.max_ttl_s:
            yield f"max_ttl_s={self.max_ttl_s:g} is less than min_ttl_s={self.min_ttl_s:g}"
        elif not self.min_ttl_s <= self.ttl_s <= self.max_ttl_s:
            yield (
                f"ttl_s={self.ttl_s:g} is not between min_ttl_s={self.min_ttl_s:g} and "
                f"max_ttl_s={self.max_ttl_s:g}"
            )
        if self.drain_s > self.max_drain_s:
            yield f"drain_s={self.drain_s:g} is more than max_drain_s={self.max_drain_s:g}"

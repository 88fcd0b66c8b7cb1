"""What the store of responses tells an operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from headgate.gateway.caching.lower import LowerSnapshot
    from headgate.gateway.caching.variants import Kept

__all__ = ["StoreSnapshot", "told"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSnapshot:
    entries: int
    keys: int
    bytes: int
    bytes_max: int
    passes: int
    puts: int
    declined: int
    """Responses that did not fit, or were struck while they came."""
    evictions: int
    replaced: int
    struck: int
    struck_soft: int
    expired: int
    lower: LowerSnapshot | None


def told(kept: Kept, wall: float) -> dict[str, Any]:
    stored = kept.stored
    age_s = stored.age_s(wall)
    return {
        "url": kept.url,
        "status": stored.status,
        "age_s": round(age_s, 3),
        "fresh_s": stored.fresh_s,
        "is_fresh": age_s < stored.fresh_s and not kept.is_soft_struck,
        "is_soft_struck": kept.is_soft_struck,
        # Names alone: what requests said in them may be a user's.
        "vary": [name.decode("latin-1") for name, _ in stored.vary],
        "tags": list(stored.tags),
        "etag": None if stored.etag is None else stored.etag.decode("latin-1"),
        "body_bytes": len(kept.body),
        "held_bytes": kept.size,
        "hits": kept.hits,
        "stamp": kept.stamp,
    }

"""What an operator may ask of an object cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headgate.cache.layer import LayerSnapshot

if TYPE_CHECKING:
    from headgate.cache.core import Core
    from headgate.cache.warming import Progress

__all__ = ["CacheSnapshot", "Health", "health_of", "snapshot_of"]


@dataclass(frozen=True, slots=True)
class CacheSnapshot:
    namespace: str
    """The prefix of its keys. The numbers are those of the whole cache."""
    loads: int
    load_failures: int
    joined: int
    """Callers who waited for a load that another had begun."""
    stale: int
    """Times that something stale was served."""
    early: int
    """Values that were made anew before their end."""
    invalidations: int
    dropped: int
    """Values that were invalidated while they were loaded, and not kept."""
    loading: int
    """Now."""
    gaps: int
    """How often news of others may have been missed."""
    costs_s: dict[str, float]
    """What a load takes, by family."""
    warming: tuple[Progress, ...]
    """How far each warming has come that is going on."""
    memory: Any
    """As the memory says (`memory`)."""
    layer: LayerSnapshot | None


@dataclass(frozen=True, slots=True)
class Health:
    is_ok: bool
    is_away: bool
    """The second layer does not answer."""
    is_coherent: bool
    """News of other processes is heard."""
    why: str


def snapshot_of(core: Core, prefix: str) -> CacheSnapshot:
    ask = getattr(core.memory, "snapshot", None)
    return CacheSnapshot(
        namespace=prefix,
        **core.counts,
        loading=len(core.flights),
        gaps=core.gap,
        costs_s=core.costs.snapshot(),
        warming=tuple(one.progress_now() for one in list(core.warmings)),
        memory=None if ask is None else ask(),
        layer=None if core.home is None else core.home.layer.snapshot(),
    )


def health_of(core: Core) -> Health:
    if core.is_closed:
        return Health(False, True, False, "closed")
    if core.home is None:
        return Health(True, False, True, "")
    layer = core.home.layer
    is_coherent = core.is_coherent()
    why = ""
    if layer.is_away:
        why = layer.snapshot().why or f"the {layer.kind} layer does not answer"
    elif not is_coherent:
        why = "news of other processes is not heard"
    return Health(not why, layer.is_away, is_coherent, why)

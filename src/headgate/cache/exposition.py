"""What a cache has counted, all layers together: as a value, as rows, and as Prometheus text.

Memory counts for itself, and so does a second layer what it sends and gets; `stats` counts the
rest. What each family holds is estimated from a sample, as a look at all would stop the loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from headgate.cache.held import Held
from headgate.cache.sizes import size_of
from headgate.cache.stats import Row

if TYPE_CHECKING:
    from headgate.cache.core import Core

__all__ = ["rows_of", "stats_of", "text_of"]

_SAMPLE: Final = 500
_MEMORY: Final = ("hits", "misses", "puts", "refused", "evictions", "expirations", "removals")
_MEMORY_NOW: Final = ("items", "items_max", "bytes", "bytes_max")
_LAYER: Final = ("commands", "batches", "failures", "dropped", "bytes_in", "bytes_out")


def stats_of(core: Core) -> dict[str, Any]:
    """By layer, family and tag, as JSON has it."""
    said: dict[str, Any] = core.stats.snapshot()
    memory, layer = _memory(core), _layer(core)
    if memory is not None:
        said["layers"]["memory"] = {name: memory[name] for name in (*_MEMORY, *_MEMORY_NOW)}
    if layer is not None:
        asked = said["layers"].setdefault(layer["kind"], {})
        said["layers"][layer["kind"]] = {**layer, **asked, "dropped": layer["dropped"]}
    for name, held in _held_bytes(core).items():
        if name in said["families"]:
            said["families"][name]["bytes"] = held
    return said


def rows_of(core: Core) -> Iterator[Row]:
    """Every name begins with `headgate_cache_`; counters end with `_total`."""
    for row in core.stats.rows():
        is_time = row.name.endswith(("_bucket", "_sum", "_count"))
        yield Row(_named(row.name, is_time=is_time), row.labels, row.value)
    for name, value in core.counts.items():
        yield Row(_named(name), (), float(value))
    yield Row(_named("loading", is_time=True), (), float(len(core.flights)))
    memory, layer = _memory(core), _layer(core)
    if memory is not None:
        labels = (("layer", "memory"),)
        for name in _MEMORY:
            yield Row(_named(f"layer_{name}"), labels, float(memory[name]))
        for name in _MEMORY_NOW:
            yield Row(_named(f"layer_{name}", is_time=True), labels, float(memory[name]))
    for name, held in _held_bytes(core).items():
        yield Row(_named("family_bytes", is_time=True), (("family", name),), float(held))
    if layer is not None:
        labels = (("layer", layer["kind"]),)
        for name in _LAYER:
            yield Row(_named(f"layer_link_{name}"), labels, float(layer[name]))
        yield Row(_named("layer_queued", is_time=True), labels, float(layer["queued"]))
        is_up = 0.0 if layer["is_away"] else 1.0
        yield Row(_named("layer_up", is_time=True), labels, is_up)
        is_coherent = 1.0 if core.is_coherent() else 0.0
        yield Row(_named("layer_coherent", is_time=True), labels, is_coherent)


def text_of(rows: Iterable[Row]) -> str:
    """In the text format of Prometheus, version 0.0.4."""
    by_name: dict[str, list[str]] = {}
    kinds: dict[str, str] = {}
    for row in rows:
        name, kind = row.name, "counter" if row.name.endswith("_total") else "gauge"
        for end in ("_bucket", "_sum", "_count"):
            if name.endswith(end):
                name, kind = name.removesuffix(end), "histogram"
        kinds[name] = kind
        labels = ",".join(f'{key}="{_escaped(value)}"' for key, value in row.labels)
        shown = f"{{{labels}}}" if labels else ""
        by_name.setdefault(name, []).append(f"{row.name}{shown} {row.value:.17g}\n")
    return "".join(f"# TYPE {name} {kinds[name]}\n" + "".join(by_name[name]) for name in by_name)


def _named(name: str, *, is_time: bool = False) -> str:
    return f"headgate_cache_{name}" if is_time else f"headgate_cache_{name}_total"


def _escaped(text: str) -> str:
    text = text.encode("utf-8", "replace").decode()  # a lone surrogate is no text to a scraper
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _memory(core: Core) -> dict[str, Any] | None:
    ask = getattr(core.memory, "snapshot", None)
    return None if ask is None else asdict(ask())


def _layer(core: Core) -> dict[str, Any] | None:
    return None if core.home is None else asdict(core.home.layer.snapshot())


def _held_bytes(core: Core) -> dict[str, int]:
    """What the values of each family weigh in memory, about."""
    memory = core.memory
    peek = getattr(memory, "peek", None)
    if peek is None:
        return {}
    keys = list(memory.scan("*"))
    step = max(1, len(keys) // _SAMPLE)
    time_s = core.clock()
    found: dict[str, int] = {}
    for key in keys[::step]:
        held = peek(key, time_s)
        if isinstance(held, Held):
            name = held.family.name
            found[name] = found.get(name, 0) + size_of(held.value) * step
    return found

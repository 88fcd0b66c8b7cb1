"""Figures that other parts of the toolkit keep themselves: the cache, and what guards calls.

    observe.watch_cache(cache)
    observe.watch_resilience(breakers=BREAKERS, limits={"api": limit}, pools=[pool])

They are read when metrics are read and cost their owners nothing. Nothing of them is imported here:
a cache answers `rows()`, a registry of breakers, a limit, a bulkhead, a retry and a pool answer
`snapshot()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from headgate.observe.meters.families import Family, Kind, Labels, Sample
from headgate.observe.meters.registry import REGISTRY, Registry

__all__ = ["watch_cache", "watch_resilience"]

_STATES: Final = ("closed", "open", "half_open", "forced_open", "forced_closed", "disabled")
_ENDS: Final = ("_bucket", "_sum", "_count")

_BULKHEADS: Final = {
    "limit": "gauge",
    "in_flight": "gauge",
    "waiting": "gauge",
    "admitted": "counter",
    "rejected": "counter",
    "timed_out": "counter",
}
_POOLS: Final = {
    "size": "gauge",
    "idle": "gauge",
    "lent": "gauge",
    "waiting": "gauge",
    "opened": "counter",
    "open_failed": "counter",
    "timed_out": "counter",
    "rejected": "counter",
}
_RETRIES: Final = {"retries_total": "counter", "gave_up_total": "counter"}
_LIMITS: Final = {"keys": "gauge", "max_keys": "gauge", "evicted": "counter"}
_BREAKERS: Final = {
    "ok_total": "counter",
    "failed_total": "counter",
    "slow_total": "counter",
    "rejected_total": "counter",
}


def watch_cache(cache: Any, *, registry: Registry = REGISTRY) -> Callable[[], None]:
    """Show the figures of a `headgate.cache.Cache`; the answer ends that."""
    return registry.include(lambda: families_of_rows(cache.rows()))


def families_of_rows(rows: Iterable[Any]) -> list[Family]:
    """Rows of a name, labels and a value as families."""
    found: dict[str, tuple[Kind, list[Sample]]] = {}
    for row in rows:
        kind: Kind = "counter" if row.name.endswith("_total") else "gauge"
        name = row.name
        for end in _ENDS:
            if name.endswith(end):
                name, kind = name.removesuffix(end), "histogram"
        found.setdefault(name, (kind, []))[1].append(Sample(row.name, row.labels, row.value))
    return [
        Family(name, kind, "Of the cache.", samples=tuple(samples))
        for name, (kind, samples) in found.items()
    ]


def watch_resilience(
    *,
    breakers: Any = None,
    limits: Mapping[str, Any] | None = None,
    bulkheads: Iterable[Any] = (),
    retries: Iterable[Any] = (),
    pools: Iterable[Any] = (),
    registry: Registry = REGISTRY,
) -> Callable[[], None]:
    """Show breakers (a registry of them), limits by name, bulkheads, retries and pools."""
    limits = dict(limits or {})
    bulkheads, retries, pools = list(bulkheads), list(retries), list(pools)

    def families() -> list[Family]:
        found: dict[str, Family] = {}
        if breakers is not None:
            for name, shown in breakers.snapshot().items():
                _put(found, "breaker", name, shown, _BREAKERS)
                _state(found, name, str(shown.state))
        for name, limit in limits.items():
            _limit(found, name, limit)
        for prefix, figures, guards in (
            ("bulkhead", _BULKHEADS, bulkheads),
            ("retry", _RETRIES, retries),
            ("pool", _POOLS, pools),
        ):
            for guard in guards:
                shown = guard.snapshot()
                _put(found, prefix, shown.name, shown, figures)
        return list(found.values())

    return registry.include(families)


def _put(
    found: dict[str, Family], prefix: str, name: str, shown: Any, figures: Mapping[str, str]
) -> None:
    for figure, kind in figures.items():
        value = getattr(shown, figure, None)
        if value is None:
            continue
        _number(found, f"{prefix}_{figure}", kind, (prefix,), (name,), value)


def _number(
    found: dict[str, Family],
    name: str,
    kind: str,
    labels: tuple[str, ...],
    values: Labels,
    value: float,
) -> None:
    is_counter = kind == "counter"
    if is_counter and not name.endswith("_total"):
        name += "_total"
    family = found.get(name)
    if family is None:
        what = f"`{name.split('_', 1)[1].removesuffix('_total')}` of each {name.split('_', 1)[0]}."
        family = found[name] = Family(name, "counter" if is_counter else "gauge", what, labels)
    numbers = family.numbers
    # Two guards of one name are shown as one.
    numbers[values] = numbers.get(values, 0) + value


def _state(found: dict[str, Family], name: str, state: str) -> None:
    states = _STATES if state in _STATES else (*_STATES, state)
    for one in states:
        _number(
            found, "breaker_state", "gauge", ("breaker", "state"), (name, one), int(one == state)
        )


def _limit(found: dict[str, Family], name: str, limit: Any) -> None:
    refused = getattr(limit, "refused_total", None)
    if refused is not None:
        _number(found, "limit_refused", "counter", ("limit",), (name,), refused)
    shown = limit.snapshot()
    for one in shown if isinstance(shown, tuple) else (shown,):
        _put(found, "limit", name, one, _LIMITS)

"""What the workers say of their caches, as one. Pure.

A worker says under `cache` of its snapshot:

    routes    by name: how many of each outcome, see `gateway.caching.route_cache.OUTCOMES`
    store     its memory: entries, bytes, bytes_max, evictions, struck, ...; `lower`, if there is
              one, is the layer below it

Memories add up. The layer below is one for all workers of the machine, so its size is what the one
says that has looked last, the largest; what each worker did with it adds up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

__all__ = ["held", "hit_ratio", "routes", "stores", "worries"]

_OF_ROUTE: Final = {
    "hits": ("hit",),
    "stale": ("stale", "stale_on_error"),
    "revalidated": ("revalidated",),
    "collapsed": ("collapsed",),
    "misses": ("miss", "alone"),
    "passed": ("pass",),
    "refused": ("refused",),
    "stored": ("stored",),
    "too_long": ("too_long",),
    "no_room": ("no_room",),
}
_ADDED: Final = (
    "puts",
    "declined",
    "evictions",
    "replaced",
    "struck",
    "struck_soft",
    "expired",
    "hits",
    "misses",
    "writes",
    "queued",
    "dropped",
    "spoilt",
    "failures",
)
_SIZES: Final = ("entries", "bytes", "bytes_max")
_SAME: Final = ("url", "status", "vary", "tags", "etag", "body_bytes")


def routes(workers: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Counts by route. A request is of one of hits, stale, revalidated, collapsed, misses, passed
    and refused.
    """
    found: dict[str, dict[str, int]] = {}
    for worker in workers:
        for route, counts in _mapping(worker.get("routes")).items():
            row = found.setdefault(str(route), dict.fromkeys(_OF_ROUTE, 0))
            for name, outcomes in _OF_ROUTE.items():
                row[name] += sum(_number(_mapping(counts).get(outcome)) for outcome in outcomes)
    return dict(sorted(found.items()))


def hit_ratio(row: Mapping[str, int]) -> float | None:
    """The part of the requests that were for the cache for which no service was asked."""
    served = row["hits"] + row["stale"] + row["collapsed"]
    asked = row["misses"] + row["revalidated"]
    return round(served / (served + asked), 4) if served + asked else None


def stores(workers: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The memory of all workers, and each layer below."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for worker in workers:
        said = _mapping(worker.get("store"))
        if said:
            memory = _row(found, "memory", "")
            _add(memory, said, _ADDED + _SIZES)
        lower = _mapping(said.get("lower"))
        if lower:
            row = _row(found, str(lower.get("kind", "")), str(lower.get("place", "")))
            _add(row, lower, _ADDED)
            for name in _SIZES:
                row[name] = _larger(row[name], lower.get(name))
            if lower.get("is_away") is True:
                row["away"] += 1
            row["why"] = str(lower.get("why") or row["why"])
    return [found[key] for key in sorted(found, key=lambda key: (key[0] != "memory", key))]


def worries(workers: Iterable[Mapping[str, Any]]) -> list[str]:
    """What an operator should know of the layers below memory. Requests do not fail for it."""
    return [
        f"responses in {row['place']} cannot be used by {row['away']} of the workers: {row['why']}"
        for row in stores(workers)
        if row["away"]
    ]


def _row(found: dict[tuple[str, str], dict[str, Any]], kind: str, place: str) -> dict[str, Any]:
    row = found.get((kind, place))
    if row is None:
        row = dict.fromkeys((*_ADDED, "away"), 0)
        row |= dict.fromkeys(_SIZES, 0 if kind == "memory" else None)
        row |= {"kind": kind, "place": place, "why": ""}
        found[(kind, place)] = row
    return row


def _add(row: dict[str, Any], said: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        row[name] += _number(said.get(name))


def held(found: Iterable[tuple[int, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """What workers hold of a URL, the newest first. Each worker has fetched its own: what looks the
    same in several of them is one row with a copy for each; two of one worker are two rows.
    """
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for worker, said in found:
        same = tuple(repr(said.get(name)) for name in _SAME)
        copy = {
            "worker": worker,
            "age_s": _seconds(said.get("age_s")),
            "ttl_s": round(_seconds(said.get("fresh_s")) - _seconds(said.get("age_s")), 3),
            "hits": _number(said.get("hits")),
            "stamp": _number(said.get("stamp")),
            "is_fresh": said.get("is_fresh") is True,
            "is_soft_struck": said.get("is_soft_struck") is True,
        }
        number = 0
        while (row := rows.get((*same, str(number)))) is not None and worker in row["workers"]:
            number += 1
        if row is None:
            row = rows[(*same, str(number))] = {
                "url": str(said.get("url", "")),
                "status": _number(said.get("status")),
                "vary": _texts(said.get("vary")),
                "tags": _texts(said.get("tags")),
                "etag": str(said["etag"]) if said.get("etag") is not None else None,
                "body_bytes": _number(said.get("body_bytes")),
                "held_bytes": 0,
                "hits": 0,
                "workers": [],
                "copies": [],
            }
        row["held_bytes"] += _number(said.get("held_bytes"))
        row["hits"] += copy["hits"]
        row["workers"].append(worker)
        row["copies"].append(copy)
    for row in rows.values():
        youngest = min(row["copies"], key=lambda copy: copy["age_s"])
        row |= {name: youngest[name] for name in ("age_s", "ttl_s", "is_fresh", "is_soft_struck")}
    return sorted(rows.values(), key=lambda row: (row["url"], row["age_s"]))


def _seconds(said: object) -> float:
    return float(said) if isinstance(said, int | float) else 0.0


def _texts(said: object) -> list[str]:
    return [str(each) for each in said] if isinstance(said, list) else []


def _mapping(said: object) -> Mapping[str, Any]:
    return said if isinstance(said, Mapping) else {}


def _larger(known: int | None, said: object) -> int | None:
    """None: nobody knows, as of a Redis that others use as well."""
    if not isinstance(said, int | float) or said < 0:
        return known
    return max(known or 0, int(said))


def _number(said: object) -> int:
    """-1 and the like say that it is not known."""
    return int(said) if isinstance(said, int | float) and said > 0 else 0

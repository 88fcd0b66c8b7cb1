"""Several files into one tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from headgate.config.faults import Faults, path_text
from headgate.config.nodes import Mapping, Node, Scalar, Sequence

__all__ = ["merge"]

WHOLE: Final = ("services", "error_pages")
"""Sections whose entries are each one thing, said in one place."""

_DEEPEST: Final = 4
"""``headers.request.set.NAME`` is as deep as files are merged; aliases could go on for ever."""


Entries = Callable[[Mapping], dict[str, tuple[Scalar, Node]]]


def merge(
    first: Mapping,
    second: Mapping,
    entries_of: Entries,
    faults: Faults,
    path: tuple[str, ...] = (),
) -> Mapping:
    """A mapping with the entries of both. New nodes are made: aliases may share the old ones."""
    merged = Mapping(first.source, first.line, first.column)
    entries = merged.entries = dict(entries_of(first))
    for name, (key, value) in entries_of(second).items():
        there = entries.get(name)
        if there is None or _is_null(there[1]):
            entries[name] = (key, value)
            continue
        if _is_null(value):
            continue
        here = (*path, name)
        old_key, old = there
        is_one_thing = len(here) >= _DEEPEST or (len(here) == 2 and path[0] in WHOLE)
        if isinstance(old, Sequence) and isinstance(value, Sequence):
            joined = Sequence(old.source, old.line, old.column)
            joined.items = [*old.items, *value.items]
            entries[name] = (old_key, joined)
        elif isinstance(old, Mapping) and isinstance(value, Mapping) and not is_one_thing:
            entries[name] = (old_key, merge(old, value, entries_of, faults, here))
        else:
            place = old_key.place
            faults.add(
                key.place,
                f"is said already in {place.file}:{place.line}",
                where=path_text(here),
            )
    return merged


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.plain and node.text in ("", "~", "null")

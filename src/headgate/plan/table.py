"""The rules of one host, arranged so that a path leads to those that might take it.

Theory of operation
-------------------
    exact      path -> leaf
    templates  a trie of segments with one more edge for "a parameter"
    literals   a trie of segments; at a node, the prefixes that end there, and the regexes whose
               literal start ends in that segment, by length and text of what is left of it
    anything   entries without a path

The tries are built out of nodes and then folded: what leads one way only is one object. A branch
without a further fork is its leaf (`entries.py`) with a tail, a table with one branch is that
branch. Among thousands of routes that makes two or three objects to a match where there would be
ten, each of them fetched from memory.

Every fork knows the best rank below it (`best`), and is passed over when it cannot beat what was
found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from sys import intern
from typing import Final

from headgate.plan.entries import (
    PREFIX,
    Crowd,
    Entry,
    Leaf,
    Search,
    Tail,
    Together,
    Way,
    tail_of,
    together,
)
from headgate.plan.paths import ExactPath, PrefixPath, RegexPath, TemplatePath, split_path

__all__ = ["Table"]

_NEVER: Final = 1 << 62
"""A rank behind all others."""


# -- tries, as they are searched -------------------------------------------------------------------


class _TemplateFork:
    __slots__ = ("best", "children", "ends", "parameter", "rests")

    def __init__(
        self,
        children: Mapping[str, Way],
        parameter: Way | None,
        ends: Way | None,
        rests: Way | None,
    ) -> None:
        self.children = children
        self.parameter = parameter
        self.ends = ends
        self.rests = rests
        self.best = _best_of(*children.values(), parameter, ends, rests)

    def search(self, search: Search, at: int) -> None:
        """Go through what fits from segment `at` on: literals first, as they win."""
        found = search.best
        if found is not None and self.best >= found.best:
            return
        segments = search.segments
        if at == len(segments):
            if self.ends is not None:
                self.ends.search(search, at)
            return
        child = self.children.get(segments[at])
        if child is not None:
            child.search(search, at + 1)
        if self.parameter is not None and segments[at]:
            self.parameter.search(search, at + 1)
        if self.rests is not None:
            self.rests.search(search, at)


class _LiteralFork:
    __slots__ = ("best", "children", "prefixes", "regexes")

    def __init__(
        self,
        children: Mapping[str, Way],
        prefixes: Way | None,
        regexes: Mapping[int, Mapping[str, Way]],
    ) -> None:
        self.children = children
        self.prefixes = prefixes
        self.regexes = regexes
        found = [way for parts in regexes.values() for way in parts.values()]
        self.best = _best_of(*children.values(), prefixes, *found)

    def search(self, search: Search, at: int) -> None:
        """Go down as far as the path leads; then try prefixes on the way back, longest first."""
        found = search.best
        if found is not None and self.best >= found.best:
            return
        segments = search.segments
        if at < len(segments):
            segment = segments[at]
            for length, parts in self.regexes.items():
                way = parts.get(segment[:length])
                if way is not None:
                    way.search(search, at)
            child = self.children.get(segment)
            if child is not None:
                child.search(search, at + 1)
        if self.prefixes is not None:
            self.prefixes.search(search, at)


def _best_of(*ways: Way | None) -> int:
    return min([way.best for way in ways if way is not None], default=_NEVER)


def _fold(
    fork: Way,
    below: Sequence[tuple[str | None, Way]],
    leaves: Sequence[tuple[Leaf, Tail | None]],
) -> Way:
    """What stands for a fork: itself, or if there is one way only, the leaf that it leads to.

    `below` are its ways to further segments, `leaves` the entries in it and what they want of the
    path from here on.
    """
    if len(below) + len(leaves) != 1:
        return fork
    if leaves:
        leaf, tail = leaves[0]
        leaf.tail = tail
        return leaf
    text, way = below[0]
    if not isinstance(way, Entry | Together | Crowd):
        return fork
    old = way.tail or PREFIX
    way.tail = tail_of((text, *old.texts), old.length + 1, old.part, is_open=old.is_open)
    return way


# -- tries, as they are built ----------------------------------------------------------------------


class _TemplateNode:
    __slots__ = ("children", "ends", "parameter", "rests")

    def __init__(self) -> None:
        self.children: dict[str, _TemplateNode] = {}
        self.parameter: _TemplateNode | None = None
        self.ends: list[Entry] = []
        self.rests: list[Entry] = []

    def add(self, entry: Entry, path: TemplatePath) -> None:
        node = self
        for segment in path.segments:
            if isinstance(segment, str):
                node = node.children.setdefault(intern(segment), _TemplateNode())
            elif segment.is_rest:
                node.rests.append(entry)
                return
            else:
                node.parameter = node.parameter or _TemplateNode()
                node = node.parameter
        node.ends.append(entry)

    def done(self) -> Way:
        children = {text: node.done() for text, node in self.children.items()}
        parameter = self.parameter.done() if self.parameter is not None else None
        ends = together(self.ends) if self.ends else None
        rests = together(self.rests) if self.rests else None
        below: list[tuple[str | None, Way]] = [*children.items()]
        if parameter is not None:
            below.append((None, parameter))
        leaves: list[tuple[Leaf, Tail | None]] = []
        if ends is not None:
            leaves.append((ends, tail_of((), 0, is_open=False)))
        if rests is not None:
            leaves.append((rests, tail_of((), 1, is_open=True)))
        return _fold(_TemplateFork(children, parameter, ends, rests), below, leaves)


class _LiteralNode:
    __slots__ = ("children", "prefixes", "regexes")

    def __init__(self) -> None:
        self.children: dict[str, _LiteralNode] = {}
        self.prefixes: list[Entry] = []
        # Length of what is left of the literal start -> that text -> regexes. A dict of
        # lengths, because the start seldom ends with a segment ("/report-[0-9]+").
        self.regexes: dict[int, dict[str, list[Entry]]] = {}

    def _reach(self, segments: Iterable[str]) -> _LiteralNode:
        node = self
        for segment in segments:
            node = node.children.setdefault(intern(segment), _LiteralNode())
        return node

    def add_prefix(self, entry: Entry, path: PrefixPath) -> None:
        self._reach(path.segments).prefixes.append(entry)

    def add_regex(self, entry: Entry, path: RegexPath) -> None:
        *whole, part = split_path(path.literal) if path.literal else [""]
        parts = self._reach(whole).regexes.setdefault(len(part), {})
        parts.setdefault(intern(part), []).append(entry)

    def done(self) -> Way:
        children = {text: node.done() for text, node in self.children.items()}
        prefixes = together(self.prefixes) if self.prefixes else None
        leaves: list[tuple[Leaf, Tail | None]] = []
        if prefixes is not None:
            leaves.append((prefixes, None))
        regexes: dict[int, dict[str, Leaf]] = {}
        for length, parts in self.regexes.items():
            for part, entries in parts.items():
                leaf = regexes.setdefault(length, {})[part] = together(entries)
                leaves.append((leaf, tail_of((), 1, part, is_open=True)))
        fork = _LiteralFork(children, prefixes, regexes)
        return _fold(fork, [*children.items()], leaves)


# -- a host ----------------------------------------------------------------------------------------


class _Host:
    """All that there is for one host."""

    __slots__ = ("_anything", "_exact", "_literals", "_templates", "best")

    def __init__(
        self,
        exact: Mapping[str, Way],
        templates: Way | None,
        literals: Way | None,
        anything: Way | None,
    ) -> None:
        self._exact = exact
        self._templates = templates
        self._literals = literals
        self._anything = anything
        self.best = _best_of(*exact.values(), templates, literals, anything)

    def search(self, search: Search, at: int) -> None:
        found = search.best
        if found is not None and self.best >= found.best:
            return
        path = search.path
        way = self._exact.get(path)
        if way is not None:
            way.search(search, 0)
        # "*" of OPTIONS * has no segments: it is in no prefix and in no template.
        if path != "*":
            if self._templates is not None:
                self._templates.search(search, 0)
            if self._literals is not None:
                self._literals.search(search, 0)
        if self._anything is not None:
            self._anything.search(search, 0)


class Table:
    """Collects the rules of one host, which have to be added in order of rank."""

    __slots__ = ("_anything", "_exact", "_literals", "_templates")

    def __init__(self) -> None:
        self._exact: dict[str, list[Entry]] = {}
        self._templates: _TemplateNode | None = None
        self._literals: _LiteralNode | None = None
        self._anything: list[Entry] = []

    def add(self, entry: Entry) -> None:
        path = entry.rule.path
        if path is None:
            self._anything.append(entry)
        elif isinstance(path, ExactPath):
            self._exact.setdefault(path.path, []).append(entry)
        elif isinstance(path, TemplatePath):
            self._templates = self._templates or _TemplateNode()
            self._templates.add(entry, path)
        else:
            self._literals = self._literals or _LiteralNode()
            if isinstance(path, RegexPath):
                self._literals.add_regex(entry, path)
            else:
                self._literals.add_prefix(entry, path)

    def done(self) -> Way:
        """What to search. A table that holds one thing only is that thing."""
        exact = {path: together(entries) for path, entries in self._exact.items()}
        templates = self._templates.done() if self._templates is not None else None
        literals = self._literals.done() if self._literals is not None else None
        anything = together(self._anything) if self._anything else None
        if not exact:
            parts = [way for way in (templates, literals, anything) if way is not None]
            if len(parts) == 1 and (parts[0] is anything or _begins_with_text(parts[0])):
                return parts[0]
        return _Host(exact, templates, literals, anything)


def _begins_with_text(way: Way) -> bool:
    """Whether it asks for a segment that is not empty, which the target "*" does not have."""
    tail = way.tail if isinstance(way, Entry | Together | Crowd) else None
    return tail is not None and bool(tail.texts and tail.texts[0])

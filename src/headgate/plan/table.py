"""The rules of one host, arranged so that a path leads to those that might take it.

Theory of operation
-------------------
    exact      path -> place
    templates  a trie of segments with one more edge for "a parameter"
    literals   a trie of segments; at a node, the prefixes that end there, and the regexes whose
               literal start ends in that segment, by length and text of what is left of it
    anything   entries without a path

A *place* holds the entries that share a host and a path pattern, sorted by rank. They differ in
conditions alone and are tried one by one. Where many do (one route a tenant, told apart by a
header), they are split by the value that one of their conditions asks for (`_Crowd`).

Every node knows the best rank below it (`best`), and `Search` the rank it has; a node that
cannot beat it is passed over. An editor must keep two things: `freeze` runs after the last
`add`, and `offer` gets entries sorted by rank, because it stops at the first that fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from headgate.plan.conditions import Condition, MatchInput, Source
from headgate.plan.match import Matched, MatchRule
from headgate.plan.paths import (
    ExactPath,
    PrefixPath,
    RegexPath,
    TemplatePath,
    parameter_reader,
    split_path,
)

__all__ = ["NEVER", "Allowed", "Entry", "Search", "Table"]

NEVER: Final = 1 << 62
"""A rank behind all others."""
_CROWD: Final = 4
"""From how many entries in one place on an index of values is worth its keep."""


Reader = Callable[[str, Sequence[str]], dict[str, str] | None]


class Entry:
    """A rule in its role for one host.

    What most matches need of the rule is kept here again: among thousands of routes, every
    further object that is looked at is a cache miss.
    """

    __slots__ = ("is_free", "matched", "rank", "read", "rule")

    def __init__(self, rule: MatchRule, rank: int) -> None:
        self.rule = rule
        self.rank = rank
        self.is_free = rule.is_free
        self.matched = Matched(rule.index, {}, client_bound=False)
        # What the place in the index has not settled; exact paths and prefixes are.
        self.read: Reader | None = None
        if isinstance(rule.path, TemplatePath):
            self.read = parameter_reader(rule.path)
        elif isinstance(rule.path, RegexPath):
            self.read = rule.path.read


class Search:
    """One request on its way through the table: the best entry so far."""

    __slots__ = (
        "best",
        "client_bound",
        "params",
        "path",
        "rank",
        "request",
        "segments",
        "wrong_method",
    )

    def __init__(self, request: MatchInput, depth: int) -> None:
        self.request = request
        self.path = request.path
        self.segments = split_path(request.path, depth)
        self.rank = NEVER
        self.best: Entry | None = None
        self.params: dict[str, str] | None = None
        self.client_bound = False
        self.wrong_method = False

    def offer(self, entries: Iterable[Entry]) -> None:
        """Try entries of one place, sorted by rank."""
        for entry in entries:
            if entry.rank >= self.rank:
                return
            params: dict[str, str] | None = None
            if entry.read is not None:
                params = entry.read(self.path, self.segments)
                if params is None:
                    continue
            if not entry.is_free:
                rule = entry.rule
                if rule.methods is not None and self.request.method not in rule.methods:
                    self.wrong_method = True
                    continue
                if not rule.conditions_hold(self.request):
                    continue
                if rule.networks:
                    self.client_bound = True
                    if not rule.takes_client(self.request.client_ip):
                        continue
            self.rank = entry.rank
            self.best = entry
            self.params = params
            return


class Allowed(Search):
    """A second search after a miss: which methods would have been taken."""

    __slots__ = ("methods",)

    def __init__(self, request: MatchInput, depth: int) -> None:
        super().__init__(request, depth)
        self.methods: set[str] = set()

    def offer(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            rule = entry.rule
            if rule.methods is None or rule.methods <= self.methods:
                continue
            if entry.read is not None and entry.read(self.path, self.segments) is None:
                continue
            if not rule.conditions_hold(self.request):
                continue
            if rule.networks:
                self.client_bound = True
                if not rule.takes_client(self.request.client_ip):
                    continue
            self.methods |= rule.methods


class _Place:
    """Entries that differ in conditions alone."""

    __slots__ = ("_added", "crowd", "entries")

    def __init__(self) -> None:
        self._added: list[Entry] = []
        self.entries: tuple[Entry, ...] = ()
        self.crowd: _Crowd | None = None

    def add(self, entry: Entry) -> None:
        self._added.append(entry)

    def freeze(self) -> int:
        """Sort what was added; return the best rank."""
        self.entries = tuple(sorted(self._added, key=_rank_of))
        self._added.clear()
        if len(self.entries) >= _CROWD:
            crowd = _Crowd(self.entries)
            if crowd.is_worth_it:
                self.crowd = crowd
        return self.entries[0].rank

    def offer_to(self, search: Search) -> None:
        search.offer(self.entries if self.crowd is None else self.crowd.candidates(search.request))


def _rank_of(entry: Entry) -> int:
    return entry.rank


class _Crowd:
    """Many entries in one place, found by the value that one condition of each asks for."""

    __slots__ = ("_keyed", "_rest", "_size")

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._size = len(entries)
        self._rest: list[Entry] = []
        self._keyed: dict[tuple[Source, str], tuple[Condition, dict[str, list[Entry]]]] = {}
        for entry in entries:
            condition = next((c for c in entry.rule.conditions if c.equals is not None), None)
            if condition is None or condition.equals is None:
                self._rest.append(entry)
                continue
            key = (condition.source, condition.name.lower())
            if condition.source != "header":
                key = (condition.source, condition.name)
            _, by_value = self._keyed.setdefault(key, (condition, {}))
            by_value.setdefault(condition.equals, []).append(entry)

    @property
    def is_worth_it(self) -> bool:
        return len(self._rest) + len(self._keyed) <= self._size // 2

    def candidates(self, request: MatchInput) -> list[Entry]:
        found = list(self._rest)
        for condition, by_value in self._keyed.values():
            for value in dict.fromkeys(condition.values(request)):
                found.extend(by_value.get(value, ()))
        found.sort(key=_rank_of)
        return found


class _TemplateNode:
    __slots__ = ("best", "children", "ends", "parameter", "rests")

    def __init__(self) -> None:
        self.children: dict[str, _TemplateNode] = {}
        self.parameter: _TemplateNode | None = None
        self.ends: _Place | None = None
        self.rests: _Place | None = None
        self.best = NEVER

    def add(self, entry: Entry, path: TemplatePath) -> None:
        node = self
        for segment in path.segments:
            if isinstance(segment, str):
                node = node.children.setdefault(segment, _TemplateNode())
            elif segment.is_rest:
                node.rests = node.rests or _Place()
                node.rests.add(entry)
                return
            else:
                node.parameter = node.parameter or _TemplateNode()
                node = node.parameter
        node.ends = node.ends or _Place()
        node.ends.add(entry)

    def freeze(self) -> int:
        below = list(self.children.values())
        if self.parameter is not None:
            below.append(self.parameter)
        ranks = [node.freeze() for node in below]
        ranks += [place.freeze() for place in (self.ends, self.rests) if place is not None]
        self.best = min(ranks, default=NEVER)
        return self.best

    def search(self, search: Search, at: int) -> None:
        """Go through what fits from segment `at` on: literals first, as they win."""
        if self.best >= search.rank:
            return
        segments = search.segments
        if at == len(segments):
            if self.ends is not None:
                self.ends.offer_to(search)
            return
        child = self.children.get(segments[at])
        if child is not None:
            child.search(search, at + 1)
        if self.parameter is not None and segments[at]:
            self.parameter.search(search, at + 1)
        if self.rests is not None:
            self.rests.offer_to(search)


class _LiteralNode:
    __slots__ = ("best", "children", "prefixes", "regexes")

    def __init__(self) -> None:
        self.children: dict[str, _LiteralNode] = {}
        self.prefixes: _Place | None = None
        # Length of what is left of the literal start -> that text -> regexes. A dict of
        # lengths, because the start seldom ends with a segment ("/report-[0-9]+").
        self.regexes: dict[int, dict[str, _Place]] = {}
        self.best = NEVER

    def _reach(self, segments: Iterable[str]) -> _LiteralNode:
        node = self
        for segment in segments:
            node = node.children.setdefault(segment, _LiteralNode())
        return node

    def add_prefix(self, entry: Entry, path: PrefixPath) -> None:
        node = self._reach(path.segments)
        node.prefixes = node.prefixes or _Place()
        node.prefixes.add(entry)

    def add_regex(self, entry: Entry, path: RegexPath) -> None:
        *whole, part = split_path(path.literal) if path.literal else [""]
        tails = self._reach(whole).regexes.setdefault(len(part), {})
        tails.setdefault(part, _Place()).add(entry)

    def freeze(self) -> int:
        ranks = [node.freeze() for node in self.children.values()]
        if self.prefixes is not None:
            ranks.append(self.prefixes.freeze())
        ranks += [place.freeze() for tails in self.regexes.values() for place in tails.values()]
        self.best = min(ranks, default=NEVER)
        return self.best

    def search(self, search: Search, at: int) -> None:
        """Go down as far as the path leads; then try prefixes on the way back, longest first."""
        if self.best >= search.rank:
            return
        segments = search.segments
        if at < len(segments):
            if self.regexes:
                segment = segments[at]
                for length, tails in self.regexes.items():
                    place = tails.get(segment[:length])
                    if place is not None:
                        place.offer_to(search)
            child = self.children.get(segments[at])
            if child is not None:
                child.search(search, at + 1)
        if self.prefixes is not None:
            self.prefixes.offer_to(search)


class Table:
    """The rules of one host."""

    __slots__ = ("anything", "best", "exact", "literals", "templates")

    def __init__(self) -> None:
        self.exact: dict[str, _Place] = {}
        self.templates: _TemplateNode | None = None
        self.literals: _LiteralNode | None = None
        self.anything: _Place | None = None
        self.best = NEVER

    def add(self, entry: Entry) -> None:
        path = entry.rule.path
        if path is None:
            self.anything = self.anything or _Place()
            self.anything.add(entry)
        elif isinstance(path, ExactPath):
            self.exact.setdefault(path.path, _Place()).add(entry)
        elif isinstance(path, TemplatePath):
            self.templates = self.templates or _TemplateNode()
            self.templates.add(entry, path)
        else:
            self.literals = self.literals or _LiteralNode()
            if isinstance(path, RegexPath):
                self.literals.add_regex(entry, path)
            else:
                self.literals.add_prefix(entry, path)

    def freeze(self) -> None:
        ranks = [place.freeze() for place in self.exact.values()]
        ranks += [
            part.freeze()
            for part in (self.templates, self.literals, self.anything)
            if part is not None
        ]
        self.best = min(ranks, default=NEVER)

    def search(self, search: Search) -> None:
        if self.best >= search.rank:
            return
        place = self.exact.get(search.path)
        if place is not None:
            place.offer_to(search)
        # "*" of OPTIONS * has no segments: it is in no prefix and in no template.
        if search.path.startswith("/"):
            if self.templates is not None:
                self.templates.search(search, 0)
            if self.literals is not None:
                self.literals.search(search, 0)
        if self.anything is not None:
            self.anything.offer_to(search)

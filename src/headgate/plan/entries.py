"""The entries of the route table: rules in their role for one host, alone or together.

Theory of operation
-------------------
A trie (`table.py`) leads a path to a *leaf*. That is one entry, or all that share a host and a
path pattern (`Together`, sorted by rank): they differ in conditions alone and are tried one by
one. Where many do (one route a tenant, told apart by a header), they are split by the value that
one of their conditions asks for (`Crowd`).

A leaf may have a *tail*: what is left of the path between the last fork of the trie and the leaf.

What an editor must not break:
- A search finds the lowest rank in any order; that those which stand together are tried in order
  of rank spares looking at addresses where the answer does not depend on them.
- With thousands of routes every object that a search touches is fetched from memory, which costs
  more than the work done there. So what a match needs of a rule stands in its entry again, tails
  and readers are shared, and ranks, which are objects too, are compared only once something has
  been found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

from headgate.plan.conditions import Condition, MatchInput, Source
from headgate.plan.match import Matched, MatchRule
from headgate.plan.paths import RegexPath, TemplatePath, parameter_reader, regex_reader

if TYPE_CHECKING:
    from headgate.wire.message import RequestHead

__all__ = [
    "PREFIX",
    "Allowed",
    "Crowd",
    "Entry",
    "Leaf",
    "Search",
    "Tail",
    "Together",
    "Way",
    "tail_of",
    "together",
]

_CROWD: Final = 4
"""From how many entries in one place on an index of values is worth its keep."""
_NO_PARAMS: Final[Mapping[str, str]] = {}

Reader = Callable[[str, Sequence[str]], dict[str, str] | None]


class Way(Protocol):
    """Something that a part of the path leads to: a fork of a trie, or a leaf."""

    @property
    def best(self) -> int: ...

    def search(self, search: Search, at: int) -> None:
        """Try what fits from segment `at` on."""


class Tail:
    """What is left of a path between the last fork and the entries."""

    __slots__ = ("is_open", "length", "part", "texts")

    def __init__(
        self, texts: tuple[str | None, ...], length: int, part: str, *, is_open: bool
    ) -> None:
        """`texts`: the segments that are left, None for a parameter. `length`: how many there
        have to be, or at least have to be if the tail is open. `part`: what the segment after
        the texts has to begin with, where the literal start of a regex ends in it.
        """
        self.texts = texts
        self.length = length
        self.part = part
        self.is_open = is_open

    def fits(self, segments: list[str], at: int) -> bool:
        left = len(segments) - at
        if left < self.length if self.is_open else left != self.length:
            return False
        for text in self.texts:
            if text is not None and text != segments[at]:
                return False
            at += 1
        return not self.part or segments[at].startswith(self.part)


@lru_cache(maxsize=4096)
def tail_of(texts: tuple[str | None, ...], length: int, part: str = "", *, is_open: bool) -> Tail:
    """Return a tail that all routes with the same one share."""
    return Tail(texts, length, part, is_open=is_open)


PREFIX: Final = tail_of((), 0, is_open=True)


class Leaf(Way, Protocol):
    """What stands at the end of a branch."""

    tail: Tail | None


class Entry(Matched):
    """A rule in its role for one host, and the answer where it has no parameters."""

    __slots__ = ("best", "is_free", "read", "rule", "tail")

    def __init__(self, rule: MatchRule, rank: int) -> None:
        super().__init__(rule.index, _NO_PARAMS, client_bound=False)
        self.rule = rule
        self.best = rank
        self.tail: Tail | None = None
        self.is_free = rule.is_free
        """Whether nothing has to be asked beside what its place in the index has settled."""
        # What the place has not settled of the path; exact paths and prefixes are.
        self.read: Reader | None = None
        if isinstance(rule.path, TemplatePath):
            self.read = parameter_reader(rule.path)
        elif isinstance(rule.path, RegexPath):
            self.read = regex_reader(rule.path)

    def search(self, search: Search, at: int) -> None:
        found = search.best
        if found is not None and self.best >= found.best:
            return
        if self.tail is not None and not self.tail.fits(search.segments, at):
            return
        params: dict[str, str] | None = None
        if self.read is not None:
            params = self.read(search.path, search.segments)
            if params is None:
                return
        if self.is_free or search.takes(self.rule):
            search.best = self
            search.params = params


class Search:
    """One request on its way through the table: the best entry so far."""

    __slots__ = (
        "_asked",
        "best",
        "client_bound",
        "client_ip",
        "head",
        "params",
        "path",
        "segments",
        "wrong_method",
    )

    def __init__(self, head: RequestHead | MatchInput, client_ip: str, depth: int) -> None:
        self.head = head
        self.client_ip = client_ip
        self._asked: MatchInput | None = None
        self.path = path = head.path
        self.segments = path[1:].split("/", depth)
        self.best: Entry | None = None
        self.params: dict[str, str] | None = None
        self.client_bound = False
        self.wrong_method = False

    @property
    def asked(self) -> MatchInput:
        """The request, for what looks at more than host, path and method. Most do not."""
        if self._asked is None:
            head = self.head
            if isinstance(head, MatchInput):
                self._asked = head
            else:
                self._asked = MatchInput(
                    head.method,
                    head.host,
                    head.path,
                    head.query,
                    head.headers,
                    self.client_ip,
                    head.scheme,
                )
        return self._asked

    def takes(self, rule: MatchRule) -> bool:
        """Whether everything holds that a rule asks for beside host and path."""
        if rule.methods is not None and self.head.method not in rule.methods:
            self.wrong_method = True
            return False
        if rule.conditions and not rule.conditions_hold(self.asked):
            return False
        if rule.networks:
            self.client_bound = True
            return rule.takes_client(self.client_ip)
        return True


class Allowed(Search):
    """A second search after a miss: which methods would have been taken.

    It takes nothing, so it goes everywhere. It meets no entry that is free: that one would have
    been found the first time.
    """

    __slots__ = ("methods",)

    def __init__(self, head: RequestHead | MatchInput, client_ip: str, depth: int) -> None:
        super().__init__(head, client_ip, depth)
        self.methods: set[str] = set()

    def takes(self, rule: MatchRule) -> bool:
        if rule.methods is None or rule.methods <= self.methods:
            return False
        if not rule.conditions_hold(self.asked):
            return False
        if rule.networks:
            self.client_bound = True
            if not rule.takes_client(self.client_ip):
                return False
        self.methods |= rule.methods
        return False


# -- entries that stand together -------------------------------------------------------------------


class Together:
    """Entries that differ in conditions alone, sorted by rank."""

    __slots__ = ("_entries", "best", "tail")

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = tuple(entries)
        self.best = entries[0].best
        self.tail: Tail | None = None

    def search(self, search: Search, at: int) -> None:
        found = search.best
        if found is not None and self.best >= found.best:
            return
        if self.tail is None or self.tail.fits(search.segments, at):
            for entry in self._entries:
                entry.search(search, at)
                if search.best is entry:
                    return


class Crowd:
    """Many entries in one place, found by the value that one condition of each asks for."""

    __slots__ = ("_keyed", "_rest", "best", "tail")

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.best = entries[0].best
        self.tail: Tail | None = None
        self._rest: list[Way] = []
        keyed: dict[tuple[Source, str], tuple[Condition, dict[str, list[Entry]]]] = {}
        for entry in entries:
            condition = _key_of(entry)
            if condition is None or condition.equals is None:
                self._rest.append(entry)
                continue
            _, by_value = keyed.setdefault(_kind(condition), (condition, {}))
            by_value.setdefault(condition.equals, []).append(entry)
            if entry.rule.condition_count == 1:
                entry.is_free = True  # who is found here by its value has what it asks for
        self._keyed: list[tuple[Condition, dict[str, Way]]] = [
            (
                condition,
                {v: Together(e) if len(e) > 1 else e[0] for v, e in by_value.items()},
            )
            for condition, by_value in keyed.values()
        ]

    @staticmethod
    def is_worth_it(entries: Sequence[Entry]) -> bool:
        conditions = [_key_of(entry) for entry in entries]
        kinds = {_kind(condition) for condition in conditions if condition is not None}
        return conditions.count(None) + len(kinds) <= len(entries) // 2

    def search(self, search: Search, at: int) -> None:
        found = search.best
        if found is not None and self.best >= found.best:
            return
        if self.tail is not None and not self.tail.fits(search.segments, at):
            return
        ways = self._rest
        asked = search.asked
        for condition, by_value in self._keyed:
            for value in dict.fromkeys(condition.values(asked)):
                way = by_value.get(value)
                if way is not None:
                    ways = [*ways, way]
        if len(ways) > 1:
            ways = sorted(ways, key=_best_key)
        for way in ways:
            way.search(search, at)


def _key_of(entry: Entry) -> Condition | None:
    """The condition that an entry is found by in a crowd."""
    return next((c for c in entry.rule.conditions if c.equals is not None), None)


def _kind(condition: Condition) -> tuple[Source, str]:
    is_header = condition.source == "header"
    return (condition.source, condition.name.lower() if is_header else condition.name)


def _best_key(way: Way) -> int:
    return way.best


def together(entries: list[Entry]) -> Leaf:
    """What stands for all entries of one place, which are sorted by rank."""
    if len(entries) == 1:
        return entries[0]
    if len(entries) >= _CROWD and Crowd.is_worth_it(entries):
        return Crowd(entries)
    return Together(entries)

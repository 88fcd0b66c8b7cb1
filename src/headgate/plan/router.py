"""The route table: which rule takes a request, at a cost that does not grow with the rules.

Theory of operation
-------------------
Precedence compares two rules without looking at any request (`match.precedence`), so all rules,
one entry for each of their hosts, are sorted once and numbered: an entry's *rank*. To match is
then to find, among the entries that take a request, the one of lowest rank. The indexes only
have to offer every entry that might take the request; the order in which they do decides
nothing but speed.

Entries are kept by host: one dict of exact hosts, one of wildcard suffixes, one table for any
host; `table.py` says what a table is. A search goes from the table likeliest to win to the
least, and passes over whatever cannot beat what it has. With equal priorities that means it
stops at the first match; a rule with a higher `priority` in an unlikely place is still found.

What still grows: regexes without a literal start, or with the same one; entries with one host
and one path that differ by regex conditions or networks alone. All of them are the operator's,
none is the client's to choose.

A path is split no deeper than the deepest rule, so a path of eight thousand slashes costs
nothing extra.

A miss is the slow path: when something only lacked the right method, a second search gathers
the methods that would have been taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from headgate.plan.conditions import MatchInput
from headgate.plan.entries import Allowed, Entry, Search, Way
from headgate.plan.explain import Explanation, explain_roles
from headgate.plan.match import Matched, MatchRule, Missed, precedence, rule_from_spec
from headgate.plan.paths import ExactPath, RegexPath
from headgate.plan.table import Table

if TYPE_CHECKING:
    from headgate.wire.message import RequestHead

__all__ = ["MatchInput", "MatchRule", "Matched", "Missed", "Router", "rule_from_spec"]

_NOTHING: Final = Missed((), client_bound=False)


class Router:
    """All routes of a plan. Built once, then only read."""

    def __init__(self, rules: Sequence[MatchRule]) -> None:
        roles = [(rule, host) for rule in rules for host in (rule.hosts or (None,))]
        roles.sort(key=lambda role: precedence(*role))
        self._roles: Final = tuple(roles)
        tables: dict[str | None, Table] = {}
        for rank, (rule, host) in enumerate(roles):
            tables.setdefault(host, Table()).add(Entry(rule, rank))
        ways = {host: table.done() for host, table in tables.items()}
        self._any: Final[Way | None] = ways.pop(None, None)
        self._exact: Final[dict[str, Way]] = {}
        self._below: Final[dict[str, Way]] = {}
        for name, way in ways.items():
            if name is not None and name.startswith("*."):
                self._below[name[2:]] = way
            elif name is not None:
                self._exact[name] = way
        self._depth: Final = max((_depth(rule) for rule in rules), default=0)

    def match(self, request: MatchInput) -> Matched | Missed:
        return self.match_head(request, request.client_ip)

    def match_head(self, head: RequestHead | MatchInput, client_ip: str) -> Matched | Missed:
        """The same for a head and the client that it came from."""
        search = Search(head, client_ip, self._depth)
        self._search(search)
        best = search.best
        if best is None:
            return self._missed(search) if search.wrong_method else _missed(search, ())
        if search.params is None and not search.client_bound:
            return best
        return Matched(best.index, search.params or {}, search.client_bound)

    def serves_host(self, host: str) -> bool:
        """Whether any route could take a request to this host: 404 against 421."""
        if self._any is not None or host in self._exact:
            return True
        return any(suffix in self._below for suffix in _suffixes(host))

    def explain(self, request: MatchInput) -> Explanation:
        """Say who would take the request and why the others do not. Looks at every rule."""
        return explain_roles(self._roles, request, self.match(request))

    def _search(self, search: Search) -> None:
        host = search.head.host
        way = self._exact.get(host)
        if way is not None:
            way.search(search, 0)
        if self._below:
            for suffix in _suffixes(host):
                way = self._below.get(suffix)
                if way is not None:
                    way.search(search, 0)
        if self._any is not None:
            self._any.search(search, 0)

    def _missed(self, first: Search) -> Missed:
        search = Allowed(first.head, first.client_ip, self._depth)
        self._search(search)
        search.client_bound |= first.client_bound
        return _missed(search, tuple(sorted(search.methods)))


def _missed(search: Search, allow: tuple[str, ...]) -> Missed:
    return Missed(allow, search.client_bound) if allow or search.client_bound else _NOTHING


def _suffixes(host: str) -> Iterator[str]:
    """The names above a host, nearest first: example.org and org for www.example.org."""
    at = host.find(".")
    while at >= 0:
        yield host[at + 1 :]
        at = host.find(".", at + 1)


def _depth(rule: MatchRule) -> int:
    """How many segments of a path have to be told apart for a rule."""
    path = rule.path
    if path is None or isinstance(path, ExactPath):
        return 0
    if isinstance(path, RegexPath):
        return path.literal.count("/")
    return len(path.segments)

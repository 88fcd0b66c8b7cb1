"""Rules made into tests, and alternatives into look-ups.

Theory of operation
-------------------
An alternative is a conjunction of conditions. Many of these can be turned round: "has one of the
roles a, b" can only hold for who has a or b. Such a condition is an *anchor* with *keys*. The
alternatives of an `AnyOf` are filed under the keys of one anchor each:

    roles:    admin  -> always
              editor -> methods in (GET, PUT)
    claim tenant:  acme -> roles has auditor

and a request is looked up by what it has: for each of its roles that is a key here (the smaller
set is walked), the rest of the alternatives filed there. The rest is an `AnyOf` again and is
indexed likewise by what remains, so 2,000 alternatives for one role that differ by tenant cost
two look-ups. Which anchors are used is decided by how many alternatives each can file and how
evenly.

What cannot be turned round (times, negations, patterns, own parameters) is tried in turn. An
alternative with many keys is filed many times; the number of filings is bounded, and what is
beyond is tried in turn too. Equal remainders are compiled once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, cast

from headgate.security.access_conditions import (
    Test,
    always,
    during,
    has_all,
    has_any,
    inverted,
    matching,
    never,
    own,
)
from headgate.security.access_rules import (
    AccessRules,
    AllOf,
    AnyOf,
    Claim,
    During,
    From,
    HasAll,
    HasAny,
    Is,
    Known,
    Methods,
    Network,
    Not,
    OverTls,
    Own,
    address_of,
    claim_path,
    claim_texts,
)

if TYPE_CHECKING:
    from headgate.security.access import Asked
    from headgate.security.identity import Identity

__all__ = ["Compiler"]

Kind = tuple[str, str]
"""What is looked up, and for claims which: `("roles", "")`, `("claim", "tenant")`."""

FILINGS_MAX: Final = 100_000
_FEW: Final = 2
_LEVELS_MAX: Final = 8
_LOOK_UPS_MAX: Final = 16
_CANDIDATES: Final = 8
"""So many anchors are weighed at a time: those that most alternatives have."""
_BITS: Final = {4: 32, 6: 128}


class Compiler:
    """Compiles one tree of rules."""

    def __init__(self, filings_max: int = FILINGS_MAX) -> None:
        self._left = filings_max
        self._level = 0
        self._known: dict[AccessRules, Test] = {}

    def test(self, rule: AccessRules) -> Test:
        """The test of a rule. Raises ValueError for a pattern or a time zone that is none."""
        known = self._known.get(rule)
        if known is None:
            known = self._known[rule] = self._compiled(rule)
        return known

    def _compiled(self, rule: AccessRules) -> Test:
        match rule:
            case AnyOf(rules):
                return self._any_of(rules)
            case AllOf():
                return self._all_of(_flat(rule))
            case Not(Not(inner)):
                return self.test(inner)
            case Not(inner):
                return inverted(self.test(inner))
            case _:
                return _condition(rule)

    def _all_of(self, rules: Sequence[AccessRules]) -> Test:
        tests = [self.test(rule) for rule in sorted(rules, key=_cost)]
        tests = [test for test in tests if test is not always]
        if never in tests:
            return never
        if len(tests) < _FEW:
            return tests[0] if tests else always
        if len(tests) == _FEW:
            one, other = tests
            return lambda identity, asked: one(identity, asked) and other(identity, asked)
        every = tuple(tests)

        def holds(identity: Identity | None, asked: Asked) -> bool:
            for test in every:  # noqa: SIM110 - a generator costs as much as three tests
                if not test(identity, asked):
                    return False
            return True

        return holds

    def _any_of(self, rules: Sequence[AccessRules]) -> Test:
        alternatives = list(dict.fromkeys(_alternatives(rules)))
        if () in alternatives:
            return always
        tests: list[Test] = []
        for _ in range(_LOOK_UPS_MAX):
            kind = _best_anchor(alternatives) if self._level < _LEVELS_MAX else None
            if kind is None:
                break
            filed, alternatives = self._file(kind, alternatives)
            if not filed:
                break
            tests.append(self._looked_up(kind, filed))
        tests += [self._all_of(each) for each in alternatives]
        tests = [test for test in tests if test is not never]
        if always in tests:
            return always
        if len(tests) < _FEW:
            return tests[0] if tests else never
        several = tuple(tests)

        def holds(identity: Identity | None, asked: Asked) -> bool:
            for test in several:  # noqa: SIM110 - likewise
                if test(identity, asked):
                    return True
            return False

        return holds

    def _file(
        self, kind: Kind, alternatives: Iterable[Conjunction]
    ) -> tuple[dict[Hashable, list[AccessRules]], list[Conjunction]]:
        """Alternatives by their keys of this kind, and those that have none."""
        counts = _counts(kind, alternatives)
        filed: dict[Hashable, list[AccessRules]] = {}
        others = []
        for each in alternatives:
            anchor = next((rule for rule in each if _kind(rule) == kind), None)
            keys = () if anchor is None else _keys(anchor)
            if anchor is None or len(keys) > self._left:
                others.append(each)
                continue
            rest = [rule for rule in each if rule is not anchor]
            if isinstance(anchor, HasAll):
                # One name is enough to look it up by; the rarest leaves the least to try. The
                # others must not become an anchor again, name by name: a negation is none.
                if len(keys) > 1:
                    rest.append(Not(Not(anchor)))
                keys = (min(keys, key=lambda key: counts[key]),)
            self._left -= len(keys)
            rule = rest[0] if len(rest) == 1 else AllOf(tuple(rest))
            for key in keys:
                filed.setdefault(key, []).append(rule)
        return filed, others

    def _looked_up(self, kind: Kind, filed: dict[Hashable, list[AccessRules]]) -> Test:
        self._level += 1
        table = {
            key: self.test(rules[0] if len(rules) == 1 else AnyOf(tuple(rules)))
            for key, rules in filed.items()
        }
        self._level -= 1
        return _LOOK_UPS[kind[0]](kind[1], table)


# -- alternatives --------------------------------------------------------------------------------

Conjunction = tuple[AccessRules, ...]


def _flat(rule: AccessRules) -> Conjunction:
    """The conditions that must all hold, without conjunctions in it and without doubles."""
    if not isinstance(rule, AllOf):
        return (rule,)
    return tuple(dict.fromkeys(inner for each in rule.rules for inner in _flat(each)))


def _alternatives(rules: Iterable[AccessRules]) -> Iterable[Conjunction]:
    for rule in rules:
        if isinstance(rule, AnyOf):
            yield from _alternatives(rule.rules)
            continue
        conjunction = _flat(rule)
        if len(conjunction) == 1 and isinstance(conjunction[0], AnyOf):
            yield from _alternatives(conjunction)
        else:
            yield conjunction


def _kind(rule: AccessRules) -> Kind | None:
    """What a condition can be looked up by."""
    match rule:
        case HasAny(of) | HasAll(of, [_, *_]):
            return of, ""
        case Is(of):
            return of, ""
        case Claim(path, _, ()):
            return "claim", path
        case From():
            return "address", ""
        case Methods():
            return "methods", ""
        case _:
            return None


def _keys(rule: AccessRules) -> tuple[Hashable, ...]:
    match rule:
        case HasAny(_, names) | HasAll(_, names) | Is(_, names) | Methods(names):
            return tuple(dict.fromkeys(names))
        case Claim(_, values):
            return tuple(dict.fromkeys(values))
        case From(networks):
            return tuple(dict.fromkeys(_prefix(each) for each in networks))
        case _:
            return ()


def _counts(kind: Kind, alternatives: Iterable[Conjunction]) -> dict[Hashable, int]:
    counts: dict[Hashable, int] = {}
    for each in alternatives:
        anchor = next((rule for rule in each if _kind(rule) == kind), None)
        if anchor is not None:
            for key in _keys(anchor):
                counts[key] = counts.get(key, 0) + 1
    return counts


def _best_anchor(alternatives: Sequence[Conjunction]) -> Kind | None:
    """The kind that leaves the least to try; None where looking up gains nothing."""
    covered: dict[Kind, int] = {}
    for each in alternatives:
        for kind in dict.fromkeys(_kind(rule) for rule in each):
            if kind is not None:
                covered[kind] = covered.get(kind, 0) + 1
    best, gain = None, 0.0
    often = sorted(covered.items(), key=lambda item: -item[1])
    for kind, count in often[:_CANDIDATES]:
        if count <= gain or count < _FEW:
            break
        counts = _counts(kind, alternatives)
        if not counts:
            continue
        saved = count - sum(counts.values()) / len(counts)
        if saved > gain:
            best, gain = kind, saved
    return best


# -- look-ups ------------------------------------------------------------------------------------


def _sorted_out(table: dict[Hashable, Test]) -> tuple[frozenset[Hashable], dict[Hashable, Test]]:
    """Keys that are enough by themselves, and the others."""
    enough = frozenset(key for key, test in table.items() if test is always)
    more = {key: test for key, test in table.items() if test is not always and test is not never}
    return enough, more


def _by_held(of: str) -> Callable[[str, dict[Hashable, Test]], Test]:
    def look_up(_name: str, table: dict[Hashable, Test]) -> Test:
        enough, more = _sorted_out(table)
        if not more:
            return has_any(of, enough)
        keys = frozenset(more)

        def holds(identity: Identity | None, asked: Asked) -> bool:
            if identity is None:
                return False
            held: frozenset[str] = getattr(identity, of)
            if not enough.isdisjoint(held):
                return True
            for key in keys & held:  # noqa: SIM110 - likewise
                if more[key](identity, asked):
                    return True
            return False

        return holds

    return look_up


def _by_value(
    values_of: Callable[[Identity | None, Asked], Iterable[Hashable]],
    table: dict[Hashable, Test],
) -> Test:
    enough, more = _sorted_out(table)

    def holds(identity: Identity | None, asked: Asked) -> bool:
        for value in values_of(identity, asked):
            if value in enough:
                return True
            test = more.get(value)
            if test is not None and test(identity, asked):
                return True
        return False

    return holds


def _by_name(of: str) -> Callable[[str, dict[Hashable, Test]], Test]:
    def values_of(identity: Identity | None, _asked: Asked) -> Iterable[Hashable]:
        return () if identity is None else (getattr(identity, of),)

    return lambda _name, table: _by_value(values_of, table)


def _by_claim(name: str, table: dict[Hashable, Test]) -> Test:
    path = claim_path(name)
    return _by_value(
        lambda identity, _asked: () if identity is None else claim_texts(identity.claims, path),
        table,
    )


def _by_method(_name: str, table: dict[Hashable, Test]) -> Test:
    return _by_value(lambda _identity, asked: (asked.method,), table)


def _prefix(network: Network) -> tuple[int, int, int]:
    version, length = network.version, network.prefixlen
    return version, length, int(network.network_address) >> (_BITS[version] - length)


def _by_address(_name: str, table: dict[Hashable, Test]) -> Test:
    lengths: dict[int, set[int]] = {4: set(), 6: set()}
    for key in table:
        version, length, _ = cast("tuple[int, int, int]", key)
        lengths[version].add(length)
    # The narrowest first.
    ordered = {version: tuple(sorted(found, reverse=True)) for version, found in lengths.items()}

    def values_of(_identity: Identity | None, asked: Asked) -> Iterable[Hashable]:
        found = address_of(asked.client_ip)
        if found is None:
            return ()
        version, number = found
        bits = _BITS[version]
        return [(version, length, number >> (bits - length)) for length in ordered[version]]

    return _by_value(values_of, table)


_LOOK_UPS: Final[dict[str, Callable[[str, dict[Hashable, Test]], Test]]] = {
    "roles": _by_held("roles"),
    "scopes": _by_held("scopes"),
    "groups": _by_held("groups"),
    "subject": _by_name("subject"),
    "consumer": _by_name("consumer"),
    "method": _by_name("method"),
    "claim": _by_claim,
    "methods": _by_method,
    "address": _by_address,
}


# -- single conditions ---------------------------------------------------------------------------


def _cost(rule: AccessRules) -> int:
    """What is cheap to look at comes first."""
    match rule:
        case Methods() | OverTls() | Known():
            return 0
        case HasAny() | HasAll() | Is():
            return 1
        case Own() | Claim(_, _, ()):
            return 2
        case AnyOf() | AllOf() | Not() | From():
            return 3
        case _:
            return 4


def _condition(rule: AccessRules) -> Test:
    match rule:
        case Known():
            return lambda identity, _asked: identity is not None
        case HasAny(of, names):
            return has_any(of, frozenset(names))
        case HasAll(of, names):
            return has_all(of, frozenset(names))
        case Own(param, of):
            return own(param, of)
        case OverTls():
            return lambda _identity, asked: asked.is_tls
        case During(windows):
            return during(windows)
        case Claim(path, values, patterns) if patterns:
            return matching(path, frozenset(values), patterns)
        case _:
            kind = _kind(rule)
            if kind is None:
                msg = f"{type(rule).__name__} is no access rule"
                raise ValueError(msg)
            return _LOOK_UPS[kind[0]](kind[1], dict.fromkeys(_keys(rule), always))

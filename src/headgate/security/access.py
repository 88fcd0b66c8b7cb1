"""Whether somebody may do something: access rules, compiled to look-ups.

Theory of operation. Rules (`access_rules`) become nested tests. An `AnyOf` is where they get
many, so its alternatives are not tried in turn but looked up by what each of them asks for: see
`access_index`. What is left to try are the alternatives that ask for something this request has.

A verdict that follows from the request's head and from who asks may be kept with the head
(`is_of_head`); time, address and encryption are looked at each time.

What must hold: the outcome is that of trying every rule in turn, for every request; a rule that
needs the client's address refuses a request whose address cannot be read, also under a `Not`;
what the client is told names no role, scope, group, subject or claim.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from headgate.security.access_conditions import Test
from headgate.security.access_index import Compiler
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
    Not,
    OverTls,
    Own,
    address_of,
)
from headgate.security.access_words import brief, explained, told
from headgate.security.denied import Denied
from headgate.security.identity import Identity

__all__ = ["Access", "AccessRules", "Asked", "compile_access", "needs_identity"]

_DEEPEST: Final = 32


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a request access rules look at."""

    method: str
    path: str
    params: Mapping[str, str]
    """Path parameters of the route's match, percent-decoded."""
    client_ip: str
    wall: float
    host: str = ""
    is_tls: bool = False
    headers: Sequence[tuple[bytes, bytes]] = ()


class Access:
    """Compiled access rules. Nothing in it changes; one may serve any number of requests."""

    __slots__ = ("_parts", "_rules", "is_of_head", "needs_identity")

    def __init__(
        self,
        rules: AccessRules,
        parts: tuple[tuple[Test, Denied], ...],
        *,
        needs_identity: bool,
        is_of_head: bool,
    ) -> None:
        self._rules = rules
        self._parts = parts
        self.needs_identity = needs_identity
        """A request of nobody known can never pass."""
        self.is_of_head = is_of_head
        """The verdict depends on who asks and on the request's head alone."""

    def check(self, identity: Identity | None, asked: Asked) -> Denied | None:
        """Why this must not pass; None lets it through."""
        for test, denied in self._parts:
            if not test(identity, asked):
                return denied
        return None

    def explain(self, identity: Identity | None, asked: Asked) -> list[tuple[str, bool]]:
        """Every condition in words and whether it holds; what belongs together is indented."""
        return explained(self._rules, identity, asked)


def compile_access(rules: AccessRules) -> Access:
    """Compile rules. Raises ValueError where they cannot be: a pattern or a time zone is wrong."""
    if _depth(rules) > _DEEPEST:
        msg = f"access rules are nested more than {_DEEPEST} deep"
        raise ValueError(msg)
    compiler = Compiler()
    parts: list[tuple[Test, Denied]] = []
    kinds = {type(each) for each in _conditions(rules)}
    if From in kinds:
        unread = Denied("allow", "not open to you", "the client's address cannot be read")
        parts.append((_has_address, unread))
    for rule in rules.rules if isinstance(rules, AllOf) else (rules,):
        parts.append((compiler.test(rule), Denied("allow", told(rule), brief(rule))))
    return Access(
        rules,
        tuple(parts),
        needs_identity=needs_identity(rules),
        is_of_head=not kinds & {From, During, OverTls},
    )


def needs_identity(rules: AccessRules) -> bool:
    """Whether a request of nobody known can never pass; without compiling anything."""
    return _of_nobody(rules) is False


def _has_address(_identity: Identity | None, asked: Asked) -> bool:
    return address_of(asked.client_ip) is not None


def _depth(rules: AccessRules) -> int:
    # By levels and not by recursion: what is too deep must not end in a RecursionError.
    level: list[AccessRules] = [rules]
    depth = 0
    while level and depth <= _DEEPEST:
        depth += 1
        level = [inner for each in level for inner in _inside(each)]
    return depth


def _inside(rules: AccessRules) -> tuple[AccessRules, ...]:
    if isinstance(rules, AnyOf | AllOf):
        return rules.rules
    return (rules.rule,) if isinstance(rules, Not) else ()


def _conditions(rules: AccessRules) -> Iterator[AccessRules]:
    inner = _inside(rules)
    if not inner:
        yield rules
    for each in inner:
        yield from _conditions(each)


def _of_nobody(rules: AccessRules) -> bool | None:
    """What comes of a request of nobody known; None where that depends on the request."""
    match rules:
        case Known() | HasAny() | HasAll() | Is() | Claim() | Own():
            return False
        case Methods() | From() | During() | OverTls():
            return None
        case Not(rule):
            inner = _of_nobody(rule)
            return None if inner is None else not inner
        case AllOf(inner_rules):
            found = {_of_nobody(each) for each in inner_rules}
            return False if False in found else None if None in found else True
        case AnyOf(inner_rules):
            found = {_of_nobody(each) for each in inner_rules}
            return True if True in found else None if None in found else False

"""Which service may call which, as the file says it, and what makes no sense in that."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from headgate.config.faults import did_you_mean
from headgate.config.fields import Flag, Spec, Words, refuse, text_of
from headgate.config.forms import OneOrMore
from headgate.config.http import Methods
from headgate.security.mesh_access import (
    ANONYMOUS,
    EVERY,
    MeshAccessRules,
    MeshRule,
    covers,
)
from headgate.security.service_identity.spiffe import NotAnIdentity, SpiffeId

__all__ = ["MeshAccessSpec", "MeshRuleSpec", "access_problems"]

_RULES: Final = MeshAccessRules()
_SERVICE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_COMPARED: Final = 64
"""With so many other rules a rule is compared; of a longer list of alike ones, with the first."""


def _caller(value: object) -> str:
    name = text_of(value).strip()
    if name in (EVERY, ANONYMOUS):
        return name
    if name.startswith("spiffe://"):
        try:
            return str(SpiffeId.parse(name))
        except NotAnIdentity as error:
            raise refuse(f"is no identity: {error}") from None
    if not _SERVICE.fullmatch(name):
        raise refuse("is no service, no identity such as spiffe://..., no * and not anonymous")
    return name


def _called(value: object) -> str:
    name = text_of(value).strip()
    if name != EVERY and not _SERVICE.fullmatch(name):
        raise refuse("is neither a service nor *")
    return name


def _prefix(value: object) -> str:
    path = text_of(value)
    if not path.startswith("/") or not path.isascii() or not path.isprintable():
        raise refuse("is not a path; write /users/, which also stands for all that is under it")
    if any(mark in path for mark in "*{}?#\\ "):
        raise refuse(
            "has a character that no prefix has; write the part before it, such as /users/"
        )
    if "//" in path or any(part in (".", "..") for part in path.split("/")):
        raise refuse("has empty or dot segments, which no request has that is judged")
    return path


Caller = Annotated[
    str,
    PlainValidator(_caller),
    Words("service"),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^(\*|[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}|spiffe://.+/.+)$",
            "examples": ["orders", "*", ANONYMOUS, "spiffe://other.example/service/orders"],
        }
    ),
]
Called = Annotated[
    str,
    PlainValidator(_called),
    Words("service"),
    WithJsonSchema(
        {"type": "string", "pattern": r"^(\*|[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99})$"},
    ),
]
Prefix = Annotated[
    str,
    PlainValidator(_prefix),
    Words("path"),
    WithJsonSchema({"type": "string", "pattern": "^/", "examples": ["/users/"]}),
]


class MeshRuleSpec(Spec):
    """Who may call whom, or may not. All that is said must hold for the rule to speak."""

    from_: Annotated[tuple[Caller, ...], OneOrMore, Field(alias="from")]
    """Callers, by the name in their certificate. `*` is every service of this mesh, a service of
    another trust domain is named by its whole id (`spiffe://other.example/service/orders`), and
    `anonymous` is whoever shows no identity."""

    to: Annotated[tuple[Called, ...], OneOrMore]
    """Services that are called; `*` is all of them."""

    methods: Methods = ()
    """Methods; `GET` stands for `HEAD` as well. By default all."""

    paths: Annotated[tuple[Prefix, ...], OneOrMore] = ()
    """Paths, each with all that is under it; as the caller sends them, in whole segments. By
    default all."""

    allow: Flag = True
    """`false` makes it a rule that refuses. One that refuses beats all that allow, wherever they
    stand."""


class MeshAccessSpec(Spec):
    """Access between services. Where this section stands, each call that comes by a sidecar, or to
    a listener with `mesh: true`, is judged by who the caller's certificate says it is.
    """

    default: Annotated[Literal["allow", "deny"], BeforeValidator(text_of)] = _RULES.default
    """What becomes of a call that no rule speaks of."""

    mode: Annotated[Literal["permissive", "strict"], BeforeValidator(text_of)] = _RULES.mode
    """`strict`: what may not pass is refused with 403, and who shows no identity is let in by
    `from: anonymous` alone. `permissive`: everything passes, over plain connections too, and what
    would be refused is counted and told; for services that join step by step."""

    rules: tuple[MeshRuleSpec, ...] = ()
    """Who may call whom. Their order means nothing: a rule that refuses beats one that allows."""

    def compiled_from(self, trust_domain: str) -> MeshAccessRules:
        """The rules, with services of our own trust domain by their names."""
        return MeshAccessRules(
            self.default,
            self.mode,
            tuple(
                MeshRule(
                    tuple(name_of_caller(name, trust_domain) for name in rule.from_),
                    rule.to,
                    _with_head(rule.methods),
                    rule.paths,
                    rule.allow,
                )
                for rule in self.rules
            ),
        )


def _with_head(methods: Collection[str]) -> frozenset[str]:
    """Who may read may ask whether there is something to read, as routes have it."""
    return frozenset(methods) | ({"HEAD"} if "GET" in methods else frozenset())


def name_of_caller(name: str, trust_domain: str) -> str:
    """A service of our own trust domain by its name alone; any other identity as it is."""
    if not name.startswith("spiffe://"):
        return name
    found = SpiffeId.parse(name)
    return found.service if found.trust_domain == trust_domain else name


# -- what makes no sense -------------------------------------------------------------------------

Loc = tuple[str | int, ...]
Found = tuple[Loc, str, str, bool]
_SUGGESTED: Final = 50


def access_problems(
    spec: MeshAccessSpec, services: Collection[str], trust_domain: str
) -> Iterator[Found]:
    """What makes no sense: place in the file, message, hint and whether it is only a warning."""
    for loc, message, hint, is_warning in _problems(spec, services, trust_domain):
        yield ("mesh", "access", *loc), message, hint, is_warning


def _problems(
    spec: MeshAccessSpec, services: Collection[str], trust_domain: str
) -> Iterator[Found]:
    suggestions = _SUGGESTED
    for at, rule in enumerate(spec.rules):
        for key, names in (("from", rule.from_), ("to", rule.to)):
            if not names:
                yield ("rules", at, key), "names nobody, so that the rule never speaks", "", False
            if len(names) > 1 and EVERY in names and key == "to":
                yield ("rules", at, key), "names services beside *, which is all of them", "", True
            for index, name in enumerate(names):
                if name in services or name in (EVERY, ANONYMOUS) or "://" in name:
                    continue
                near = did_you_mean(name, services) if suggestions > 0 else ""
                suggestions -= 1
                if key == "to":
                    known = ", ".join(sorted(services)[:8]) or "none"
                    hint = near or f"known are {known}"
                    yield ("rules", at, key, index), "{value} is no service", hint, False
                elif near:
                    # One that only calls need not stand in the file, but this looks like a slip.
                    yield ("rules", at, key, index), "{value} is no service", near, True
    yield from _useless(spec, spec.compiled_from(trust_domain))


def _useless(spec: MeshAccessSpec, rules: MeshAccessRules) -> Iterator[Found]:
    index: dict[tuple[str, str], list[int]] = {}
    for at, rule in enumerate(rules.rules):
        for source in rule.sources:
            for target in rule.targets:
                held = index.setdefault((source, target), [])
                if len(held) < _COMPARED:
                    held.append(at)
    for at, rule in enumerate(rules.rules):
        if not rule.sources or not rule.targets:
            continue
        if rules.default == "allow" and rule.allow and ANONYMOUS not in rule.sources:
            message = "has no effect: mesh.access.default lets everything pass that no rule refuses"
            yield ("rules", at), message, "write default: deny, or leave the rule out", True
            continue
        source, target = rule.sources[0], rule.targets[0]
        near = [
            other
            for key in ((source, target), (EVERY, target), (source, EVERY), (EVERY, EVERY))
            for other in index.get(key, ())
        ]
        for other in dict.fromkeys(near):
            wide = rules.rules[other]
            if other == at or not covers(wide, rule) or (rule.allow != wide.allow and wide.allow):
                continue
            if rule.allow and not wide.allow:
                message = f"can never allow anything: mesh.access.rules[{other}] refuses all of it"
            elif other > at and covers(rule, wide):
                continue  # the same twice: the second one is told
            else:
                message = f"says nothing that mesh.access.rules[{other}] does not say"
            yield ("rules", at), message, "leave it out", True
            break

"""Who may do what: how conditions are combined, the short forms, and what makes no sense."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from headgate.config.access_conditions import AllowConditionSpec, AllowTimeSpec, OneOrSeveral
from headgate.config.fields import FALSE, TRUE, Flag, Spec, refuse, text_of
from headgate.config.forms import Shorthand
from headgate.security.access_rules import (
    AccessRules,
    AnyOf,
    Claim,
    HasAll,
    HasAny,
    Is,
    Known,
    Not,
    Own,
)
from headgate.security.access_rules import Methods as OfMethods

__all__ = [
    "Allow",
    "AllowConditionSpec",
    "AllowGroupSpec",
    "AllowSpec",
    "problems",
    "route_problems",
]

_ANYBODY: Final = "anybody"
_WORDS: Final = ("known", "nobody")
_MISLEADING: Final = frozenset(
    {"*", "all", "any", "anyone", "everyone", "everybody", "public", "none", "authenticated"}
)


def _roles(value: Any) -> object:
    """Text is a role, texts are one of several, a list with mappings is alternatives."""
    if value is None or isinstance(value, (dict, Spec)):
        return value
    if isinstance(value, (list, tuple)):
        if value and not any(isinstance(each, (dict, Spec, list, tuple)) for each in value):
            return {"roles": [_role(each) for each in value]}
        return {"any": value}
    name = _role(value)
    return {name: True} if name in _WORDS else {"roles": (name,)}


def _role(value: object) -> str:
    if isinstance(value, bool):
        raise refuse("is no role", kind="type")
    name = text_of(value)
    if name.lower() in _MISLEADING | FALSE | TRUE:
        raise refuse(
            "is not clear here; write anybody, known or nobody, or roles: [...] for a role that is "
            "called so"
        )
    return name


_ROLE_OR_LIST: Final = {"type": ["string", "array"], "examples": ["admin", ["admin", "staff"]]}

Condition = Annotated[
    AllowConditionSpec, Shorthand(_roles, _ROLE_OR_LIST, "or a role or a list of roles")
]
Conditions = Annotated[tuple[Condition, ...], OneOrSeveral]


class AllowGroupSpec(AllowConditionSpec):
    """Conditions, and combinations of further ones. All that is said must hold."""

    any: Conditions | None = None
    """One of these must hold."""

    all: Conditions | None = None
    """Every one of these must hold."""

    none: Conditions | None = None
    """None of these may hold."""

    def conditions(self) -> list[AccessRules]:
        """Each as a rule; all of them must hold."""
        return super().conditions() + _combined(self)


Group = Annotated[
    AllowGroupSpec,
    Shorthand(_roles, _ROLE_OR_LIST, "or a role, a list of roles or a list of alternatives"),
]
Groups = Annotated[tuple[Group, ...], OneOrSeveral]


class AllowSpec(AllowConditionSpec):
    """What it takes to be let through, once it is known who asks. All that is said must hold.

    A role or a list of roles, as in `allow: [admin, staff]`, is one of them. A list with mappings
    is alternatives, as in `any`. `anybody` switches off what an outer level says, `known` asks for
    nothing but that it is known who asks, `nobody` closes the route.
    """

    nobody: Flag = False
    """Closed to everybody."""

    any: Groups | None = None
    """Alternatives, of which one must hold. Thousands cost what two do where they ask for different
    roles, scopes, groups, subjects, consumers, claims, methods or addresses."""

    all: Groups | None = None
    """Every one of these must hold."""

    none: Groups | None = None
    """None of these may hold. Who is not known has no role, so `none: banned` lets them through
    unless `known` or a role is asked for too."""

    def conditions(self) -> list[AccessRules]:
        """Each as a rule; all of them must hold."""
        closed: list[AccessRules] = [AnyOf(())] if self.nobody else []
        return closed + super().conditions() + _combined(self)


def _combined(spec: AllowGroupSpec | AllowSpec) -> list[AccessRules]:
    found: list[AccessRules] = []
    if spec.any is not None:
        found.append(AnyOf(tuple(each.rules() for each in spec.any)))
    if spec.all is not None:
        found += [each.rules() for each in spec.all]
    if spec.none is not None:
        found.append(Not(AnyOf(tuple(each.rules() for each in spec.none))))
    return found


class _OrAnybody(Shorthand):
    """The forms of `allow`. True and false are refused: half of all readers take `allow: false`
    for "let nobody through", and it would open the route.
    """

    __slots__ = ()

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Answer False for `anybody`, else validate the model."""
        model = source.__args__[0]

        def either(value: object, inner: Any) -> Any:
            if isinstance(value, str) and value.strip().lower() == _ANYBODY:
                return False
            if isinstance(value, bool) or (
                isinstance(value, str) and value.strip().lower() in FALSE | TRUE
            ):
                raise refuse("is not clear here; write anybody, known or nobody")
            return inner(_roles(value))

        def written(value: Any, inner: Any) -> Any:
            return _ANYBODY if value is False else inner(value)

        schema = handler.generate_schema(model)
        return core_schema.no_info_wrap_validator_function(
            either,
            schema,
            serialization=core_schema.wrap_serializer_function_ser_schema(written, schema=schema),
        )


Allow = Annotated[
    AllowSpec | Literal[False],
    _OrAnybody(
        _roles,
        _ROLE_OR_LIST,
        "or a role, a list of roles or of alternatives, `anybody`, `known` or `nobody`",
    ),
]


# -- what makes no sense -------------------------------------------------------------------------

Loc = tuple[str | int, ...]
Found = tuple[Loc, str, str, bool]
_KEYS: Final = ("any", "all", "none")
_Combined = AllowConditionSpec | AllowGroupSpec | AllowSpec


def problems(spec: AllowSpec) -> Iterator[Found]:
    """What makes no sense in itself: place, message, hint and whether it is only a warning."""
    if not spec.conditions():
        yield (), "asks for nothing, so that everybody passes", "write anybody to mean that", False
    if spec.nobody and len(spec.conditions()) > 1:
        yield ("nobody",), "closes the route, so that the rest has no effect", "", True
    for loc, each in _inside(spec, ()):
        yield from _own_problems(each, loc)
    yield from _apart(spec, (), "methods", None)


def route_problems(
    spec: AllowSpec,
    *,
    methods: frozenset[str] | None = None,
    params: frozenset[str] | None = None,
    auth: frozenset[str] | None = None,
) -> Iterator[Found]:
    """What makes no sense on a route that takes these methods, whose path has these parameters and
    which asks these entries under `auth`; None where that is not known.
    """
    if methods is not None:
        yield from _apart(spec, (), "methods", methods)
    if auth is not None:
        yield from _apart(spec, (), "auth", auth)
    if params is None:
        return
    for loc, each in _inside(spec, ()):
        for param in each.params:
            if param not in params:
                yield (
                    (*loc, "params", param),
                    f"the route's path has no parameter {{{param}}}, so that this can never hold",
                    f"it has {', '.join(sorted(params)) or 'none'}",
                    False,
                )


def _inside(spec: _Combined, loc: Loc) -> Iterator[tuple[Loc, _Combined]]:
    """A spec and all that stand in it, with their places."""
    yield loc, spec
    if isinstance(spec, AllowGroupSpec | AllowSpec):
        for key in _KEYS:
            for index, entry in enumerate(getattr(spec, key) or ()):
                yield from _inside(entry, (*loc, key, index))


def _apart(
    spec: _Combined, loc: Loc, key: Literal["methods", "auth"], known: frozenset[str] | None
) -> Iterator[Found]:
    """Names that can never be met, because what stands around allows only others."""
    said = getattr(spec, key)
    if said:
        names = frozenset(said)
        if known is not None and not names & known:
            yield (
                (*loc, key),
                "can never hold: nothing that gets here is among them",
                f"here come {', '.join(sorted(known)) or 'none'}",
                False,
            )
            return  # what stands in it would be told the same
        known = names if known is None else names & known
    if isinstance(spec, AllowGroupSpec | AllowSpec):
        for inner in _KEYS:
            for index, entry in enumerate(getattr(spec, inner) or ()):
                yield from _apart(entry, (*loc, inner, index), key, known)


def _own_problems(spec: _Combined, loc: Loc) -> Iterator[Found]:
    yield from _empty_lists(spec, loc)
    for index, each in enumerate(spec.times or ()):
        yield from _window_problems(each, (*loc, "times", index))
    if not isinstance(spec, AllowGroupSpec | AllowSpec):
        return
    for key in _KEYS:
        entries: tuple[_Combined, ...] | None = getattr(spec, key)
        if entries == ():
            effect = "has no effect" if key != "any" else "lets nobody through"
            yield (*loc, key), f"is empty and {effect}", "", False
        for index, entry in enumerate(entries or ()):
            if not entry.conditions():
                message = "asks for nothing, so that it always holds"
                yield (*loc, key, index), message, "", False
    yield from _contradictions(spec, loc)


def _empty_lists(spec: AllowConditionSpec, loc: Loc) -> Iterator[Found]:
    for key in ("roles", "scopes", "groups"):
        names = getattr(spec, key)
        if names is not None and not names.any and not names.all:
            yield (*loc, key), "names none, so that it can never hold", "", False
    for key in ("subjects", "consumers", "auth", "methods", "addresses", "times"):
        if getattr(spec, key) == ():
            yield (*loc, key), "names none, so that it can never hold", "", False
    for name, values in spec.claims.items():
        if not values:
            yield (*loc, "claims", name), "names no value, so that it can never hold", "", False


def _window_problems(spec: AllowTimeSpec, loc: Loc) -> Iterator[Found]:
    window = spec.window()
    if window.begin_min == window.end_min:
        hint = "00:00-24:00 is the whole day"
        yield (*loc, "hours"), "ends when it begins, so that it is never open", hint, False
    if window.since is not None and window.until is not None and window.since >= window.until:
        yield (*loc, "until"), "is not after since, so that it is never open", "", False


def _contradictions(spec: AllowGroupSpec | AllowSpec, loc: Loc) -> Iterator[Found]:
    """What one key asks for and `none` refuses."""
    refused = [each.rules() for each in spec.none or ()]
    asked = [rule for rule in spec.conditions() if not isinstance(rule, Not)]
    for index, rule in enumerate(refused):
        if any(_implies(each, rule) for each in asked):
            message = "refuses everything that is asked for beside it"
            yield (*loc, "none", index), message, "", False


def _implies(rule: AccessRules, other: AccessRules) -> bool:
    """Whether the other one holds wherever this one does, as far as names tell."""
    match rule, other:
        case (HasAny(of, names), HasAny(same, wider)) if of == same:
            return bool(names) and set(names) <= set(wider)
        case (HasAll(of, names), HasAny(same, wider)) if of == same:
            return not set(names).isdisjoint(wider)
        case (HasAll(of, names), HasAll(same, fewer)) if of == same:
            return set(fewer) <= set(names)
        case (Is(of, names), Is(same, wider)) if of == same:
            return bool(names) and set(names) <= set(wider)
        case (OfMethods(names), OfMethods(wider)):
            return bool(names) and set(names) <= set(wider)
        case _:
            return rule == other or (isinstance(other, Known) and _asks_who(rule))


def _asks_who(rule: AccessRules) -> bool:
    return isinstance(rule, HasAny | HasAll | Is | Claim | Own)

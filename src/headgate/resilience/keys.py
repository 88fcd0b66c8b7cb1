"""Keys from the arguments of a call: "{user_id}", "{request.client.host}", "{tenant}:{user.id}".

Theory of operation. A template is compiled once, against the signature of the function it is for:
each field becomes a place among the positional arguments, a name and a default, then attributes.
A field that names no parameter is an error when the function is decorated, not when it is called.
Format specs, conversions and indexing are refused: a key is an identity, not a text to look at.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping
from operator import attrgetter
from string import Formatter
from typing import Any, TypeAlias

from headgate.resilience.calls import name_of

__all__ = ["Key", "KeyOf", "key_of"]

Key: TypeAlias = str | Callable[..., Hashable] | None
KeyOf: TypeAlias = Callable[[tuple[Any, ...], Mapping[str, Any]], Hashable]

_Place: TypeAlias = tuple[str, int, Any, str]
"""Name, place among the positional arguments, default, attributes."""


def key_of(key: Key, function: Callable[..., Any]) -> KeyOf:
    """How to make the key of a call to `function` from its arguments."""
    if key is None:
        return _one_for_all
    if callable(key):
        make = key

        def asked(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable:
            return make(*args, **kwargs)

        return asked
    pieces = list(Formatter().parse(key))
    places = [_place(piece, function, key) for piece in pieces if piece[1] is not None]
    fields = [_field(*place) for place in places]
    texts = [piece[0] for piece in pieces]
    if not fields:
        constant = key

        def always(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable:
            return constant

        return always
    if len(fields) == 1 and texts == [""]:
        return _alone(places[0])
    tail = texts[-1] if len(texts) > len(fields) else ""

    def joined(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable:
        parts = [f"{text}{field(args, kwargs)}" for text, field in zip(texts, fields, strict=False)]
        return "".join(parts) + tail

    return joined


def _one_for_all(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable:
    return ""


def _alone(place: _Place) -> KeyOf:
    """The common kind of key, without a call further in."""
    name, at, default, attributes = place
    get = attrgetter(attributes) if attributes else None

    def alone(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable:
        value = args[at] if len(args) > at else kwargs.get(name, default)
        if get is not None:
            value = get(value)
        # As text, so that an object of no fixed identity makes no new key each time.
        return value if value.__class__ is str or value.__class__ is int else str(value)

    return alone


def _field(
    name: str, at: int, default: Any, attributes: str
) -> Callable[[tuple[Any, ...], Mapping[str, Any]], Any]:
    get = attrgetter(attributes) if attributes else None

    def field(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        value = args[at] if len(args) > at else kwargs.get(name, default)
        return value if get is None else get(value)

    return field


def _place(
    piece: tuple[str, str | None, str | None, str | None], function: Callable[..., Any], key: str
) -> _Place:
    _, path, spec, conversion = piece
    name, _, attributes = (path or "").partition(".")
    if spec or conversion or not name.isidentifier() or "[" in attributes:
        raise ValueError(f'key="{key}": write plain fields such as {{user_id}} or {{user.id}}')
    parameters = inspect.signature(function).parameters
    known = [p for p in parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    found = next((p for p in known if p.name == name), None)
    if found is None:
        names = ", ".join(p.name for p in known) or "none"
        raise ValueError(
            f'key="{key}": {name_of(function)} has no parameter {name}; it has: {names}'
        )
    by_place = (found.POSITIONAL_ONLY, found.POSITIONAL_OR_KEYWORD)
    at = known.index(found) if found.kind in by_place else 1 << 30
    return name, at, found.default, attributes

"""A schema made so that its faults can be gathered in time that is proportional to the value.

Theory of operation. Whether a value is valid is found out in linear time, since what was found of
one part of it under one definition is remembered. Gathering faults goes through every alternative
of every `oneOf` and `anyOf` instead; where alternatives hold alternatives of the same kind, as in
a tree of `and` and `or`, that doubles with each level, and a body of a few hundred bytes would
take for ever. So for such schemas, and for any big value, faults are gathered with a copy in which
alternatives are only asked whether they hold: in `{"not": {"not": ...}}` nothing is gathered.

The copies of definitions refer to each other outside of alternatives, and inside to the originals.
`unevaluated...` is left out of the copies, because nothing is evaluated within `not`; a value that
has no other fault is told that it does not fit.
"""

from __future__ import annotations

from typing import Any, Final

from headgate.security.validation.dialect import BUNDLE

__all__ = ["telling_of"]

_START: Final = f"{BUNDLE}#/$defs/"
_COPY: Final = "told-"
_CHOICES: Final = ("oneOf", "anyOf")
_VALUES: Final = frozenset({"const", "enum", "dependentRequired", "required", "type"})
_MAPS: Final = frozenset({"properties", "patternProperties", "dependentSchemas"})
_LEFT_OUT: Final = frozenset({"unevaluatedProperties", "unevaluatedItems"})
_ASKED: Final = frozenset({"not", "if", "contains", "propertyNames"})


def telling_of(bundle: dict[str, Any]) -> dict[str, Any]:
    """The same schema, for gathering faults."""
    definitions = bundle["$defs"]
    copies = {_COPY + name: _copy(schema) for name, schema in definitions.items()}
    return {**bundle, "allOf": [_copy(each) for each in bundle["allOf"]],
            "$defs": {**definitions, **copies}}  # fmt: skip


def _copy(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    asked = []
    for key, value in schema.items():
        if key == "$ref":
            out[key] = _START + _COPY + value[len(_START) :]
        elif key in _CHOICES:
            asked.append({"not": {"$comment": key, "not": {key: value}}})
        elif key in _MAPS:
            out[key] = {name: _copy(each) for name, each in value.items()}
        elif key in _ASKED or key in _VALUES:
            out[key] = value
        elif isinstance(value, list):
            out[key] = [_copy(each) for each in value]
        elif key not in _LEFT_OUT:
            out[key] = _copy(value)
    if asked:
        out["allOf"] = [*out.get("allOf", ()), *asked]
    return out

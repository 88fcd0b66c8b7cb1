"""What form a parameter has: one value, a list or a mapping, and what texts may stand for.

A parameter arrives as text; only its schema says whether `5` is a number. The shape is drawn from
the converted schema once. Alternatives are joined, so a parameter may be of several types; then
the most special one that the text can be is taken, and text last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isinf
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ANY", "Shape", "shape_of"]

_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)").fullmatch
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?").fullmatch
_DIGITS_MAX: Final = 400
_DEPTH_MAX: Final = 12
_SCALARS: Final = frozenset({"string", "integer", "number", "boolean", "null"})


@dataclass(frozen=True, slots=True)
class Shape:
    types: frozenset[str] = frozenset()
    """JSON types; none means any."""
    item: Shape | None = None
    properties: Mapping[str, Shape] = field(default_factory=dict)
    rest: Shape | None = None
    """Of properties not named, where a schema is given for them."""

    @property
    def is_array(self) -> bool:
        return "array" in self.types and not self.types & _SCALARS

    @property
    def is_object(self) -> bool:
        return "object" in self.types and "array" not in self.types and not self.types & _SCALARS

    def value(self, text: str) -> Any:
        """What `text` stands for. Text that stands for none of the types stays text, which is
        then a fault of type.
        """
        types = self.types
        if not types:
            return text
        if "integer" in types and _INTEGER(text) and len(text) < _DIGITS_MAX:
            return int(text)
        if "number" in types and _NUMBER(text) and len(text) < _DIGITS_MAX:
            if _INTEGER(text):
                return int(text)
            number = float(text)
            return text if isinf(number) else number
        if "boolean" in types and text in ("true", "false"):
            return text == "true"
        if "null" in types and not text and "string" not in types:
            return None
        return text

    def of_property(self, name: str) -> Shape:
        return self.properties.get(name) or self.rest or ANY

    @property
    def of_items(self) -> Shape:
        return self.item or ANY


ANY: Final = Shape()


def shape_of(schema: Any, resolved: Callable[[Any], Any], depth: int = 0) -> Shape:
    """The shape of a converted schema; `resolved` follows its references."""
    schema = resolved(schema)
    if not isinstance(schema, dict) or depth > _DEPTH_MAX:
        return ANY
    if schema.keys() == {"if", "then"}:  # what `nullable` became
        shape = shape_of(schema["then"], resolved, depth + 1)
        return replace(shape, types=shape.types and shape.types | {"null"})
    types = _own_types(schema)
    item = schema.get("items")
    properties = {
        name: shape_of(each, resolved, depth + 1)
        for name, each in (schema.get("properties") or {}).items()
    }
    rest = schema.get("additionalProperties")
    shape = Shape(
        types,
        shape_of(item, resolved, depth + 1) if isinstance(item, dict) else None,
        properties,
        shape_of(rest, resolved, depth + 1) if isinstance(rest, dict) else None,
    )
    for word in ("allOf", "anyOf", "oneOf"):
        branches = [shape_of(each, resolved, depth + 1) for each in schema.get(word) or ()]
        if word == "allOf":
            for branch in branches:
                shape = _narrowed(shape, branch)
        elif branches:
            joined = branches[0]
            for branch in branches[1:]:
                joined = _either(joined, branch)
            shape = _narrowed(shape, joined)
    if "$ref" in schema:
        shape = _narrowed(shape, shape_of({"$ref": schema["$ref"]}, resolved, depth + 1))
    if "then" in schema:
        then = shape_of(schema["then"], resolved, depth + 1)
        shape = Shape(shape.types, shape.item, {**then.properties, **shape.properties}, shape.rest)
    return shape


def _own_types(schema: dict[str, Any]) -> frozenset[str]:
    said = schema.get("type")
    if isinstance(said, str):
        return frozenset({said})
    if isinstance(said, list):
        return frozenset(said)
    values = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    if values:
        return frozenset(_type_of(value) for value in values)
    if "properties" in schema:
        return frozenset({"object"})
    return frozenset({"array"}) if "items" in schema else frozenset()


def _type_of(value: Any) -> str:
    for kind, name in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string")):
        if isinstance(value, kind):
            return name
    return "null" if value is None else "object" if isinstance(value, dict) else "array"


def _narrowed(one: Shape, other: Shape) -> Shape:
    both = one.types & other.types if one.types and other.types else one.types or other.types
    return Shape(
        both or one.types,
        one.item or other.item,
        {**other.properties, **one.properties},
        one.rest or other.rest,
    )


def _either(one: Shape, other: Shape) -> Shape:
    types = one.types | other.types if one.types and other.types else frozenset()
    return Shape(
        types,
        one.item or other.item,
        {**other.properties, **one.properties},
        one.rest or other.rest,
    )

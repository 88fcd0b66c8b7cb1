"""The JSON Schema of the file, for editors that complete and check while one types.

Theory of operation
-------------------
Pydantic derives a schema from the models; here it is made to fit the file rather than the
code. Defaults are written with their units. Null, which the models take for "not said", is left
out: an editor should not propose it. Wherever a value is not free text, a reference such as
``${env:PORT}`` may stand in its place, so every such place takes the ``Reference`` definition
too. ``include``, which the loader consumes before the models see the document, is added.

The schema is looser than ``headgate check``: it cannot know which services exist.
"""

from __future__ import annotations

import json
from typing import Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from headgate.config.fields import Unit
from headgate.config.model import Config
from headgate.config.prose import describe
from headgate.config.walk import models_under, unit_of
from headgate.units import format_duration, format_percent, format_rate, format_size

__all__ = ["default_text", "schema", "schema_text"]

_REFERENCE: Final = {
    "type": "string",
    "pattern": r"\$\{(env|file|vault|secret):[^{}]+\}",
    "description": "A reference, as ${env:NAME}, ${env:NAME:-default}, ${file:PATH}, "
    "${vault:PATH#KEY} or ${secret:NAME}.",
}
_REFER: Final = {"$ref": "#/$defs/Reference"}
_CONSTRAINTS: Final = ("enum", "const", "pattern", "format")
_INCLUDE: Final = {
    "description": "More files, by name or pattern, relative to this one. Lists are joined, "
    "mappings merged; nothing may be said twice.",
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    "examples": [["routes/*.yaml"]],
}


def schema() -> dict[str, Any]:
    """The schema as data: draft 2020-12."""
    made = Config.model_json_schema(mode="validation")
    models = {model.__name__: model for model in models_under(Config)}
    describe(models.values())
    definitions = made.pop("$defs", {})
    for name, definition in definitions.items():
        if name in models:
            _describe(definition, models[name])
    _describe(made, Config)
    made["properties"]["include"] = dict(_INCLUDE)
    made = _tidy(made)
    made["$defs"] = {name: _tidy(definition) for name, definition in sorted(definitions.items())}
    made["$defs"]["Reference"] = dict(_REFERENCE)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Headgate configuration",
        **made,
    }


def schema_text() -> str:
    """The schema as ``headgate schema`` prints it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def default_text(field: FieldInfo) -> Any:
    """The default as one would write it in the file; None when there is none to show."""
    default = field.get_default(call_default_factory=True)
    if field.is_required() or default is None or isinstance(default, BaseModel):
        return None
    if isinstance(default, tuple) and any(isinstance(each, BaseModel) for each in default):
        return None
    unit = unit_of(field)
    if unit is not None:
        return _with_unit(unit, default)
    if isinstance(default, tuple):
        return [_plain(each) for each in default]
    return _plain(default)


def _plain(value: Any) -> Any:
    """A value of our own as it is written in the file."""
    return value if isinstance(value, (str, int, float, list, dict)) else str(value)


def _with_unit(unit: Unit, value: Any) -> str:
    match unit.name:
        case "duration":
            return format_duration(value)
        case "size":
            return format_size(value)
        case "percent":
            return format_percent(value)
        case "rate":
            return format_rate(value)


def _describe(definition: dict[str, Any], model: type[BaseModel]) -> None:
    """Write defaults with their units, and let the text flow."""
    if "description" in definition:
        definition["description"] = _flow(definition["description"])
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    for name, prop in definition.get("properties", {}).items():
        field = fields[name]
        prop.pop("default", None)
        default = default_text(field)
        if default not in (None, [], {}, ""):
            prop["default"] = default
        if field.description:
            prop["description"] = _flow(field.description)


def _flow(text: str) -> str:
    """Paragraphs on one line each."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _tidy(node: Any, *, is_name: bool = False) -> Any:
    """Without titles and nulls, and with references where a value is not free text.

    ``is_name`` is for schemas of keys, where no reference can stand.
    """
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    made: dict[str, Any] = {}
    for key, value in node.items():
        if key == "title" and isinstance(value, str):
            continue
        if key == "properties":
            made[key] = {name: _tidy(prop) for name, prop in value.items()}
        elif key == "propertyNames":
            made[key] = _tidy(value, is_name=True)
        elif key in ("default", "examples", "enum", "const", "required"):
            made[key] = value
        else:
            made[key] = _tidy(value)
    if "anyOf" in made:
        made = _flat(made)
    return made if is_name else _with_reference(made)


def _flat(made: dict[str, Any]) -> dict[str, Any]:
    """One level of alternatives, without null and without doubles."""
    members: list[Any] = []
    for member in made["anyOf"]:
        inner = member["anyOf"] if set(member) == {"anyOf"} else [member]
        members.extend(each for each in inner if each != {"type": "null"} and each not in members)
    if len(members) == 1:
        rest = {key: value for key, value in made.items() if key != "anyOf"}
        return {**members[0], **rest}
    # The reference goes last: editors show and complete the first alternatives first.
    if _REFER in members:
        members = [*(each for each in members if each != _REFER), _REFER]
    return {**made, "anyOf": members}


def _with_reference(made: dict[str, Any]) -> dict[str, Any]:
    kind = made.get("type")
    if kind in ("object", "array", "null") or "anyOf" in made or "$ref" in made:
        return made
    is_free = kind == "string" or (isinstance(kind, list) and "string" in kind)
    if is_free and not any(word in made for word in _CONSTRAINTS):
        return made
    if kind is None and not any(word in made for word in _CONSTRAINTS):
        return made
    outer: dict[str, Any] = {}
    for key in ("description", "default", "examples"):
        if key in made:
            outer[key] = made.pop(key)
    return {**outer, "anyOf": [made, dict(_REFER)]}

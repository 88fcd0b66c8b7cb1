"""Short forms: one value in place of a list, text in place of a mapping, true in place of a model.

They are validators around a type and no unions, because a union reports the faults of all its
members, and a reader of "neither a string nor a mapping with..." learns nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_origin

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from headgate.config.fields import FALSE, TRUE, refuse, text_of

__all__ = ["OneOrList", "OneOrMore", "OrFalse", "OrText", "Shorthand"]


@dataclass(frozen=True, slots=True, eq=False)  # by identity: unions hash their members
class Shorthand:
    """A short form of a longer value: ``widen`` turns it into the long one."""

    widen: Callable[[Any], object]
    schema: Mapping[str, Any]
    words: str
    """How the reference puts it: "or text: the template"."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Validate what ``widen`` makes of the value."""
        return core_schema.no_info_before_validator_function(self.widen, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Either the short form or the long one."""
        return {"anyOf": [dict(self.schema), handler(schema)]}


@dataclass(frozen=True, slots=True, eq=False)
class OneOrList(Shorthand):
    """A list, or its only entry. ``schema`` is of what else may stand."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The item, what else may stand, or the list."""
        listed = handler(schema)
        more = [dict(self.schema)] if self.schema else []
        return {"anyOf": [listed.get("items", {}), *more, listed]}


@dataclass(frozen=True, slots=True)
class OrText:
    """A mapping, or plain text, which stays text; a list of texts is made a mapping of them."""

    entry: object
    """What a text of a list is mapped to."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Validate mappings and lists; leave the rest to be text."""
        mapping = next(each for each in source.__args__ if get_origin(each) is dict)

        def either(value: object, inner: Callable[[object], Any]) -> Any:
            if isinstance(value, (list, tuple)):
                return inner({text_of(name): self.entry for name in value})
            return inner(value) if isinstance(value, dict) else text_of(value)

        return core_schema.no_info_wrap_validator_function(
            either,
            handler.generate_schema(mapping),
            serialization=core_schema.plain_serializer_function_ser_schema(_plain_names),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Text, a list of texts, or the mapping."""
        text = {"type": "string"}
        return {"anyOf": [text, {"type": "array", "items": text}, handler(schema)]}


def _plain_names(value: Any) -> Any:
    return {name: str(item) for name, item in value.items()} if isinstance(value, dict) else value


@dataclass(frozen=True, slots=True)
class OrFalse:
    """A model, or ``false`` to switch off what an outer level says; ``true`` is all defaults."""

    def __get_pydantic_core_schema__(
        self,
        source: Any,
        handler: GetCoreSchemaHandler,
    ) -> CoreSchema:
        """Answer False for the words of refusal, else validate the model."""
        model = source.__args__[0]

        def either(value: object, inner: Callable[[object], Any]) -> Any:
            if value is True or (isinstance(value, str) and value.strip().lower() in TRUE):
                return inner({})
            if value is False or (isinstance(value, str) and value.strip().lower() in FALSE):
                return False
            return inner(value)

        def written(value: Any, inner: Callable[[Any], Any]) -> Any:
            return False if value is False else inner(value)

        schema = handler.generate_schema(model)
        return core_schema.no_info_wrap_validator_function(
            either,
            schema,
            serialization=core_schema.wrap_serializer_function_ser_schema(written, schema=schema),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The model or a boolean."""
        return {"anyOf": [handler(schema), {"type": "boolean"}]}


def _listed(value: object) -> object:
    if value is None or isinstance(value, (list, tuple)):
        return value
    if isinstance(value, dict):
        raise refuse("must be a list, or a single value", kind="type", takes_value=False)
    return (value,)


OneOrMore = OneOrList(_listed, {}, "one value or a list of them")

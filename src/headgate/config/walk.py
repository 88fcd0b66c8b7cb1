"""Following a path of the document through the models' annotations.

The file's text knows lines and the models know rules; a fault needs both. From a path such as
``("listeners", 0, "tls")`` these functions find which model stands there, to suggest its fields
for a misspelt one, and which fields name files.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from headgate.config.faults import Loc
from headgate.config.fields import PathMark, Unit

__all__ = [
    "marked_paths",
    "metadata_of",
    "model_at",
    "models_under",
    "nested_models",
    "options",
    "unit_of",
]

ANY = "*"
"""Stands for any key or index in a path pattern."""


def options(annotation: Any) -> Iterator[Any]:
    """The members of a union, without ``Annotated``; the annotation itself when it is none."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from options(get_args(annotation)[0])
    elif origin is Union or origin is types.UnionType:
        for member in get_args(annotation):
            yield from options(member)
    else:
        yield annotation


def _model(annotation: Any) -> type[BaseModel] | None:
    for option in options(annotation):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _step(annotation: Any, part: str | int) -> Any:
    """The annotation one part further; None when there is nothing of that name."""
    for option in options(annotation):
        origin = get_origin(option)
        if isinstance(option, type) and origin is None and issubclass(option, BaseModel):
            field = option.model_fields.get(str(part))
            if field is not None:
                return field.annotation
        elif origin is tuple and isinstance(part, int):
            return get_args(option)[0]
        elif origin is dict:
            return get_args(option)[1]
    return None


def model_at(root: type[BaseModel], loc: Loc) -> type[BaseModel] | None:
    """The model that describes what stands at ``loc``."""
    annotation: Any = root
    for part in loc:
        annotation = _step(annotation, part)
        if annotation is None:
            return None
    return _model(annotation)


def nested_models(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The fields of a model that are models themselves."""
    found = {}
    for name, field in model.model_fields.items():
        inner = _model(field.annotation)
        if inner is not None:
            found[name] = inner
    return found


@cache
def marked_paths(root: type[BaseModel]) -> tuple[tuple[tuple[str, ...], PathMark], ...]:
    """Every pattern of a path whose value names a file, as ("access_log", "path")."""
    found: list[tuple[tuple[str, ...], PathMark]] = []

    def visit(annotation: Any, path: tuple[str, ...]) -> None:
        origin = get_origin(annotation)
        if origin is Annotated:
            inner, *metadata = get_args(annotation)
            found.extend((path, mark) for mark in metadata if isinstance(mark, PathMark))
            visit(inner, path)
        elif origin is Union or origin is types.UnionType:
            for member in get_args(annotation):
                visit(member, path)
        elif origin is tuple:
            visit(get_args(annotation)[0], (*path, ANY))
        elif origin is dict:
            visit(get_args(annotation)[1], (*path, ANY))
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
            for name, field in annotation.model_fields.items():
                marks = (mark for mark in field.metadata if isinstance(mark, PathMark))
                found.extend(((*path, name), mark) for mark in marks)
                visit(field.annotation, (*path, name))

    visit(root, ())
    return tuple(dict.fromkeys(found))


def models_under(root: type[BaseModel]) -> tuple[type[BaseModel], ...]:
    """A model and all that stand in it, each once, in the order of the file."""
    found: dict[type[BaseModel], None] = {}

    def visit(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            if annotation in found:
                return
            found[annotation] = None
            for field in annotation.model_fields.values():
                visit(field.annotation)
            return
        for argument in get_args(annotation):
            visit(argument)

    visit(root)
    return tuple(found)


def metadata_of(field: FieldInfo) -> tuple[Any, ...]:
    """What is attached to a field's type, also within ``| None``, but not within a list."""
    found = list(field.metadata)

    def visit(annotation: Any) -> None:
        origin = get_origin(annotation)
        if origin is Annotated:
            inner, *metadata = get_args(annotation)
            found.extend(metadata)
            visit(inner)
        elif origin is Union or origin is types.UnionType:
            for member in get_args(annotation):
                visit(member)

    visit(field.annotation)
    return tuple(found)


def unit_of(field: FieldInfo) -> Unit | None:
    """The unit in which a field's value is written."""
    return next((mark for mark in metadata_of(field) if isinstance(mark, Unit)), None)

"""The docstrings of the models' fields, for whoever prints the manual.

pydantic can read them itself (`use_attribute_docstrings`), by parsing the source of each model as
it is imported. That is a quarter of the time that it takes to import all of them, and every process
of the gateway does so; only the schema and the reference want the texts.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from pydantic import BaseModel

__all__ = ["describe"]


def describe(models: Iterable[type[BaseModel]]) -> None:
    """Give every field of these models the text below it as its description."""
    for model in models:
        for base in reversed(model.__mro__):
            if not issubclass(base, BaseModel) or base is BaseModel:
                continue
            for name, text in _texts(base):
                field = model.model_fields.get(name)
                if field is not None:
                    field.description = text


@cache
def _texts(model: type[BaseModel]) -> tuple[tuple[str, str], ...]:
    return tuple(_below_fields(_class(Path(inspect.getfile(model)), model.__qualname__)))


@cache
def _module(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _class(path: Path, qualified: str) -> ast.ClassDef:
    inside: ast.Module | ast.ClassDef = _module(path)
    for part in qualified.split("."):
        inside = next(
            node for node in inside.body if isinstance(node, ast.ClassDef) and node.name == part
        )
    if isinstance(inside, ast.ClassDef):
        return inside
    raise LookupError(f"{path} has no class {qualified}")


def _below_fields(found: ast.ClassDef) -> Iterator[tuple[str, str]]:
    name = ""
    for node in found.body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=field)):
                name = field
            case ast.Expr(value=ast.Constant(value=str(text))) if name:
                yield name, inspect.cleandoc(text)
                name = ""
            case _:
                name = ""

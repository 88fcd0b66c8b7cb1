"""The reference of the file, as Markdown, from the docstrings of the models.

    python -m headgate.config.reference > docs/reference/config.md

One section a model in the order in which the file nests them, with a table of its fields. The
policies, which stand at three levels, have one section that the three refer to. Nothing is
written here that a docstring could say; the examples stand in `examples`.
"""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from headgate.config.examples import EXAMPLES
from headgate.config.fields import Unit, Words
from headgate.config.forms import OrFalse, OrText, Shorthand
from headgate.config.model import Config
from headgate.config.policies import PolicyFields, ServicePolicyFields
from headgate.config.prose import describe
from headgate.config.schema import default_text
from headgate.config.walk import metadata_of, models_under

__all__ = ["page"]

_INTRODUCTION: Final = """\
# The configuration file

The file is YAML. This page lists everything that can stand in it; `headgate schema` gives the
same to an editor, and `headgate check FILE` says what is wrong with a file, all at once.

## How values are written

| | forms |
|---|---|
| duration | `250ms`, `30s`, `5min`, `1h`, `7d`, `1h30min`; a bare number is seconds |
| size | `512B`, `1KB` (1024 bytes), `10MB`, `2GB`; a bare number is bytes |
| rate | `10/s`, `1000/15min`, `5/h` |
| percentage | `50%`, or a share between 0 and 1 such as `0.5` |
| true or false | `true`, `false`; `yes`, `no`, `on` and `off` are understood as well |

Text needs quotes only where YAML would read it otherwise: when it starts with one of
`` @ ` % * & ! | > `` or a bracket, when it has `: ` or ` #` in it, and in `{...}` when it has
braces, as in `{path: "/users/{id}"}`. Words such as `no` and `off`, and numbers such as `0600`
and `1.10`, are kept as they are written. A key with nothing after it counts as not said.

**References.** `${env:NAME}` is the environment variable, `${env:NAME:-default}` gives it a
default for when it is not set or empty, and `${file:PATH}` is what the file holds, without its
last line break. They may stand anywhere in a value, never in a key; `$${` writes a plain `${`.
What they bring in is never printed. A `PATH`, and every other file name, is relative to the file
it is written in.

**Several files.** `include:` names more files, or patterns such as `routes/*.yaml`, relative to
the including one; a directory in place of the file takes every `*.yaml` in it, in alphabetical
order. Lists are joined, in the order of the files; mappings are merged by key; anything said
twice is a fault. A service is said in one place.

**Anchors.** `&name`, `*name` and `<<: *name` work as in all YAML. Keys that nobody uses are
faults, so anchors stand on the first thing that needs them.
"""

_PLACES_MAX: Final = 6
_BASES: Final[dict[type[BaseModel], str]] = {
    PolicyFields: "Policies",
    ServicePolicyFields: "Policies of services",
}

_PLAIN_WORDS: Final[dict[Any, str]] = {
    bool: "true or false",
    int: "whole number",
    Any: "any value",
}


def page() -> str:
    """The whole page."""
    where = _places()
    families = [models_under(base) for base in _BASES]
    policies = {model: None for family in families for model in family}
    others = [model for model in models_under(Config) if model not in (Config, *policies)]
    models: list[type[BaseModel]] = [Config, *others, *policies]
    describe(models)
    links = ", ".join(f"[{title_of(model)}](#{anchor_of(model)})" for model in models)
    sections = [_section(model, where) for model in models]
    return "\n".join([_INTRODUCTION, f"Sections: {links}.\n", *sections]).rstrip() + "\n"


def title_of(model: type[BaseModel]) -> str:
    """Name a section: that of AccessLogSpec is "Access log"."""
    if model is Config:
        return "Top level"
    if model in _BASES:
        return _BASES[model]
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", model.__name__.removesuffix("Spec"))
    words = words.replace("Tls", "TLS").replace("Http2", "HTTP/2").replace("Dns", "DNS")
    first, *rest = words.split(" ")
    return " ".join([first, *(word if word.isupper() else word.lower() for word in rest)])


def anchor_of(model: type[BaseModel]) -> str:
    """As GitHub makes it from the heading."""
    return re.sub(r"[^a-z0-9 -]", "", title_of(model).lower()).replace(" ", "-")


def _places() -> dict[type[BaseModel], list[str]]:
    """Where each model stands in the file, as ``routes[].match``."""
    found: dict[type[BaseModel], list[str]] = {}

    def visit(annotation: Any, path: str, above: tuple[type[BaseModel], ...]) -> None:
        origin = get_origin(annotation)
        if isinstance(annotation, type) and origin is None and issubclass(annotation, BaseModel):
            if annotation in above:
                return
            places = found.setdefault(annotation, [])
            if path not in places:
                places.append(path)
            for name, field in annotation.model_fields.items():
                key = field.alias or name
                visit(field.annotation, f"{path}.{key}" if path else key, (*above, annotation))
        elif origin is tuple:
            visit(get_args(annotation)[0], f"{path}[]", above)
        elif origin is dict:
            visit(get_args(annotation)[1], f"{path}.*", above)
        else:
            for argument in get_args(annotation):
                visit(argument, path, above)

    visit(Config, "", ())
    return found


def _section(model: type[BaseModel], where: dict[type[BaseModel], list[str]]) -> str:
    lines = [f"## {title_of(model)}", ""]
    places = [place for place in where.get(model, []) if place]
    if places:
        named = ", ".join(f"`{place}`" for place in places[:_PLACES_MAX])
        more = f" and {len(places) - _PLACES_MAX} more places" if len(places) > _PLACES_MAX else ""
        lines += [f"At {named}{more}.", ""]
    doc = "\n\n".join(
        " ".join(part.split()) for part in (model.__doc__ or "").strip().split("\n\n")
    )
    lines += [doc, "", "| field | type | default | |", "|---|---|---|---|"]
    lines += [_row(name, field) for name, field in _own_fields(model)]
    for base, title in _BASES.items():
        if model is not base and issubclass(model, base):
            names = ", ".join(f"`{name}`" for name in base.model_fields)
            lines.append(f"| {names} | | | see [{title}](#{anchor_of(base)}) |")
    example = EXAMPLES.get(model.__name__)
    if example:
        lines += ["", "```yaml", example.rstrip(), "```"]
    return "\n".join([*lines, ""])


def _own_fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    inherited = {
        name
        for base in _BASES
        if model is not base and issubclass(model, base)
        for name in base.model_fields
    }
    for name, field in model.model_fields.items():
        if name not in inherited:
            yield field.alias or name, field


def _row(name: str, field: FieldInfo) -> str:
    text = " ".join((field.description or "").split())
    cells = [f"`{name}`", type_words(field), _default(field), text]
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    default = default_text(field)
    if default in (None, [], {}, ""):
        return ""
    if isinstance(default, list):
        return ", ".join(f"`{item}`" for item in default)
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def type_words(field: FieldInfo) -> str:
    """A field's type in a few words, with a link where it has a section of its own."""
    return _words(field.annotation, metadata_of(field))


def _words(annotation: Any, metadata: tuple[Any, ...]) -> str:
    short = next((mark.words for mark in metadata if isinstance(mark, Shorthand)), "")
    for mark in metadata:
        if isinstance(mark, Unit):
            return "percentage" if mark.name == "percent" else mark.name
        if isinstance(mark, Words):
            return mark.text
        if isinstance(mark, OrFalse):
            switch = "`true` or `false`"
            if switch not in short:
                short = f"{short}, {switch}" if short else f"or {switch}"
        if isinstance(mark, OrText):
            return "service, or a mapping or list of several"
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return _words(inner, (*metadata, *more))
    if origin is Union or origin is types.UnionType:
        members = [
            member
            for member in get_args(annotation)
            if member is not type(None) and get_origin(member) is not Literal
        ]
        # Nothing but words: a choice of them, or none.
        members = members or [each for each in get_args(annotation) if each is not type(None)]
        return _words(members[0], metadata)
    long = _long_words(annotation, origin, short)
    return f"{long}, {short}" if short.startswith("or ") else long


def _long_words(annotation: Any, origin: Any, short: str) -> str:
    if origin is Literal:
        return " or ".join(f"`{word}`" for word in get_args(annotation))
    if origin is tuple:
        item = _words(get_args(annotation)[0], ())
        return f"{item}, or a list of them" if short.startswith("one") else f"list of {item}"
    if origin is dict:
        key, value = get_args(annotation)
        return f"mapping of {_words(key, ())} to {_words(value, ())}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{title_of(annotation)}](#{anchor_of(annotation)})"
    return _PLAIN_WORDS.get(annotation, "text")


if __name__ == "__main__":
    sys.stdout.write(page())

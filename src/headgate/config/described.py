"""Where a service describes itself, for the document that is made of all of them."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import PlainValidator, WithJsonSchema

from headgate.config.fields import FilePath, Spec, Words, refuse, text_of
from headgate.config.forms import Shorthand

__all__ = ["Described", "DescribedSpec"]

_LONGEST: Final = 1024


def _target(value: object) -> str:
    text = text_of(value)
    if not text.startswith("/") or not text.isprintable() or " " in text or len(text) > _LONGEST:
        raise refuse("is no path; write /openapi.json")
    return text


Target = Annotated[
    str,
    PlainValidator(_target),
    Words("path"),
    WithJsonSchema({"type": "string", "pattern": "^/", "examples": ["/openapi.json"]}),
]


class DescribedSpec(Spec):
    """Where the OpenAPI document of a service is, 3.0 or 3.1: one of `path` and `file`. A text
    alone is `path`.

    The admin API joins all of them into one, with the paths that clients use
    (`/api/services/openapi.json`, and to read `/docs/services`).
    """

    path: Target | None = None
    """Where instances show it, such as `/openapi.json`. One of them is asked when somebody wants
    to read, and the answer kept for a minute."""

    file: FilePath | None = None
    """A file, YAML or JSON."""


def _widen(value: object) -> object:
    if not isinstance(value, str):
        return value
    if not value.startswith("/"):
        raise refuse("is no path; write /openapi.json, or {file: openapi.json}")
    return {"path": value}


Described = Annotated[
    DescribedSpec,
    Shorthand(
        _widen,
        {"type": "string", "examples": ["/openapi.json"]},
        "or text, which is `path`",
    ),
]

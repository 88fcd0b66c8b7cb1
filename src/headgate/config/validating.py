"""Requests and responses held against a description: JSON Schema or OpenAPI."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, PlainValidator, WithJsonSchema

from headgate.config.fields import (
    FilePath,
    Flag,
    PathMark,
    Positive,
    Size,
    Spec,
    Text,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import OrFalse, Shorthand
from headgate.security.validation.rules import ValidationRules

__all__ = ["Validation", "ValidationSpec", "problems"]

_R: Final = ValidationRules()
Found = tuple[tuple[str | int, ...], str, str, bool]


def _schema(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    name = text_of(value)
    if not name or "\0" in name:
        raise refuse("is neither a file name nor a schema")
    return name


Schema = Annotated[
    Any,
    PlainValidator(_schema),
    PathMark(must_exist=True),
    Words("file or JSON Schema"),
    WithJsonSchema({"type": ["string", "object"]}),
]
"""The file of a JSON Schema, or the schema itself."""


def _status(value: object) -> object:
    return int(value) if isinstance(value, str) and value in ("400", "422") else value


class ValidationSpec(Spec):
    """Holds requests against an OpenAPI document, 3.0 or 3.1, or against JSON Schemas. What does
    not fit is answered with 400 and a list of all that is wrong (`application/problem+json`). A
    file name alone is `openapi`.

    Bodies are gathered before they go on, up to `max_body`; give large uploads a route of their
    own. A body that is described must be JSON, a form or plain text to be looked into; of other
    media types only the type is checked. A media type that is not described is answered with 415.
    """

    openapi: FilePath | None = None
    """The OpenAPI document, YAML or JSON. It may refer to files in its folder and below."""

    body: Schema | None = None
    """Without `openapi`: the JSON Schema of bodies, a file or the schema itself. POST, PUT and
    PATCH must then bring a JSON body. Any draft from 4 to 2020-12, as `$schema` says; 2020-12
    unless said."""

    query: Schema | None = None
    """Without `openapi`: the schema of the query, an object with a property for each parameter.
    What is a number or a boolean there is read as one; a list may be given several times."""

    headers: Schema | None = None
    """Without `openapi`: the same for header fields. Their names may be in any case."""

    base: Text | None = None
    """What paths begin with before those of the document. By default the path of its first
    server's URL."""

    mode: Literal["enforce", "report"] = _R.mode
    """`report` lets everything through and only tells, in the log and the metrics."""

    responses: Literal["off", "report"] = _R.responses
    """`report` looks at JSON responses too. They are never changed or held up; what does not fit
    is logged."""

    unknown: Literal["refuse", "pass"] = _R.unknown
    """Paths and methods that the document does not describe: `refuse` answers 404 and 405, and
    400 to a body where none is described."""

    strict_query: Flag = _R.strict_query
    """Refuse query parameters that are not described."""

    read_only: Literal["refuse", "pass"] = _R.read_only
    """Properties that are `readOnly`, where a client sends them. `pass` is for clients that send
    back whole what they got."""

    formats: Flag = _R.formats
    """Hold values to their `format`: `date-time`, `email`, `uuid`, `int32` and so on."""

    unique_keys: Flag = _R.unique_keys
    """Refuse JSON objects that have the same key twice, of which services take one or the
    other."""

    patterns: Literal["linear", "bounded"] = _R.patterns
    """How regular expressions run. `linear` takes none that look ahead or back, because those
    can be made to run for ever; `bounded` takes them and gives up after some steps, and the
    value is then invalid."""

    status: Annotated[Literal[400, 422], BeforeValidator(_status)] = _R.status
    """The answer to what does not fit. What is no JSON at all is always a 400."""

    max_body: Size = _R.max_body
    """The largest body; more is answered with 413."""

    max_response: Size = _R.max_response
    """The largest response body that is looked at; larger ones go unseen."""

    max_depth: Positive = _R.max_depth
    """How deep JSON may be nested. At most 200."""

    max_values: Positive = _R.max_values
    """How many values a JSON body may hold, counting those inside lists and objects."""

    def rules(self) -> ValidationRules:
        """The same for `headgate.security.validation`."""
        return ValidationRules(**{name: getattr(self, name) for name in type(self).model_fields})


_SWITCHES: Final = ("true", "yes", "on", "false", "no", "off")
Validation = Annotated[
    Annotated[ValidationSpec | Literal[False], OrFalse()],
    Shorthand(
        lambda value: (
            {"openapi": value}
            if isinstance(value, str) and value.strip().lower() not in _SWITCHES
            else value
        ),
        {"type": "string", "examples": ["users.yaml"]},
        "or text, which is `openapi`",
    ),
    PathMark(must_exist=True, words=_SWITCHES),
]

_DEPTH_MAX: Final = 200


def problems(spec: ValidationSpec) -> Iterator[Found]:
    """What single fields cannot say about each other."""
    plain = [name for name in ("body", "query", "headers") if getattr(spec, name) is not None]
    if spec.openapi is None and not plain and not spec.strict_query:
        yield (), "says nothing to validate against", "name a document with `openapi`", False
    if spec.openapi is not None:
        for name in plain:
            hint = "leave one out; the document describes it already"
            yield (name,), "cannot stand beside `openapi`", hint, False
    else:
        said = spec.model_fields_set
        for name in sorted({"base", "unknown", "responses", "read_only"} & said):
            yield (name,), "means nothing without `openapi`", "leave it out", True
    if spec.base is not None and not spec.base.startswith("/"):
        yield ("base",), "must begin with /", "write it as in base: /api/v1", False
    if spec.max_depth > _DEPTH_MAX:
        yield ("max_depth",), f"is more than {_DEPTH_MAX}", "", False

"""The document of a FastAPI app, with errors as they are answered.

FastAPI describes its own form of a 422. In a hardened app it is a problem, so its description is
put in the place of that one wherever FastAPI has put it by itself; what the app describes stays.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any, Final

from headgate.kit.problems import MEDIA_TYPE

__all__ = ["with_problems"]

_THEIRS: Final = "HTTPValidationError"
_OF_THEIRS: Final = "ValidationError"
_NAME: Final = "Problem"
_REF: Final = "#/components/schemas/"
_TEXT: Final = {"type": "string"}
_SCHEMA: Final = {
    "type": "object",
    "title": _NAME,
    "description": "An error (RFC 9457). Some have members of their own beside these.",
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "default": "about:blank"},
        "title": _TEXT,
        "status": {"type": "integer"},
        "detail": _TEXT,
        "code": {**_TEXT, "description": "One word for programs."},
        "request_id": _TEXT,
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"where": _TEXT, "message": _TEXT, "type": _TEXT},
                "required": ["where", "message"],
            },
        },
    },
    "required": ["type", "title", "status", "detail"],
}


def with_problems(document: MutableMapping[str, Any]) -> None:
    """Change it in place. A second time it changes nothing."""
    schemas = document.get("components", {}).get("schemas", {})
    if _THEIRS not in schemas:
        return
    name = _NAME if _NAME not in schemas else f"{_NAME}Details"  # the app has one of its own
    content = {MEDIA_TYPE: {"schema": {"$ref": f"{_REF}{name}"}}}
    for operation in _operations(document):
        found = operation.get("responses", {}).get("422")
        if isinstance(found, dict) and _is_theirs(found):
            found["content"] = content
            found["description"] = "The request does not have the form that is asked for"
    schemas[name] = _SCHEMA
    text = str(document.get("paths")) + str(document.get("webhooks"))
    if f"{_REF}{_THEIRS}'" not in text:
        del schemas[_THEIRS]
        if f"{_REF}{_OF_THEIRS}'" not in text:
            schemas.pop(_OF_THEIRS, None)


def _operations(document: MutableMapping[str, Any]) -> Iterator[dict[str, Any]]:
    for paths in (document.get("paths", {}), document.get("webhooks", {})):
        for path in paths.values():
            for operation in path.values():
                if isinstance(operation, dict):
                    yield operation


def _is_theirs(response: dict[str, Any]) -> bool:
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    return isinstance(schema, dict) and schema.get("$ref") == f"{_REF}{_THEIRS}"

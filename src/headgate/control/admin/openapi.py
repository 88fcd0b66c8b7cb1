"""The OpenAPI document, completed with what holds for every operation: roles, refusals, examples.

Endpoints say what is their own. That a token may be missing, a role too small, a body too large or
a client too quick can happen to all of them, so it is said here, once, from the same table that the
guard reads. Pure: a document in, a document out.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from headgate.control.admin.problem import MEDIA_TYPE
from headgate.control.admin.roles import needed

__all__ = ["completed", "example_of"]

_PROBLEM: Final = "Problem"
_DEEPEST: Final = 6
_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "title": _PROBLEM,
    "description": "An error (RFC 9457). Some have more members, such as `faults`.",
    "properties": {
        "type": {"type": "string", "description": "Always `about:blank`."},
        "title": {"type": "string", "description": "The status in words."},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong, and the way out."},
        "faults": {"type": "array", "items": {"type": "object"}},
    },
    "required": ["type", "title", "status", "detail"],
    "example": {
        "type": "about:blank",
        "title": "Unauthorized",
        "status": 401,
        "detail": "send the token in Authorization: Bearer",
    },
}
_ALWAYS: Final = {
    "429": "Too many requests, or too many wrong tokens; `Retry-After` says when to come again",
    "default": "Any other error",
}
_WITH_TOKEN: Final = {
    "401": "The token is missing or wrong",
    "403": "The role is too small, or a page of another origin asks",
}
_WITH_BODY: Final = {
    "400": "The body is no JSON",
    "413": "The body is too large",
}


def completed(document: dict[str, Any], open_paths: Collection[str]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    schemas: dict[str, Any] = components.setdefault("schemas", {})
    schemas[_PROBLEM] = _SCHEMA
    # The framework's own form of a 422 is never sent.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["tags"] = _tags(document)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _complete(path, method.upper(), operation, schemas, is_open=path in open_paths)
    return document


def _complete(
    path: str, method: str, operation: dict[str, Any], schemas: dict[str, Any], *, is_open: bool
) -> None:
    responses: dict[str, Any] = operation.setdefault("responses", {})
    more = dict(_ALWAYS)
    if is_open:
        operation["security"] = []
        operation["x-role"] = "none"
    else:
        operation["security"] = [{"token": []}]
        operation["x-role"] = needed(method, path).value
        more.update(_WITH_TOKEN)
    if method != "GET":
        more.update(_WITH_BODY)
        more["503"] = "The audit log takes nothing, or the supervisor does not answer"
    if "422" in responses or operation.get("parameters") or operation.get("requestBody"):
        more["422"] = "The request does not have the form that is shown here"
    for status, what in more.items():
        said = responses.setdefault(status, {"description": what})
        if said["description"] == "Validation Error":
            said["description"] = what
    for status, response in responses.items():
        if status == "default" or int(status) >= 400:
            content = response.get("content", {})
            if not content or MEDIA_TYPE in content or "HTTPValidationError" in str(content):
                reference = {"$ref": f"#/components/schemas/{_PROBLEM}"}
                response["content"] = {MEDIA_TYPE: {"schema": reference}}
        else:
            for media, content in response.get("content", {}).items():
                if media == "application/json" and "example" not in content:
                    example = example_of(content.get("schema", {}), schemas)
                    if example is not None:
                        content["example"] = example
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None and "example" not in body:
        body["example"] = example_of(body.get("schema", {}), schemas)


def _tags(document: dict[str, Any]) -> list[dict[str, str]]:
    found: dict[str, None] = {}
    for operations in document["paths"].values():
        for operation in operations.values():
            found.update(dict.fromkeys(operation.get("tags", ())))
    return [{"name": name} for name in found]


def example_of(schema: dict[str, Any], schemas: dict[str, Any], depth: int = 0) -> Any:
    """A value that the schema allows, made from what it says."""
    if depth > _DEEPEST:
        return None
    if "$ref" in schema:
        return example_of(schemas.get(schema["$ref"].rpartition("/")[2], {}), schemas, depth + 1)
    for key in ("example", "const", "default"):
        if key in schema:
            return schema[key]
    if schema.get("examples"):
        return schema["examples"][0]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return example_of(schema[key][0], schemas, depth + 1)
    match schema.get("type"):
        case "object":
            fields = schema.get("properties", {})
            return {name: example_of(one, schemas, depth + 1) for name, one in fields.items()}
        case "array":
            items = schema.get("items", {})
            if "prefixItems" in schema:
                return [example_of(one, schemas, depth + 1) for one in schema["prefixItems"]]
            return [example_of(items, schemas, depth + 1)] if items else []
        case "integer":
            return max(1, int(schema.get("minimum", 1)))
        case "number":
            return 1.0
        case "boolean":
            return True
        case "string":
            return "string"
        case _:
            return None

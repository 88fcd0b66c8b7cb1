"""Small OpenAPI documents for tests."""

from __future__ import annotations

import json
from typing import Any

from headgate.security.validation import Description, Fault, Found, ValidationRules, describe
from headgate.security.validation.operation import Operation


def write(folder, document: Any, name: str = "api.json") -> str:
    text = document if isinstance(document, str) else json.dumps(document)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def openapi(paths: dict[str, Any], version: str = "3.1.0", **more: Any) -> dict[str, Any]:
    return {"openapi": version, "info": {"title": "t", "version": "1"}, "paths": paths, **more}


def described(folder, document: Any, **rules: Any) -> Description:
    return describe(ValidationRules(openapi=write(folder, document), **rules))


def operation_of(description: Description, method: str = "POST", path: str = "/x") -> Operation:
    found = description.find(method, path)
    assert isinstance(found, Found), found
    return found.operation


def with_body(
    schema: Any, kind: str = "application/json", version: str = "3.1.0", **more: Any
) -> dict[str, Any]:
    """A document of which POST /x takes a body of this schema."""
    return openapi(
        {"/x": {"post": {"requestBody": {"content": {kind: {"schema": schema}}}, "responses": {}}}},
        version,
        **more,
    )


def with_parameter(parameter: dict[str, Any], version: str = "3.1.0") -> dict[str, Any]:
    """A document of which GET has this parameter."""
    path = "/x/{p}" if parameter["in"] == "path" else "/x"
    if parameter["in"] == "path":
        parameter = {"required": True, **parameter}
    return openapi({path: {"get": {"parameters": [parameter], "responses": {}}}}, version)


def body_faults(operation: Operation, value: Any) -> list[tuple[str, str]]:
    """Keyword and pointer of what is wrong with a JSON body."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    refusal = operation.body_refusal("application/json", text)
    return faults_of(refusal.faults if refusal is not None else ())


def faults_of(faults: tuple[Fault, ...]) -> list[tuple[str, str]]:
    return sorted((fault.keyword, fault.pointer) for fault in faults)

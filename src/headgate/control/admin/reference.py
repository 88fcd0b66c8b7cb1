"""The reference page of the admin API and its OpenAPI document, from the code itself.

python -m headgate.control.admin.reference            the page
python -m headgate.control.admin.reference openapi    the document
"""

from __future__ import annotations

import json
import sys
from typing import Any, cast

from headgate.control.admin.app import make_api
from headgate.control.admin.docs_page import field_type, resolved
from headgate.control.control import Control

__all__ = ["openapi", "page"]

_INTRODUCTION = """\
# Admin API

The control process answers on `admin.bind` (`127.0.0.1:9900`), and on the socket `control.sock` in
the state directory, which the commands use. On the port everything but health asks for a token;
the first is made at the first start and kept in `admin-token` in the state directory:

```sh
curl -H "Authorization: Bearer $(cat .headgate/admin-token)" http://127.0.0.1:9900/api/workers
```

The socket needs no token, because the state directory is closed to other users:

```sh
curl --unix-socket .headgate/control.sock http://localhost/api/workers
```

`/docs` shows this page with a form for each endpoint and fetches nothing from elsewhere;
`/openapi.json` is the document it is made from. `/api/v1/...` is the same as `/api/...`. Errors are
problem+json (RFC 9457). Bodies have at most 64 KB, and 4 MB where a file or telemetry is sent.
Without a token, requests whose `Host` is a name other than `localhost` or the one the listener is
bound to are refused (421), so that no web page can read the answers by DNS rebinding. Tokens with
smaller roles, TLS, rates and the rest are in [the how-to](../howto/admin-api.md).

Any operation may also answer 401 (no token), 403 (the role is too small), 413 (the body is too
large) and 429 (too many requests); that is not said again below.
"""

_COMMON = frozenset({"401", "403", "413", "429", "400", "default"})


def openapi() -> dict[str, Any]:
    # Endpoints hold the control process in their closures and nothing is called here.
    return make_api(cast("Control", None)).openapi()


def page() -> str:
    document = openapi()
    schemas: dict[str, Any] = document["components"]["schemas"]
    parts = [_INTRODUCTION]
    by_tag: dict[str, list[str]] = {}
    named: dict[str, None] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            text = _operation(path, method, operation, schemas, named)
            by_tag.setdefault(operation["tags"][0], []).append(text)
    for tag, operations in by_tag.items():
        parts.append(f"## {tag.capitalize()}\n")
        parts.extend(operations)
    parts.append("## Types\n")
    for name in _closure(named, schemas):
        parts.append(f"### {name}\n\n{_table(schemas[name])}")
    return "\n".join(parts)


def _operation(
    path: str,
    method: str,
    operation: dict[str, Any],
    schemas: dict[str, Any],
    named: dict[str, None],
) -> str:
    lines = [f"### {method.upper()} {path}", "", operation.get("description", ""), ""]
    lines += [f"Role: {operation['x-role']}", ""]
    for parameter in operation.get("parameters", []):
        schema = parameter["schema"]
        default = schema.get("default")
        need = "required" if parameter.get("required") else "optional"
        if default is not None:
            need = f"default `{default}`"
        about = parameter.get("description", "")
        lines.append(
            f"- `{parameter['name']}` ({field_type(schema)}, {need}){': ' if about else ''}{about}"
        )
    if operation.get("parameters"):
        lines.append("")
    body = operation.get("requestBody")
    if body:
        media, content = next(iter(body["content"].items()))
        if media == "application/json" and "$ref" in json.dumps(content.get("schema", {})):
            name = _name(content["schema"])
            named[name] = None
            lines += [f"Body: [{name}](#{name.lower()})", ""]
        else:
            lines += [f"Body: `{media}`. {body.get('description', '')}".rstrip(), ""]
    for status, response in operation["responses"].items():
        if status in _COMMON:
            continue
        schema = response.get("content", {}).get("application/json", {}).get("schema") or {}
        if "$ref" in json.dumps(schema):
            name = _name(schema)
            named[name] = None
            many = "a list of " if schema.get("type") == "array" else ""
            lines.append(f"- {status}: {many}[{name}](#{name.lower()})")
        else:
            lines.append(f"- {status}: {response['description']}")
    return "\n".join([*lines, ""])


def _name(schema: dict[str, Any]) -> str:
    found = json.dumps(schema).partition("#/components/schemas/")[2]
    return found.partition('"')[0]


def _closure(named: dict[str, None], schemas: dict[str, Any]) -> list[str]:
    """The named types and those that they mention, in alphabetical order."""
    found: set[str] = set()
    waiting = list(named)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        text = json.dumps(resolved(schemas[name], schemas))
        waiting += [other for other in schemas if f'"#/components/schemas/{other}"' in text]
    return sorted(found)


def _table(schema: dict[str, Any]) -> str:
    rows = ["| Field | Type | Meaning |", "|---|---|---|"]
    for name, field in schema.get("properties", {}).items():
        about = " ".join(field.get("description", "").split())
        rows.append(f"| `{name}` | {field_type(field)} | {about} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["openapi"]:
        print(json.dumps(openapi(), indent=2, sort_keys=True))  # noqa: T201  it is what it is for
    else:
        print(page(), end="")  # noqa: T201

"""The page at /docs: every endpoint, to read and to try, in one file without a network.

It is made from the OpenAPI document, so it cannot fall behind. The script does one thing: send
the form's request with the token that was typed in, and show the answer.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from typing import Any

__all__ = [
    "CONTENT_SECURITY_POLICY",
    "STYLE",
    "digest",
    "docs_page",
    "field_type",
    "fields_table",
    "prose",
    "resolved",
]

STYLE = """
:root{color-scheme:light dark;font:15px/1.5 system-ui,sans-serif}
body{max-width:60rem;margin:2rem auto;padding:0 1rem}
details{border:1px solid #8886;border-radius:6px;margin:.5rem 0;padding:.4rem .8rem}
summary{cursor:pointer}
summary code{font-weight:600}
.verb{display:inline-block;min-width:4rem;font-weight:700}
table{border-collapse:collapse;margin:.5rem 0}
td,th{border:1px solid #8886;padding:.2rem .6rem;text-align:left;vertical-align:top}
input,textarea{font:inherit;width:100%;box-sizing:border-box;max-width:40rem}
textarea{min-height:6rem;font-family:monospace}
pre{background:#8881;padding:.6rem;overflow:auto;max-height:30rem}
button{font:inherit;margin:.5rem 0}
"""

_SCRIPT = """
"use strict";
let live = null;
for (const form of document.querySelectorAll("form.try")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const out = form.querySelector("pre");
    const query = new URLSearchParams();
    for (const input of form.querySelectorAll("input[data-query]"))
      for (const value of input.value.split("\\n"))
        if (value) query.append(input.name, value);
    const token = document.getElementById("token").value;
    const headers = token ? {authorization: "Bearer " + token} : {};
    const body = form.querySelector("textarea");
    if (body) headers["content-type"] = body.dataset.media;
    for (const input of form.querySelectorAll("input[data-header]"))
      if (input.value) headers[input.dataset.header] = input.value;
    let path = form.dataset.path;
    for (const input of form.querySelectorAll("input[data-path-part]"))
      path = path.replace(/\\{[^}]*\\}/, () => encodeURIComponent(input.value));
    if (query.size) path += "?" + query;
    out.hidden = false;
    out.textContent = "...";
    if (live) live.abort();
    live = new AbortController();
    try {
      const got = await fetch(path, {method: form.dataset.method, headers,
                                     body: body ? body.value : undefined,
                                     signal: live.signal, credentials: "omit"});
      const seen = got.status + " " + got.statusText + "\\n" +
        ["etag", "link", "retry-after", "x-request-id"].filter((name) => got.headers.get(name))
          .map((name) => name + ": " + got.headers.get(name) + "\\n").join("") + "\\n";
      if ((got.headers.get("content-type") || "").startsWith("text/event-stream")) {
        out.textContent = seen;
        const reader = got.body.pipeThrough(new TextDecoderStream()).getReader();
        for (let part; !(part = await reader.read()).done; )
          out.textContent = (out.textContent + part.value).slice(-20000);
        return;
      }
      let text = await got.text();
      try { text = JSON.stringify(JSON.parse(text), null, 2); } catch (_) {}
      out.textContent = seen + text;
    } catch (error) { out.textContent = String(error); }
  });
}
"""


def digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


# Nothing but what stands in the page itself may run, so that no value shown there can.
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; script-src 'sha256-{digest(_SCRIPT)}'; "
    f"style-src 'sha256-{digest(STYLE)}'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def prose(text: str) -> str:
    """A description as HTML; what stands between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def docs_page(openapi: dict[str, Any]) -> str:
    schemas: dict[str, Any] = openapi.get("components", {}).get("schemas", {})
    info = openapi["info"]
    title = html.escape(info["title"])
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'>",
        f"<title>{title}</title><style>{STYLE}</style>",
        f"<h1>{title} {html.escape(info['version'])}</h1>",
        f"<p>{prose(info.get('description', ''))}</p>",
        "<p>The document behind this page: <a href=/openapi.json>/openapi.json</a>.",
        "What services behind the gateway offer: <a href=/docs/services>/docs/services</a></p>",
        "<p><label>Token for trying things out, kept in this page only:",
        "<input id=token type=password autocomplete=off></label></p>",
    ]
    by_tag: dict[str, list[str]] = {}
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            tag = (operation.get("tags") or ["other"])[0]
            by_tag.setdefault(tag, []).append(_operation(path, method, operation, schemas))
    for tag, operations in by_tag.items():
        parts.append(f"<h2>{html.escape(tag.capitalize())}</h2>")
        parts.extend(operations)
    parts.append(f"<script>{_SCRIPT}</script></html>")
    return "\n".join(parts)


def _operation(path: str, method: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    verb = method.upper()
    parts = [
        f"<details><summary><span class=verb>{verb}</span> <code>{html.escape(path)}</code> ",
        f"{prose(operation.get('description', ''))}</summary>",
        f"<p>Role: <strong>{html.escape(str(operation.get('x-role', '')))}</strong></p>",
    ]
    parts.append(f"<form class=try data-method={verb} data-path='{html.escape(path, quote=True)}'>")
    for parameter in operation.get("parameters", []):
        name = html.escape(parameter["name"], quote=True)
        about = prose(parameter.get("description", ""))
        default = html.escape(str(parameter.get("schema", {}).get("default", "")), quote=True)
        place = "data-path-part" if parameter.get("in") == "path" else "data-query"
        if parameter.get("in") == "header":
            place = f"data-header='{name}'"
        parts.append(
            f"<label>{name} {about}<input {place} name='{name}' value='{default}'></label>"
        )
    if method not in {"get", "head"}:
        parts.append("<label>If-Match <input data-header='if-match'></label>")
    body = operation.get("requestBody")
    if body:
        described: dict[str, dict[str, Any]] = body.get("content") or {"nothing": {}}
        media, content = next(iter(described.items()))
        schema = resolved(content.get("schema", {}), schemas)
        example = content.get("example", "")
        text = example if isinstance(example, str) else json.dumps(example, indent=2)
        parts.append(
            f"<label>Body ({html.escape(media)})<textarea data-media='{html.escape(media)}'>"
            f"{html.escape(text)}</textarea></label>"
        )
        parts.append(fields_table(schema, schemas))
    parts.append("<button>Send</button><pre hidden></pre></form>")
    for status, response in operation.get("responses", {}).items():
        if status in {"400", "401", "403", "413", "429", "default"}:
            continue  # the same for all; the introduction tells
        parts.append(f"<p><strong>{html.escape(status)}</strong> ")
        parts.append(prose(response.get("description", "")) + "</p>")
        schema = response.get("content", {}).get("application/json", {}).get("schema")
        if schema:
            parts.append(fields_table(resolved(schema, schemas), schemas))
    parts.append("</details>")
    return "".join(parts)


def resolved(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    if schema.get("type") == "array":
        schema = schema.get("items", {})
    reference = schema.get("$ref")
    if reference:
        found: dict[str, Any] = schemas.get(reference.rpartition("/")[2], {})
        return found
    return schema


def fields_table(schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    rows = [
        f"<tr><td><code>{html.escape(name)}</code><td>{html.escape(field_type(field))}"
        f"<td>{prose(field.get('description', ''))}"
        for name, field in schema.get("properties", {}).items()
    ]
    if not rows:
        return ""
    return "<table><tr><th>Field<th>Type<th>Meaning" + "".join(rows) + "</table>"


def field_type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    if "enum" in field:
        return " or ".join(str(value) for value in field["enum"])
    if "anyOf" in field:
        return " or ".join(field_type(option) for option in field["anyOf"])
    if field.get("type") == "array":
        return f"list of {field_type(field.get('items', {}))}"
    said = field.get("type", "any")
    return " or ".join(map(str, said)) if isinstance(said, list) else str(said)

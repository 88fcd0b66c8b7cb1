"""The services' own APIs, joined: one document, and a page to read it.

Who may see the page is not who may see what it shows: the page is empty until a token is typed in,
with which it fetches its contents. These are made here and escaped, and the page's policy lets
nothing run but its own script.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any, Final

from fastapi import APIRouter
from starlette.responses import HTMLResponse, JSONResponse, Response

from headgate import __version__
from headgate.control.admin.docs_page import STYLE, digest, fields_table, prose, resolved
from headgate.control.control import Control

__all__ = ["PAGE", "add_service_docs", "contents"]

PAGE: Final = "/docs/services"
_DOCUMENT: Final = "/api/services/openapi.json"
_CONTENTS: Final = "/api/services/openapi.html"

_SCRIPT: Final = """
"use strict";
const ask = document.getElementById("ask"), token = document.getElementById("token");
const shown = document.getElementById("shown");
async function show() {
  shown.textContent = "...";
  try {
    const headers = token.value ? {authorization: "Bearer " + token.value} : {};
    const got = await fetch("/api/services/openapi.html", {headers, credentials: "omit"});
    if (got.ok) shown.innerHTML = await got.text();
    else if (got.status === 401) shown.textContent = "The token is missing or wrong.";
    else shown.textContent = await got.text();
  } catch (error) { shown.textContent = String(error); }
}
ask.addEventListener("submit", (event) => { event.preventDefault(); show(); });
"""

_POLICY: Final = (
    f"default-src 'none'; script-src 'sha256-{digest(_SCRIPT)}'; "
    f"style-src 'sha256-{digest(STYLE)}'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE_TEXT: Final = f"""<!doctype html><html lang=en><meta charset=utf-8>
<meta name=viewport content='width=device-width'>
<title>Services behind the gateway</title><style>{STYLE}</style>
<h1>Services behind the gateway</h1>
<p>What their clients can ask for, with the paths that clients use. The document behind this page:
<code>{_DOCUMENT}</code></p>
<form id=ask><p><label>Token of a viewer, kept in this page only:
<input id=token type=password autocomplete=off></label> <button>Show</button></p></form>
<div id=shown role=status></div>
<script>{_SCRIPT}</script></html>"""


def add_service_docs(router: APIRouter, control: Control) -> None:
    @router.get(_DOCUMENT, tags=["services"])
    async def document() -> Response:
        """One OpenAPI document of all services behind the gateway that describe themselves, with
        the paths that clients use. What is left out stands in `x-left-out`.
        """
        return JSONResponse(await control.service_docs.document(__version__))

    @router.get(_CONTENTS, include_in_schema=False)
    async def as_html() -> Response:
        return HTMLResponse(contents(await control.service_docs.document(__version__)))

    @router.get(PAGE, include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(_PAGE_TEXT, headers={"content-security-policy": _POLICY})


def contents(document: Mapping[str, Any]) -> str:
    """The document as HTML, service by service."""
    schemas: dict[str, Any] = document.get("components", {}).get("schemas", {})
    by_service: dict[str, list[str]] = {each["name"]: [] for each in document["tags"]}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            by_service.setdefault(operation["tags"][0], []).append(
                _operation(path, method, operation, schemas)
            )
    parts = []
    for service, operations in by_service.items():
        parts.append(f"<h2>{html.escape(service)}</h2>")
        parts.extend(operations or ["<p>Nothing of it can be reached.</p>"])
    left_out = document["x-left-out"]
    if left_out:
        rows = [
            f"<li>{html.escape(each['service'])}: {html.escape(each['why'])}" for each in left_out
        ]
        parts.append("<h2>Left out</h2><ul>" + "".join(rows) + "</ul>")
    return "\n".join(parts) or "<p>No service is described.</p>"


def _operation(
    path: str, method: str, operation: Mapping[str, Any], schemas: dict[str, Any]
) -> str:
    about = str(operation.get("summary") or operation.get("description") or "")
    auth = ", ".join(operation.get("x-headgate-auth", ())) or "nobody is asked who he is"
    verb = html.escape(method.upper())
    route = html.escape(str(operation["x-headgate-route"]))
    parts = [
        f"<details><summary><span class=verb>{verb}</span> ",
        f"<code>{html.escape(path)}</code> {prose(about)}</summary>",
        f"<p>{prose(str(operation.get('description', '')))}</p>",
        f"<p>Route <code>{route}</code>; authentication: {html.escape(auth)}</p>",
        _parameters(operation.get("parameters", ())),
    ]
    body = operation.get("requestBody")
    if isinstance(body, Mapping):
        parts.append(_content("Body", body, schemas))
    for status, response in operation.get("responses", {}).items():
        if isinstance(response, Mapping):
            parts.append(_content(str(status), response, schemas))
    parts.append("</details>")
    return "".join(parts)


def _parameters(parameters: Any) -> str:
    rows = [
        f"<tr><td><code>{html.escape(str(each.get('name', '')))}</code>"
        f"<td>{html.escape(str(each.get('in', '')))}{', needed' if each.get('required') else ''}"
        f"<td>{prose(str(each.get('description', '')))}"
        for each in parameters
        if isinstance(each, Mapping)
    ]
    if not rows:
        return ""
    return "<table><tr><th>Parameter<th>Where<th>Meaning" + "".join(rows) + "</table>"


def _content(title: str, said: Mapping[str, Any], schemas: dict[str, Any]) -> str:
    parts = [
        f"<p><strong>{html.escape(title)}</strong> {prose(str(said.get('description', '')))}</p>"
    ]
    content = said.get("content")
    for media, each in content.items() if isinstance(content, Mapping) else ():
        schema = each.get("schema") if isinstance(each, Mapping) else None
        parts.append(f"<p><code>{html.escape(str(media))}</code></p>")
        if isinstance(schema, dict):
            parts.append(fields_table(resolved(schema, schemas), schemas))
    return "".join(parts)

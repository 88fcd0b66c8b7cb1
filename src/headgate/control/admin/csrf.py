"""Requests that a browser sends for somebody else's page.

Theory of operation
-------------------
A browser says where a request comes from: `Sec-Fetch-Site`, and `Origin` on everything but plain
reads. A request that changes something and comes from another origin is refused, even with a
token: the token may have been pasted into the wrong page. What is no browser sends neither field
and is not hindered. Cookies are never looked at, so a browser adds nothing that lets it in.

Own is the origin that the request itself is addressed to; `admin.origins` allows others, which are
also the only ones that CORS lets read an answer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

__all__ = ["cors_headers", "foreign_origin", "is_preflight", "preflight_headers"]

_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE"
_ASKED: Final = "authorization, content-type, if-match, if-none-match, last-event-id"
_SHOWN: Final = "etag, link, retry-after, x-request-id"


def foreign_origin(
    method: str, scheme: str, headers: Mapping[str, str], allowed: Collection[str]
) -> str:
    """Where a request comes from that must not change anything here; "" if it may."""
    if method in _READING:
        return ""
    origin = headers.get("origin")
    if origin is not None:
        given = origin.strip().lower()
        if given in allowed or given == _own(scheme, headers):
            return ""
        return given[:200] or "null"
    site = headers.get("sec-fetch-site", "").strip().lower()
    # A browser that sends no Origin with a change is an odd one; what it says of the site counts.
    return site if site in {"cross-site", "same-site"} else ""


def is_preflight(method: str, headers: Mapping[str, str]) -> bool:
    return (
        method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers
    )


def preflight_headers(headers: Mapping[str, str], allowed: Collection[str]) -> dict[str, str]:
    """The answer's fields to a preflight; empty when the origin may not."""
    fields = cors_headers(headers, allowed)
    if "access-control-allow-origin" not in fields:
        return {}
    return {
        **fields,
        "access-control-allow-methods": _METHODS,
        "access-control-allow-headers": _ASKED,
        "access-control-max-age": "600",
    }


def cors_headers(headers: Mapping[str, str], allowed: Collection[str]) -> dict[str, str]:
    """What lets a page of an allowed origin read the answer."""
    if not allowed:
        return {}
    origin = headers.get("origin", "").strip()
    if origin.lower() not in allowed:
        return {"vary": "origin"}
    return {
        "access-control-allow-origin": origin,
        "access-control-expose-headers": _SHOWN,
        "vary": "origin",
    }


def _own(scheme: str, headers: Mapping[str, str]) -> str:
    host = headers.get("host", "").strip().lower()
    return f"{scheme}://{host}" if host else "?"

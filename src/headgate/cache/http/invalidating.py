"""What an unsafe method makes void (RFC 9111 4.4).

A response that is no error, to a method that is not known to be safe, voids what is kept of its
URI, and of those that its `Location` and `Content-Location` name. Those of another origin are left
alone: else anybody who can answer for one host could empty the cache of another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit

from headgate.wire.host import origin_of_url
from headgate.wire.target import normalise_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headgate.wire.message import Header

__all__ = ["SAFE_METHODS", "invalidated_by"]

SAFE_METHODS: Final = frozenset(
    {"GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY", "PRI"}
)
"""Of the registry of methods."""

_URL_MAX: Final = 8192


def invalidated_by(
    method: str,
    status: int,
    scheme: str,
    authority: str,
    target: str,
    response_headers: Iterable[Header],
) -> tuple[str, ...]:
    """URLs, the request's own first, each once, as `scheme://authority/path?query`."""
    if method in SAFE_METHODS or not 200 <= status < 400:
        return ()
    base = f"{scheme}://{authority}{target}"
    found = {base: None}
    origin = origin_of_url(base)
    for name, value in response_headers:
        if name not in (b"location", b"content-location") or len(value) > _URL_MAX:
            continue
        try:
            url = urljoin(base, value.decode("latin-1").strip())
            parts = urlsplit(url)
        except ValueError:
            continue
        if origin is None or origin_of_url(url) != origin:
            continue
        # As a request for it would have it, or nothing that is kept is found under it.
        path = normalise_path((parts.path or "/").encode("utf-8", "surrogatepass"))
        if path is None:
            continue
        query = f"?{parts.query}" if parts.query else ""
        found[f"{scheme}://{authority}{path}{query}"] = None
    return tuple(found)

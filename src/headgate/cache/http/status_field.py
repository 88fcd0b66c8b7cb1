"""`Cache-Status` (RFC 9211): what became of a request, one member for each cache on the way.

The cache next to the origin comes first, so ours goes behind those that the response brings. Keys
and details are text of others: what a string of a structured field cannot hold is written as `?`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from headgate.wire.message import Header

__all__ = ["Forwarded", "appended", "member"]

Forwarded = Literal[
    "bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"
]

_TOKEN: Final = re.compile(r"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*")
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]")
_INTEGER_MAX: Final = 999_999_999_999_999
_TEXT_MAX: Final = 256


def member(
    name: str,
    *,
    hit: bool = False,
    fwd: Forwarded | None = None,
    fwd_status: int | None = None,
    stored: bool = False,
    collapsed: bool = False,
    ttl_s: float | None = None,
    key: str | None = None,
    detail: str | None = None,
) -> bytes:
    """What one cache says of one request.

    `hit` has no meaning beside `fwd` and is left out then (2.1). `ttl_s` is negative for what is
    stale; `detail` is a token where it can be one.
    """
    said = [name if _TOKEN.fullmatch(name) else _string(name)]
    if hit and fwd is None:
        said.append("hit")
    if fwd is not None:
        said.append(f"fwd={fwd}")
        if fwd_status is not None:
            said.append(f"fwd-status={fwd_status}")
        if stored:
            said.append("stored")
        if collapsed:
            said.append("collapsed")
    if ttl_s is not None:
        whole = int(max(min(ttl_s, _INTEGER_MAX), -_INTEGER_MAX) // 1)
        said.append(f"ttl={whole}")
    if key is not None:
        said.append(f"key={_string(key)}")
    if detail is not None:
        said.append(f"detail={detail if _TOKEN.fullmatch(detail) else _string(detail)}")
    return "; ".join(said).encode()


def appended(headers: tuple[Header, ...], own: bytes) -> tuple[Header, ...]:
    """The response's fields with our member behind those of caches before us, in one line."""
    before = [value for name, value in headers if name == b"cache-status" and value.strip()]
    if not before:
        return (*headers, (b"cache-status", own))
    kept = tuple(pair for pair in headers if pair[0] != b"cache-status")
    return (*kept, (b"cache-status", b", ".join((*before, own))))


def _string(text: str) -> str:
    text = _UNPRINTABLE.sub("?", text[:_TEXT_MAX]).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'

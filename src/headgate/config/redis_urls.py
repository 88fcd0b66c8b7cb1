"""Where a Redis is, as the file says it."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

__all__ = ["redis_url_fault"]

_SCHEMES: Final = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")


def redis_url_fault(text: str, kind: str) -> str | None:
    """What is wrong with a URL, as a rule that follows the value. `kind` says what it is not."""
    scheme, found, rest = text.partition("://")
    if not found or scheme not in _SCHEMES:
        return kind
    try:
        url = urlsplit(text)
        if scheme.endswith("+sentinel"):
            has_place = bool(url.netloc) and bool(url.path.strip("/"))
        else:
            has_place = bool(url.path.strip("/") if scheme == "unix" else url.hostname)
            _ = url.port
    except ValueError:
        has_place = False
    if not has_place or " " in rest:
        return "names no place; write redis://host:6379/0 or unix:///run/redis.sock"
    return None

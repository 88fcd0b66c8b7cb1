"""What an operator says of a cache of responses; the defaults are the standard's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["CacheRules", "KeyRules"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRules:
    """What tells two responses apart, beside scheme, host, path and `Vary`."""

    host: bool = True
    query: Literal["all", "sorted", "none"] = "sorted"
    query_only: tuple[str, ...] = ()
    """Parameters that count; others do not. Empty: all but `query_without`."""
    query_without: tuple[str, ...] = ()
    """Parameters that do not count; a trailing `*` stands for any ending, as in `utm_*`."""
    headers: tuple[str, ...] = ()
    cookies: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    user: bool = False
    """Each user has responses of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRules:
    ttl_s: float | None = None
    """Freshness of a response that says nothing of it."""
    ttl_by_status: Mapping[int, float] = field(default_factory=dict)
    """The same for some statuses; these need not be cacheable by default."""
    overrides: bool = False
    """`ttl` holds whatever the response says."""
    heuristic: float = 0.1
    """Share of the time since `Last-Modified` that a response without an expiry is fresh for, where
    no `ttl` is given. RFC 9111 4.2.2."""
    heuristic_max_s: float = 86_400.0
    stale_while_revalidate_s: float = 0.0
    """Where the response says nothing of it."""
    stale_if_error_s: float = 0.0
    """Where the response says nothing of it."""
    trouble_ttl_s: float = 0.0
    """Freshness of a response that says nothing of it, while the level of degradation has `stale`
    in it and no `ttl` is given: a service in trouble is asked once in so long."""
    keep_s: float = 3600.0
    """How long a stale response is held to be validated, at least."""
    body_max: int = 1024 * 1024
    """A longer body passes without being kept."""
    collapse: bool = True
    collapse_wait_s: float = 5.0
    """How long to wait for another's answer before asking for oneself."""
    client_directives: bool = True
    """Whether `Cache-Control` of a request counts."""
    set_cookie: Literal["pass", "store", "strip"] = "pass"
    """A response with `Set-Cookie`: is not kept; is kept as it is; is kept without it."""
    tags: tuple[str, ...] = ()
    """Of every response of the route; `{param}` stands for one of the path."""
    tag_headers: tuple[str, ...] = ("cache-tag", "surrogate-key")
    tags_shown: bool = False
    """Whether clients see those headers."""
    status_header: bool = True
    """`Cache-Status` tells what became of each request (RFC 9211)."""
    name: str = "headgate"
    """Of this cache in `Cache-Status`, and in `CDN-Cache-Control` fields meant for it."""
    key: KeyRules = field(default_factory=KeyRules)

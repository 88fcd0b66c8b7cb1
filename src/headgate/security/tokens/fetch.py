"""A document of an issuer, over HTTP, within bounds.

Theory of operation. Whoever answers is not trusted to be quick, small or well-meaning: one deadline
for all of it, a bound on bytes, no compression (a small body could grow), redirects only within
the same origin, no proxy and no credentials from the environment. TLS is verified against the
system's authorities or the file that is named. Everything that goes wrong is a `FetchFailed` that
says so in words without secrets.

A discovery document (OpenID Connect Discovery 1.0 section 4, RFC 8414) is believed only if its
`issuer` is, letter for letter, the one that was asked, and names a key set that is as well
protected as itself.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from headgate.security.tokens.strict import Malformed, read_object
from headgate.wire.host import DEFAULT_PORTS

if TYPE_CHECKING:
    import httpx

MAX_REDIRECTS: Final = 3
_MAX_AGE: Final = re.compile(r"(?:^|[,\s])max-age=\"?([0-9]{1,9})\"?(?:$|[,\s])", re.IGNORECASE)
_NO_CACHE: Final = re.compile(r"(?:^|[,\s])no-(?:cache|store)(?:$|[=,\s])", re.IGNORECASE)
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class FetchFailed(Exception):
    """Why there is no document."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Fetched:
    body: bytes
    max_age_s: float | None
    """What Cache-Control says; None when it says nothing of use."""


def url_fault(url: str) -> str:
    """What is wrong with a URL to fetch from; empty when nothing is."""
    if not url.isascii() or not url.isprintable() or " " in url:
        return "has spaces, control or non-ASCII characters in it"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return "is not a URL that begins with https:// or http://"
    if parts.fragment:
        return 'is a URL with a "#" part, which is never sent'
    return ""


def shown_url(url: str) -> str:
    """Without user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def origin_of(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or DEFAULT_PORTS.get(parts.scheme, 0)


def trust(ca_file: str | None) -> ssl.SSLContext:
    """Who may speak for an issuer. Reads files."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"ca_file has no certificates of authorities: {error}") from None


async def open_client(ca_file: str | None, timeout_s: float) -> httpx.AsyncClient:
    """A client for `fetch`. Imports and reads files beside the loop."""

    def make() -> httpx.AsyncClient:
        import httpx

        return httpx.AsyncClient(
            verify=trust(ca_file),
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(timeout_s),
            # Minutes pass between two fetches: a connection kept that long is a dead one.
            limits=httpx.Limits(max_connections=4, max_keepalive_connections=0),
        )

    return await asyncio.to_thread(make)


async def fetch(
    client: httpx.AsyncClient, url: str, *, max_bytes: int, timeout_s: float
) -> Fetched:
    import httpx

    try:
        async with asyncio.timeout(timeout_s):
            return await _fetch(client, url, max_bytes)
    except TimeoutError:
        raise FetchFailed(f"{shown_url(url)} did not answer within {timeout_s:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError) as error:
        said = str(error) or type(error).__name__
        raise FetchFailed(f"{shown_url(url)} cannot be asked: {said[:200]}") from None


async def _fetch(client: httpx.AsyncClient, url: str, max_bytes: int) -> Fetched:
    asked = url
    headers = {
        "accept": "application/json, application/jwk-set+json",
        "accept-encoding": "identity",
        "user-agent": "headgate",
    }
    for _ in range(MAX_REDIRECTS + 1):
        async with client.stream("GET", asked, headers=headers) as response:
            if response.status_code in _REDIRECTS and "location" in response.headers:
                target = str(response.url.join(response.headers["location"]))
                if origin_of(target) != origin_of(url):
                    raise FetchFailed(
                        f"{shown_url(url)} redirects to another host, which is not followed"
                    )
                asked = target
                continue
            if response.status_code != 200:
                raise FetchFailed(
                    f"{shown_url(url)} answers {response.status_code}", response.status_code
                )
            if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
                raise FetchFailed(f"{shown_url(url)} answers in an encoding nobody asked for")
            body = bytearray()
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > max_bytes:
                    raise FetchFailed(f"{shown_url(url)} answers more than {max_bytes} bytes")
            return Fetched(bytes(body), max_age_of(response.headers.get("cache-control", "")))
    raise FetchFailed(f"{shown_url(url)} redirects too often")


def max_age_of(cache_control: str) -> float | None:
    if _NO_CACHE.search(cache_control):
        return None
    found = _MAX_AGE.search(cache_control)
    return float(found[1]) if found else None


# -- discovery -------------------------------------------------------------------------------


def discovery_urls(issuer: str) -> tuple[str, str]:
    """OpenID Connect appends to the whole issuer, RFC 8414 section 3.1 puts it before the path."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    base = f"{parts.scheme}://{parts.netloc}"
    return (
        f"{base}{path}/.well-known/openid-configuration",
        f"{base}/.well-known/oauth-authorization-server{path}",
    )


async def discover(
    client: httpx.AsyncClient, issuer: str, *, max_bytes: int, timeout_s: float
) -> dict[str, Any]:
    """The issuer's own description of itself, with a `jwks_uri` that may be asked."""
    first, second = discovery_urls(issuer)
    try:
        got = await fetch(client, first, max_bytes=max_bytes, timeout_s=timeout_s)
    except FetchFailed as error:
        if error.status != 404:
            raise
        got = await fetch(client, second, max_bytes=max_bytes, timeout_s=timeout_s)
    return read_discovery(got.body, issuer)


def read_discovery(body: bytes, issuer: str) -> dict[str, Any]:
    try:
        document = read_object(body)
    except Malformed as error:
        raise FetchFailed(f"the discovery document of {shown_url(issuer)} is {error}") from None
    if document.get("issuer") != issuer:
        raise FetchFailed(
            f"the discovery document of {shown_url(issuer)} is of another issuer; "
            "write the issuer exactly as the document does, also its last slash"
        )
    url = document.get("jwks_uri")
    if not isinstance(url, str) or url_fault(url):
        raise FetchFailed(f"the discovery document of {shown_url(issuer)} names no key set")
    if issuer.startswith("https:") and not url.startswith("https:"):
        raise FetchFailed(
            f"the discovery document of {shown_url(issuer)} names a key set without TLS"
        )
    return document

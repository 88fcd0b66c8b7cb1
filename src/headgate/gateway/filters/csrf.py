"""The `csrf` policy: requests that a page of another site made a browser send are refused.

Theory of operation
-------------------
A browser adds its user's cookies to what any page makes it send. So a request that changes
something has to come from a page of our own, and the browser says which page it was:

    Sec-Fetch-Site    same-origin or none (typed in, a bookmark): pass
                      same-site: pass if the policy says so or the origin is trusted
                      cross-site, or anything else: pass if the origin is trusted
    else Origin       our own host or trusted: pass; `null` is neither
    else Referer      likewise, by its origin
    else              pass if there is nothing in it that a browser adds by itself (cookies, user
                      name and password): a program with a key or a bearer token. Otherwise a token
                      can show that it is well, where tokens are in use.

`GET`, `HEAD`, `OPTIONS` and `TRACE` change nothing and pass, except `GET` and `CONNECT` that open a
WebSocket: browsers let every page open those and read what comes. They go by `Origin`, which every
browser sends with them, unless `Sec-Fetch-Site` says that it is the own one.

What the browser says comes before authentication: so that log-in itself is covered, and because
credentials are gone from the request afterwards. Whether a token is the user's own can only be said
after it: those are two filters. What must hold: a token never saves a request that the browser
itself says is foreign; two fields of one of these headers are refused, as browsers send one.

A client certificate is sent by browsers by themselves too, and is not seen here: a request with
nothing else passes as a program's.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from hmac import compare_digest
from typing import Final

from headgate.config.browsers import CsrfSpec, CsrfTokenSpec
from headgate.gateway.filters.base import Filter, FilterContext, Reply, Request, Response
from headgate.gateway.filters.origin import authority_of, refusal
from headgate.security.csrf_token import NONCE_BYTES, age_of, bound_to, make_token
from headgate.security.origins import Origins, is_same, origin_of_url
from headgate.wire.message import Header

__all__ = ["Csrf", "CsrfToken", "csrf_filters"]

_KEY: Final = "headgate.csrf"
_NEEDS_TOKEN: Final = "token"  # noqa: S105 - a word of our own
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_SOCKET: Final = frozenset({b"sec-websocket-key", b"sec-websocket-version"})
_AMBIENT: Final = (b"basic ", b"digest ", b"negotiate ", b"ntlm ")
_SHARED: Final = ("public", "s-maxage", "immutable")
_FOREIGN: Final = "it was sent by a page of another site"
_ONE: Final = 1

Judged = str | None
"""Why a request is refused, `_NEEDS_TOKEN`, or None."""


class Csrf(Filter):
    """Goes by what browsers say of the page that makes them ask."""

    is_early = True

    def __init__(self, spec: CsrfSpec, context: FilterContext, *, defers: bool = False) -> None:
        super().__init__(spec, context)
        self._trusted = Origins(spec.trusted)
        if self._trusted.is_any:
            msg = 'trusted "*" would let every site send requests'
            raise ValueError(msg)
        self._same_site = spec.same_site
        self._usual: Judged = _NEEDS_TOKEN if spec.token is not None and spec.token.always else None
        """What a page of our own still needs."""
        self._defers = defers

    def on_request(self, request: Request) -> Reply | None:
        if _KEY in request.state:
            return None  # judged before credentials were taken out; that holds
        found = request.state[_KEY] = self.judge(request)
        if found is None or (found == _NEEDS_TOKEN and self._defers):
            return None
        if found == _NEEDS_TOKEN:
            found = "nothing tells which site it comes from"
        return _refused(request, found)

    def judge(self, request: Request) -> Judged:
        """What becomes of a request before it is known who asks."""
        fields = request.headers.fields
        is_socket = any(name in _SOCKET for name, _ in fields)
        if request.method in _SAFE and not is_socket:
            return None
        origins = _values(fields, b"origin")
        sites = _values(fields, b"sec-fetch-site")
        if len(origins) > _ONE or len(sites) > _ONE:
            return "it says twice where it comes from"
        origin = origins[0] if origins else None
        site = sites[0] if sites else None
        if site == b"same-origin" or (site == b"same-site" and self._same_site):
            return None if is_socket else self._usual
        if is_socket:
            return self._of_socket(origin, request, is_browser=site is not None)
        if site is not None:
            if site == b"none" or (origin is not None and self._trusted.has(origin)):
                return self._usual
            return _FOREIGN
        if origin is not None:
            return self._of_origin(origin, request) or self._usual
        referers = _values(fields, b"referer")
        if referers:
            page = origin_of_url(referers[0]) if len(referers) == _ONE else None
            if page is None:
                return "it names a page that is none"
            return self._of_origin(page, request) or self._usual
        return _NEEDS_TOKEN if _has_ambient(fields) else None

    def _of_socket(self, origin: bytes | None, request: Request, *, is_browser: bool) -> Judged:
        if origin is not None:
            return self._of_origin(origin, request)
        if is_browser or _has_ambient(request.headers.fields):
            return "a WebSocket of a browser names its origin"
        return None

    def _of_origin(self, origin: bytes, request: Request) -> str | None:
        if is_same(origin, authority_of(request), is_tls=request.is_tls):
            return None
        if self._trusted.has(origin):
            return None
        return _FOREIGN


class CsrfToken(Filter):
    """Asks for a token where `Csrf` could not tell, and hands tokens out."""

    def __init__(
        self,
        spec: CsrfTokenSpec,
        context: FilterContext,
        wall: Callable[[], float] = time.time,  # noqa: TID251 - tokens outlive the process
        nonce: Callable[[], bytes] = lambda: secrets.token_bytes(NONCE_BYTES),
    ) -> None:
        super().__init__(spec, context)
        self._secret = spec.secret.encode()
        if not self._secret:
            msg = "token.secret must not be empty"
            raise ValueError(msg)
        self._header = spec.header.lower().encode("latin-1")
        self._names = (spec.cookie.encode("latin-1"), b"__Host-" + spec.cookie.encode("latin-1"))
        self._ttl_s = spec.ttl
        self._wall = wall
        self._nonce = nonce

    def on_request(self, request: Request) -> Reply | None:
        if request.state.get(_KEY) != _NEEDS_TOKEN:
            return None
        shown = _values(request.headers.fields, self._header)
        cookie = self._cookie(request)
        if cookie is None or len(shown) != _ONE:
            return _refused(request, "its token is missing")
        if not compare_digest(shown[0], cookie):
            return _refused(request, "its token is not that of the cookie")
        age = age_of(cookie, self._secret, bound_to(request.identity), self._wall())
        if age is None or age > self._ttl_s:
            return _refused(request, "its token holds no more")
        return None

    def on_response(self, request: Request, response: Response) -> None:
        if request.method != "GET" or not _is_page(response):
            return
        wall, bound = self._wall(), bound_to(request.identity)
        cookie = self._cookie(request)
        if cookie is not None:
            age = age_of(cookie, self._secret, bound, wall)
            if age is not None and age <= self._ttl_s / 2:
                return
        name = self._names[request.is_tls]
        token = make_token(self._secret, bound, wall, self._nonce())
        attributes = b"; Path=/; SameSite=Lax; Max-Age=%d" % int(self._ttl_s)
        if request.is_tls:
            attributes += b"; Secure"
        response.headers.raw.append((b"set-cookie", name + b"=" + token + attributes))

    def _cookie(self, request: Request) -> bytes | None:
        """The only cookie of our name; of two, one was put there by somebody else."""
        name = self._names[request.is_tls]
        found = [
            value
            for line in _values(request.headers.fields, b"cookie")
            for piece in line.split(b";")
            for key, _, value in (piece.strip(b" \t").partition(b"="),)
            if key == name
        ]
        return found[0] if len(found) == _ONE else None


def csrf_filters(spec: CsrfSpec, context: FilterContext) -> list[Filter]:
    """What `spec` needs: one filter, or two where tokens are in use. Raises ValueError."""
    if spec.token is None:
        return [Csrf(spec, context)]
    return [Csrf(spec, context, defers=True), CsrfToken(spec.token, context)]


def _values(fields: Sequence[Header], name: bytes) -> list[bytes]:
    return [value for key, value in fields if key == name]


def _has_ambient(fields: Sequence[Header]) -> bool:
    """Whether there is something in it that a browser adds by itself."""
    return any(
        name == b"cookie"
        or (name == b"authorization" and value.lstrip().lower().startswith(_AMBIENT))
        for name, value in fields
    )


def _is_page(response: Response) -> bool:
    """Whether an answer is a page, and for nobody else: a shared cache must not keep a token."""
    headers = response.headers
    kind = (headers.get("content-type") or "").partition(";")[0].strip().lower()
    caching = ",".join(headers.get_all("cache-control")).lower()
    return kind in ("text/html", "application/xhtml+xml") and not any(
        word in caching for word in _SHARED
    )


def _refused(request: Request, why: str) -> Reply:
    return refusal(request, f"this request was refused because {why}")

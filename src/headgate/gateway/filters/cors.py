"""The `cors` policy: which pages of other origins may call, told to browsers as they ask.

Theory of operation (the Fetch standard, sections 3.3 and 4.8)
-------------------
A browser lets a page of another origin see an answer if `Access-Control-Allow-Origin` names the
page's origin. Before what a plain form could not have sent it asks with a preflight: `OPTIONS` with
`Origin` and `Access-Control-Request-Method`. That is answered here, before anybody is asked who
they are, since browsers send no credentials with it. Other `OPTIONS` requests go on.

- Origins are compared byte by byte (`security.origins`); several `Origin` fields match nothing.
- Methods are compared with their case: browsers write GET, HEAD, POST, PUT, DELETE and OPTIONS in
  capitals themselves, and `patch` is another method than `PATCH`. GET, HEAD and POST need no
  permission. Header names are compared without case.
- A preflight for what is not allowed gets no allowing header at all, and the browser refuses.
- `*` is sent as such only where the answer is the same for everybody, and never with credentials,
  with which browsers would take it for a name. `headers: "*"` is answered with the names that were
  asked for; `Authorization` is not among them unless it is listed, as in the standard.
- What the service says itself of CORS is taken out, so that one place decides. With
  `keep_upstream` the answers of services that say something are left alone.
- Every answer that depends on the origin says `Vary: Origin`, also to those who sent none: a cache
  must not hand one page what was meant for another.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from headgate.config.browsers import CorsSpec
from headgate.gateway.filters.base import Filter, FilterContext, Headers, Reply, Request, Response
from headgate.gateway.filters.origin import authority_of, refusal
from headgate.security.origins import Origins, is_same
from headgate.wire.message import Header

__all__ = ["Cors"]

_KEY: Final = "headgate.cors"
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "POST"})
_OWN: Final = frozenset(
    {
        b"access-control-allow-origin",
        b"access-control-allow-credentials",
        b"access-control-allow-headers",
        b"access-control-allow-methods",
        b"access-control-allow-private-network",
        b"access-control-expose-headers",
        b"access-control-max-age",
    }
)
_ALLOW_ORIGIN: Final = b"access-control-allow-origin"
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_NAMES_MAX: Final = 4096
"""Bytes of header names in a preflight; no page asks for that many."""
_PREFLIGHT_VARY: Final = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
_ONE: Final = 1


class Cors(Filter):
    """Answers preflights and says who may see the answers of one route."""

    is_early = True

    def __init__(self, spec: CorsSpec, context: FilterContext) -> None:
        super().__init__(spec, context)
        self._origins = Origins(spec.origins)
        if self._origins.is_any and spec.credentials:
            msg = 'origins "*" with credentials would let every site act for its visitors'
            raise ValueError(msg)
        self._is_constant = self._origins.is_any and not spec.refuse_others
        self._methods = frozenset(spec.methods) | _SAFE_METHODS
        self._any_method = "*" in spec.methods
        self._headers = frozenset(name.lower().encode("latin-1") for name in spec.headers)
        self._any_header = b"*" in self._headers
        self._keeps = spec.keep_upstream
        self._refuses = spec.refuse_others
        self._private = spec.private_network
        self._shared: list[Header] = []
        if spec.credentials:
            self._shared.append((b"access-control-allow-credentials", b"true"))
        self._exposed: list[Header] = []
        if spec.expose:
            names = ", ".join(spec.expose).encode("latin-1")
            self._exposed.append((b"access-control-expose-headers", names))
        self._methods_text = ", ".join(m for m in spec.methods if m != "*")
        self._headers_text = ", ".join(name for name in spec.headers if name != "*")
        self._max_age = str(int(spec.max_age))

    # -- the request ---------------------------------------------------------------------------

    def on_request(self, request: Request) -> Reply | None:
        if _KEY in request.state:
            return None
        origins = _values(request, b"origin")
        allowed = request.state[_KEY] = self._allowed(origins)
        if not origins:
            return None
        if request.method == "OPTIONS":
            asked = _values(request, b"access-control-request-method")
            if asked:
                return self._preflight(request, allowed, asked)
        if self._refuses and not allowed and not _is_own(request, origins):
            return refusal(request, "pages of this origin may not call here")
        return None

    def _allowed(self, origins: Sequence[bytes]) -> bytes:
        """The origin of a page that may call; empty for others and for what is no page."""
        if len(origins) != _ONE or not self._origins.has(origins[0]):
            return b""
        return origins[0]

    def _preflight(self, request: Request, origin: bytes, asked: list[bytes]) -> Reply:
        request.state[_KEY] = None  # the answer says all there is to say
        vary = _PREFLIGHT_VARY
        if self._private:
            vary += ", Access-Control-Request-Private-Network"
        method = asked[0].decode("latin-1") if len(asked) == _ONE else ""
        names = self._names(request)
        if not origin or names is None or not self._takes(method):
            status = 403 if self._refuses and not origin else 204
            return Reply(status, b"", (("vary", vary),))
        told = [("access-control-allow-origin", self._named(origin).decode("latin-1"))]
        told += [(name.decode(), value.decode()) for name, value in self._shared]
        methods = self._methods_text
        if self._any_method and method not in self._methods:
            methods = f"{methods}, {method}" if methods else method
        if methods:
            told.append(("access-control-allow-methods", methods))
        headers = self._headers_text
        if self._any_header and names:
            headers = ", ".join(dict.fromkeys([*filter(None, headers.split(", ")), *names]))
        if headers:
            told.append(("access-control-allow-headers", headers))
        told.append(("access-control-max-age", self._max_age))
        if (
            self._private
            and request.headers.get("access-control-request-private-network") == "true"
        ):
            told.append(("access-control-allow-private-network", "true"))
        return Reply(204, b"", (*told, ("vary", vary)))

    def _takes(self, method: str) -> bool:
        if method in self._methods:
            return True
        return self._any_method and _TOKEN(method.encode("latin-1")) is not None

    def _names(self, request: Request) -> list[str] | None:
        """The header names a preflight asks for; None when one of them is not allowed."""
        found: list[str] = []
        values = _values(request, b"access-control-request-headers")
        if sum(map(len, values)) > _NAMES_MAX:
            return None
        for piece in b",".join(values).split(b","):
            name = piece.strip(b" \t").lower()
            if not name:
                continue
            is_listed = name in self._headers and name != b"*"
            if not is_listed and not (
                self._any_header and name != b"authorization" and _TOKEN(name) is not None
            ):
                return None
            found.append(name.decode("ascii"))
        return found

    def _named(self, origin: bytes) -> bytes:
        return b"*" if self._is_constant else origin

    # -- the response --------------------------------------------------------------------------

    def on_response(self, request: Request, response: Response) -> None:
        if _KEY in request.state:
            origin = request.state[_KEY]
        else:  # refused before anybody came here; the page may know why
            origin = self._allowed(_values(request, b"origin"))
        if origin is None:
            return
        headers = response.headers
        said = {name for name, _ in headers.fields if name in _OWN}
        if said and not (self._keeps and _ALLOW_ORIGIN in said):
            headers.raw = [field for field in headers.raw if field[0] not in _OWN]
        if not (self._keeps and _ALLOW_ORIGIN in said):
            if self._is_constant:
                headers.raw += [(_ALLOW_ORIGIN, b"*"), *self._exposed]
            elif isinstance(origin, bytes) and origin:
                headers.raw += [(_ALLOW_ORIGIN, origin), *self._shared, *self._exposed]
        if not self._is_constant:
            _vary(headers)


def _values(request: Request, name: bytes) -> list[bytes]:
    return [value for key, value in request.headers.fields if key == name]


def _is_own(request: Request, origins: Sequence[bytes]) -> bool:
    """Whether the page is of the host that was asked: no other origin at all."""
    # A page cannot forge Sec-Fetch-Site; who can, sends no Origin in the first place.
    if request.headers.get_all("sec-fetch-site") == ["same-origin"]:
        return True
    if len(origins) != _ONE:
        return False
    return is_same(origins[0], authority_of(request), is_tls=request.is_tls)


def _vary(headers: Headers) -> None:
    for name, value in headers.fields:
        if name == b"vary":
            names = {piece.strip(b" \t").lower() for piece in value.split(b",")}
            if b"origin" in names or b"*" in names:
                return
    headers.raw.append((b"vary", b"Origin"))

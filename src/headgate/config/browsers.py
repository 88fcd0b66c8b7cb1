"""What browsers are told and asked: CORS, CSRF and the headers that make them careful."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import Field, PlainValidator, WithJsonSchema

from headgate.config.fields import (
    Duration,
    Flag,
    HeaderName,
    MatchedHeader,
    Spec,
    Text,
    Wait,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import OneOrMore, OrFalse, Shorthand
from headgate.config.http import Methods
from headgate.config.regexes import regex_fault
from headgate.config.secure_headers import (
    Found,
    HstsSpec,
    SecureHeaders,
    SecureHeadersSpec,
    secure_headers_problems,
)
from headgate.security.origins import ANY, NULL, origin_fault

__all__ = [
    "Cors",
    "CorsSpec",
    "Csrf",
    "CsrfSpec",
    "CsrfTokenSpec",
    "HstsSpec",
    "SecureHeaders",
    "SecureHeadersSpec",
    "cors_problems",
    "csrf_problems",
    "problems",
    "secure_headers_problems",
]


def _origin(value: object) -> str:
    text = text_of(value).strip()
    fault = regex_fault(text[1:]) if text.startswith("~") else None
    fault = fault or origin_fault(text)
    if fault is not None:
        raise refuse(fault)
    return text


Origin = Annotated[
    str,
    PlainValidator(_origin),
    Words("origin"),
    WithJsonSchema(
        {"type": "string", "examples": ["https://example.org", "https://*.example.org"]}
    ),
]


# -- CORS ----------------------------------------------------------------------------------------


class CorsSpec(Spec):
    """Which pages of other origins may call (CORS). `cors: https://app.example.org` is `origins`.

    Preflights are answered here, before anybody is asked who they are. What services say of CORS
    themselves is replaced. Other programs than browsers do not care: CORS keeps nobody out who is
    not a page.
    """

    origins: Annotated[tuple[Origin, ...], OneOrMore, Field(min_length=1)]
    """Origins as browsers send them: `https://app.example.org`, `https://*.example.org` for every
    host below it, `http://localhost:*` for any port, `~` with a regular expression that must match
    the whole origin, `null` for pages that have none, `"*"` for every page."""

    methods: Methods = ("GET", "HEAD", "POST")
    """Methods that pages may use; `"*"` for all. `GET`, `HEAD` and `POST` they may always."""

    headers: Annotated[tuple[MatchedHeader, ...], OneOrMore] = ("authorization", "content-type")
    """Request headers that pages may send beyond the harmless ones. `"*"` for all, except
    `authorization`, which must be named."""

    expose: Annotated[tuple[MatchedHeader, ...], OneOrMore] = ()
    """Response headers that pages may read beyond the usual ones."""

    credentials: Flag = False
    """Let pages use cookies and other credentials that the browser holds. Then `origins` cannot be
    `"*"`."""

    max_age: Duration = 600.0
    """How long browsers remember a preflight. Chrome does for two hours at most."""

    private_network: Flag = False
    """Let pages of public sites call where this is in a private network."""

    refuse_others: Flag = False
    """Answer 403 to requests of pages that may not call, instead of leaving it to the browser to
    keep the answer from them. Requests without an origin pass."""

    keep_upstream: Flag = False
    """Leave alone what a service says of CORS itself, where it does."""


Cors = Annotated[
    Annotated[
        CorsSpec,
        Shorthand(
            lambda value: (
                value
                if value is None or isinstance(value, (dict, bool, Spec))
                else {"origins": value}
            ),
            {"type": ["string", "array"], "items": {"type": "string"}},
            "or an origin or a list of them, which are `origins`",
        ),
    ]
    | Literal[False],
    OrFalse(),
]


def cors_problems(spec: CorsSpec) -> Iterator[Found]:
    """What is unsafe or makes no sense."""
    if ANY in spec.origins:
        if spec.credentials:
            hint = "name the origins; every site could act for its visitors otherwise"
            yield ("origins",), 'is "*", which cannot go with credentials', hint, False
        if len(spec.origins) > 1:
            yield ("origins",), 'says "*", so that the others have no effect', "", True
        if spec.refuse_others:
            message = 'has no effect: origins says "*", so that there are no others'
            yield ("refuse_others",), message, "", True
    if NULL in spec.origins:
        message = "allows null, which any page can be that frames itself in a sandbox"
        hint = "leave it out, or switch credentials off" if spec.credentials else ""
        yield ("origins",), message, hint, not spec.credentials
    if spec.credentials:
        for index, origin in enumerate(spec.origins):
            if origin.startswith("http://") and not _is_local(origin):
                message = "is not encrypted: whoever is between can act as a page of it"
                yield ("origins", index), message, "write https://", True
        if ANY in spec.expose:
            message = 'is "*", which browsers take for a name where there are credentials'
            yield ("expose",), message, "name the headers", False


def _is_local(origin: str) -> bool:
    host = origin.removeprefix("http://").removeprefix("*.")
    return re.fullmatch(r"(localhost|127\.0\.0\.1|\[::1\])(:.*)?", host) is not None


# -- CSRF ----------------------------------------------------------------------------------------


class CsrfTokenSpec(Spec):
    """A token that pages send back in a header, for browsers that do not tell where a request
    comes from. It is handed out in a cookie with answers to `GET`, signed, and holds for one user.
    """

    secret: Text
    """What tokens are signed with, as in `${env:CSRF_SECRET}`: 16 characters or more, and the same
    on every machine."""

    header: HeaderName = "x-csrf-token"
    """Where pages send it back."""

    cookie: HeaderName = "headgate-csrf"
    """The cookie that hands it out. Over TLS its name begins with `__Host-`, so that no other host
    of the same site can put one in its place."""

    ttl: Wait = 12 * 3600.0
    """How long a token holds. A new one is handed out after half of it."""

    always: Flag = False
    """Ask for it of every request that a browser sends, and not only where nothing else tells."""


class CsrfSpec(Spec):
    """Refuses what another site made a browser send (CSRF), and WebSockets that a page of another
    site opens. `csrf: true` is enough for nearly everybody.

    Requests that change nothing (`GET`, `HEAD`, `OPTIONS`, `TRACE`) pass. Otherwise it goes by what
    the browser says of the page: `Sec-Fetch-Site`, else `Origin`, else `Referer`. A request that
    says none of it passes if it has no cookies and no user name and password either, as those of
    programs with a key or a bearer token do.
    """

    trusted: Annotated[tuple[Origin, ...], OneOrMore] = ()
    """Origins beside the own one whose pages may send requests, written as in `cors`."""

    same_site: Flag = False
    """Also trust all other hosts of the same site, as `blog.example.org` for `shop.example.org`."""

    token: CsrfTokenSpec | None = None
    """Also hand out tokens. Off unless said: only browsers from before 2020 need them."""


Csrf = Annotated[CsrfSpec | Literal[False], OrFalse()]

_SECRET_MIN: Final = 16


def csrf_problems(spec: CsrfSpec) -> Iterator[Found]:
    """What is unsafe or makes no sense."""
    if ANY in spec.trusted:
        hint = "name the origins, or switch it off: csrf: false"
        yield ("trusted",), 'is "*", so that every site is trusted', hint, False
    if NULL in spec.trusted:
        message = "trusts null, which any page can be that frames itself in a sandbox"
        yield ("trusted",), message, "leave it out", False
    if spec.token is not None and len(spec.token.secret) < _SECRET_MIN:
        message = f"is shorter than {_SECRET_MIN} characters"
        yield ("token", "secret"), message, "make one with: openssl rand -hex 32", False


def problems(spec: CorsSpec | CsrfSpec | SecureHeadersSpec) -> Iterator[Found]:
    """What is unsafe or makes no sense in one of these."""
    match spec:
        case CorsSpec():
            yield from cors_problems(spec)
        case CsrfSpec():
            yield from csrf_problems(spec)
        case SecureHeadersSpec():
            yield from secure_headers_problems(spec)

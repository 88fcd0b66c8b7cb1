"""Who asks: the ways of authentication that a file knows, and which of them a route takes."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, PlainValidator, WithJsonSchema

from headgate.config.auth_jwt import JwtSpec
from headgate.config.auth_keys import (
    ApiKeySpec,
    BasicSpec,
    CertificateAuthSpec,
    IntrospectionSpec,
    SignatureSpec,
)
from headgate.config.auth_login import LoginSpec
from headgate.config.fields import (
    FALSE,
    TRUE,
    FilePath,
    Flag,
    HeaderName,
    Spec,
    Text,
    Wait,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import OneOrList, OneOrMore, OrFalse, Shorthand

__all__ = ["AUTH_TYPES", "AuthSpec", "AuthUse", "AuthUseSpec", "IdentitySpec", "auth_methods"]


def _several(value: Any) -> object:
    return value if isinstance(value, (list, tuple)) or value is None else (value,)


_OneOrSeveral = OneOrList(_several, {}, "one or a list")


def _anonymous(value: object) -> bool | Literal["always"]:
    word = text_of(value).strip().lower()
    if word == "always":
        return "always"
    if word in TRUE | FALSE:
        return word in TRUE
    raise refuse("is none of true, false and always")


class AuthUseSpec(Spec):
    """Who must say who they are, and how. A name, or a list of names, is `methods`; `false`
    asks nobody.
    """

    methods: Annotated[tuple[Text, ...], OneOrMore, Field(min_length=1)]
    """Names of entries under the top-level `auth`, in the order in which they are tried. The
    first that accepts what the request shows decides."""

    anonymous: Annotated[
        bool | Literal["always"],
        PlainValidator(_anonymous),
        Words("`always`, `true` or `false`"),
        WithJsonSchema({"enum": ["always", True, False]}),
    ] = False
    """Also let in who shows nothing. What is shown and does not hold is refused all the same,
    unless this is `always`: for pages that browsers open, which send the cookie of a session that
    is over. Services hear of nobody then, and it counts against nobody."""

    pass_credentials: Flag = False
    """Send the credentials on to the service. By default they end here, so that a service that
    is broken into or logs too much has none of them. A mirror never gets any."""


def _methods(value: Any) -> object:
    if value is None or isinstance(value, (dict, bool, AuthUseSpec)):
        return value
    return {"methods": value}


AuthUse = Annotated[
    Annotated[
        AuthUseSpec,
        Shorthand(
            _methods,
            {"type": ["string", "array"], "items": {"type": "string"}, "examples": ["jwt"]},
            "or a name or a list of names, which are `methods`",
        ),
    ]
    | Literal[False],
    OrFalse(),
]


class SignedIdentitySpec(Spec):
    """A short-lived token of the gateway's own that says who asks, for services that do not trust
    their network.
    """

    header: HeaderName = "x-headgate-identity"
    """The header that carries it."""

    key_file: FilePath | None = None
    """The private key (PEM; Ed25519, EC P-256 or RSA). By default one is made in the state
    directory. Its public half is served at `/api/identity/keys` of the admin listener."""

    ttl: Wait = 60.0
    """How long it holds."""

    audience: Text = ""
    """Its `aud`; by default the name of the service."""


class IdentitySpec(Spec):
    """How services are told who asks. These headers are always taken out of what clients send."""

    headers: dict[HeaderName, Text] = Field(
        default_factory=lambda: {
            "x-auth-subject": "subject",
            "x-auth-consumer": "consumer",
            "x-auth-roles": "roles",
            "x-auth-scopes": "scopes",
            "x-auth-groups": "groups",
            "x-auth-method": "method",
        }
    )
    """Header to what it carries: `subject`, `consumer`, `api_key`, `tier`, `roles`, `scopes`,
    `groups`, `method`, or `claim.NAME`. What is not known is not sent; lists are joined by
    commas. What is not printable ASCII is percent-encoded, and so are `%` itself, blanks at
    either end, and commas in a member of a list, so that no two names look alike."""

    token: Annotated[SignedIdentitySpec | Literal[False], OrFalse()] = False
    """Also send a signed token. Off unless said."""


class AuthSpec(Spec):
    """The ways of authentication, by type. Each may stand once, or as a list of several that have
    a `name` each; routes and services name those that they take: `auth: jwt`.
    """

    default: AuthUse | None = None
    """What holds for routes and services that say no `auth`. By default nobody is asked."""

    deny_by_default: Flag = False
    """Refuse every request of a route that neither asks who it is nor says `auth: false`.
    `headgate check` names such routes."""

    jwt: Annotated[tuple[JwtSpec, ...], _OneOrSeveral] = ()
    """Signed tokens."""

    api_key: Annotated[tuple[ApiKeySpec, ...], _OneOrSeveral] = ()
    """Keys in a header or the query."""

    basic: Annotated[tuple[BasicSpec, ...], _OneOrSeveral] = ()
    """User name and password."""

    signature: Annotated[tuple[SignatureSpec, ...], _OneOrSeveral] = ()
    """Signed requests."""

    certificate: Annotated[tuple[CertificateAuthSpec, ...], _OneOrSeveral] = ()
    """Client certificates."""

    introspection: Annotated[tuple[IntrospectionSpec, ...], _OneOrSeveral] = ()
    """Opaque tokens that their issuer is asked about."""

    login: Annotated[tuple[LoginSpec, ...], _OneOrSeveral] = ()
    """Browsers that log in with an identity provider."""

    identity: IdentitySpec = IdentitySpec()
    """How services are told who asks."""


AUTH_TYPES: Final = (
    "jwt",
    "api_key",
    "basic",
    "signature",
    "certificate",
    "introspection",
    "login",
)


def auth_methods(spec: AuthSpec) -> dict[str, tuple[str, Any]]:
    """Every method by name: its type and what the file says of it. Of doubles, the first."""
    found: dict[str, tuple[str, Any]] = {}
    for kind in AUTH_TYPES:
        for each in getattr(spec, kind):
            found.setdefault(each.name, (kind, each))
    return found

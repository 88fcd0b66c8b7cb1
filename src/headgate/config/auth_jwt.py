"""Tokens signed by somebody who is trusted: JWT and where its keys come from."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from headgate.config.fields import (
    Duration,
    FilePath,
    Flag,
    HeaderName,
    Size,
    Spec,
    Text,
    Wait,
    Words,
    refuse,
    text_of,
)
from headgate.config.forms import OneOrMore, Shorthand
from headgate.security.tokens.rules import (
    HMAC_ALGORITHMS,
    PUBLIC_ALGORITHMS,
    ClaimNames,
    JwtRules,
    RemoteRules,
    SecretEncoding,
    TokenRules,
)

__all__ = ["ClaimsSpec", "JwtSpec", "problems"]

_C: Final = ClaimNames()
_T: Final = TokenRules(algorithms=frozenset())
_R: Final = RemoteRules()
_J: Final = JwtRules(token=_T)
_DIGEST_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
_LONG_LEEWAY_S: Final = 300.0
DISCOVER: Final = "discover"

Algorithm = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
    "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
]  # fmt: skip
Names = Annotated[tuple[Text, ...], OneOrMore]


def _required(value: Any) -> object:
    """Names alone ask that the claims be there."""
    if value is None or isinstance(value, dict):
        return value
    named = value if isinstance(value, (list, tuple)) else (value,)
    return {text_of(name): () for name in named}


def _claim_path(value: object) -> str:
    name = text_of(value)
    if not name.strip():
        raise refuse("is no name of a claim")
    return name


ClaimPath = Annotated[
    str,
    PlainValidator(_claim_path),
    Words("claim"),
    WithJsonSchema({"type": "string", "examples": ["sub", "realm_access.roles"]}),
]
ClaimPaths = Annotated[tuple[ClaimPath, ...], OneOrMore]


class ClaimsSpec(Spec):
    """Which claims say what. Dots lead into objects (`realm_access.roles`), unless a claim has the
    whole name with its dots (`https://shop.example/roles`). Of several, the first that the token
    has counts.
    """

    subject: ClaimPath = _C.subject
    """The user."""

    consumer: ClaimPaths = _C.consumer
    """The client program that the token was given to."""

    roles: ClaimPaths = _C.roles
    """A list, or words with spaces between."""

    scopes: ClaimPaths = _C.scopes
    """A list, or words with spaces between."""

    groups: ClaimPaths = _C.groups
    """A list, or words with spaces between."""

    tier: Text = _C.tier
    """The consumer's tier, for limits that know several. By default tokens have none."""


class JwtSpec(Spec):
    """Bearer tokens (RFC 7519) signed by an issuer that is trusted.

    Signature, `exp` and `nbf` are always verified. The algorithm must be in `algorithms` and fit
    the key; `none` is never taken. Keys come from exactly one of `keys`, `keys_file` and `secret`.
    """

    name: Text = _J.name
    """What routes, logs and metrics call it. Needed when there are several."""

    issuer: Names = ()
    """Who signs: what `iss` must be, letter for letter, also its last slash. Tokens of others are
    left to the other methods of the route. Without it, whatever the keys verify is taken."""

    audience: Names = ()
    """For whom tokens are: `aud` must name one of these. Say it, or tokens that the issuer made for
    another service are taken here too; `*` is for those who want that."""

    keys: Text | None = None
    """Where the issuer's public keys are: the URL of its key set (JWKS), or `discover`, which asks
    the issuer's `/.well-known/openid-configuration`."""

    keys_file: FilePath | None = None
    """A file of public keys: PEM (keys or certificates), JWK or JWKS. It is read again when it has
    changed. A JWKS may also hold shared secrets, if `algorithms` names theirs."""

    secret: Annotated[tuple[Text, ...], OneOrMore] = ()
    """The secret shared with whoever signs (HS256, HS384, HS512), at least as long as the digest:
    32, 48 or 64 bytes. Give a reference such as `${env:JWT_SECRET}`. Several may stand while one is
    being replaced."""

    secret_encoding: Annotated[SecretEncoding, BeforeValidator(text_of)] = _J.secret_encoding
    """How `secret` is written: as it is (`text`), `base64` or `hex`."""

    algorithms: Annotated[tuple[Algorithm, ...], OneOrMore, Field(min_length=1)] | None = None
    """Which algorithms are taken. By default those that fit: with `secret` HS256, HS384 and HS512
    as far as it is long enough for them, else all with public keys."""

    leeway: Duration = _T.leeway_s
    """How far clocks may be apart, for `exp`, `nbf` and `iat`."""

    require_exp: Flag = _T.require_exp
    """Refuse tokens that never expire."""

    require: Annotated[
        dict[Text, Annotated[tuple[Text, ...], OneOrMore]],
        Shorthand(
            _required,
            {"type": ["string", "array"], "items": {"type": "string"}, "examples": ["jti"]},
            "or names of claims, which must be there with any value",
        ),
    ] = Field(default_factory=dict)
    """Claims that a token must have: names alone, or each with the value or values of which it
    must have one. A list in the token has what any of its entries is."""

    typ: Names = ()
    """What the header `typ` must be, such as `at+jwt` for access tokens (RFC 9068). By default any
    but those that say they are for something else, such as `logout+jwt` or `dpop+jwt`."""

    max_size: Size = _T.max_bytes
    """The longest token that is read."""

    max_age: Wait = _J.max_age_s
    """How long a token that was verified is believed without looking at its signature again. Never
    beyond its end; a change of keys and a revocation end it at once."""

    header: HeaderName = _J.header
    """The header that carries it. In `Authorization` it follows `Bearer`; in others that may be
    left out."""

    cookies: Names = ()
    """Cookies to look for a token in too. Such routes want `csrf`."""

    query: Names = ()
    """Query parameters to look for a token in too. URLs end up in logs and histories: for
    WebSockets and downloads, where browsers send no headers."""

    claims: ClaimsSpec = ClaimsSpec()
    """Which claims say what about the user."""

    realm: Text = _J.realm
    """The `realm` of challenges."""

    refresh: Wait = _R.refresh_s
    """How often the keys at a URL are fetched. `Cache-Control: max-age` makes it a fifth of that to
    twelve times as long. While the issuer is away the last good keys stay."""

    cooldown: Wait = _R.cooldown_s
    """A token of an unknown key causes a fetch at once, but no more than one in this time."""

    timeout: Wait = _R.timeout_s
    """How long one fetch may take in all."""

    wait: Wait = _R.wait_s
    """How long a request waits for keys that are being fetched."""

    poll: Wait = _J.poll_s
    """How often it is looked whether `keys_file` has changed."""

    ca_file: FilePath | None = None
    """Certificates (PEM) of the authorities that the issuer's own certificate is verified against.
    By default those of the system."""

    def allowed(self) -> frozenset[str]:
        """The algorithms that are taken."""
        if self.algorithms is not None:
            return frozenset(self.algorithms)
        return frozenset(HMAC_ALGORITHMS if self.secret else PUBLIC_ALGORITHMS)

    def rules(self) -> JwtRules:
        """What the method is built from."""
        remote = None
        if self.keys is not None:
            remote = RemoteRules(
                url="" if self.keys == DISCOVER else self.keys,
                issuer=self.issuer[0] if self.issuer else "",
                refresh_s=self.refresh,
                cooldown_s=self.cooldown,
                timeout_s=self.timeout,
                wait_s=self.wait,
                ca_file=self.ca_file,
            )
        return JwtRules(
            name=self.name,
            token=TokenRules(
                algorithms=self.allowed(),
                issuers=frozenset(self.issuer),
                audiences=frozenset(self.audience),
                types=frozenset(each.lower().removeprefix("application/") for each in self.typ),
                required=tuple((name, frozenset(said)) for name, said in self.require.items()),
                require_exp=self.require_exp,
                leeway_s=self.leeway,
                max_bytes=self.max_size,
            ),
            claims=ClaimNames(
                subject=self.claims.subject,
                consumer=self.claims.consumer,
                roles=self.claims.roles,
                scopes=self.claims.scopes,
                groups=self.claims.groups,
                tier=self.claims.tier,
            ),
            secrets=self.secret,
            secret_encoding=self.secret_encoding,
            keys_file=self.keys_file,
            poll_s=self.poll,
            remote=remote,
            header=self.header,
            cookies=self.cookies,
            query=self.query,
            realm=self.realm,
            max_age_s=self.max_age,
        )


def problems(spec: JwtSpec) -> Iterator[tuple[tuple[str | int, ...], str, str, bool]]:
    """What contradicts itself: where, what, the way out, and whether it is only a warning."""
    given = [name for name in ("keys", "keys_file", "secret") if getattr(spec, name)]
    if not given:
        yield (
            (),
            "nothing says which keys verify its tokens",
            "write keys (a URL, or discover), keys_file or secret",
            False,
        )
    elif len(given) > 1:
        yield (
            (given[1],),
            f"{' and '.join(given)} stand together, but keys come from one place",
            "keep one; for two issuers write two entries with a name each",
            False,
        )
    if spec.keys:
        yield from _url_problems(spec, spec.keys)
    if spec.algorithms is not None:
        for index, name in enumerate(spec.algorithms):
            is_hmac = name in HMAC_ALGORITHMS
            if spec.secret and not is_hmac:
                yield (
                    ("algorithms", index),
                    "{value} is for public keys, and there is a secret",
                    "write HS256, HS384 or HS512; or keys in place of secret",
                    False,
                )
            elif spec.keys and is_hmac:
                yield (
                    ("algorithms", index),
                    "{value} needs a shared secret, and keys at a URL are public",
                    "leave it out; or write secret in place of keys",
                    False,
                )
    if spec.leeway > _LONG_LEEWAY_S:
        yield ("leeway",), "{value} keeps expired tokens alive", "30s is usual", True
    if spec.ca_file is not None and not (spec.keys or "").startswith(("https:", DISCOVER)):
        yield ("ca_file",), "nothing is fetched over TLS here", "leave it out", True
    if spec.keys and not spec.audience:
        yield (
            (),
            "audience is not said: tokens that the issuer made for other services are taken too",
            "write audience, the aud of tokens for these services; or '*' if any will do",
            True,
        )
    if not spec.max_size:
        yield ("max_size",), "{value} refuses every token", "8KB is usual", False


def _url_problems(
    spec: JwtSpec, keys: str
) -> Iterator[tuple[tuple[str | int, ...], str, str, bool]]:
    if keys == DISCOVER:
        if len(spec.issuer) != 1:
            yield (
                ("keys",),
                "to discover keys there must be one issuer to ask",
                "write issuer, its URL; or keys as a URL",
                False,
            )
            return
        url, at = spec.issuer[0], ("issuer",)
    else:
        url, at = keys, ("keys",)
    parts = _split(url)
    if parts is None:
        yield (
            at,
            "{value} is no URL to fetch keys from",
            "write https://...; a file goes under keys_file"
            if at == ("keys",)
            else "write keys as a URL, or the issuer as one",
            False,
        )
    elif parts.fragment or (keys == DISCOVER and parts.query):
        yield at, '{value} has a "?" or "#" part that cannot be', "leave it out", False
    elif parts.scheme == "http" and not _is_near(parts.hostname or ""):
        yield (
            at,
            "{value} is asked without TLS: whoever is on the way can put in keys of their own",
            "write https://",
            True,
        )


def _split(url: str) -> SplitResult | None:
    """The parts of a URL that can be fetched from."""
    if not url.isascii() or not url.isprintable() or " " in url:
        return None
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if is_url else None


def _is_near(host: str) -> bool:
    """This machine, or a name that only its network knows (a container, a cluster)."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or "." not in host or host.endswith((".localhost", ".local"))
    return address.is_loopback

"""Credentials that are shared beforehand: keys, passwords, signatures.

Client certificates and introspection have files of their own and are handed on from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from headgate.config.auth_certificate import CertificateAuthSpec, certificate_problems
from headgate.config.auth_common import Found, GrantedSpec, Realm
from headgate.config.auth_introspection import IntrospectionSpec, introspection_problems
from headgate.config.fields import (
    Count,
    Duration,
    FilePath,
    Flag,
    HeaderName,
    Network,
    Positive,
    Size,
    Spec,
    Text,
    Wait,
    text_of,
)
from headgate.config.forms import OneOrMore, Shorthand
from headgate.security.api_keys import ApiKeyRules
from headgate.security.passwords import BasicRules
from headgate.security.signatures import COVERED, SignatureRules
from headgate.units import MB

__all__ = [
    "ApiKeySpec",
    "BasicSpec",
    "CertificateAuthSpec",
    "ContentDigestSpec",
    "GrantedSpec",
    "IntrospectionSpec",
    "SignatureSpec",
    "problems",
]

_B: Final = BasicRules()
_S: Final = SignatureRules()


class StoredKeySpec(GrantedSpec):
    """One API key, by its hash. `headgate keys new` writes such entries."""

    id: Text
    """Its public id, the middle part of the key; what logs and limits call it."""

    hash: Text
    """`sha256:` or `hmac-sha256:` and the digest of the key. A plain key is refused."""

    consumer: Text
    """Whose it is. A consumer may have several live keys."""

    note: Text = ""
    """For people."""

    created: Text | None = None
    """When it was made, for people."""

    not_before: Text | None = None
    """From when it holds, as in `2027-01-31T12:00:00Z`."""

    expires: Text | None = None
    """From when it holds no more."""

    revoked: Flag = False
    """It holds no more, at once."""

    networks: Annotated[tuple[Network, ...], OneOrMore] = ()
    """Only from these addresses. By default from everywhere."""


class ApiKeySpec(Spec):
    """Keys that clients send in a header or in the query. They look like
    `hg_7f3k9q2m4x1z_...`, are made by `headgate keys new` and kept as hashes only.
    """

    name: Text = "api_key"
    """What routes, logs and metrics call it. Needed when there are several."""

    file: FilePath | None = None
    """The keys, in YAML or JSON, as `headgate keys` writes them. Read again when it changes; a
    file that is broken is logged, and what it said before stays in force."""

    keys: tuple[StoredKeySpec, ...] = ()
    """Keys in this file, by their hashes."""

    header: HeaderName = "x-api-key"
    """The header that carries the key."""

    schemes: Annotated[tuple[Literal["apikey", "bearer"], ...], OneOrMore] = ()
    """Also take the key from `Authorization`, under these schemes: `apikey`, `bearer`. Bearer
    tokens that do not look like our keys are left to other methods."""

    query: Text = ""
    """Also take the key from this query parameter. Off unless said: URLs end up in logs, histories
    and `Referer`."""

    prefix: Annotated[Text, Field(pattern=r"^[a-z][a-z0-9]{0,11}$")] = "hg"
    """What keys begin with, before the first `_`: secret scanners know them by it."""

    pepper_file: FilePath | None = None
    """A file with a secret (32 bytes or more) that `hmac-sha256:` hashes were made with. Who can
    write the file of keys but does not know the pepper cannot add a key."""

    realm: Realm = "api"
    """What `WWW-Authenticate` calls this place."""

    def rules(self) -> ApiKeyRules:
        """What the method goes by."""
        return ApiKeyRules(
            self.name, self.header, self.schemes, self.query, self.prefix, self.realm
        )


class UserSpec(GrantedSpec):
    """One user. A hash alone is `hash`."""

    hash: Text
    """The hash of the password: argon2, scrypt or bcrypt. `headgate keys hash-password` makes
    one. A plain password is refused."""

    consumer: Text = ""
    """Whose user this is; by default its own name."""

    disabled: Flag = False
    """May not log in."""

    note: Text = ""
    """For people."""


User = Annotated[
    UserSpec,
    Shorthand(
        lambda value: value if isinstance(value, (dict, UserSpec)) else {"hash": value},
        {"type": "string"},
        "or a hash",
    ),
]


class BasicSpec(Spec):
    """User name and password (RFC 7617). Only over TLS: they are sent with each request."""

    name: Text = "basic"
    """What routes, logs and metrics call it. Needed when there are several."""

    file: FilePath | None = None
    """Users: the lines of an htpasswd file (bcrypt: `htpasswd -B`, or argon2), or YAML with
    `users:` as here. Read again when it changes."""

    users: dict[Text, User] = Field(default_factory=dict)
    """Users in this file: name to hash, or to a hash and roles."""

    realm: Realm = "api"
    """What browsers show when they ask for the password."""

    remember: Duration = _B.remember_s
    """How long a password that was right is not hashed again. What is remembered is a keyed hash
    in memory; a change of the users ends it at once. `0` hashes with every request."""

    checks: Annotated[Positive, Field(le=64)] = _B.checks
    """Passwords hashed at one time, in each worker. Each takes a core and as much memory as its
    hash says."""

    waiting: Annotated[Count, Field(le=10_000)] = _B.waiting
    """How many may wait for that, beyond which the answer is 503. One address may have a quarter
    of all places."""

    def rules(self) -> BasicRules:
        """What the method goes by."""
        return BasicRules(self.name, self.realm, self.checks, self.waiting, self.remember)


class SigningKeySpec(GrantedSpec):
    """What a client signs with. Several secrets, or several public keys, while they change."""

    secrets: Annotated[tuple[Text, ...], OneOrMore] = ()
    """Shared secrets for `hmac-sha256`, 32 bytes or more: text, or `base64:` and base64. Keep them
    out of the file: `${env:PARTNER_SECRET}`, `${file:partner.secret}`."""

    public_keys: Annotated[tuple[Text, ...], OneOrMore] = ()
    """Ed25519 public keys: PEM, or 32 bytes in base64."""

    consumer: Text = ""
    """Whose key it is; by default its id."""

    note: Text = ""
    """For people."""


def _part(value: str) -> str:
    return value.lower()


class SignatureSpec(Spec):
    """Requests signed with a shared secret (HMAC) or an Ed25519 key: HTTP Message Signatures
    (RFC 9421). A body must have a `Content-Digest` (RFC 9530) that is signed and that is checked.
    """

    name: Text = "signature"
    """What routes, logs and metrics call it. Needed when there are several."""

    file: FilePath | None = None
    """Keys, in YAML with `keys:` as here. Read again when it changes."""

    keys: dict[Text, SigningKeySpec] = Field(default_factory=dict)
    """Keys in this file, by the id that clients send as `keyid`."""

    covered: Annotated[tuple[Annotated[Text, AfterValidator(_part)], ...], OneOrMore] = COVERED
    """What a signature must cover: `@method`, `@authority`, `@path`, `@query`, `@target-uri`,
    `@scheme`, or the name of a header. `content-digest` comes by itself where there is a body."""

    skew: Duration = _S.skew_s
    """How far clocks may be apart."""

    max_age: Wait = _S.max_age_s
    """How long after it was made a signature may be used. The memory of nonces lasts as long."""

    nonce: Annotated[Literal["required", "optional"], BeforeValidator(text_of)] = "required"
    """Whether a signature must have a nonce, which is taken once. Without one, a request that was
    caught on its way can be sent again until it is too old."""

    share_nonces: Flag = True
    """Tell other workers, and with Redis other machines, of each nonce. A copy that is faster than
    the news passes once in each worker. With `false` it does so all the time."""

    nonces: Annotated[Positive, Field(le=10_000_000)] = _S.nonces_max
    """Nonces remembered in each worker, at about 200 bytes each. One key may take half of them.
    Beyond that signed requests are answered with 503."""

    tag: Text = ""
    """Only signatures with this `tag` count, where requests are signed for several parties."""

    max_body: Size = 10 * MB
    """Bodies are held until their digest is known; longer ones are refused with 413. On a route
    that takes other methods too this is so for all bodies."""

    def rules(self) -> SignatureRules:
        """What the method goes by."""
        return SignatureRules(
            name=self.name,
            covered=self.covered,
            skew_s=self.skew,
            max_age_s=self.max_age,
            needs_nonce=self.nonce == "required",
            tag=self.tag,
            nonces_max=self.nonces,
            shares_nonces=self.share_nonces,
        )

    def digest(self) -> ContentDigestSpec:
        """The filter that a route with this method needs."""
        return ContentDigestSpec(required=True, max_body=self.max_body, only_for=(self.name,))


class ContentDigestSpec(Spec):
    """Bodies of requests are checked against their `Content-Digest` (RFC 9530)."""

    required: Flag = False
    """Refuse a body that has none. By default only what is there is checked."""

    only_for: Annotated[tuple[Text, ...], OneOrMore] = ()
    """Only for requests that these methods of `auth` let in. By default for all."""

    max_body: Size = 10 * MB
    """Bodies are held until their digest is known; longer ones are refused with 413."""


def problems(spec: Any) -> Iterator[Found]:
    """What is wrong between the fields of one of these: place, message, hint, is a warning."""
    if isinstance(spec, ApiKeySpec):
        yield from _no_credentials(spec.file, spec.keys, "keys", "headgate keys new FILE")
        if spec.header.lower() in {"authorization", "cookie"}:
            yield (
                ("header",),
                "{value} carries other credentials as well",
                "use schemes: apikey",
                False,
            )
    elif isinstance(spec, BasicSpec):
        yield from _no_credentials(spec.file, spec.users, "users", "headgate keys hash-password")
    elif isinstance(spec, SignatureSpec):
        yield from _no_credentials(spec.file, spec.keys, "keys", "say keys: or file:")
        for id_, key in spec.keys.items():
            if bool(key.secrets) == bool(key.public_keys):
                yield ("keys", id_), "needs either secrets or public_keys", "", False
        for index, part in enumerate(spec.covered):
            if part.startswith("@") and part not in _PARTS:
                hint = f"known are {', '.join(sorted(_PARTS))}"
                yield (
                    ("covered", index),
                    "{value} is no part of a request that can be covered",
                    hint,
                    False,
                )
        if "@authority" not in spec.covered and "@target-uri" not in spec.covered:
            yield (
                ("covered",),
                "without @authority a request signed for another host holds here too",
                "",
                True,
            )
        if spec.nonce == "optional":
            yield ("nonce",), "a signed request can be sent again until it is too old", "", True
    elif isinstance(spec, CertificateAuthSpec):
        yield from certificate_problems(spec)
    elif isinstance(spec, IntrospectionSpec):
        yield from introspection_problems(spec)


_PARTS: Final = frozenset(
    {"@method", "@authority", "@scheme", "@target-uri", "@request-target", "@path", "@query"}
)


def _no_credentials(file: str | None, inline: Any, name: str, hint: str) -> Iterator[Found]:
    if file is None and not inline:
        yield (), f"has neither a file nor {name}: nobody could get in", hint, False

"""What a gateway asks of tokens, and of the places that keys come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

HMAC_ALGORITHMS: Final = ("HS256", "HS384", "HS512")
PUBLIC_ALGORITHMS: Final = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
)
ANY_AUDIENCE: Final = "*"

SecretEncoding = Literal["text", "base64", "hex"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimNames:
    """Where a token says what. Dots lead into objects, unless a claim has the whole name."""

    subject: str = "sub"
    consumer: tuple[str, ...] = ("azp", "client_id")
    roles: tuple[str, ...] = ("roles", "realm_access.roles")
    scopes: tuple[str, ...] = ("scope", "scp")
    groups: tuple[str, ...] = ("groups",)
    tier: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRules:
    """What a token must be and say."""

    algorithms: frozenset[str]
    issuers: frozenset[str] = frozenset()
    """Whose tokens these are; empty takes any that the keys verify."""
    audiences: frozenset[str] = frozenset()
    """Of which a token must name one; empty asks nothing."""
    types: frozenset[str] = frozenset()
    """What `typ` may be, in lower case and without `application/`; empty takes what claims to be
    no other thing."""
    required: tuple[tuple[str, frozenset[str]], ...] = ()
    """Claims that must be there, and the values of which one must be."""
    require_exp: bool = True
    leeway_s: float = 30.0
    max_bytes: int = 8 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteRules:
    """How keys are fetched."""

    url: str = ""
    """Of the key set; empty asks the issuer's discovery document."""
    issuer: str = ""
    refresh_s: float = 300.0
    cooldown_s: float = 30.0
    """Between two fetches that unknown keys cause."""
    timeout_s: float = 5.0
    """For one fetch in all."""
    wait_s: float = 3.0
    """What a request waits at most for keys."""
    max_bytes: int = 256 * 1024
    ca_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtRules:
    """One entry under `auth.jwt`."""

    name: str = "jwt"
    token: TokenRules
    claims: ClaimNames = ClaimNames()
    secrets: tuple[str, ...] = field(default=(), repr=False)
    secret_encoding: SecretEncoding = "text"  # noqa: S105 - not a secret
    keys_file: str | None = None
    poll_s: float = 5.0
    """How often the file is looked at."""
    remote: RemoteRules | None = None
    header: str = "authorization"
    cookies: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    realm: str = "headgate"
    max_age_s: float = 300.0
    """How long a verified token is believed without looking at its signature again."""
    max_cached: int = 10_000
    max_cached_bytes: int = 64 * 1024 * 1024

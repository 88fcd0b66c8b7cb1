"""A stand-in for the token policy to come, written against the public filter interface.

It verifies RS256 tokens against a JWKS file, checks a role and the method, and says who asks, so
that the gateway's own limit can count by user: what `benchmarks.run --only policies` sets against
Envoy's `jwt_authn` and `rbac`. Nothing here reaches behind `headgate.gateway.filters`.

Theory of operation
-------------------
A token is verified once and remembered by its exact text until it expires, at most
`remembered_tokens` of them (the oldest goes first); Envoy's filter is configured to do the same.
Expiry is checked on every request, remembered or not.
"""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from pydantic import BaseModel

from headgate.gateway.filters import Filter, FilterContext, Identity, Reply, Request

_UNAUTHORISED = Reply(401, b"token missing or refused\n", (("www-authenticate", "Bearer"),))
_FORBIDDEN = Reply(403, b"not for this role\n")


class User:
    """A verified token: who, and what they may."""

    __slots__ = ("expires", "identity", "is_allowed", "not_before")

    def __init__(self, claims: dict[str, Any], role: str) -> None:
        self.identity = Identity(claims["sub"], claims=claims)
        self.expires = float(claims["exp"])
        self.not_before = float(claims.get("nbf", 0))
        self.is_allowed = role in claims.get("roles", ())


class StandIn(Filter):
    """JWT and role in one step."""

    class Options(BaseModel, frozen=True, extra="forbid"):
        jwks_file: Path
        issuer: str
        audience: str
        role: str = "user"
        methods: tuple[str, ...] = ("GET", "PUT")
        remembered_tokens: int = 10_000

    def __init__(self, options: StandIn.Options, context: FilterContext) -> None:
        super().__init__(options, context)
        self._spec = options
        self._keys = _read_keys(options.jwks_file)
        self._methods = frozenset(options.methods)
        self._users: dict[str, User] = {}

    def on_request(self, request: Request) -> Reply | None:
        credentials = request.headers.get("authorization")
        if credentials is None:
            return _UNAUTHORISED
        user = self._users.get(credentials)
        if user is None:
            user = self._verify(credentials)
            if user is None:
                return _UNAUTHORISED
        if not user.not_before <= time.time() < user.expires:
            self._users.pop(credentials, None)
            return _UNAUTHORISED
        if not user.is_allowed or request.method not in self._methods:
            return _FORBIDDEN
        request.identity = user.identity
        return None

    def _verify(self, credentials: str) -> User | None:
        scheme, _, token = credentials.partition(" ")
        parts = token.split(".")
        if scheme.lower() != "bearer" or len(parts) != 3:
            return None
        try:
            head = json.loads(_decode(parts[0]))
            claims = json.loads(_decode(parts[1]))
            # The key's own algorithm, never what the token asks for.
            key = self._keys[head["kid"]] if head["alg"] == "RS256" else None
            if key is None:
                return None
            signed = f"{parts[0]}.{parts[1]}".encode()
            key.verify(_decode(parts[2]), signed, padding.PKCS1v15(), hashes.SHA256())
            if claims["iss"] != self._spec.issuer or claims["aud"] != self._spec.audience:
                return None
            user = User(claims, self._spec.role)
        except (KeyError, ValueError, TypeError, InvalidSignature):
            return None
        if len(self._users) >= self._spec.remembered_tokens:
            del self._users[next(iter(self._users))]
        self._users[credentials] = user
        return user


def _read_keys(file: Path) -> dict[str, rsa.RSAPublicKey]:
    return {
        key["kid"]: rsa.RSAPublicNumbers(
            e=int.from_bytes(_decode(key["e"])), n=int.from_bytes(_decode(key["n"]))
        ).public_key()
        for key in json.loads(file.read_text())["keys"]
    }


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

"""Access tokens, checked where they are shown: no store is asked.

Theory of operation. A token is good until its `exp` when one of our keys has signed it, it names
us as issuer and audience, its session has not ended and its version is not below its user's. Ended
sessions and raised versions are told to the other processes through the store, which each reads
every `upkeep_s`: until then, at most, they go on believing. What is remembered of ended sessions
is needed only until the last access token of them is over, and has a bound: when it is full, all
tokens issued so far are refused instead, and clients refresh.

Tokens that were good are kept, to spare the signature; all but the signature is looked at again.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from headgate.security.accounts.rules import Rules
from headgate.security.accounts.signing import Key, Unverified, read
from headgate.security.identity import Identity

__all__ = ["Verifier"]


@dataclass(frozen=True, slots=True)
class _Good:
    identity: Identity
    expires: float
    issued: float
    session_id: str
    version: int


class Verifier:
    def __init__(self, issuer: str, audience: str, rules: Rules) -> None:
        self.issuer = issuer
        self.audience = audience
        self.rules = rules
        self._good: OrderedDict[bytes, _Good] = OrderedDict()
        self._ended: dict[str, float] = {}
        self._versions: dict[str, tuple[int, float]] = {}
        self._issued_after = 0.0

    @property
    def known(self) -> int:
        """Tokens that need no look at their signature."""
        return len(self._good)

    @property
    def remembered(self) -> int:
        """Ended sessions, and users whose rights have changed."""
        return len(self._ended) + len(self._versions)

    def forget(self) -> None:
        """The keys have changed."""
        self._good.clear()

    def end_session(self, session_id: str, wall: float) -> None:
        self._make_room(wall)
        self._ended[session_id] = wall + self.rules.access_life_s + self.rules.leeway_s

    def raise_version(self, user_id: str, version: int, wall: float) -> None:
        self._make_room(wall)
        until = wall + self.rules.access_life_s + self.rules.leeway_s
        self._versions[user_id] = (version, until)

    def _make_room(self, wall: float) -> None:
        if len(self._ended) + len(self._versions) < self.rules.ended_max:
            return
        self._ended = {key: until for key, until in self._ended.items() if until > wall}
        self._versions = {key: had for key, had in self._versions.items() if had[1] > wall}
        # Half has to be free, or this would be gone through for each one.
        if len(self._ended) + len(self._versions) > self.rules.ended_max // 2:
            self._ended.clear()
            self._versions.clear()
            self._issued_after = wall

    def prune(self, wall: float) -> None:
        """Forget what no token can ask for any more."""
        self._ended = {key: until for key, until in self._ended.items() if until > wall}
        self._versions = {key: had for key, had in self._versions.items() if had[1] > wall}

    def verify(self, token: str, keys: Mapping[str, Key], wall: float) -> Identity:
        """Raises `Unverified`."""
        if len(token) > 16384:
            raise Unverified("too long")
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        good = self._good.get(digest)
        if good is None:
            good = self._claims(read(token, keys))
            self._alive(good, wall)
            self._good[digest] = good
            if len(self._good) > self.rules.cached_tokens:
                self._good.popitem(last=False)
        else:
            self._alive(good, wall)
            self._good.move_to_end(digest)
        return good.identity

    def _alive(self, good: _Good, wall: float) -> None:
        if not good.issued - self.rules.leeway_s <= wall < good.expires:
            raise Unverified("expired, or not valid yet")
        if good.session_id in self._ended or good.issued <= self._issued_after:
            raise Unverified("the session has ended")
        version = self._versions.get(good.identity.subject)
        if version is not None and good.version < version[0]:
            raise Unverified("the rights of the user have changed")

    def _claims(self, claims: dict[str, Any]) -> _Good:
        """We have signed it, so it has the form we write; checked all the same."""
        issued, expires = claims.get("iat"), claims.get("exp")
        subject, session_id = claims.get("sub"), claims.get("sid")
        version = claims.get("ver")
        if claims.get("iss") != self.issuer or claims.get("aud") != self.audience:
            raise Unverified("issued by or for somebody else")
        if (
            not isinstance(issued, int)
            or not isinstance(expires, int)
            or not isinstance(version, int)
            or not isinstance(subject, str)
            or not isinstance(session_id, str)
        ):
            raise Unverified("a claim is missing")
        identity = Identity(
            subject=subject,
            consumer=subject,
            claims=MappingProxyType(claims),  # kept and handed out again
            method="accounts",
            roles=frozenset(claims.get("roles", ())),
            scopes=frozenset(str(claims.get("scope", "")).split()),
            expires=float(expires),
        )
        return _Good(identity, float(expires), float(issued), session_id, version)

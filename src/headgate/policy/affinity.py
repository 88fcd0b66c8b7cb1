"""The value of an affinity cookie: which instance a client is to come back to.

Theory of operation
-------------------
A value is `token.expires.signature`:

- the token is a keyed digest of the member's id, 96 bits of HMAC-SHA256. It does not disclose the
  address, nor does it help to guess one without the key; the same key and id give the same token
  in every process, so a cookie outlives a reload, a restart and a move to another gateway.
- expires is in seconds of wall time, in hexadecimal.
- the signature is 128 bits of HMAC-SHA256 over both, under a key of its own. Without it a client
  could mix tokens and times as it likes. It is compared in constant time.

`read` answers with a token for whoever has the key; `Affinity` knows the members of one service
and answers with a member's id. A value that is malformed, tampered with, expired or of a member
that is gone is simply None: the client is given another instance and a new cookie.

Two keys are derived from the one given, so that what signs never digests an id. A new key makes
every cookie worthless, which costs each client one move.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Iterable
from hmac import compare_digest
from hmac import digest as hmac_digest
from typing import Final

__all__ = ["Affinity", "make", "read", "token_of"]

_TOKEN_BYTES: Final = 12
_SIGNATURE_BYTES: Final = 16
_TOKEN_CHARS: Final = 16
_SIGNATURE_CHARS: Final = 22
_EXPIRES_CHARS_MOST: Final = 12


class _Keys:
    """The two keys derived from the one given."""

    __slots__ = ("sign", "token")

    def __init__(self, key: bytes) -> None:
        if not key:
            raise ValueError("an affinity cookie needs a key")
        self.token = hmac_digest(key, b"headgate affinity token", "sha256")
        self.sign = hmac_digest(key, b"headgate affinity signature", "sha256")

    def token_of(self, member_id: str) -> str:
        return _text(hmac_digest(self.token, member_id.encode(), "sha256")[:_TOKEN_BYTES])

    def value(self, token: str, expires_wall: float) -> str:
        signed = f"{token}.{int(expires_wall):x}"
        return f"{signed}.{self._signature(signed)}"

    def read(self, value: str, wall: float) -> str | None:
        if not value.isascii():
            return None
        signed, _, signature = value.rpartition(".")
        token, _, expires = signed.partition(".")
        if (
            len(signature) != _SIGNATURE_CHARS
            or len(token) != _TOKEN_CHARS
            or not 0 < len(expires) <= _EXPIRES_CHARS_MOST
            or not compare_digest(signature, self._signature(signed))
            or int(expires, 16) <= wall
        ):
            return None
        return token

    def _signature(self, signed: str) -> str:
        return _text(hmac_digest(self.sign, signed.encode(), "sha256")[:_SIGNATURE_BYTES])


class Affinity:
    """Cookies of one service."""

    __slots__ = ("_id_of", "_keys", "_token_of")

    def __init__(self, key: bytes, member_ids: Iterable[str] = ()) -> None:
        self._keys = _Keys(key)
        self._token_of: dict[str, str] = {}
        self._id_of: dict[str, str] = {}
        self.take_members(member_ids)

    def take_members(self, member_ids: Iterable[str]) -> None:
        """A reload: from now on these. Cookies of those that stay are good as before."""
        before = self._token_of
        self._token_of = {
            member_id: before.get(member_id) or self._keys.token_of(member_id)
            for member_id in member_ids
        }
        self._id_of = {token: member_id for member_id, token in self._token_of.items()}

    def token_of(self, member_id: str) -> str:
        return self._token_of.get(member_id) or self._keys.token_of(member_id)

    def make(self, member_id: str, expires_wall: float) -> str:
        """A cookie's value; good until that time."""
        return self._keys.value(self.token_of(member_id), expires_wall)

    def read(self, value: str, wall: float) -> str | None:
        """The id of the member to come back to; None if the value is worth nothing now."""
        token = self._keys.read(value, wall)
        return None if token is None else self._id_of.get(token)


def token_of(member_id: str, key: bytes) -> str:
    return _Keys(key).token_of(member_id)


def make(member_id: str, key: bytes, expires_wall: float) -> str:
    """A cookie's value, for whoever has no `Affinity` at hand."""
    keys = _Keys(key)
    return keys.value(keys.token_of(member_id), expires_wall)


def read(value: str, key: bytes, wall: float) -> str | None:
    """The token in a value; None if it is malformed, tampered with or expired."""
    return _Keys(key).read(value, wall)


def _text(digest: bytes) -> str:
    return urlsafe_b64encode(digest).rstrip(b"=").decode()

"""Who may join: tokens, and who may not any more. Pure; whoever holds the book writes it down.

Theory of operation
-------------------
A token is `hgj_`, eight letters by which people tell tokens apart, `_`, and 256 random bits; only
its SHA-256 is kept. It is for one service, until it ends, for so many joinings as it says, which is
one unless a platform mounts it into every copy of a service.

    made -> used by key A -> (by key A again: the answer was lost) -> used up for every other key

A joining is remembered by the key it was for. So an answer that got lost costs nothing, and who
reads a used token gets nothing. The book has to be on the disk before a certificate goes out.

What is denied stays denied for `DENIED_S`, longer than any certificate lives: a service by its
name, one line of certificates by its joining, one certificate by its serial number. It gets no
more certificates; the ones it has end by themselves.
"""

from __future__ import annotations

import base64
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from hmac import compare_digest
from typing import Any, Final, Literal

from headgate.mesh.identity.refusals import IdentityRefused
from headgate.security.service_identity.spiffe import service_fault

__all__ = ["Denial", "JoinBook", "JoinToken", "Kind"]

Kind = Literal["service", "joining", "serial"]
DENIED_S: Final = 400 * 86_400.0
LONGEST_TOKEN: Final = 256
MOST_USES: Final = 10_000
_SHOWN_OVER_S: Final = 86_400.0
_KEYS_KEPT: Final = 64
"""How many keys of a token with many uses are remembered, for answers that got lost."""
_LETTERS: Final = string.ascii_lowercase + "234567"
_TOKEN: Final = re.compile(r"hgj_([a-z2-7]{8})_[A-Za-z0-9_-]{43}")
_ID: Final = re.compile(r"[0-9a-f]{1,40}")


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What is known of a token. Not the token."""

    id: str
    service: str
    digest: str = field(repr=False)
    ends: float
    uses_left: int
    made_at: float
    made_by: str
    used_at: float | None = None
    keys: tuple[str, ...] = field(default=(), repr=False)
    """Of those who joined, the last ones."""

    def state(self, wall: float) -> Literal["good", "used", "over"]:
        if wall >= self.ends:
            return "over"
        return "good" if self.uses_left else "used"


@dataclass(frozen=True, slots=True)
class Denial:
    kind: Kind
    what: str
    at: float
    by: str
    why: str = ""


class JoinBook:
    """Small and bounded: it is looked through and written whole."""

    def __init__(self, most_tokens: int = 10_000, most_denials: int = 10_000) -> None:
        self._most_tokens = most_tokens
        self._most_denials = most_denials
        self._tokens: dict[str, JoinToken] = {}
        self._denials: dict[tuple[Kind, str], Denial] = {}

    # -- tokens -------------------------------------------------------------------------------

    def make(
        self,
        service: str,
        *,
        wall: float,
        ends: float,
        by: str,
        uses: int,
        random: Callable[[int], bytes],
    ) -> tuple[str, JoinToken]:
        """A token, and what is known of it. Raises IdentityRefused."""
        if fault := service_fault(service):
            raise IdentityRefused("request", f"{service[:80]!a} {fault}")
        if not wall < ends:
            raise IdentityRefused("request", "the token would have ended before it was made")
        if not 1 <= uses <= MOST_USES:
            raise IdentityRefused("request", f"a token is for 1 to {MOST_USES} joinings")
        self._forget(wall)
        if len(self._tokens) >= self._most_tokens:
            raise IdentityRefused(
                "request", f"there are {self._most_tokens} tokens already; revoke some"
            )
        token_id = "".join(_LETTERS[byte % 32] for byte in random(8))
        if token_id in self._tokens:
            raise IdentityRefused("unavailable", "two tokens came out alike; try again", 0.0)
        text = f"hgj_{token_id}_{_text(random(32))}"
        made = JoinToken(token_id, service, _digest(text), ends, uses, wall, by)
        self._tokens[token_id] = made
        return text, made

    def find(self, text: str, wall: float) -> JoinToken:
        """The token that this is, if it has not ended. Raises IdentityRefused."""
        found = _TOKEN.fullmatch(text.strip()) if len(text) <= LONGEST_TOKEN else None
        token = self._tokens.get(found[1]) if found else None
        if found is None or token is None or not compare_digest(token.digest, _digest(found[0])):
            raise IdentityRefused(
                "token",
                "this join token is not known here; `headgate mesh token SERVICE` makes one",
            )
        if wall >= token.ends:
            raise IdentityRefused(
                "token",
                "this join token has ended; `headgate mesh token` makes another",
            )
        return token

    def service_of(self, text: str) -> str:
        """Whose token this is, or was; nobody's if it is none of ours."""
        try:
            return self.find(text, 0.0).service
        except IdentityRefused:
            return ""

    def join(self, text: str, key_id: str, wall: float) -> JoinToken:
        """Use a token for this key; it counts once this returns. Raises IdentityRefused."""
        token = self.find(text, wall)
        if key_id in token.keys:
            return token
        if not token.uses_left:
            raise IdentityRefused(
                "token",
                "this join token was used already; if that was not you, run "
                f"`headgate mesh deny {token.service}` and look into the audit log",
            )
        token = replace(
            token,
            uses_left=token.uses_left - 1,
            used_at=wall,
            keys=(*token.keys, key_id)[-_KEYS_KEPT:],
        )
        self._tokens[token.id] = token
        return token

    def revoke(self, token_id: str) -> JoinToken | None:
        return self._tokens.pop(token_id, None)

    def tokens(self) -> list[JoinToken]:
        return sorted(self._tokens.values(), key=lambda one: (one.service, one.made_at, one.id))

    # -- who may not --------------------------------------------------------------------------

    def deny(self, kind: Kind, what: str, *, wall: float, by: str, why: str) -> Denial:
        """Raises IdentityRefused."""
        if kind == "service":
            fault = service_fault(what)
        else:
            what = what.lower().replace(":", "").lstrip("0") if kind == "serial" else what.lower()
            fault = "" if _ID.fullmatch(what) else "is no number in hexadecimal digits"
        if fault:
            raise IdentityRefused("request", f"{what[:80]!a} {fault}")
        self._forget(wall)
        if len(self._denials) >= self._most_denials and (kind, what) not in self._denials:
            raise IdentityRefused("request", f"{self._most_denials} are denied already")
        denial = Denial(kind, what, wall, by, why[:200])
        self._denials[kind, what] = denial
        return denial

    def allow(self, kind: Kind, what: str) -> Denial | None:
        """Take a denial back."""
        return self._denials.pop((kind, what), None)

    def denials(self) -> list[Denial]:
        return sorted(self._denials.values(), key=lambda one: (one.kind, one.what))

    def check(self, service: str, joining: str, serial: str, wall: float) -> None:
        """Raises IdentityRefused for whom is denied."""
        asked: tuple[tuple[Kind, str], ...] = (
            ("service", service),
            ("joining", joining),
            ("serial", serial),
        )
        for key in asked:
            denial = self._denials.get(key)
            if denial is not None and wall < denial.at + DENIED_S:
                kind, what = key
                said = {"service": "the service", "joining": "joining", "serial": "certificate"}
                raise IdentityRefused("denied", f"{said[kind]} {what} is denied by an operator")

    def copy(self) -> JoinBook:
        """As it is now. Rows do not change, so this is quick, and can be read on a thread."""
        made = JoinBook(self._most_tokens, self._most_denials)
        made.take(self)
        return made

    def take(self, other: JoinBook) -> None:
        self._tokens = dict(other._tokens)
        self._denials = dict(other._denials)

    def is_like(self, other: JoinBook) -> bool:
        return self._tokens == other._tokens and self._denials == other._denials

    def put(self, denial: Denial) -> None:
        """One that was made elsewhere."""
        self._denials.setdefault((denial.kind, denial.what), denial)

    def merge(self, other: JoinBook) -> None:
        """What two books know that were one. Of a token in both, the one that is used up further
        counts: better one joining too few than one too many.
        """
        for one in other._tokens.values():
            known = self._tokens.get(one.id)
            if known is None:
                if len(self._tokens) < self._most_tokens:
                    self._tokens[one.id] = one
            elif known.digest == one.digest and known != one:
                keys = tuple(dict.fromkeys((*known.keys, *one.keys)))
                used = [at for at in (known.used_at, one.used_at) if at is not None]
                self._tokens[one.id] = replace(
                    known,
                    uses_left=min(known.uses_left, one.uses_left),
                    used_at=max(used, default=None),
                    keys=keys[-_KEYS_KEPT:],
                )
        for denial in other._denials.values():
            if len(self._denials) < self._most_denials:
                self.put(denial)

    # -- keeping ------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        return {
            "format": 1,
            "tokens": [asdict(one) for one in self.tokens()],
            "denials": [asdict(one) for one in self.denials()],
        }

    def take_json(self, said: Mapping[str, Any]) -> None:
        """In place of what is there. Raises KeyError, TypeError or ValueError, and takes nothing
        then.
        """
        tokens = [JoinToken(**{**row, "keys": tuple(row["keys"])}) for row in said["tokens"]]
        denials = [Denial(**row) for row in said["denials"]]
        for token in tokens:
            numbers = (token.ends, token.made_at, token.uses_left)
            texts = (token.id, token.service, token.digest, token.made_by, *token.keys)
            if not all(type(one) in {int, float} for one in numbers):
                raise TypeError(token.id)
            if not all(isinstance(one, str) for one in texts) or len(token.digest) != 64:
                raise TypeError(token.id)
        for denial in denials:
            if denial.kind not in {"service", "joining", "serial"}:
                raise ValueError(denial.kind)
            if type(denial.at) not in {int, float} or not isinstance(denial.what, str):
                raise TypeError(denial.what)
        self._tokens = {one.id: one for one in tokens[: self._most_tokens]}
        self._denials = {(one.kind, one.what): one for one in denials[: self._most_denials]}

    def _forget(self, wall: float) -> None:
        """What is long over: it was shown for a day, so that nobody wonders."""
        for one in [one for one in self._tokens.values() if wall > one.ends + _SHOWN_OVER_S]:
            del self._tokens[one.id]
        for key in [key for key, one in self._denials.items() if wall > one.at + DENIED_S]:
            del self._denials[key]


def _digest(token: str) -> str:
    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")

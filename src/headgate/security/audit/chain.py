"""How entries hang together, and what signs them: the hash chain and its checkpoints.

Theory of operation
-------------------
A line of the log is

    {...entry..., "prev": H(n-1), "seq": n, ...}  with  ,"hash":"H(n)"}  at its end

where H(n) is BLAKE2b-256 of the line's own bytes before that end. They hold `prev`, so each hash
stands for all that came before it. The bytes are hashed and not what they mean, so there are no
two readings of one line: a key given twice or a number written otherwise is an edit. We write
canonical JSON (keys sorted, no blanks, ASCII), so a line can also be made again from its content.

Whoever can write the file can make a whole new chain. So now and then the newest hash is signed
with Ed25519: a *checkpoint*. Checkpoints are kept in a file of their own, are numbered, and each
names the signature before it. They say how many entries there were at least: a log that ends
before one was cut off.

What this cannot show by itself: whoever can write all files, and cut both the log and the
checkpoints back to one moment, leaves a state that once was true; and whoever has the key besides
can write another history. Checkpoints that were carried elsewhere in time show both.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = [
    "GENESIS",
    "Checkpoint",
    "NotALine",
    "Sealed",
    "canonical",
    "key_id",
    "read_checkpoint",
    "read_line",
    "seal",
    "sign_checkpoint",
]

GENESIS: Final = "0" * 64
_TAIL: Final = re.compile(rb',"hash":"([0-9a-f]{64})"\}\n')
_TAIL_BYTES: Final = len(',"hash":""}\n') + 64
_HASH: Final = re.compile(r"[0-9a-f]{64}")


class NotALine(ValueError):
    """A line that we cannot have written."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A line that is whole and fits its own hash."""

    seq: int
    prev: str
    hash: str
    content: dict[str, Any]


def canonical(content: Mapping[str, Any]) -> bytes:
    """JSON in one way of writing it. Raises ValueError for what JSON cannot hold."""
    return json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode("ascii")


def seal(content: Mapping[str, Any], seq: int, prev: str) -> tuple[bytes, str]:
    """The line of an entry, and its hash."""
    body = canonical({**content, "seq": seq, "prev": prev})[:-1]
    digest = _digest(body)
    return body + f',"hash":"{digest}"}}\n'.encode("ascii"), digest


def read_line(line: bytes) -> Sealed:
    """Take a line apart; raises NotALine, with the reason, for what does not fit itself."""
    tail = _TAIL.fullmatch(line, len(line) - _TAIL_BYTES) if len(line) > _TAIL_BYTES else None
    if tail is None:
        raise NotALine("is no line of an audit log" if line.endswith(b"\n") else "is torn")
    body = line[:-_TAIL_BYTES]
    said = tail[1].decode("ascii")
    try:
        content = json.loads(body + b"}")
    except (ValueError, RecursionError):
        raise NotALine("is not JSON") from None
    if not isinstance(content, dict):
        raise NotALine("is not a JSON object")
    seq, prev = content.get("seq"), content.get("prev")
    if type(seq) is not int or seq < 1 or not isinstance(prev, str) or not _HASH.fullmatch(prev):
        raise NotALine("has no number or no link to the one before")
    if _digest(body) != said:
        raise NotALine("was changed: it does not fit its hash")
    return Sealed(seq, prev, said, content)


def _digest(body: bytes) -> str:
    return blake2b(body, digest_size=32, person=b"headgate audit").hexdigest()


# ------------------------------------------------------------------------------- checkpoints


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The newest entry at one moment, signed."""

    number: int
    seq: int
    hash: str
    wall: float
    every: int
    """So many entries at most come without a further checkpoint."""
    before: str
    """The signature of the checkpoint before; empty for the first."""
    key: str
    """The id of the key that signed."""
    signature: str = ""

    def signed_bytes(self) -> bytes:
        return b"headgate audit checkpoint 1\n" + canonical(self._content())

    def to_line(self) -> bytes:
        return canonical({**self._content(), "sig": self.signature}) + b"\n"

    def _content(self) -> dict[str, Any]:
        return {
            "n": self.number,
            "seq": self.seq,
            "hash": self.hash,
            "wall": self.wall,
            "every": self.every,
            "before": self.before,
            "key": self.key,
        }

    def is_signed_by(self, public: bytes) -> bool:
        """Whether this key (32 bytes) made the signature."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            signature = b64decode(self.signature, validate=True)
            Ed25519PublicKey.from_public_bytes(public).verify(signature, self.signed_bytes())
        except (InvalidSignature, ValueError):
            return False
        return True


def sign_checkpoint(checkpoint: Checkpoint, private: Ed25519PrivateKey) -> Checkpoint:
    signature = b64encode(private.sign(checkpoint.signed_bytes())).decode("ascii")
    return Checkpoint(
        checkpoint.number,
        checkpoint.seq,
        checkpoint.hash,
        checkpoint.wall,
        checkpoint.every,
        checkpoint.before,
        checkpoint.key,
        signature,
    )


def read_checkpoint(line: bytes) -> Checkpoint:
    """Raises NotALine for what is no checkpoint. The signature is not looked at."""
    try:
        said = json.loads(line)
        made = Checkpoint(
            number=said["n"],
            seq=said["seq"],
            hash=said["hash"],
            wall=said["wall"],
            every=said["every"],
            before=said["before"],
            key=said["key"],
            signature=said["sig"],
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        raise NotALine("is no checkpoint" if line.endswith(b"\n") else "is torn") from None
    numbers = (made.number, made.seq, made.every)
    texts = (made.hash, made.before, made.key, made.signature)
    if (
        any(type(each) is not int or each < 1 for each in numbers)
        or not all(isinstance(each, str) for each in texts)
        or type(made.wall) not in {int, float}
    ):
        raise NotALine("is no checkpoint")
    return made


def key_id(public: bytes) -> str:
    """A short name of a public key (32 bytes)."""
    return blake2b(public, digest_size=8, person=b"headgate audit").hexdigest()

"""Passwords: the forms in which their hashes are kept, and whether a password has one of them.

Theory of operation. Known are argon2 (`$argon2id$...`, what we make), scrypt (`$scrypt$...`, in
Python itself) and bcrypt (`$2b$...`, where the bcrypt package is installed; htpasswd writes it).
Quick hashes (MD5, SHA-1, crypt) are refused when they are read: they are guessed by the billion.

`matches` takes tens of milliseconds and tens of megabytes by design, so it runs in a thread, and
whoever calls it bounds how many run at a time.

`stand_in` makes a hash that no password has and that costs what a given one costs: it is checked
for users that nobody knows, so that time does not tell who is one. With hashes of several costs it
can only cost as much as one of them; it takes the dearest kind that many have.

What an editor must not break: neither a password nor a hash is in a message.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import scrypt
from typing import Any, Final

from headgate.errors import ExtraMissing
from headgate.security.entries import BadEntry, Fields, parse_document, with_line
from headgate.security.identity import Identity

LONGEST_PASSWORD: Final = 1024
LONGEST_USER: Final = 256

# OWASP's second choice (46 MiB, one pass) is near the RFC 9106 one for servers; a gateway checks
# more often than a log-in page, so memory is kept where several checks fit beside the traffic.
TIME_COST: Final = 2
MEMORY_KIB: Final = 19 * 1024
PARALLELISM: Final = 1

_ARGON2: Final = re.compile(
    r"\$argon2(id|i|d)\$v=19\$m=(\d{1,7}),t=(\d{1,3}),p=(\d{1,3})"
    r"\$([A-Za-z0-9+/]{11,128})\$([A-Za-z0-9+/]{16,128})"
)
_SCRYPT: Final = re.compile(
    r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]{8,128})\$([A-Za-z0-9+/]{22,128})"
)
_BCRYPT: Final = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_MAX_MEMORY: Final = 1 << 30
_USER_FIELDS: Final = ("hash", "tier", "roles", "scopes", "groups", "consumer", "disabled", "note")
_PLAIN: Final = "holds a password in plain; keep only its hash: headgate keys hash-password"


@dataclass(frozen=True, slots=True)
class BasicRules:
    name: str = "basic"
    realm: str = "api"
    checks: int = 2
    waiting: int = 64
    remember_s: float = 300.0
    remembered_max: int = 10_000


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """A hash whose form was judged. Its text never shows."""

    text: str
    kind: str
    """`argon2`, `scrypt` or `bcrypt`."""
    cost: tuple[int, ...]

    def __repr__(self) -> str:
        return f"PasswordHash({self.kind})"


@dataclass(frozen=True, slots=True)
class User:
    name: str
    hash: PasswordHash
    identity: Identity
    is_disabled: bool = False


def read_hash(text: str) -> PasswordHash:
    """Judge the form of a hash; ValueError says what is wrong, and never quotes it."""
    found = _ARGON2.fullmatch(text)
    if found is not None:
        _need("argon2")
        memory_kib, passes, lanes = (int(found[n]) for n in (2, 3, 4))
        if memory_kib * 1024 > _MAX_MEMORY or not passes or not lanes or memory_kib < 8 * lanes:
            raise ValueError("is an argon2 hash with a cost that cannot be")
        return PasswordHash(text, "argon2", (memory_kib, passes, lanes))
    found = _SCRYPT.fullmatch(text)
    if found is not None:
        log_n, blocks, lanes = (int(found[n]) for n in (1, 2, 3))
        if not log_n or not blocks or not lanes or 128 * blocks << log_n > _MAX_MEMORY:
            raise ValueError("is a scrypt hash with a cost that cannot be")
        if len(found[4]) % 4 == 1 or len(found[5]) % 4 == 1:
            raise ValueError("is a scrypt hash that is cut off")
        return PasswordHash(text, "scrypt", (log_n, blocks, lanes))
    found = _BCRYPT.fullmatch(text)
    if found is not None:
        _need("bcrypt")
        if not 4 <= int(found[1]) <= 31:
            raise ValueError("is a bcrypt hash with a cost that cannot be")
        return PasswordHash(text, "bcrypt", (int(found[1]),))
    if text.startswith(("$apr1$", "$1$", "$5$", "$6$", "{")) or re.fullmatch(r"[./\w]{13}", text):
        raise ValueError(
            "is of a kind that is guessed too quickly; make one with: headgate keys hash-password, "
            "or htpasswd -B"
        )
    raise ValueError("is no hash of a password; make one with: headgate keys hash-password")


def make_hash(password: str, *, time_cost: int = TIME_COST, memory_kib: int = MEMORY_KIB) -> str:
    """A new argon2id hash of a password."""
    check_password(password)
    hasher = _need("argon2").PasswordHasher(time_cost, memory_kib, PARALLELISM)
    made: str = hasher.hash(password)
    return made


def check_password(password: str) -> None:
    """Refuse what could never be shown again: nothing, too much, or characters of control."""
    if not password:
        raise ValueError("a password has at least one character")
    if len(password.encode()) > LONGEST_PASSWORD:
        raise ValueError(f"a password has at most {LONGEST_PASSWORD} bytes")
    if any(ord(char) < 32 or ord(char) == 127 for char in password):
        raise ValueError("a password has no line breaks or characters of control")


def matches(kept: PasswordHash, password: bytes) -> bool:
    """Whether this password has this hash. Takes long: call it in a thread.

    ValueError or MemoryError if it could not be found out.
    """
    if kept.kind == "argon2":
        argon2 = _need("argon2")
        try:
            return bool(argon2.PasswordHasher().verify(kept.text, password))
        except argon2.exceptions.VerifyMismatchError:
            return False
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            raise ValueError("this hash could not be checked") from None  # no memory, mostly
    if kept.kind == "scrypt":
        return _scrypt_matches(kept, password)
    try:
        # Beyond 72 bytes bcrypt reads nothing; newer packages refuse, older ones cut off.
        return bool(_need("bcrypt").checkpw(password[:72], kept.text.encode()))
    except ValueError:
        return False  # a NUL in the password, for older packages


def stand_in(hashes: Iterable[PasswordHash], random: bytes) -> PasswordHash:
    """A hash that no password has and that costs as much as most of these; from 48 bytes."""
    counts = Counter((each.kind, each.cost) for each in hashes)
    kind, cost = max(counts, key=lambda one: (counts[one], one)) if counts else ("", ())
    salt = base64.b64encode(random[:16]).decode().rstrip("=")
    digest = base64.b64encode(random[16:48]).decode().rstrip("=")
    if kind == "scrypt":
        text = f"$scrypt$ln={cost[0]},r={cost[1]},p={cost[2]}${salt}${digest}"
    elif kind == "bcrypt":
        # Its own alphabet; the last characters of salt and digest must have no spare bits.
        letters = (salt + digest).replace("+", ".")[:51]
        text = f"$2b${cost[0]:02}${letters[:21]}u{letters[21:51]}u"
    else:
        memory_kib, passes, lanes = cost or (MEMORY_KIB, TIME_COST, PARALLELISM)
        kind, cost = "argon2", (memory_kib, passes, lanes)
        text = f"$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${digest}"
    return PasswordHash(text, kind, tuple(cost))


def read_users(
    given: object, method: str, where: Sequence[str | int] = ("users",)
) -> dict[str, User]:
    """Judge a mapping of names to hashes, or to a hash and what else holds for the user."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise BadEntry(where, "must be a mapping of user names")
    users = {}
    for key, entry in given.items():
        name = str(key)
        here = (*where, name)
        fields = Fields(
            {"hash": entry} if isinstance(entry, str) else entry, here, _USER_FIELDS, _PLAIN
        )
        try:
            users[name] = _user(name, read_hash(fields.needed("hash")), method, fields)
        except BadEntry:
            raise
        except ValueError as error:
            raise BadEntry(here, f"its hash {error}") from None
    return users


def read_user_file(content: bytes, method: str) -> dict[str, User]:
    """The users of a file: YAML or JSON with `users:`, or the lines of htpasswd."""
    text = content.decode("utf-8", "replace").lstrip()
    if re.match(r"(?:#[^\n]*\n|\s)*(?:users\s*:|\{)", text):
        document = parse_document(content)
        if not isinstance(document, Mapping) or set(document) != {"users"}:
            raise ValueError("expected `users` and nothing else at the top")
        try:
            return read_users(document["users"], method)
        except BadEntry as error:
            raise ValueError(with_line(content, error)) from None
    return _read_htpasswd(content, method)


def _read_htpasswd(content: bytes, method: str) -> dict[str, User]:
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text (byte {error.start})") from None
    users: dict[str, User] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, rest = line.partition(":")
        if not colon:
            raise ValueError(f"line {number}: expected name:hash")
        if name in users:
            raise ValueError(f"line {number}: this user stands twice")
        try:
            users[name] = _user(name, read_hash(rest.split(":")[0].strip()), method, None)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    return users


def _user(name: str, kept: PasswordHash, method: str, fields: Fields | None) -> User:
    if not name or len(name.encode()) > LONGEST_USER:
        raise ValueError(f"belongs to a name that is empty or over {LONGEST_USER} bytes")
    if ":" in name or any(ord(char) < 32 or ord(char) == 127 for char in name):
        raise ValueError("belongs to a name with a colon or characters of control")
    if fields is None:
        return User(name, kept, Identity(name, name, method=method))
    return User(
        name,
        kept,
        Identity(
            subject=name,
            consumer=fields.text("consumer") or name,
            tier=fields.text("tier"),
            method=method,
            roles=fields.words("roles"),
            scopes=fields.words("scopes"),
            groups=fields.words("groups"),
        ),
        fields.flag("disabled"),
    )


def _scrypt_matches(kept: PasswordHash, password: bytes) -> bool:
    parts = kept.text.split("$")
    try:
        salt, digest = (base64.b64decode(part + "=" * (-len(part) % 4)) for part in parts[3:5])
    except (binascii.Error, ValueError):
        return False
    log_n, blocks, lanes = kept.cost
    made = scrypt(
        password,
        salt=salt,
        n=1 << log_n,
        r=blocks,
        p=lanes,
        # A little more than 128 * r * (n + p), or OpenSSL refuses.
        maxmem=128 * blocks * ((1 << log_n) + lanes + 2) + (1 << 20),
        dklen=len(digest),
    )
    return hmac.compare_digest(made, digest)


def _need(library: str) -> Any:
    try:
        if library == "argon2":
            import argon2

            return argon2
        import bcrypt

        return bcrypt
    except ImportError:
        raise PasswordsMissing(library) from None


class PasswordsMissing(ExtraMissing, ValueError):
    """A hash is of a kind whose package is not installed."""

    def __init__(self, library: str) -> None:
        self.library = library
        super().__init__("auth", f"a hash of {library}")

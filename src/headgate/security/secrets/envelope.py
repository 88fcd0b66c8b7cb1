"""The encrypted file as bytes: what is in it, and how it is sealed and opened.

Theory of operation
-------------------
Four lines of ASCII:

    headgate-secrets 1
    {"kdf":{...},"names":[...],"revision":7,"wrapped":"..."}       the header
    base64 of the sealed body                                      the content
    sha256 <hex of the three lines before>                         the sum

A data key of 32 random bytes seals the body with AES-256-GCM. The data key itself is sealed
("wrapped") by a key that is derived from the key file by HKDF-SHA256, or from a passphrase by
scrypt (RFC 7914), with a salt of its own. Every writing makes a new salt, a new data key and
new nonces, so no key is ever used for two contents. The wrap is bound to the version and the
derivation; the body to the first two lines as they stand. Each byte is therefore authenticated,
or is the sum; and since the file must be spelt exactly as it would be written, there is no second
spelling (other blanks, other base64 of the same bytes) that would open as well.

The sum needs no key and protects nothing: it tells a torn or damaged file (the sum is wrong) from
the wrong key (the sum is right, the wrap does not open) from a forgery (the wrap opens, the body
does not).

Names are readable, on purpose: a configuration that says `${secret:NAME}` names them anyway, a
check can find a misspelt one without the key, and `list` needs none. Values, and their lengths to
the nearest kilobyte, are not. An older copy of the file opens as well as the newest: `revision`
shows which one it is, nothing can tell that there was a later one.

Derivation from a passphrase is slow on purpose (about half a second, 128 MB). What a file asks for
is bounded, so that a hostile one cannot ask for all memory.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from headgate.security.secrets.errors import (
    NotASecretFile,
    SecretFileCorrupt,
    SecretFileError,
    SecretFileForged,
    WrongKey,
)

__all__ = [
    "MAX_FILE_BYTES",
    "Content",
    "FileKey",
    "Head",
    "Key",
    "Passphrase",
    "check_name",
    "check_value",
    "key_text",
    "open_content",
    "parse_key",
    "read_head",
    "seal_content",
]

MAGIC: Final = "headgate-secrets"
VERSION: Final = "1"
KEY_MAGIC: Final = "headgate-key-1"
MAX_FILE_BYTES: Final = 16 * 1024 * 1024
MAX_NAMES: Final = 10_000
MAX_VALUE_BYTES: Final = 256 * 1024
PAD_BYTES: Final = 1024
_KEY_BYTES: Final = 32
_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}")
_SCRYPT_LOG_N: Final = 17
_SCRYPT_LOG_N_READ: Final = range(14, 21)  # 16 MB to 1 GB with r = 8
_SCRYPT_R: Final = 8
_MIN_PASSPHRASE: Final = 12


@dataclass(frozen=True, slots=True)
class FileKey:
    """32 random bytes out of a key file."""

    key: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> FileKey:
        return cls(os.urandom(_KEY_BYTES))


@dataclass(frozen=True, slots=True)
class Passphrase:
    """Words that somebody remembers."""

    text: str = field(repr=False)

    def check(self) -> None:
        """Refuse for a new file what could be guessed. Old files open with what they have."""
        if len(self.text) < _MIN_PASSPHRASE:
            raise SecretFileError(f"a passphrase has {_MIN_PASSPHRASE} characters or more")


Key = FileKey | Passphrase


@dataclass(frozen=True, slots=True)
class Head:
    """What can be read without a key."""

    kind: str
    """`file` or `scrypt`: what kind of key opens it."""
    names: tuple[str, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Content:
    """What is in a file that was opened."""

    values: Mapping[str, str] = field(repr=False)
    revision: int = 0


def check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise SecretFileError(
            "a name is letters, digits and _ . -, begins with a letter or _, and has at most 128"
        )


def check_value(name: str, value: str) -> None:
    """Raises SecretFileError, without the value."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise SecretFileError(f"{name}: is not text; encode it, as base64 for one") from None
    if size > MAX_VALUE_BYTES:
        raise SecretFileError(f"{name}: is larger than {MAX_VALUE_BYTES // 1024} KB")


# -- keys ---------------------------------------------------------------------------------


def key_text(key: FileKey) -> str:
    """A key as its file holds it."""
    return f"{KEY_MAGIC}:{base64.b64encode(key.key).decode()}"


def parse_key(text: str) -> FileKey:
    """The key out of a file's text. Raises SecretFileError, without the text."""
    magic, colon, rest = text.strip().partition(":")
    if magic != KEY_MAGIC or not colon:
        raise SecretFileError("this is no key made by `headgate secrets init`")
    try:
        key = base64.b64decode(rest, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise SecretFileError("the key is damaged")
    return FileKey(key)


def _derived(kdf: Mapping[str, Any], key: Key) -> bytes:
    """The key that wraps the data key."""
    salt = _bytes(kdf.get("salt"), _SALT_BYTES)
    if isinstance(key, FileKey):
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        info = f"{MAGIC} {VERSION} wrap".encode()
        return HKDF(hashes.SHA256(), _KEY_BYTES, salt, info).derive(key.key)
    log_n = kdf["log_n"]
    return hashlib.scrypt(
        key.text.encode("utf-8", "surrogateescape"),
        salt=salt,
        n=1 << log_n,
        r=_SCRYPT_R,
        p=1,
        maxmem=(128 * _SCRYPT_R << log_n) + (1 << 22),
        dklen=_KEY_BYTES,
    )


# -- writing ------------------------------------------------------------------------------


def seal_content(content: Content, key: Key, *, scrypt_log_n: int = _SCRYPT_LOG_N) -> bytes:
    """The file that holds this content. Two calls never give the same bytes."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(content.values) > MAX_NAMES:
        raise SecretFileError(f"a file holds at most {MAX_NAMES} secrets")
    for name, value in content.values.items():
        check_name(name)
        check_value(name, value)
    kdf: dict[str, Any] = {"kind": "file", "salt": _text(os.urandom(_SALT_BYTES))}
    if isinstance(key, Passphrase):
        kdf = {"kind": "scrypt", "log_n": scrypt_log_n, "salt": kdf["salt"]}
    data_key = os.urandom(_KEY_BYTES)
    nonce = os.urandom(_NONCE_BYTES)
    wrapped = nonce + AESGCM(_derived(kdf, key)).encrypt(nonce, data_key, _wrap_about(kdf))
    header = _json(
        {
            "kdf": kdf,
            "names": sorted(content.values),
            "revision": content.revision,
            "wrapped": _text(wrapped),
        }
    )
    plain = _json(dict(content.values)).encode()
    plain += b" " * (-len(plain) % PAD_BYTES)
    nonce = os.urandom(_NONCE_BYTES)
    head = f"{MAGIC} {VERSION}\n{header}\n"
    body = nonce + AESGCM(data_key).encrypt(nonce, plain, head.encode())
    text = head + _text(body) + "\n"
    data = (text + f"sha256 {hashlib.sha256(text.encode()).hexdigest()}\n").encode()
    if len(data) > MAX_FILE_BYTES:
        raise SecretFileError(f"the file would be larger than {MAX_FILE_BYTES >> 20} MB")
    return data


# -- reading ------------------------------------------------------------------------------


def read_head(data: bytes) -> Head:
    """What the file says without a key. Raises NotASecretFile or SecretFileCorrupt."""
    header, _, _ = _parse(data)
    return Head(header["kdf"]["kind"], tuple(header["names"]), header["revision"])


def open_content(data: bytes, key: Key) -> Content:
    """What is in the file. Raises a SecretFileError that says what is wrong."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    header, head, body = _parse(data)
    kdf = header["kdf"]
    wanted = "file" if isinstance(key, FileKey) else "scrypt"
    if kdf["kind"] != wanted:
        raise WrongKey(
            "the file opens with a key file, not with a passphrase"
            if kdf["kind"] == "file"
            else "the file opens with a passphrase, not with a key file"
        )
    wrapped = _bytes(header["wrapped"])
    try:
        data_key = AESGCM(_derived(kdf, key)).decrypt(
            wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], _wrap_about(kdf)
        )
    except (InvalidTag, ValueError):
        raise WrongKey("this key does not open it") from None
    try:
        if len(body) < _NONCE_BYTES + 16:
            raise ValueError
        plain = AESGCM(data_key).decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], head)
        values = json.loads(plain)
    except (InvalidTag, ValueError):
        raise SecretFileForged(
            "the key fits, but names or values were changed by somebody without it"
        ) from None
    if not isinstance(values, dict) or sorted(values) != header["names"]:
        raise SecretFileForged("the names do not fit the content")
    return Content(values, header["revision"])


def _parse(data: bytes) -> tuple[dict[str, Any], bytes, bytes]:
    """The header, the first two lines as they stand, and the sealed body."""
    if len(data) > MAX_FILE_BYTES:
        raise NotASecretFile(f"is larger than {MAX_FILE_BYTES >> 20} MB")
    magic, _, rest = data.partition(b"\n")
    name, _, version = magic.partition(b" ")
    if name != MAGIC.encode():
        raise NotASecretFile("is no file of secrets made by `headgate secrets init`")
    if not _has_good_sum(data):
        raise SecretFileCorrupt("bytes of it were changed or lost; take it from a backup")
    if version != VERSION.encode():  # later ones have a sum below them, too
        raise NotASecretFile("was written by another version of Headgate")
    try:
        header_line, body_line, _sum, end = rest.split(b"\n")
        header = json.loads(header_line)
        if end or _json(header).encode() != header_line:
            raise ValueError
        _check_header(header)
        body = base64.b64decode(body_line, validate=True)
        if base64.b64encode(body) != body_line:
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise SecretFileCorrupt("is not spelt as a file of secrets is") from None
    return header, magic + b"\n" + header_line + b"\n", body


def _has_good_sum(data: bytes) -> bool:
    cut = data.rfind(b"\n", 0, -1) + 1
    wanted = f"sha256 {hashlib.sha256(data[:cut]).hexdigest()}\n".encode()
    return cut > 0 and hmac.compare_digest(data[cut:], wanted)


def _check_header(header: Any) -> None:
    """Raises ValueError, KeyError or TypeError."""
    if set(header) != {"kdf", "names", "revision", "wrapped"}:
        raise ValueError
    names, revision, kdf = header["names"], header["revision"], header["kdf"]
    if not isinstance(revision, int) or isinstance(revision, bool) or revision < 0:
        raise ValueError
    if not isinstance(names, list) or len(names) > MAX_NAMES or names != sorted(set(names)):
        raise ValueError
    if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
        raise ValueError
    if kdf["kind"] == "scrypt":
        if set(kdf) != {"kind", "log_n", "salt"} or type(kdf["log_n"]) is not int:
            raise ValueError
        if kdf["log_n"] not in _SCRYPT_LOG_N_READ:
            raise ValueError
    elif kdf["kind"] != "file" or set(kdf) != {"kind", "salt"}:
        raise ValueError
    _bytes(kdf["salt"], _SALT_BYTES)
    _bytes(header["wrapped"], _NONCE_BYTES + _KEY_BYTES + 16)


def _wrap_about(kdf: Mapping[str, Any]) -> bytes:
    return f"{MAGIC} {VERSION} wrap {_json(kdf)}".encode()


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=True)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: Any, length: int | None = None) -> bytes:
    if not isinstance(text, str):
        raise TypeError
    data = base64.b64decode(text, validate=True)
    if (length is not None and len(data) != length) or _text(data) != text:
        raise ValueError
    return data

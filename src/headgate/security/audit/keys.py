"""The key that signs checkpoints: read, or made at the first start."""

from __future__ import annotations

import os
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Final

from headgate.security.audit.chain import key_id
from headgate.security.audit.files import KEYS, AuditUnreadable, public_keys

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["PRIVATE", "note_public", "private_key", "public_bytes"]

PRIVATE: Final = "key.pem"


def private_key(folder: Path, key_file: str | None) -> Ed25519PrivateKey:
    """Raises ValueError, in words, for a file that has no such key; OSError passes."""
    path = Path(key_file) if key_file is not None else folder / PRIVATE
    if key_file is None and not path.exists():
        return _make(path)
    return load_key(path)


def load_key(path: Path) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(
            f"{path} holds no Ed25519 private key in PEM without a passphrase; "
            "make one with `openssl genpkey -algorithm ed25519`"
        )
    return key


def _make(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, pem)
        os.fsync(fd)
    finally:
        os.close(fd)
    draft.replace(path)
    return key


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def note_public(folder: Path, public: bytes) -> bool:
    """Keep the public key where `verify` looks for it. True if another was in use before."""
    path = folder / KEYS
    try:
        known = public_keys(path) if path.exists() else {}
    except AuditUnreadable:
        known = {}
    name = key_id(public)
    if name in known and list(known)[-1] == name:
        return False
    line = f"{name} {b64encode(public).decode('ascii')}\n"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, line.encode("ascii"))
        os.fsync(fd)
    finally:
        os.close(fd)
    return bool(known)

"""`certificate: local`: an authority of one's own, for development and for closed networks.

Theory of operation
-------------------
The first start makes a root (ECDSA P-256, ten years) in `<state directory>/local-ca`, and signs a
certificate for `localhost`, `127.0.0.1`, `::1` and the names given. `ca.pem` is what clients are
told to trust; it stays the same over restarts and renewals, so they are told once.

A certificate lives 90 days and is made anew when a third of that is left, when the names asked
for have changed, or when the root has. `ensure` does nothing when all is well, so whoever serves
the certificate calls it at start and every few hours.

Files cannot be half-written or mismatched: certificate and key are one file, written under
another name and moved into place; the root is written key first, and a root whose certificate is
missing is made anew. Several processes may call `ensure` at once: a file lock lets them in one by
one, and those that come later find the work done. The directory is 0700 and every file 0600, the
root's certificate aside, which is there to be read.

The root's key signs for any name. Whoever reads it can speak as any site to the machines that
trust `ca.pem`: trust it where you develop, nowhere else.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DEFAULT_NAMES: Final = ("localhost", "127.0.0.1", "::1")

_CA_LIFE: Final = timedelta(days=3650)
_LEAF_LIFE: Final = timedelta(days=90)
# Clocks of other machines may be behind.
_BACKDATED: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class LocalCertificate:
    """Where the files are. Certificate and key are one file, good for both `*_file` settings."""

    ca_path: Path
    """The root's certificate, for `curl --cacert` and trust stores."""
    path: Path
    renewed: bool
    """Whether this call has made it."""


@dataclass(frozen=True, slots=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def ensure(state_dir: Path, names: Iterable[str], wall: float) -> LocalCertificate:
    """Return a certificate for `names` and the defaults that is good for weeks; OSError if not.

    Names are host names, `*.example.org`, or addresses. This reads and writes files and makes
    keys: some milliseconds, for start-up and for a thread.
    """
    folder = _prepare(state_dir)
    now = datetime.fromtimestamp(wall, UTC)
    wanted = tuple(sorted({*DEFAULT_NAMES, *(name.lower().removesuffix(".") for name in names)}))
    # Listeners with other names have files of their own.
    tag = sha256("\n".join(wanted).encode()).hexdigest()[:16]
    path = folder / f"leaf-{tag}.pem"
    with _locked(folder / "lock"):
        authority = _load_authority(folder, now) or _make_authority(folder, now)
        good = _is_good(path, authority, now)
        if not good:
            _make_leaf(path, authority, wanted, now)
    return LocalCertificate(folder / "ca.pem", path, renewed=not good)


def issue(
    state_dir: Path, names: Iterable[str], wall: float, life: timedelta
) -> tuple[bytes, bytes, Path]:
    """A certificate for exactly these names and its key, both PEM and kept nowhere, and where the
    root is. It does not outlive the root. OSError if the root cannot be had.
    """
    folder = _prepare(state_dir)
    now = datetime.fromtimestamp(wall, UTC)
    with _locked(folder / "lock"):
        authority = _load_authority(folder, now) or _make_authority(folder, now)
    wanted = tuple(dict.fromkeys(name.lower().removesuffix(".") for name in names))
    certificate, key = _sign(authority, wanted, now, life)
    return certificate.public_bytes(Encoding.PEM), _pem(key), folder / "ca.pem"


def _prepare(state_dir: Path) -> Path:
    folder = state_dir / "local-ca"
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    return folder


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _load_authority(folder: Path, now: datetime) -> _Authority | None:
    try:
        certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        key = load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return None
    if key.public_key() != certificate.public_key():
        return None
    # A leaf must not outlive its root.
    if now + _LEAF_LIFE > certificate.not_valid_after_utc:
        return None
    return _Authority(certificate, key)


def _make_authority(folder: Path, now: datetime) -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Headgate"),
            # Two roots in one trust store must be told apart, by people and by OpenSSL.
            x509.NameAttribute(
                NameOID.COMMON_NAME, f"Headgate local authority {identifier.digest.hex()[:8]}"
            ),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(sign_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(folder / "ca.key", _pem(key), 0o600)
    _write(folder / "ca.pem", certificate.public_bytes(Encoding.PEM), 0o644)
    return _Authority(certificate, key)


def _is_good(path: Path, authority: _Authority, now: datetime) -> bool:
    try:
        pem = path.read_bytes()
        leaf = x509.load_pem_x509_certificate(pem)
        key = load_pem_private_key(pem, password=None)
        leaf.verify_directly_issued_by(authority.certificate)
    except (FileNotFoundError, ValueError, TypeError, InvalidSignature):
        return False
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != leaf.public_key():
        return False
    left = leaf.not_valid_after_utc - now
    return leaf.not_valid_before_utc <= now and left > _LEAF_LIFE / 3


def _make_leaf(path: Path, authority: _Authority, names: tuple[str, ...], now: datetime) -> None:
    certificate, key = _sign(authority, names, now, _LEAF_LIFE)
    _write(path, certificate.public_bytes(Encoding.PEM) + _pem(key), 0o600)


def _sign(
    authority: _Authority, names: tuple[str, ...], now: datetime, life: timedelta
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    root = authority.certificate
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(root.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(min(now + life, root.not_valid_after_utc))
        # Critical, as the subject is empty (RFC 5280 4.2.1.6).
        .add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=True
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
        .sign(authority.key, hashes.SHA256())
    )
    return certificate, key


def key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a file whole or not at all; it never exists with a wider mode."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise

"""Certificate and key files: read, checked against each other, and judged in plain words.

What is wrong is told as faults, precisely and all at once. Nothing of a key's contents is ever in
a message, and the libraries' own messages are dropped, as they may quote what they could not read.
"""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from headgate.errors import Fault
from headgate.wire.certificate_files import CertificatePair, file_fault, read_file

_EXPIRES_SOON_S: Final = 14 * 86400


def read_pair(
    cert_file: str, key_file: str, wall: float | None, faults: list[Fault]
) -> CertificatePair | None:
    """Read and check a pair; None if it cannot be used. Dates are checked when `wall` is given."""
    cert_pem = read_file(cert_file, faults)
    key_pem = cert_pem if key_file == cert_file else read_file(key_file, faults)
    chain: list[x509.Certificate] = []
    if cert_pem is not None:
        try:
            chain = x509.load_pem_x509_certificates(cert_pem)
        except ValueError:
            hint = "it holds a private key" if b"PRIVATE KEY-----" in cert_pem else ""
            faults.append(file_fault(cert_file, "is not a PEM certificate", hint))
    public = _read_public(key_file, key_pem, faults) if key_pem is not None else None
    if not chain or public is None:
        return None
    leaf = chain[0]
    publics = [_spki(each) for each in chain]
    if public != publics[0]:
        hint = "put the server's own certificate first" if public in publics else ""
        faults.append(file_fault(cert_file, f"does not belong to the key {key_file}", hint))
        return None
    for below, above in pairwise(chain):
        if below.issuer != above.subject:
            faults.append(
                file_fault(
                    cert_file,
                    "has intermediates in the wrong order or that do not belong",
                    level="warning",
                )
            )
            break
    if wall is not None:
        _check_dates(cert_file, leaf, datetime.fromtimestamp(wall, UTC), faults)
    names, parents, addresses = _read_names(leaf)
    return CertificatePair(
        (cert_file, key_file),
        leaf.fingerprint(hashes.SHA256()).hex(),
        leaf.public_key_algorithm_oid.dotted_string,
        names,
        parents,
        addresses,
        leaf.not_valid_after_utc,
    )


def _read_public(path: str, pem: bytes, faults: list[Fault]) -> bytes | None:
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        hint = "remove it with: openssl pkey -in KEY -out PLAIN_KEY"
        faults.append(file_fault(path, "is a private key under a pass phrase", hint))
    except UnsupportedAlgorithm:
        faults.append(file_fault(path, "is a private key of a kind that TLS does not use"))
    except ValueError:
        hint = "it holds a certificate" if b"BEGIN CERTIFICATE-----" in pem else ""
        faults.append(file_fault(path, "is not a PEM private key", hint))
    else:
        return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return None


def _spki(certificate: x509.Certificate) -> bytes | None:
    try:
        public = certificate.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return None
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _check_dates(path: str, leaf: x509.Certificate, now: datetime, faults: list[Fault]) -> None:
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    message = None
    if now >= ends:
        message = f"expired on {ends:%Y-%m-%d %H:%M} UTC"
    elif now < begins:
        message = f"is not valid before {begins:%Y-%m-%d %H:%M} UTC"
    elif (ends - now).total_seconds() < min(_EXPIRES_SOON_S, (ends - begins).total_seconds() / 3):
        message = f"expires on {ends:%Y-%m-%d %H:%M} UTC"
    if message is not None:
        faults.append(file_fault(path, message, level="warning"))


def _read_names(leaf: x509.Certificate) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    names: set[str] = set()
    parents: set[str] = set()
    addresses: set[str] = set()
    try:
        alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        said = alternatives.get_values_for_type(x509.DNSName)
        addresses.update(str(ip) for ip in alternatives.get_values_for_type(x509.IPAddress))
    except (x509.ExtensionNotFound, ValueError):
        # Clients have stopped reading the common name (RFC 9525 1.4); to choose by, it will do.
        common = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        said = [str(each.value) for each in common]
    for name in said:
        normal = name.lower().removesuffix(".")
        if normal.startswith("*."):
            parents.add(normal[2:])
        elif _is_address(normal):
            addresses.add(normal)
        else:
            names.add(normal)
    return frozenset(names), frozenset(parents), frozenset(addresses)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True

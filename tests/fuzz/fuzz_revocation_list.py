"""Fuzz revocation lists: only what the authority signed counts, and all else is refused in words."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from headgate.security.revocation_list import read_revocations

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Partners")])
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))  # always the same lists
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
CA = (
    x509.CertificateBuilder()
    .subject_name(NAME)
    .issuer_name(NAME)
    .public_key(KEY.public_key())
    .serial_number(1)
    .not_valid_before(NOW - DAY)
    .not_valid_after(NOW + 1000 * DAY)
    .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    .sign(KEY, None)
    .public_bytes(Encoding.PEM)
)


def _list(*serials: int, key: Ed25519PrivateKey = KEY, ext: x509.ExtensionType | None = None) -> x509.CertificateRevocationList:  # fmt: skip
    made = x509.CertificateRevocationListBuilder(NAME, NOW, NOW + DAY)
    for serial in serials:
        made = made.add_revoked_certificate(x509.RevokedCertificateBuilder(serial, NOW).build())
    if ext is not None:
        made = made.add_extension(ext, critical=True)
    return made.sign(key, None)


SEEDS = (
    _list(7, 9).public_bytes(Encoding.DER),
    _list(7, 9).public_bytes(Encoding.PEM),
    _list(7).public_bytes(Encoding.PEM) + _list(9).public_bytes(Encoding.PEM),
    _list(5, key=OTHER).public_bytes(Encoding.DER),
    _list(5, ext=x509.DeltaCRLIndicator(1)).public_bytes(Encoding.DER),
    _list(5, ext=x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\5\0")).public_bytes(Encoding.DER),
)  # fmt: skip


def one(data: bytes) -> None:
    try:
        found = read_revocations(data, CA)
    except ValueError:
        pass
    else:
        for each in found.lists.values():
            assert each.revoked in ({7, 9}, {7}, {9}), data
            assert each.next_update == (NOW + DAY).timestamp(), data
    try:
        read_revocations(SEEDS[0], data)
    except ValueError:
        pass
    else:
        assert b"CERTIFICATE" in data

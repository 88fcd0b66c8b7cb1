"""Fuzz client certificates: what cannot be understood is refused, and what is read can be written."""

from __future__ import annotations

import datetime
import json
import warnings

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from headgate.security.certificate_auth import read_certificate
from tests.fuzz.fuzz_jwks import SIGNER

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def _leaf(*extensions: x509.ExtensionType) -> bytes:
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
            x509.NameAttribute(NameOID.COMMON_NAME, "billing"),
        ]
    )
    made = x509.CertificateBuilder(name, name, SIGNER.public_key(), 7, NOW, NOW.replace(year=2027))
    for each in extensions:
        made = made.add_extension(each, critical=False)
    return made.sign(SIGNER, None).public_bytes(Encoding.DER)


SEEDS = (
    _leaf(),
    _leaf(
        x509.SubjectAlternativeName(
            [
                x509.DNSName("billing.example"),
                x509.UniformResourceIdentifier("spiffe://prod/billing"),
                x509.RFC822Name("ops@billing.example"),
            ]
        ),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),
        x509.KeyUsage(True, *[False] * 8),
    ),
)


def one(data: bytes) -> None:
    with warnings.catch_warnings():
        # Serial numbers below one, which the library will refuse some day.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        try:
            facts = read_certificate(data)
        except ValueError:
            return
        assert read_certificate(data) == facts, data
    json.dumps(repr(facts)).encode()

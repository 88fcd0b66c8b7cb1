"""The three kinds of certificates, requests for them, and what stands in one that is shown.

Theory of operation
-------------------
    root           ten years, path length 1, names of the trust domain only, signs intermediates
    intermediate   weeks, path length 0, the same names, signs services
    service        hours; SPIFFE id and host name; for both sides of TLS

All keys are ECDSA P-256; a service may bring P-384 or Ed25519. Of a request nothing is taken but
the key, which its signature proves to be there: names come from what the asker is entitled to.

A service's certificate carries in its subject which joining it goes back to (`serialNumber`), and
keeps it over renewals: an operator who denies that one ends the whole line, also of certificates
that were made with a stolen key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from headgate.mesh.identity.refusals import IdentityRefused
from headgate.security.service_identity.spiffe import NotAnIdentity, SpiffeId
from headgate.wire.local_ca import key_usage

__all__ = [
    "MAX_REQUEST_BYTES",
    "Made",
    "Request",
    "Shown",
    "fingerprint",
    "is_issued_by",
    "issuer_request",
    "make_issuer",
    "make_leaf",
    "make_root",
    "new_key",
    "read_key",
    "read_request",
    "read_shown",
    "request_for",
]

MAX_REQUEST_BYTES: Final = 16 * 1024
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1)

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
PrivateKey = ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Made:
    """A certificate and, where it is ours, its key; both PEM."""

    pem: str
    key_pem: str = field(default="", repr=False)
    begins: float = 0.0
    ends: float = 0.0


@dataclass(frozen=True, slots=True)
class Request:
    """A request that proved to have its key."""

    public_key: PublicKey
    der: bytes = field(repr=False)
    uris: tuple[str, ...] = ()
    """What it asks to be called."""

    @property
    def key_id(self) -> str:
        return sha256(_spki(self.public_key)).hexdigest()


@dataclass(frozen=True, slots=True)
class Shown:
    """A service's certificate as somebody shows it. Nothing of it is verified but its shape."""

    certificate: x509.Certificate = field(repr=False)
    id: SpiffeId
    serial: str
    joining: str
    begins: float
    ends: float

    @property
    def public_key(self) -> PublicKey:
        return _accepted(self.certificate.public_key())


# -- keys ---------------------------------------------------------------------------------------


def new_key() -> tuple[PrivateKey, str]:
    """A key, and its PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def read_key(pem: str) -> PrivateKey:
    """A key of `new_key`. ValueError for anything else."""
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (TypeError, UnsupportedAlgorithm):
        raise ValueError("is no key of ours") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("is no key of ours")
    return key


def fingerprint(pem: str) -> str:
    """SHA-256 of a certificate, in hex."""
    return x509.load_pem_x509_certificate(pem.encode()).fingerprint(hashes.SHA256()).hex()


def _accepted(key: object) -> PublicKey:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    raise IdentityRefused("request", "keys are ECDSA P-256 or P-384, or Ed25519")


def _spki(key: PublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


# -- requests -----------------------------------------------------------------------------------


def request_for(key: PrivateKey, identity: SpiffeId | None = None) -> str:
    """A request in PEM; `identity` is checked by the authority, and so a safeguard."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if identity is not None:
        uri = x509.UniformResourceIdentifier(str(identity))
        builder = builder.add_extension(x509.SubjectAlternativeName([uri]), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def issuer_request(key: PrivateKey, trust_domain: str) -> str:
    """A request for an intermediate, for an authority elsewhere."""
    name = _name(f"{trust_domain} services", None)
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return made.public_bytes(Encoding.PEM).decode()


def read_request(text: str) -> Request:
    """Raises IdentityRefused."""
    data = text.encode("utf-8", "replace")
    if len(data) > MAX_REQUEST_BYTES:
        raise IdentityRefused("request", "the request is too large")
    try:
        found = x509.load_pem_x509_csr(data)
        has_key = found.is_signature_valid
        public = found.public_key()
        der = found.public_bytes(Encoding.DER)
        uris: tuple[str, ...] = ()
        for extension in found.extensions:
            if isinstance(extension.value, x509.SubjectAlternativeName):
                uris = tuple(extension.value.get_values_for_type(x509.UniformResourceIdentifier))
    except Exception:  # noqa: BLE001 - the library lets several kinds through, some of its own
        raise IdentityRefused("request", "the request is no PKCS #10 request in PEM") from None
    if not has_key:
        raise IdentityRefused("request", "the request does not prove that its key is there")
    return Request(_accepted(public), der, uris)


# -- certificates -------------------------------------------------------------------------------


def make_root(trust_domain: str, wall: float, life_s: float, backdate_s: float) -> Made:
    key, key_pem = new_key()
    # Roots of one trust domain must be told apart, by people and by OpenSSL.
    tag = sha256(_spki(key.public_key())).hexdigest()[:8]
    name = _name(f"{trust_domain} root {tag}", None)
    span = _span(wall, life_s, backdate_s)
    builder = _authority(key.public_key(), name, name, span, trust_domain, path_length=1)
    return _made(builder.sign(key, hashes.SHA256()), key_pem)


def make_issuer(
    root_pem: str, root_key_pem: str, trust_domain: str, wall: float, life_s: float, back_s: float
) -> Made:
    """An intermediate, which does not outlive its root."""
    root = x509.load_pem_x509_certificate(root_pem.encode())
    root_key = read_key(root_key_pem)
    key, key_pem = new_key()
    tag = sha256(_spki(key.public_key())).hexdigest()[:8]
    begins, ends = _span(wall, life_s, back_s)
    span = (max(begins, root.not_valid_before_utc), min(ends, root.not_valid_after_utc))
    name = _name(f"{trust_domain} services {tag}", None)
    builder = _authority(
        key.public_key(), name, root.subject, span, trust_domain, path_length=0
    ).add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False
    )
    return _made(builder.sign(root_key, hashes.SHA256()), key_pem)


def make_leaf(
    issuer: x509.Certificate,
    issuer_key: PrivateKey,
    request: Request,
    identity: SpiffeId,
    joining: str,
    wall: float,
    life_s: float,
    backdate_s: float,
) -> tuple[Made, str]:
    """A service's certificate, which does not outlive its issuer, and its serial number in hex."""
    begins, ends = _span(wall, life_s, backdate_s)
    serial = x509.random_serial_number()
    made = (
        x509.CertificateBuilder()
        .subject_name(_name(identity.service[:64], joining))
        .issuer_name(issuer.subject)
        .public_key(request.public_key)
        .serial_number(serial)
        .not_valid_before(max(begins, issuer.not_valid_before_utc))
        .not_valid_after(min(ends, issuer.not_valid_after_utc))
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.UniformResourceIdentifier(str(identity)),
                    x509.DNSName(identity.host_name),
                ]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(sign_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(request.public_key), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
        .sign(issuer_key, hashes.SHA256())
    )
    return _made(made, ""), format(serial, "x")


def _authority(
    public: ec.EllipticCurvePublicKey,
    name: x509.Name,
    issuer: x509.Name,
    span: tuple[datetime, datetime],
    trust_domain: str,
    *,
    path_length: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(span[0])
        .not_valid_after(span[1])
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(key_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.NameConstraints(
                permitted_subtrees=[
                    x509.DNSName(trust_domain),
                    # Of a URI the host is meant, and without a dot in front exactly this one.
                    x509.UniformResourceIdentifier(trust_domain),
                ],
                excluded_subtrees=None,
            ),
            critical=True,
        )
    )


def _span(wall: float, life_s: float, backdate_s: float) -> tuple[datetime, datetime]:
    now = datetime.fromtimestamp(wall, UTC)
    return now - timedelta(seconds=backdate_s), now + timedelta(seconds=life_s)


def _name(common: str, number: str | None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common[:64])]
    if number is not None:
        parts.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, number))
    return x509.Name(parts)


def _made(certificate: x509.Certificate, key_pem: str) -> Made:
    return Made(
        certificate.public_bytes(Encoding.PEM).decode(),
        key_pem,
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )


# -- what is shown ------------------------------------------------------------------------------


def read_shown(text: str) -> Shown:
    """The first certificate of a PEM text. Raises IdentityRefused."""
    data = text.encode("utf-8", "replace")
    if len(data) > 2 * MAX_REQUEST_BYTES:
        raise IdentityRefused("certificate", "the certificate is too large")
    try:
        found = x509.load_pem_x509_certificates(data)[0]
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        numbers = found.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
        joining = str(numbers[0].value) if len(numbers) == 1 else ""
        begins = found.not_valid_before_utc.timestamp()
        ends = found.not_valid_after_utc.timestamp()
        serial = format(found.serial_number, "x")
    except Exception:  # noqa: BLE001 - likewise
        raise IdentityRefused("certificate", "this is no certificate of a service") from None
    try:
        identity = SpiffeId.parse(uris[0] if len(uris) == 1 else "")
    except NotAnIdentity:
        raise IdentityRefused(
            "certificate", "this certificate names no service of a mesh"
        ) from None
    return Shown(found, identity, serial, joining, begins, ends)


def is_issued_by(shown: Shown, issuer_pem: str) -> bool:
    try:
        shown.certificate.verify_directly_issued_by(
            x509.load_pem_x509_certificate(issuer_pem.encode())
        )
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True

"""The challenge that an authority asks for within TLS: tls-alpn-01 (RFC 8737).

Theory of operation
-------------------
To see that we hold a name, the authority connects to port 443 with that server name and offers one
application protocol alone, `acme-tls/1`. It is answered with a certificate signed by nobody, for
that one name, that carries the SHA-256 of the key authorisation in a critical extension; then it
hangs up. `challenge_pem` makes that certificate, each process its own, so that no key travels.

Python does not say which protocols a client offers before one has been chosen. `is_acme_hello`
reads them from the client's first message. What comes in is a stranger's bytes: anything that is
not well-formed is answered "no", and then served as any other client.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["ACME_TLS", "challenge_pem", "is_acme_hello", "offered_protocols"]

ACME_TLS: Final = "acme-tls/1"

_IDENTIFIER: Final = "1.3.6.1.5.5.7.1.31"
_DIGEST_BYTES: Final = 32
_LIFE: Final = timedelta(days=7)
_BACKDATED: Final = timedelta(days=1)
_ALPN: Final = 16  # RFC 7301 3.1


def challenge_pem(name: str, digest: bytes, wall: float) -> bytes:
    """The certificate and its key. `digest` is the SHA-256 of the key authorisation."""
    if len(digest) != _DIGEST_BYTES:
        raise ValueError("a challenge of RFC 8737 is a SHA-256 digest")
    # Heavy, and for a moment every other month.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.fromtimestamp(wall, UTC)
    # A fixed name: that of the challenge stands in the extension, and may be too long for here.
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ACME challenge")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        # RFC 8737 3: the digest as an octet string, in an extension that is critical.
        .add_extension(
            x509.UnrecognizedExtension(
                x509.ObjectIdentifier(_IDENTIFIER), bytes((4, _DIGEST_BYTES)) + digest
            ),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM) + key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )


def is_acme_hello(message: bytes) -> bool:
    """Whether this ClientHello offers `acme-tls/1` and nothing else (RFC 8737 3)."""
    return offered_protocols(message) == (ACME_TLS.encode(),)


def offered_protocols(message: bytes) -> tuple[bytes, ...]:
    """The protocols in a ClientHello (RFC 8446 4.1.2), a handshake message with its header; none
    where there are none, or where the message is not well-formed.
    """
    try:
        return _offered(memoryview(message))
    except _CutShort:
        return ()


class _CutShort(Exception):
    """A length says more than there is."""


def _offered(message: memoryview) -> tuple[bytes, ...]:
    body, _ = _vector(message[1:], 3)
    if len(body) < 34:
        raise _CutShort
    rest = body[34:]  # version and random
    for length_bytes in (1, 2, 1):  # session id, ciphers, compression
        _, rest = _vector(rest, length_bytes)
    if not rest:
        return ()
    extensions, _ = _vector(rest, 2)
    while extensions:
        if len(extensions) < 4:
            raise _CutShort
        kind = int.from_bytes(extensions[:2])
        content, extensions = _vector(extensions[2:], 2)
        if kind == _ALPN:
            names, _ = _vector(content, 2)
            found = []
            while names:
                name, names = _vector(names, 1)
                found.append(bytes(name))
            return tuple(found)
    return ()


def _vector(data: memoryview, length_bytes: int) -> tuple[memoryview, memoryview]:
    """What is led by its length, and what follows."""
    end = length_bytes + int.from_bytes(data[:length_bytes])
    if len(data) < max(end, length_bytes):
        raise _CutShort
    return data[length_bytes:end], data[end:]

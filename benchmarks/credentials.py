"""A self-signed certificate, a signing key and tokens: made anew for every run, kept nowhere."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

ISSUER = "https://bench.example"
AUDIENCE = "bench"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files and tokens of one run."""

    cert_file: Path
    key_file: Path
    jwks_file: Path
    tokens: tuple[str, ...]


def make_credentials(folder: Path, users: int = 200) -> Credentials:
    """ECDSA P-256 for TLS (what public CAs issue today), RS256 for tokens (what OIDC issues)."""
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    _make_certificate(cert_file, key_file)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    numbers = key.public_key().public_numbers()
    jwk = {
        "kty": "RSA",
        "kid": "bench-1",
        "use": "sig",
        "alg": "RS256",
        "n": _b64(numbers.n.to_bytes(256, "big")),
        "e": _b64(numbers.e.to_bytes(3, "big")),
    }
    jwks_file = folder / "jwks.json"
    jwks_file.write_text(json.dumps({"keys": [jwk]}))
    return Credentials(
        cert_file, key_file, jwks_file, tuple(_token(key, user) for user in range(users))
    )


def _make_certificate(cert_file: Path, key_file: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=7))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    key_file.chmod(0o600)


def _token(key: rsa.RSAPrivateKey, user: int) -> str:
    now = datetime.datetime.now(datetime.UTC)
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": f"user-{user:05d}",
        "roles": ["user"],
        "iat": int(now.timestamp()),
        "nbf": int(now.timestamp()) - 60,
        "exp": int((now + datetime.timedelta(days=1)).timestamp()),
    }
    header = _b64(json.dumps({"alg": "RS256", "typ": "JWT", "kid": "bench-1"}).encode())
    signed = f"{header}.{_b64(json.dumps(claims).encode())}"
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{_b64(signature)}"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

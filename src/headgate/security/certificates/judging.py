"""What certificates and answers of a server are worth. Pure: values in, findings out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Final, Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa

from headgate.security.certificates.hello import CIPHERS, PROTOCOLS, weakness

__all__ = [
    "Finding",
    "Level",
    "covers",
    "judge_certificate",
    "judge_ciphers",
    "judge_hsts",
    "judge_protocols",
    "names_of",
]

Level = Literal["ok", "info", "warning", "bad"]

HSTS_LEAST_S: Final = 180 * 86400
_SOON: Final = timedelta(days=14)
_LONGEST: Final = timedelta(days=398)
_RSA_BITS: Final = 2048
_EC_BITS: Final = 224
_OLD: Final = frozenset({"SSL 3.0", "TLS 1.0", "TLS 1.1"})


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    level: Level
    text: str


def judge_protocols(offered: Mapping[str, bool]) -> Iterator[Finding]:
    """`offered` says of every protocol whether the server speaks it."""
    for name in PROTOCOLS:
        is_offered = offered[name]
        if name in _OLD:
            level: Level = "bad" if is_offered else "ok"
            said = "is offered, and broken (RFC 7568, RFC 8996)" if is_offered else "is refused"
            yield Finding("protocols", level, f"{name} {said}")
        elif is_offered:
            yield Finding("protocols", "ok", f"{name} is offered")
        else:
            level = "warning" if name == "TLS 1.3" else "info"
            yield Finding("protocols", level, f"{name} is not offered")


def judge_ciphers(accepted: Collection[int]) -> Iterator[Finding]:
    """The suites up to TLS 1.2 that a server takes."""
    worst = {"bad": 0, "warning": 0}
    for cipher in accepted:
        level, why = weakness(cipher)
        if level == "bad":
            worst["bad"] += 1
            yield Finding("ciphers", "bad", f"{CIPHERS[cipher]} {why}")
        elif level == "warning":
            worst["warning"] += 1
            yield Finding("ciphers", "warning", f"{CIPHERS[cipher]} {why}")
    good = len(accepted) - sum(worst.values())
    if good:
        yield Finding("ciphers", "ok", f"{good} with forward secrecy and authenticated encryption")


def judge_certificate(leaf: x509.Certificate, host: str, wall: float) -> Iterator[Finding]:
    now = datetime.fromtimestamp(wall, UTC)
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    left = ends - now
    when = f"{ends:%Y-%m-%d %H:%M} UTC"
    if now < begins:
        yield Finding("expiry", "bad", f"it is not valid before {begins:%Y-%m-%d %H:%M} UTC")
    elif left <= timedelta(0):
        yield Finding("expiry", "bad", f"it expired on {when}")
    elif left < min(_SOON, (ends - begins) / 5):
        yield Finding("expiry", "warning", f"it ends soon: {when}")
    else:
        yield Finding("expiry", "ok", f"until {when}, {left.days} days from now")
    if ends - begins > _LONGEST + timedelta(days=1):
        days = (ends - begins).days
        yield Finding("lifetime", "warning", f"{days} days; browsers take no more than 398")
    names = names_of(leaf)
    if covers(names, host):
        yield Finding("hostname", "ok", f"it covers {host}")
    else:
        listed = ", ".join(names[:10]) or "no name at all"
        yield Finding("hostname", "bad", f"it does not cover {host}, but {listed}")
    yield _judge_key(leaf)
    yield _judge_signature(leaf)


def names_of(leaf: x509.Certificate) -> tuple[str, ...]:
    """The names of the extension; clients do not read others (RFC 9525 2)."""
    try:
        said = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return (
            *(name.lower() for name in said.get_values_for_type(x509.DNSName)),
            *(str(address) for address in said.get_values_for_type(x509.IPAddress)),
        )
    except (x509.ExtensionNotFound, ValueError):
        return ()


def covers(names: Collection[str], host: str) -> bool:
    """RFC 9525 6.3: letter for letter, or a wildcard for one whole label."""
    wanted = host.lower().removesuffix(".")
    try:
        return str(ip_address(wanted)) in names
    except ValueError:
        label, _, parent = wanted.partition(".")
        return wanted in names or (bool(label) and "." in parent and f"*.{parent}" in names)


def _judge_key(leaf: x509.Certificate) -> Finding:
    try:
        key = leaf.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return Finding("key", "bad", "its kind is not known")
    match key:
        case rsa.RSAPublicKey():
            level: Level = "ok" if key.key_size >= _RSA_BITS else "bad"
            return Finding("key", level, f"RSA, {key.key_size} bits")
        case ec.EllipticCurvePublicKey():
            level = "ok" if key.key_size > _EC_BITS else "bad"
            return Finding("key", level, f"ECDSA, {key.curve.name}")
        case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
            return Finding("key", "ok", "EdDSA")
        case dsa.DSAPublicKey():
            return Finding("key", "bad", f"DSA, {key.key_size} bits: nobody takes it")
        case _:
            return Finding("key", "bad", "of a kind that TLS does not use")


def _judge_signature(leaf: x509.Certificate) -> Finding:
    try:
        used = leaf.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return Finding("signature", "bad", "its algorithm is not known")
    if used is None:
        return Finding("signature", "ok", "EdDSA")
    level: Level = "bad" if used.name in ("md5", "sha1", "md2", "md4") else "ok"
    return Finding("signature", level, f"with {used.name}")


def judge_hsts(value: str | None) -> Finding:
    """RFC 6797 of a response's Strict-Transport-Security; None where it has none."""
    if value is None:
        text = "no Strict-Transport-Security; write secure_headers"
        return Finding("hsts", "warning", text)
    parts = [part.strip().lower() for part in value.split(";")]
    ages = [
        part.partition("=")[2].strip().strip('"') for part in parts if part.startswith("max-age")
    ]
    if len(ages) != 1 or not (ages[0].isascii() and ages[0].isdigit()):
        return Finding("hsts", "bad", f"{value[:100]!r} says no max-age, and counts as none")
    age_s = int(ages[0][:12])
    if age_s < HSTS_LEAST_S:
        return Finding("hsts", "warning", f"only for {age_s / 86400:.0f} days; 180 are usual")
    return Finding("hsts", "ok", f"for {age_s / 86400:.0f} days")

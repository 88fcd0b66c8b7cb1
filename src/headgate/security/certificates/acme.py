"""The rules of ACME (RFC 8555): what its answers mean, and what we make of them. Nothing is sent.

What an authority says is read strictly where we act on it (URLs, states, tokens) and not at all
elsewhere. URLs it names are asked only over https, whatever it says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from headgate.errors import HeadgateError
from headgate.policy.retry import parse_retry_after
from headgate.security.certificates.jose import AccountKey, b64
from headgate.security.certificates.rules import CHALLENGE_PREFIX, ChallengeKind

__all__ = [
    "AcmeFailed",
    "Authorization",
    "Challenge",
    "Directory",
    "Order",
    "alpn_digest",
    "ari_id",
    "challenge_path",
    "key_authorization",
    "make_csr",
    "make_key",
    "read_authorization",
    "read_chain",
    "read_directory",
    "read_order",
    "read_problem",
    "retry_after_s",
]

_PROBLEM: Final = "urn:ietf:params:acme:error:"
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
_MAX_SAID: Final = 300
_MAX_RETRY_AFTER_S: Final = 7 * 86400.0


class AcmeFailed(HeadgateError):
    """An order, or a step of it, came to nothing. Says why, in words for an operator."""

    def __init__(
        self,
        reason: str,
        *,
        kind: str = "",
        retry_after_s: float | None = None,
        is_validation: bool = False,
        status: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.kind = kind
        """The type of the problem, without its prefix; empty when it is not the authority's."""
        self.retry_after_s = retry_after_s
        self.is_validation = is_validation
        """Whether the authority has looked, and did not find what it asked for."""
        self.status = status


# -- what the authority says ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Directory:
    """RFC 8555 7.1.1."""

    new_nonce: str
    new_account: str
    new_order: str
    revoke: str
    renewal_info: str | None
    needs_binding: bool
    terms: str | None


@dataclass(frozen=True, slots=True)
class Order:
    """RFC 8555 7.1.3."""

    status: str
    authorizations: tuple[str, ...]
    finalize: str
    certificate: str | None
    failure: AcmeFailed | None


@dataclass(frozen=True, slots=True)
class Challenge:
    url: str
    token: str
    status: str


@dataclass(frozen=True, slots=True)
class Authorization:
    """RFC 8555 7.1.4, with the one challenge that we can answer."""

    domain: str
    status: str
    challenge: Challenge | None
    failure: AcmeFailed | None


def read_directory(body: bytes) -> Directory:
    said = _object(body, "directory")
    meta = said.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    info = said.get("renewalInfo")
    return Directory(
        new_nonce=_url(said, "newNonce"),
        new_account=_url(said, "newAccount"),
        new_order=_url(said, "newOrder"),
        revoke=_url(said, "revokeCert"),
        renewal_info=_url(said, "renewalInfo") if info is not None else None,
        needs_binding=meta.get("externalAccountRequired") is True,
        terms=_words(meta.get("termsOfService")) or None,
    )


def read_order(body: bytes) -> Order:
    said = _object(body, "order")
    listed = said.get("authorizations")
    if not isinstance(listed, list) or not 0 < len(listed) <= 100:
        raise AcmeFailed("the authority's order names no authorizations")
    has_certificate = said.get("certificate") is not None
    return Order(
        status=_status(said),
        authorizations=tuple(_url({"authorizations": each}, "authorizations") for each in listed),
        finalize=_url(said, "finalize"),
        certificate=_url(said, "certificate") if has_certificate else None,
        failure=_problem(said.get("error")),
    )


def read_authorization(body: bytes, kind: ChallengeKind) -> Authorization:
    said = _object(body, "authorization")
    identifier = said.get("identifier")
    domain = identifier.get("value") if isinstance(identifier, dict) else None
    listed = said.get("challenges")
    if not isinstance(domain, str) or not isinstance(listed, list):
        raise AcmeFailed("the authority's authorization is not one")
    found = None
    failure = None
    for each in listed:
        if not isinstance(each, dict):
            continue
        failure = failure or _problem(each.get("error"))
        if each.get("type") == kind:
            token = each.get("token")
            # RFC 8555 8.1: base64url and nothing else. It becomes part of a path and a lookup key.
            if not isinstance(token, str) or not _TOKEN.fullmatch(token):
                raise AcmeFailed("the authority's challenge has a token that is none")
            found = Challenge(_url(each, "url"), token, _status(each))
    return Authorization(_words(domain), _status(said), found, failure)


def read_problem(status: int, body: bytes, retry_after: float | None) -> AcmeFailed:
    """What a refusal means (RFC 7807, RFC 8555 6.7)."""
    try:
        said = json.loads(body)
    except ValueError:
        said = None
    found = _problem(said, retry_after, status)
    if found is not None:
        return found
    return AcmeFailed(f"the authority answers {status}", retry_after_s=retry_after, status=status)


def _problem(
    said: object, retry_after: float | None = None, status: int | None = None
) -> AcmeFailed | None:
    if not isinstance(said, dict):
        return None
    kind = _words(said.get("type")).removeprefix(_PROBLEM)
    detail = _words(said.get("detail"))
    if not kind and not detail:
        return None
    parts = said.get("subproblems")
    for each in parts if isinstance(parts, list) else ():
        if isinstance(each, dict) and isinstance(each.get("detail"), str):
            detail = f"{detail}; {_words(each['detail'])}"[:_MAX_SAID]
    words = f"{detail or 'no reason is given'} ({kind or 'no type'})"
    return AcmeFailed(
        f"the authority says: {words}", kind=kind, retry_after_s=retry_after, status=status
    )


def retry_after_s(value: str | None, wall: float) -> float | None:
    """Seconds to wait by a Retry-After (RFC 9110 10.2.3), bounded; None where it says nothing."""
    said_s = None if value is None else parse_retry_after(value, wall)
    return None if said_s is None else min(said_s, _MAX_RETRY_AFTER_S)


def read_chain(body: bytes, key_pem: bytes, domain: str) -> bytes:
    """The chain that was issued, as PEM: checked to be for our key and our name, and nothing but
    certificates (RFC 8555 9.1 and 11.4: it may hold anything a hostile authority puts there).
    """
    try:
        blocks = _PEM.findall(body.decode("ascii"))
        chain = [x509.load_pem_x509_certificate(block.encode()) for block in blocks]
    except ValueError:
        raise AcmeFailed("what the authority issued is not a certificate") from None
    if not 0 < len(chain) <= 10:
        raise AcmeFailed("what the authority issued is not a chain of certificates")
    leaf = chain[0]
    key = load_pem_private_key(key_pem, password=None)
    ours, theirs = (
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for public in (key.public_key(), leaf.public_key())
    )
    if ours != theirs:
        raise AcmeFailed("what the authority issued is for another key")
    try:
        names = leaf.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value.get_values_for_type(x509.DNSName)
    except (x509.ExtensionNotFound, ValueError):
        names = []
    if domain not in [name.lower() for name in names]:
        raise AcmeFailed(f"what the authority issued is not for {domain}")
    return b"".join(each.public_bytes(Encoding.PEM) for each in chain)


def ari_id(leaf: x509.Certificate) -> str | None:
    """How RFC 9773 4.1 names a certificate; None for one without a key identifier."""
    try:
        authority = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except (x509.ExtensionNotFound, ValueError):
        return None
    if authority.key_identifier is None:
        return None
    serial = leaf.serial_number
    # As in DER: one bit more than the number needs, for its sign.
    return f"{b64(authority.key_identifier)}.{b64(serial.to_bytes(serial.bit_length() // 8 + 1))}"


# -- what we say ----------------------------------------------------------------------------------


def key_authorization(key: AccountKey, token: str) -> str:
    return f"{token}.{key.thumbprint}"


def challenge_path(token: str) -> str:
    return CHALLENGE_PREFIX + token


def alpn_digest(authorization: str) -> bytes:
    return sha256(authorization.encode("ascii")).digest()


def make_key(kind: Literal["ecdsa", "rsa"]) -> bytes:
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    if kind == "rsa":
        key = rsa.generate_private_key(65537, 2048)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def make_csr(key_pem: bytes, domain: str) -> bytes:
    """The request for a certificate, DER. The name is in the extension alone: the common name is
    read by nobody, and cannot hold more than 64 characters.
    """
    key = load_pem_private_key(key_pem, password=None)
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise AcmeFailed("the key that was kept for this order is of a kind that is not ours")
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(domain)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return request.public_bytes(Encoding.DER)


# -- reading --------------------------------------------------------------------------------------


def _object(body: bytes, what: str) -> Mapping[str, Any]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise AcmeFailed(f"the authority's {what} is not JSON; is the URL that of a directory?")
    return said


def _url(said: Mapping[str, Any], name: str) -> str:
    url = said.get(name)
    if isinstance(url, str) and url.isascii() and url.isprintable() and len(url) < 2048:
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = None
        if parts is not None and parts.scheme == "https" and parts.hostname:
            return url
    raise AcmeFailed(f'the authority names no https URL for "{name}"')


def _status(said: Mapping[str, Any]) -> str:
    status = said.get("status")
    if not isinstance(status, str):
        raise AcmeFailed("the authority names no status")
    return _words(status)


def _words(value: object) -> str:
    """Text of a stranger's, for logs: short, printable, on one line."""
    if not isinstance(value, str):
        return ""
    return "".join(each if each.isprintable() else " " for each in value[:_MAX_SAID])

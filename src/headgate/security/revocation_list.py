"""Certificate revocation lists (RFC 5280 section 5): read, checked, and asked.

Theory of operation. A list counts only with the signature of an authority in `ca_file` whose name
is the issuer of the list and which may sign lists. A list of a kind that says less or other than
"these certificates of this issuer are revoked" (delta lists, indirect ones, parts by reason or
kind) is refused with the reason: read as a whole list it would let revoked certificates through.

A list is good from `thisUpdate` to `nextUpdate`. Afterwards it is stale; its revocations still
count, and what becomes of everybody else is the operator's choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

_PEM = b"-----BEGIN X509 CRL-----"
_END = b"-----END X509 CRL-----"

Standing = Literal["good", "revoked", "stale", "unlisted"]


@dataclass(frozen=True, slots=True)
class RevocationList:
    issuer: str
    revoked: frozenset[int]
    this_update: float
    next_update: float


@dataclass(frozen=True, slots=True)
class Revocations:
    """The lists of one file, by the DER name of their issuer."""

    lists: Mapping[bytes, RevocationList]

    def standing(self, issuer_der: bytes, serial: int, wall: float, skew_s: float) -> Standing:
        found = self.lists.get(issuer_der)
        if found is None:
            return "unlisted"
        if serial in found.revoked:
            return "revoked"
        if wall >= found.next_update or wall < found.this_update - skew_s:
            return "stale"
        return "good"


def read_revocations(content: bytes, ca_pem: bytes) -> Revocations:
    """Read lists (PEM, several; or one in DER) that these authorities must have signed.

    ValueError says what is wrong.
    """
    from cryptography import x509

    try:
        authorities = x509.load_pem_x509_certificates(ca_pem)
    except (ValueError, x509.InvalidVersion):
        raise ValueError("its ca_file holds no PEM certificate") from None
    found: dict[bytes, RevocationList] = {}
    for number, der in enumerate(_each(content), 1):
        crl = _load(der, number)
        try:
            issuer = crl.issuer.public_bytes()
        except ValueError:
            raise ValueError(f"list {number} names an issuer that cannot be read") from None
        made = _judge(crl, [each for each in authorities if each.subject == crl.issuer], number)
        before = found.get(issuer)
        if before is None or made.this_update > before.this_update:
            found[issuer] = made
    return Revocations(found)


def _each(content: bytes) -> list[bytes]:
    if _PEM not in content:
        return [content]
    parts = content.split(_PEM)[1:]
    if any(_END not in part for part in parts):
        raise ValueError("has a list that is cut off")
    return [_PEM + part.partition(_END)[0] + _END + b"\n" for part in parts]


def _load(data: bytes, number: int) -> Any:
    from cryptography import x509

    try:
        if data.startswith(_PEM):
            return x509.load_pem_x509_crl(data)
        return x509.load_der_x509_crl(data)
    except (ValueError, x509.InvalidVersion):
        raise ValueError(f"list {number} is no revocation list in PEM or DER") from None


def _judge(crl: Any, authorities: list[Any], number: int) -> RevocationList:
    try:
        issuer = crl.issuer.rfc4514_string()
    except ValueError:
        raise ValueError(f"list {number} names an issuer that cannot be read") from None
    if not authorities:
        raise ValueError(f"list {number} is from {issuer}, which is not in its ca_file")
    if not any(_may_sign(each) and _is_signed(crl, each) for each in authorities):
        raise ValueError(f"list {number} has no signature of {issuer} that holds")
    _refuse_partial(crl, number)
    if crl.next_update_utc is None:
        raise ValueError(f"list {number} does not say when the next one comes (nextUpdate)")
    return RevocationList(
        issuer,
        frozenset(entry.serial_number for entry in crl),
        crl.last_update_utc.timestamp(),
        crl.next_update_utc.timestamp(),
    )


def _is_signed(crl: Any, authority: Any) -> bool:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return bool(crl.is_signature_valid(authority.public_key()))
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return False


def _may_sign(authority: Any) -> bool:
    from cryptography import x509

    try:
        usage = authority.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    except ValueError:
        return False
    return bool(usage.crl_sign)


def _refuse_partial(crl: Any, number: int) -> None:
    from cryptography import x509

    try:
        extensions = list(crl.extensions)
    except ValueError:
        raise ValueError(f"list {number} has an extension that cannot be read") from None
    for each in extensions:
        value = each.value
        if isinstance(value, x509.DeltaCRLIndicator):
            raise ValueError(f"list {number} is a delta; give the whole list")
        if isinstance(value, x509.IssuingDistributionPoint):
            if (
                value.indirect_crl
                or value.only_contains_ca_certs
                or value.only_contains_attribute_certs
                or value.only_some_reasons
            ):
                raise ValueError(f"list {number} is only of a part of what its issuer revoked")
        elif each.critical and not isinstance(value, x509.AuthorityKeyIdentifier):
            raise ValueError(f"list {number} has a critical extension that is not understood")

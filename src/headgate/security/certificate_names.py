"""The names and the validity of a certificate that TLS has verified already, read by hand.

Theory of operation
-------------------
A sidecar reads nothing of a certificate but the URIs among its alternative names and when it is
valid. For that alone the `cryptography` package is a third of what a sidecar weighs, so the few
fields are walked to here (RFC 5280 4.1, DER as in X.690):

    Certificate -> tbsCertificate -> validity
                                  -> extensions [3] -> subjectAltName -> uniformResourceIdentifier

Whatever is not as it should be (a length that leads out of its parent, a second subjectAltName, a
URI that is not ASCII, more behind the end) is a ValueError: of such a certificate nobody knows what
another reader would see.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["CertificateNames", "read_names"]

_SEQUENCE: Final = 0x30
_OCTETS: Final = 0x04
_OID: Final = 0x06
_BOOLEAN: Final = 0x01
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18
_VERSION: Final = 0xA0
_EXTENSIONS: Final = 0xA3
_URI: Final = 0x86
_SUBJECT_ALT_NAME: Final = bytes((0x55, 0x1D, 0x11))
_LENGTH_BYTES: Final = 4
_URIS_MAX: Final = 256
_TIME: Final = re.compile(r"(\d{2}|\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})Z")


@dataclass(frozen=True, slots=True)
class CertificateNames:
    uris: tuple[str, ...]
    not_before: float
    """Wall time, as is the end."""
    not_after: float


def read_names(der: bytes) -> CertificateNames:
    """Raises ValueError for what is no certificate."""
    certificate = _only(der)
    signed = list(_each(certificate))
    if len(signed) != 3 or signed[0][0] != _SEQUENCE:
        raise ValueError("is no certificate")
    fields = list(_each(signed[0][1]))
    if fields and fields[0][0] == _VERSION:
        fields = fields[1:]
    # serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo
    if len(fields) < 6 or fields[3][0] != _SEQUENCE:
        raise ValueError("is no certificate")
    times = [_time(tag, value) for tag, value in _each(fields[3][1])]
    if len(times) != 2:
        raise ValueError("has no validity")
    extensions = [value for tag, value in fields[6:] if tag == _EXTENSIONS]
    if len(extensions) > 1:
        raise ValueError("has its extensions twice")
    return CertificateNames(_uris(extensions[0]) if extensions else (), times[0], times[1])


def _uris(extensions: bytes) -> tuple[str, ...]:
    found: list[bytes] = []
    for tag, extension in _each(_only(extensions)):
        if tag != _SEQUENCE:
            raise ValueError("has an extension that is none")
        parts = list(_each(extension))
        if len(parts) == 3 and parts[1][0] == _BOOLEAN:
            del parts[1]
        if len(parts) != 2 or parts[0][0] != _OID or parts[1][0] != _OCTETS:
            raise ValueError("has an extension that is none")
        if parts[0][1] == _SUBJECT_ALT_NAME:
            found.append(parts[1][1])
    if not found:
        return ()
    if len(found) > 1:
        raise ValueError("has its alternative names twice")
    uris = [value for tag, value in _each(_only(found[0])) if tag == _URI]
    if len(uris) > _URIS_MAX:
        raise ValueError("has too many names")
    return tuple(uri.decode("ascii") for uri in uris)  # UnicodeDecodeError is a ValueError


def _time(tag: int, value: bytes) -> float:
    found = _TIME.fullmatch(value.decode("ascii"))
    if found is None or len(found[1]) != {_UTC_TIME: 2, _GENERALIZED_TIME: 4}.get(tag):
        raise ValueError("has a time that is none")
    year = int(found[1])
    if tag == _UTC_TIME:
        year += 1900 if year >= 50 else 2000  # RFC 5280 4.1.2.5.1
    month, day, hour, minute, second = (int(found[at]) for at in range(2, 7))
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 60):
        raise ValueError("has a time that is none")
    return float(calendar.timegm((year, month, day, hour, minute, second)))


def _only(data: bytes) -> bytes:
    """What is in the one sequence that is here."""
    found = list(_each(data))
    if len(found) != 1 or found[0][0] != _SEQUENCE:
        raise ValueError("is no certificate")
    return found[0][1]


def _each(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element, one behind the other. Raises ValueError."""
    at, end = 0, len(data)
    while at < end:
        if end - at < 2:
            raise ValueError("ends too early")
        tag, length = data[at], data[at + 1]
        at += 2
        if tag & 0x1F == 0x1F:
            raise ValueError("has a tag that no certificate has")
        if length & 0x80:
            count = length & 0x7F
            if not 1 <= count <= _LENGTH_BYTES or end - at < count:
                raise ValueError("has a length that is none")
            length = int.from_bytes(data[at : at + count], "big")
            if length < 0x80 or data[at] == 0:
                raise ValueError("has a length in more bytes than it needs")
            at += count
        if length > end - at:
            raise ValueError("has a length that leads out of it")
        yield tag, data[at : at + length]
        at += length

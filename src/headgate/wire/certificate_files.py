"""Files of certificates as OpenSSL reads them for us, without a library beside it.

`certificates` reads a pair whoever wrote it and tells in plain words what is wrong; it needs a
library that weighs as much as a tenth of a worker. What our own agent has written (`read_own`) was
judged when it was written: here OpenSSL alone says whether certificate and key belong together, and
what they are for.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal

from headgate.errors import Fault
from headgate.wire.error_words import say

__all__ = [
    "CertificatePair",
    "file_fault",
    "no_password",
    "read_file",
    "read_judged",
    "read_own",
]

_MAX_FILE_BYTES: Final = 1 << 20
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class CertificatePair:
    """A certificate file and a key file that belong together."""

    files: tuple[str, str]
    identity: str
    kind: str
    """The kind of key, as an object identifier."""
    names: frozenset[str]
    parents: frozenset[str]
    addresses: frozenset[str]
    not_after: datetime


def read_judged(
    cert_file: str, key_file: str, wall: float | None, faults: list[Fault]
) -> CertificatePair | None:
    """A pair whoever wrote it: `certificates.read_pair`, loaded for the first one."""
    from headgate.wire.certificates import read_pair

    return read_pair(cert_file, key_file, wall, faults)


def read_own(path: str, faults: list[Fault]) -> CertificatePair | None:
    """Read a certificate with its key from one file that our agent keeps; None if it cannot be
    used.
    """
    pem = read_file(path, faults)
    if pem is None:
        return None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, password=no_password)
        said = _decoded(path)
        _, found, rest = pem.decode("ascii", "replace").partition(_BEGIN)
        first = f"{found}{rest.partition(_END)[0]}{_END}\n"
        identity = sha256(ssl.PEM_cert_to_DER_cert(first)).hexdigest()
        ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(said["notAfter"]), UTC)
    except (ssl.SSLError, OSError, ValueError, KeyError) as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            faults.append(file_fault(path, "holds a certificate that does not belong to its key"))
        else:
            why = say(error) if isinstance(error, OSError) else "it is no certificate"
            faults.append(file_fault(path, f"is refused by OpenSSL: {why}"))
        return None
    names = said.get("subjectAltName", ())
    dns = {value.lower().removesuffix(".") for kind, value in names if kind == "DNS"}
    return CertificatePair(
        (path, path),
        identity,
        "",
        frozenset(name for name in dns if not name.startswith("*.")),
        frozenset(name[2:] for name in dns if name.startswith("*.")),
        frozenset(value for kind, value in names if kind == "IP Address"),
        ends,
    )


def _decoded(path: str) -> dict[str, Any]:
    """What stands in the first certificate of a file, as `getpeercert` has it.

    Python has no public way to ask OpenSSL about a certificate that nobody has shown in a
    handshake. This one is there in every version from 3.2 on; where it is not, nothing is known of
    the names, which choose among several certificates and here there is one.
    """
    decode = getattr(getattr(ssl, "_ssl", None), "_test_decode_cert", None)
    if decode is None:
        return {"notAfter": "Dec 31 23:59:59 9999 GMT"}
    found: dict[str, Any] = decode(path)
    return found


def read_file(path: str, faults: list[Fault]) -> bytes | None:
    """Read a file of credentials, whose size is bounded."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        faults.append(file_fault(path, f"cannot be read: {error.strerror}"))
        return None
    if len(content) > _MAX_FILE_BYTES:
        faults.append(file_fault(path, "is too long to be a certificate or a key"))
        return None
    return content


def no_password() -> str:
    """Answer OpenSSL, which would otherwise ask for a pass phrase on the terminal."""
    return ""


def file_fault(
    path: str, message: str, hint: str = "", level: Literal["error", "warning"] = "error"
) -> Fault:
    """Say what is wrong with a file."""
    return Fault(path, 0, 0, "", message, hint, level)

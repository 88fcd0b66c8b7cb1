"""The first words of TLS, written and read by hand.

The OpenSSL of this machine does not speak what a check must try: SSL 3.0, export ciphers, ciphers
without encryption. It takes no cryptography to find out whether a server would: one message to it,
one back. `client_hello` makes the one, `read_answer` reads the other. Pure; what is read is a
stranger's bytes, and anything that is not well-formed is `None`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = [
    "CIPHERS",
    "CIPHERS_TLS13",
    "PROTOCOLS",
    "Alerted",
    "Answered",
    "client_hello",
    "needed_bytes",
    "read_answer",
    "weakness",
]

PROTOCOLS: Final = {
    "SSL 3.0": 0x0300,
    "TLS 1.0": 0x0301,
    "TLS 1.1": 0x0302,
    "TLS 1.2": 0x0303,
    "TLS 1.3": 0x0304,
}

# The IANA registry's names without "TLS_" and "_WITH": what real servers were ever built with.
CIPHERS: Final = {
    0xC02B: "ECDHE_ECDSA_AES_128_GCM_SHA256",
    0xC02F: "ECDHE_RSA_AES_128_GCM_SHA256",
    0xC02C: "ECDHE_ECDSA_AES_256_GCM_SHA384",
    0xC030: "ECDHE_RSA_AES_256_GCM_SHA384",
    0xCCA9: "ECDHE_ECDSA_CHACHA20_POLY1305_SHA256",
    0xCCA8: "ECDHE_RSA_CHACHA20_POLY1305_SHA256",
    0xC0AC: "ECDHE_ECDSA_AES_128_CCM",
    0xC0AD: "ECDHE_ECDSA_AES_256_CCM",
    0x009E: "DHE_RSA_AES_128_GCM_SHA256",
    0x009F: "DHE_RSA_AES_256_GCM_SHA384",
    0xCCAA: "DHE_RSA_CHACHA20_POLY1305_SHA256",
    0xC09E: "DHE_RSA_AES_128_CCM",
    0xC09F: "DHE_RSA_AES_256_CCM",
    0xC023: "ECDHE_ECDSA_AES_128_CBC_SHA256",
    0xC024: "ECDHE_ECDSA_AES_256_CBC_SHA384",
    0xC009: "ECDHE_ECDSA_AES_128_CBC_SHA",
    0xC00A: "ECDHE_ECDSA_AES_256_CBC_SHA",
    0xC027: "ECDHE_RSA_AES_128_CBC_SHA256",
    0xC028: "ECDHE_RSA_AES_256_CBC_SHA384",
    0xC013: "ECDHE_RSA_AES_128_CBC_SHA",
    0xC014: "ECDHE_RSA_AES_256_CBC_SHA",
    0x0067: "DHE_RSA_AES_128_CBC_SHA256",
    0x006B: "DHE_RSA_AES_256_CBC_SHA256",
    0x0033: "DHE_RSA_AES_128_CBC_SHA",
    0x0039: "DHE_RSA_AES_256_CBC_SHA",
    0x009C: "RSA_AES_128_GCM_SHA256",
    0x009D: "RSA_AES_256_GCM_SHA384",
    0xC09C: "RSA_AES_128_CCM",
    0xC09D: "RSA_AES_256_CCM",
    0x003C: "RSA_AES_128_CBC_SHA256",
    0x003D: "RSA_AES_256_CBC_SHA256",
    0x002F: "RSA_AES_128_CBC_SHA",
    0x0035: "RSA_AES_256_CBC_SHA",
    0x0041: "RSA_CAMELLIA_128_CBC_SHA",
    0x0084: "RSA_CAMELLIA_256_CBC_SHA",
    0x0096: "RSA_SEED_CBC_SHA",
    0x0007: "RSA_IDEA_CBC_SHA",
    0xC008: "ECDHE_ECDSA_3DES_EDE_CBC_SHA",
    0xC012: "ECDHE_RSA_3DES_EDE_CBC_SHA",
    0x0016: "DHE_RSA_3DES_EDE_CBC_SHA",
    0x000A: "RSA_3DES_EDE_CBC_SHA",
    0x0015: "DHE_RSA_DES_CBC_SHA",
    0x0009: "RSA_DES_CBC_SHA",
    0xC007: "ECDHE_ECDSA_RC4_128_SHA",
    0xC011: "ECDHE_RSA_RC4_128_SHA",
    0x0005: "RSA_RC4_128_SHA",
    0x0004: "RSA_RC4_128_MD5",
    0x0014: "DHE_RSA_EXPORT_DES40_CBC_SHA",
    0x0008: "RSA_EXPORT_DES40_CBC_SHA",
    0x0006: "RSA_EXPORT_RC2_CBC_40_MD5",
    0x0003: "RSA_EXPORT_RC4_40_MD5",
    0x0017: "DH_anon_EXPORT_RC4_40_MD5",
    0x0019: "DH_anon_EXPORT_DES40_CBC_SHA",
    0x00A6: "DH_anon_AES_128_GCM_SHA256",
    0x00A7: "DH_anon_AES_256_GCM_SHA384",
    0x006C: "DH_anon_AES_128_CBC_SHA256",
    0x006D: "DH_anon_AES_256_CBC_SHA256",
    0x0034: "DH_anon_AES_128_CBC_SHA",
    0x003A: "DH_anon_AES_256_CBC_SHA",
    0x001B: "DH_anon_3DES_EDE_CBC_SHA",
    0x001A: "DH_anon_DES_CBC_SHA",
    0x0018: "DH_anon_RC4_128_MD5",
    0xC018: "ECDH_anon_AES_128_CBC_SHA",
    0xC019: "ECDH_anon_AES_256_CBC_SHA",
    0xC017: "ECDH_anon_3DES_EDE_CBC_SHA",
    0xC016: "ECDH_anon_RC4_128_SHA",
    0xC015: "ECDH_anon_NULL_SHA",
    0xC006: "ECDHE_ECDSA_NULL_SHA",
    0xC010: "ECDHE_RSA_NULL_SHA",
    0x003B: "RSA_NULL_SHA256",
    0x0002: "RSA_NULL_SHA",
    0x0001: "RSA_NULL_MD5",
}
CIPHERS_TLS13: Final = {
    0x1301: "AES_128_GCM_SHA256",
    0x1302: "AES_256_GCM_SHA384",
    0x1303: "CHACHA20_POLY1305_SHA256",
}

_WEAK: Final = (
    ("NULL", "does not encrypt"),
    ("anon", "does not say who the server is"),
    ("EXPORT", "is as weak as the law once wanted"),
    ("RC4", "is broken"),
    ("_DES_", "is broken"),
    ("3DES", "has blocks too short for a long connection"),
    ("IDEA", "has blocks too short for a long connection"),
    ("_MD5", "relies on MD5"),
)
_SCSV: Final = 0x00FF  # RFC 5746 3.3
_GROUPS: Final = (0x001D, 0x0017, 0x0018, 0x0019, 0x0100)
_SIGNATURES: Final = (
    *(0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0603, 0x0806, 0x0601, 0x0807),
    *(0x0203, 0x0201, 0x0202, 0x0101),
)
_RENEGOTIATION: Final = 0xFF01
_RECORD_MAX: Final = (1 << 14) + 2048


@dataclass(frozen=True, slots=True)
class Answered:
    """A server that would go on."""

    version: int
    cipher: int
    compresses: bool
    renegotiates_safely: bool
    """RFC 5746: a renegotiation could not be spliced in by a third."""


@dataclass(frozen=True, slots=True)
class Alerted:
    """A server that would not."""

    code: int


def weakness(cipher: int) -> tuple[str, str]:
    """How bad a cipher is ("bad", "warning" or "ok") and why."""
    if cipher in CIPHERS_TLS13:
        return "ok", ""
    name = CIPHERS.get(cipher, "")
    for part, why in _WEAK:
        if part in name:
            return "bad", why
    if not name.startswith(("ECDHE", "DHE")):
        return "warning", "opens what was recorded to whoever gets the key later"
    if "_CBC_" in name:
        return "warning", "has a history of padding attacks"
    return "ok", ""


def client_hello(version: int, ciphers: Sequence[int], name: str | None, random: bytes) -> bytes:
    """A record with a ClientHello for this version and no newer one. `random` is 64 bytes."""
    is_13 = version >= 0x0304
    extensions = b""
    if version >= 0x0301:
        if name is not None:
            host = name.encode("ascii")
            extensions += _extension(0, _sized(2, b"\0" + _sized(2, host)))
        extensions += _extension(10, _sized(2, _shorts(_GROUPS)))
        extensions += _extension(11, b"\x01\x00")
        if version >= 0x0303:
            extensions += _extension(13, _sized(2, _shorts(_SIGNATURES)))
    if is_13:
        extensions += _extension(43, _sized(1, version.to_bytes(2)))
        # Any 32 bytes are a public key of X25519.
        share = (0x001D).to_bytes(2) + _sized(2, random[32:64])
        extensions += _extension(51, _sized(2, share))
    offered = list(ciphers) if is_13 else [*ciphers, _SCSV]
    compressions = b"\x00" if is_13 else b"\x01\x00"
    body = (
        min(version, 0x0303).to_bytes(2)
        + random[:32]
        + _sized(1, random[:32] if is_13 else b"")
        + _sized(2, _shorts(offered))
        + _sized(1, compressions)
        + (_sized(2, extensions) if extensions else b"")
    )
    handshake = b"\x01" + _sized(3, body)
    return b"\x16" + min(version, 0x0301).to_bytes(2) + _sized(2, handshake)


def needed_bytes(data: bytes) -> int:
    """How many bytes an answer has that begins so; 0 when it is no record of TLS."""
    if len(data) < 5:
        return 5
    length = int.from_bytes(data[3:5])
    if data[0] not in (0x15, 0x16) or data[1] != 3 or not 0 < length <= _RECORD_MAX:
        return 0
    return 5 + length


def read_answer(record: bytes) -> Answered | Alerted | None:
    """What a server said to a ClientHello: its first record, whole."""
    if len(record) < 7 or needed_bytes(record) != len(record):
        return None
    if record[0] == 0x15:
        return Alerted(record[6])
    message = record[5:]
    if message[0] != 2 or len(message) < 42:
        return None
    length = int.from_bytes(message[1:4])
    body = message[4 : 4 + length]
    if len(body) != length or length < 38:
        return None
    version = int.from_bytes(body[:2])
    at = 35 + body[34]
    if len(body) < at + 3:
        return None
    cipher = int.from_bytes(body[at : at + 2])
    compresses = body[at + 2] != 0
    extensions = _extensions(body[at + 3 :])
    if extensions is None:
        return None
    chosen = extensions.get(43)
    if chosen is not None and len(chosen) == 2:
        version = int.from_bytes(chosen)
    return Answered(version, cipher, compresses, _RENEGOTIATION in extensions)


def _extensions(data: bytes) -> dict[int, bytes] | None:
    found: dict[int, bytes] = {}
    if not data:
        return found
    rest = data[2 : 2 + int.from_bytes(data[:2])]
    while rest:
        length = int.from_bytes(rest[2:4])
        if len(rest) < 4 + length:
            return None
        found[int.from_bytes(rest[:2])] = rest[4 : 4 + length]
        rest = rest[4 + length :]
    return found


def _sized(length_bytes: int, data: bytes) -> bytes:
    return len(data).to_bytes(length_bytes) + data


def _shorts(values: Sequence[int]) -> bytes:
    return b"".join(value.to_bytes(2) for value in values)


def _extension(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2) + _sized(2, content)

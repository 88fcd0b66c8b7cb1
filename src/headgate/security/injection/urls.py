"""Whether a value is a URL that makes a service talk to itself or to its hosts.

Only a value that is a URL as a whole counts: text and logs are full of addresses. The host is
read as lax programs read it: `2130706433`, `0x7f.1` and `0177.0.0.1` are all 127.0.0.1.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from headgate.security.injection.findings import Hit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_URL: Final = re.compile(
    r"[\s\"'<(]*(?:url[:=])?([a-z][a-z0-9+.\-]{1,15}):([/\\]{0,4})([^\s/\\?#\"'<>]{0,300})([^\s]{0,2000})\s*",
    re.IGNORECASE,
).fullmatch
_RELATIVE: Final = re.compile(r"\s*[/\\]{2}([^\s/\\?#\"'<>]{1,300})([^\s]{0,2000})\s*").fullmatch
_SCHEMES: Final = {
    "gopher": 7, "dict": 7, "file": 6, "netdoc": 7, "jar": 6, "ldap": 6, "ldaps": 6, "tftp": 6,
    "sftp": 4, "expect": 6, "rmi": 6, "imap": 4, "local_file": 7,
}  # fmt: skip
_METADATA: Final = frozenset(
    {
        "metadata.google.internal",
        "metadata",
        "instance-data",
        "metadata.azure.internal",
        "metadata.tencentyun.com",
    }
)
_REBINDING: Final = re.compile(
    r"(?:^|[.\-])((?:\d{1,3}[.\-]){3}\d{1,3}|[0-9a-f]{8})\.(?:nip\.io|xip\.io|sslip\.io|1u\.ms|lvh\.me|traefik\.me|rbndr\.us)$|"
    r"(?:^|\.)(?:lvh\.me|localtest\.me|vcap\.me|lacolhost\.com|rbndr\.us|burpcollaborator\.net|localho\.st|fbi\.com\.local|spoofed\.burpcollaborator\.net|yoogle\.com\.local)$"
).search
_INSIDE: Final = frozenset(
    {"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback", "127.0.0.1", "::1"}
)
_PART: Final = re.compile(r"0x[0-9a-f]{0,16}|0[0-7]*|[1-9]\d{0,11}", re.IGNORECASE).fullmatch
_SERVICES_WORDS: Final = (
    "21 22 23 25 53 110 111 135 139 143 389 445 873 1433 1521 2049 2375 2376 2379 3306 3389 "
    "5432 5984 6379 7001 8500 9000 9200 10250 11211 27017 50070"
)
_SERVICES: Final = frozenset(_SERVICES_WORDS.split())
_SENSITIVE: Final = re.compile(
    r"/(?:admin|server-status|server-info|metrics|actuator|manager|console|latest/|v1/|config|internal|private|secret)",
    re.IGNORECASE,
).match


def lax_address(host: str) -> Address | None:
    """The address that a host stands for in the forms inet_aton takes, and in IPv6."""
    host = host.strip("[]").partition("%")[0].rstrip(".")
    if not host:
        return None
    if ":" in host:
        try:
            six = ipaddress.IPv6Address(host)
        except ValueError:
            return None
        return six.ipv4_mapped or six.sixtofour or _embedded(six) or six
    parts = host.split(".")
    if len(parts) > 4 or not all(_PART(part) for part in parts):
        return None
    numbers = [_number(part) for part in parts]
    last = numbers.pop()
    if any(number > 255 for number in numbers) or last >= 256 ** (4 - len(numbers)):
        return None
    value = last
    for place, number in enumerate(numbers):
        value |= number << (24 - 8 * place)
    return ipaddress.IPv4Address(value)


def _number(part: str) -> int:
    if part[:2].lower() == "0x":
        return int(part[2:] or "0", 16)
    return int(part, 8) if part[0] == "0" and len(part) > 1 else int(part)


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address within NAT64 (RFC 6052) and compatible addresses."""
    packed = address.packed
    if packed[:12] == b"\x00\x64\xff\x9b" + bytes(8) or (packed[:12] == bytes(12) and packed[12]):
        return ipaddress.IPv4Address(packed[12:])
    return None


def _host(authority: str) -> tuple[str, str]:
    authority = authority.rpartition("@")[2]
    if authority.startswith("["):
        host, _, port = authority[1:].partition("]")
        return host.lower(), port.lstrip(":")
    host, _, port = authority.partition(":")
    return host.lower().rstrip("."), port


def find_url(text: str) -> Hit | None:
    """Judge a value that is a URL."""
    if len(text) > 2048:
        return None
    found = _URL(text)
    if found is None:
        relative = _RELATIVE(text)
        if relative is None:
            return None
        scheme, authority, rest = "", relative[1], relative[2]
    else:
        scheme, authority, rest = found[1].lower(), found[3], found[4]
        if not found[2] and scheme not in {"jar", "netdoc", "http", "https"}:
            return None
    known = _SCHEMES.get(scheme, 0)
    if scheme == "url":
        return None
    host, port = _host(authority)
    address = lax_address(host)
    score, why = known, scheme
    if scheme == "file" and not rest.strip("/\\"):
        score = 3
    if host in _METADATA:
        score, why = 8, "metadata"
    elif address is not None:
        judged = _of_address(address, host, port, rest)
        if judged > score:
            score, why = judged, "address"
    elif host in _INSIDE:
        is_odd = port in _SERVICES or (not port and _SENSITIVE(rest)) or "@" in authority
        judged = 5 if is_odd else 4
        if judged > score:
            score, why = judged, "loopback"
    elif _REBINDING(host):
        inner = _REBINDING(host)
        name = inner[1].replace("-", ".") if inner is not None and inner[1] else ""
        inside = lax_address(name if "." in name else "0x" + name) if name else None
        is_inside = inside is None or not inside.is_global
        if is_inside and score < 6:
            score, why = 6, "rebinding name"
    return Hit("ssrf", score, why) if score else None


def _of_address(address: Address, host: str, port: str, rest: str) -> int:
    plain = str(address) == host
    if str(address) in {
        "169.254.169.254",
        "fd00:ec2::254",
        "100.100.100.200",
        "192.0.0.192",
        "169.254.170.2",
    }:
        return 8
    if address.is_loopback or address.is_unspecified:
        if not plain or address.version == 6:
            return 6
        # Developers have their own machine in every second URL; on an odd port it is theirs.
        is_own = port.isdigit() and len(port) >= 4 and port not in _SERVICES
        return 4 if is_own else 5
    if address.is_link_local:
        return 6
    if address.is_private:
        return 4 if plain else 6
    return 0 if plain else 3

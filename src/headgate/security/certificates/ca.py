"""The authority of one's own, for people: certificates on request, and how systems trust it.

The authority itself is `wire/local_ca.py`. Here are the names it may be asked for, and the one
command by which each kind of system takes it up. Commands are printed, never run: whoever trusts
an authority should be the one to say so.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from headgate.wire import local_ca

__all__ = [
    "SYSTEMS",
    "Issued",
    "file_stem",
    "issue",
    "local_name_fault",
    "system_of",
    "trust_command",
]

SYSTEMS: Final = ("debian", "fedora", "macos", "windows", "nss", "firefox")
LONGEST: Final = timedelta(days=398)
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_FAMILIES: Final = {
    "debian": "debian",
    "ubuntu": "debian",
    "fedora": "fedora",
    "rhel": "fedora",
    "centos": "fedora",
}


@dataclass(frozen=True, slots=True)
class Issued:
    certificate: bytes
    key: bytes
    ca_path: Path

    def __repr__(self) -> str:
        return "<Issued>"


def local_name_fault(name: str) -> str:
    """Why a certificate cannot be for this; empty when it can. A wildcard is one label in front."""
    try:
        ip_address(name)
    except ValueError:
        pass
    else:
        return ""
    host = name.lower().removesuffix(".").removeprefix("*.")
    labels = host.split(".")
    if not host.isascii():
        return "is not ASCII; write it as DNS has it (xn--...)"
    if "*" in host:
        return "has a wildcard in the middle; it may only stand for the first label"
    if len(host) > 250 or not all(_LABEL.fullmatch(label) for label in labels):
        return "is neither a host name nor an address"
    if name.startswith("*.") and len(labels) < 2:
        return "is a wildcard for a whole top-level domain, which clients do not accept"
    return ""


def issue(state_dir: Path, names: Iterable[str], wall: float, life: timedelta) -> Issued:
    """Names are checked ones. OSError if the authority cannot be had."""
    certificate, key, ca_path = local_ca.issue(state_dir, names, wall, life)
    return Issued(certificate, key, ca_path)


def file_stem(name: str) -> str:
    """What a certificate for this name is called as a file."""
    return name.lower().removesuffix(".").replace("*", "_wildcard").replace(":", "_")


def system_of(platform: str, os_release: str) -> str | None:
    """Which of SYSTEMS this is, by `sys.platform` and the text of /etc/os-release."""
    if platform == "darwin":
        return "macos"
    if platform == "win32":
        return "windows"
    said: dict[str, str] = {}
    for line in os_release.splitlines():
        key, _, value = line.partition("=")
        said[key.strip()] = value.strip().strip("\"'")
    for name in (said.get("ID", ""), *said.get("ID_LIKE", "").split()):
        if name in _FAMILIES:
            return _FAMILIES[name]
    return None


def trust_command(system: str, ca_path: Path, ca: x509.Certificate) -> str:
    """The one line to type. `system` is one of SYSTEMS."""
    path = shlex.quote(str(ca_path))
    tag = ca.fingerprint(hashes.SHA256()).hex()[:8]
    title = shlex.quote(_title(ca))
    match system:
        case "debian":
            there = f"/usr/local/share/ca-certificates/headgate-{tag}.crt"
            return f"sudo install -D -m 644 {path} {there} && sudo update-ca-certificates"
        case "fedora":
            there = f"/etc/pki/ca-trust/source/anchors/headgate-{tag}.pem"
            return f"sudo install -D -m 644 {path} {there} && sudo update-ca-trust"
        case "macos":
            chain = "/Library/Keychains/System.keychain"
            return f"sudo security add-trusted-cert -d -r trustRoot -k {chain} {path}"
        case "windows":
            return f'certutil -addstore -f ROOT "{ca_path}"'
        case "nss":
            return f"certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n {title} -i {path}"
        case "firefox":
            add = f'certutil -d "sql:$p" -A -t C,, -n {title} -i {path}'
            return f"for p in ~/.mozilla/firefox/*.default*; do {add}; done"
        case _:
            raise ValueError(f"no system is called {system}")


def _title(ca: x509.Certificate) -> str:
    named = ca.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(named[0].value) if named else "Headgate local authority"

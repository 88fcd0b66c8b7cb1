"""The admin listener's own certificate, and those that its clients show.

Theory of operation
-------------------
The TLS context stands in the server once; what it serves is replaced behind it, so that a renewed
file or another authority needs no new listener (see `wire.tls.CertificateStore`). TLS has verified
the chain by the time we look; which role a certificate gives is decided for each request, by the
file as it is then, and its end is looked at each time too: a connection may outlive it.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from headgate.config import ConfigInvalid
from headgate.config.admin import AdminClientSpec, AdminSpec
from headgate.control.admin.roles import Role
from headgate.control.admin.tokens import Caller
from headgate.errors import HeadgateError
from headgate.security.certificate_auth import CertificateFacts, read_certificate, time_fault
from headgate.wire import local_ca
from headgate.wire.tls import (
    HTTP1,
    CertificateStore,
    TlsProfile,
    client_authorities,
    load_certificates,
)

__all__ = ["AdminTls", "caller_of", "facts_of", "named_files", "serving"]


def serving(admin: AdminSpec, state_dir: Path, base: Path, wall: float) -> tuple[Any, TlsProfile]:
    """The certificates of the admin listener and their profile. Raises ConfigInvalid."""
    tls = admin.tls
    if tls is None:
        raise HeadgateError("the admin listener has no TLS")
    authorities = None
    if tls.client_ca_file is not None:
        authorities = client_authorities(str(base / tls.client_ca_file))
    profile = TlsProfile(
        HTTP1,
        tls.min_version,
        client_ca=authorities,
        is_client_certificate_needed=tls.client_certificate == "require",
    )
    if tls.cert_file is not None:
        files = [(str(base / tls.cert_file), str(base / (tls.key_file or tls.cert_file)))]
    else:
        made = local_ca.ensure(state_dir, _own_names(admin.bind), wall)
        files = [(str(made.path), str(made.path))]
    certificates, faults = load_certificates(files, profile, wall)
    errors = tuple(fault for fault in faults if fault.level == "error")
    if errors:
        raise ConfigInvalid(errors)
    return certificates, profile


def _own_names(bind: str) -> set[str]:
    host = bind.rpartition(":")[0].strip("[]")
    if bind.startswith("unix:") or not host:
        return set()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return {host.lower()}
    return set() if address.is_unspecified else {host}


def named_files(admin: AdminSpec) -> list[str]:
    tls = admin.tls
    if tls is None:
        return []
    return [one for one in (tls.cert_file, tls.key_file, tls.client_ca_file) if one is not None]


class AdminTls:
    """What an admin server is started with, and what reloads renew."""

    def __init__(self, admin: AdminSpec, state_dir: Path, base: Path, wall: float) -> None:
        certificates, profile = serving(admin, state_dir, base, wall)
        self._store = CertificateStore(certificates, profile)

    @property
    def context(self) -> ssl.SSLContext:
        return self._store.context

    def take(self, admin: AdminSpec, state_dir: Path, base: Path, wall: float) -> None:
        self._store.replace(*serving(admin, state_dir, base, wall))


def facts_of(connection: Any) -> CertificateFacts | None:
    """What stands in the certificate that the client of a TLS connection showed."""
    try:
        der = connection.getpeercert(binary_form=True)
        return read_certificate(der) if der else None
    except (ValueError, AttributeError, ssl.SSLError):
        return None


def caller_of(
    facts: CertificateFacts, clients: Iterable[AdminClientSpec], wall: float
) -> Caller | None:
    """Who shows this certificate, by the first entry that fits."""
    if time_fault(facts, wall) is not None:
        return None
    for client in clients:
        if _fits(client, facts):
            names = facts.names
            shown = client.name or next(
                (names[key][0] for key in ("cn", "dns", "uri", "email", "dn") if names.get(key)),
                facts.fingerprint[:16],
            )
            return Caller(
                f"certificate/{shown}",
                Role(client.role),
                "certificate",
                services=client.services,
            )
    return None


def _fits(client: AdminClientSpec, facts: CertificateFacts) -> bool:
    if client.subject is not None:
        return _any(client.subject, facts, ("cn", "dn"), is_caseless=False)
    return _any(client.san or "", facts, ("dns", "email"), is_caseless=True) or _any(
        client.san or "", facts, ("uri",), is_caseless=False
    )


def _any(
    pattern: str, facts: CertificateFacts, keys: tuple[str, ...], *, is_caseless: bool
) -> bool:
    flags = re.IGNORECASE if is_caseless else re.NOFLAG
    # Only `*` is special: `[` and `?` stand in URIs as they are.
    found = re.compile(".*".join(re.escape(part) for part in pattern.split("*")), flags | re.DOTALL)
    return any(found.fullmatch(value) for key in keys for value in facts.names.get(key, ()))

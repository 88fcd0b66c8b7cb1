"""Who a service is: `spiffe://<trust domain>/service/<name>`, and the name that TLS checks.

Theory of operation
-------------------
A certificate says the same twice: as a SPIFFE id among the URIs, for whoever judges a peer, and as
the host name `<name>.<trust domain>`, which OpenSSL itself compares in the handshake. The two must
stand for each other, so the rules here are narrower than SPIFFE's: a trust domain is a DNS name and
a service name is DNS labels, in lower case, since DNS would take `Users` and `users` for one. There
is one spelling of each id: no percent encoding, no empty or dotted segments, no port, no query.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["NotAnIdentity", "SpiffeId", "service_fault", "trust_domain_fault"]

_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SERVICE_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_SCHEME: Final = "spiffe://"
_PATH: Final = "service"
_LONGEST_DOMAIN: Final = 150
_LONGEST_SERVICE: Final = 100
_LONGEST_ID: Final = 512


class NotAnIdentity(ValueError):
    """This is no identity of a service; the text says why and quotes nothing that is long."""


def trust_domain_fault(text: str) -> str:
    """Why this is no trust domain; empty when it is one."""
    if len(text) > _LONGEST_DOMAIN:
        return f"is longer than {_LONGEST_DOMAIN} characters"
    labels = text.split(".")
    if not all(_LABEL.fullmatch(label) for label in labels):
        return "is no trust domain; write a DNS name in lower case, such as mesh.internal"
    if labels[-1].isdigit():
        return "looks like an address; write a DNS name, such as mesh.internal"
    return ""


def service_fault(name: str) -> str:
    """Why a service of this name can have no identity; empty when it can."""
    if len(name) > _LONGEST_SERVICE:
        return f"is longer than {_LONGEST_SERVICE} characters"
    if all(_SERVICE_LABEL.fullmatch(label) for label in name.split(".")):
        return ""
    if name != name.lower() and all(_SERVICE_LABEL.fullmatch(x) for x in name.lower().split(".")):
        return "has capital letters, which DNS does not tell apart; write it in lower case"
    return "is no name of a service: lower-case letters, digits, - and _, in parts between dots"


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """Made by `of` or `parse`, which check."""

    trust_domain: str
    service: str

    def __str__(self) -> str:
        return f"{_SCHEME}{self.trust_domain}/{_PATH}/{self.service}"

    @property
    def host_name(self) -> str:
        """What a client asks for in the handshake (SNI) and the certificate must have."""
        return f"{self.service}.{self.trust_domain}"

    @classmethod
    def of(cls, trust_domain: str, service: str) -> SpiffeId:
        """Raises NotAnIdentity."""
        if fault := trust_domain_fault(trust_domain):
            raise NotAnIdentity(f"{trust_domain[:80]!a} {fault}")
        if fault := service_fault(service):
            raise NotAnIdentity(f"{service[:80]!a} {fault}")
        return cls(trust_domain, service)

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """Raises NotAnIdentity for anything that `str` of an id would not have written."""
        if len(text) > _LONGEST_ID or not text.startswith(_SCHEME):
            raise NotAnIdentity("an identity reads spiffe://<trust domain>/service/<name>")
        parts = text[len(_SCHEME) :].split("/")
        if len(parts) != 3 or parts[1] != _PATH:
            raise NotAnIdentity("an identity reads spiffe://<trust domain>/service/<name>")
        return cls.of(parts[0], parts[2])

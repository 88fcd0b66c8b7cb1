"""Who calls, by the certificate that TLS has verified. What was read is kept by its bytes, bounded.

Validity is looked at with each request, because a connection may live longer than the certificate
it began with.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from headgate.security.certificate_names import CertificateNames, read_names
from headgate.security.service_identity.spiffe import NotAnIdentity, SpiffeId

__all__ = ["Caller", "Callers"]

_KEPT: Final = 4096


@dataclass(frozen=True, slots=True)
class Caller:
    source: str | None
    """A service of our own trust domain by its name, another's by its whole id; None: not known."""
    fault: str = ""
    """Why it is not known: the certificate's fault. Empty where none was shown."""


_NOBODY: Final = Caller(None)
_ODD: Final = Caller(None, "the certificate shown has no identity of a service")
_EXPIRED: Final = Caller(None, "the certificate shown has expired")
_EARLY: Final = Caller(None, "the certificate shown is not valid yet")


class Callers:
    def __init__(self, trust_domain: str, kept: int = _KEPT) -> None:
        self.trust_domain = trust_domain
        self._most = kept
        self._kept: OrderedDict[bytes, tuple[CertificateNames | None, Caller]] = OrderedDict()

    def of(self, der: bytes | None, wall: float) -> Caller:
        """Who shows this certificate now."""
        if der is None:
            return _NOBODY
        known = self._kept.get(der)
        if known is None:
            known = self._kept[der] = self._read(der)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        names, caller = known
        if names is None:
            return caller
        if wall > names.not_after:
            return _EXPIRED
        if wall < names.not_before:
            return _EARLY
        return caller

    def _read(self, der: bytes) -> tuple[CertificateNames | None, Caller]:
        try:
            names = read_names(der)
            (uri,) = names.uris  # SPIFFE X.509-SVID 2: exactly one URI
            found = SpiffeId.parse(uri)
        except (NotAnIdentity, ValueError):
            return None, _ODD
        is_ours = found.trust_domain == self.trust_domain
        return names, Caller(found.service if is_ours else str(found))

"""Client certificates as a method of authentication.

A request over a connection without one is for another method. Verdicts are never kept with a head
(the same head may come over another connection); what was read from a certificate is kept by its
bytes, bounded, and costs a look-up afterwards.

`Client-Cert` (RFC 9440), by which a proxy that ends TLS tells of the certificate it saw, is not
read: nothing here says whether the peer is a proxy to be trusted, and from anybody else the field
is a forgery. It is taken out of what services get, so that none of them believes it either.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from headgate.security.certificate_auth import (
    BadCertificate,
    CertificateFacts,
    CertificateRules,
    Judge,
    read_certificate,
    time_fault,
)
from headgate.security.identity import Identity
from headgate.security.method import Finding, Method, Parts, Refused, Shown, Strips, Verified
from headgate.security.revocation_list import Revocations, read_revocations
from headgate.security.watched_file import WatchedFile

_SKEW_S: Final = 300.0
"""How far the clock of whoever signs revocation lists may be ahead."""
_Known = tuple[CertificateFacts, Identity | Refused]


class CertificateMethod(Method):
    """One way of reading client certificates."""

    is_of_head = False
    strips = Strips(headers=frozenset({b"client-cert", b"client-cert-chain"}))

    def __init__(self, rules: CertificateRules, crl_file: str = "", crl_ca_file: str = "") -> None:
        """Read the revocation lists; ValueError says what is wrong with them."""
        self.name = rules.name
        self._rules = rules
        self._judge = Judge(rules)
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._file: WatchedFile[Revocations] | None = None
        self._revocations: Revocations | None = None
        if crl_file:
            # The authorities are read with each list: they may have changed with it.
            authorities = WatchedFile(crl_ca_file, bytes, max_bytes=1 << 20)
            self._file = WatchedFile(
                crl_file, lambda content: read_revocations(content, authorities.load())
            )
            self._revocations = self._file.load()

    def verify(self, shown: Shown, wall: float) -> Finding:
        der = shown.certificate
        if der is None:
            return None
        known = self._known.get(der)
        if known is not None:
            self._known.move_to_end(der)
        else:
            read = self._read(der)
            if isinstance(read, Refused):
                return read
            known = read
        facts, verdict = known
        late = time_fault(facts, wall)
        if late is not None:
            return Refused(late.error, late.reason)
        if isinstance(verdict, Refused):
            return verdict
        refused = self._revoked(facts, wall)
        if refused is not None:
            return refused
        return Verified(verdict, 0.0)

    def start(self, parts: Parts) -> None:
        if self._file is not None:
            self._file.start(parts, self._take)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._known.clear()

    def snapshot(self, wall: float) -> dict[str, Any]:
        lists = self._revocations.lists.values() if self._revocations is not None else ()
        return {
            "certificates": len(self._known),
            "revocation_lists": [
                {
                    "issuer": each.issuer,
                    "revoked": len(each.revoked),
                    "next_update": each.next_update,
                    "is_stale": wall >= each.next_update,
                }
                for each in lists
            ],
            "file": self._file.snapshot() if self._file is not None else None,
        }

    def _read(self, der: bytes) -> _Known | Refused:
        try:
            facts = read_certificate(der)
        except ValueError:
            return Refused("malformed", "This client certificate cannot be read.")
        judged = self._judge.judge(facts)
        verdict: Identity | Refused
        if isinstance(judged, BadCertificate):
            verdict = Refused(judged.error, judged.reason)
        else:
            verdict = judged
        known = (facts, verdict)
        self._known[der] = known
        while len(self._known) > self._rules.cached_max:
            self._known.popitem(last=False)
        return known

    def _revoked(self, facts: CertificateFacts, wall: float) -> Refused | None:
        if self._revocations is None:
            return None
        standing = self._revocations.standing(facts.issuer_der, facts.serial, wall, _SKEW_S)
        if standing == "revoked":
            return Refused("revoked", "This client certificate has been revoked.")
        if standing == "stale" and self._rules.when_stale == "refuse":
            return Refused(
                "revocation_stale",
                "Whether this client certificate was revoked is not known at present.",
                status=503,
            )
        if standing == "unlisted" and self._rules.when_unlisted == "refuse":
            return Refused(
                "revocation_unknown",
                "Whether this client certificate was revoked is not known.",
            )
        return None

    def _take(self, revocations: Revocations) -> None:
        self._revocations = revocations
        self.generation += 1

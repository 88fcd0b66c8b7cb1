"""The authority: makes roots and intermediates when they are due, and signs for services.

Theory of operation
-------------------
`turn` is all that changes the ring of roots and intermediates, and the disk has the new one before
anything is signed by it. Failure of a turn (a full disk, Vault away) is raised and changes nothing:
what was there signs on until it ends, and the next turn tries again.

`sign` and `check` read the ring and never wait. For whom a certificate is, its caller has proved:
by a token (`joining`) or by a certificate of ours (`check`). A certificate that is shown must be of
an intermediate that we know, not have ended by our clock, and be of our trust domain; that its
holder has the key, `proof` shows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Protocol

from cryptography import x509

from headgate.mesh.identity.bundle import (
    Issuer,
    Need,
    Ring,
    Root,
    needs,
    ready_root,
    settled,
    signer,
)
from headgate.mesh.identity.certificates import (
    PrivateKey,
    Request,
    Shown,
    fingerprint,
    is_issued_by,
    issuer_request,
    make_issuer,
    make_leaf,
    make_root,
    new_key,
    read_key,
)
from headgate.mesh.identity.keeping import RingFile
from headgate.mesh.identity.refusals import IdentityRefused
from headgate.mesh.identity.vault_root import SignedElsewhere
from headgate.security.service_identity.rules import IdentityRules, RootInVault
from headgate.security.service_identity.spiffe import NotAnIdentity, SpiffeId

__all__ = ["Authority", "Issued", "SignsElsewhere"]

SKEW_S: Final = 60.0


class SignsElsewhere(Protocol):
    """A root whose key is not here: `VaultRoot`."""

    def root(self) -> str: ...
    def sign(self, request_pem: str, trust_domain: str, life_s: float) -> SignedElsewhere: ...


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that was made, and what its holder has to know."""

    id: SpiffeId
    chain: str
    """The certificate and what lies between it and the root, PEM."""
    bundle: str
    serial: str
    joining: str
    begins: float
    ends: float


class Authority:
    def __init__(
        self, rules: IdentityRules, home: RingFile, elsewhere: SignsElsewhere | None = None
    ) -> None:
        """`elsewhere` signs intermediates if the rules say that the root is in Vault."""
        self.rules = rules
        self._home = home
        self._elsewhere = elsewhere
        self.ring = Ring()
        self._is_open = False
        self._ready: tuple[str, x509.Certificate, PrivateKey] | None = None

    @property
    def is_ready(self) -> bool:
        return bool(self.ring.issuers)

    # -- turning ------------------------------------------------------------------------------

    def turn(self, wall: float) -> bool:
        """Make what is due and drop what is over; whether anything changed. Blocks.

        Raises IdentityRefused when that cannot be done; what was there is used on.
        """
        if not self._is_open:
            self.ring = self._home.load()
            self._is_open = True
        before = self.ring
        ring = self._longer(settled(before, wall))
        # A root, then an intermediate below it; more is never due at once.
        for _ in range(2):
            need = needs(ring, wall, self.rules)
            if not need:
                break
            made = self._made(ring, need, wall)
            if made is None:
                break
            ring = made
        if ring == before:
            return False
        self._home.save(ring)
        self.ring = ring
        return True

    def order_root(self) -> None:
        """Make a new root at the next turn."""
        self.ring = replace(self.ring, wants_root=True)

    def _longer(self, ring: Ring) -> Ring:
        return replace(ring, longest_s=max(ring.longest_s, self.rules.ttl_s + SKEW_S))

    def _made(self, ring: Ring, need: Need, wall: float) -> Ring | None:
        """The ring with what it needs; None if that has to wait."""
        if self._elsewhere is not None and isinstance(self.rules.root, RootInVault):
            return self._made_elsewhere(self._elsewhere, ring, need, wall)
        rules = self.rules
        if need == "root":
            made = make_root(rules.trust_domain, wall, rules.root_life_s, rules.backdate_s)
            return ring.with_root(
                Root(fingerprint(made.pem), made.pem, made.key_pem, wall, made.ends)
            )
        root = ready_root(ring, wall, rules.announce_s)
        if root is None:
            return None
        if not root.key_pem:
            raise IdentityRefused(
                "unavailable",
                "the present root is in Vault; order a new root, or say root.vault again",
            )
        made = make_issuer(
            root.pem, root.key_pem, rules.trust_domain, wall, rules.issuer_life_s, rules.backdate_s
        )
        return ring.with_issuer(
            Issuer(
                fingerprint(made.pem),
                made.pem,
                made.key_pem,
                root.id,
                wall,
                made.ends,
                made.ends - wall,
            )
        )

    def _made_elsewhere(
        self, elsewhere: SignsElsewhere, ring: Ring, need: Need, wall: float
    ) -> Ring | None:
        pem = elsewhere.root()
        found = fingerprint(pem)
        if found not in {root.id for root in ring.roots}:
            # Known from now on, and signed below when it has been known for long enough.
            ends = x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc.timestamp()
            return ring.with_root(Root(found, pem, "", wall, ends))
        if need == "root":
            return replace(ring, wants_root=False) if ring.wants_root else None
        ready = ready_root(ring, wall, self.rules.announce_s)
        if ready is None or ready.id != found:
            return None
        key, key_pem = new_key()
        signed = elsewhere.sign(
            issuer_request(key, self.rules.trust_domain),
            self.rules.trust_domain,
            self.rules.issuer_life_s,
        )
        first = x509.load_pem_x509_certificates(signed.chain.encode())[0]
        if first.public_key() != key.public_key() or fingerprint(signed.root) != found:
            raise IdentityRefused("unavailable", "the root in Vault signed something else")
        ends = first.not_valid_after_utc.timestamp()
        return ring.with_issuer(
            Issuer(fingerprint(signed.chain), signed.chain, key_pem, found, wall, ends, ends - wall)
        )

    # -- signing ------------------------------------------------------------------------------

    def sign(self, request: Request, service: str, joining: str, wall: float) -> Issued:
        """A certificate for this service, whose caller has proved to be it."""
        try:
            identity = SpiffeId.of(self.rules.trust_domain, service)
        except NotAnIdentity as error:
            raise IdentityRefused("request", str(error)) from None
        if any(uri != str(identity) for uri in request.uris):
            raise IdentityRefused(
                "request", f"the request is for {request.uris[0][:120]!a}, and this is {identity}"
            )
        issuer = signer(self.ring, wall)
        if issuer is None:
            raise IdentityRefused("unavailable", "there is no authority that could sign", 5.0)
        certificate, key = self._opened(issuer)
        made, serial = make_leaf(
            certificate,
            key,
            request,
            identity,
            joining,
            wall,
            self.rules.ttl_s,
            self.rules.backdate_s,
        )
        return Issued(
            identity,
            made.pem + issuer.pem,
            self.ring.bundle,
            serial,
            joining,
            # Not as it stands in it: half of its life counts from now.
            wall,
            made.ends,
        )

    def check(self, shown: Shown, wall: float) -> None:
        """Whether this certificate is ours and still good. Raises IdentityRefused."""
        if shown.id.trust_domain != self.rules.trust_domain:
            raise IdentityRefused("certificate", f"{shown.id} is of another trust domain")
        # What signed may have ended since; until then it vouches for what it signed.
        if not any(is_issued_by(shown, each.pem) for each in self.ring.issuers):
            raise IdentityRefused(
                "certificate", "this certificate was not issued here; join with a token"
            )
        if wall >= shown.ends:
            raise IdentityRefused(
                "certificate",
                f"this certificate ended {wall - shown.ends:.0f} s ago; join with a token",
            )
        if wall < shown.begins:
            raise IdentityRefused("certificate", "this certificate has not begun yet")

    def _opened(self, issuer: Issuer) -> tuple[x509.Certificate, PrivateKey]:
        ready = self._ready
        if ready is None or ready[0] != issuer.id:
            certificate = x509.load_pem_x509_certificate(issuer.pem.encode())
            ready = self._ready = (issuer.id, certificate, read_key(issuer.key_pem))
        return ready[1], ready[2]

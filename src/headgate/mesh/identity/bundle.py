"""Roots and intermediates over time: what is trusted, what signs, and when that changes. Pure.

Theory of operation
-------------------
    root      made --- announce_s ---> signs ---> (a newer one signs) --- longest life ---> gone
              |<------------------------- in the bundle ----------------------------->|

A root is trusted before anything is signed below it, since services learn the bundle with their
renewals; and it stays trusted until the last certificate below it has ended. The first root has
nobody to wait for. Of several roots that are ready the newest signs, by an intermediate of its own;
that one is replaced when a third of its life is left, and goes on in the chains of what it signed.

`longest_s` is the longest life that any certificate was ever given here: a shorter `ttl` in the
file must not make a root leave too early.

The clock may jump. What is signed is judged by the clock of the moment; a root "from the future" is
announced for longer than needed, which harms nobody; nothing is dropped before it has ended or been
followed, both by the clock of the moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

from headgate.security.service_identity.rules import IdentityRules, RootInFile

__all__ = ["Issuer", "Need", "Ring", "Root", "needs", "settled", "signer"]

Need = Literal["root", "issuer", ""]
_ROOTS: Final = 8


@dataclass(frozen=True, slots=True)
class Root:
    id: str
    """SHA-256 of the certificate."""
    pem: str
    key_pem: str = field(repr=False)
    """Empty where the key is elsewhere."""
    since: float
    """In wall time, as all times here: when it came into the bundle."""
    ends: float


@dataclass(frozen=True, slots=True)
class Issuer:
    """An intermediate."""

    id: str
    pem: str
    key_pem: str = field(repr=False)
    root: str
    since: float
    ends: float
    life_s: float


@dataclass(frozen=True, slots=True)
class Ring:
    """All of it, the oldest first."""

    roots: tuple[Root, ...] = ()
    issuers: tuple[Issuer, ...] = ()
    longest_s: float = 0.0
    wants_root: bool = False
    """Somebody ordered a new one."""

    @property
    def bundle(self) -> str:
        return "".join(root.pem for root in self.roots)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_json(cls, said: Mapping[str, Any]) -> Ring:
        """Raises KeyError, TypeError or ValueError."""
        return cls(
            tuple(Root(**row) for row in said["roots"]),
            tuple(Issuer(**row) for row in said["issuers"]),
            float(said["longest_s"]),
            bool(said["wants_root"]),
        )

    def with_root(self, root: Root) -> Ring:
        return replace(self, roots=(*self.roots, root)[-_ROOTS:], wants_root=False)

    def with_issuer(self, issuer: Issuer) -> Ring:
        return replace(self, issuers=(*self.issuers, issuer))


def signer(ring: Ring, wall: float) -> Issuer | None:
    """Who signs now. Intermediates are made when their root is ready, so the last one it is."""
    roots = {root.id for root in ring.roots}
    good = [each for each in ring.issuers if each.ends > wall and each.root in roots]
    return good[-1] if good else None


def ready_root(ring: Ring, wall: float, announce_s: float) -> Root | None:
    """The newest root below which may be signed."""
    ready = [
        root
        for at, root in enumerate(ring.roots)
        if root.ends > wall and (at == 0 or wall - root.since >= announce_s)
    ]
    # When all that are ready have ended, waiting would help nobody.
    return ready[-1] if ready else next((r for r in ring.roots if r.ends > wall), None)


def needs(ring: Ring, wall: float, rules: IdentityRules) -> Need:
    """What is to be made next. Roots elsewhere are followed when somebody there says so."""
    live = [root for root in ring.roots if root.ends > wall]
    if not live:
        return "root"
    is_announcing = wall - live[-1].since < rules.announce_s and len(ring.roots) > 1
    is_late = live[-1].ends - wall < rules.root_lead_s and isinstance(rules.root, RootInFile)
    if not is_announcing and (ring.wants_root or is_late):
        return "root"
    root = ready_root(ring, wall, rules.announce_s)
    if root is None:
        return "root"
    below = [each for each in ring.issuers if each.root == root.id]
    # A root near its end makes short ones; what they were made for decides, not what is left.
    if not any(each.ends - wall > each.life_s / 3.0 for each in below):
        return "issuer"
    return ""


def settled(ring: Ring, wall: float) -> Ring:
    """Without what has ended or is followed for long enough."""
    issuers = tuple(each for each in ring.issuers if each.ends > wall)
    kept: list[Root] = []
    order = {root.id: at for at, root in enumerate(ring.roots)}
    for at, root in enumerate(ring.roots):
        if root.ends <= wall:
            continue
        followed_at = min(
            (each.since for each in issuers if order.get(each.root, -1) > at), default=None
        )
        if followed_at is None or wall - followed_at <= ring.longest_s:
            kept.append(root)
    ids = {root.id for root in kept}
    return replace(
        ring, roots=tuple(kept), issuers=tuple(each for each in issuers if each.root in ids)
    )

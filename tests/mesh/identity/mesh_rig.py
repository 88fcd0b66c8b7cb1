"""An authority without a gateway around it: its clock is a number, its disk a folder of the test."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from headgate.mesh.identity.agent import JOIN, Agent
from headgate.mesh.identity.authority import Authority, Issued
from headgate.mesh.identity.certificates import (
    PrivateKey,
    new_key,
    read_request,
    read_shown,
    request_for,
)
from headgate.mesh.identity.joining import JoinBook
from headgate.mesh.identity.keeping import RingFile
from headgate.mesh.identity.proof import check_proof
from headgate.security.service_identity.contexts import IdentityFiles
from headgate.security.service_identity.rules import IdentityRules

WALL = 1_900_000_000.0
DOMAIN = "mesh.internal"
RULES = IdentityRules(trust_domain=DOMAIN, ttl_s=3600.0)


class Clock:
    def __init__(self, wall: float = WALL) -> None:
        self.now = wall

    def __call__(self) -> float:
        return self.now


class Desk:
    """Who answers joins and renewals, as control does."""

    def __init__(
        self, folder: Path, clock: Clock | None = None, rules: IdentityRules = RULES
    ) -> None:
        self.wall = clock or Clock()
        self.authority = Authority(rules, RingFile(folder / "mesh", rules))
        self.authority.turn(self.wall())
        self.book = JoinBook()
        self.rng = random.Random(7)
        self.asked: list[str] = []
        self.trouble: Exception | None = None
        """Raised for whoever asks."""
        self.loses = 0
        """So many answers get lost on the way back."""

    def token(self, service: str, *, uses: int = 1, life_s: float = 600.0) -> str:
        wall = self.wall()
        return self.book.make(
            service, wall=wall, ends=wall + life_s, by="t", uses=uses, random=self.rng.randbytes
        )[0]

    def __call__(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append(path.rpartition("/")[2])
        if self.trouble is not None:
            raise self.trouble
        wall = self.wall()
        request = read_request(body["csr"])
        if path == JOIN:
            used = self.book.join(body["token"], request.key_id, wall)
            service, joining = used.service, self.rng.randbytes(4).hex()
        else:
            shown = read_shown(body["certificate"])
            self.authority.check(shown, wall)
            check_proof(shown, request, body["proof"])
            self.book.check(shown.id.service, shown.joining, shown.serial, wall)
            service, joining = shown.id.service, shown.joining
        issued = self.authority.sign(request, service, joining, wall)
        if self.loses:
            self.loses -= 1
            raise OSError("the answer was lost")
        return {"id": str(issued.id), "chain": issued.chain, "bundle": issued.bundle}

    def issue(self, service: str, *, joining: str = "a1") -> tuple[Issued, PrivateKey, str]:
        """A certificate, its key, and the key as PEM."""
        key, pem = new_key()
        issued = self.authority.sign(read_request(request_for(key)), service, joining, self.wall())
        return issued, key, pem

    def files(self, folder: Path, service: str) -> IdentityFiles:
        """What an agent would have kept."""
        issued, _, key_pem = self.issue(service)
        return written(folder, issued.chain + key_pem, issued.bundle)

    def agent(self, folder: Path, **how: Any) -> Agent:
        fields: dict[str, Any] = {"ask": self, "wall": self.wall, "rng": random.Random(3)}
        return Agent(folder, **{**fields, **how})


def written(folder: Path, identity: str, bundle: str) -> IdentityFiles:
    folder.mkdir(parents=True, exist_ok=True)
    files = IdentityFiles(folder)
    files.identity.write_text(identity)
    files.bundle.write_text(bundle)
    return files


def short(ttl_s: float) -> IdentityRules:
    return replace(RULES, ttl_s=ttl_s)

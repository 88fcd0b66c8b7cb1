"""Callers that are services: who they are, and whether they may call here.

Theory of operation
-------------------
Asked on listeners of the mesh alone (`tls: {certificate: mesh}`): on any other one a certificate
may come from an authority that can write what it likes into it. The caller's name from its
certificate is what the service is told in `x-headgate-caller`; what came in under that name is
dropped (see `identity_headers`). `security.mesh_access` judges.

Where the rules are permissive everybody passes, and what would have been refused is counted and
told like what is. Refusals are told once in a while for each caller, destination and reason, and
counted always; callers beyond a bound are counted as `other`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from headgate.gateway.doors import denied
from headgate.policy.hops import CALLER
from headgate.security.denied import Denied
from headgate.security.mesh_access import MeshAccess
from headgate.security.mesh_caller import Callers

if TYPE_CHECKING:
    from headgate.config import Config
    from headgate.gateway.parts import WorkerParts
    from headgate.gateway.policed import PolicedExchange
    from headgate.gateway.steps import Answer, Step
    from headgate.observe import Rows
    from headgate.security.mesh_access import Towards, Verdict
    from headgate.security.mesh_caller import Caller

_wall: Final = time.time  # noqa: TID251 - certificates live in wall time
_TOLD_EVERY_S: Final = 10.0
_COUNTED_MAX: Final = 1000
_LONGEST_CLAIM: Final = 100
_NOBODY: Final = "anonymous"


@dataclass(slots=True)
class _Refusals:
    count: int = 0
    told: int = 0
    """How many of them had been counted when they were told last."""
    told_at: float = float("-inf")


class MeshGate:
    """What one worker knows of callers; it outlives plans."""

    def __init__(self, parts: WorkerParts) -> None:
        self._parts = parts
        self._callers = Callers("")
        self._access: MeshAccess | None = None
        self._binds: frozenset[str] = frozenset()
        self._refusals: dict[tuple[str, str, str, str], _Refusals] = {}

    def take(self, config: Config) -> None:
        """Go by this configuration from now on. What has been counted stays."""
        mesh = config.mesh
        self._binds = frozenset(
            spec.bind
            for spec in config.listeners
            if spec.tls is not None and spec.tls.certificate == "mesh"
        )
        self._access = None
        if mesh is None:
            return
        if self._callers.trust_domain != mesh.trust_domain:
            self._callers = Callers(mesh.trust_domain)
        if mesh.access is not None:
            self._access = MeshAccess(mesh.access.compiled_from(mesh.trust_domain))

    def steps(self, service: str | None) -> list[Step]:
        """The step of a route that leads to this service, where there is one to be made."""
        if not self._binds or service is None:
            return []
        towards = self._access.towards(service) if self._access is not None else None
        return [self._asking(towards)]

    def _asking(self, towards: Towards | None) -> Step:
        binds, callers = self._binds, self._callers

        def ask_caller(ex: PolicedExchange) -> Answer:
            if ex.site.spec.bind not in binds:
                return None
            caller = callers.of(ex.down.certificate, _wall())
            if caller.source is not None:
                ex.stamp(CALLER, caller.source.encode("ascii"))
            if towards is None:
                return None
            head = ex.prep.head
            verdict = towards.judge(caller.source, head.method, head.path)
            if verdict.allowed:
                return None
            return self._refused(ex, towards, caller, verdict)

        return ask_caller

    def _refused(
        self, ex: PolicedExchange, towards: Towards, caller: Caller, verdict: Verdict
    ) -> Answer:
        mode = "strict" if towards.is_strict else "permissive"
        self._count(ex, towards.destination, caller, verdict, mode)
        if not towards.is_strict:
            return None
        self._parts.count("mesh", "denied")
        if caller.source is None:
            reason = caller.fault or "a certificate of the mesh is needed to call this service"
        else:
            reason = f"{caller.source} may not {ex.prep.head.method} this of {towards.destination}"
        return denied(ex, Denied("mesh", reason, verdict.in_words()))

    def _count(
        self, ex: PolicedExchange, destination: str, caller: Caller, verdict: Verdict, mode: str
    ) -> None:
        source = caller.source or _NOBODY
        key = (source, destination, verdict.why, mode)
        held = self._refusals.get(key)
        if held is None:
            if len(self._refusals) >= _COUNTED_MAX:
                key = ("other", "other", verdict.why, mode)
            held = self._refusals.setdefault(key, _Refusals())
        held.count += 1
        if ex.started - held.told_at < _TOLD_EVERY_S:
            return
        since, held.told, held.told_at = held.count - held.told, held.count, ex.started
        head = ex.prep.head
        fields: dict[str, Any] = {
            "source": source,
            "destination": destination,
            "method": head.method,
            "path": head.path[:200],
            "client_ip": ex.client_ip,
            "why": verdict.in_words(),
            "enforced": mode == "strict",
            "refusals": since,
        }
        if caller.fault:
            fields["certificate"] = caller.fault
        claimed = head.get(CALLER)
        if claimed is not None and caller.source is None:
            fields["claims_to_be"] = claimed[:_LONGEST_CLAIM].decode("ascii", "replace")
        self._parts.note("mesh_refused", fields)

    def rows_into(self, rows: Rows) -> None:
        """Counts, for metrics."""
        for (source, destination, why, mode), held in self._refusals.items():
            rows["headgate_mesh_refused_total"].append(
                ([source, destination, why, mode], held.count)
            )

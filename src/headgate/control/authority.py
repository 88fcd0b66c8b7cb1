"""The mesh's authority in this process: joins, renewals, tokens, and the gateway's own identity.

Theory of operation
-------------------
    mesh/DOMAIN.secrets, authority.key   roots and intermediates (see `mesh.identity.keeping`)
    mesh/joining.json                    hashes of join tokens, and who is denied; several controls
                                         share them by the Redis of the registry
    mesh/own/                            the gateway's own identity, which workers serve

One task turns the authority and the gateway's own identity once a minute, on a thread, since keys
are opened and files synced there. A fault of one turn is a worry (`headgate status` says it), and
the next turn tries again; what was there signs on.

Joins and renewals come from whoever can reach the admin listener, without a token of the admin API:
a join token, or a certificate with a signature by its key, is what lets them in. The book of tokens
is on the disk before a certificate is given for one (see `join_book`).

What was issued lately is remembered for lists, in bounds; the audit log has all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from headgate.control.authority_lately import IssuedLately, Seen
from headgate.control.join_book import KeptBook
from headgate.control.registering_home import redis_of
from headgate.mesh.identity.authority import Authority, Issued
from headgate.mesh.identity.certificates import new_key, read_request, read_shown, request_for
from headgate.mesh.identity.joining import Denial, JoinBook, JoinToken, Kind
from headgate.mesh.identity.keeping import RingFile
from headgate.mesh.identity.proof import check_proof
from headgate.mesh.identity.refusals import IdentityRefused
from headgate.mesh.identity.renewing import due_at, read_held
from headgate.mesh.identity.vault_root import VaultRoot
from headgate.policy.limiter.rules import LimitRules
from headgate.policy.limiter.token_bucket import TokenBucket
from headgate.security.certificates.challenges import CERTIFICATES_TOPIC
from headgate.security.service_identity.contexts import own_files
from headgate.security.service_identity.rules import IdentityRules, RootInVault
from headgate.security.service_identity.spiffe import SpiffeId
from headgate.security.whole_file import forget_drafts, write_whole

if TYPE_CHECKING:
    from headgate.config import Config
    from headgate.observe import Rows

__all__ = ["MeshAuthority", "Seen", "Telling"]

LOOK_S: Final = 60.0
AGAIN_S: Final = 5.0
TOLD_A_MINUTE: Final = 6
"""Refusals of one service that are written down."""

log = logging.getLogger("headgate.control.authority")


class Telling(Protocol):
    """That which reaches the workers."""

    def publish(
        self, topic: str, message: Mapping[str, Any], *, retain: str | None = None
    ) -> None: ...


class MeshAuthority:
    def __init__(
        self,
        state_dir: Path,
        board: Telling,
        record: Callable[..., object],
        *,
        wall: Callable[[], float] = time.time,  # noqa: TID251  certificates live in wall time
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._folder = state_dir / "mesh"
        self._own = own_files(state_dir)
        self._board = board
        self._record = record
        self.wall = wall
        self._random = random
        self._rules: IdentityRules | None = None
        self._wants_own = False
        self._shared_by = ""
        """The Redis by which several controls have one book of tokens."""
        self._authority: Authority | None = None
        self._vault: VaultRoot | None = None
        self._kept: KeptBook | None = None
        self._rate = TokenBucket(LimitRules(limit=1, period_s=60.0))
        self._told = TokenBucket(LimitRules(limit=TOLD_A_MINUTE, period_s=60.0, max_keys=10_000))
        self._lately = IssuedLately()
        self._worries: dict[str, str] = {}
        self._turning = asyncio.Lock()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # -- for control ---------------------------------------------------------------------------

    def start(self) -> None:
        """On the running loop, after the first `take`."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="mesh-authority")

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._kept is not None:
            await self._kept.close()
        if self._vault is not None:
            self._vault.close()

    def take(self, config: Config) -> None:
        """Go by this configuration from now on."""
        rules = config.mesh.rules() if config.mesh is not None else None
        self._wants_own = rules is not None and _speaks_mesh(config)
        self._shared_by = redis_of(config) if rules is not None else ""
        if rules != self._rules:
            self._take_rules(rules)
        self._wake.set()

    def _take_rules(self, rules: IdentityRules | None) -> None:
        self._rules = rules
        self._worries.clear()
        if rules is None:
            self._authority = None
            return
        self._rate = TokenBucket(
            LimitRules(limit=rules.signs_per_minute, period_s=60.0, max_keys=10_000)
        )
        if self._kept is None:
            self._kept = KeptBook(self._folder, rules)
            if self._kept.trouble:
                self._worry("book", self._kept.trouble)
        if self._vault is not None:
            self._vault.close()
        self._vault = None
        try:
            if isinstance(rules.root, RootInVault):
                self._vault = VaultRoot(rules.root)
            self._authority = Authority(rules, RingFile(self._folder, rules), self._vault)
        except Exception as error:  # noqa: BLE001 - of Vault's rules, whatever they are
            self._authority = None
            self._worry("authority", f"the mesh has no authority: {error}")

    def worries(self) -> list[str]:
        """What makes the gateway's health less than well."""
        kept = self._kept.worry if self._kept is not None else ""
        return [*self._worries.values(), *([kept] if kept else [])]

    def rows_into(self, rows: Rows) -> None:
        """Figures for the metrics."""
        if self._rules is None:
            return
        self._lately.rows_into(rows)
        authority = self._authority
        if authority is not None:
            ring = authority.ring
            if ring.issuers:
                rows["headgate_mesh_authority_ends_timestamp_seconds"].append(
                    (["intermediate"], max(each.ends for each in ring.issuers))
                )
            if ring.roots:
                rows["headgate_mesh_authority_ends_timestamp_seconds"].append(
                    (["root"], ring.roots[-1].ends)
                )
            rows["headgate_mesh_roots"].append(([], len(ring.roots)))
        good = sum(token.state(self.wall()) == "good" for token in self.tokens())
        rows["headgate_mesh_join_tokens"].append(([], good))

    # -- the task ------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                wait_s = await self.turn()
            except Exception:
                # A fault of ours must not end renewals until the next restart.
                log.exception("the authority of the mesh could not be looked after")
                wait_s = LOOK_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def turn(self) -> float:
        """Do what is due; how long to wait for the next look."""
        if self._kept is not None:
            await self._kept.follow(self._shared_by)
        authority = self._authority
        if authority is None:
            return LOOK_S
        wait_s = LOOK_S
        async with self._turning:
            wall = self.wall()
            try:
                has_changed = await asyncio.to_thread(authority.turn, wall)
                self._worries.pop("authority", None)
                if has_changed:
                    self._tell_ring(authority)
            except IdentityRefused as error:
                self._worry("authority", f"the authority of the mesh: {error}")
                wait_s = AGAIN_S
            if self._wants_own and authority.is_ready:
                try:
                    wait_s = min(wait_s, await self._look_after_own(authority, wall))
                    self._worries.pop("own", None)
                except (IdentityRefused, OSError) as error:
                    self._worry("own", f"the gateway's own identity: {error}")
                    wait_s = AGAIN_S
        return wait_s

    async def _look_after_own(self, authority: Authority, wall: float) -> float:
        """Renew our own when it is due, or is not what it should be; how long until it is due."""
        left_s = await asyncio.to_thread(self._own_left_s, authority, wall)
        if left_s > 0:
            return left_s
        rules = authority.rules
        self._book().book.check(rules.own_service, "", "", wall)
        key, key_pem = new_key()
        request = read_request(request_for(key))
        issued = authority.sign(request, rules.own_service, _new_id(self._random), wall)
        await asyncio.to_thread(self._write_own, issued, key_pem, wall)
        self._note(issued, "own", "control")
        self._board.publish(CERTIFICATES_TOPIC, {"at": wall}, retain="files")
        return (issued.ends - wall) / 2.0

    def _own_left_s(self, authority: Authority, wall: float) -> float:
        """How long our own is good as it is; 0 if not at all."""
        held = read_held(self._own)
        rules = authority.rules
        if held is None or held.id != SpiffeId(rules.trust_domain, rules.own_service):
            return 0.0
        try:
            authority.check(read_shown(held.chain), wall)
            if self._own.bundle.read_text("ascii") != authority.ring.bundle:
                return 0.0
        except (IdentityRefused, OSError, ValueError):
            return 0.0
        # Also when `ttl` has become shorter, or the clock was put back.
        got = min(held.got, wall)
        return min(due_at(replace(held, got=got), 1.0) - wall, rules.ttl_s / 2.0)

    def _write_own(self, issued: Issued, key_pem: str, wall: float) -> None:
        self._own.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        forget_drafts(self._own.folder)
        write_whole(self._own.bundle, issued.bundle.encode())
        write_whole(self._own.identity, (issued.chain + key_pem).encode())
        os.utime(self._own.identity, (wall, wall))

    def _tell_ring(self, authority: Authority) -> None:
        ring = authority.ring
        signing = ring.issuers[-1] if ring.issuers else None
        self._record(
            "mesh.authority",
            "control",
            target=authority.rules.trust_domain,
            detail={
                "roots": [root.id for root in ring.roots],
                "intermediate": signing.id if signing is not None else "",
            },
        )
        log.info(
            "the authority of %s has %d root(s), and signs by %s",
            authority.rules.trust_domain,
            len(ring.roots),
            signing.id[:16] if signing is not None else "nothing yet",
        )

    def _worry(self, name: str, words: str) -> None:
        if self._worries.get(name) != words:
            self._worries[name] = words
            log.warning("%s", words)

    # -- for services --------------------------------------------------------------------------

    async def join(self, token: str, csr: str, origin: str) -> Issued:
        """A first certificate. Raises IdentityRefused."""
        try:
            authority = self._ready()
            kept = self._book()
            wall = self.wall()
            await kept.find(token, wall)  # before strangers may have keys looked at
            request = read_request(csr)
            is_counted = False

            def use(book: JoinBook) -> JoinToken:
                nonlocal is_counted
                used = book.join(token, request.key_id, wall)
                book.check(used.service, "", "", wall)
                if not is_counted:  # it may be done again, for one certificate
                    self._limit(used.service)
                    is_counted = True
                return used

            used = await kept.change(use)
            issued = authority.sign(request, used.service, _new_id(self._random), wall)
        except IdentityRefused as error:
            service = self._kept.book.service_of(token) if self._kept is not None else ""
            self._refuse("join", error, origin, service)
            raise
        self._note(issued, "join", origin, token=used.id)
        return issued

    async def renew(self, certificate: str, csr: str, proof: str, origin: str) -> Issued:
        """The next certificate of the same line. Raises IdentityRefused."""
        service = ""
        try:
            authority = self._ready()
            wall = self.wall()
            shown = read_shown(certificate)
            authority.check(shown, wall)
            service = shown.id.service
            request = read_request(csr)
            check_proof(shown, request, proof)
            self._book().book.check(service, shown.joining, shown.serial, wall)
            self._limit(service)
            issued = authority.sign(request, service, shown.joining, wall)
        except IdentityRefused as error:
            self._refuse("renew", error, origin, service)
            raise
        self._note(issued, "renew", origin)
        return issued

    def bundle(self) -> str:
        """The roots that are trusted, PEM. Raises IdentityRefused."""
        return self._ready().ring.bundle

    @property
    def trust_domain(self) -> str:
        return self._rules.trust_domain if self._rules is not None else ""

    def _book(self) -> KeptBook:
        if self._rules is None or self._kept is None:
            raise IdentityRefused(
                "unavailable", "there is no mesh here; write mesh: {} at the top of the file"
            )
        return self._kept

    def _ready(self) -> Authority:
        self._book()
        authority = self._authority
        if authority is None or not authority.is_ready:
            why = self._worries.get("authority", "the authority of the mesh is not ready yet")
            raise IdentityRefused("unavailable", why, 2.0)
        return authority

    def _limit(self, service: str) -> None:
        verdict = self._rate.hit(service, time.monotonic())
        if not verdict.allowed:
            raise IdentityRefused(
                "rate",
                f"{service} has had its certificates of this minute; mesh.identity.signs_per_minute"
                " says how many that is",
                verdict.retry_after_s,
            )

    def _note(self, issued: Issued, how: str, origin: str, *, token: str = "") -> None:
        self._lately.note(issued, how, origin, self.wall())
        detail = {"serial": issued.serial, "joining": issued.joining, "ends": issued.ends}
        if token:
            detail["join_token"] = token
        self._record(
            f"mesh.certificate.{how}",
            issued.id.service,
            target=str(issued.id),
            origin=origin,
            detail=detail,
        )

    def _refuse(self, how: str, error: IdentityRefused, origin: str, service: str = "") -> None:
        self._lately.refused[error.why] += 1
        # Strangers are counted alone: they must not be able to fill the log, nor must a service
        # that tries again and again.
        if (
            service
            and error.why in {"token", "certificate", "denied"}
            and self._told.hit(service, time.monotonic()).allowed
        ):
            self._record(
                f"mesh.certificate.{how}",
                service,
                origin=origin,
                outcome="refused",
                detail={"why": str(error)},
            )

    # -- for operators -------------------------------------------------------------------------

    async def make_token(
        self, service: str, *, expires_s: float, uses: int, by: str
    ) -> tuple[str, JoinToken]:
        """Raises IdentityRefused."""
        wall = self.wall()
        return await self._book().change(
            lambda book: book.make(
                service,
                wall=wall,
                ends=wall + expires_s,
                by=by,
                uses=uses,
                random=self._random,
            )
        )

    async def revoke_token(self, token_id: str) -> JoinToken | None:
        """Raises IdentityRefused."""
        return await self._book().change(lambda book: book.revoke(token_id))

    async def deny(self, kind: Kind, what: str, *, by: str, why: str) -> Denial:
        """Raises IdentityRefused."""
        if kind == "serial":
            # Its line goes with it: whoever has the key may have renewed it.
            line = self._lately.line_of(what)
            if line is not None:
                kind, what = "joining", line.joining
        wall, asked = self.wall(), (kind, what)
        return await self._book().change(
            lambda book: book.deny(*asked, wall=wall, by=by, why=why), without_redis=True
        )

    async def allow(self, kind: Kind, what: str) -> Denial | None:
        """Raises IdentityRefused."""
        return await self._book().change(lambda book: book.allow(kind, what))

    async def new_root(self) -> None:
        """Begin to replace the root. Raises IdentityRefused."""
        authority = self._ready()
        async with self._turning:
            authority.order_root()
        self._wake.set()

    def tokens(self) -> list[JoinToken]:
        return self._kept.book.tokens() if self._kept is not None else []

    def denials(self) -> list[Denial]:
        return self._kept.book.denials() if self._kept is not None else []

    def identities(self) -> list[Seen]:
        """Lines whose last certificate is good, by service."""
        return self._lately.good(self.wall())

    def snapshot(self) -> dict[str, Any]:
        """How the authority stands."""
        authority, rules = self._authority, self._rules
        if rules is None or authority is None:
            return {"is_on": rules is not None, "worries": self.worries()}
        ring = authority.ring
        return {
            "is_on": True,
            "trust_domain": rules.trust_domain,
            "ttl_s": rules.ttl_s,
            "roots": [
                {"id": root.id, "since": root.since, "ends": root.ends} for root in ring.roots
            ],
            "intermediates": [
                {"id": each.id, "root": each.root, "since": each.since, "ends": each.ends}
                for each in ring.issuers
            ],
            "worries": self.worries(),
        }


def _new_id(random: Callable[[int], bytes]) -> str:
    return random(8).hex().lstrip("0") or "0"


def _speaks_mesh(config: Config) -> bool:
    """Whether workers serve or show the mesh's identity."""
    return any(
        each.tls is not None and each.tls.certificate == "mesh" for each in config.listeners
    ) or any(service.tls.identity is not None for service in config.services.values())

"""A sidecar while it runs: one worker of the gateway, and what feeds it.

Theory of operation
-------------------
    portion (file or control)  -> document -> worker.apply     again when it changes
    registry's stream          -> board: `members` -> worker    while control is away: as it was
    identity, by short children -> files that handshakes go by
    the process, looked at     -> the lease in the registry
    what the worker counts     -> control, every few seconds

There is no supervisor and no control process beside it: whoever starts the sidecar (systemd, a
container) starts it anew. It serves as soon as a portion and an identity are there, and the process
is registered once it is well and our own door opens to us, so that nobody is sent to one that does
not.

The end (SIGTERM): leave the registry, wait until callers have heard of it, accept nothing more,
finish, go. A second SIGTERM goes at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from headgate.cache.gateway_http import Gateway
from headgate.errors import ConfigInvalid, HeadgateError
from headgate.mesh.client.control import Control
from headgate.mesh.client.failures import ControlAway
from headgate.mesh.client.keeping import Keeper
from headgate.mesh.client.watching import Watcher
from headgate.mesh.http import HttpClient
from headgate.mesh.sidecar.children import ChildFailed, ask_child
from headgate.mesh.sidecar.document import Portion, document, inner_name, services_of
from headgate.mesh.sidecar.ordered import TOPIC as ORDERS
from headgate.mesh.sidecar.ordered import Ordered
from headgate.mesh.sidecar.places import address_towards, is_everywhere, reachable, stamps
from headgate.mesh.sidecar.portions import NoPortion, Portions
from headgate.mesh.sidecar.preparing import prepared
from headgate.mesh.sidecar.process import Process
from headgate.mesh.sidecar.registered import Registered
from headgate.mesh.sidecar.told import (
    EdgesSeen,
    RefusalsSeen,
    breakers_of,
    edges_of,
    refusals_of,
)
from headgate.security.certificates.challenges import CERTIFICATES_TOPIC
from headgate.security.service_identity.contexts import client_context, own_files
from headgate.security.service_identity.rules import IdentityRules
from headgate.security.service_identity.spiffe import SpiffeId
from headgate.state.memory import MemoryShared

if TYPE_CHECKING:
    from headgate.mesh.sidecar.settings import Settings
    from headgate.security.service_identity.contexts import IdentityFiles

__all__ = ["Sidecar", "SidecarWorker"]

log: Final = logging.getLogger("headgate.sidecar")

_PORTION_WAIT_S: Final = 20.0
_PORTION_PAUSE_S: Final = 1.0
_PORTION_AGAIN_S: Final = 5.0
_KEEP_EVERY_S: Final = 1.0
_TELL_EVERY_S: Final = 5.0
_IDENTITY_LOOK_S: Final = 30.0
_IDENTITY_PAUSE_S: Final = 1.0
_IDENTITY_PAUSE_MAX_S: Final = 60.0
_IDENTITY_POLL_S: Final = 0.05
_IDENTITY_WAIT_S: Final = 15.0
_IDENTITY_STAT_S: Final = 0.2
_DOOR_EVERY_S: Final = 0.2
_DOOR_PATIENCE_S: Final = 5.0
_LAST_WORD_S: Final = 2.0
_ASK_S: Final = 5.0


class SidecarWorker(Protocol):
    """What a sidecar asks of the gateway's worker."""

    async def apply(
        self,
        document: bytes,
        sockets: dict[str, list[socket.socket]],
        generation: int,
    ) -> None: ...
    async def drain(self, deadline_s: float) -> None: ...
    def snapshot(self) -> dict[str, Any]: ...
    def take_shared(self, shared: Any) -> None: ...


class Sidecar:
    def __init__(
        self,
        settings: Settings,
        worker: SidecarWorker,
        sockets: Mapping[str, list[socket.socket]],
        rng: random.Random,
    ) -> None:
        """`sockets` are those of the inbound and the outbound listener, by bind."""
        self._settings = settings
        self._beside = settings.beside
        self._worker = worker
        self._sockets = dict(sockets)
        self._rng = rng
        self._state_dir = Path(settings.beside.state_dir)
        self._ours = MemoryShared()
        worker.take_shared(self._ours.join())
        self._http = HttpClient()
        self._control = _control_of(settings)
        self._portions = Portions(self._control, settings.file, self._state_dir)
        self._keeper = Keeper(self._state_dir / "instances.json")
        self._known = self._keeper.load()
        self._watcher = (
            Watcher(self._control, self._known, self._tell_members, rng, self._tell_orders)
            if self._control is not None
            else None
        )
        self._ordered = Ordered()
        self._registered: Registered | None = None
        self._edges = EdgesSeen()
        self._refusals = RefusalsSeen()
        self._names: dict[str, str] = {}
        """What services are called in the worker's document, by their own names."""
        self._portion: Portion | None = None
        self._generation = 0
        self._revision = 0
        self._reread = asyncio.Event()
        self._ending = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    # -- from the outside ----------------------------------------------------------------------

    def reread(self) -> None:
        """SIGHUP: what holds may have changed."""
        self._reread.set()

    def end(self) -> None:
        """SIGTERM."""
        self._ending.set()

    async def run(self) -> None:
        """Serve until told to end. Raises NoPortion or ConfigInvalid where it cannot begin."""
        try:
            portion = await self._portions.first()
            if self._may_join:
                self._begin("identity", self._keep_identity())
                await self._wait_identity()
            await self._take(portion)
            await self._portions.keep(portion)
            self._say_where()
            for name, work in self._duties():
                self._begin(name, work)
            await self._ending.wait()
            await self._leave()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._worker.drain(self._beside.drain_s if self._ending.is_set() else 0.0)
            if self._registered is not None:
                await self._registered.gone()
            await self._http.aclose()
            if self._control is not None:
                await self._control.aclose()

    def _begin(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"headgate-sidecar-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    @property
    def _may_join(self) -> bool:
        settings = self._settings
        return self._beside.has_identity and bool(settings.join_token or settings.join_token_file)

    def _duties(self) -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = [("portion", self._follow_portion())]
        control, settings = self._control, self._settings
        if self._beside.has_identity and self._beside.takes_calls:
            found.append(("certificate", self._follow_identity()))
        if self._watcher is not None:
            found.append(("watch", self._watcher.run()))
            found.append(("keep", self._keep_instances()))
        if control is None:
            return found
        found.append(("tell", self._tell_edges(control)))
        if self._beside.takes_calls and settings.registers:
            found.append(("registry", self._keep_registered(control)))
        return found

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A duty that fails by a mistake of ours must not go on unseen, nor end what serves.
            log.error("%s has ended: %s", task.get_name(), error, exc_info=error)

    async def _leave(self) -> None:
        if self._registered is not None and await self._registered.leave(self._beside.drain_s):
            await asyncio.sleep(self._settings.settle_s)
        if self._control is not None:
            await self._tell_once(self._control, _LAST_WORD_S)

    # -- what it goes by -----------------------------------------------------------------------

    async def _take(self, portion: Portion) -> None:
        config = await prepared(document(portion, self._beside))
        own = self._beside.name
        names = {name: name for name in services_of(portion)}
        if own in names:
            names[own] = inner_name(own, names)
        before = self._names
        self._names = names
        try:
            await self._worker.apply(config, self._sockets, self._generation + 1)
        except BaseException:
            self._names = before
            raise
        self._generation += 1
        self._portion = portion
        for name in names:
            self._tell_members(name)
            if self._watcher is not None:
                self._watcher.want(name)

    async def _follow_portion(self) -> None:
        while True:
            polls = self._portions.is_polled
            if not polls:
                await self._reread.wait()
                self._reread.clear()
            try:
                portion = await self._portions.fresh(_PORTION_WAIT_S if polls else 0.0)
                if portion is not None and portion != self._portion:
                    await self._take(portion)
                    await self._portions.keep(portion)
                    log.info("what holds has changed and is in force")
            except NoPortion as error:
                self._portions.say(f"{error}; what serves goes on")
            except ConfigInvalid as error:
                said = "; ".join(str(fault) for fault in error.faults[:5])
                self._portions.say(f"what was told cannot be used, what serves goes on: {said}")
            except HeadgateError as error:
                if isinstance(error, ChildFailed):
                    self._portions.again()
                self._portions.say(f"what was told cannot be used, what serves goes on: {error}")
            else:
                self._portions.say("")
                if polls:
                    await asyncio.sleep(_PORTION_PAUSE_S * self._rng.random())
                continue
            if polls:
                await asyncio.sleep(_PORTION_AGAIN_S * (0.5 + self._rng.random()))

    # -- who is there --------------------------------------------------------------------------

    def _tell_members(self, name: str) -> None:
        """Have the worker know what the registry says of a service."""
        self._keeper.is_due = True
        found = self._known.of(name)
        inner = self._names.get(name)
        if found is None or inner is None:
            return
        self._revision += 1
        rows = [
            {
                "id": each.id,
                "url": each.url,
                "weight": each.weight,
                "priority": each.priority,
                "zone": each.zone,
                "draining": not each.takes_requests,
            }
            for each in found
        ]
        message = {"service": inner, "epoch": "", "revision": self._revision, "members": rows}
        self._ours.publish("members", message, retain=inner)

    def _tell_orders(self, rows: list[object]) -> None:
        wall = time.time()  # noqa: TID251  an order's end is told so
        for subject, message in self._ordered.messages(rows, self._names, wall):
            self._ours.publish(ORDERS, message, retain=subject)

    async def _keep_instances(self) -> None:
        while True:
            await asyncio.sleep(_KEEP_EVERY_S)
            await self._keeper.keep(self._known)

    # -- who we are ----------------------------------------------------------------------------

    async def _keep_identity(self) -> None:
        settings = self._settings
        files = own_files(self._state_dir)
        asked = {
            "folder": str(files.folder),
            "control": settings.control,
            "service": self._beside.name,
            "token": settings.join_token,
            "token_file": settings.join_token_file,
            "ca_file": settings.ca_file,
        }
        pause_s, said = _IDENTITY_PAUSE_S, ""
        while True:
            try:
                answer = await ask_child("headgate.mesh.sidecar.joining", asked)
                trouble, left_s = str(answer["trouble"]), float(answer["left_s"])
            except (ChildFailed, OSError, KeyError, TypeError, ValueError) as error:
                trouble, left_s = str(error), 0.0
            if trouble:
                if trouble != said:
                    log.warning("the identity is not renewed: %s", trouble)
                await asyncio.sleep(pause_s * (0.5 + self._rng.random()))
                pause_s = min(pause_s * 2, _IDENTITY_PAUSE_MAX_S)
            else:
                pause_s = _IDENTITY_PAUSE_S
                await asyncio.sleep(max(left_s, _IDENTITY_POLL_S))
            said = trouble

    async def _follow_identity(self) -> None:
        """Have the listener serve from the files as they are, whoever has written them."""
        files = own_files(self._state_dir)
        seen = stamps(files.identity, files.bundle)
        while True:
            await asyncio.sleep(_IDENTITY_STAT_S)
            now = stamps(files.identity, files.bundle)
            if now != seen:
                seen = now
                self._ours.publish(CERTIFICATES_TOPIC, {})

    async def _wait_identity(self) -> None:
        """Before anything is served, for a while: until there is one nobody can be called, and a
        call that fails has its instance put out. Who connects meanwhile waits in the kernel.
        """
        files = own_files(self._state_dir)
        for _ in range(int(_IDENTITY_WAIT_S / _IDENTITY_POLL_S)):
            if (files.identity.exists() and files.bundle.exists()) or self._ending.is_set():
                return
            await asyncio.sleep(_IDENTITY_POLL_S)
        log.warning("no identity after %g s: the mesh cannot be called yet", _IDENTITY_WAIT_S)

    async def _wait_open(self) -> None:
        """Until our own door opens to our own identity. Whoever is sent to one that does not yet
        would take us for broken, and remember it.
        """
        files = own_files(self._state_dir)
        while not await self._is_open(files):  # noqa: ASYNC110 - nobody says when
            await asyncio.sleep(_DOOR_EVERY_S)

    async def _is_open(self, files: IdentityFiles) -> bool:
        if not (files.identity.exists() and files.bundle.exists()):
            return False
        sock = self._sockets[self._beside.inbound][0]
        host, port = reachable(sock.getsockname()[:2])
        peer = SpiffeId(_trust_domain(self._portion), self._beside.name)
        try:
            async with asyncio.timeout(_DOOR_PATIENCE_S):
                _, writer = await asyncio.open_connection(
                    host, port, ssl=client_context(files), server_hostname=peer.host_name
                )
        except (OSError, TimeoutError):
            return False
        writer.transport.abort()
        return True

    async def _keep_registered(self, control: Control) -> None:
        settings, beside = self._settings, self._beside
        if beside.has_identity:
            await self._wait_open()
        asked: dict[str, Any] = {
            "url": settings.url or self._own_url(),
            "zone": beside.zone,
            "version": settings.version,
            "weight": settings.weight,
            "metadata": {"sidecar": "headgate"},
        }
        process = Process(beside.process, settings.health, self._http)
        name = settings.id or f"{socket.gethostname()}-{self._inbound_port()}"
        self._registered = Registered(control, beside.name, name, asked, process.is_well, self._rng)
        await self._registered.run()

    def _inbound_port(self) -> int:
        port: int = self._sockets[self._beside.inbound][0].getsockname()[1]
        return port

    def _own_url(self) -> str:
        """Where others reach us: the address that we reach control from, where we listen on all."""
        scheme = "https" if self._beside.has_identity else "http"
        host = self._sockets[self._beside.inbound][0].getsockname()[0]
        if is_everywhere(host):
            host = address_towards(self._settings.control)
        shown = f"[{host}]" if ":" in host else host
        return f"{scheme}://{shown}:{self._inbound_port()}"

    # -- what is told --------------------------------------------------------------------------

    async def _tell_edges(self, control: Control) -> None:
        while True:
            await asyncio.sleep(_TELL_EVERY_S * (0.75 + 0.5 * self._rng.random()))
            await self._tell_once(control, _ASK_S)

    async def _tell_once(self, control: Control, timeout_s: float) -> None:
        own = {inner: name for name, inner in self._names.items()}
        rows = self._worker.snapshot()["rows"]
        edges = self._edges.take(edges_of(rows, lambda service: own.get(service, service)))
        refused = self._refusals.take(refusals_of(rows))
        if not edges and not refused:
            return
        body = {
            "source": self._beside.name,
            "process": f"{socket.gethostname()}-{os.getpid()}",
            "every_s": _TELL_EVERY_S,
            "edges": [each.to_json() for each in edges],
            "breakers": breakers_of(rows, own),
            "refused": refused,
        }
        try:
            answer = await control.ask("POST", "/api/mesh/report", body, timeout_s=timeout_s)
        except ControlAway:
            return
        if 200 <= answer.status < 300:
            self._edges.taken()
            self._refusals.taken()

    def _say_where(self) -> None:
        beside = self._beside
        if beside.takes_calls:
            log.info("%s: calls come in at %s for %s", beside.name, beside.inbound, beside.process)
        if beside.outbound:
            log.info("%s: calls go out by http://%s", beside.name, beside.outbound)


def _trust_domain(portion: Portion | None) -> str:
    said = ((portion or {}).get("mesh") or {}).get("trust_domain")
    return str(said) if said else IdentityRules().trust_domain


def _control_of(settings: Settings) -> Control | None:
    if not settings.control:
        return None
    tls = None
    if settings.control.startswith("https"):
        import ssl

        try:
            tls = ssl.create_default_context(cafile=settings.ca_file or None)
        except (OSError, ssl.SSLError) as error:
            raise HeadgateError(f"{settings.ca_file} cannot be read: {error}") from None
    try:
        return Control(Gateway.at(settings.control, settings.token, tls))
    except ValueError as error:
        raise HeadgateError(str(error)) from None

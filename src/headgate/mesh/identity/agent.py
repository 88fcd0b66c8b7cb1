"""The agent: gets a service its identity, and keeps it fresh for as long as the service lives.

    with Agent("/var/lib/orders/identity", control="https://control:9900", token_file=...) as own:
        both = own.contexts()
        server = await loop.create_server(..., ssl=both.server)
        client.connect(..., ssl=both.client, server_hostname=own.server_name("users"))

Theory of operation
-------------------
    identity.pem   certificate, intermediate and key      bundle.pem   the roots that are trusted
    next.key       the key of a joining under way         lock         held by whoever asks

A thread of its own renews, so that a busy event loop does not, and programs without one can. Files
are written whole, the bundle first: what the new certificate leads to is known before it is shown.
All processes of a service share one folder; one of them asks, and all of them serve from the files
(see `headgate.security.service_identity.contexts`).

The key of a joining is on the disk before the token is sent. If the answer is lost, the same key
asks again, which the authority allows; a crash in between costs no token.

When control is away the certificate is used until it ends, and the agent says so in its log and in
its state. After that peers refuse it. It is then too late to renew: a token is needed, and a
`token_file` is read again each time, so that a platform can put a new one there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from headgate.errors import HeadgateError
from headgate.mesh.identity.asking import Asks, ControlAsked, ControlAway
from headgate.mesh.identity.refusals import IdentityRefused
from headgate.mesh.identity.renewing import Held, due_at, pause_s, read_held
from headgate.security.file_lock import try_lock
from headgate.security.service_identity.contexts import (
    HTTP1,
    Contexts,
    IdentityFiles,
    client_context,
    contexts,
    peer_id,
)
from headgate.security.service_identity.spiffe import SpiffeId
from headgate.security.whole_file import forget_drafts, write_whole

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Agent", "AgentState", "NoIdentity"]

JOIN: Final = "/api/mesh/identity/join"
RENEW: Final = "/api/mesh/identity/renew"
START_S: Final = 30.0
LOOK_S: Final = 30.0
"""The clock may jump while one waits; so one looks."""
BUSY_S: Final = 0.2
CLOSE_S: Final = 15.0
_MAX_TOKEN_FILE: Final = 4096
_NAMED_MOST: Final = 1000
_FOR_GOOD: Final = frozenset({"token", "certificate", "denied", "request"})
"""Why one is refused now and would be refused again."""

log = logging.getLogger("headgate.mesh.identity")


class NoIdentity(HeadgateError):
    """There is no identity yet; the text says what stands in the way."""


@dataclass(frozen=True, slots=True)
class AgentState:
    """What an operator may ask."""

    id: SpiffeId | None = None
    serial: str = ""
    ends: float = 0.0
    """In wall time, as is the other."""
    due: float = 0.0
    renewals: int = 0
    failures: int = 0
    """Since the last success."""
    trouble: str = ""
    """Why the last one failed."""


@dataclass(frozen=True, slots=True)
class _Due:
    """When the certificate of this serial number is renewed."""

    serial: str
    wall: float
    mono: float
    """Likewise: a clock that is put back must not let it end."""


class Agent:
    """One service's identity. Its methods may be called from any thread."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        control: str | None = None,
        service: str | None = None,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        ca_file: str | None = None,
        ask: Asks | None = None,
        on_renewed: Callable[[], None] | None = None,
        wall: Callable[[], float] = time.time,  # noqa: TID251  certificates live in wall time
        rng: random.Random | None = None,
    ) -> None:
        """`folder` is where identity and bundle are kept, for this service alone.

        Without `control`, HEADGATE_URL says where it is. The token is for the first time; without
        one here, HEADGATE_JOIN_TOKEN or HEADGATE_JOIN_TOKEN_FILE is used. With `service`, any other
        identity than this one's is refused. `on_renewed` is called on the agent's thread when there
        are new files; contexts need no telling.
        """
        self.files = IdentityFiles(Path(folder))
        url = control or os.environ.get("HEADGATE_URL", "")
        if ask is None and not url:
            raise NoIdentity("nobody to ask for an identity: give control=, or set HEADGATE_URL")
        self._ask: Asks = ask if ask is not None else ControlAsked(url, ca_file=ca_file)
        self._service = service
        self._on_renewed = on_renewed
        self._named: dict[str, ssl.SSLContext] = {}
        file = token_file or os.environ.get("HEADGATE_JOIN_TOKEN_FILE")
        self._token_file = Path(file) if file else None
        self._token = token or os.environ.get("HEADGATE_JOIN_TOKEN", "")
        self._wall = wall
        self._rng = rng or random.Random()
        self._due: _Due | None = None
        self._state = AgentState()
        self._pause_s = 0.0
        self._again_at = 0.0
        self._thread: threading.Thread | None = None
        self._is_ending = False
        self._wake = threading.Event()
        self._is_asked = False
        self._settled = threading.Event()
        """There is a good identity, or waiting for one is of no use."""
        self._has_one = False
        self._told = ""

    def __repr__(self) -> str:
        return f"Agent({str(self.files.folder)!r}, {self._state.id})"

    # -- life ---------------------------------------------------------------------------------

    def start(self, wait_s: float = START_S) -> None:
        """Begin, and wait until there is an identity: NoIdentity says why there is none in time.

        With 0 nothing is waited for; handshakes fail until there is one.
        """
        if self._thread is None:
            self._is_ending = False
            self._settled.clear()
            self._thread = threading.Thread(target=self._run, name="headgate-identity", daemon=True)
            self._thread.start()
        if wait_s <= 0:
            return
        self._settled.wait(wait_s)
        if not self._has_one:
            trouble = self._state.trouble or f"control has not answered within {wait_s:g} s"
            self.close()
            raise NoIdentity(f"no identity: {trouble}")

    def close(self) -> None:
        """End the thread. The files stay, and so do contexts."""
        self._is_ending = True
        self._wake.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(CLOSE_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.close)

    # -- use ----------------------------------------------------------------------------------

    @property
    def id(self) -> SpiffeId:
        """Who we are. Raises NoIdentity before anybody has said so."""
        found = self._state.id
        if found is None:
            raise NoIdentity(self._state.trouble or "there is no identity yet")
        return found

    def contexts(self, *, alpn: tuple[str, ...] = HTTP1) -> Contexts:
        """Both sides of TLS, good for as long as the process lives."""
        return contexts(self.files, alpn=alpn)

    def server_name(self, service: str) -> str:
        """What to give as `server_hostname`, so that nobody but this service is taken for it."""
        return SpiffeId.of(self.id.trust_domain, service).host_name

    def tls_for(self, service: str, host: str = "") -> ssl.SSLContext:
        """A client's context that connects to this service alone, whatever `host` it is at."""
        found = self._named.get(service)
        if found is None:
            peer = SpiffeId.of(self.id.trust_domain, service)
            if len(self._named) >= _NAMED_MOST:
                self._named.clear()
            found = self._named[service] = client_context(self.files, peer=peer)
        return found

    def peer(self, connection: object) -> SpiffeId | None:
        """Who is at the other end of a connection that was made with one of the contexts."""
        return peer_id(connection, self.id.trust_domain)

    def renew_soon(self) -> None:
        """Do not wait until it is due."""
        self._is_asked = True
        self._wake.set()

    def snapshot(self) -> AgentState:
        return self._state

    # -- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._is_ending:
            self._wake.clear()
            try:
                wait_s = self.turn()
            except Exception as error:
                # A fault of ours must not end renewals.
                log.exception("the identity could not be looked after")
                wait_s = self._failed(f"{type(error).__name__} in the agent", None)
            if not self._is_ending:
                self._wake.wait(min(wait_s, LOOK_S))

    def turn(self) -> float:
        """Do what is due; how long to wait until the next look. For the thread, and for tests."""
        wall = self._wall()
        try:
            held = self._read()
        except IdentityRefused as error:
            return self._hopeless(error)
        if held is not None and held.is_good(wall):
            left_s = self._left_s(held, wall)
            self._has_one = True
            self._settled.set()
            if left_s > 0 and not self._is_asked:
                return left_s
        if (wait_s := self._again_at - time.monotonic()) > 0:
            return wait_s
        try:
            self.files.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with try_lock(self.files.folder / "lock") as is_ours:
                if not is_ours:
                    return BUSY_S
                # Another process may have been quicker.
                again = self._read()
                forget_drafts(self.files.folder)
                if again is None or held is None or again.serial == held.serial:
                    self._get(again, wall)
        except ControlAway as error:
            return self._failed(str(error), None)
        except IdentityRefused as error:
            return self._hopeless(error)
        except OSError as error:
            why = (error.strerror or "unknown").lower()
            return self._failed(f"{error.filename or self.files.folder}: {why}", None)
        self._pause_s = self._again_at = 0.0
        self._told = ""
        self._is_asked = False
        self._state = replace(
            self._state, renewals=self._state.renewals + 1, failures=0, trouble=""
        )
        if self._on_renewed is not None:
            self._on_renewed()
        return 0.0

    def _read(self) -> Held | None:
        """Raises IdentityRefused if the folder is somebody else's."""
        held = read_held(self.files)
        if (
            held is not None
            and self._service not in {None, held.id.service}
            and held.is_good(self._wall())
        ):
            raise IdentityRefused(
                "request",
                f"{self.files.folder} holds the identity of {held.id}, and this is "
                f"{self._service}; give each service a folder of its own",
            )
        return held

    def _left_s(self, held: Held, wall: float) -> float:
        """How long until it is renewed, by whichever clock says less."""
        mono = time.monotonic()
        due = self._due
        if due is None or due.serial != held.serial:
            at = due_at(held, self._rng.random())
            due = self._due = _Due(held.serial, at, mono + at - wall)
            self._state = replace(
                self._state, id=held.id, serial=held.serial, ends=held.ends, due=at
            )
        return min(due.wall - wall, due.mono - mono)

    def _hopeless(self, error: IdentityRefused) -> float:
        wait_s = self._failed(str(error), error.retry_after_s)
        if error.why in _FOR_GOOD:
            self._settled.set()
        return wait_s

    def _failed(self, why: str, asked_s: float | None) -> float:
        state = self._state
        failures = state.failures + 1
        life_s = state.ends - self._wall() if state.id is not None else 0.0
        self._pause_s = pause_s(failures, self._pause_s, life_s, self._rng, asked_s)
        self._again_at = time.monotonic() + self._pause_s
        self._state = replace(state, failures=failures, trouble=why)
        said = why if life_s > 0 or state.id is None else f"{why} (ended)"
        if said != self._told:
            self._told = said
            if state.id is None:
                log.warning("no identity yet: %s", why)
            elif life_s > 0:
                log.warning("%s ends in %.0f s and is not renewed: %s", state.id, life_s, why)
            else:
                log.error("%s has ended, and peers refuse it: %s", state.id, why)
        return self._pause_s

    # -- asking -------------------------------------------------------------------------------

    def _get(self, held: Held | None, wall: float) -> None:
        # Here, as with them comes all of cryptography, which a process that serves from files that
        # another one renews can do without.
        from headgate.mesh.identity.certificates import new_key, read_key, request_for
        from headgate.mesh.identity.proof import prove

        if held is not None and held.is_good(wall):
            key, key_pem = new_key()
            request = request_for(key, held.id)
            body = {
                "csr": request,
                "certificate": held.chain,
                "proof": prove(read_key(held.key_pem), request),
            }
            self._take(self._ask(RENEW, body), key_pem, held.id)
            return
        token = self._join_token()
        if not token:
            what = f"{held.id} has ended" if held is not None else "there is no identity"
            raise IdentityRefused(
                "token",
                f"{what} and no token to join with; `headgate mesh token SERVICE` makes one",
            )
        key_pem = self._next_key()
        body = {"token": token, "csr": request_for(read_key(key_pem))}
        self._take(self._ask(JOIN, body), key_pem, None)

    def _take(self, answer: dict[str, Any], key_pem: str, same: SpiffeId | None) -> None:
        """Keep what was answered, if it is what we asked for."""
        from headgate.mesh.identity.received import checked

        chain, bundle, got = checked(answer, key_pem)
        if same not in {None, got}:
            raise ControlAway(f"control answered with a certificate of {got}, and this is {same}")
        if self._service not in {None, got.service}:
            raise IdentityRefused(
                "token", f"the token is for {got.service}, and this is {self._service}"
            )
        files = self.files
        write_whole(files.bundle, bundle.encode())
        write_whole(files.identity, (chain + key_pem).encode())
        wall = self._wall()
        os.utime(files.identity, (wall, wall))
        self._next_key_path.unlink(missing_ok=True)

    @property
    def _next_key_path(self) -> Path:
        return self.files.folder / "next.key"

    def _next_key(self) -> str:
        from headgate.mesh.identity.certificates import new_key, read_key

        path = self._next_key_path
        with contextlib.suppress(OSError, ValueError):
            text = path.read_text("ascii")
            read_key(text)
            return text
        _, pem = new_key()
        write_whole(path, pem.encode())
        return pem

    def _join_token(self) -> str:
        if self._token_file is None:
            return self._token
        try:
            with self._token_file.open("rb") as file:
                return file.read(_MAX_TOKEN_FILE).decode("ascii", "replace").strip()
        except OSError as error:
            if self._token:
                return self._token
            why = (error.strerror or "unreadable").lower()
            raise IdentityRefused("token", f"the token in {self._token_file}: {why}") from None

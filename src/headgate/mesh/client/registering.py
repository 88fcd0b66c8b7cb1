"""A process that registers itself: `async with register("orders", port=3004):`.

Theory of operation
-------------------
`Lease` has the rules; here are the clock, the wire and the task that beats. Registering is tried
once before the block begins, for no longer than a moment: a registry that is away must not keep a
service from starting. From then on the task goes on trying and beating, and the service does not
hear of it but in the log.

At the end the registry is told first, and the block's end waits for `drain`: callers hear within a
fraction of a second that we are leaving, and what they have sent until then is still answered. On
SIGTERM or Ctrl-C the same happens before anybody else gets the signal (`terminating`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self
from urllib.parse import quote

from headgate.mesh.client.control import Answer, Control
from headgate.mesh.client.failures import ControlAway, ControlRefused
from headgate.mesh.client.lease import Lease, State
from headgate.mesh.client.source import control_of
from headgate.mesh.client.terminating import Terminating
from headgate.units import UnitError, parse_duration
from headgate.wire.instance_url import parse_instance_url

if TYPE_CHECKING:
    from headgate.cache.gateway_http import Gateway

__all__ = ["Registration", "RegistrationSnapshot", "Wish", "register", "wish_of"]

log: Final = logging.getLogger("headgate.mesh")

_FIRST_S: Final = 2.0
_LEAVE_S: Final = 2.0
_ASK_S: Final = 5.0
_FAULT_S: Final = 1.0
_PROBE_S: Final = 0.05
_PROBE_SLOW_S: Final = 1.0
_PROBE_PATIENCE: Final = 200
Health = Literal["up", "degraded", "down"]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of the registry, and how it is to end."""

    service: str
    id: str
    body: Mapping[str, Any]
    drain_s: float
    host: str = "127.0.0.1"
    """Where our own server is looked for."""
    port: int = 0
    unix: str | None = None


@dataclass(frozen=True, slots=True)
class RegistrationSnapshot:
    service: str
    id: str
    state: State
    fence: int
    beats: int
    trouble: str
    """Why the last try did not work; "" if it did."""


def wish_of(
    service: str,
    *,
    port: int | None = None,
    url: str | None = None,
    id: str | None = None,  # noqa: A002 - as everybody calls it
    zone: str = "",
    version: str = "",
    weight: int = 1,
    priority: int = 0,
    metadata: Mapping[str, str] | None = None,
    ttl: float | str | None = None,
    drain: float | str = 1.0,
) -> Wish:
    """Raises ValueError or TypeError for what cannot be."""
    if (port is None) == (url is None):
        raise TypeError("register says where it is: give port=3004, or url='http://10.0.0.7:3004'")
    body: dict[str, Any] = {"weight": weight, "priority": priority}
    host, number, unix = "127.0.0.1", 0, None
    if url is not None:
        try:
            found = parse_instance_url(url)
        except ValueError as error:
            raise ValueError(f"url: {error}") from None
        body["url"] = url
        host, number, unix = found.host, found.port, found.path
    elif port is not None:
        if not 0 < port < 65536:
            raise ValueError(f"port={port} is no port")
        body["port"] = port
        number = port
    if zone:
        body["zone"] = zone
    if version:
        body["version"] = version
    if metadata:
        body["metadata"] = dict(metadata)
    if ttl is not None:
        body["ttl"] = _seconds("ttl", ttl)
    return Wish(
        service,
        id if id is not None else _own_id(number, unix),
        body,
        _seconds("drain", drain, least_s=0.0),
        host,
        number,
        unix,
    )


def _own_id(port: int, unix: str | None) -> str:
    """Several processes may share a port, and each of them beats for itself."""
    host = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in _hostname())
    place = port or Path(unix or "socket").name
    return f"{host.lstrip('._-') or 'host'}-{place}-{os.getpid()}"[:128]


def _hostname() -> str:
    name = socket.gethostname()
    return name if name.isascii() else name.encode("idna").decode("ascii")


def _seconds(name: str, value: float | str, *, least_s: float = 0.001) -> float:
    try:
        found = parse_duration(value)
    except UnitError as error:
        raise ValueError(f"{name}: {error}") from None
    if found < least_s:
        raise ValueError(f"{name}: {value} is no time at all")
    return found


def register(
    service: str,
    *,
    port: int | None = None,
    url: str | None = None,
    id: str | None = None,  # noqa: A002
    zone: str = "",
    version: str = "",
    weight: int = 1,
    priority: int = 0,
    metadata: Mapping[str, str] | None = None,
    ttl: float | str | None = None,
    drain: float | str = 1.0,
    source: str | os.PathLike[str] | None = None,
    token: str | None = None,
    health: Callable[[], Health] | None = None,
    signals: bool = True,
) -> Registration:
    """Be an instance of `service` for as long as the block lasts.

    With `port` alone the registry takes the address that it sees us at. `source` is control's URL
    or the gateway's file; by default the environment says it (HEADGATE_URL, HEADGATE_TOKEN).
    `drain` is how long we go on serving after the registry has been told that we leave. `health`
    is asked before each beat. `signals`: on SIGTERM or Ctrl-C, leave first.
    """
    wish = wish_of(
        service,
        port=port,
        url=url,
        id=id,
        zone=zone,
        version=version,
        weight=weight,
        priority=priority,
        metadata=metadata,
        ttl=ttl,
        drain=drain,
    )
    where = control_of(source, token=token)
    return Registration(where, wish, health=health, signals=signals)


@dataclass(slots=True)
class _Ending:
    is_under_way: bool = False
    may_begin: asyncio.Event = field(default_factory=asyncio.Event)
    """The first try to register is over: it must not arrive behind our leaving."""
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Registration:
    """An async context manager, or `start` and `leave`."""

    def __init__(
        self,
        where: Gateway,
        wish: Wish,
        *,
        health: Callable[[], Health] | None = None,
        signals: bool = True,
        when_open: bool = False,
        rng: random.Random | None = None,
    ) -> None:
        """`when_open`: register once our own server takes connections, and not before."""
        self.wish = wish
        self.lease = Lease()
        self._where = where
        self._health = health
        self._when_open = when_open
        self._rng = rng or random.Random()
        self._control: Control | None = None
        self._task: asyncio.Task[None] | None = None
        self._signal = Terminating(self._terminate) if signals else None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._owner: asyncio.Task[Any] | None = None
        self._ending: _Ending | None = None
        self._leaver: asyncio.Task[None] | None = None
        self._path = (
            f"/api/registry/services/{quote(wish.service, safe='')}"
            f"/instances/{quote(wish.id, safe='')}"
        )
        self._said = ""
        self.beats = 0
        self.trouble = ""

    @property
    def state(self) -> State:
        return self.lease.state

    @property
    def id(self) -> str:
        return self.wish.id

    def snapshot(self) -> RegistrationSnapshot:
        lease = self.lease
        return RegistrationSnapshot(
            self.wish.service, self.wish.id, lease.state, lease.fence, self.beats, self.trouble
        )

    # -- begin and end -------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._owner = asyncio.current_task()
        if self._signal is not None:
            self._signal.install()  # first: from the moment that we are registered we may be told
        try:
            await self.start()
        except BaseException:
            if self._signal is not None:
                self._signal.remove()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.leave()
        signal = self._signal
        if signal is None:
            return
        number = signal.held if signal.nobody_waits else 0
        signal.remove()
        owner = self._owner
        if number and owner is not None and kind is asyncio.CancelledError:
            owner.uncancel()
            raise SystemExit(128 + number)  # as a shell says it of who died of it

    async def start(self) -> None:
        """Register, or go on trying if the registry is away. ControlRefused if it calls what we ask
        invalid.
        """
        if self._task is not None:
            raise RuntimeError("a registration begins once")
        loop = self._loop = asyncio.get_running_loop()
        ending = self._ending = _Ending()
        self._control = Control(self._where)
        if not self._when_open:
            await self._step(_FIRST_S)
            if self.lease.state == "invalid":
                await self._control.aclose()
                raise ControlRefused(self._control.text, 422, self.trouble)
        self._task = loop.create_task(self._run(), name="headgate-mesh-register")
        ending.may_begin.set()

    async def leave(self) -> None:
        """Tell the registry, and go on serving for `drain`. A second call waits for the first."""
        ending = self._ending
        if ending is None:
            return
        if ending.is_under_way:
            await ending.done.wait()
            return
        ending.is_under_way = True
        try:
            await self._leave()
        finally:
            ending.done.set()

    async def _leave(self) -> None:
        task, control = self._task, self._control
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
        if control is None:
            return
        was_held = self.lease.state == "held"
        self.lease.left()
        try:
            if was_held:
                path = f"{self._path}?fence={self.lease.fence}&drain={self.wish.drain_s:g}s"
                answer = await self._ask("DELETE", path, None, _LEAVE_S)
                if answer is not None and answer.status < 300 and self.wish.drain_s:
                    log.info(
                        "%s %s leaves; it goes on serving for %g s",
                        self.wish.service,
                        self.wish.id,
                        self.wish.drain_s,
                    )
                    await asyncio.sleep(self.wish.drain_s)
        finally:
            await control.aclose()

    def _terminate(self) -> None:
        """A signal has come, in the middle of anything."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._begin_leaving)

    def _begin_leaving(self) -> None:
        if self._loop is not None:
            self._leaver = self._loop.create_task(
                self._leave_by_signal(), name="headgate-mesh-leave"
            )

    async def _leave_by_signal(self) -> None:
        signal, ending = self._signal, self._ending
        try:
            if ending is not None:
                await ending.may_begin.wait()
            await self.leave()
        finally:
            if signal is not None:
                if not signal.nobody_waits:
                    signal.pass_on()
                elif self._owner is not None:
                    self._owner.cancel()

    # -- while it lasts ------------------------------------------------------------------------

    async def _run(self) -> None:
        if self._when_open:
            await self._until_open()
            await self._step(_ASK_S)
        while self.lease.next != "nothing":
            await asyncio.sleep(self.lease.wait_s(self._rng))
            try:
                await self._step(_ASK_S)
            except Exception:
                # A fault of ours: without beats nobody would send requests any more.
                log.exception("%s %s cannot tell the registry", self.wish.service, self.wish.id)
                await asyncio.sleep(_FAULT_S)

    async def _step(self, timeout_s: float) -> None:
        lease = self.lease
        if lease.next == "register":
            answer = await self._ask("PUT", self._path, self.wish.body, timeout_s)
            lease.registered(*_told(answer))
            if lease.state == "held":
                log.info("%s is registered as %s", self.wish.service, self.wish.id)
        elif lease.next == "beat":
            body: dict[str, Any] = {"fence": lease.fence}
            if self._health is not None:
                body["health"] = self._own_health()
            answer = await self._ask("POST", f"{self._path}/beat", body, timeout_s)
            if answer is not None and answer.status < 300:
                self.beats += 1
            lease.beaten(*_told(answer))
        if lease.state == "fenced":
            log.error(
                "another process has registered %s as %s since; this one is no instance of it any "
                "more. Give each process an id of its own, or leave `id` out",
                self.wish.service,
                self.wish.id,
            )
        elif lease.state == "invalid":
            log.error("the registry refuses %s: %s", self.wish.service, self.trouble)

    async def _ask(self, method: str, path: str, body: object, timeout_s: float) -> Answer | None:
        control = self._control
        if control is None:
            raise RuntimeError("a registration is started before it asks")
        try:
            answer = await control.ask(method, path, body, timeout_s=timeout_s)
        except ControlAway as error:
            self._note(str(error))
            return None
        if answer.status >= 300 and answer.status != 404:
            self._note(answer.said or f"{control.text} answers {answer.status}")
        else:
            self._note("")
        return answer

    def _note(self, trouble: str) -> None:
        self.trouble = trouble
        if trouble == self._said:
            return
        if trouble:
            log.warning(
                "%s %s cannot tell the registry: %s", self.wish.service, self.wish.id, trouble
            )
        self._said = trouble

    def _own_health(self) -> str:
        try:
            return self._health() if self._health is not None else "up"
        except Exception:
            log.exception("the health of %s cannot be told", self.wish.service)
            return "degraded"

    async def _until_open(self) -> None:
        """Until our own server takes connections: who hears of us must be able to call."""
        tries = 0
        while not await self._is_open():
            tries += 1
            if tries == _PROBE_PATIENCE:
                log.warning(
                    "%s is not registered yet: nothing listens on port %d",
                    self.wish.service,
                    self.wish.port,
                )
            await asyncio.sleep(_PROBE_S if tries < _PROBE_PATIENCE else _PROBE_SLOW_S)

    async def _is_open(self) -> bool:
        wish = self.wish
        try:
            async with asyncio.timeout(1.0):
                if wish.unix is not None:
                    _, writer = await asyncio.open_unix_connection(wish.unix)
                else:
                    _, writer = await asyncio.open_connection(wish.host, wish.port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True


def _told(answer: Answer | None) -> tuple[int, object]:
    return (0, None) if answer is None else (answer.status, answer.content)

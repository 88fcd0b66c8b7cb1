"""The mesh as one process sees it: its services, what is known of them, and what runs beside.

Theory of operation
-------------------
`Mesh` owns one `Caller` a service and, while a loop runs, three tasks: one follows the registry,
one keeps house (ejections that are over, what is kept on the disk), one reports what was called.
They begin with `async with`, or with the first call; they end with `aclose`. A mesh goes with one
event loop at a time; in the next loop it begins again, and what it knows stays.

What needs control begins without it as well: static instances are called, what was kept on the
disk counts, and a service of which nothing is known yet is waited for, within the call's own time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import ssl
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from headgate.errors import HeadgateError, UpstreamFailed
from headgate.mesh.client.attempt import Call, time_left_s
from headgate.mesh.client.calling import Caller
from headgate.mesh.client.control import Control
from headgate.mesh.client.edges import Edges
from headgate.mesh.client.failures import NoSuchService, hint_of
from headgate.mesh.client.keeping import Keeper
from headgate.mesh.client.known import Known, members_of
from headgate.mesh.client.orders import Orders
from headgate.mesh.client.policies import FIRST_S, Policies
from headgate.mesh.client.reporting import Reporter
from headgate.mesh.client.service import Service
from headgate.mesh.client.source import Source, source_of
from headgate.mesh.client.watching import Watcher
from headgate.mesh.http import HttpClient, PoolSizes
from headgate.plan.calls import CallTls, unsaid
from headgate.plan.members import NO_MEMBERS, Members
from headgate.wire.connect import Tls

if TYPE_CHECKING:
    from headgate.mesh.client.response import Response
    from headgate.mesh.client.sending import Sender
    from headgate.plan.calls import CallPlan, CallPool
    from headgate.wire.instance_url import InstanceUrl
    from headgate.wire.message import Header

__all__ = ["Mesh"]

log: Final = logging.getLogger("headgate.mesh")

_SWEEP_S: Final = 1.0
_TOLD_S: Final = 5.0
"""How long a call waits at most for the first word of the registry."""
_SERVICES_MAX: Final = 2000
"""Names of services are a program's own. More of them are a mistake, such as a path for a name."""


class Identity(Protocol):
    """Who we are: `headgate.mesh.identity.agent.Agent`."""

    def tls_for(self, service: str, host: str = "") -> ssl.SSLContext:
        """How to connect to this service, and to no other."""


class Mesh:
    """Services by name. `source` is the gateway's file or folder, or the URL of control; without
    one, the environment says it (see `source`).

    `name` is the service that calls: whoever is asked is told, and so is control. `keep` is a file
    for what the registry says, so that a process can call before control answers. `zone` is where
    this process is; instances of the same zone are preferred. `identity` is an `Agent`, whose
    certificate is shown to `https` instances of which the file says no other.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Source | None = None,
        *,
        name: str | None = None,
        control: str | None = None,
        token: str | None = None,
        keep: str | os.PathLike[str] | None = None,
        zone: str | None = None,
        identity: Identity | None = None,
        report: bool = True,
        sender: Sender | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        env = os.environ if environ is None else environ
        self.name = name if name is not None else env.get("HEADGATE_SERVICE", "")
        if not self.name.isascii() or not self.name.isprintable():
            raise ValueError(f"name={self.name!r}: a service's name is plain letters and digits")
        self._find = partial(source_of, source, url=control, token=token, environ=env)
        self.source = self._find()
        self._zone = zone
        self._plans = self._in_zone(self.source.plans)
        self._is_remote = self.source.control is not None and not self._plans
        """There is no file here: control says how services are called."""
        self._is_ready = not self._is_remote
        """It is known how services are called, or that nobody says it."""
        self._identity = identity
        self._own_sender = sender
        self._reports = report
        self._rng = random.Random()
        self._edges = Edges()
        self._callers: dict[str, Caller] = {}
        self._services: dict[str, Service] = {}
        self._members: dict[str, Members] = {}
        self._orders = Orders()
        self._clients: dict[CallPool, HttpClient] = {}
        self._keeper = Keeper(Path(keep)) if keep is not None else None
        self._known = self._keeper.load() if self._keeper is not None else Known()
        self._waiting: dict[str, asyncio.Event] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._control: Control | None = None
        self._watcher: Watcher | None = None
        self._reporter: Reporter | None = None
        self._is_closed = False
        self._is_entered = False
        self._transports = 0
        """Of httpx, which are closed with their clients."""
        told = [(b"user-agent", b"headgate-mesh")]
        if self.name:
            told.append((b"x-headgate-caller", self.name.encode("ascii")))
        self._told = tuple(told)

    # -- services ------------------------------------------------------------------------------

    def service(self, name: str, *, openapi: object = None) -> Service:
        """The service of this name: one of the file, or whoever registers as it. NoSuchService
        where there is no registry to ask.

        `openapi` is its document for `call`: a mapping, a file, or a path of the service itself.
        """
        if openapi is not None:
            return Service(self, self.caller(name), openapi=openapi)
        found = self._services.get(name)
        if found is None:
            found = self._services[name] = Service(self, self.caller(name))
        return found

    def caller(self, name: str) -> Caller:
        found = self._callers.get(name)
        if found is not None:
            return found
        plan = self._plans.get(name)
        hint = ""
        if plan is None:
            if self.source.is_file_alone:
                raise NoSuchService(name, self.source.text, self._plans)
            if not name or not name.isprintable() or "/" in name or len(name) > 128:
                raise ValueError(f"{name[:80]!r} is no name of a service")
            plan = self._unsaid(name)
            if self._plans:
                near = hint_of(name, self._plans)
                hint = f"; {self.source.text} does not name it{f': {near}' if near else ''}"
        if plan.http == "2":
            raise HeadgateError(
                f'the file says of {name} `http: "2"`; services call each other by HTTP/1.1: '
                "call it through the gateway, or take the line out"
            )
        if plan.tls.identity and self._identity is None:
            raise HeadgateError(
                f"the file wants who calls {name} to have an identity (tls: {{identity: mesh}}): "
                "give Mesh(..., identity=Agent(...)), see headgate.mesh.identity.agent"
            )
        if len(self._callers) >= _SERVICES_MAX:
            raise HeadgateError(
                f"more than {_SERVICES_MAX} services are called; {name[:80]!r} is one more"
            )
        found = self._callers[name] = Caller(
            plan,
            self._sender_for(plan.pool),
            self._edges.to(name),
            rng=self._rng,
            reach=self._reach,
            fall_back=self._fall_back,
        )
        found.hint = hint
        self._renew(name)
        self._want(found)
        return found

    def reload(self) -> None:
        """Read the file again. A faulty one raises ConfigInvalid, and what was in force stays; what
        is known of instances, breakers and budgets stays in any case.
        """
        source = self._find()
        self.source = source
        if not self._is_remote:
            self._take_plans(source.plans)

    def transport(self) -> Any:
        """For `httpx.AsyncClient(transport=...)`: `http://users/...` is asked of the service."""
        from headgate.mesh.client.transporting import MeshSender
        from headgate.mesh.http.transports import MeshTransport

        return MeshTransport(MeshSender(self))

    def sync_transport(self) -> Any:
        """The same for `httpx.Client`. Such a mesh runs in a thread of its own: use it for nothing
        else.
        """
        from headgate.mesh.client.transporting import MeshSender
        from headgate.mesh.http.transports import SyncMeshTransport

        return SyncMeshTransport(MeshSender(self))

    # -- while a loop runs ---------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self.begin()
        self._is_entered = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def hold(self) -> None:
        """A transport of httpx calls by it, until it lets go."""
        self._transports += 1

    async def let_go(self) -> None:
        """The last transport closes a mesh that was made for it, and none that was entered."""
        self._transports -= 1
        if not self._transports and not self._is_entered:
            await self.aclose()

    def is_running_here(self) -> bool:
        """Whether what runs beside the calls runs in this loop."""
        return self._loop is asyncio.get_running_loop()

    def begin(self) -> None:
        """Begin in this loop. Calls do so themselves."""
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._is_closed:
            raise UpstreamFailed("closed", "the mesh is closed; make another")
        if self._loop is not None and not self._loop.is_closed():
            raise RuntimeError(
                "this mesh belongs to another event loop that still runs; make one for each"
            )
        self._loop = loop
        self._tasks = []
        where = self.source.control
        if where is not None:
            self._control = Control(where)
            self._watcher = Watcher(
                self._control, self._known, self._changed, self._rng, self._ordered
            )
            for caller in self._callers.values():
                self._want(caller)
            self._run(self._watcher.run(), "headgate-mesh-watch")
            if self._is_remote:
                policies = Policies(self._control, self._take_plans, self._rng)
                self._run(policies.run(), "headgate-mesh-policies")
                loop.call_later(FIRST_S, self._go_on)
            if self._reports:
                self._reporter = Reporter(
                    self._control, self._edges, self.name, self._callers, self._rng
                )
                self._run(self._reporter.run(), "headgate-mesh-report")
        self._run(self._keep_house(), "headgate-mesh-house")

    async def aclose(self) -> None:
        """End it: calls under way are told `closed`."""
        self._is_closed = True
        tasks, self._tasks = self._tasks, []
        if self.is_running_here():  # what ran in a loop that has ended has ended with it
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            if self._reporter is not None:
                await self._reporter.last()
        for client in self._clients.values():
            await client.aclose()
        if self._control is not None:
            await self._control.aclose()
        if self._keeper is not None:
            self._keeper.write(self._known)
        self._loop = None  # who calls from now on is told that it is closed

    def _run(self, work: Any, name: str) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(work, name=name)
        task.add_done_callback(_ended)
        self._tasks.append(task)

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = monotonic()
            for caller in self._callers.values():
                caller.serving.sweep(now)
            for name in self._orders.over(now):
                self._order(name, now)
            if self._keeper is not None:
                await self._keeper.keep(self._known)

    # -- instances -----------------------------------------------------------------------------

    def _is_told(self, caller: Caller) -> bool:
        """Whether there is nothing to wait for before the first call of a service."""
        if not self._is_ready:
            return False
        return not caller.plan.is_discovered or self._known.of(caller.plan.name) is not None

    def call(self, caller: Caller, call: Call) -> Awaitable[Response]:
        """Call, with what runs beside calls running. No coroutine of its own: it is on the way of
        each call.
        """
        if self._loop is not asyncio.get_running_loop():
            self.begin()
        return caller.call(call) if caller.size else self._call_when_told(caller, call)

    async def _call_when_told(self, caller: Caller, call: Call) -> Response:
        await self.wait_told(caller, call)
        return await caller.call(call)

    async def wait_told(self, caller: Caller, call: Call) -> None:
        """Until something is known of a service that is called for the first time."""
        watcher = self._watcher
        if watcher is None or self._is_told(caller):
            return
        name = caller.plan.name
        most_s = min(_TOLD_S, time_left_s(call, caller.plan.timeouts.total_s))
        if call.timeouts is not None:
            most_s = min(most_s, call.timeouts.connect_s)
        try:
            async with asyncio.timeout(most_s):
                while not self._is_told(caller):
                    await self._waiting.setdefault(name, asyncio.Event()).wait()
        except TimeoutError:
            why = watcher.trouble or f"{self.source.text} has not answered yet"
            raise UpstreamFailed(
                "no_instance", f"{name}: nothing is known of its instances; {why}{caller.hint}"
            ) from None

    def _changed(self, name: str) -> None:
        """The registry has said something new of a service."""
        if self._keeper is not None:
            self._keeper.is_due = True
        self._renew(name)

    def _want(self, caller: Caller) -> None:
        """Hear of a service: of its instances, or of what operators say of those of the file."""
        if self._watcher is not None:
            self._watcher.want(caller.plan.name, for_orders=not caller.plan.is_discovered)

    def _ordered(self, rows: list[object]) -> None:
        """Operators have said something of instances, or have taken it back."""
        now = monotonic()
        for name in self._orders.take(rows, now):
            self._order(name, now)

    def _order(self, name: str, now: float) -> None:
        caller = self._callers.get(name)
        if caller is not None:
            self._orders.onto(name, caller.serving, now)

    def _renew(self, name: str) -> None:
        """Bring a service's caller in line with what is known of its plan and its instances."""
        caller = self._callers.get(name)
        if caller is None or not self._is_ready:
            return
        plan = self._plans.get(name) or self._unsaid(name)
        found = self._known.of(name) if plan.is_discovered else None
        members = NO_MEMBERS
        if found is not None:
            try:
                members = members_of(found, self._members.get(name, NO_MEMBERS))
            except (ValueError, TypeError, KeyError) as error:
                log.warning("instances of %s cannot be read: %s", name, error)
                return
            self._members[name] = members
        caller.take(plan, members)
        self._order(name, monotonic())
        event = self._waiting.pop(name, None)
        if event is not None:
            event.set()

    def _take_plans(self, plans: Mapping[str, CallPlan] | None) -> None:
        """How services are called from now on; None: nobody says it."""
        if plans is not None:
            self._plans = self._in_zone(plans)
        elif self._is_ready:
            return
        self._is_ready = True
        for name, caller in self._callers.items():
            self._renew(name)
            self._want(caller)

    def _go_on(self) -> None:
        """Nobody has said in time how services are called: as they are by default."""
        self._take_plans(None)

    def _unsaid(self, name: str) -> CallPlan:
        return unsaid(name, zone=self._zone if self._zone is not None else self.source.zone)

    def _in_zone(self, plans: Mapping[str, CallPlan]) -> Mapping[str, CallPlan]:
        """Where we are, and not where the gateway is, if that was said."""
        zone = self._zone
        if zone is None:
            return plans
        return {
            name: replace(plan, balance_rules=replace(plan.balance_rules, zone=zone))
            for name, plan in plans.items()
        }

    # -- what callers are given ----------------------------------------------------------------

    def _sender_for(self, pool: CallPool) -> Sender:
        if self._own_sender is not None:
            return self._own_sender
        found = self._clients.get(pool)
        if found is None:
            found = self._clients[pool] = HttpClient(
                PoolSizes(pool.connections, pool.idle, pool.idle_timeout_s, pool.queue)
            )
        return found

    def _reach(self, plan: CallPlan, url: InstanceUrl) -> tuple[Tls | None, tuple[Header, ...]]:
        if url.scheme != "https":
            return None, self._told
        identity = self._identity
        if identity is not None and (plan.tls.identity or plan.tls == CallTls()):
            # The file says nothing else: both show who they are, so that nobody has to say it.
            context = identity.tls_for(plan.tls.peer or plan.name, url.host)
            return Tls(context, url.host), self._told[:1]
        from headgate.wire.tls import HTTP1, upstream_context  # it reads certificates, and is heavy

        context = upstream_context(plan.tls, HTTP1)
        return Tls(context, plan.tls.server_name or url.host), self._told

    async def _fall_back(self, name: str, call: Call) -> Response:
        caller = self.caller(name)
        if not caller.size:
            await self.wait_told(caller, call)
        return await caller.call_instead(call)

    # -- seen ----------------------------------------------------------------------------------

    def snapshot(self) -> Mapping[str, Any]:
        """What is known and counted, by service."""
        return {name: self.snapshot_of(caller) for name, caller in self._callers.items()}

    def snapshot_of(self, caller: Caller) -> Mapping[str, Any]:
        now = monotonic()
        serving = caller.serving
        budget = caller.budget
        return {
            "group": serving.group.snapshot(now),
            "breakers": tuple(each.snapshot(now) for each in serving.all_breakers()),
            "budget": budget.snapshot(now) if budget is not None else None,
            "edge": caller.edge.snapshot(),
        }

    @property
    def services(self) -> Sequence[str]:
        """Those that the file names, and those that were called."""
        return sorted({*self._plans, *self._callers})

    def __repr__(self) -> str:
        return f"<Mesh {self.source.text}{f' as {self.name}' if self.name else ''}>"


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("%s has ended", task.get_name(), exc_info=task.exception())

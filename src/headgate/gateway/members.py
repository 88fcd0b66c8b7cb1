"""Instances that come and go while a plan stays: what was heard of them, and what it changes.

Theory of operation
-------------------
Control tells the instances that discovery finds on the topic `members`, one message a service, with
all of them in it. The last of each service is kept here for the life of the worker: plans come and
go, and control may be away for long, and meanwhile what was heard last holds. A plan that is taken
up is given what is known (`join`), so a reload finds the instances that served before it. A
worker that starts while control is away begins with what control has kept on the disk
(`members_file`), which its first word replaces.

A message is acted upon in one go, between two requests:

1. pools are made for those that came,
2. the service's state takes the new plan: from here on nobody is picked that went,
3. pools of those that went are let go; who waits in one finds another instance,
4. counters and affinity follow, and news and orders about them that came too early are heard again.

Requests in flight are not touched: they hold their instance and its connection until they end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol

from headgate.gateway.members_file import AGE_MAX_S, members_path, read_members
from headgate.plan.members import NO_MEMBERS, Members, joined, read

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from headgate.gateway.lines import Lines
    from headgate.gateway.states import States
    from headgate.observe import Rows, WorkerStats
    from headgate.plan.plan import Plan, ServicePlan
    from headgate.state.home import Message

log: Final = logging.getLogger("headgate.gateway")

MEMBERS_TOPIC: Final = "members"
FIRST_NEWS_S: Final = 1.0
_LOOK_S: Final = 0.01
_SERVICES_MAX: Final = 10_000
"""Services whose instances are remembered while no plan asks for them; the oldest make room."""


class Home(Protocol):
    """The board of this machine."""

    @property
    def is_away(self) -> bool: ...
    def remember(self, topic: str, message: Message, *, retain: str, version: int) -> None: ...


class ServiceMembers:
    def __init__(
        self,
        states: States,
        lines: Lines,
        stats: WorkerStats,
        tell_again: Callable[[str, Collection[str]], None],
    ) -> None:
        self._states = states
        self._lines = lines
        self._stats = stats
        self._tell_again = tell_again
        """Have what was said of a service's instances heard again."""
        self._heard: dict[str, Members] = {}
        self._of_file: Mapping[str, ServicePlan] = {}
        """Services of the plan that serves, with what the file alone says."""
        self._changes: dict[str, int] = {}
        self._unread = 0
        """Messages that could not be read, in part or in whole."""

    # -- plans ---------------------------------------------------------------------------------

    async def wait_for_news(self, plan: Plan, home: Home | None, state_dir: Path) -> None:
        """Before the first plan serves: what is retained is told as soon as control answers, and a
        worker that takes a seat while others serve must not answer that nobody is known. Where
        control does not answer, what it left on the disk is gone by until it does.
        """
        if home is None or not any(one.discover is not None for one in plan.services.values()):
            return
        until = monotonic() + FIRST_NEWS_S
        while home.is_away and monotonic() < until:  # noqa: ASYNC110  it tells nobody of its return
            await asyncio.sleep(_LOOK_S)
        if home.is_away:
            await self._hear_kept(plan, home, members_path(state_dir))

    async def _hear_kept(self, plan: Plan, home: Home, path: Path) -> None:
        try:
            kept = await asyncio.to_thread(read_members, path)
        except (OSError, ValueError) as error:
            log.warning("control is away, and %s cannot be read: %s", path, error)
            return
        wall = time.time()  # noqa: TID251  written by another process
        age_s = max(0.0, wall - kept.at) if kept is not None else 0.0
        if kept is None or age_s > AGE_MAX_S:
            log.info("control is away, and nothing is known of instances that it finds")
            return
        services = instances = 0
        for name, message in kept.messages.items():
            service = plan.services.get(name)
            if service is None or service.discover is None or message.get("service") != name:
                continue
            version = int(kept.at * 1e6)
            home.remember(MEMBERS_TOPIC, message, retain=name, version=version)
            heard = self._heard.get(name)
            if heard is not None:
                services, instances = services + 1, instances + len(heard.found)
        log.info(
            "control is away: %d instances of %d services are taken as of %.0f s ago",
            instances,
            services,
            age_s,
        )

    def join(self, plan: Plan) -> Plan:
        """The plan with the instances that are known."""
        found = {
            name: joined(service, self._heard.get(name, NO_MEMBERS))
            for name, service in plan.services.items()
            if service.discover is not None
        }
        return replace(plan, services={**plan.services, **found}) if found else plan

    def take(self, of_file: Mapping[str, ServicePlan]) -> None:
        """A plan serves now: these are its services, before they were joined."""
        self._of_file = of_file

    # -- news ----------------------------------------------------------------------------------

    def hear(self, message: Mapping[str, Any]) -> None:
        """A message of the topic. It is kept for a plan to come, so that it is always heeded."""
        name = str(message.get("service"))
        before = self._heard.get(name, NO_MEMBERS)
        try:
            heard = read(message, before)
        except (TypeError, ValueError, KeyError) as error:
            self._unread += 1
            log.error("members of %.100s cannot be read: %.300s", ascii(name), error)  # noqa: TRY400
            return
        if heard is None:
            return
        self._unread += bool(heard.unread)
        if heard.unread and heard.fault != before.fault:
            log.error("%d members of %.100s left out: %s", heard.unread, ascii(name), heard.fault)
        self._keep(name, heard)
        of_file = self._of_file.get(name)
        if of_file is not None and of_file.discover is not None and heard.found != before.found:
            self._change(joined(of_file, heard), monotonic())

    def rows_into(self, rows: Rows) -> None:
        for name, count in self._changes.items():
            rows["headgate_members_changes_total"].append(([name], count))
        rows["headgate_members_unread_total"].append(([], self._unread))

    def _keep(self, name: str, heard: Members) -> None:
        self._heard.pop(name, None)
        self._heard[name] = heard
        if len(self._heard) > _SERVICES_MAX:
            unused = next((each for each in self._heard if each not in self._of_file), None)
            if unused is not None:
                del self._heard[unused]

    def _change(self, plan: ServicePlan, now: float) -> None:
        name = plan.name
        self._changes[name] = self._changes.get(name, 0) + 1
        state = self._states.services[name]
        went = self._lines.take(plan, state.line_of)
        came = state.take(plan, now)
        self._lines.let_go(went)
        if state.signer is not None:
            state.signer.take_members(state.line_of)
        for line in went:
            self._stats.let_go_instance(name, line.name)
        self._tell_again(name, came)

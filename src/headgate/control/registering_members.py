"""What workers are told of the instances that were found: topic `members`, a message a service.

Theory of operation
-------------------
Services that say `discover` have their instances told, whole, retained under the service's name.
What happens to a service within `TOGETHER_S` is told once. Telling two thousand instances takes
some milliseconds, so what a telling took stretches the time to the next: a service that churns
takes no more than a fifth of the loop, and no change waits longer than `LONGEST_S`.

After a start that cannot be sure to know everything (the file was lost, or the process was killed
before the last change was on disk) there is a time of grace: what workers said they had been told
before is told on, beside what is known, until those who live had the time to say so. So a registry
that has lost its memory takes no traffic from anybody. For the first `HOLD_S` of it a service of
which no worker has spoken yet is not told at all, since what is told last holds.

Pure but for the clock of the loop, which calls back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol

from headgate.mesh.registry.model import Instance
from headgate.plan.members import NO_MEMBERS, joined, read
from headgate.plan.members import Members as Found
from headgate.plan.plan import Plan

__all__ = ["TOPIC", "Members", "member_row"]

TOPIC: Final = "members"
TOGETHER_S: Final = 0.02
LONGEST_S: Final = 0.15
HOLD_S: Final = 1.0
_STRETCH: Final = 5.0

Later = Callable[[float, Callable[[], None]], object]


class Listed(Protocol):
    """What is read of the book."""

    epoch: str
    revision: int

    def of(self, service: str) -> list[Instance]: ...


def member_row(instance: Instance) -> dict[str, Any]:
    return {
        "id": instance.id,
        "url": instance.url,
        "weight": instance.weight,
        "priority": instance.priority,
        "zone": instance.zone,
        # One that says of itself that it is down keeps its place and gets nothing new.
        "draining": instance.state == "draining" or instance.health == "down",
    }


class Members:
    def __init__(
        self,
        book: Listed,
        publish: Callable[[str, dict[str, Any], str], None],
        forget: Callable[[str, str], None],
        later: Later,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.book = book
        self._publish = publish
        self._forget = forget
        self._later = later
        self._clock = clock
        self._services: dict[str, bool] = {}
        """Each with whether it is open to those who register themselves."""
        self._pending: set[str] = set()
        self._took_s: dict[str, float] = {}
        self._said: dict[str, list[dict[str, Any]]] = {}
        self._messages: dict[str, dict[str, Any]] = {}
        self._read: dict[str, tuple[dict[str, Any], Found]] = {}
        self._joined: tuple[Plan, int, Plan] | None = None
        self._kept: dict[str, list[Mapping[str, Any]]] = {}
        self._in_grace = False
        self._is_holding = False
        self.told = 0
        self.on_told: Callable[[], None] = lambda: None

    # ---- what is told

    def take(self, services: Mapping[str, bool]) -> None:
        """The services of the file that say `discover` from now on, each with whether those count
        that registered themselves: another control process may have let them.
        """
        before, self._services = self._services, dict(services)
        for gone in before.keys() - self._services.keys():
            for known in (self._said, self._took_s, self._messages, self._read):
                known.pop(gone, None)
            self._forget(TOPIC, gone)
        self.changed(dict(self._services.items() - before.items()))

    @property
    def services(self) -> Mapping[str, bool]:
        """Those that are told."""
        return self._services

    @property
    def messages(self) -> Mapping[str, dict[str, Any]]:
        """What was told last of each."""
        return self._messages

    def hush(self) -> None:
        """Tell nothing more: workers keep what they heard last."""
        self._services = {}

    def changed(self, services: Iterable[str]) -> None:
        """Something happened to these; they are told in a moment."""
        for service in services:
            if service in self._services and service not in self._pending:
                self._pending.add(service)
                wait_s = max(TOGETHER_S, min(LONGEST_S, self._took_s.get(service, 0.0) * _STRETCH))
                self._later(wait_s, partial(self._tell, service))

    def _tell(self, service: str) -> None:
        self._pending.discard(service)
        if service not in self._services or (self._is_holding and service not in self._kept):
            return
        began = self._clock()
        rows = [member_row(one) for one in self.book.of(service) if self._counts(one)]
        if self._in_grace:
            known = {row["url"] for row in rows}
            rows += [dict(row) for row in self._kept.get(service, ()) if row["url"] not in known]
        if self._said.get(service) != rows:
            self._said[service] = rows
            self.told += 1
            message = {
                "service": service,
                "epoch": self.book.epoch,
                "revision": self.book.revision,
                "members": rows,
            }
            self._messages[service] = message
            self._publish(TOPIC, message, service)
            self.on_told()
        self._took_s[service] = self._clock() - began

    def _counts(self, one: Instance) -> bool:
        # What stands in the file is in the workers' plan already.
        return one.source != "file" and (one.source != "self" or self._services[one.service])

    def joined(self, plan: Plan) -> Plan:
        """The plan as workers have it: with those that were told beside those of the file."""
        if self._joined is not None and self._joined[0] is plan and self._joined[1] == self.told:
            return self._joined[2]
        found = {
            name: joined(plan.services[name], self._found(name))
            for name in self._messages
            if name in plan.services
        }
        made = replace(plan, services={**plan.services, **found}) if found else plan
        self._joined = (plan, self.told, made)
        return made

    def _found(self, service: str) -> Found:
        message = self._messages[service]
        before, known = self._read.get(service, (None, NO_MEMBERS))
        if before is message:
            return known
        # A number of this process alone: a message that says less is no older for that.
        now = read({**message, "epoch": "", "revision": self.told}, known) or known
        self._read[service] = (message, now)
        return now

    # ---- grace

    def hear(self, message: Mapping[str, Any]) -> None:
        """What a worker was told by a control process before this one."""
        service = message.get("service")
        rows = message.get("members")
        if not isinstance(service, str) or not isinstance(rows, list):
            return
        self._said.pop(service, None)  # it may differ from what we told
        self._kept[service] = [
            row for row in rows if isinstance(row, dict) and isinstance(row.get("url"), str)
        ]
        self.changed([service])

    def begin_grace(self, hold_s: float = HOLD_S) -> None:
        self._in_grace = True
        self._is_holding = True
        self._later(hold_s, self._end_hold)

    def _end_hold(self) -> None:
        self._is_holding = False
        self.changed(self._services.keys() - self._said.keys())

    def end_grace(self) -> None:
        """From now on what is not known is gone."""
        self._in_grace = self._is_holding = False
        self._kept.clear()
        self.changed(self._services)

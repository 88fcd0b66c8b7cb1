"""Telling control who was called and what became of it, every few seconds.

Theory of operation. Nobody waits for a report. What did not arrive goes along with the next one
(`edges`); a control process that is away is asked less and less often, and one that knows no
reports every ten minutes only.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from headgate.mesh.client.failures import ControlAway
from headgate.mesh.client.watching import wait_s

if TYPE_CHECKING:
    from headgate.mesh.client.calling import Caller
    from headgate.mesh.client.control import Control
    from headgate.mesh.client.edges import Edges

__all__ = ["EVERY_S", "Reporter"]

log: Final = logging.getLogger("headgate.mesh")

EVERY_S: Final = 5.0
_PATH: Final = "/api/mesh/report"
_LONGEST_S: Final = 60.0
_UNKNOWN_S: Final = 600.0
_LAST_S: Final = 1.0


class Reporter:
    def __init__(
        self,
        control: Control,
        edges: Edges,
        name: str,
        callers: Mapping[str, Caller],
        rng: random.Random,
        *,
        every_s: float = EVERY_S,
    ) -> None:
        self._control = control
        self._edges = edges
        self._name = name
        self._callers = callers
        self._rng = rng
        self._every_s = every_s
        self._process = f"{socket.gethostname()}-{os.getpid()}"
        self._were_open: set[str] = set()
        self.told_total = 0
        """Reports that arrived."""

    async def run(self) -> None:
        failures = 0
        left_s = self._every_s * (0.5 + 0.5 * self._rng.random())
        while True:
            await asyncio.sleep(left_s)
            status = await self.tell()
            if status in (404, 405, 401, 403):
                left_s = _UNKNOWN_S
            elif 200 <= status < 300:
                failures = 0
                left_s = self._every_s
            else:
                failures += 1
                longest_s = max(self._every_s, _LONGEST_S)
                left_s = max(self._every_s, wait_s(failures + 5, self._rng, longest_s=longest_s))

    async def tell(self, timeout_s: float = 5.0) -> int:
        """Send what has been counted; the status of the answer, 0 for none."""
        now = monotonic()
        edges = self._edges.take()
        breakers, are_open = self._breakers(now)
        if not edges and not breakers:
            return 200
        body = {
            "source": self._name,
            "process": self._process,
            "every_s": self._every_s,
            "edges": [each.to_json() for each in edges],
            "breakers": breakers,
        }
        try:
            answer = await self._control.ask("POST", _PATH, body, timeout_s=timeout_s)
        except ControlAway:
            return 0
        if 200 <= answer.status < 300:
            self._edges.taken()
            self._were_open = are_open
            self.told_total += 1
        else:
            log.debug("control takes no report: %s %s", answer.status, answer.said)
        return answer.status

    async def last(self) -> None:
        """At the end: what is left, if control is there to hear it."""
        if self._edges.take():
            await self.tell(_LAST_S)

    def _breakers(self, now: float) -> tuple[list[dict[str, Any]], set[str]]:
        """Those that do not let everything through, and those that do again."""
        found: list[dict[str, Any]] = []
        are_open: set[str] = set()
        for service, caller in self._callers.items():
            for breaker in caller.serving.all_breakers():
                is_open = breaker.state != "closed"
                if not is_open and breaker.name not in self._were_open:
                    continue
                if is_open:
                    are_open.add(breaker.name)
                snapshot = breaker.snapshot(now)
                found.append(
                    {
                        "service": service,
                        "name": breaker.name,
                        "state": snapshot.state,
                        "retry_after_s": round(snapshot.retry_after_s, 3),
                        "opens_in_a_row": snapshot.opens_in_a_row,
                    }
                )
        return found, are_open

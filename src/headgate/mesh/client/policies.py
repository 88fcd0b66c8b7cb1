"""The file's policies for who has no file: control hands out what a caller has to know of it.

Theory of operation. `GET /api/mesh/sidecar` answers with that part of the gateway's file which is
about calls, and waits for the next one. So a change of the file holds for callers elsewhere as soon
as for workers. Until the first word is there, calls wait for it, but not for long; when there is
none, because control is away or does not know of such things, the policies' own defaults hold.
What was heard last stays in force while control is away.

A part that cannot be used is said in the log, and the one before it stays.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from headgate.errors import HeadgateError
from headgate.mesh.client.failures import ControlAway
from headgate.mesh.client.watching import wait_s

if TYPE_CHECKING:
    from headgate.mesh.client.control import Control
    from headgate.plan.calls import CallPlan

__all__ = ["FIRST_S", "Policies", "plans_of"]

log: Final = logging.getLogger("headgate.mesh")

_PATH: Final = "/api/mesh/sidecar"
_WAIT_S: Final = 15.0
_ASK_S: Final = 10.0
_PAUSE_S: Final = 0.2
_UNKNOWN_S: Final = 600.0
FIRST_S: Final = 4.0
"""How long calls wait for the first word of control about policies: what reads files is loaded for
it. Control that is away is known to be so at once, and nobody waits."""


class Policies:
    def __init__(
        self,
        control: Control,
        on_plans: Callable[[Mapping[str, CallPlan] | None], None],
        rng: random.Random,
    ) -> None:
        """`on_plans` hears of the services of the file; of None when nothing is known of any."""
        self._control = control
        self._on_plans = on_plans
        self._rng = rng
        self._said = ""

    async def run(self) -> None:
        tag, failures = "", 0
        while True:
            wait = _WAIT_S if tag else 0.0
            path = f"{_PATH}?known={tag}&wait={wait:g}"
            try:
                answer = await self._control.ask("GET", path, timeout_s=wait + _ASK_S)
            except ControlAway:
                if not tag:
                    self._on_plans(None)
                await asyncio.sleep(wait_s(failures, self._rng))
                failures += 1
                continue
            content = answer.content
            if answer.status != 200 or not isinstance(content, dict):
                if not tag:
                    self._on_plans(None)
                is_refused = 400 <= answer.status < 500
                await asyncio.sleep(_UNKNOWN_S if is_refused else wait_s(failures, self._rng))
                failures += 1
                continue
            failures = 0
            if content.get("portion") is not None:
                tag = "".join(filter(str.isalnum, str(content.get("tag", ""))))[:64]
                await self._take(content["portion"])
            await asyncio.sleep(_PAUSE_S * self._rng.random())

    async def _take(self, portion: object) -> None:
        try:
            # It is a file's worth of reading, and what reads files is loaded with it.
            plans = await asyncio.to_thread(plans_of, portion)
        except (HeadgateError, ValueError) as error:
            if self._said != str(error):
                self._said = str(error)
                log.warning("the policies that control has cannot be used: %s", error)
            return
        self._said = ""
        self._on_plans(plans)


def plans_of(portion: object) -> Mapping[str, CallPlan]:
    """Raises ConfigInvalid or ValueError."""
    if not isinstance(portion, dict):
        raise ValueError("is no part of a file")
    services = portion.get("services")
    if not services:
        return {}
    from headgate.config import from_document
    from headgate.plan.calls import of_config

    document: dict[str, Any] = {
        name: portion[name] for name in _SAID if portion.get(name) is not None
    }
    mesh = portion.get("mesh")
    if isinstance(mesh, dict) and mesh.get("trust_domain"):
        document["mesh"] = {"trust_domain": mesh["trust_domain"]}
    document["services"] = services
    document["listeners"] = [{"bind": "127.0.0.1:1"}]  # a file has one; nobody listens there
    document["routes"] = [{"match": {"path": "/"}, "respond": {"status": 404}}]
    return of_config(from_document(document))


_SAID: Final = ("timeout", "retry", "hedge", "balance", "outlier", "breaker", "fallback")

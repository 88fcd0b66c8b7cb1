"""The process in the registry: registered once it is well, kept there, and taken out at the end.

Theory of operation. The rules are a client's (`mesh.client.lease`); here the process is another
one, which is looked at before it is registered and before each beat. One that stops being well
keeps its lease and is told as `down`, so that nobody calls it; a single bad look is forgiven. While
control is away nothing changes but that beats are tried again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from headgate.mesh.client.failures import ControlAway
from headgate.mesh.client.lease import Lease

if TYPE_CHECKING:
    from headgate.mesh.client.control import Control

__all__ = ["Registered"]

log: Final = logging.getLogger("headgate.sidecar")

_LOOK_EVERY_S: Final = 0.5
_FORGIVEN: Final = 1
_LEAVE_S: Final = 3.0
_GONE_S: Final = 1.0


class Registered:
    def __init__(
        self,
        control: Control,
        service: str,
        id: str,  # noqa: A002 - the registry's name
        asked: dict[str, Any],
        is_well: Callable[[], Awaitable[bool]],
        rng: random.Random,
    ) -> None:
        """`asked` is the body that registers: `url`, `zone`, ..."""
        self._control = control
        self._path = (
            f"/api/registry/services/{quote(service, safe='')}/instances/{quote(id, safe='')}"
        )
        self._name = f"{service} {id}"
        self._asked = asked
        self._is_well = is_well
        self._rng = rng
        self._bad_looks = 0
        self._health = "up"
        self._left: int | None = None
        """The fence that it left with."""
        self._said = ""
        self.lease = Lease()

    async def run(self) -> None:
        """For as long as it lives, or until another has our id."""
        lease = self.lease
        while lease.next != "nothing":
            if lease.next == "beat":
                await self._beat()
            elif await self._is_well():
                await self._register()
            else:
                self._say("the process does not answer yet; it is registered once it does")
                await asyncio.sleep(_LOOK_EVERY_S)
                continue
            await asyncio.sleep(lease.wait_s(self._rng))
        if lease.state == "fenced":
            # Two that take it from each other would help nobody.
            log.error(
                "another process has registered as %s: this one is not in the registry any more; "
                "give each its own --id",
                self._name,
            )

    async def _register(self) -> None:
        status, content = await self._ask("PUT", self._path, self._asked)
        lease = self.lease
        if lease.state == "left":
            # The end came while we waited: what was just given is handed back.
            fence = content.get("fence") if isinstance(content, dict) else None
            if isinstance(fence, int):
                await self._delete(fence, 0.0, _GONE_S)
            return
        lease.registered(status, content)
        if lease.state == "held":
            self._health, self._bad_looks = "up", 0
            log.info("%s is registered at %s", self._name, self._asked["url"])

    async def _beat(self) -> None:
        health = "up" if await self._look() else "down"
        lease = self.lease
        said = {"fence": lease.fence, "health": health}
        status, content = await self._ask("POST", f"{self._path}/beat", said)
        lease.beaten(status, content)
        if lease.state == "held" and 200 <= status < 300 and health != self._health:
            self._health = health
            log.warning("%s is %s", self._name, health)

    async def _look(self) -> bool:
        self._bad_looks = 0 if await self._is_well() else self._bad_looks + 1
        return self._bad_looks <= _FORGIVEN

    async def _ask(self, method: str, path: str, body: object) -> tuple[int, Any]:
        """Status and content of the answer; 0 for none."""
        try:
            answer = await self._control.ask(method, path, body)
        except ControlAway as error:
            self._say(f"is not told to the registry, control is away: {error}")
            return 0, None
        if answer.status >= 300 and answer.status != 404:
            self._say(f"is not in the registry: {answer.status} {answer.said}")
        else:
            self._say("")
        return answer.status, answer.content

    # -- the end -------------------------------------------------------------------------------

    async def leave(self, drain_s: float) -> bool:
        """Get no new requests from now on; whether there was anything to leave. Control that is
        away is not waited for.
        """
        lease = self.lease
        was_held, fence = lease.state == "held", lease.fence
        lease.left()
        if was_held and await self._delete(fence, drain_s, _LEAVE_S):
            self._left = fence
            log.info("%s has left the registry", self._name)
        return was_held

    async def gone(self) -> None:
        """All is done: nobody need be told any longer that it is leaving."""
        fence, self._left = self._left, None
        if fence is not None:
            await self._delete(fence, 0.0, _GONE_S)

    async def _delete(self, fence: int, drain_s: float, timeout_s: float) -> bool:
        path = f"{self._path}?fence={fence}&drain={drain_s:g}s"
        try:
            answer = await self._control.ask("DELETE", path, timeout_s=timeout_s)
        except ControlAway as error:
            log.warning("%s leaves unheard, its lease runs out: %s", self._name, error)
            return False
        return answer.status == 200

    def _say(self, why: str) -> None:
        if why and why != self._said:
            log.warning("%s %s", self._name, why)
        self._said = why

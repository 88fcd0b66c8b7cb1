"""Following the registry: one stream from control, for as long as somebody wants to know.

Theory of operation
-------------------
    connect -> all -> change, change, ... -> the stream ends -> wait -> connect, from where it was

One stream tells of all services that this process calls. When another one is called for the first
time, the stream is begun anew with it among the others, and asks for everything; what is known
stays in force until then. A stream that broke goes on behind the last change that was heard; so
does one after a restart of control, which answers with everything if it cannot say what has been
missed. The waits between tries grow with the failures in a row, with jitter, so that the processes
of a whole site do not come back at once.

Operators' orders about instances come on the same stream, whole each time, and go to `on_orders`.
A service whose instances the file alone names is followed for them and for nothing else
(`for_orders`): control that cannot be asked about such services is no trouble, and not said.

What is told is judged row by row: an instance that cannot be read is left out and said in the log
once, and the others hold.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from headgate.mesh.client.failures import ControlAway, ControlRefused
from headgate.mesh.client.known import Known, instance_of
from headgate.mesh.registry.model import Change, Instance

if TYPE_CHECKING:
    from headgate.mesh.client.control import Control
    from headgate.mesh.client.sse import Event

__all__ = ["Watcher", "wait_s"]

log: Final = logging.getLogger("headgate.mesh")

_FIRST_S: Final = 0.1
_LONGEST_S: Final = 5.0
_NAMED_MAX: Final = 200
"""Who calls more services than that is told of all of them."""
_GRACE_MAX_S: Final = 600.0
_REFUSED_S: Final = 30.0
"""Who is refused waits for an operator, not for a machine."""


def wait_s(failures: int, rng: random.Random, *, longest_s: float = _LONGEST_S) -> float:
    """Before the next try, after so many failures in a row."""
    bound: float = min(longest_s, _FIRST_S * 2.0 ** min(failures, 16))
    return bound * (0.5 + 0.5 * rng.random())


class Watcher:
    def __init__(
        self,
        control: Control,
        known: Known,
        on_changed: Callable[[str], None],
        rng: random.Random,
        on_orders: Callable[[list[object]], None] | None = None,
    ) -> None:
        self._control = control
        self._known = known
        self._on_changed = on_changed
        self._on_orders = on_orders
        self._rng = rng
        self._wanted: set[str] = set()
        self._is_needed = False
        """Somebody wants to know of instances, and not of orders alone."""
        self._following: asyncio.Task[None] | None = None
        self._is_heard = False
        """Something was heard on the stream under way."""
        self._failures = 0
        self._said = ""
        self._wakes = asyncio.Event()
        self._late: asyncio.TimerHandle | None = None
        self.is_connected = False
        self.trouble = ""
        """Why nothing is heard, in words."""

    def want(self, service: str, *, for_orders: bool = False) -> None:
        """Tell of this service too, from now on."""
        self._is_needed = self._is_needed or not for_orders
        if service in self._wanted:
            return
        self._wanted.add(service)
        self._wakes.set()
        if self._following is not None:
            self._following.cancel()

    async def run(self) -> None:
        try:
            while True:
                self._wakes.clear()
                if self._wanted:
                    await self._once()
                    continue
                await self._wakes.wait()
        finally:
            if self._following is not None:
                self._following.cancel()
            if self._late is not None:
                self._late.cancel()

    async def _once(self) -> None:
        """One stream, and the wait behind it."""
        self._is_heard = False
        loop = asyncio.get_running_loop()
        task = self._following = loop.create_task(
            self._follow(frozenset(self._wanted)), name="headgate-mesh-follow"
        )
        try:
            await asyncio.wait((task,))
        finally:
            self._following = None
            self.is_connected = False
            if not task.done():
                task.cancel()
        if task.cancelled():
            return  # another service is wanted
        error = task.exception()
        longest_s = _LONGEST_S
        if self._is_heard:
            self._failures = 0
        if isinstance(error, ControlRefused):
            longest_s = _REFUSED_S
            self._trouble(str(error), "the registry cannot be followed: %s%s", _hint(error))
        elif isinstance(error, (ControlAway, ValueError)):
            self._trouble(str(error), "the registry is away, what is known goes on: %s%s", "")
        elif error is not None:
            # A fault of ours must not end the following: calls would go on by old news for ever.
            self._trouble(repr(error), "the registry cannot be followed: %s%s", "")
            log.error("following the registry has failed", exc_info=error)
        left_s = wait_s(self._failures, self._rng, longest_s=longest_s)
        if isinstance(error, ControlRefused):
            left_s = max(left_s, 1.0)
        self._failures += 1
        try:
            async with asyncio.timeout(left_s):
                await self._wakes.wait()
        except TimeoutError:
            pass

    def _trouble(self, why: str, words: str, hint: str) -> None:
        self.trouble = why
        if self._said != why:
            self._said = why
            log.log(logging.WARNING if self._is_needed else logging.DEBUG, words, why, hint)

    async def _follow(self, wanted: frozenset[str]) -> None:
        known = self._known
        missing = [name for name in wanted if known.of(name) is None]
        last_id = known.position if not missing and known.position else ""
        path = "/api/registry/watch"
        if len(wanted) <= _NAMED_MAX:
            path += f"?services={quote(','.join(sorted(wanted)), safe=',')}"
        events = self._control.events(path, last_id)
        try:
            async for found in events:
                if not self.is_connected:
                    self._stands()
                changed: set[str] = set()
                try:
                    for event in found:
                        changed |= self._hear(event, wanted)
                finally:
                    # Once a service, however many of its instances have changed in one breath.
                    for name in changed:
                        self._on_changed(name)
        finally:
            self.is_connected = False
            await events.aclose()  # type: ignore[attr-defined]  # it is a generator

    def _stands(self) -> None:
        self.is_connected = self._is_heard = True
        self.trouble = ""
        if self._said:
            self._said = ""
            log.info("the registry answers again")

    def _hear(self, event: Event, wanted: frozenset[str]) -> set[str]:
        """The services that are not as they were."""
        if event.name not in ("all", "change", "orders"):
            return set()
        try:
            content = json.loads(event.data)
        except RecursionError as error:
            raise ValueError(f"an event {event.name} that is far too deep") from error
        if not isinstance(content, dict):
            raise ValueError(f"an event {event.name} that is no object")
        if event.name == "orders":
            self._hear_orders(content.get("orders"))
            return set()
        epoch = event.id.rpartition("-")[0]
        if event.name == "all":
            return self._take_all(content, wanted)
        if epoch and epoch != self._known.epoch:
            self._known.epoch = ""  # ask for everything
            raise ValueError("a change of another row than the one that was told")
        try:
            row = instance_of(content["instance"])
            change = Change(
                int(content["revision"]), 0.0, content["what"], row, str(content.get("why", ""))
            )
        except (KeyError, TypeError, ValueError) as error:
            self._unread(content.get("instance"), error)
            return set()
        changed = self._known.take_change(change)
        return set() if changed is None else {changed}

    def _hear_orders(self, rows: object) -> None:
        if not isinstance(rows, list):
            raise ValueError("an event `orders` without its list")
        if self._on_orders is not None:
            self._on_orders(rows)

    def _take_all(self, content: dict[str, Any], wanted: frozenset[str]) -> set[str]:
        try:
            epoch, revision = str(content["epoch"]), int(content["revision"])
            rows = list(content["instances"])
        except (KeyError, TypeError) as error:
            raise ValueError("an event `all` without its fields") from error
        grace_s = content.get("grace_s", 0)
        if not isinstance(grace_s, (int, float)) or not 0.0 < grace_s <= _GRACE_MAX_S:
            grace_s = 0.0
        changed = self._known.take_all(
            wanted, epoch, revision, self._read(rows), may_be_late=grace_s > 0.0
        )
        if self._late is not None:
            self._late.cancel()
            self._late = None
        if self._known.late:
            self._late = asyncio.get_running_loop().call_later(grace_s, self._drop_late)
        return changed

    def _drop_late(self) -> None:
        self._late = None
        for name in self._known.drop_late():
            self._on_changed(name)

    def _read(self, rows: Iterable[object]) -> Iterable[Instance]:
        for row in rows:
            try:
                yield instance_of(row)
            except (KeyError, TypeError, ValueError) as error:
                self._unread(row, error)

    def _unread(self, row: object, error: Exception) -> None:
        log.warning("an instance of the registry cannot be read: %.200s: %s", ascii(row), error)


def _hint(refused: ControlRefused) -> str:
    if refused.status in (401, 403):
        return "; HEADGATE_TOKEN is to be a token of the role service: headgate tokens make"
    if refused.status == 404:
        return "; it is switched off there, or this is no control process"
    return ""

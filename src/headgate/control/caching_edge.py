"""The workers of this machine as one edge: told of invalidations, and asked what they hold.

Theory of operation. Over each worker's link goes a frame "cache" with what is asked in JSON; one
with an id is answered with "cached". A purge is asked of all workers at once, and is over when each
has answered, has ended, or `ANSWER_S` have passed. A worker that has ended holds nothing. One that
is frozen acts on what waits in its link before anything else when it goes on.

What is only passed on (news of other machines, in masses) is sent and not waited for. To a link on
which `BACKLOG_MAX` frames wait nothing is added: its worker is told to forget everything as soon as
it reads again.

What no worker at all could be told, because none was there, is owed to the next one: it may find
responses on the disk. Beyond `OWED_MAX` all responses are owed.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from headgate.cache.invalidation import Invalidation
from headgate.control.channel import Channel, ChannelClosed

__all__ = ["Edge", "Linked", "Struck"]

ANSWER_S: Final = 2.0
LINKED_S: Final = 1.0
TURN_S: Final = 0.02
CATCH_UP_S: Final = 0.1
BACKLOG_MAX: Final = 1000
OWED_MAX: Final = 100
_SERVING: Final = frozenset({"ready", "leaving"})

log = logging.getLogger("headgate.control")


class Linked(Protocol):
    @property
    def index(self) -> int: ...
    @property
    def pid(self) -> int: ...
    @property
    def channel(self) -> Channel: ...


@dataclass(frozen=True, slots=True)
class Struck:
    told: int
    """Workers that have acknowledged."""
    of: int
    responses: int
    silent: tuple[int, ...] = ()
    """The indexes of those that have not, though they are there."""


class Edge:
    def __init__(
        self,
        links: Callable[[], Mapping[int, Linked]],
        rows: Callable[[], Sequence[Mapping[str, Any]]],
    ) -> None:
        """`links` by pid; `rows` are the workers as the supervisor knows them."""
        self._links = links
        self._rows = rows
        self._owed: list[Invalidation] = []
        self._missed: dict[int, Invalidation] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_catching_up = False

    # -- telling -------------------------------------------------------------------------------

    async def strike(self, invalidation: Invalidation) -> Struck:
        """Tell every worker, and wait until each has acted on it."""
        unlinked = await self._wait_linked()
        links = list(self._links().values())
        payload = _frame(invalidation)
        answers = await asyncio.gather(*(self._ask(link, payload, invalidation) for link in links))
        there = [
            (link, said) for link, said in zip(links, answers, strict=True) if said is not _GONE
        ]
        heard = [said for _, said in there if said is not None]
        silent = [link.index for link, said in there if said is None]
        if not heard:
            self._owe(invalidation)
        return Struck(
            told=len(heard),
            of=len(there) + len(unlinked),
            responses=sum(_count(said.get("struck")) for said in heard),
            silent=tuple(sorted([*silent, *unlinked])),
        )

    def hear(self, invalidation: Invalidation) -> None:
        """Pass it on to every worker."""
        links = self._links()
        if not links:
            self._owe(invalidation)
            return
        payload = _frame(invalidation)
        for link in tuple(links.values()):
            if not self._is_behind(link, invalidation):
                link.channel.send("cache", payload)

    def linked(self, link: Linked, stamp: int) -> None:
        """A worker is there: what could be told to nobody is told to it."""
        # Where the clock stands: what it fetches from now on is newer than all before.
        link.channel.send("cache", _frame(Invalidation(stamp=stamp)))
        if self._owed:
            self._spawn(self._pay(link))

    async def _pay(self, link: Linked) -> None:
        owed = list(self._owed)
        for invalidation in owed:
            said = await self._ask(link, _frame(invalidation), invalidation)
            if said is None or said is _GONE:
                return
        self._owed = [each for each in self._owed if each not in owed]

    def _owe(self, invalidation: Invalidation) -> None:
        self._owed.append(invalidation)
        if len(self._owed) > OWED_MAX:
            self._owed = [_everything(invalidation)]

    def _is_behind(self, link: Linked, invalidation: Invalidation) -> bool:
        """Whether a worker does not read; then what it misses is noted."""
        if link.pid not in self._missed and link.channel.backlog < BACKLOG_MAX:
            return False
        if link.pid not in self._missed:
            log.warning("worker %d does not hear what is purged; it will forget all", link.index)
        self._missed[link.pid] = _everything(invalidation)
        if not self._is_catching_up:
            self._is_catching_up = True
            self._spawn(self._catch_up())
        return True

    async def _catch_up(self) -> None:
        try:
            while self._missed:
                await asyncio.sleep(CATCH_UP_S)
                links = self._links()
                for pid, invalidation in tuple(self._missed.items()):
                    link = links.get(pid)
                    if link is not None and link.channel.backlog >= BACKLOG_MAX:
                        continue
                    del self._missed[pid]
                    if link is not None:
                        link.channel.send("cache", _frame(invalidation))
        finally:
            self._is_catching_up = False

    async def _ask(
        self, link: Linked, payload: bytes, invalidation: Invalidation | None = None
    ) -> dict[str, Any] | None:
        """Its answer; None from a worker that is silent or cannot say, `_GONE` from none."""
        if invalidation is not None and self._is_behind(link, invalidation):
            return None
        try:
            got = await link.channel.ask("cache", payload, timeout_s=ANSWER_S)
        except TimeoutError:
            return None
        except ChannelClosed:
            return _GONE
        try:
            said = json.loads(got.payload)
        except ValueError:
            said = None
        return said if isinstance(said, dict) and "error" not in said else None

    async def _wait_linked(self) -> list[int]:
        """The indexes of workers that serve and have no link, once there was time to get one:
        control may have been started again a moment ago.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LINKED_S
        while True:
            rows = self._rows()
            links = self._links()
            missing = [
                int(row["index"])
                for row in rows
                if row["state"] in _SERVING and row["pid"] not in links
            ]
            if (rows and not missing) or loop.time() >= deadline:
                return missing
            await asyncio.sleep(TURN_S)

    # -- asking --------------------------------------------------------------------------------

    async def inspect(self, url: str) -> tuple[list[tuple[int, dict[str, Any]]], int, int]:
        """What each worker holds of a URL, by its index; how many answered, and of how many."""
        await self._wait_linked()
        links = list(self._links().values())
        payload = json.dumps({"do": "inspect", "url": url}).encode()
        answers = await asyncio.gather(*(self._ask(link, payload) for link in links))
        found: list[tuple[int, dict[str, Any]]] = []
        told = of = 0
        for link, said in zip(links, answers, strict=True):
            if said is _GONE:
                continue
            of += 1
            if said is None:
                continue
            told += 1
            rows = said.get("responses")
            for row in rows if isinstance(rows, list) else ():
                if isinstance(row, dict):
                    found.append((link.index, row))
        return found, told, of

    # -- life ----------------------------------------------------------------------------------

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work, name="cache edge")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()


_GONE: Final[dict[str, Any]] = {"gone": True}


def _frame(invalidation: Invalidation) -> bytes:
    return json.dumps({"do": "invalidate", "invalidation": invalidation.to_json()}).encode()


def _everything(invalidation: Invalidation) -> Invalidation:
    return Invalidation(everything="responses", stamp=invalidation.stamp, by="missed news")


def _count(said: object) -> int:
    return said if type(said) is int and said > 0 else 0

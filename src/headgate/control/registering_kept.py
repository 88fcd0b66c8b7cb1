"""What workers are told of found instances, kept on the disk for those that start without us.

Theory of operation
-------------------
`turn` is asked a few times a second. What has changed is written within a second, from a thread,
one writing at a time; where a writing takes long, the next one waits for longer. What has not
changed is written again every `RENEW_S`, so that the file says how long ago it was known to hold
(`gateway.members_file`).

It begins with what an earlier process wrote. A service is told anew a moment after a start, and
until then what was known of it stays in the file, so that one that dies soon again takes nothing
along. Services that the file of the gateway names no more go.

What cannot be written is said once and tried again; nobody waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from headgate.gateway.members_file import Kept, members_path, read_members, write_members

__all__ = ["KeptMembers"]

TOGETHER_S: Final = 1.0
RENEW_S: Final = 300.0
_STRETCH: Final = 20.0

log = logging.getLogger("headgate.control")


class Told(Protocol):
    """What workers are told."""

    @property
    def services(self) -> Mapping[str, bool]: ...
    @property
    def messages(self) -> Mapping[str, dict[str, Any]]: ...


class KeptMembers:
    def __init__(
        self,
        told: Told,
        state_dir: Path,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.path = members_path(state_dir)
        self._told = told
        self._clock = clock
        self._wall = wall
        self._kept: dict[str, dict[str, Any]] = {}
        self._written: dict[str, dict[str, Any]] | None = None
        """As it stands on the disk, if we know."""
        self._written_at = -math.inf
        self._not_before = -math.inf
        self._writing: asyncio.Task[None] | None = None
        self._trouble = ""

    async def open(self) -> None:
        """Begin with what an earlier process wrote. It never fails."""
        try:
            kept = await asyncio.to_thread(read_members, self.path)
        except (OSError, ValueError) as error:
            log.warning("%s %s; it is written anew", self.path, error)
        else:
            self._kept = dict(kept.messages) if kept is not None else {}

    @property
    def worry(self) -> str:
        return self._trouble

    def turn(self) -> None:
        """Begin to write if that is due."""
        now = self._clock()
        if self._writing is not None or now < self._not_before:
            return
        wanted = self._wanted()
        if wanted == self._written and now - self._written_at < RENEW_S:
            return
        if not wanted and self._written is None and not self._kept:
            return  # nobody is found anywhere, and nobody was
        self._written_at = now
        work = self._write(wanted)
        self._writing = asyncio.get_running_loop().create_task(work, name="registry members")

    def _wanted(self) -> dict[str, dict[str, Any]]:
        """What is told now, and of the services that nothing was told of yet, what was before."""
        services, told = self._told.services, self._told.messages
        return {
            name: message
            for name in services
            if (message := told.get(name) or self._kept.get(name)) is not None
        }

    async def _write(self, wanted: dict[str, dict[str, Any]]) -> None:
        kept = Kept(self._wall(), wanted)
        try:
            await asyncio.to_thread(write_members, self.path, kept)
        except (OSError, ValueError) as error:
            why = str(getattr(error, "strerror", None) or error)
            if why != self._trouble:
                log.warning("%s cannot be written: %s", self.path, why)
            self._trouble = why
            self._written = None
        else:
            self._trouble = ""
            self._written = wanted
        finally:
            self._writing = None
            now = self._clock()
            self._not_before = now + max(TOGETHER_S, (now - self._written_at) * _STRETCH)

    async def close(self) -> None:
        """Write the last."""
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)
        wanted = self._wanted()
        if wanted != self._written and (wanted or self._kept):
            await self._write(wanted)

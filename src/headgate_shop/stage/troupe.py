"""All processes of a stage: begun, watched, started again, killed, stopped, ended.

It decides; the wings do it (`link`), and tell what became of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from typing import Any, Final

from headgate_shop.stage import asking
from headgate_shop.stage.layout import Layout
from headgate_shop.stage.link import Link
from headgate_shop.stage.players import Player, State
from headgate_shop.stage.progress import Progress, tell

__all__ = ["Failed", "Troupe"]

READY_S: Final = 150.0
LAST_LINES: Final = 20
_ASK_S: Final = 0.1
_WALL: Final = time.time  # noqa: TID251  what people are told is wall time


class Failed(Exception):
    """The shop cannot be started, or cannot go on."""


class Troupe:
    def __init__(self, layout: Layout, on_failure: Callable[[str], None]) -> None:
        self._layout = layout
        self._on_failure = on_failure
        self.link = Link(self._hear, self._lost)
        self.imported: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._players: dict[str, Player] = {}
        self._jobs: dict[str, asyncio.Future[int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_ending = False

    def __iter__(self) -> Iterator[Player]:
        return iter(self._players.values())

    def get(self, name: str) -> Player | None:
        return self._players.get(name)

    # -- beginning -----------------------------------------------------------------------------

    def fork(self, key: str, job: str, environment: Mapping[str, str]) -> dict[str, Any]:
        """The order for a function of `wings.JOBS`."""
        return {
            "do": "fork",
            "key": key,
            "job": job,
            "environment": dict(environment),
            "log": str(self._layout.log(key)),
        }

    def program(
        self,
        key: str,
        argv: Iterable[str],
        environment: Mapping[str, str],
        *,
        folder: object,
        user: str = "",
    ) -> dict[str, Any]:
        """The order for a program."""
        return {
            "do": "exec",
            "key": key,
            "argv": list(argv),
            "environment": dict(environment),
            "log": str(self._layout.log(key)),
            "folder": str(folder),
            "user": user,
        }

    def begin(self, player: Player) -> Player:
        player.since = _WALL()
        self._players[player.name] = player
        self.link.send(player.order)
        return player

    async def do(self, key: str, order: Mapping[str, Any]) -> None:
        """Have something done in a process of its own, and wait for its end."""
        done = self._jobs[key] = asyncio.get_running_loop().create_future()
        self.link.send(order)
        status = await done
        if status != 0 and not self.is_ending:
            raise Failed(f"{key} has ended with {status}; {self._last_words(key)}")

    async def wait_for(self, players: Iterable[Player], progress: Progress | None = None) -> None:
        """Until all of them run. Raises Failed when one does not come up."""
        until = time.monotonic() + READY_S
        missing = {player.name: player for player in players}
        count = len(missing)
        while missing:
            for name, player in tuple(missing.items()):
                if player.state == "running":
                    del missing[name]
                    if progress is not None:
                        progress(count - len(missing), name)
                elif player.state == "failed":
                    raise Failed(f"{name} does not start; {self._last_words(name)}")
            if time.monotonic() > until:
                raise Failed(f"not ready after {READY_S:.0f} s: {', '.join(missing)}")
            await asyncio.sleep(_ASK_S / 2)

    def _last_words(self, key: str) -> str:
        said = ""
        with contextlib.suppress(OSError):
            said = self._layout.log(key).read_text(errors="replace")
        return "\n".join(("it said last:", *said.strip().splitlines()[-LAST_LINES:]))

    # -- what the wings tell -------------------------------------------------------------------

    def _lost(self) -> None:
        for player in self:
            player.pid = 0  # all have ended with it
        if not self.is_ending:
            self._on_failure("the process that holds all others has ended")

    def _hear(self, news: Mapping[str, Any]) -> None:
        match news:
            case {"imported": took_s}:
                if not self.imported.done():
                    self.imported.set_result(took_s)
            case {"cannot": why}:
                self._on_failure(f"the shop cannot be imported: {why}")
            case {"begun": key, "pid": pid}:
                self._begun(key, pid)
            case {"ended": key, "pid": pid, "status": status}:
                self._ended(key, pid, status)
            case {"failed": key, "why": why}:
                self._on_failure(f"{key} cannot be started: {why}")

    def _begun(self, key: str, pid: int) -> None:
        player = self._players.get(key)
        if player is None:
            return
        player.pid = pid
        player.began = time.monotonic()
        self._task(f"ready {key}", self._wait_ready(player, pid))

    async def _wait_ready(self, player: Player, pid: int) -> None:
        while player.pid == pid and not self.is_ending:
            if await player.probe():
                if player.pid == pid:
                    self._change(player, "running")
                return
            await asyncio.sleep(_ASK_S)

    def _change(self, player: Player, state: State) -> None:
        if player.state != state:
            player.state = state
            player.since = _WALL()
            tell(step="service", name=player.name, state=state, pid=player.pid)

    def _ended(self, key: str, pid: int, status: int) -> None:
        if (job := self._jobs.get(key)) is not None and not job.done():
            job.set_result(status)
            return
        player = self._players.get(key)
        if player is None or player.pid != pid:
            return
        player.pid = 0
        if self.is_ending:
            return
        if not player.is_wanted:
            self._change(player, "stopped")
            return
        player.restarts += 1
        wait_s = player.deaths.died(time.monotonic() - player.began)
        self._change(player, "failed" if player.deaths.is_failed else "starting")
        tell(step="died", name=key, status=status, again_in_s=wait_s)
        self._task(f"again {key}", self._again(player, wait_s))

    async def _again(self, player: Player, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        if player.is_wanted and player.pid == 0 and not self.is_ending:
            self.link.send(player.order)

    # -- steering ------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        if self._players[name].pid:
            self.link.send({"do": "signal", "key": name, "signum": int(signal.SIGKILL)})

    def stop(self, name: str, for_s: float | None) -> None:
        player = self._players[name]
        player.is_wanted = False
        if player.pid:
            self.link.send({"do": "signal", "key": name, "signum": int(player.end_signal)})
        else:
            self._change(player, "stopped")
        if for_s is not None:
            self._task(f"start {name}", self._start_later(name, for_s))

    async def _start_later(self, name: str, for_s: float) -> None:
        await asyncio.sleep(for_s)
        if not self.is_ending:
            self.start(name)

    def start(self, name: str) -> None:
        player = self._players[name]
        if player.is_wanted:
            return
        player.is_wanted = True
        player.deaths.in_a_row = 0
        if player.pid == 0:
            self._change(player, "starting")
            self.link.send(player.order)
        # Else it is still ending, and is started again when it has.

    # -- the end -------------------------------------------------------------------------------

    async def end(self, groups: Iterable[Iterable[str]], within_s: float) -> None:
        """End everything, one group after the other; each has `within_s`."""
        self.is_ending = True
        for key, job in self._jobs.items():
            if not job.done():
                self.link.send({"do": "signal", "key": key, "signum": int(signal.SIGTERM)})
        for names in groups:
            living = [one for name in names if (one := self._players.get(name)) and one.pid]
            for one in living:
                self.link.send({"do": "signal", "key": one.name, "signum": int(one.end_signal)})
            until = time.monotonic() + within_s
            while any(one.pid for one in living):
                if time.monotonic() > until:
                    break  # the wings kill who is left
                await asyncio.sleep(0.02)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.link.close(within_s)

    def _task(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failure(f"{task.get_name()}: {error!r}")


def answering(port: int, path: str = "") -> Callable[[], Coroutine[Any, Any, bool]]:
    """A probe: whether the port answers `path` with 200, or takes connections."""

    async def probe() -> bool:
        return await asking.answers(port, path)

    return probe

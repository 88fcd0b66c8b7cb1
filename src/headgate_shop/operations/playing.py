"""Failures that are being played: begun, undone, ended by themselves.

Theory of operation
-------------------
Each failure runs once at a time. What runs is written to `faults/running.json` before it is begun,
so a process that was killed meanwhile finds it, shows it, and ends it in time. What it can no
longer end has its own bound: fault files say until when they hold, and the stage was told for how
long it keeps a service away.

A killed service is no state to be undone: the failure ends when the stage says that it runs again.

Beginning and undoing take turns, so what stands in the files is always what runs.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from headgate_shop.base.background import Background
from headgate_shop.base.faults import FaultInvalid, Faults
from headgate_shop.operations.asking import Api, Away, Refused
from headgate_shop.operations.failures import (
    FAILURES,
    Failure,
    faults_of,
    orders_of,
    undoing,
    why_not,
)
from headgate_shop.operations.words import line

__all__ = ["PlayRefused", "Player", "Running"]

LOOK_S: Final = 0.5
LAST_UNDO_S: Final = 3.0
_BY_ID: Final = {failure.id: failure for failure in FAILURES}
_logger = logging.getLogger(__name__)

Tell = Callable[[Mapping[str, Any]], None]


class PlayRefused(Exception):
    """It cannot be played, or undone, now."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail


@dataclass(frozen=True, slots=True)
class Running:
    failure: str
    choice: str
    since: float
    """Seconds of Unix time."""
    until: float
    by: str
    restarts: int = 0
    """Of a killed service, how often it had been started again before."""

    @property
    def title(self) -> str:
        found = _BY_ID[self.failure]
        return f"{found.title}: {self.choice}" if self.choice else found.title


class Player(Background):
    """Plays, and ends in time what it plays, while it is entered."""

    task_name = "failures"

    def __init__(
        self,
        folder: Path,
        stage: Api | None,
        *,
        tell: Tell,
        changed: Callable[[list[dict[str, Any]]], None],
        wall: Callable[[], float] = time.time,  # noqa: TID251 - until when others, and files, know
    ) -> None:
        """`tell` takes lines for the log, `changed` what runs."""
        self._folder = folder
        self._kept = folder / "faults" / "running.json"
        self._stage = stage
        self._tell = tell
        self._changed = changed
        self._wall = wall
        self._running: dict[str, Running] = {}
        self._faulty: set[str] = set()
        self._turn = asyncio.Lock()

    # -- life ----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        for found in self._read():
            self._running[found.failure] = found
        self._faulty = set(self._wanted())
        self._changed(self.snapshot())
        return await super().__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await super().__aexit__(kind, error, trace)
        try:
            async with asyncio.timeout(LAST_UNDO_S):
                for running in tuple(self._running.values()):
                    await self._end(running, "bad", "ended with the page's service")
        except TimeoutError:
            _logger.warning("not all failures were undone in time; they end by themselves")

    def snapshot(self) -> list[dict[str, Any]]:
        return [
            {
                "id": each.failure,
                "choice": each.choice,
                "since": each.since,
                "until": each.until,
                "by": each.by,
            }
            for each in self._running.values()
        ]

    def runs(self, failure_id: str) -> bool:
        return failure_id in self._running

    # -- begin and undo ------------------------------------------------------------------------

    async def needs(self) -> Mapping[str, Any]:
        """The stage's state; empty where there is no stage, or none that answers."""
        if self._stage is None:
            return {}
        try:
            found = await self._stage.get("/state")
        except Away:
            return {}
        return found if isinstance(found, dict) else {}

    async def begin(self, failure_id: str, choice: str, by: str) -> Running:
        failure = _BY_ID.get(failure_id)
        if failure is None:
            raise PlayRefused(404, "unknown_failure", f"there is no failure {failure_id!r}")
        async with self._turn:
            if (known := self._running.get(failure.id)) is not None:
                raise PlayRefused(409, "runs_already", f"{known.title} runs already; undo it first")
            needs = await self.needs()
            if reason := why_not(failure, choice, needs):
                raise PlayRefused(409, "cannot_be_played", reason)
            now = self._wall()
            restarts = _restarts(needs, choice)
            running = Running(failure.id, choice, now, now + failure.lasts_s, by, restarts)
            self._running[failure.id] = running
            try:
                self._keep()
                await self._act(failure, running)
            except BaseException:
                del self._running[failure.id]
                await self._restore()
                raise
            self._tell(line(now, "play", f"{running.title}: begun by {by}", "failure"))
            self._changed(self.snapshot())
            self.wake()
            return running

    async def undo(self, failure_id: str, by: str) -> Running:
        async with self._turn:
            running = self._running.get(failure_id)
            if running is None:
                raise PlayRefused(409, "not_running", f"{failure_id!r} does not run")
            await self._end(running, "play", f"undone by {by}")
            return running

    async def _act(self, failure: Failure, running: Running) -> None:
        try:
            self._write_faults()
        except OSError as error:
            raise PlayRefused(503, "not_written", f"the failure's file: {error}") from error
        for order in orders_of(failure.id, running.choice, failure.lasts_s):
            await self._order(order.path, order.body)

    async def _order(self, path: str, body: Mapping[str, Any]) -> None:
        if self._stage is None:
            raise PlayRefused(409, "no_stage", "no stage runs this shop")
        try:
            await self._stage.post(path, body)
        except Refused as error:
            raise PlayRefused(409, "stage_refuses", str(error)) from error
        except Away as error:
            raise PlayRefused(503, "stage_away", str(error)) from error

    async def _restore(self) -> None:
        try:
            self._write_faults()
            self._keep()
        except OSError as error:
            _logger.warning("a failure's file could not be written: %s", error)

    async def _end(self, running: Running, tone: Any, why: str) -> None:
        self._running.pop(running.failure, None)
        await self._restore()
        for order in undoing(running.failure, running.choice):
            try:
                await self._order(order.path, order.body)
            except PlayRefused as error:
                # The stage ends it by itself at its bound.
                _logger.warning("%s could not be undone: %s", running.title, error.detail)
                why = f"{why}, but {error.detail}"
        self._tell(line(self._wall(), tone, f"{running.title}: {why}", "failure"))
        self._changed(self.snapshot())

    async def _run(self) -> None:
        while not self.is_ending():
            if not self._running:
                await self.rest()
                continue
            await self.rest(LOOK_S, is_deaf=True)
            if self.is_ending():
                return
            try:
                await self._look()
            except Exception:
                _logger.exception("failures could not be looked after")

    async def _look(self) -> None:
        async with self._turn:
            kill = self._running.get("kill")
            if kill is not None:
                back = [
                    row
                    for row in (await self.needs()).get("services", ())
                    if row.get("name") == kill.choice
                    and row.get("state") == "running"
                    and int(row.get("restarts") or 0) > kill.restarts
                ]
                if back:
                    took_s = max(0.0, self._wall() - kill.since)
                    await self._end(kill, "good", f"it runs again, after {took_s:.1f} s")
            now = self._wall()
            for running in tuple(self._running.values()):
                if running.until <= now:
                    await self._end(running, "play", "ended by itself")

    # -- files ---------------------------------------------------------------------------------

    def _wanted(self) -> dict[str, Any]:
        return faults_of((r.failure, r.choice, r.until) for r in self._running.values())

    def _write_faults(self) -> None:
        wanted = self._wanted()
        for service in self._faulty - set(wanted):
            Faults(self._folder, service).clear()
        for service, fault in wanted.items():
            Faults(self._folder, service).write(fault)
        self._faulty = set(wanted)

    def _keep(self) -> None:
        if not self._running:
            self._kept.unlink(missing_ok=True)
            return
        self._kept.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._kept.parent, prefix=".", suffix=".part")
        with os.fdopen(handle, "w") as file:
            json.dump([asdict(each) for each in self._running.values()], file)
        Path(name).replace(self._kept)

    def _read(self) -> list[Running]:
        """What an earlier process left, of what could be read."""
        try:
            rows = json.loads(self._kept.read_bytes())
            found = [Running(**row) for row in rows]
            return [each for each in found if each.failure in _BY_ID and each.until > 0]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, FaultInvalid) as error:
            _logger.warning("%s is not understood, and left out: %s", self._kept, error)
            return []


def _restarts(needs: Mapping[str, Any], name: str) -> int:
    rows = [row for row in needs.get("services", ()) if row.get("name") == name]
    return int(rows[0].get("restarts") or 0) if rows else 0

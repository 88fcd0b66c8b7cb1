"""Prepared failures of a service: a slow database, slow or wrong answers, said by a file.

Theory of operation
-------------------
`<folder>/faults/<service>.json` says what is wrong with a service, for as long as the file is there
and its `until` has not come:

    {"database_ms": 800, "slow_ms": 300, "errors": 0.5, "until": 1767225600}

`database_ms` is waited before every statement, `slow_ms` before every answer, and `errors` is the
share of answers that are a 500. Health checks are left alone: a release whose answers are wrong
while its check is content is the failure that somebody has to notice by the answers.

The file is looked at when something is asked of the service, at most every half second: a service
without it pays one comparison of clocks. Who writes the file writes it whole and renames it. A file
that cannot be understood is no failure, and is told in the log, once for each version of it.

`until` is in the file, so that a failure ends also when whoever began it is gone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import random
import stat
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["NO_FAULT", "Fault", "FaultInvalid", "FaultLayer", "Faults", "slow_down"]

LOOK_EVERY_S: Final = 0.5
DELAY_MAX_MS: Final = 60_000
FILE_MAX_BYTES: Final = 4096
UNTOUCHED: Final = ("/health", "/metrics", "/openapi.json")

_FAULTY: Final = JSONResponse(
    {
        "type": "about:blank",
        "title": "Internal Server Error",
        "status": 500,
        "detail": "a prepared failure answers in place of this service",
        "code": "prepared_failure",
    },
    500,
    {"cache-control": "no-store"},
    "application/problem+json",
)
"""Not raised: the kit would write the stack of each into the log."""

_logger = logging.getLogger(__name__)


class FaultInvalid(Exception):
    """The file of a prepared failure says something that cannot be done."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one service."""

    database_ms: float = 0
    slow_ms: float = 0
    errors: float = 0
    until: float = math.inf
    """Seconds of Unix time; without it the failure lasts as long as its file."""

    @classmethod
    def parse(cls, text: bytes | str) -> Self:
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FaultInvalid(f"it is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise FaultInvalid("it is not a JSON object")
        bounds = {"database_ms": DELAY_MAX_MS, "slow_ms": DELAY_MAX_MS, "errors": 1, "until": 1e12}
        for name, value in document.items():
            if name not in bounds:
                raise FaultInvalid(f"{name!r} is none of {', '.join(bounds)}")
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise FaultInvalid(f"{name} is {value!r}, not a number")
            if not 0 <= value <= bounds[name]:  # NaN is in no range
                raise FaultInvalid(f"{name} is {value}, not from 0 to {bounds[name]:g}")
        return cls(**document)

    def dump(self) -> str:
        """As it stands in the file: what is not said is what there is by itself."""
        nothing = asdict(NO_FAULT)
        return json.dumps({name: v for name, v in asdict(self).items() if v != nothing[name]})


NO_FAULT: Final = Fault()


class Faults:
    """What is wrong with one service now, by its file."""

    def __init__(self, folder: Path, service: str) -> None:
        self.path = folder / "faults" / f"{service}.json"
        self._service = service
        self._fault = NO_FAULT
        self._seen: tuple[int, int, int] | None = None
        self._look_again = -math.inf

    def current(self, now: float, wall: Callable[[], float] = time.time) -> Fault:  # noqa: TID251 - `until` is a time of the day, written by another process
        """`now` is `time.monotonic()`; the clock on the wall is read only where a file stands."""
        if now >= self._look_again:
            self._look_again = now + LOOK_EVERY_S
            self._look()
        if self._fault is NO_FAULT or self._fault.until <= wall():
            return NO_FAULT
        return self._fault

    def _look(self) -> None:
        try:
            found = self.path.stat()
        except OSError:
            self._seen, self._fault = None, NO_FAULT
            return
        version = (found.st_mtime_ns, found.st_ino, found.st_size)
        if version == self._seen:
            return
        self._seen = version
        self._fault = NO_FAULT
        try:
            if not stat.S_ISREG(found.st_mode):
                raise FaultInvalid("it is no file")
            if found.st_size > FILE_MAX_BYTES:
                raise FaultInvalid(f"it has {found.st_size} bytes, more than {FILE_MAX_BYTES}")
            self._fault = Fault.parse(self.path.read_bytes())
        except FileNotFoundError:
            self._seen = None  # it went between the two looks
        except (OSError, FaultInvalid) as error:
            _logger.warning("the failure in %s is not played: %s", self.path, error)

    def write(self, fault: Fault) -> None:
        """Begin it, or change it: for whoever plays failures, not for the service."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=".", suffix=".part")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(fault.dump())
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)


class FaultLayer:
    """The innermost layer of a service's app: late or wrong answers, where that is said."""

    def __init__(self, app: ASGIApp, *, faults: Faults, rng: random.Random | None = None) -> None:
        self._app = app
        self._faults = faults
        self._rng = rng or random.Random()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._faults.current(time.monotonic())
        if fault is NO_FAULT or scope["type"] != "http" or str(scope["path"]).startswith(UNTOUCHED):
            await self._app(scope, receive, send)
            return
        if fault.slow_ms:
            await asyncio.sleep(fault.slow_ms / 1000)
        if fault.errors and self._rng.random() < fault.errors:
            await _FAULTY(scope, receive, send)
            return
        await self._app(scope, receive, send)


def slow_down(engine: AsyncEngine, faults: Faults) -> None:
    """Have every statement of the engine wait for as long as the failure says.

    SQLAlchemy runs a statement in a greenlet of the task that asked for it; the driver's adapter
    hands an awaitable out of there to the task, so the loop goes on and a cancelled task stops
    waiting.
    """

    def wait(connection: sa.Connection, _: object, statement: str, *_rest: object) -> None:
        fault = faults.current(time.monotonic())
        if fault is NO_FAULT or not fault.database_ms or statement.startswith("BEGIN"):
            return
        delay_s = fault.database_ms / 1000
        driver: Any = connection.connection.dbapi_connection
        driver.run_async(lambda _driver: asyncio.sleep(delay_s))

    sa.event.listen(engine.sync_engine, "before_cursor_execute", wait)

"""Every part of the gateway with its own status: since when it is so, and why.

Theory of operation
-------------------
`/api/health` says whether the gateway serves; this says what each part of it is like. Parts are
checks of `headgate.observe.health`, which keeps since when each is as it is, and looks again every
few seconds in the background. Those that only read what control knows run on the loop; the disk is
asked on a thread, for one that hangs must hold up nothing.

Only `workers` is critical: without them nothing is served. All else degrades.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Final

from headgate.config import Config
from headgate.observe import Rows
from headgate.observe.health.checks import Checks, Report
from headgate.observe.health.machine import disk, memory_limit
from headgate.observe.health.outcome import Bounds, Outcome, degraded, failing, ok
from headgate.units import rough_size

if TYPE_CHECKING:
    from headgate.control.control import Control

__all__ = ["Components"]

_EVERY_S: Final = 3.0
_SLOW_EVERY_S: Final = 30.0
_CRASHES: Final = 3
_MEMORY: Final = Bounds(0.8, 0.95)
_RESIDENT: Final = "headgate_process_resident_memory_bytes"


class Components:
    name = "components"

    def __init__(self, control: Control) -> None:
        self._control = control
        self._is_started = False
        self.checks = Checks("headgate", registry=None, logger=None)
        self._departments: tuple[str, ...] = ()

    def start(self) -> None:
        control, add = self._control, self._add
        add("workers", self._workers, critical=True)
        add("control", self._of_control)
        add("config", self._config)
        add("state", self._state)
        add("audit", _of(control.auditing.worries))
        add("admin", _of(control.access.worries))
        add("config history", _of(control.versions.worries))
        add("certificates", _of(control.certificates.worries))
        add("memory", self._memory)
        for name in control.observing.worries_by_name():
            if name != self.name:
                add(name, self._department(name))
        self.checks.add("disk", disk(control.state.path), every=_SLOW_EVERY_S, timeout="5s")
        self.checks.start()

    def _add(
        self,
        name: str,
        check: Callable[[], Coroutine[Any, Any, Outcome]],
        *,
        critical: bool = False,
    ) -> None:
        self.checks.add(name, check, critical=critical, every=_EVERY_S)

    def take(self, config: Config) -> None:
        """Nothing of it is in the file."""

    async def close(self) -> None:
        await self.checks.close()

    def worries(self) -> Iterable[str]:
        return ()

    def rows_into(self, rows: Rows) -> None:
        """What there is to count is counted where it happens."""

    async def report(self) -> Report:
        return await self.checks.report()

    def has_started(self) -> bool:
        """Whether workers were ready once, in the life of this process."""
        if any(row["state"] == "ready" for row in self._control.workers):
            self._is_started = True
        return self._is_started

    # -- the parts -------------------------------------------------------------------------------

    async def _workers(self) -> Outcome:
        control = self._control
        seated = [row for row in control.workers if row["state"] != "leaving"]
        ready = sum(row["state"] == "ready" for row in seated)
        wanted = control.current.outline.workers
        said = f"{ready} of {wanted} are ready"
        if control.is_draining:
            return failing(f"draining: {said}", ready, "workers")
        if not ready:
            return failing(said, ready, "workers")
        if ready < wanted:
            return degraded(said, ready, "workers")
        return ok(said, ready, "workers")

    async def _of_control(self) -> Outcome:
        up_s = time.monotonic() - self._control.started_mono
        crashes = self._control.control_crashes
        if crashes >= _CRASHES:
            return degraded(f"it ended {crashes} times by itself", round(up_s, 1), "s")
        return ok(value=round(up_s, 1), unit="s")

    async def _config(self) -> Outcome:
        last = self._control.reloader.last
        generation = float(self._control.current.generation)
        if last is not None and not last.ok:
            why = "the last reload was refused; the file from before serves on"
            return degraded(why, generation, "generation")
        return ok(value=generation, unit="generation")

    async def _state(self) -> Outcome:
        """Where limits, bans and news are shared."""
        control = self._control
        url = control.current.config.state
        if url == "memory":
            return ok("this machine alone")
        redis = control.fleet._redis  # noqa: SLF001 - whether it is there is its own affair
        if redis is None or redis.is_away:
            return degraded("the Redis of `state` is away; each machine goes on with its share")
        return ok()

    async def _memory(self) -> Outcome:
        used = 0.0
        for link in self._control.hub.links.values():
            rows = (link.snapshot or {}).get("rows", {}).get(_RESIDENT, ())
            used += sum(float(row[1]) for row in rows)
        from headgate.observe.process import resident_bytes

        used += resident_bytes()
        bound = memory_limit()
        if not bound:
            return ok(value=used, unit="bytes")
        status = _MEMORY.judge(used / bound)
        why = f"all processes have {rough_size(used)} of {rough_size(bound)}"
        return Outcome(status, "" if status == "ok" else why, used, "bytes")

    def _department(self, name: str) -> Callable[[], Coroutine[Any, Any, Outcome]]:
        observing = self._control.observing
        return _of(lambda: observing.worries_by_name().get(name, ()))


def _of(worries: Callable[[], Iterable[str]]) -> Callable[[], Coroutine[Any, Any, Outcome]]:
    async def ask() -> Outcome:
        told = list(worries())
        return degraded("; ".join(told)) if told else ok()

    return ask

"""Workers that hang: found, shown where they hang, and ended, so that a successor can serve.

Theory of operation
-------------------
A worker is one event loop. When something holds it (a plugin that calls `time.sleep`, a regular
expression without an end, a library in a deadlock) the process lives, keeps its share of the new
connections and serves none of them. The supervisor asks every worker that is ready for a sign of
life, which only a loop that turns can give; one that has not for `limit_s` is told to write its
stacks to the log (SIGUSR2, see `worker_main`), and then killed. What follows is what follows a
crash.

What must not end a worker:

- A clock that jumped. A laptop that slept, a container that was frozen, a supervisor that got no
  processor: then it was we who did not look. So silence is not read off the clock but summed up,
  turn by turn, and a turn that comes late counts as one that came in time (`Watch.turn`).
- A debugger. Who is traced is not judged, and gets all its time again afterwards.
- A new configuration. Building a large plan holds the loop; `Crew` has a deadline of its own for
  that.
- The company of others. What holds all workers at once is more likely the machine than they, and
  an operator is better off with slow workers than with none: one is ended at a time, and the next
  only when as many are ready as before or `PAUSE_S` have passed.

`Watch` is pure; `Watchdog` is the rim.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from headgate.control.children import Child
    from headgate.control.crew import Crew

__all__ = ["Watch", "Watchdog", "is_traced"]

OFF_TURN_S: Final = 5.0
"""How often a watchdog that is off looks whether a reload has switched it on."""
TURNS: Final = 6.0
"""Into how many turns the limit is cut; the silence of a killed worker is at most one longer."""
LONGEST_TURN_S: Final = 5.0
LATE: Final = 1.5
"""A turn of more than so many times its length was late, and counts as this."""
DUMP_S: Final = 0.5
PAUSE_S: Final = 30.0

log = logging.getLogger("headgate.supervisor")


class Watch:
    """How long each worker has been silent, by a clock that stands still while we do."""

    __slots__ = ("_at", "_silent_s")

    def __init__(self) -> None:
        self._at: float | None = None
        self._silent_s: dict[int, float] = {}

    def turn(self, now: float, every_s: float, judged: Iterable[int]) -> list[int]:
        """Begin a turn of `every_s` and return who is to be asked: those of `judged` that owe no
        answer. Whoever is not judged in this turn is not known any more.
        """
        passed = 0.0 if self._at is None else max(0.0, min(now - self._at, LATE * every_s))
        self._at = now
        before, self._silent_s = self._silent_s, {}
        new = []
        for who in judged:
            if who in before:
                self._silent_s[who] = before[who] + passed
            else:
                self._silent_s[who] = 0.0
                new.append(who)
        return new

    def answered(self, who: int) -> None:
        """To be asked again in the next turn."""
        self._silent_s.pop(who, None)

    def overdue(self, limit_s: float) -> list[int]:
        """Who has been silent for the limit, the longest first."""
        late = [who for who, silent_s in self._silent_s.items() if silent_s >= limit_s]
        return sorted(late, key=lambda who: -self._silent_s[who])


class Watchdog:
    def __init__(self, crew: Crew, clock: Callable[[], float] = time.monotonic) -> None:
        self._crew = crew
        self._clock = clock
        self._watch = Watch()
        crew.on_pong = self._answered
        self._ending_until = 0.0
        self._ready_before = 0

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            limit_s = self._crew.committed.outline.watchdog_s
            every_s = min(limit_s / TURNS, LONGEST_TURN_S) if limit_s else OFF_TURN_S
            await asyncio.sleep(every_s)
            if limit_s and not self._crew.is_draining:
                await self._turn(limit_s, every_s)
            else:
                self._watch = Watch()

    def _answered(self, child: Child) -> None:
        self._watch.answered(child.pid)

    async def _turn(self, limit_s: float, every_s: float) -> None:
        judged = {
            child.pid: child
            for slot in self._crew.slots
            if (child := slot.child) is not None
            and child.state == "ready"
            and child not in self._crew.applying
            and not child.channel.is_closed
        }
        for pid in self._watch.turn(self._clock(), every_s, judged):
            judged[pid].channel.send("ping")
        for pid in self._watch.overdue(limit_s):
            if is_traced(pid):
                self._watch.answered(pid)  # asked again, with all its time before it
                continue
            if self._may_end():
                self._ready_before = len(self._ready())
                self._ending_until = self._clock() + PAUSE_S
                await self._end(judged[pid], limit_s)
            return

    def _may_end(self) -> bool:
        return len(self._ready()) >= self._ready_before or self._clock() >= self._ending_until

    def _ready(self) -> list[Child]:
        seated = [slot.child for slot in self._crew.slots]
        return [child for child in seated if child is not None and child.state == "ready"]

    async def _end(self, child: Child, limit_s: float) -> None:
        child.verdict = f"did not answer for {limit_s:g} s and was ended"
        log.error(
            "worker %d (pid %d) has not answered for %g s and is ended; its stacks follow",
            child.index,
            child.pid,
            limit_s,
        )
        child.kill(signal.SIGUSR2)
        await asyncio.sleep(DUMP_S)
        child.kill()


def is_traced(pid: int) -> bool:
    """Whether a debugger holds this process."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    except OSError:
        return False
    traced = [line for line in status.splitlines() if line.startswith("TracerPid:")]
    return bool(traced) and traced[0].split()[-1] != "0"

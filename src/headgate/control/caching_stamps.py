"""The clock of the barriers, where this machine owns it: see `cache.barriers`.

Theory of operation. A stamp of our own is the wall clock in microseconds, or one more than the last
stamp if the clock has not come that far. It is written to the state directory before it is given
out, so stamps also grow over restarts of control and of the machine, and over a clock set back.

With Redis the clock is Redis's and what is heard from there comes with its stamp. It is passed on
as it is if it is above all that this machine has told its workers, and raised above that if it is
not: a stamp too high strikes a little more, one too low would strike nothing. What we must decide
ourselves then is one more than the last, and not our wall clock, which may be ahead of Redis'. Of
stamps that are heard only a ceiling is written, about twice a second; so after a crash the clock
may stand up to `AHEAD_US` further than it had come, and what was told last is not known.

Where workers alone are told once more, under a stamp of its own, `told` stays where it was: else a
service that has heard all would hear of a gap after a crash of control.

A state directory that cannot be written costs the memory over restarts, and nothing else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from headgate.control.state_dir import StateDir, StateDirUnusable

__all__ = ["AHEAD_US", "CLOCK_FILE", "Stamps"]

CLOCK_FILE: Final = "cache-clock.json"
AHEAD_US: Final = 500_000
STAMP_MAX: Final = 10**16
"""From here on no stamp is one; in microseconds it is the year 2286."""

log = logging.getLogger("headgate.control")


class Stamps:
    def __init__(
        self,
        state: StateDir,
        wall: Callable[[], float] = time.time,  # noqa: TID251 - it is compared over restarts
    ) -> None:
        self._state = state
        self._wall = wall
        kept = state.read_json(CLOCK_FILE)
        stamp = kept.get("stamp")
        is_known = type(stamp) is int and 0 <= stamp < STAMP_MAX
        self.is_exact = is_known and kept.get("exact") is True
        """Nothing was told since the last run that the clock does not know of."""
        self.last: int = stamp if isinstance(stamp, int) and is_known else 0
        told = kept.get("told")
        is_told = self.is_exact and type(told) is int and 0 <= told <= self.last
        self.told: int = told if isinstance(told, int) and is_told else self.last
        """The last that services were to hear of."""
        self._kept = self.last
        self._is_failing = False

    def _now(self) -> int:
        return min(int(self._wall() * 1e6), STAMP_MAX)

    def next(self, *, is_ours: bool = True, is_told: bool = True) -> int:
        """A stamp above all others; `is_ours`: the clock is this machine's; `is_told`: services
        hear of it, and not workers alone.
        """
        self.last = max(self.last + 1, self._now() if is_ours else 0)
        if is_told:
            self.told = self.last
        self._keep(self.last, is_exact=True)
        return self.last

    def heard(self, stamp: int) -> int:
        """The stamp under which this machine's workers are told what was decided elsewhere."""
        if stamp >= STAMP_MAX:
            return self.next(is_ours=False)
        self.last = self.told = max(self.last + 1, stamp)
        if self.last > self._kept:
            self._keep(self.last + AHEAD_US, is_exact=False)
        return self.last

    def close(self) -> None:
        """The last stamp is known: who has followed to here has missed nothing."""
        self._keep(self.last, is_exact=True)

    def _keep(self, stamp: int, *, is_exact: bool) -> None:
        self._kept = stamp
        self.is_exact = is_exact
        try:
            self._state.write_json(
                CLOCK_FILE, {"stamp": stamp, "exact": is_exact, "told": self.told}
            )
        except StateDirUnusable as error:
            if not self._is_failing:
                log.warning("the clock of the caches is not kept over restarts: %s", error)
            self._is_failing = True
        else:
            self._is_failing = False

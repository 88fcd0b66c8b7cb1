"""SIGTERM and Ctrl-C on their way: first the registry hears that we leave, then the server stops.

Theory of operation. A server that gets SIGTERM closes its socket at once, and whoever has not
heard of it is turned away. So the signal is held back: `begin` is called, and once the leaving is
over, `pass_on` gives the signal to whoever had it before, as if it came only then. A second signal
passes at once. Only the main thread may handle signals; elsewhere nothing is held back.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

__all__ = ["Terminating"]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Terminating:
    def __init__(self, begin: Callable[[], None]) -> None:
        self._begin = begin
        self._before: dict[int, Any] = {}
        self.held = 0
        """The signal that is held back; 0 for none."""

    def install(self) -> None:
        """Hold them back from now on, where that is possible."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            before = signal.getsignal(number)
            if before is signal.SIG_IGN or before is None:
                continue  # nobody wants to hear of it, or somebody beyond Python does
            self._before[number] = before
            signal.signal(number, self._came)

    @property
    def nobody_waits(self) -> bool:
        """Whether the process would simply have died of the one that is held back."""
        return self._before.get(self.held) is signal.SIG_DFL

    def remove(self) -> None:
        """Hold nothing back any more."""
        if threading.current_thread() is not threading.main_thread():
            return
        before, self._before = self._before, {}
        for number, handler in before.items():
            if signal.getsignal(number) == self._came:
                signal.signal(number, handler)

    def pass_on(self) -> None:
        """What was held back goes to whom it was meant for."""
        number = self.held
        if not number:
            return
        nobody_waits = self.nobody_waits
        self.held = 0
        self.remove()
        if nobody_waits:
            # As a shell says it of who died of the signal, but with everything put away.
            raise SystemExit(128 + number)
        signal.raise_signal(number)

    def _came(self, number: int, frame: FrameType | None) -> None:
        if self.held:
            self.pass_on()
            return
        self.held = number
        self._begin()

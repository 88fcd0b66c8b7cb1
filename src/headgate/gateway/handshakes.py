"""What a listener makes of handshakes that failed: counts by class, and now and then a line.

Anybody can make handshakes fail, thousands a second and from everywhere, so each class has at most
one line in `_EVERY_S`; the next one says how many there were in between. That a client closed in
the middle is counted and not told: port checks of load balancers do nothing else, all day long.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from headgate.observe import ListenerStats
    from headgate.wire.handshakes import HandshakeFault

_EVERY_S: Final = 60.0
_NAME_SHOWN: Final = 100
_HINTS: Final[dict[str, str]] = {
    "not_tls": "; the listener speaks TLS and the client does not",
    "certificate_refused": "; the client does not trust our certificate",
}

log: Final = logging.getLogger("headgate.tls")


class FailedHandshakes:
    def __init__(
        self, bind: str, stats: ListenerStats, clock: Callable[[], float] = monotonic
    ) -> None:
        self._bind = bind
        self._stats = stats
        self._clock = clock
        self._told_at: dict[str, float] = {}
        self._untold: dict[str, int] = {}

    def on_fault(self, fault: HandshakeFault, words: str, name: str | None) -> None:
        self._stats.tls_failed.add(fault)
        if fault == "closed":
            return
        now = self._clock()
        told_at = self._told_at.get(fault)
        if told_at is not None and now - told_at < _EVERY_S:
            self._untold[fault] = self._untold.get(fault, 0) + 1
            return
        self._told_at[fault] = now
        untold = self._untold.pop(fault, 0)
        log.info(
            "%s: a TLS handshake failed (%s): %s%s%s%s",
            self._bind,
            fault,
            words,
            _HINTS.get(fault, ""),
            f"; the client asked for {_shown(name)}" if name else "",
            f"; and {untold} more of these before it" if untold else "",
        )


def _shown(name: str) -> str:
    text = name[:_NAME_SHOWN]
    return "".join(c if c.isprintable() else "?" for c in text)

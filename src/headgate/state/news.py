"""The board as one process sees it: who listens to what, and what is retained.

Theory of operation. `hear` is for what others published: it is told to the listeners of its topic.
`keep` is for what we publish ourselves. Either, with `retain`, replaces what was kept under the
same (topic, retain), and a listener that comes later is told it first. Each kept message has a
version, so that two processes that kept different ones can tell which is the newer.

At `most` kept messages the one written longest ago makes room. A listener that raises is logged
and hears on; the others are not disturbed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

from headgate.state.home import RETAINED_MAX, Listener, Message

__all__ = ["Kept", "News"]

log = logging.getLogger("headgate.state")


class Kept(NamedTuple):
    topic: str
    retain: str
    version: int
    message: Message


class News:
    __slots__ = ("_kept", "_listeners", "_most")

    def __init__(self, most: int = RETAINED_MAX) -> None:
        self._listeners: dict[str, list[Listener]] = {}
        self._kept: dict[tuple[str, str], Kept] = {}
        self._most = most

    def subscribe(self, topic: str, listener: Listener) -> Callable[[], None]:
        self._listeners.setdefault(topic, []).append(listener)
        for kept in [kept for kept in self._kept.values() if kept.topic == topic]:
            _tell(listener, topic, kept.message)

        def unsubscribe() -> None:
            listeners = self._listeners.get(topic, [])
            if listener in listeners:
                listeners.remove(listener)

        return unsubscribe

    def keep(self, topic: str, retain: str, message: Message, version: int) -> None:
        place = (topic, retain)
        self._kept.pop(place, None)  # so that the order is that of writing
        self._kept[place] = Kept(topic, retain, version, message)
        if len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]

    def hear(
        self, topic: str, message: Message, retain: str | None = None, version: int = 0
    ) -> None:
        if retain is not None:
            self.keep(topic, retain, message, version)
        for listener in tuple(self._listeners.get(topic, ())):
            _tell(listener, topic, message)

    def forget(self, topic: str, retain: str) -> None:
        self._kept.pop((topic, retain), None)

    def get(self, topic: str, retain: str) -> Kept | None:
        return self._kept.get((topic, retain))

    def version(self, topic: str, retain: str) -> int:
        """Of what is kept there; -1 for nothing."""
        kept = self._kept.get((topic, retain))
        return -1 if kept is None else kept.version

    def kept(self) -> Iterator[Kept]:
        return iter(tuple(self._kept.values()))

    def __len__(self) -> int:
        return len(self._kept)


def _tell(listener: Listener, topic: str, message: Message) -> None:
    try:
        listener(message)
    except Exception:
        log.exception("a listener to %r failed on %r", topic, message)

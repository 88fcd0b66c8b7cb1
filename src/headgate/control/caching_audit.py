"""Invalidations in the audit log: who, what, how many.

What an operator or a service asks here is written entry by entry, by `purged`. What comes from
services and other machines over Redis may come in thousands: the first `SAID_MAX` of a minute are
written one by one, the others as one entry when the minute is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Protocol

from headgate.cache.invalidation import Invalidation

__all__ = ["PurgeBook", "Recorder", "in_words"]

MINUTE_S: Final = 60.0
SAID_MAX: Final = 20
_SHOWN: Final = 5
_LISTS: Final = ("tags", "keys", "patterns", "urls")


class Recorder(Protocol):
    def record(
        self,
        action: str,
        actor: str,
        *,
        target: str = "",
        origin: str = "",
        outcome: Any = "ok",
        detail: Mapping[str, Any] | None = None,
    ) -> int | None: ...


class PurgeBook:
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._said = 0
        self._unsaid = 0
        self._first: Invalidation | None = None
        self._timer: asyncio.TimerHandle | None = None

    def purged(
        self,
        invalidation: Invalidation,
        *,
        actor: str,
        origin: str,
        is_whole: bool,
        detail: Mapping[str, Any],
    ) -> None:
        self._recorder.record(
            "cache.purged",
            actor,
            target=in_words(invalidation),
            origin=origin,
            outcome="ok" if is_whole else "failed",
            detail={**_said(invalidation), **detail},
        )

    def heard(self, invalidation: Invalidation) -> None:
        """It came over Redis. On the running loop."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(MINUTE_S, self._turn)
        if self._said >= SAID_MAX:
            self._unsaid += 1
            self._first = self._first or invalidation
            return
        self._said += 1
        self._recorder.record(
            "cache.invalidated",
            invalidation.by or "service",
            target=in_words(invalidation),
            origin="redis",
            outcome="noted",
            detail=_said(invalidation),
        )

    def lost(self, why: str) -> None:
        """Everything was forgotten, because news may have been missed."""
        self._recorder.record("cache.forgotten", "gateway", outcome="noted", detail={"why": why})

    def _turn(self) -> None:
        self._timer = None
        count, first = self._unsaid, self._first
        self._said = self._unsaid = 0
        self._first = None
        if count and first is not None:
            self._recorder.record(
                "cache.invalidated",
                "services",
                target=f"{count} more, such as {in_words(first)}",
                origin="redis",
                outcome="noted",
                detail={"count": count},
            )

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._turn()


def in_words(invalidation: Invalidation) -> str:
    """What is forgotten, for a line of a list."""
    if invalidation.everything:
        return f"everything: {invalidation.everything}"
    parts = []
    for name in _LISTS:
        values: tuple[str, ...] = getattr(invalidation, name)
        if values:
            more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
            parts.append(f"{name}: {', '.join(values[:_SHOWN])}{more}")
    text = "; ".join(parts)
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _said(invalidation: Invalidation) -> dict[str, Any]:
    said: dict[str, Any] = {"stamp": invalidation.stamp, "soft": invalidation.soft}
    said |= {
        name: len(getattr(invalidation, name)) for name in _LISTS if getattr(invalidation, name)
    }
    if invalidation.by:
        said["by"] = invalidation.by
    return said

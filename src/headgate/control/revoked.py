"""What control remembers of revocations, to tell those who ask; workers have the list that counts.

Bounded like theirs: what is over is dropped, and beyond the bound the oldest.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from math import isfinite
from typing import Any, Final, get_args

from headgate.security.tokens.revocations import RevocationKind, retain_key

_KEPT: Final = 10_000
_KINDS: Final = get_args(RevocationKind)


class Revoked:
    def __init__(self) -> None:
        self._said: dict[str, dict[str, Any]] = {}

    def hear(self, message: Mapping[str, Any]) -> None:
        """One that was made here or elsewhere in the fleet."""
        if not _is_understood(message):
            return  # of another version
        key = retain_key(message)
        self._said.pop(key, None)
        self._said[key] = dict(message)
        if len(self._said) > _KEPT:
            del self._said[next(iter(self._said))]

    def standing(self) -> list[dict[str, Any]]:
        wall = time.time()  # noqa: TID251 - tokens live in wall time
        over = [key for key, said in self._said.items() if said["until"] <= wall]
        for key in over:
            del self._said[key]
        return list(self._said.values())


def _is_understood(message: Mapping[str, Any]) -> bool:
    """What cannot be told again must not be kept: it would stand in the way of all others."""
    before = message.get("before")
    return (
        message.get("kind") in _KINDS
        and isinstance(message.get("value"), str)
        and isinstance(message.get("issuer", ""), str)
        and (before is None or _is_time(before))
        and _is_time(message.get("until"))
    )


def _is_time(value: object) -> bool:
    return type(value) in (int, float) and isfinite(value)  # type: ignore[arg-type]  # one of both

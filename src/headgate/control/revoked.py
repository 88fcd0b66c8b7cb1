"""What control remembers of revocations, to tell those who ask; workers have the list that counts.

Bounded like theirs: what is over is dropped, and beyond the bound the oldest.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from headgate.security.tokens.revocations import retain_key

_KEPT: Final = 10_000


class Revoked:
    def __init__(self) -> None:
        self._said: dict[str, dict[str, Any]] = {}

    def hear(self, message: Mapping[str, Any]) -> None:
        """One that was made here or elsewhere in the fleet."""
        if not {"kind", "value", "until"} <= message.keys():
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

"""Nonces that were used: so that a signed request counts once.

Theory of operation. A nonce is remembered until the request that carried it is too old anyway. It
is recorded only after its signature held, so that only who has a key takes room here. Room is
bounded in all, and one key may take half of it: when there is none left, the answer is "full" and
the request is refused (503), since letting it pass or forgetting another one would let a replay in.

Each worker has its own and hears of what others recorded. A copy that comes to another worker
before the news does (a millisecond or so on one machine), or while the way of the news is down,
passes there once: a replay is bounded by the number of workers, not excluded. A restart forgets.
"""

from __future__ import annotations

import heapq
from hashlib import sha256
from typing import Final, Literal

_SWEEP_MAX: Final = 16


class Nonces:
    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.heard = 0
        self._ends: dict[bytes, float] = {}
        self._of_key: dict[str, int] = {}
        self._order: list[tuple[float, bytes, str]] = []

    def __len__(self) -> int:
        return len(self._ends)

    def use(
        self, key_id: str, nonce: str, ends: float, wall: float
    ) -> Literal["new", "used", "full"]:
        """Record a nonce until `ends`; say whether it was new."""
        tag = tag_of(key_id, nonce)
        self._sweep(wall)
        if tag in self._ends:
            # Also when its end has passed and it was not swept yet: it was used.
            return "used"
        if len(self._ends) >= self.limit or self._of_key.get(key_id, 0) >= max(1, self.limit // 2):
            self._sweep(wall, everything=True)
            mine = self._of_key.get(key_id, 0)
            if len(self._ends) >= self.limit or mine >= max(1, self.limit // 2):
                return "full"
        self._add(tag, key_id, ends)
        return "new"

    def hear(self, tag: bytes, key_id: str, ends: float, wall: float) -> None:
        """Record what another worker has seen; dropped where there is no room."""
        self._sweep(wall)
        if tag in self._ends or ends <= wall or len(self._ends) >= self.limit:
            return
        # Half for a key here as well, or a key that is busy elsewhere would shut out all others.
        if self._of_key.get(key_id, 0) < max(1, self.limit // 2):
            self.heard += 1
            self._add(tag, key_id, ends)

    def _add(self, tag: bytes, key_id: str, ends: float) -> None:
        self._ends[tag] = ends
        self._of_key[key_id] = self._of_key.get(key_id, 0) + 1
        heapq.heappush(self._order, (ends, tag, key_id))

    def _sweep(self, wall: float, *, everything: bool = False) -> None:
        """Forget what has ended; a few at a time, so that no request pays for many."""
        left = len(self._order) if everything else _SWEEP_MAX
        while left and self._order and self._order[0][0] <= wall:
            left -= 1
            _, tag, key_id = heapq.heappop(self._order)
            del self._ends[tag]
            count = self._of_key[key_id] - 1
            if count:
                self._of_key[key_id] = count
            else:
                del self._of_key[key_id]


def tag_of(key_id: str, nonce: str) -> bytes:
    """A nonce of a key, in sixteen bytes: what is told to other workers says nothing of it."""
    return sha256(key_id.encode() + b"\0" + nonce.encode()).digest()[:16]

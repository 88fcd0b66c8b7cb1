"""Whose turn it is to order, among machines that share a board: the first to have asked.

Theory of operation. Whoever wants to order claims so on the board, waits until others have had the
time to hear it, and orders if no living claim is older; otherwise it looks again later. A claim
keeps its place until it is taken back, or has not been renewed for `LIFE_S`.

This is manners and no lock: with a board that is slow or away two machines may order at once. The
worst of it is a certificate too many, which is why it is done by the board and not by a lease.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["CLAIMS_TOPIC", "Claims"]

CLAIMS_TOPIC: Final = "acme-claims"
LIFE_S: Final = 900.0
MAX: Final = 1000


class Claims:
    """The claims of others, and ours."""

    def __init__(self, holder: str) -> None:
        self.holder = holder
        self._since: float | None = None
        self._others: dict[str, tuple[float, float]] = {}

    def claim(self, wall: float) -> dict[str, Any]:
        """Ask for a turn, or go on asking; to be published, retained under our holder's name."""
        if self._since is None:
            self._since = wall
        return {"holder": self.holder, "since": self._since}

    def end(self) -> dict[str, Any]:
        """Our turn is over; to be published likewise."""
        self._since = None
        return {"holder": self.holder, "gone": True}

    def hear(self, message: Mapping[str, Any], now: float) -> None:
        holder, since = message.get("holder"), message.get("since")
        if not isinstance(holder, str) or holder == self.holder or len(holder) > 200:
            return
        if message.get("gone") is True:
            self._others.pop(holder, None)
        elif isinstance(since, (int, float)) and not isinstance(since, bool):
            self._others[holder] = (float(since), now + LIFE_S)
            while len(self._others) > MAX:
                del self._others[next(iter(self._others))]

    def is_ours(self, now: float) -> bool:
        """Whether no living claim comes before ours."""
        if self._since is None:
            return False
        ours = (self._since, self.holder)
        return all(
            ours < (since, holder) for holder, (since, until) in self._others.items() if until > now
        )

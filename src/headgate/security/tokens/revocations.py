"""Tokens that hold no more although they have not expired.

Theory of operation. A revocation is by the token's id (`jti`), by session (`sid`), or by subject
(`sub`); of the last two those tokens are meant that were issued before a moment, so that the user
may log in again. A token that does not say when it was issued is taken to be old. `iat` counts in
whole seconds: a token of the very second of the revocation is revoked too.

Each lasts `until`, when the last token it could mean has expired anyway. The list is bounded. When
it is full, the one that ends soonest is given up, because the hole it leaves closes first; `lost`
counts them, and an operator sees that number. Revocations come over the board and may come twice.

`revision` moves with everything that could revoke a token, and only then.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

RevocationKind = Literal["jti", "sub", "sid"]

TOPIC: Final = "revoked"
MAX_ENTRIES: Final = 100_000
MAX_VALUE: Final = 512
_ORDER: Final[tuple[str, ...]] = get_args(RevocationKind)
_LONGEST_S: Final = 400 * 86400.0


def revocation(
    kind: RevocationKind,
    value: str,
    *,
    wall: float,
    last_s: float = 86400.0,
    before: float | None = None,
    issuer: str = "",
) -> dict[str, Any]:
    """The message that revokes, for topic `revoked`; retain it under `retain_key` of it.

    ``last_s`` must be as long as the longest-lived token. ``before`` is now unless said. Without
    ``issuer`` tokens of every issuer are meant.
    """
    if kind not in _ORDER:
        raise ValueError(f"a revocation is by jti, sub or sid, not by {kind!r}")
    if not value or len(value) > MAX_VALUE:
        raise ValueError(f"what is revoked has 1 to {MAX_VALUE} characters")
    if not 0 < last_s <= _LONGEST_S:
        raise ValueError("a revocation lasts more than no time and at most 400 days")
    return {
        "kind": kind,
        "value": value,
        "issuer": issuer,
        "before": None if kind == "jti" else (wall if before is None else before),
        "until": wall + last_s,
    }


def retain_key(message: Mapping[str, Any]) -> str:
    """Under which the board keeps it for workers that come later."""
    return f"{message['kind']}:{message.get('issuer', '')}:{message['value']}"


class Revocations:
    """What is revoked."""

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._entries: dict[tuple[str, str, str], tuple[float, float]] = {}
        """(kind, issuer, value) to (issued before, until)."""
        self._ends: list[tuple[float, tuple[str, str, str]]] = []
        self.revision = 0
        self.lost = 0
        self.ignored = 0
        """Messages that made no sense."""

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, message: Mapping[str, Any], wall: float) -> bool:
        """Hear one. Whether it changes anything."""
        read = _read(message)
        if read is None:
            self.ignored += 1
            return False
        key, before, until = read
        until = min(until, wall + _LONGEST_S)
        if until <= wall:
            return False
        known = self._entries.get(key)
        if known is not None:
            before, until = max(before, known[0]), max(until, known[1])
            if (before, until) == known:
                return False
        self._prune(wall)
        is_full = known is None and len(self._entries) >= self._max_entries
        if is_full and not self._make_room(until):
            self.lost += 1
            return False
        self._entries[key] = (before, until)
        heapq.heappush(self._ends, (until, key))
        if len(self._ends) > 2 * len(self._entries) + 64:  # ends that were moved
            self._ends = [(entry[1], each) for each, entry in self._entries.items()]
            heapq.heapify(self._ends)
        self.revision += 1
        return True

    def is_revoked(self, claims: Mapping[str, Any], wall: float, subject: str = "") -> bool:
        """``subject`` is the user's name here, where that is another claim than `sub`."""
        if not self._entries:
            return False
        if self._matches(claims, "sub", subject, wall):
            return True
        return any(self._matches(claims, kind, claims.get(kind), wall) for kind in _ORDER)

    def _matches(self, claims: Mapping[str, Any], kind: str, value: object, wall: float) -> bool:
        if not isinstance(value, str) or not value:
            return False
        issuer = claims.get("iss")
        for each in ("", issuer) if isinstance(issuer, str) and issuer else ("",):
            entry = self._entries.get((kind, each, value))
            if entry is not None and wall < entry[1]:
                issued = _date(claims.get("iat"))
                if issued is None or issued < entry[0]:
                    return True
        return False

    def snapshot(self) -> dict[str, int]:
        return {"count": len(self._entries), "lost": self.lost, "ignored": self.ignored}

    def _prune(self, wall: float) -> None:
        while self._ends and self._ends[0][0] <= wall:
            end, key = heapq.heappop(self._ends)
            entry = self._entries.get(key)
            if entry is not None and entry[1] == end:
                del self._entries[key]

    def _make_room(self, until: float) -> bool:
        """Give up the one that ends soonest, unless that is the new one."""
        while self._ends:
            end, key = self._ends[0]
            entry = self._entries.get(key)
            if entry is not None and entry[1] == end:
                if until <= end:
                    return False
                heapq.heappop(self._ends)
                del self._entries[key]
                self.lost += 1
                return True
            heapq.heappop(self._ends)
        return True


def _read(message: object) -> tuple[tuple[str, str, str], float, float] | None:
    """A message of another process, which may be of another version."""
    if not isinstance(message, Mapping):
        return None
    kind, value = message.get("kind"), message.get("value")
    issuer = message.get("issuer", "")
    if kind not in _ORDER or not isinstance(value, str) or not isinstance(issuer, str):
        return None
    until, before = _date(message.get("until")), _date(message.get("before"))
    if not 0 < len(value) <= MAX_VALUE or len(issuer) > MAX_VALUE or until is None:
        return None
    if before is None:
        if message.get("before") is not None:
            return None
        before = math.inf
    return (kind, issuer, value), math.inf if kind == "jti" else before, until


def _date(value: object) -> float | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return float(value) if -(2.0**53) < value < 2.0**53 else None

"""Sessions that were ended before their time: by logging out, or by the provider.

Theory of operation
-------------------
A session lives in the browser, so ending it for good means to remember that it ended until it
would have been over anyway. An entry is (kind, value) -> the time before which sessions are over:

    session   ours, by its own id: logged out here
    sid, sub  the provider's session or user, by back-channel logout; sessions that began after
              the logout (by the provider's own clock) stand

When there is no room, the oldest entry goes and everything that began before we heard of it is
over: who logged in long ago must do so once more, which is better than a session that comes back
to life.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from headgate.security.login.sessions import Session

MOST_ENDED: Final = 20_000
_KINDS: Final = frozenset({"session", "sid", "sub"})
_LONGEST: Final = 512


class Ended:
    def __init__(self, keep_s: float, most: int = MOST_ENDED) -> None:
        self.keep_s = keep_s
        self.generation = 0
        """Moves with each end: what was verified before must be looked at again."""
        self._most = most
        self._until: dict[tuple[str, str], tuple[float, float]] = {}
        """To the time before which sessions are over, and when we heard of it."""
        self._floor = 0.0

    def end(self, kind: str, value: str, before: float, wall: float) -> None:
        """Over is what began before that time."""
        key = (kind, value)
        known = self._until.pop(key, None)
        self._until[key] = (before if known is None else max(known[0], before), wall)
        if known is not None and known[0] >= before:
            return  # the same news again, such as our own
        self._forget(wall)
        self.generation += 1

    def hear(self, message: Mapping[str, Any], issuer: str, wall: float) -> bool:
        """News from elsewhere (see `tokens.revocations`); False when it is none of ours. Without
        an issuer those of every issuer are meant.
        """
        kind, value = message.get("kind"), message.get("value")
        if not isinstance(kind, str) or kind not in _KINDS:
            return False
        if not isinstance(value, str) or not 0 < len(value) <= _LONGEST:
            return False
        if message.get("issuer", "") not in ("", issuer):
            return False
        before = message.get("before")
        if before is None:
            before = wall
        if type(before) not in {int, float} or not -(2.0**53) < before < 2.0**53:
            return False
        self.end(kind, value, float(before), wall)
        return True

    def is_ended(self, session: Session) -> bool:
        if session.started <= self._floor:
            return True
        found = self._until
        if not found:
            return False
        if ("session", session.id) in found:
            return True
        began = session.issued or session.started
        for key in (("sid", session.sid), ("sub", session.subject), ("sub", session.sub)):
            known = found.get(key)
            if known is not None and began < known[0]:
                return True
        return False

    def _forget(self, wall: float) -> None:
        # Oldest first, as they were heard: an end of which no session can be left makes room.
        while self._until:
            key = next(iter(self._until))
            heard = self._until[key][1]
            if wall - heard > self.keep_s:
                del self._until[key]
            elif len(self._until) > self._most:
                del self._until[key]
                self._floor = max(self._floor, heard)
            else:
                return

    def __len__(self) -> int:
        return len(self._until)

"""One renewal of a session at a time, and what becomes of those that come late.

Theory of operation
-------------------
A browser sends many requests at once, and a refresh token works once. So the first request of a
session that is due renews it and the others wait for it; what came of it is kept for GRACE_S,
because requests that were sent with the old cookie go on arriving, and a slow answer may even put
the old cookie back.

Other workers may be asked at the same moment. Each says on the board that it begins and what came
of it (sealed), and waits a little for one that said so first. Two that begin in the same
millisecond both ask; one of them is refused by a provider that takes each refresh token once. It
then waits for the other's news, and for as long as the old access holds nobody is logged out.

Everything is by `tag`, a digest of the refresh token and its time, never by the token itself.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from headgate.security.login.failed import LoginFailed
from headgate.security.login.flow import b64url
from headgate.security.login.sessions import Session

GRACE_S: Final = 300.0
CLAIM_S: Final = 5.0
"""How long another worker is believed to be about to say what came of it."""
MOST_KEPT: Final = 4096
MOST_FLIGHTS: Final = 1024
AWAY_S: Final = 5.0
"""How long a session is not renewed again after the provider could not be reached."""


@dataclass(frozen=True, slots=True)
class Renewed:
    session: Session
    sealed: bytes
    at: float


Outcome = Renewed | LoginFailed


def tag_of(session: Session) -> str:
    # A provider may let the same refresh token be used again; the time tells the renewals apart.
    text = f"{session.id} {session.access_until} {session.refresh_token}"
    return b64url(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:18])


class Renewals:
    """What is known of renewals in this process. Times are wall times."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most = most
        self._done: dict[str, Renewed | tuple[LoginFailed, float]] = {}
        self._claimed: dict[str, float] = {}
        self._flights: dict[str, asyncio.Future[Outcome]] = {}
        self.renewed = 0
        self.refused = 0

    def known(self, tag: str, wall: float) -> Outcome | None:
        """What came of it of late: the renewed session, or why it is not tried again yet."""
        found = self._done.get(tag)
        if isinstance(found, Renewed):
            if abs(wall - found.at) <= GRACE_S:
                return found
            del self._done[tag]
        elif found is not None:
            failure, at = found
            keep_s = GRACE_S if failure.kind == "refused" else AWAY_S
            if abs(wall - at) <= keep_s:
                return failure
            del self._done[tag]
        return None

    def settle(self, tag: str, outcome: Outcome, wall: float) -> None:
        """A renewal succeeds or fails; a success that is heard of outdoes a failure of our own."""
        known = self._done.get(tag)
        if isinstance(known, Renewed) and not isinstance(outcome, Renewed):
            outcome = known
        else:
            self._done.pop(tag, None)
            self._done[tag] = outcome if isinstance(outcome, Renewed) else (outcome, wall)
            while len(self._done) > self._most:
                del self._done[next(iter(self._done))]
        self._claimed.pop(tag, None)
        flight = self._flights.pop(tag, None)
        if flight is not None and not flight.done():
            flight.set_result(outcome)

    def claim(self, tag: str, wall: float) -> None:
        """Another worker is at it."""
        self._claimed[tag] = wall
        while len(self._claimed) > self._most:
            del self._claimed[next(iter(self._claimed))]

    def is_claimed(self, tag: str, wall: float) -> bool:
        return abs(wall - self._claimed.get(tag, float("-inf"))) <= CLAIM_S

    async def once(self, tag: str, begin: Callable[[], None]) -> Outcome:
        """What comes of it. `begin` is called for the first who asks; it must see to it that
        `settle` is called sooner or later. Who asks may leave; the renewal goes on.
        """
        flight = self._flights.get(tag)
        if flight is None:
            if len(self._flights) >= MOST_FLIGHTS:
                return LoginFailed("busy", f"more than {MOST_FLIGHTS} sessions are being renewed")
            flight = asyncio.get_running_loop().create_future()
            self._flights[tag] = flight
            try:
                begin()
            except LoginFailed as failure:
                del self._flights[tag]
                return failure
        return await asyncio.shield(flight)

    async def wait_news(self, tag: str, wall: float, at_most_s: float) -> Renewed | None:
        """What another worker says came of it, if it says so in time."""
        loop = asyncio.get_running_loop()
        end = loop.time() + at_most_s
        while True:
            found = self._done.get(tag)
            if isinstance(found, Renewed):
                return found
            left = end - loop.time()
            if left <= 0:
                return None
            await asyncio.sleep(min(left, 0.02))

"""A call and its attempts: what is asked, how far it has come, and what each try has taken."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from math import inf
from typing import TYPE_CHECKING

from headgate.resilience.hop import UNTIL

if TYPE_CHECKING:
    from headgate.mesh.client.building import Body
    from headgate.mesh.http import Timeouts
    from headgate.policy.balancer import Member
    from headgate.policy.breaker import Breaker, Permit
    from headgate.resilience.hop import Hop
    from headgate.wire.message import Header

__all__ = ["Attempt", "Call", "Once", "time_left_s"]


class Call:
    """What is asked, and how far it has come."""

    # No slots: most of these are seldom set, and a default on the class costs a call nothing.

    attempts = 0
    sides = 0
    """Hedges among them."""
    tried: tuple[Member, ...] = ()
    waited_s = 0.0
    started = 0.0
    expires_at = inf
    is_theirs = False
    """The end of its time is that of the call around it."""
    is_diverted = False
    """A fallback has been asked; that has none itself."""
    is_stream = False
    key = 0
    """What the balancer hashes."""
    timeouts: Timeouts | None = None
    """In place of the service's, where the call comes by httpx."""
    hop: Hop | None = None
    may_retry = True
    above: Header | None = None
    """What those below are told, where somebody above retries."""

    def __init__(
        self,
        method: str,
        target: bytes,
        fields: list[Header],
        body: Body,
        repeatable: bool | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self.method = method
        self.target = target
        self.fields = fields
        self.body = body
        self.repeatable = repeatable
        """Whether it may be carried out twice; None: as its method says."""
        self.timeout_s = timeout_s


class Attempt:
    """One try: what it has taken, until `settle` gives it back."""

    __slots__ = (
        "began",
        "breaker",
        "came_back_to",
        "is_open",
        "key",
        "member",
        "permit",
        "tried",
    )

    def __init__(self, key: int, tried: tuple[Member, ...], now: float) -> None:
        self.key = key
        self.tried = tried
        self.came_back_to: Member | None = None
        self.breaker: Breaker | None = None
        self.permit: Permit | None = None
        self.member: Member | None = None
        self.began = now
        self.is_open = True

    def take_permit(self, breaker: Breaker, permit: Permit) -> None:
        self.breaker = breaker
        self.permit = permit


def time_left_s(call: Call, total_s: float | None) -> float:
    """What a call may take that has not begun yet; `total_s` is the file's."""
    bound = call.timeout_s if call.timeout_s is not None else total_s
    until = UNTIL.get()
    left_s = until.left_s if until is not None else inf
    return max(0.0, min(left_s, inf if bound is None else bound))


class Once:
    """A body that can be sent once; knows whether anybody has begun to read it."""

    __slots__ = ("_pieces", "is_begun")

    def __init__(self, pieces: AsyncIterable[bytes]) -> None:
        self._pieces = pieces
        self.is_begun = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        self.is_begun = True
        return self._pieces.__aiter__()

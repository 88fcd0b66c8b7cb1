"""One request and the future that its caller waits on.

Theory of operation
-------------------
    in line -> asked -> answered
       |         |
       +---------+--> failed | left

An exchange is in a pool's line or on a connection, never both, and ends once: `finish` and `fail`
do nothing when the caller has its answer or has left. `leave` is the caller's, from whichever
state: out of the line, or by aborting the connection, since what is still to come on it belongs
to nobody.

A request may be sent a second time once, on another connection, when a kept connection ended
before a single byte of a response: its server has most likely closed it while the request was
under way (RFC 9112 9.3.1). Only if its method is idempotent and its body is at hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from headgate.errors import UpstreamFailed
from headgate.mesh.http.response import Response
from headgate.policy.retry import IDEMPOTENT

if TYPE_CHECKING:
    from headgate.mesh.http.body import Incoming
    from headgate.mesh.http.connection import Connection
    from headgate.mesh.http.pool import Pool
    from headgate.mesh.http.request import RequestHead
    from headgate.wire.message import ResponseHead

Body = bytes | AsyncIterable[bytes] | None


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each part of a call may take, beside its deadline. `math.inf` is for ever."""

    connect_s: float = 5.0
    """To look a name up, to connect and to agree on TLS."""
    silence_s: float = 30.0
    """To the first byte of the response, and between two; also while the instance takes nothing of
    a request that is being sent."""
    queue_s: float = 5.0
    """To wait for a connection when all are taken."""


DEFAULT_TIMEOUTS: Final = Timeouts()

# What the kind of a failure leaves open, for `UpstreamFailed.reason`.
NOT_IN_TIME: Final = "no connection in time"
TOOK_NOTHING: Final = "took nothing of the request"


class Exchange:
    __slots__ = (
        "block",
        "body",
        "body_bytes_max",
        "chunks",
        "connection",
        "context",
        "deadline",
        "future",
        "is_head",
        "is_stream",
        "keep",
        "length",
        "loop",
        "may_repeat",
        "method",
        "pool",
        "timeouts",
    )

    def __init__(
        self,
        future: asyncio.Future[Response],
        method: str,
        head: RequestHead,
        body: Body,
        deadline: float,
        timeouts: Timeouts,
        body_bytes_max: float,
        *,
        is_stream: bool,
    ) -> None:
        self.future: asyncio.Future[Response] | None = future
        """Of the caller; not held once it has its answer, or a stream could not be collected."""
        self.loop = future.get_loop()
        self.method = method
        self.is_head = method == "HEAD"
        self.block = head.block
        self.length = head.length
        self.keep = head.keep
        self.deadline = deadline
        self.timeouts = timeouts
        self.body_bytes_max = body_bytes_max
        self.is_stream = is_stream
        self.connection: Connection | None = None
        self.pool: Pool | None = None
        self.context: Context | None = None
        if body is None or isinstance(body, bytes):
            self.body = body
            self.chunks: AsyncIterable[bytes] | None = None
            self.may_repeat = method in IDEMPOTENT
        else:
            self.body = None
            self.chunks = body
            self.may_repeat = False
            # The body is read in the caller's context, wherever the connection comes from.
            self.context = copy_context()

    def finish(self, head: ResponseHead, raw: bytes, incoming: Incoming | None, name: str) -> bool:
        """Give the caller its answer; False if it is not there any more."""
        self.connection = None
        future, self.future = self.future, None
        if future is None or future.done():
            return False
        future.set_result(Response(head, raw, incoming, name, self.body_bytes_max))
        return True

    def fail(self, failure: BaseException) -> None:
        self.connection = None
        future, self.future = self.future, None
        if future is not None and not future.done():
            future.set_exception(failure)

    def leave(self, future: asyncio.Future[Response]) -> None:
        """The caller has been cancelled while it waited on its future."""
        self.future = None
        pool, connection = self.pool, self.connection
        if pool is not None:
            self.pool = None
            pool.forget(self)
        if connection is not None:
            self.connection = None
            connection.cancel()
        if future.done() and not future.cancelled():
            # The answer has come in the same turn of the loop and nobody will read it.
            if future.exception() is None:
                future.result().abort()
        else:
            future.cancel()

    @property
    def is_over(self) -> bool:
        return self.future is None or self.future.done()


def no_time_left(name: str) -> UpstreamFailed:
    return UpstreamFailed("timeout", f"{name}: the deadline has passed")

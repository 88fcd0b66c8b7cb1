"""One connection to one Redis: batches out, answers in, in order.

Theory of operation. What is sent goes in batches, each written at once, with one timer. Answers
come in the order of the commands; each is handed to the call that asked, and thrown away where that
call has been given up meanwhile (its deadline, or a cancelled task). So nothing that happens to a
caller harms the connection, and no answer reaches the wrong one.

A batch past its deadline fails its calls, and the connection lives on: it may be a slow answer. One
that is not answered for `stale_s` either ends the connection.

redis-py connects, because it knows passwords, TLS and Sentinel; then the transport is taken over.
Its own way to read costs several times what a whole command costs here.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from headgate.policy.breaker import Permit

__all__ = ["Call", "Command", "Entry", "Link", "Owner", "heed_cancel", "open_link"]

_HELD_UP_S: Final = 0.01
_HELD_UP_TURN_S: Final = 0.005
_ORPHANS: Final[list[Link]] = []

Command = tuple[Any, ...]
"""The words of a command: bytes, str, int or float."""


class Call:
    """What one caller waits for: some answers, in the order asked."""

    __slots__ = ("future", "left", "replies", "sent_at")

    def __init__(self, count: int, loop: asyncio.AbstractEventLoop, now: float) -> None:
        self.future: asyncio.Future[list[Any]] = loop.create_future()
        self.left = count
        self.replies: list[Any] = [None] * count
        self.sent_at = now

    def deliver(self, index: int, reply: Any) -> None:
        self.replies[index] = reply
        self.left -= 1
        if not self.left and not self.future.done():
            self.future.set_result(self.replies)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


Entry = tuple[Call, int, Command]
"""A command on its way: who asked, which of its answers, and the words."""


class Owner(Protocol):
    stale_s: float
    deadline_s: float

    def answered(self, permit: Permit | None, took_s: float, was_late: bool) -> None: ...
    def late(self, permit: Permit | None) -> None: ...
    def away(self) -> Exception: ...
    def lost(self, link: Link, why: str) -> None: ...
    def refused(self, entry: Entry, error: Exception) -> bool:
        """An error came as the answer; whether it was dealt with."""
        ...


class _Batch:
    __slots__ = ("at", "due", "entries", "had_grace", "is_late", "permit", "sent_at", "timer")

    def __init__(
        self, entries: Sequence[Entry], now: float, due: float, permit: Permit | None
    ) -> None:
        self.entries = entries
        self.permit = permit
        self.at = 0
        self.sent_at = now
        self.due = due
        self.is_late = False
        self.had_grace = False
        self.timer: asyncio.TimerHandle | None = None


class Link(asyncio.Protocol):
    def __init__(self, made_by: Any, owner: Owner) -> None:
        import hiredis

        self._made_by = made_by
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._pack = hiredis.pack_command
        self._error = hiredis.ReplyError
        self._sent: deque[_Batch] = deque()
        self._transport: asyncio.Transport = _taken(made_by).transport
        self.is_open = True
        self.bytes_in = 0
        self.bytes_out = 0
        self._transport.set_protocol(self)
        if self._transport.is_closing():  # it ended in the turn in which it was taken over
            self.is_open = False

    def send(
        self, entries: Sequence[Entry], deadline_s: float | None, permit: Permit | None = None
    ) -> None:
        """Write a batch. Without a deadline it may wait for ever (a blocking command)."""
        pack = self._pack
        data = b"".join([pack(command) for _, _, command in entries])
        self.bytes_out += len(data)
        now = time.monotonic()
        batch = _Batch(entries, now, now + (deadline_s or 0.0), permit)
        if deadline_s is not None:
            batch.timer = self._loop.call_later(deadline_s, self._on_deadline, batch)
        self._sent.append(batch)
        self._transport.write(data)

    @property
    def unsent_bytes(self) -> int:
        return self._transport.get_write_buffer_size()

    # ---- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        self.bytes_in += len(data)
        reader, sent = self._reader, self._sent
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                batch = sent[0]
                entry = batch.entries[batch.at]
                batch.at += 1
                if batch.at == len(batch.entries):
                    sent.popleft()
                    if batch.timer is not None:
                        batch.timer.cancel()
                        took_s = time.monotonic() - batch.sent_at
                        self._owner.answered(batch.permit, took_s, batch.is_late)
                if isinstance(reply, self._error) and self._owner.refused(entry, reply):
                    continue
                entry[0].deliver(entry[1], reply)
        except IndexError:
            self.end("an answer to nothing that was asked")
        except Exception as error:  # noqa: BLE001  whatever came, it is the peer's
            self.end(f"not the protocol of Redis: {error}"[:200])

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(f"connection lost: {exc}" if exc else "connection closed by Redis")

    # ---- ends

    def end(self, why: str) -> None:
        """Give up the connection, and all that was on its way."""
        if not self.is_open:
            return
        self.is_open = False
        batches, self._sent = self._sent, deque()
        # redis-py must neither close nor mourn what is ours.
        writer = _taken(self._made_by)
        _let_go(self._made_by)
        try:
            self._transport.abort()
        except RuntimeError:  # of a loop that is over
            sock = self._transport.get_extra_info("socket")
            raw = getattr(sock, "_sock", None)
            if raw is not None:
                raw.close()
        del writer
        for batch in batches:
            if batch.timer is not None:
                batch.timer.cancel()
            if not batch.is_late:
                self._owner.late(batch.permit)
            for call, _, _ in batch.entries[batch.at :]:
                call.fail(self._owner.away())
        self._owner.lost(self, why)

    def orphan(self) -> None:
        """In a process that was forked off: the connection is the parent's. The loop of the
        parent is not to be touched (its epoll is shared), nor may this be collected, which would.
        """
        self.is_open = False
        _ORPHANS.append(self)
        raw = getattr(self._transport.get_extra_info("socket"), "_sock", None)
        if raw is not None:
            raw.close()  # of this process only

    def _on_deadline(self, batch: _Batch) -> None:
        if batch.is_late:
            self.end("no answer at all")
            return
        if time.monotonic() > batch.due + _HELD_UP_S and not batch.had_grace:
            # This very loop was held up; the answer may be in the socket already.
            batch.had_grace = True
            batch.timer = self._loop.call_later(_HELD_UP_TURN_S, self._on_deadline, batch)
            return
        batch.is_late = True
        batch.timer = self._loop.call_later(self._owner.stale_s, self._on_deadline, batch)
        self._owner.late(batch.permit)
        for call, _, _ in batch.entries[batch.at :]:
            call.fail(self._owner.away())


async def open_link(connection: Any, owner: Owner) -> Link:
    """Connect by redis-py, and take the transport over."""
    try:
        await connection.connect()
        heed_cancel()
        return Link(connection, owner)
    except BaseException:
        writer = _taken(connection)
        if writer is not None:
            _let_go(connection)
            writer.transport.abort()
        raise


def heed_cancel() -> None:
    """Before Python 3.12 `wait_for`, which connecting goes through, may swallow a cancellation:
    then a loop that ends would wait for its task for ever.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _taken(connection: Any) -> Any:
    return connection._writer  # noqa: SLF001  redis-py has no name for what it connected


def _let_go(connection: Any) -> None:
    connection._writer = connection._reader = None  # noqa: SLF001  as in `_taken`

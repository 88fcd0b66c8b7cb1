"""Chunks of one body through hooks that may wait, in order and bounded.

Theory of operation. While every hook answers at once a chunk passes straight through. When one
hands back an awaitable, the pump is *busy*: chunks that come meanwhile queue up, the source is
told to wait beyond `HELD_MAX`, and when the hook is done the queue goes on through the hooks, in
order. A hook may refuse the message with a `Reply`, which ends the pump. In *gather* mode the
chunks are collected first and the hooks see them as one.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from headgate.gateway.filters.base import Reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    BodyAnswer = bytes | Reply | Awaitable[bytes | Reply]

HELD_MAX: Final = 64 * 1024


class Pump:
    __slots__ = (
        "_failed",
        "_gather_max",
        "_gathered",
        "_gathered_bytes",
        "_held_bytes",
        "_hook",
        "_is_paused",
        "_out",
        "_overflow",
        "_pause",
        "_queue",
        "_refused",
        "_resume",
        "_spawn",
        "is_busy",
        "is_closed",
    )

    def __init__(
        self,
        hook: Callable[[bytes, bool], BodyAnswer],
        out: Callable[[bytes, bool], None],
        refused: Callable[[Reply], None],
        failed: Callable[[BaseException], None],
        spawn: Callable[[Coroutine[object, object, None]], object],
        flow: tuple[Callable[[], None], Callable[[], None]],
        *,
        gather_max: int | None = None,
        overflow: Callable[[bytes, bool], None] | None = None,
    ) -> None:
        self._hook = hook
        self._out = out
        self._refused = refused
        self._failed = failed
        self._spawn = spawn
        self._pause, self._resume = flow
        self._gather_max = gather_max
        self._overflow = overflow
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._queue: deque[tuple[bytes, bool]] = deque()
        self._held_bytes = 0
        self._is_paused = False
        self.is_busy = False
        self.is_closed = False

    def feed(self, chunk: bytes, last: bool) -> None:
        if self.is_closed:
            return
        if self._gather_max is not None:
            self._gather(chunk, last)
        elif self.is_busy:
            self._hold(chunk, last)
        else:
            self._pass(chunk, last)

    def close(self) -> None:
        """Nothing is wanted any more; what waits is dropped."""
        self.is_closed = True
        self._queue.clear()
        self._gathered.clear()

    def _gather(self, chunk: bytes, last: bool) -> None:
        if chunk:
            self._gathered.append(chunk)
            self._gathered_bytes += len(chunk)
        if self._gather_max is not None and self._gathered_bytes > self._gather_max:
            gathered = b"".join(self._gathered)
            self.close()
            if self._overflow is not None:
                self._overflow(gathered, last)
        elif last:
            whole = b"".join(self._gathered)
            self._gathered.clear()
            self._pass(whole, last=True)

    def _hold(self, chunk: bytes, last: bool) -> None:
        self._queue.append((chunk, last))
        self._held_bytes += len(chunk)
        if self._held_bytes > HELD_MAX and not self._is_paused:
            self._is_paused = True
            self._pause()

    def _pass(self, chunk: bytes, last: bool) -> None:
        try:
            got = self._hook(chunk, last)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            self.close()
            self._failed(error)
            return
        if isinstance(got, bytes | Reply):
            self._deliver(got, last)
        else:
            self.is_busy = True
            self._spawn(self._wait(got, last))

    def _deliver(self, got: bytes | Reply, last: bool) -> None:
        if isinstance(got, Reply):
            self.close()
            self._refused(got)
        else:
            self._out(got, last)

    async def _wait(self, got: Awaitable[bytes | Reply], last: bool) -> None:
        try:
            data = await got
        except BaseException as error:
            # Also what a plugin awaited and somebody gave up: nobody else will go on.
            was_closed = self.is_closed
            self.close()
            if not was_closed:
                self._failed(error)
            if isinstance(error, Exception):
                return
            raise
        if self.is_closed:
            return
        self.is_busy = False
        self._deliver(data, last)
        while self._queue and not self.is_busy and not self.is_closed:
            chunk, is_last = self._queue.popleft()
            self._held_bytes -= len(chunk)
            self._pass(chunk, is_last)
        if self._is_paused and self._held_bytes <= HELD_MAX // 2 and not self.is_closed:
            self._is_paused = False
            self._resume()

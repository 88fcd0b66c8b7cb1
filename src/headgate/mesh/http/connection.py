"""One connection to an instance, serving one exchange at a time.

Theory of operation
-------------------
    idle -> (start) -> head -> body -> idle | closed

The rules of the gateway's upstream side (RFC 9112 6.3, 9.2): a connection goes back to the pool
only when both messages are whole, the instance allows it and nothing follows the response. Bytes
that nobody asked for are the beginning of somebody else's response; they close the connection,
also when it is idle. A response that cannot be framed fails its exchange with `protocol`.

`deadline` is the connection's (see `wheel`): between exchanges it is the idle time-out, during one
the earlier of the exchange's deadline and the end of the silence it bears.
"""

from __future__ import annotations

import asyncio
import select
from time import monotonic
from typing import TYPE_CHECKING, Final

from headgate.errors import UpstreamFailed
from headgate.mesh.http.body import Incoming
from headgate.mesh.http.exchange import TOOK_NOTHING
from headgate.mesh.http.response import BodyTooLarge
from headgate.mesh.http.upload import LARGE, WHOLE, Pump, Slices, Upload
from headgate.wire.http1.body import BodyReader, ChunkedReader, UntilCloseReader
from headgate.wire.http1.head import body_follows
from headgate.wire.http1.response import INFORMATIONAL_MAX, body_reader, take_head
from headgate.wire.message import ResponseHead
from headgate.wire.wheel import NEVER

if TYPE_CHECKING:
    from headgate.mesh.http.exchange import Exchange
    from headgate.mesh.http.pool import Pool
    from headgate.mesh.http.ticking import Ticking
    from headgate.wire.headcache import HeadCache
    from headgate.wire.http1.head import HeadLimits

_READABLE: Final = select.POLLIN | select.POLLHUP | select.POLLERR


class Connection(asyncio.Protocol):
    __slots__ = (
        "_buffer",
        "_has_ended",
        "_heads",
        "_incoming",
        "_informational",
        "_keep",
        "_limits",
        "_paused",
        "_pool",
        "_reader",
        "_reused",
        "_sent",
        "_ticking",
        "_upload",
        "deadline",
        "exchange",
        "idle_since",
        "is_closing",
        "is_unwritable",
        "transport",
        "wake",
    )

    transport: asyncio.Transport

    def __init__(
        self, pool: Pool, ticking: Ticking, heads: HeadCache[ResponseHead], limits: HeadLimits
    ) -> None:
        self._pool = pool
        self._ticking = ticking
        self._heads = heads
        self._limits = limits
        self.exchange: Exchange | None = None
        self.is_closing = False
        self.deadline = NEVER
        self.wake = NEVER
        self.idle_since = NEVER
        self._buffer = b""
        self._has_ended = False
        self._reader: BodyReader | None = None
        self._incoming: Incoming | None = None
        self._informational = 0
        self._keep = True
        self._paused = False
        self._reused = False
        self._sent = False
        self._upload: Upload | None = None
        self.is_unwritable = False

    # -- from the pool and the exchange --------------------------------------------------------

    def start(self, ex: Exchange, now: float) -> None:
        self.exchange = ex
        ex.connection = self
        body = ex.body
        if body is None or len(body) < LARGE:
            if ex.chunks is not None:
                self._begin_upload(ex)
                return
            self._sent = True
            self.transport.write(ex.block + body if body else ex.block)
        elif len(body) <= WHOLE:
            self._sent = True
            self.transport.writelines([ex.block, body])
        else:
            self._begin_upload(ex)
            return
        self.deadline = deadline = min(ex.deadline, now + ex.timeouts.silence_s)
        if deadline < self.wake:
            self._ticking.arm(self)

    def cancel(self) -> None:
        """Whoever asked has left; what is still to come belongs to nobody."""
        self.exchange = None
        self._incoming = None
        self.close()

    def end(self, failure: Exception) -> None:
        """Close, and tell whoever waits why."""
        ex, self.exchange = self.exchange, None
        self.close()
        if ex is not None:
            self._fail(ex, failure)

    def pause(self) -> None:
        if not self._paused and not self.is_closing:
            self._paused = True
            # A reader that takes nothing is bound by its own deadline, not by the instance's pace.
            self.deadline = NEVER
            if self.exchange is not None:
                self._set_deadline(self.exchange.deadline)
            self.transport.pause_reading()

    def resume(self) -> None:
        if self._paused and not self.is_closing:
            self._paused = False
            self._bear_silence()
            self.transport.resume_reading()

    def upload_ended(self) -> None:
        self._upload = None
        self.request_sent()

    def request_sent(self) -> None:
        """The last byte of the request is written."""
        self._sent = True
        if not self._paused:
            self._bear_silence()

    def upload_failed(self, ex: Exchange, failure: Exception) -> None:
        """The caller's body broke off."""
        if self.exchange is ex:
            self.end(failure)

    def has_news(self) -> bool:
        """Whether the idle connection has something to read: its end, or bytes nobody asked for.

        The loop would tell, in its next turn; a loop that was held up has not had one.
        """
        sock = self.transport.get_extra_info("socket")
        if sock is None or (fd := sock.fileno()) < 0:
            return True
        poll = select.poll()
        poll.register(fd, _READABLE)
        return bool(poll.poll(0))

    def close(self) -> None:
        """End the connection at once; what has not been sent is not wanted any more."""
        self._end_upload()
        if not self.is_closing:
            self.is_closing = True
            self.transport.abort()

    # -- from the transport --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream transport, by contract

    def data_received(self, data: bytes) -> None:
        ex = self.exchange
        if ex is None:
            self.close()
            return
        reader = self._reader
        if reader is None:
            if not self._buffer:
                # Most of the time: one whole response, with a head seen before.
                end = data.find(b"\r\n\r\n") + 4
                head = self._heads.young.get(data[:end])
                if (
                    head is not None
                    and head.length == len(data) - end
                    and not (head.length and (head.is_bodiless or ex.is_head))
                ):
                    if head.length <= ex.body_bytes_max:
                        self._release(head.keep_alive, ex, b"")
                        ex.finish(head, data[end:], None, self._pool.name)
                    else:
                        self._too_large(ex)
                    return
            self._read_head(ex, data)
            return
        payload, rest = reader.feed(data)
        self._pass_body(ex, reader, payload, rest)

    def eof_received(self) -> bool:
        # Over TLS this is the instance's own word: a connection that is merely cut does without.
        self._has_ended = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closing = True
        self.deadline = NEVER
        ex = self.exchange
        self.exchange = None
        self._end_upload()
        self._pool.lost(self)
        if ex is None:
            return
        name = self._pool.name
        if isinstance(self._reader, UntilCloseReader) and exc is None and self._has_ended:
            self._end_body(ex)
            return
        begun = self._reader is not None or self._buffer or self._informational
        if self._reused and not begun and ex.may_repeat:
            ex.may_repeat = False
            ex.connection = None
            self._pool.again(ex)
        else:
            when = "in the middle of a response" if begun else "without a response"
            failure = UpstreamFailed("reset", f"{name}: closed {when}")
            failure.__cause__ = exc
            self._fail(ex, failure)

    def pause_writing(self) -> None:
        self.is_unwritable = True
        if self._upload is not None:
            self._bear_silence()

    def resume_writing(self) -> None:
        self.is_unwritable = False
        if self._upload is not None:
            self._bear_silence()
            self._upload.on_writable()

    def on_deadline(self, now: float) -> None:
        ex = self.exchange
        if ex is None:
            self.close()
            return
        name = self._pool.name
        reason = TOOK_NOTHING if self.is_unwritable else ""
        if now >= ex.deadline:
            what = "not answered before the deadline"
        else:
            what = f"{reason or 'silent'} for {ex.timeouts.silence_s:g} s"
        self.end(UpstreamFailed("timeout", f"{name}: {what}", reason))

    # -- inside: reading -----------------------------------------------------------------------

    def _read_head(self, ex: Exchange, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        while True:
            found = take_head(data, self._heads, self._limits)
            if found is None:
                self._buffer = data
                return
            if isinstance(found, str):
                self._break(found)
                return
            head, rest = found
            if head.status >= 200:
                break
            if head.status == 101:
                self._break("switched protocols without being asked")
                return
            self._informational += 1
            if self._informational > INFORMATIONAL_MAX:
                self._break("too many informational responses")
                return
            if not rest:
                self._bear_silence()
                return
            data = rest
        self._read_body(ex, head, rest)

    def _read_body(self, ex: Exchange, head: ResponseHead, rest: bytes) -> None:
        if not body_follows(ex.method, head.status):
            self._whole(ex, head, b"", rest)
        elif head.length > ex.body_bytes_max and not ex.is_stream:
            self._too_large(ex)
        elif 0 <= head.length <= len(rest):
            self._whole(ex, head, rest[: head.length], rest[head.length :])
        else:
            self._begin_body(ex, head, body_reader(head, self._limits), rest)

    def _whole(self, ex: Exchange, head: ResponseHead, body: bytes, rest: bytes) -> None:
        """The response is complete. Free the connection first: the next request may want it."""
        self._release(head.keep_alive, ex, rest)
        ex.finish(head, body, None, self._pool.name)

    def _begin_body(
        self, ex: Exchange, head: ResponseHead, reader: BodyReader, rest: bytes
    ) -> None:
        self._reader = reader
        self._keep = head.keep_alive
        self._incoming = incoming = Incoming(ex.loop, self, head)
        if ex.is_stream and not ex.finish(head, b"", incoming, self._pool.name):
            self.cancel()  # the caller has just been cancelled
            return
        payload, rest = reader.feed(rest) if rest else (b"", b"")
        self._pass_body(ex, reader, payload, rest)

    def _pass_body(self, ex: Exchange, reader: BodyReader, payload: bytes, rest: bytes) -> None:
        if isinstance(reader, ChunkedReader) and reader.refusal is not None:
            self._break("malformed response chunk")
            return
        incoming = self._incoming
        if incoming is None:
            return
        if payload:
            incoming.feed(payload)
        if reader.is_done:
            self._release(self._keep, ex, rest)
            self._deliver(ex, incoming)
            return
        if ex.is_stream:
            incoming.pause_when_full()
        elif incoming.bytes_held > ex.body_bytes_max:
            self._too_large(ex)
            return
        if not self._paused:
            self._bear_silence()

    def _end_body(self, ex: Exchange) -> None:
        incoming = self._incoming
        self._incoming = None
        if incoming is not None:
            self._deliver(ex, incoming)

    def _deliver(self, ex: Exchange, incoming: Incoming) -> None:
        incoming.end()
        if not ex.is_stream:
            ex.finish(incoming.head, incoming.drain(), None, self._pool.name)

    def _release(self, keep: bool, ex: Exchange, rest: bytes) -> None:
        """The exchange has its answer. Keep the connection if it can carry another."""
        self.exchange = None
        self._reader = None
        self._incoming = None
        self._informational = 0
        ex.connection = None
        if self._upload is not None:
            self._end_upload()
        if keep and ex.keep and not rest and self._sent and not self.is_closing:
            self._reused = True
            if self._paused:
                self._paused = False
                self.transport.resume_reading()
            self.idle_since = now = monotonic()
            self._pool.give(self, now)
        else:
            self.close()

    def _too_large(self, ex: Exchange) -> None:
        self.end(BodyTooLarge(self._pool.name, ex.body_bytes_max))

    def _break(self, reason: str) -> None:
        self.end(UpstreamFailed("protocol", f"{self._pool.name}: {reason}", reason))

    def _fail(self, ex: Exchange, failure: BaseException) -> None:
        incoming = self._incoming
        self._incoming = None
        ex.connection = None
        if incoming is not None:
            incoming.fail(failure)
        ex.fail(failure)

    def _bear_silence(self) -> None:
        """From here on the instance may be silent again, no later than the exchange's deadline."""
        ex = self.exchange
        if ex is None:
            return
        deadline = ex.deadline
        if self._sent or self.is_unwritable:  # else it may be waiting for the caller's next piece
            deadline = min(deadline, monotonic() + ex.timeouts.silence_s)
        self._set_deadline(deadline)

    def _begin_upload(self, ex: Exchange) -> None:
        self._sent = False
        self.transport.write(ex.block)
        if ex.chunks is not None:
            self._upload = Pump(self, ex, ex.chunks, self._pool.tasks, self._pool.name)
            self._bear_silence()
        else:
            self._upload = Slices(self, ex.body or b"")
            self._bear_silence()
            self._upload.on_writable()

    def _end_upload(self) -> None:
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.end()

    def _set_deadline(self, deadline: float) -> None:
        self.deadline = deadline
        if deadline < self.wake:
            self._ticking.arm(self)

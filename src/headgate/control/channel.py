"""Messages and file descriptors between the processes of one run.

Theory of operation
-------------------
A channel is one end of a Unix stream socket. Each message is a frame:

    4 bytes   length of the head
    8 bytes   length of the payload
    2 bytes   number of file descriptors
    head      JSON object; "kind" says what the message is
    payload   opaque bytes: a configuration document, a snapshot

The payload stands apart from the head so that the supervisor can pass a document on without
parsing it. Descriptors travel as SCM_RIGHTS beside the first bytes of their own frame, at most
`FDS_PER_SEND` with each byte sent. The kernel never merges reads across such a mark, so all
descriptors of a frame have arrived when its last byte has: the decoder keeps them in a queue and
each complete frame takes its number from the front.

`Decoder` is pure. `Channel` is the rim: it owns the socket and knows asyncio. A question carries
"id", its answer "re"; an answer nobody waits for is handed to `on_message` like any message,
because the asker may have been replaced by a re-exec in between.

Both ends belong to one run and one user, so a broken frame is a bug or a torn peer, not an
attack: the channel is closed, and the process at the other end is replaced.
"""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from headgate.errors import HeadgateError

__all__ = ["Channel", "ChannelClosed", "Decoder", "Message", "encode"]

_PREFIX = struct.Struct("!IQH")
MAX_HEAD_BYTES = 16 * 2**20
MAX_PAYLOAD_BYTES = 1024 * 2**20
FDS_PER_SEND = 200  # the kernel's limit is 253 (SCM_MAX_FD)
_READ_BYTES = 256 * 1024


class ChannelClosed(HeadgateError):
    """The process at the other end has gone, or sent what no process of ours would."""


@dataclass(slots=True)
class Message:
    kind: str
    fields: dict[str, Any] = field(default_factory=dict)
    payload: bytes = b""
    fds: list[int] = field(default_factory=list)  # the receiver owns them


def encode(
    kind: str, fields: dict[str, Any] | None = None, payload: bytes = b"", fd_count: int = 0
) -> bytes:
    head = json.dumps({**(fields or {}), "kind": kind}, separators=(",", ":")).encode()
    return b"".join((_PREFIX.pack(len(head), len(payload), fd_count), head, payload))


class Decoder:
    """Bytes and descriptors in, messages out."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._fds: deque[int] = deque()

    @property
    def pending(self) -> bytes:
        """Bytes of a frame that is not whole yet; a re-exec carries them over."""
        return bytes(self._buffer)

    @property
    def pending_fds(self) -> list[int]:
        return list(self._fds)

    def feed(self, data: bytes, fds: Sequence[int] = ()) -> list[Message]:
        self._buffer += data
        self._fds.extend(fds)
        messages: list[Message] = []
        while (message := self._try_next()) is not None:
            messages.append(message)
        return messages

    def _try_next(self) -> Message | None:
        if len(self._buffer) < _PREFIX.size:
            return None
        head_bytes, payload_bytes, fd_count = _PREFIX.unpack_from(self._buffer)
        if head_bytes > MAX_HEAD_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
            raise ChannelClosed(
                f"a frame of {head_bytes} and {payload_bytes} bytes is beyond any we send"
            )
        head_end = _PREFIX.size + head_bytes
        end = head_end + payload_bytes
        if len(self._buffer) < end:
            return None
        if fd_count > len(self._fds):
            raise ChannelClosed(f"a frame of {fd_count} descriptors came with {len(self._fds)}")
        try:
            fields = json.loads(self._buffer[_PREFIX.size : head_end])
            kind = fields.pop("kind")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ChannelClosed("a frame whose head is no JSON object with a kind") from error
        payload = bytes(memoryview(self._buffer)[head_end:end])
        del self._buffer[:end]
        return Message(kind, fields, payload, [self._fds.popleft() for _ in range(fd_count)])

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popleft())


@dataclass(slots=True)
class _Outgoing:
    data: memoryview
    fds: list[int]  # duplicates of our own, closed once sent


class Channel:
    """One end of a channel, on the running loop. `start` before anything else."""

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[Message], None],
        on_closed: Callable[[], None],
        *,
        pending: bytes = b"",
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._on_message = on_message
        self._on_closed = on_closed
        self._decoder = Decoder()
        self._decoder.feed(pending)
        self._out: deque[_Outgoing] = deque()
        self._asked: dict[int, asyncio.Future[Message]] = {}
        self._next_id = 1
        self.is_closed = False

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._sock.fileno(), self._on_readable)

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def pending(self) -> bytes:
        return self._decoder.pending

    @property
    def backlog(self) -> int:
        """Frames that the peer has not made room for yet."""
        return len(self._out)

    # ------------------------------------------------------------------------------- sending

    def send(
        self, kind: str, /, payload: bytes = b"", fds: Sequence[int] = (), **fields: Any
    ) -> None:
        """Send now or as soon as the peer reads. To a closed channel this is a no-op: the
        process at the other end is gone and `on_closed` has said so.
        """
        if self.is_closed:
            return
        data = memoryview(encode(kind, fields, payload, len(fds)))
        # Duplicates, because the caller may close its own before the peer makes room.
        self._out.append(_Outgoing(data, [os.dup(fd) for fd in fds]))
        if len(self._out) == 1:
            self._on_writable()

    async def ask(
        self,
        kind: str,
        /,
        payload: bytes = b"",
        fds: Sequence[int] = (),
        *,
        timeout_s: float,
        **fields: Any,
    ) -> Message:
        """Send a question and wait for its answer; TimeoutError or ChannelClosed without one."""
        if self.is_closed:
            raise ChannelClosed("the process has gone")
        question = self._next_id
        self._next_id += 1
        future: asyncio.Future[Message] = self._loop.create_future()
        self._asked[question] = future
        try:
            self.send(kind, payload, fds, id=question, **fields)
            async with asyncio.timeout(timeout_s):
                return await future
        finally:
            self._asked.pop(question, None)

    def answer(self, question: Message, kind: str, /, payload: bytes = b"", **fields: Any) -> None:
        self.send(kind, payload, re=question.fields.get("id"), **fields)

    def _on_writable(self) -> None:
        while self._out:
            item = self._out[0]
            try:
                self._send_some(item)
            except BlockingIOError:
                self._loop.add_writer(self._sock.fileno(), self._on_writable)
                return
            except OSError:
                # The peer is gone, but what it said last may still be in our queue: the reader
                # takes that, meets the end and closes.
                self._discard_outgoing()
                break
            self._out.popleft()
        self._loop.remove_writer(self._sock.fileno())

    def _send_some(self, item: _Outgoing) -> None:
        while item.fds:
            # One byte a group: the prefix alone has room for fourteen groups.
            group = item.fds[:FDS_PER_SEND]
            rights = array.array("i", group)
            more = len(item.fds) > len(group)
            data = item.data[:1] if more else item.data
            sent = self._sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            del item.fds[: len(group)]
            for fd in group:
                os.close(fd)
            item.data = item.data[sent:]
        while item.data:
            item.data = item.data[self._sock.send(item.data) :]

    def flush(self, timeout_s: float) -> bool:
        """Block until all is sent; the last thing before a re-exec."""
        if self.is_closed:
            return True
        self._sock.settimeout(timeout_s)
        try:
            while self._out:
                self._send_some(self._out[0])
                self._out.popleft()
        except OSError:
            return False
        finally:
            self._sock.setblocking(False)
        return True

    # ----------------------------------------------------------------------------- receiving

    def _on_readable(self) -> None:
        self._read_once()

    def _read_once(self) -> bool:
        """Read and deliver what is there; False when there was nothing."""
        try:
            data, ancillary, _flags, _address = self._sock.recvmsg(
                _READ_BYTES, socket.CMSG_SPACE(253 * 4), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return False
        except OSError:
            self.close()
            return False
        fds: list[int] = []
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                rights = array.array("i")
                rights.frombytes(content[: len(content) - len(content) % rights.itemsize])
                fds.extend(rights)
        if not data:
            self.close()
            return False
        try:
            messages = self._decoder.feed(data, fds)
        except ChannelClosed:
            self.close()
            return False
        for message in messages:
            self._deliver(message)
        return True

    def _deliver(self, message: Message) -> None:
        answered = self._asked.get(message.fields.get("re", 0))
        if answered is not None and not answered.done():
            answered.set_result(message)
        else:
            self._on_message(message)

    # ------------------------------------------------------------------------------- closing

    def finish(self) -> None:
        """Take what a dead process said last, then close."""
        while not self.is_closed and self._read_once():
            pass
        self.close()

    def close(self) -> None:
        """Close this end; `on_closed` is called once, whoever closed first."""
        if self.is_closed:
            return
        self.is_closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._decoder.close()
        self._discard_outgoing()
        for future in self._asked.values():
            if not future.done():
                future.set_exception(ChannelClosed("the process has gone"))
        # Later, because `send` may be what found the channel broken: its caller is in the middle
        # of something.
        self._loop.call_soon(self._on_closed)

    def _discard_outgoing(self) -> None:
        for item in self._out:
            for fd in item.fds:
                os.close(fd)
        self._out.clear()

    def release(self) -> None:
        """Let go of the loop and leave the socket open, for a re-exec."""
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())

"""One deadline for everything that is done to answer one request.

    async with deadline("5s"):            # cancels what is under way when the time is over
        ...
    with deadline("5s"):                  # plain code asks: remaining(), check()
        requests.get(url, timeout=remaining("2s"), headers=hop_headers())

    app = DeadlineMiddleware(app)         # takes the caller's deadline from its headers

Theory of operation. A deadline inside another can only be the sooner of both. It lies in a
context variable, so tasks and threads started with the context have it too.

The middleware takes the smallest of `x-headgate-deadline`, `grpc-timeout` and `longest`, answers
504 when it is over, and cancels the handler of a caller that has gone: there is nobody to answer.
To hear of that it must listen while the handler runs, so one task reads what the server has for
us, up to `_AHEAD` bytes ahead of the handler; behind more of an unread body a disconnect is heard
of only when the handler reads on. Once the response is complete, the deadline is lifted and a
disconnect is no news: what a framework runs after the response runs to its end.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from types import TracebackType
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar, cast

from headgate.policy.hops import ATTEMPT as ATTEMPT_HEADER
from headgate.policy.hops import DEADLINE as DEADLINE_HEADER
from headgate.policy.hops import NO_RETRY, may_retry, parse_deadline, parse_grpc_timeout
from headgate.resilience.calls import Entries, is_async, refuse_generators
from headgate.resilience.errors import DeadlineExceeded
from headgate.resilience.hop import HOP, UNTIL, Hop, Until
from headgate.resilience.settings import Clock, Duration, Event, OnEvent, seconds

__all__ = ["Deadline", "DeadlineMiddleware", "WsgiDeadline", "deadline"]

P = ParamSpec("P")
R = TypeVar("R")

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class Deadline:
    """Made by `deadline()`; may be entered by many at once, each with the whole time."""

    def __init__(self, after_s: float, *, clock: Clock = time.monotonic) -> None:
        self.after_s = after_s
        self._clock = clock
        self._entries = Entries[tuple[Until | None, asyncio.Timeout | None]]()

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        refuse_generators(function, "a deadline")
        if is_async(function):
            awaited = cast("Callable[P, Awaitable[Any]]", function)

            @functools.wraps(function)
            async def bounded_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                async with self:
                    return await awaited(*args, **kwargs)

            return cast("Callable[P, R]", bounded_async)

        @functools.wraps(function)
        def bounded(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return function(*args, **kwargs)

        return bounded

    def __enter__(self) -> None:
        before = UNTIL.get()
        until = self._until(before)
        self._entries.push((before, None))
        UNTIL.set(until)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        before, _ = self._entries.pop()
        UNTIL.set(before)

    async def __aenter__(self) -> None:
        before = UNTIL.get()
        until = self._until(before)
        timer = asyncio.timeout(until.left_s)
        await timer.__aenter__()
        self._entries.push((before, timer))
        UNTIL.set(until)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        before, timer = self._entries.pop()
        UNTIL.set(before)
        if timer is not None:
            try:
                await timer.__aexit__(kind, error, trace)
            except TimeoutError as late:
                raise DeadlineExceeded from late

    def _until(self, before: Until | None) -> Until:
        left_s = self.after_s
        if before is not None:
            left_s = min(left_s, before.left_s)
        if left_s <= 0.0:
            raise DeadlineExceeded(-left_s)
        return Until(self._clock() + left_s, self._clock)


def deadline(after: Duration, *, clock: Clock = time.monotonic) -> Deadline:
    """All that is done inside has this time together."""
    return Deadline(seconds("after", after) or 0.0, clock=clock)


# ---- serving

_AHEAD: Final = 65536
_OVER: Final = (
    b'{"type":"about:blank","title":"Gateway Timeout","status":504,'
    b'"detail":"the deadline of this request is over"}'
)


class _Caller:
    """The server's side of one request: what it sends us, read a little ahead of the handler."""

    def __init__(self, receive: Receive, on_gone: Callable[[], None]) -> None:
        self._receive = receive
        self._on_gone = on_gone
        self._ready: deque[Message] = deque()
        self._ahead = 0
        self._moved = asyncio.Event()
        self._taken = asyncio.Event()
        self._gone: Message | None = None
        self._broken: Exception | None = None

    async def listen(self) -> None:
        try:
            await self._listen()
        except Exception as error:  # noqa: BLE001 - it is the handler's to see
            self._broken = error
            self._moved.set()

    async def _listen(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._gone = message
                self._moved.set()
                self._on_gone()
                return
            self._ready.append(message)
            self._ahead += _weight(message)
            self._moved.set()
            while self._ahead >= _AHEAD:
                self._taken.clear()
                await self._taken.wait()

    async def receive(self) -> Message:
        """For the handler."""
        while not self._ready:
            if self._gone is not None:
                return self._gone
            if self._broken is not None:
                raise self._broken
            self._moved.clear()
            await self._moved.wait()
        message = self._ready.popleft()
        self._ahead -= _weight(message)
        self._taken.set()
        return message


def _weight(message: Message) -> int:
    return len(message.get("body", b"")) + 256  # an empty piece takes room too


class DeadlineMiddleware:
    """ASGI. `longest` bounds every request, also one that names no deadline or a longer one."""

    def __init__(
        self,
        app: App,
        *,
        longest: Duration | None = None,
        on_event: OnEvent | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._app = app
        self._longest_s = seconds("longest", longest)
        self._on_event = on_event
        self._clock = clock

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        left_s, hop = _told(scope["headers"], self._longest_s)
        if left_s is not None and left_s <= 0.0:
            self._tell("deadline_over", scope)
            await _answer_over(send)
            return
        until = None if left_s is None else Until(self._clock() + left_s, self._clock)
        before = UNTIL.get(), HOP.get()
        UNTIL.set(until)
        HOP.set(hop)
        try:
            await self._serve(scope, receive, send, until, hop)
        finally:
            UNTIL.set(before[0])
            HOP.set(before[1])

    async def _serve(
        self,
        scope: MutableMapping[str, Any],
        receive: Receive,
        send: Send,
        until: Until | None,
        hop: Hop,
    ) -> None:
        task = asyncio.current_task()
        if task is None:  # an event loop that drives coroutines without tasks
            await self._app(scope, receive, send)
            return
        started = complete = cancelled = False

        def gone() -> None:
            nonlocal cancelled
            if not complete:
                cancelled = True
                task.cancel()

        async def sending(message: Message) -> None:
            nonlocal started, complete
            if message["type"] == "http.response.start":
                started = True
                if hop.budget_spent:
                    headers = [*message.get("headers", ()), (NO_RETRY, b"1")]
                    message = {**message, "headers": headers}
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                complete = True
                timer.reschedule(None)
                if until is not None:
                    until.lift()
            await send(message)

        caller = _Caller(receive, gone)
        listener = task.get_loop().create_task(caller.listen(), name="headgate-caller")
        timer = asyncio.timeout(None if until is None else until.left_s)
        failure: asyncio.CancelledError | TimeoutError | None = None
        also_by_others = False
        try:
            async with timer:
                await self._app(scope, caller.receive, sending)
        except (asyncio.CancelledError, TimeoutError) as error:
            failure = error
        finally:
            complete = True
            if cancelled:  # take it back, whatever the handler has made of it
                also_by_others = task.uncancel() > 0
            await _ended(listener)
        try:
            if isinstance(failure, asyncio.CancelledError):
                if not cancelled or also_by_others:
                    raise failure
                self._tell("caller_gone", scope)
            elif failure is not None:
                if not timer.expired() and not isinstance(failure, DeadlineExceeded):
                    raise failure
                self._tell("deadline_over", scope)
                if started:
                    raise failure  # the server breaks the response off
                if not cancelled:
                    await _answer_over(send)
        finally:
            del failure  # its traceback holds this frame

    def _tell(self, what: str, scope: MutableMapping[str, Any]) -> None:
        if self._on_event is not None:
            self._on_event(Event("deadline", str(scope.get("path", "")), what))


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel and wait; unlike `await task`, our own cancellation is not mistaken for its."""
    task.cancel()
    await asyncio.wait((task,))


def _told(
    headers: Iterable[tuple[bytes, bytes]], longest_s: float | None
) -> tuple[float | None, Hop]:
    left_s = longest_s
    retries = True
    for name, value in headers:
        if name == DEADLINE_HEADER:
            told = parse_deadline(value)
        elif name == b"grpc-timeout":
            told = parse_grpc_timeout(value)
        else:
            if name == ATTEMPT_HEADER:
                retries = may_retry(value)
            continue
        if told is not None:
            left_s = told if left_s is None else min(left_s, told)
    return left_s, Hop(retries)


async def _answer_over(send: Send) -> None:
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(_OVER)),
    ]
    await send({"type": "http.response.start", "status": 504, "headers": headers})
    await send({"type": "http.response.body", "body": _OVER})


class WsgiDeadline:
    """WSGI: the handler can ask `remaining()`; a thread cannot be cancelled."""

    def __init__(
        self,
        app: Callable[..., Iterable[bytes]],
        *,
        longest: Duration | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._app = app
        self._longest_s = seconds("longest", longest)
        self._clock = clock

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        headers = [
            (name, str(environ[key]).encode("latin-1", "replace"))
            for key, name in _IN_ENVIRON
            if key in environ
        ]
        left_s, hop = _told(headers, self._longest_s)
        if left_s is not None and left_s <= 0.0:
            told = [
                ("content-type", "application/problem+json"),
                ("content-length", str(len(_OVER))),
            ]
            start_response("504 Gateway Timeout", told)
            return [_OVER]
        # Not taken back: the body may be made while it is sent, after this has returned. The next
        # request of the thread sets its own.
        UNTIL.set(None if left_s is None else Until(self._clock() + left_s, self._clock))
        HOP.set(hop)
        return self._app(environ, start_response)


_IN_ENVIRON: Final = (
    ("HTTP_X_HEADGATE_DEADLINE", DEADLINE_HEADER),
    ("HTTP_X_HEADGATE_ATTEMPT", ATTEMPT_HEADER),
    ("HTTP_GRPC_TIMEOUT", b"grpc-timeout"),
)

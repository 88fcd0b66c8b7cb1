"""One deadline for everything that is done to answer one request.

    async with deadline("5s"):            # cancels what is under way when the time is over
        ...
    with deadline("5s"):                  # plain code asks: remaining(), check()
        requests.get(url, timeout=remaining("2s"), headers=hop_headers())

    app = DeadlineMiddleware(app)         # takes the caller's deadline from its headers

Theory of operation. A deadline inside another can only be the sooner of both. It lies in a
context variable, so tasks and threads started with the context have it too.

The middleware takes the smallest of `x-headgate-deadline`, `grpc-timeout` and `longest`, and until
the response begins also of `until_begun`, so that streams may last; it answers 504 when that is
over, and cancels the handler of a caller that has gone: there is nobody to answer.
To hear of that it must listen while the handler runs, so after `_AFTER_S` one task reads what the
server has for us, up to `_AHEAD` bytes ahead of the handler; behind more of an unread body a
disconnect is heard of only when the handler reads on. Once the response is complete, the deadline
is lifted and a disconnect is no news: what a framework runs after the response runs to its end.
"""

from __future__ import annotations

import asyncio
import functools
import math
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
Answering: TypeAlias = Callable[[MutableMapping[str, Any], Send], Awaitable[None]]


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
_AFTER_S: Final = 0.005
"""Most requests are answered before, and a task for each would cost more than all else here."""
_OVER: Final = (
    b'{"type":"about:blank","title":"Gateway Timeout","status":504,'
    b'"detail":"the deadline of this request is over"}'
)


class _Caller:
    """The server's side of one request: what it sends us, read a little ahead of the handler.

    Most handlers are done before `_AFTER_S`, and until then nobody listens beside them: they ask
    the server themselves, one at a time.
    """

    __slots__ = (
        "_ahead", "_broken", "_gone", "_is_asking", "_is_due", "_is_over", "_listener", "_moved",
        "_on_due", "_on_gone", "_ready", "_receive", "_taken", "_timer",
    )  # fmt: skip

    def __init__(
        self,
        receive: Receive,
        on_gone: Callable[[], None],
        on_due: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._on_due = on_due
        self._receive = receive
        self._on_gone = on_gone
        self._ready: deque[Message] = deque()
        self._ahead = 0
        self._moved = asyncio.Event()
        self._taken = asyncio.Event()
        self._gone: Message | None = None
        self._broken: Exception | None = None
        self._listener: asyncio.Task[None] | None = None
        self._is_asking = False
        self._is_due = False
        self._is_over = False
        self._timer = loop.call_later(_AFTER_S, self._due)

    async def end(self) -> None:
        """Listen no more."""
        self._is_over = True
        self._timer.cancel()
        if self._listener is not None:
            await _ended(self._listener)

    def _due(self) -> None:
        self._is_due = True
        self._on_due()
        if not self._is_asking:
            self._begin()

    def _begin(self) -> None:
        if self._listener is None and self._gone is None and not self._is_over:
            loop = asyncio.get_running_loop()
            self._listener = loop.create_task(self._listen(), name="headgate-caller")

    async def _listen(self) -> None:
        try:
            await self._listen_on()
        except Exception as error:  # noqa: BLE001 - it is the handler's to see
            self._broken = error
            self._moved.set()

    async def _listen_on(self) -> None:
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
            if self._listener is None and not self._is_asking:
                return await self._ask()
            self._moved.clear()
            await self._moved.wait()
        message = self._ready.popleft()
        self._ahead -= _weight(message)
        self._taken.set()
        return message

    async def _ask(self) -> Message:
        self._is_asking = True
        try:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._gone = message
                self._on_gone()
            return message
        finally:
            self._is_asking = False
            self._moved.set()
            if self._is_due:
                self._begin()


def _weight(message: Message) -> int:
    return len(message.get("body", b"")) + 256  # an empty piece takes room too


class DeadlineMiddleware:
    """ASGI. `longest` bounds every request, also one that names no deadline or a longer one;
    `until_begun` does so until its response begins. `answer` says that it is over, in place
    of a plain problem.
    """

    def __init__(
        self,
        app: App,
        *,
        longest: Duration | None = None,
        until_begun: Duration | None = None,
        answer: Answering | None = None,
        on_event: OnEvent | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._app = app
        self._longest_s = seconds("longest", longest)
        self._until_begun_s = seconds("until_begun", until_begun)
        self._answer = answer or _answer_over
        self._on_event = on_event
        self._clock = clock

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        left_s, hop = _told(scope["headers"], self._longest_s)
        if left_s is not None and left_s <= 0.0:
            self._tell("deadline_over", scope)
            await self._answer(scope, send)
            return
        after_s = left_s
        """What holds once the response has begun."""
        begun_s = self._until_begun_s
        if begun_s is not None and (left_s is None or begun_s < left_s):
            left_s = begun_s
        until = None if left_s is None else Until(self._clock() + left_s, self._clock)
        before = UNTIL.get(), HOP.get()
        UNTIL.set(until)
        HOP.set(hop)
        try:
            await self._serve(scope, receive, send, until, hop, after_s)
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
        after_s: float | None,
    ) -> None:
        task = asyncio.current_task()
        if task is None:  # an event loop that drives coroutines without tasks
            await self._app(scope, receive, send)
            return
        began = self._clock()
        started = complete = cancelled = by_itself = False

        def gone() -> None:
            nonlocal cancelled, by_itself
            if complete:
                return
            cancelled = True
            if asyncio.current_task() is task:
                # Its own cancellation would reach it after it has ended, if it awaits no more.
                by_itself = True
                raise asyncio.CancelledError
            task.cancel()

        def begun() -> None:
            """From here on only what bounds the whole response holds."""
            if until is None or timer.expired():
                return
            if after_s is None:
                timer.reschedule(None)
                until.lift()
            elif began + after_s > until.at:
                until.at = began + after_s
                if timer.when() is not None:
                    timer.reschedule(task.get_loop().time() + until.left_s)

        async def sending(message: Message) -> None:
            nonlocal started, complete
            if message["type"] == "http.response.start":
                started = True
                begun()
                if hop.budget_spent:
                    headers = [*message.get("headers", ()), (NO_RETRY, b"1")]
                    message = {**message, "headers": headers}
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                complete = True
                if not timer.expired():
                    timer.reschedule(None)
                if until is not None:
                    until.lift()
            await send(message)

        def arm() -> None:
            """Wait for the deadline: only now, for most are done before."""
            if until is not None and until.at < math.inf and not (complete or timer.expired()):
                timer.reschedule(task.get_loop().time() + until.left_s)

        is_short = until is not None and until.left_s <= _AFTER_S
        timer = asyncio.timeout(until.left_s if until is not None and is_short else None)
        caller = _Caller(receive, gone, arm, task.get_loop())
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
                also_by_others = (task.cancelling() if by_itself else task.uncancel()) > 0
            await caller.end()
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
                    await self._answer(scope, send)
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


async def _answer_over(_scope: MutableMapping[str, Any], send: Send) -> None:
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

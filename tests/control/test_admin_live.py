"""Live views: what goes over the wire, and what a slow or leaving client costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import pytest
from starlette.datastructures import State
from starlette.requests import Request

from headgate.control.admin.live import Event, Streams, encode, stream
from headgate.control.admin.problem import Problem

Message = MutableMapping[str, Any]


@pytest.mark.parametrize(
    ("event", "wire"),
    [
        (Event("a"), b"data: a\n\n"),
        (Event({"a": 1}, "kind", "7"), b'event: kind\nid: 7\ndata: {"a":1}\n\n'),
        (Event("a\nb\r\nc\rd"), b"data: a\ndata: b\ndata: c\ndata: d\n\n"),
        (Event("x", "two\nlines", "i\0d"), b"event: two lines\nid: i d\ndata: x\n\n"),
        (Event("x", retry_ms=5), b"retry: 5\ndata: x\n\n"),
        (Event("\ud800"), b"data: ?\n\n"),
    ],
    ids=["text", "json", "lines", "odd", "retry", "surrogate"],
)
def test_an_event_is_written_as_the_standard_says(event, wire):
    assert encode(event) == wire


class Client:
    """One client of one stream, without a socket."""

    def __init__(self, streams: Streams, **headers: str) -> None:
        raw = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
        app = type("App", (), {"state": State({"streams": streams})})()
        self.scope: Message = {
            "type": "http",
            "method": "GET",
            "path": "/live",
            "query_string": b"",
            "headers": raw,
            "state": {},
            "app": app,
        }
        self.request = Request(self.scope)
        self.gone = asyncio.Event()
        self.sent = b""
        self.is_over = False
        self.takes = asyncio.Event()
        self.takes.set()
        self.news = asyncio.Condition()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.takes.wait()
        if message["type"] == "http.response.body":
            self.sent += message["body"]
            self.is_over = not message.get("more_body", False)
            async with self.news:
                self.news.notify_all()

    async def wait_for(self, part: bytes) -> None:
        async with asyncio.timeout(20), self.news:
            await self.news.wait_for(lambda: part in self.sent)


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await work()

    asyncio.run(bounded())


async def endless(closed: asyncio.Event) -> AsyncIterator[Event]:
    try:
        yield Event("first")
        await asyncio.Event().wait()
    finally:
        closed.set()


def test_a_source_is_closed_when_its_client_goes():
    async def work() -> None:
        streams, closed = Streams(), asyncio.Event()
        client = Client(streams)
        answer = stream(client.request, endless(closed))
        task = asyncio.ensure_future(answer(client.scope, client.receive, client.send))
        await client.wait_for(b"data: first\n\n")
        assert len(streams) == 1
        client.gone.set()
        await task
        assert closed.is_set()
        assert len(streams) == 0

    run(work)


def test_all_streams_end_when_control_ends_and_no_other_begins():
    async def work() -> None:
        streams = Streams()
        client = Client(streams)
        answer = stream(client.request, endless(asyncio.Event()))
        task = asyncio.ensure_future(answer(client.scope, client.receive, client.send))
        await client.wait_for(b"first")
        streams.close()
        await task
        assert client.is_over
        with pytest.raises(Problem):
            stream(client.request, endless(asyncio.Event()))

    run(work)


def test_there_are_only_so_many():
    async def work() -> None:
        streams = Streams(most=1)
        with streams.seat(), pytest.raises(Problem) as caught:
            stream(Client(streams).request, endless(asyncio.Event()))
        assert caught.value.status == 503

    run(work)


def test_a_slow_reader_is_told_how_much_it_missed():
    async def work() -> None:
        client = Client(Streams())
        ready = asyncio.Event()

        async def burst() -> AsyncIterator[Event]:
            for number in range(100):
                yield Event(number)
            ready.set()

        client.takes.clear()
        answer = stream(client.request, burst(), waiting=10)
        task = asyncio.ensure_future(answer(client.scope, client.receive, client.send))
        await ready.wait()
        client.takes.set()
        await task
        assert b'event: dropped\ndata: {"count":90}\n\n' in client.sent
        assert b"data: 89\n" not in client.sent
        assert client.sent.endswith(b"data: 99\n\n")

    run(work)


def test_a_reader_that_takes_nothing_is_cut_off():
    async def work() -> None:
        client = Client(Streams())
        cut = asyncio.Event()
        client.scope["state"]["abort"] = cut.set
        client.takes.clear()
        answer = stream(client.request, endless(asyncio.Event()), stall_s=0.05)
        # The head waits for the client too; it is the guard that bounds it.
        client.takes.set()
        task = asyncio.ensure_future(answer(client.scope, client.receive, client.send))
        await client.wait_for(b"retry")
        client.takes.clear()
        answer._waiting.append(b"data: more\n\n")  # type: ignore[attr-defined]  # a source that says more
        answer._news.set()  # type: ignore[attr-defined]
        await task
        assert cut.is_set()

    run(work)


def test_whoever_comes_back_says_what_it_saw_last():
    async def work() -> None:
        asked: list[str] = []

        async def source(last: str) -> AsyncIterator[Event]:
            asked.append(last)
            yield Event("x", id="8")

        client = Client(Streams(), last_event_id="7")
        await stream(client.request, source)(client.scope, client.receive, client.send)
        assert asked == ["7"]
        assert b"id: 8\n" in client.sent

    run(work)


def test_silence_is_broken_by_comments_and_a_life_has_an_end():
    async def work() -> None:
        client = Client(Streams())
        made = stream(client.request, endless(asyncio.Event()), heartbeat_s=0.01, lifetime_s=0.2)
        await made(client.scope, client.receive, client.send)
        assert b": alive\n\n" in client.sent
        assert client.is_over

    run(work)


def test_a_source_that_breaks_is_told_without_its_reason(caplog):
    async def work() -> None:
        async def broken() -> AsyncIterator[Event]:
            yield Event("x")
            raise RuntimeError("a secret reason")

        client = Client(Streams())
        await stream(client.request, broken())(client.scope, client.receive, client.send)
        assert b"event: error\n" in client.sent
        assert b"secret" not in client.sent
        assert client.is_over

    run(work)
    assert "a live view broke" in caplog.text


def test_a_paced_source_is_asked_for_more_when_the_client_has_taken_what_came_before():
    async def work() -> None:
        asked: list[int] = []

        async def numbers() -> AsyncIterator[bytes]:
            for number in range(1000):
                asked.append(number)
                yield b"data: %d\n\n" % number

        client = Client(Streams())
        client.takes.clear()
        response = stream(client.request, numbers(), is_paced=True, waiting=2)
        serving = asyncio.create_task(response(client.scope, client.receive, client.send))
        for _ in range(50):
            await asyncio.sleep(0)
        assert asked == [0]
        client.takes.set()
        await client.wait_for(b"data: 999\n\n")
        await serving
        assert b"dropped" not in client.sent
        assert asked == list(range(1000))

    run(work)


def test_streams_of_their_own_are_counted_apart():
    async def work() -> None:
        client = Client(Streams(0))
        own = Streams(1)
        response = stream(client.request, endless(asyncio.Event()), streams=own)
        serving = asyncio.create_task(response(client.scope, client.receive, client.send))
        await client.wait_for(b"first")
        assert len(own) == 1
        with pytest.raises(Problem):
            stream(client.request, endless(asyncio.Event()), streams=own)
        own.close()
        await serving

    run(work)


class Pushing:
    """A source that sends past the stream once it was given the way."""

    def __init__(self) -> None:
        self.push: Callable[[bytes], bool] | None = None
        self.ends = asyncio.Event()
        self.asked = 0

    def attach(self, push: Callable[[bytes], bool]) -> None:
        self.push = push

    def __aiter__(self) -> Pushing:
        return self

    async def __anext__(self) -> bytes:
        self.asked += 1
        if self.asked == 1:
            return b"data: first\n\n"
        await self.ends.wait()
        raise StopAsyncIteration


@pytest.mark.parametrize(
    ("version", "is_given"), [("1.1", True), ("1.0", False)], ids=["pieces", "none"]
)
def test_a_source_may_send_past_the_stream_while_the_body_lasts(version, is_given):
    async def work() -> None:
        client = Client(Streams())
        client.scope["http_version"] = version
        pushed: list[bytes] = []

        def push(part: bytes) -> bool:
            pushed.append(part)
            return True

        client.scope["state"]["push"] = push
        source = Pushing()
        response = stream(client.request, source, is_paced=True)
        assert source.push is None
        serving = asyncio.ensure_future(response(client.scope, client.receive, client.send))
        await client.wait_for(b"first")
        assert (source.push is not None) == is_given
        if source.push is not None:
            assert source.push(b"data: past\n\n")
            assert pushed == [b"data: past\n\n"]
        source.ends.set()
        await serving
        if source.push is not None:
            assert not source.push(b"too late")
            assert len(pushed) == 1

    run(work)

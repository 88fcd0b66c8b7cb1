"""The ASGI middleware: scripted dialogues with a server, and what reaches the handler."""

from __future__ import annotations

import asyncio

import pytest

from headgate.resilience import (
    Budget,
    DeadlineExceeded,
    DeadlineMiddleware,
    check,
    hop_headers,
    remaining,
    retry,
)

GONE = {"type": "http.disconnect"}
EMPTY = {"type": "http.request", "body": b"", "more_body": False}


class Server:
    """The side of one request that a server plays."""

    def __init__(self, *headers, messages=(EMPTY,)):
        self.scope = {"type": "http", "path": "/report", "headers": list(headers)}
        self.sent = []
        self.messages = list(messages)
        self.more = asyncio.Event()
        self.read = 0

    async def receive(self):
        while not self.messages:
            self.more.clear()
            await self.more.wait()
        self.read += 1
        message = self.messages.pop(0)
        if isinstance(message, Exception):
            raise message
        return message

    def say(self, message):
        self.messages.append(message)
        self.more.set()

    async def send(self, message):
        self.sent.append(message)

    async def serve(self, app, **settings):
        await DeadlineMiddleware(app, **settings)(self.scope, self.receive, self.send)

    @property
    def status(self):
        return self.sent[0]["status"]


def own_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def answer(send, body=b"done", status=200):
    await send({"type": "http.response.start", "status": status, "headers": [(b"a", b"b")]})
    await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize(
    ("headers", "longest", "left"),
    [
        ([], None, None),
        ([], "3s", 3.0),
        ([(b"x-headgate-deadline", b"2500")], None, 2.5),
        ([(b"x-headgate-deadline", b"2500")], "1s", 1.0),
        ([(b"x-headgate-deadline", b"9999999999")], "1s", 1.0),
        ([(b"x-headgate-deadline", b"rubbish")], "1s", 1.0),
        ([(b"x-headgate-deadline", b"2500"), (b"x-headgate-deadline", b"500")], None, 0.5),
        ([(b"grpc-timeout", b"2S"), (b"x-headgate-deadline", b"2500")], None, 2.0),
    ],
)
def test_the_handler_has_the_time_that_the_caller_has(time, headers, longest, left):
    seen = []

    async def app(scope, receive, send):
        seen.append(remaining())
        await answer(send)
        seen.append(remaining())  # what a framework does after the response has its own time

    async def main():
        server = Server(*headers)
        await server.serve(app, longest=longest, clock=time.clock)
        assert server.status == 200
        assert remaining() is None

    time.run(main())
    assert seen == [left, None]


def test_a_caller_that_has_no_time_left_is_answered_at_once(time, events):
    async def app(scope, receive, send):
        raise AssertionError("not reached")

    async def main():
        server = Server((b"x-headgate-deadline", b"0"))
        await server.serve(app, on_event=events.append)
        assert server.status == 504
        assert server.sent[0]["headers"][0] == (b"content-type", b"application/problem+json")
        assert b'"status":504' in server.sent[1]["body"]

    time.run(main())
    assert [event.what for event in events] == ["deadline_over"]


def test_work_is_cancelled_when_the_time_is_over(time, events):
    seen = []

    async def app(scope, receive, send):
        try:
            await asyncio.sleep(60.0)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def main():
        server = Server((b"x-headgate-deadline", b"1000"))
        start = time.now
        await server.serve(app, clock=time.clock, on_event=events.append)
        assert time.now - start == pytest.approx(1.0)
        assert server.status == 504
        assert own_task().cancelling() == 0

    time.run(main())
    assert seen == ["cancelled"]
    assert [event.what for event in events] == ["deadline_over"]


def test_a_response_under_way_is_broken_off_when_the_time_is_over(time):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(60.0)

    async def main():
        server = Server((b"x-headgate-deadline", b"1000"))
        with pytest.raises(TimeoutError):
            await server.serve(app, clock=time.clock)
        assert [message["type"] for message in server.sent] == ["http.response.start"]

    time.run(main())


def test_a_handler_may_find_out_by_itself(time):
    async def app(scope, receive, send):
        time.now += 2.0  # it works without an await
        check()

    async def main():
        server = Server((b"x-headgate-deadline", b"1000"))
        await server.serve(app, clock=time.clock)
        assert server.status == 504

    time.run(main())


def test_a_time_out_of_the_handlers_own_is_its_own(time):
    async def app(scope, receive, send):
        raise TimeoutError("the database")

    async def main():
        server = Server((b"x-headgate-deadline", b"1000"))
        with pytest.raises(TimeoutError, match="the database"):
            await server.serve(app, clock=time.clock)
        assert server.sent == []

    time.run(main())


def test_work_for_a_caller_that_has_gone_is_cancelled(time, events):
    seen = []

    async def app(scope, receive, send):
        try:
            await asyncio.sleep(60.0)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def main():
        server = Server()
        asyncio.get_running_loop().call_later(2.0, server.say, GONE)
        start = time.now
        await server.serve(app, on_event=events.append)
        assert time.now - start == pytest.approx(2.0)
        assert server.sent == []
        assert own_task().cancelling() == 0
        assert len(asyncio.all_tasks()) == 1

    time.run(main())
    assert seen == ["cancelled"]
    assert [(event.name, event.what) for event in events] == [("/report", "caller_gone")]


@pytest.mark.parametrize("error", [None, DeadlineExceeded, TimeoutError, ValueError])
def test_whatever_a_handler_makes_of_its_cancellation_it_leaves_no_trace(time, error):
    async def app(scope, receive, send):
        try:
            await asyncio.sleep(60.0)
        except asyncio.CancelledError:
            if error is not None:
                raise error from None

    async def main():
        server = Server((b"x-headgate-attempt", b"1/2"), messages=[EMPTY, GONE])
        try:
            await server.serve(app, longest="90s", clock=time.clock)
        except (TimeoutError, ValueError) as raised:
            assert type(raised) is error
            assert error is not DeadlineExceeded
        else:
            assert error in (None, DeadlineExceeded)
        assert own_task().cancelling() == 0
        assert server.sent == []
        assert remaining() is None
        assert hop_headers() == {}

    time.run(main())


def test_work_that_others_wait_for_can_be_shielded(time):
    async def shared():
        await asyncio.sleep(5.0)
        return "value"

    async def main():
        work = asyncio.get_running_loop().create_task(shared())

        async def app(scope, receive, send):
            await asyncio.shield(work)

        await Server(messages=[EMPTY, GONE]).serve(app)
        assert await work == "value"

    time.run(main())


def test_after_the_response_a_disconnect_and_the_deadline_are_no_news(time):
    seen = []

    async def main():
        server = Server((b"x-headgate-deadline", b"1000"))

        async def app(scope, receive, send):
            await answer(send)
            server.say(GONE)
            await asyncio.sleep(60.0)
            seen.append("background work is done")

        await server.serve(app, clock=time.clock)
        assert server.status == 200

    time.run(main())
    assert seen == ["background work is done"]


def test_a_streamed_response_is_not_complete_before_its_last_piece(time):
    async def main():
        server = Server()

        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"1", "more_body": True})
            server.say(GONE)
            await asyncio.sleep(60.0)
            raise AssertionError("not reached")

        await server.serve(app)

    time.run(main())


def test_the_body_is_read_as_the_handler_takes_it(time):
    pieces = [
        {"type": "http.request", "body": bytes([at]) * 40_000, "more_body": at < 5}
        for at in range(6)
    ]
    seen = []

    async def main():
        server = Server(messages=pieces)

        async def app(scope, receive, send):
            await asyncio.sleep(1.0)
            assert server.read == 2  # no more than 64 KiB ahead, and the piece that went over
            while True:
                message = await receive()
                seen.append(message["body"][:1])
                await asyncio.sleep(0.1)
                assert server.read <= len(seen) + 2
                if not message["more_body"]:
                    break
            await answer(send)

        await server.serve(app)
        assert server.status == 200

    time.run(main())
    assert seen == [bytes([at]) for at in range(6)]


def test_empty_pieces_of_a_body_are_not_gathered_without_end(time):
    empty = {"type": "http.request", "body": b"", "more_body": True}

    async def main():
        server = Server(messages=[empty] * 10_000)

        async def app(scope, receive, send):
            await asyncio.sleep(1.0)
            assert server.read < 1000

        await server.serve(app)

    time.run(main())


def test_a_caller_may_go_with_an_unread_piece_of_its_body_here(time):
    async def main():
        server = Server(messages=[{"type": "http.request", "body": b"1", "more_body": True}, GONE])

        async def app(scope, receive, send):
            await asyncio.sleep(60.0)
            raise AssertionError("not reached")

        await server.serve(app)

    time.run(main())


def test_a_caller_may_go_in_the_middle_of_its_body(time):
    seen = []

    async def app(scope, receive, send):
        try:
            while True:
                seen.append((await receive())["type"])
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def main():
        server = Server(messages=[{"type": "http.request", "body": b"1", "more_body": True}])
        asyncio.get_running_loop().call_later(1.0, server.say, GONE)
        await server.serve(app)

    time.run(main())
    assert seen == ["http.request", "cancelled"]


def test_a_handler_that_waits_for_the_disconnect_hears_of_it(time):
    seen = []

    async def main():
        server = Server()

        async def app(scope, receive, send):
            await receive()
            await answer(send)
            server.say(GONE)
            seen.append(await receive())
            seen.append(await receive())

        await server.serve(app)

    time.run(main())
    assert seen == [GONE, GONE]


def test_an_error_of_the_servers_receive_reaches_the_handler(time):
    async def app(scope, receive, send):
        await receive()
        await receive()

    async def main():
        with pytest.raises(OSError, match="server"):
            await Server(messages=[EMPTY, OSError("server")]).serve(app)
        server = Server()
        asyncio.get_running_loop().call_later(1.0, server.say, OSError("later"))
        with pytest.raises(OSError, match="later"):  # while the handler waits for it
            await server.serve(app)

    time.run(main())


def test_an_error_of_the_handler_is_raised_and_the_listener_is_ended(time):
    async def app(scope, receive, send):
        raise ZeroDivisionError

    async def main():
        with pytest.raises(ZeroDivisionError):
            await Server().serve(app)
        assert len(asyncio.all_tasks()) == 1

    time.run(main())


def test_a_cancellation_by_the_server_stays_one(time):
    async def app(scope, receive, send):
        await asyncio.sleep(60.0)

    async def main():
        server = Server()
        task = asyncio.get_running_loop().create_task(server.serve(app, longest="5s"))
        await asyncio.sleep(1.0)
        server.say(GONE)
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()
        assert len(asyncio.all_tasks()) == 1

    time.run(main())


def test_other_protocols_pass_through(time):
    seen = []

    async def app(scope, receive, send):
        seen.append((scope, receive, send))

    async def main():
        server = Server()
        middleware = DeadlineMiddleware(app, longest="1s")
        await middleware({"type": "lifespan"}, server.receive, server.send)
        await middleware({"type": "websocket"}, server.receive, server.send)
        assert seen == [
            ({"type": "lifespan"}, server.receive, server.send),
            ({"type": "websocket"}, server.receive, server.send),
        ]

    time.run(main())


def test_below_a_layer_that_retries_the_handler_does_not(time):
    tries = []

    async def app(scope, receive, send):
        @retry(attempts=3)
        def call():
            tries.append(hop_headers())
            raise ConnectionError

        with pytest.raises(ConnectionError):
            call()
        await answer(send)

    async def main():
        await Server((b"x-headgate-attempt", b"2/3")).serve(app)

    time.run(main())
    assert tries == [{"x-headgate-attempt": "1/3"}]


def test_a_spent_budget_is_told_to_the_layer_above(time):
    budget = Budget(0.0, floor="1/10s", clock=time.clock)

    async def app(scope, receive, send):
        @retry(attempts=2, wait=0, budget=budget)
        def call():
            raise ConnectionError

        with pytest.raises(ConnectionError):
            call()
        await answer(send, status=503)

    async def main():
        heads = []
        for _ in range(2):
            server = Server()
            await server.serve(app)
            heads.append(server.sent[0]["headers"])
        assert heads == [[(b"a", b"b")], [(b"a", b"b"), (b"x-headgate-no-retry", b"1")]]

    time.run(main())


def test_a_deadline_exceeded_after_the_head_is_raised(time):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise DeadlineExceeded

    async def main():
        with pytest.raises(DeadlineExceeded):
            await Server((b"x-headgate-deadline", b"1000")).serve(app)

    time.run(main())

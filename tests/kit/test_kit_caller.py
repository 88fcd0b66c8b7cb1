"""How a caller is listened to: by the handler itself at first, beside it later."""

import asyncio

import pytest
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from headgate.resilience import DeadlineMiddleware
from tests.kit.rig import Answer, ask, scope_of


def run(work):
    async def bounded():
        async with asyncio.timeout(30):
            return await work

    return asyncio.run(bounded())


async def nothing_pending():
    """A cancellation that was left over would come now."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("late", [False, True], ids=["soon", "late"])
def test_a_handler_that_hears_of_the_end_itself_is_cancelled_and_nothing_is_left(late):
    seen = []

    async def app(scope, receive, send):
        try:
            while True:
                if late:
                    await asyncio.sleep(0.02)
                seen.append((await receive())["type"])
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def work():
        leaves = asyncio.Event()
        leaves.set()
        await ask(DeadlineMiddleware(app), leaves=leaves)
        await nothing_pending()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    run(work())
    assert seen[-1] == "cancelled"


@pytest.mark.parametrize("late", [False, True], ids=["soon", "late"])
def test_a_handler_that_swallows_it_ends_in_peace(late):
    async def app(scope, receive, send):
        try:
            while True:
                if late:
                    await asyncio.sleep(0.02)
                await receive()
        except asyncio.CancelledError:
            pass

    async def work():
        leaves = asyncio.Event()
        leaves.set()
        await ask(DeadlineMiddleware(app), leaves=leaves)
        await nothing_pending()

    run(work())


def test_a_handler_that_only_works_is_cancelled_when_the_client_has_gone():
    ended = []

    async def app(scope, receive, send):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def work():
        leaves = asyncio.Event()
        leaves.set()
        await ask(DeadlineMiddleware(app), leaves=leaves)
        await nothing_pending()

    run(work())
    assert ended == [True]


def test_no_piece_of_a_body_is_lost_when_listening_begins_beside_the_handler():
    pieces = [bytes([number]) * 100 for number in range(50)]

    async def app(scope, receive, send):
        body = b""
        more = True
        while more:
            if len(body) in {500, 2000}:
                await asyncio.sleep(0.02)
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        await PlainTextResponse(body)(scope, receive, send)

    got = run(ask(DeadlineMiddleware(app), "POST", body=pieces))
    assert got.body == b"".join(pieces)


def test_listening_waits_for_a_handler_that_asks_itself():
    """A slow body: the server is asked by one at a time."""
    asking = 0
    most = 0

    async def app(scope, receive, send):
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message["more_body"]:
                break
        await asyncio.sleep(0.02)
        await PlainTextResponse(body)(scope, receive, send)

    async def work():
        nonlocal asking, most
        answer = Answer()
        left = [b"a", b"b", b"c"]
        done = asyncio.Event()

        async def receive():
            nonlocal asking, most
            asking += 1
            most = max(most, asking)
            try:
                if not left:
                    await done.wait()
                    return {"type": "http.disconnect"}
                await asyncio.sleep(0.02)
                return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}
            finally:
                asking -= 1

        async def send(message):
            answer.body += message.get("body", b"")

        await DeadlineMiddleware(app)(scope_of("POST"), receive, send)
        assert asking == 0
        return answer

    assert run(work()).body == b"abc"
    assert most == 1


@pytest.mark.parametrize("pause", [0.0, 0.02], ids=["soon", "late"])
def test_frameworks_that_ask_from_two_sides_get_along(pause):
    class Between(BaseHTTPMiddleware):
        async def dispatch(self, request, call_next):
            return await call_next(request)

    async def handler(request):
        body = await request.body()

        async def pieces():
            for _ in range(3):
                await asyncio.sleep(pause)
                yield body

        return StreamingResponse(pieces())

    app = Starlette(routes=[Route("/", handler, methods=["POST"])])
    app.add_middleware(Between)
    app.add_middleware(Between)
    got = run(ask(DeadlineMiddleware(app), "POST", body=[b"x" * 10, b"y" * 10]))
    assert got.body == (b"x" * 10 + b"y" * 10) * 3
    assert got.is_complete


def test_a_cancellation_by_the_server_is_not_taken_for_the_clients():
    async def app(scope, receive, send):
        await asyncio.Event().wait()

    async def work():
        leaves = asyncio.Event()
        task = asyncio.ensure_future(ask(DeadlineMiddleware(app), leaves=leaves))
        await asyncio.sleep(0.02)
        leaves.set()
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()

    run(work())


def test_what_the_server_raises_reaches_the_handler():
    async def app(scope, receive, send):
        await receive()

    async def receive():
        raise ConnectionResetError("gone")

    async def send(message):
        """Nothing comes."""

    with pytest.raises(ConnectionResetError):
        run(DeadlineMiddleware(app)(scope_of(), receive, send))

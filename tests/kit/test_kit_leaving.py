"""Deadlines, clients that leave, and the end of the service."""

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from headgate.kit import harden
from headgate.observe import Registry
from headgate.observe.health import Checks
from headgate.resilience import DeadlineMiddleware, remaining
from tests.kit.rig import Answer, ask, living, run_stepped


def hardened(app, **wishes):
    wishes.setdefault("registry", Registry())
    return harden(app, service="slow", **wishes)


def run(work):
    return asyncio.run(work)


def app_of(handler):
    return Starlette(routes=[Route("/", handler)])


# ---- deadlines


def test_the_deadline_of_the_caller_cancels_the_work():
    ended = []

    async def handler(request):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    got = run(ask(hardened(app_of(handler)), headers=[("x-headgate-deadline", "20")]))
    assert got.status == 504
    assert got["x-request-id"]
    assert ended == [True]


def test_a_deadline_that_is_over_costs_no_work():
    async def handler(request):
        raise AssertionError("it was called")

    got = run(ask(hardened(app_of(handler)), headers=[("x-headgate-deadline", "0")]))
    assert got.status == 504


def test_without_a_deadline_of_the_caller_our_own_holds():
    async def handler(request):
        await asyncio.Event().wait()

    got = run_stepped(ask(hardened(app_of(handler))))
    assert got.status == 504
    assert got.json()["code"] == "too_late"


def test_the_handler_knows_what_is_left():
    async def handler(request):
        return PlainTextResponse(str(remaining()))

    app = app_of(handler)
    assert 0 < float(run(ask(hardened(app, deadline="30s"))).body) <= 30
    free = run(ask(hardened(app_of(handler), deadline=None)))
    assert free.body == b"None"


def test_a_stream_may_last_longer_than_the_deadline_until_it_begins():
    async def handler(request):
        async def pieces():
            yield b"one"
            await asyncio.sleep(1000)
            yield f"two {remaining()}".encode()

        return StreamingResponse(pieces())

    got = run_stepped(ask(hardened(app_of(handler), deadline="60s")))
    assert got.body == b"onetwo None"


def test_the_deadline_of_the_caller_holds_to_the_end_of_a_stream():
    async def handler(request):
        async def pieces():
            yield b"one"
            await asyncio.Event().wait()

        return StreamingResponse(pieces())

    answer = Answer()
    app = hardened(app_of(handler), deadline="100s")
    with pytest.raises(TimeoutError):
        run_stepped(ask(app, headers=[("x-headgate-deadline", "50000")], answer=answer))
    assert answer.body == b"one"
    assert not answer.is_complete


def test_a_longer_deadline_of_the_caller_holds_once_the_response_has_begun():
    seen: list[Any] = []

    async def app(scope, receive, send):
        seen.append(remaining())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        seen.append(remaining())
        await send({"type": "http.response.body"})

    headers = [("x-headgate-deadline", "50000")]
    run(ask(DeadlineMiddleware(app, until_begun="5s"), headers=headers))
    assert seen[0] <= 5
    assert 40 < seen[1] <= 50


def test_without_deadlines_nothing_is_cancelled():
    async def handler(request):
        return PlainTextResponse(str(remaining()))

    app = hardened(app_of(handler), off={"deadlines"}, deadline="1ms")
    assert run(ask(app, headers=[("x-headgate-deadline", "1")])).body == b"None"


# ---- clients that leave


@pytest.mark.parametrize("at", range(6))
@pytest.mark.parametrize("off", [(), ("deadlines",), ("errors", "deadlines")], ids=["", "d", "ed"])
def test_a_client_may_leave_at_each_await(at, off):
    """At each step of a handler the client goes; nothing is left behind, the next one is served."""
    registry = Registry()
    ended = []

    async def work():
        leaves = asyncio.Event()
        steps = 0

        async def step():
            nonlocal steps
            if steps == at:
                leaves.set()
            steps += 1
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        async def app(scope, receive, send):
            try:
                await step()
                await receive()
                await step()
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await step()
                for _ in range(2):
                    await send({"type": "http.response.body", "body": b"x", "more_body": True})
                    await step()
                await send({"type": "http.response.body", "body": b"x"})
                await step()
            finally:
                ended.append(True)

        made = hardened(app, at_once=1, off=off, registry=registry)
        for _ in range(2):
            leaves.clear()
            steps = 0
            await ask(made, leaves=leaves)
        assert made.ending.under_way == 0
        return await ask(made, path="/metrics")

    shown = run(work())
    assert ended == [True, True]
    assert "http_server_requests_in_flight 0" in shown.body.decode()


def test_a_client_that_is_gone_is_no_error(caplog):
    async def handler(request):
        return PlainTextResponse("x")

    async def work():
        app = hardened(app_of(handler))

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            raise BrokenPipeError

        from tests.kit.rig import scope_of

        await app(scope_of(), receive, send)

    run(work())
    assert not [one for one in caplog.records if one.levelname in {"ERROR", "WARNING"}]


# ---- the end


def test_the_service_stops_being_ready_and_finishes_what_is_under_way():
    async def work():
        go, inside = asyncio.Event(), asyncio.Event()

        async def app(scope, receive, send):
            if scope["type"] != "http":
                raise RuntimeError("no lifespan")
            inside.set()
            await go.wait()
            await PlainTextResponse("done")(scope, receive, send)

        made = hardened(app, off={"logs"}, checks=Checks("slow", registry=None))
        async with living(made), asyncio.timeout(30):
            under_way = asyncio.ensure_future(ask(made))
            await inside.wait()
            made.ending.leave()
            ready = await ask(made, path="/health/ready")
            live = await ask(made, path="/health/live")
            go.set()
            last = await under_way
            return ready, live, last

    ready, live, last = run(work())
    assert ready.status == 503
    assert live.status == 200
    assert last.body == b"done"
    assert last["connection"] == "close"


def test_what_does_not_finish_in_time_is_told_that_the_service_ends():
    async def work():
        inside = asyncio.Event()

        async def app(scope, receive, send):
            inside.set()
            await asyncio.Event().wait()

        made = hardened(app, finish="10ms")
        async with asyncio.timeout(30):
            under_way = asyncio.ensure_future(ask(made))
            await inside.wait()
            made.ending.leave()
            return await under_way

    got = run(work())
    assert got.status == 503
    assert got.json()["code"] == "ending"


def test_event_streams_end_at_once_and_whole():
    async def work():
        begun = asyncio.Event()

        async def handler(request):
            async def events():
                yield b"data: one\n\n"
                begun.set()
                await asyncio.Event().wait()

            return StreamingResponse(events(), media_type="text/event-stream")

        app = app_of(handler)
        hardened(app, finish=None, off={"logs"})
        async with living(app), asyncio.timeout(30):
            under_way = asyncio.ensure_future(ask(app))
            await begun.wait()
            app._headgate_kit.ending.leave()
            return await under_way

    got = run(work())
    assert got.body == b"data: one\n\n"
    assert got.is_complete


def test_a_request_that_its_server_cancels_is_cancelled():
    async def work():
        inside = asyncio.Event()

        async def app(scope, receive, send):
            inside.set()
            await asyncio.Event().wait()

        made = hardened(app)
        async with asyncio.timeout(30):
            task = asyncio.ensure_future(ask(made))
            await inside.wait()
            task.cancel()
            await asyncio.wait((task,))
            assert task.cancelled()
        assert made.ending.under_way == 0

    run(work())

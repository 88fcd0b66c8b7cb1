"""Bodies, requests at once, rates: what is too much is refused, whatever the app makes of it."""

import asyncio

import pytest
from fastapi import FastAPI, Request
from litestar import Litestar, post
from litestar import Request as LitestarRequest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from headgate.kit import harden
from headgate.observe import Registry
from tests.kit.rig import Answer, ask

LIMIT = 1000


def fastapi_app():
    app = FastAPI()

    @app.post("/up")
    async def up(request: Request):
        return {"bytes": len(await request.body())}

    @app.post("/json")
    async def parsed(body: dict):
        return body

    return app


def starlette_app():
    async def up(request):
        return PlainTextResponse(str(len(await request.body())))

    return Starlette(routes=[Route("/up", up, methods=["POST"])])


def litestar_app():
    @post("/up")
    async def up(request: LitestarRequest) -> str:
        return str(len(await request.body()))

    return Litestar([up])


def bare_app():
    async def app(scope, receive, send):
        taken = 0
        while True:
            message = await receive()
            taken += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        await PlainTextResponse(str(taken))(scope, receive, send)

    return app


def hardened(make, **wishes):
    wishes.setdefault("body_limit", LIMIT)
    return harden(make(), registry=Registry(), service="up", **wishes)


def run(work):
    return asyncio.run(work)


every_kind = pytest.mark.parametrize(
    "make", [fastapi_app, starlette_app, litestar_app, bare_app], ids=lambda make: make.__name__
)


def length(body):
    return [("content-length", str(len(body)))]


@every_kind
def test_a_body_of_just_the_limit_passes(make):
    body = b"x" * LIMIT
    assert run(ask(hardened(make), "POST", "/up", length(body), body)).status in {200, 201}
    assert run(ask(hardened(make), "POST", "/up", (), [body[:500], body[500:]])).status < 300


@every_kind
def test_a_body_that_is_announced_too_long_is_refused_before_the_app_is_called(make):
    body = b"x" * (LIMIT + 1)
    got = run(ask(hardened(make), "POST", "/up", length(body), body))
    assert got.status == 413
    assert got.json()["code"] == "body_too_large"
    assert got.json()["limit_bytes"] == LIMIT


@every_kind
def test_a_body_without_a_length_is_counted_as_it_comes(make):
    got = run(ask(hardened(make), "POST", "/up", (), [b"x" * 400] * 50))
    assert got.status == 413
    assert got.json()["request_id"] == got["x-request-id"]


def test_what_the_app_makes_of_it_is_not_sent():
    # FastAPI says 400 to every fault in a body.
    got = run(ask(hardened(fastapi_app), "POST", "/json", (), [b"[1,"] * 900))
    assert got.status == 413


def test_a_lie_about_the_length_is_found_out():
    got = run(ask(hardened(bare_app), "POST", "/up", [("content-length", "5")], [b"x" * 600] * 9))
    assert got.status == 413


@pytest.mark.parametrize("said", ["-1", "1e9", "\u00b2", "9" * 5000, "0x10"], ids="abcde")
def test_a_length_that_is_none_is_no_way_around(said):
    headers = [("content-length", said)]
    got = run(ask(hardened(bare_app), "POST", "/up", headers, [b"x" * 600] * 9))
    assert got.status == 413


def test_an_app_that_swallows_the_error_does_not_get_through():
    async def app(scope, receive, send):
        for _ in range(10):
            try:
                await receive()
            except Exception:
                continue
        await PlainTextResponse("fine")(scope, receive, send)

    got = run(ask(hardened(lambda: app), "POST", "/", (), [b"x" * 600] * 9))
    assert got.status == 413


def test_a_response_that_has_begun_is_broken_off():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            message = await receive()
            await send({"type": "http.response.body", "body": message["body"], "more_body": True})

    answer = Answer()
    with pytest.raises(Exception, match="too long"):
        run(ask(hardened(lambda: app), "POST", "/", (), [b"x" * 600] * 9, answer=answer))
    assert not answer.is_complete
    assert len(answer.body) == 600


def test_what_is_refused_is_counted():
    app = hardened(fastapi_app)
    run(ask(app, "POST", "/up", length(b"x" * 2000), b"x" * 2000))
    run(ask(app, "POST", "/up", (), [b"x" * 600] * 5))
    lines = run(ask(app, path="/metrics")).body.decode()
    assert 'method="POST",route="unmatched",code="413"} 1' in lines
    assert 'method="POST",route="/up",code="413"} 1' in lines


def test_without_limits_a_body_may_be_long():
    app = hardened(fastapi_app, off={"limits"})
    assert run(ask(app, "POST", "/up", (), [b"x" * 600] * 9)).json() == {"bytes": 5400}
    app = hardened(fastapi_app, body_limit=None)
    assert run(ask(app, "POST", "/up", (), [b"x" * 600] * 9)).json() == {"bytes": 5400}


def test_one_more_than_may_be_at_once_is_told_to_come_back():
    async def work():
        go, inside = asyncio.Event(), asyncio.Semaphore(0)

        async def app(scope, receive, send):
            inside.release()
            await go.wait()
            await PlainTextResponse("x")(scope, receive, send)

        made = hardened(lambda: app, at_once=2)
        first = [asyncio.ensure_future(ask(made)) for _ in range(2)]
        async with asyncio.timeout(30):
            await inside.acquire()
            await inside.acquire()
            refused = await ask(made)
            healthy = await ask(made, path="/health/ready")
            go.set()
            answers = await asyncio.gather(*first)
            after = await ask(made)
        return refused, healthy, answers, after

    refused, healthy, answers, after = run(work())
    assert (refused.status, refused["retry-after"]) == (503, "1")
    assert healthy.status == 200
    assert [one.status for one in answers] == [200, 200]
    assert after.status == 200


def test_a_place_is_given_back_however_a_request_ends():
    async def app(scope, receive, send):
        if scope["path"] == "/boom":
            raise RuntimeError("boom")
        if scope["path"] == "/wait":
            await asyncio.Event().wait()
        await PlainTextResponse("x")(scope, receive, send)

    async def work():
        made = hardened(lambda: app, at_once=1)
        assert (await ask(made, path="/boom")).status == 500
        task = asyncio.ensure_future(ask(made, path="/wait"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()
        assert (await ask(made)).status == 200

    run(work())


def test_clients_have_rates_of_their_own():
    app = hardened(bare_app, rates="2/min")
    answers = [run(ask(app, "POST", "/")) for _ in range(3)]
    assert [one.status for one in answers] == [200, 200, 429]
    assert answers[2].json()["code"] == "rate_limited"
    assert int(answers[2]["retry-after"]) >= 1
    assert answers[2]["ratelimit"]
    assert run(ask(app, "POST", "/", client=("10.0.0.1", 1))).status == 200


def test_whom_a_request_counts_for_can_be_said():
    def key(scope):
        return dict(scope["headers"]).get(b"x-tenant", b"").decode()

    app = hardened(bare_app, rates=["1/min"], rate_key=key)
    assert run(ask(app, headers=[("x-tenant", "a")])).status == 200
    assert run(ask(app, headers=[("x-tenant", "a")])).status == 429
    assert run(ask(app, headers=[("x-tenant", "b")])).status == 200


def test_a_long_response_is_not_held():
    async def handler(request):
        async def pieces():
            for _ in range(5):
                yield b"x" * 100_000

        return StreamingResponse(pieces())

    got = run(ask(hardened(lambda: Starlette(routes=[Route("/", handler)]))))
    assert got.pieces >= 5
    assert len(got.body) == 500_000

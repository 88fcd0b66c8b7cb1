"""What an ASGI app is given: each part, on and off, for each framework."""

import asyncio
import json
import logging
import random

import pytest
from fastapi import FastAPI
from litestar import Litestar, get
from litestar.params import FromPath
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute

from headgate.kit import current_request_id, harden
from headgate.observe import Registry
from headgate.observe.health import Checks
from headgate.observe.tracing import Tracer, TracingRules
from tests.kit.rig import STRANGER, ask, living

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")


def fastapi_app():
    app = FastAPI()

    @app.get("/items/{number}")
    async def item(number: int):
        return {"number": number, "id": current_request_id()}

    @app.post("/items")
    async def put():
        return {}

    return app


def starlette_app():
    async def item(request):
        number = int(request.path_params["number"])
        return JSONResponse({"number": number, "id": current_request_id()})

    return Starlette(routes=[Route("/items/{number}", item)])


def litestar_app():
    @get("/items/{number:int}", sync_to_thread=False)
    def item(number: FromPath[int]) -> dict:
        return {"number": number, "id": current_request_id()}

    return Litestar([item])


def bare_app():
    async def app(scope, receive, send):
        number = int(scope["path"].rpartition("/")[2])
        body = json.dumps({"number": number, "id": current_request_id()}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return app


MAKERS = [fastapi_app, starlette_app, litestar_app, bare_app]
every_kind = pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)


def hardened(make, **wishes):
    wishes.setdefault("registry", Registry())
    wishes.setdefault("tracer", Tracer())
    wishes.setdefault("service", "items")
    return harden(make(), **wishes)


def run(work):
    return asyncio.run(work)


# ---- ids


@every_kind
def test_each_request_has_an_id_which_is_answered(make):
    app = hardened(make)
    first, second = run(ask(app, path="/items/1")), run(ask(app, path="/items/2"))
    assert first.status == second.status == 200
    assert first["x-request-id"] == first.json()["id"]
    assert len(first["x-request-id"]) == 32
    assert first["x-request-id"] != second["x-request-id"]


@every_kind
def test_the_id_of_the_caller_is_taken(make):
    got = run(ask(hardened(make), path="/items/1", headers=[("x-request-id", "of-the-gateway")]))
    assert got["x-request-id"] == got.json()["id"] == "of-the-gateway"


def test_the_id_of_a_trace_serves_where_there_is_no_other():
    got = run(ask(hardened(bare_app), path="/items/1", headers=[PARENT]))
    assert got["x-request-id"] == TRACE


@pytest.mark.parametrize(
    "sent",
    ["", "a b", "a\tb", "x" * 129, "caf\xe9", "a\x7f"],
    ids=["empty", "blank", "tab", "long", "e", "del"],
)
def test_an_id_that_cannot_be_one_is_not_taken(sent):
    got = run(ask(hardened(bare_app), path="/items/1", headers=[("x-request-id", sent)]))
    assert got["x-request-id"] != sent
    assert len(got["x-request-id"]) == 32


def test_ids_of_strangers_are_not_taken_where_nobody_is_trusted():
    app = hardened(bare_app, trusts=False)
    got = run(ask(app, path="/items/1", headers=[("x-request-id", "mine"), PARENT]))
    assert got["x-request-id"] not in {"mine", TRACE}


@every_kind
def test_without_ids_none_is_made_or_answered(make):
    got = run(ask(hardened(make, off={"ids"}), path="/items/1", headers=[("x-request-id", "a")]))
    assert got["x-request-id"] is None
    assert got.json()["id"] == ""


# ---- tracing and metrics


@every_kind
def test_a_request_is_a_span_of_the_callers_trace(make):
    tracer = Tracer(TracingRules(sample=1.0), rng=random.Random(1))
    run(ask(hardened(make, tracer=tracer), path="/items/1", headers=[PARENT]))
    (span,) = tracer.take()
    assert span.trace_id == TRACE
    assert span.attributes["http.response.status_code"] == 200


def test_without_tracing_there_is_no_span():
    tracer = Tracer(TracingRules(sample=1.0))
    run(ask(hardened(bare_app, tracer=tracer, off={"tracing"}), path="/items/1"))
    assert tracer.take() == []


@pytest.mark.parametrize(
    ("make", "route"),
    [
        (fastapi_app, "/items/{number}"),
        (starlette_app, "/items/{number}"),
        (litestar_app, "/items/{number}"),
        (bare_app, "unmatched"),
    ],
    ids=["fastapi", "starlette", "litestar", "bare"],
)
def test_requests_are_counted_by_route(make, route):
    app = hardened(make)
    run(ask(app, path="/items/1"))
    shown = run(ask(app, path="/metrics"))
    assert shown.status == 200
    line = f'http_server_requests_total{{method="GET",route="{route}",code="200"}} 1'
    assert line in shown.body.decode()


def test_metrics_are_shown_to_this_machine_alone():
    app = hardened(bare_app)
    refused = run(ask(app, path="/metrics", client=STRANGER))
    assert refused.status == 403
    assert refused.json()["code"] == "metrics_hidden"
    sent_on = [("x-forwarded-for", "10.0.0.1")]
    assert run(ask(app, path="/metrics", headers=sent_on)).status == 403
    assert run(ask(app, path="/metrics", client=None)).status == 403


def test_metrics_are_shown_to_who_brings_the_token():
    app = hardened(bare_app, metrics_token="scraper")
    right, wrong = [("authorization", "Bearer scraper")], [("authorization", "Bearer scrapes")]
    assert run(ask(app, path="/metrics", client=STRANGER, headers=right)).status == 200
    assert run(ask(app, path="/metrics", client=STRANGER, headers=wrong)).status == 401
    assert run(ask(app, path="/metrics", client=STRANGER)).status == 401


def test_without_metrics_the_path_is_the_apps():
    app = hardened(fastapi_app, off={"metrics"})
    assert run(ask(app, path="/metrics")).status == 404


def test_paths_of_our_own_can_be_moved_and_stand_below_a_root_path():
    app = hardened(fastapi_app, metrics_path="/own/figures", health_path="/own/well/")
    assert run(ask(app, path="/own/figures")).status == 200
    assert run(ask(app, path="/own/well/live")).status == 200
    assert run(ask(app, path="/metrics")).status == 404
    below = run(ask(app, path="/shop/own/figures", root_path="/shop"))
    assert below.status == 200
    assert run(ask(app, path="/own/figuresque")).status == 404


# ---- health


@every_kind
def test_health_is_told(make):
    checks = Checks("items", registry=None)
    app = hardened(make, checks=checks)
    for path in ("/health", "/health/live", "/health/ready", "/health/startup"):
        assert run(ask(app, path=path)).status == 200, path
    checks.add("database", lambda: False, critical=True)
    assert run(ask(app, path="/health/ready")).status == 503
    assert run(ask(app, path="/health/live")).status == 200
    assert run(ask(app, path="/health/other")).status != 200


def test_without_health_the_paths_are_the_apps():
    assert run(ask(hardened(fastapi_app, off={"health"}), path="/health/live")).status == 404


# ---- logs


def test_lines_of_the_log_have_the_id(caplog):
    from headgate.observe.logs.context import bound_fields

    seen = []

    async def app(scope, receive, send):
        seen.append(dict(bound_fields()))
        await PlainTextResponse("x")(scope, receive, send)

    run(ask(hardened(lambda: app), headers=[("x-request-id", "one")]))
    run(ask(hardened(lambda: app, off={"logs"}), headers=[("x-request-id", "two")]))
    assert seen == [{"request_id": "one"}, {}]
    assert bound_fields() == {}


# ---- headers


@every_kind
def test_responses_have_headers_for_browsers(make):
    got = run(ask(hardened(make), path="/items/1"))
    assert got["x-content-type-options"] == "nosniff"
    assert got["x-frame-options"] == "SAMEORIGIN"
    assert got["strict-transport-security"] is None
    safe = run(ask(hardened(make), path="/items/1", scheme="https"))
    assert safe["strict-transport-security"] == "max-age=31536000"


def test_headers_are_said_in_the_words_of_the_gateways_file():
    wishes = {"csp": "default-src 'self'", "frame": "deny", "extra": {"x-team": "blue"}}
    got = run(ask(hardened(fastapi_app, secure_headers=wishes), path="/nowhere"))
    assert got["content-security-policy"] == "default-src 'self'; frame-ancestors 'none'"
    assert got["x-team"] == "blue"


def test_what_the_app_says_itself_stays():
    async def app(scope, receive, send):
        said = {"x-content-type-options": "maybe", "x-request-id": "my-own"}
        await PlainTextResponse("x", headers=said)(scope, receive, send)

    got = run(ask(hardened(lambda: app)))
    assert [value for name, value in got.headers if name == "x-content-type-options"] == ["maybe"]
    assert [value for name, value in got.headers if name == "x-request-id"] == ["my-own"]


def test_without_headers_none_is_added():
    got = run(ask(hardened(bare_app, off={"headers"}), path="/items/1"))
    assert [name for name, _ in got.headers] == ["x-request-id"]


def test_an_app_may_send_the_same_message_again_and_again():
    start = {"type": "http.response.start", "status": 200, "headers": []}

    async def app(scope, receive, send):
        await send(start)
        await send({"type": "http.response.body"})

    made = hardened(lambda: app)
    first, second = run(ask(made)), run(ask(made))
    assert len(first.headers) == len(second.headers)
    assert start["headers"] == []


# ---- where it stands


def test_layers_that_are_added_later_are_inside():
    seen = []

    class Later(BaseHTTPMiddleware):
        async def dispatch(self, request, call_next):
            seen.append(current_request_id())
            return await call_next(request)

    app = hardened(fastapi_app)
    app.add_middleware(Later)
    got = run(ask(app, path="/items/1"))
    assert seen == [got["x-request-id"]]


def test_a_hardened_app_in_a_hardened_app_does_nothing_twice():
    inner = hardened(fastapi_app, service="inner", body_limit=1)
    registry = Registry()
    outer = harden(Starlette(routes=[Mount("/in", inner)]), registry=registry, service="outer")
    got = run(ask(outer, path="/in/items/1"))
    assert got.status == 200
    assert len([name for name, _ in got.headers if name == "x-request-id"]) == 1
    assert got.json()["id"] == got["x-request-id"]
    lines = run(ask(outer, path="/metrics")).body.decode()
    assert (
        'http_server_requests_total{method="GET",route="/in/items/{number}",code="200"} 1' in lines
    )


def test_with_everything_off_the_app_is_as_it_was():
    from headgate.kit import PARTS

    got = run(ask(hardened(bare_app, off=PARTS), path="/items/1"))
    assert got.status == 200
    assert got.headers == []


def test_websockets_pass_through():
    async def talk(socket):
        await socket.accept()
        text = await socket.receive_text()
        await socket.send_text(f"{text} {current_request_id()}")
        await socket.close(4000)

    app = hardened(lambda: Starlette(routes=[WebSocketRoute("/talk", talk)]), at_once=1)
    sent = []
    coming = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "hello"},
        {"type": "websocket.disconnect", "code": 1000},
    ]

    async def receive():
        return coming.pop(0)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/talk",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"x-request-id", b"ws")],
        "subprotocols": [],
        "client": ("127.0.0.1", 1),
    }
    run(app(scope, receive, send))
    assert [message["type"] for message in sent] == [
        "websocket.accept",
        "websocket.send",
        "websocket.close",
    ]
    assert sent[1]["text"] == "hello ws"


def test_a_scope_of_another_kind_passes_through():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    run(hardened(lambda: app)({"type": "carrier-pigeon"}, None, None))
    assert seen == ["carrier-pigeon"]


# ---- its life


@every_kind
def test_an_app_lives_with_or_without_a_lifespan_of_its_own(make):
    checks = Checks("items", registry=None)

    async def work():
        app = hardened(make, checks=checks, off={"logs"})
        async with living(app):
            assert (await ask(app, path="/items/1")).status == 200
            assert not checks.is_draining
        assert checks.is_draining

    run(work())


def test_a_start_that_fails_is_told_to_the_server():
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def broken(app):
        raise RuntimeError("no database")
        yield

    async def work():
        app = harden(FastAPI(lifespan=broken), off={"logs"}, registry=Registry())
        with pytest.raises(RuntimeError, match="no database"):
            async with living(app):
                pass

    run(work())


def test_an_end_that_fails_is_told_to_the_server():
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def broken(app):
        yield
        raise RuntimeError("it would not end")

    async def work():
        app = harden(FastAPI(lifespan=broken), off={"logs"}, registry=Registry())
        with pytest.raises(AssertionError, match=r"lifespan\.shutdown\.failed"):
            async with living(app):
                pass

    run(work())


def test_the_state_of_the_lifespan_reaches_requests():
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def around(app):
        yield {"pool": 7}

    async def work():
        app = harden(FastAPI(lifespan=around), off={"logs"}, registry=Registry())
        async with living(app) as state:
            assert state == {"pool": 7}

    run(work())


def test_logging_that_somebody_set_up_is_left_alone(monkeypatch):
    from headgate.observe import logs

    calls = []
    monkeypatch.setattr(logs, "setup", lambda *args, **more: calls.append(args))

    async def work():
        async with living(hardened(fastapi_app)):
            pass

    run(work())
    assert calls == [("items",)]
    from headgate.observe.logs.outlet import Outlet

    outlet = Outlet()
    logging.getLogger().addHandler(outlet)
    try:
        run(work())
    finally:
        logging.getLogger().removeHandler(outlet)
    assert calls == [("items",)]


def test_responses_that_are_made_cacheable_inside_stay_so():
    from headgate.cache.asgi import CacheHeaders, CacheRule

    def make():
        app = FastAPI()

        @app.get("/fixed")
        async def fixed():
            return {"it": "stays"}

        app.add_middleware(CacheHeaders, rules=[CacheRule("public, max-age=60", path="/*")])
        return app

    app = hardened(make)
    first = run(ask(app, path="/fixed"))
    assert first["cache-control"] == "public, max-age=60"
    second = run(ask(app, path="/fixed", headers=[("if-none-match", first["etag"])]))
    assert (second.status, second.body) == (304, b"")
    assert second["x-request-id"] != first["x-request-id"]

"""The middleware and the endpoint: routes by template, every end counted once, and /metrics."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from headgate.observe.meters.asgi import MetricsMiddleware, metrics_app, route_of
from headgate.observe.meters.registry import Registry


def numbers(registry):
    return {family.name: family.numbers for family in registry.collect()}


async def asked(app, *requests, root=""):
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False, root_path=root)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        return [await client.request(method, path) for method, path in requests]


def requests_of(registry):
    return numbers(registry)["http_server_requests_total"]


def fastapi_app(registry):
    app = FastAPI()
    app.add_middleware(MetricsMiddleware, registry=registry)

    @app.get("/items/{number:int}")
    async def item(number: int) -> int:
        return number

    @app.get("/fails")
    async def fails() -> None:
        raise LookupError

    inner = FastAPI()

    @inner.get("/users/{name}")
    async def user(name: str) -> str:
        return name

    app.mount("/tenants/{tenant}", inner)
    return app


def test_fastapi_routes_are_counted_by_template():
    registry = Registry()
    asyncio.run(
        asked(
            fastapi_app(registry),
            ("GET", "/items/1"),
            ("GET", "/items/007"),
            ("POST", "/items/1"),
            ("GET", "/tenants/acme/users/ada"),
            ("GET", "/fails"),
            ("GET", "/nowhere/at/all"),
        )
    )
    found = requests_of(registry)
    assert found[("GET", "/items/{number}", "200")] == 2
    assert found[("GET", "/fails", "500")] == 1
    assert found[("GET", "unmatched", "404")] == 1
    assert found[("GET", "/tenants/{tenant}/users/{name}", "200")] == 1
    assert sum(found.values()) == 6
    assert not any("007" in route or "acme" in route for _, route, _ in found)
    assert numbers(registry)["http_server_requests_in_flight"] == {(): 0}


def test_starlette_routes_mounts_and_files(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    registry = Registry()

    async def show(request):
        return PlainTextResponse("x" * 100)

    app = Starlette(
        routes=[
            Route("/pages/{page}", show),
            Mount("/api", routes=[Route("/v/{n:int}", show)]),
            Mount("/static", app=StaticFiles(directory=tmp_path)),
        ]
    )
    app.add_middleware(MetricsMiddleware, registry=registry)
    asyncio.run(
        asked(
            app,
            ("GET", "/pages/one"),
            ("GET", "/api/v/3"),
            ("GET", "/api/none"),
            ("GET", "/static/a.txt"),
            ("GET", "/static/b.txt"),
            ("BREW", "/pages/pot"),
        )
    )
    assert requests_of(registry) == {
        ("GET", "/pages/{page}", "200"): 1,
        ("GET", "/api/v/{n}", "200"): 1,
        ("GET", "/api/*", "404"): 1,
        ("GET", "/static/*", "200"): 1,
        ("GET", "/static/*", "404"): 1,
        ("other", "/pages/{page}", "405"): 1,
    }
    sizes = {f.name: f for f in registry.collect()}["http_server_response_body_bytes"].sketches
    assert sizes["/pages/{page}",].sum >= 100


def test_a_root_path_is_no_part_of_the_route():
    registry = Registry()
    asyncio.run(asked(fastapi_app(registry), ("GET", "/behind/items/1"), root="/behind"))
    assert requests_of(registry) == {("GET", "/items/{number}", "200"): 1}


async def driven(registry, app, messages):
    """Run the app on scripted messages; the answer is what it sent."""
    sent = []
    feed = iter(messages)

    async def receive():
        try:
            return next(feed)
        except StopIteration:
            return await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/x", "headers": [], "root_path": ""}
    await MetricsMiddleware(app, registry=registry)(scope, receive, send)
    return sent


def test_a_client_that_goes_away_is_499():
    registry = Registry()

    async def app(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass

    asyncio.run(
        driven(
            registry,
            app,
            [
                {"type": "http.request", "body": b"abc", "more_body": True},
                {"type": "http.disconnect"},
            ],
        )
    )
    assert requests_of(registry) == {("GET", "unmatched", "499"): 1}
    sizes = {f.name: f for f in registry.collect()}["http_server_request_body_bytes"].sketches
    assert sizes["unmatched",].sum == 3


@pytest.mark.parametrize("when", ["before", "started"])
def test_a_cancelled_request_is_counted_once_and_leaves_nothing_in_flight(when):
    registry = Registry()

    async def app(scope, receive, send):
        if when == "started":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.Event().wait()

    async def scene():
        task = asyncio.get_running_loop().create_task(driven(registry, app, []))
        for _ in range(3):
            await asyncio.sleep(0)
        assert numbers(registry)["http_server_requests_in_flight"] == {(): 1}
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scene())
    code = "200" if when == "started" else "499"
    assert requests_of(registry) == {("GET", "unmatched", code): 1}
    assert numbers(registry)["http_server_requests_in_flight"] == {(): 0}


def handler():
    pass


@pytest.mark.parametrize(
    ("path", "parameters", "route"),
    [
        ("/items/7", {"n": 7}, "/items/{n}"),
        ("/items/007", {"n": 7}, "unknown"),
        ("/a/x/b/x", {"one": "x", "two": "x"}, "/a/{one}/b/{two}"),
        ("/files/a/b.txt", {"path": "a/b.txt"}, "/files/{path}"),
        ("/items/.*", {"n": ".*"}, "/items/{n}"),
        ("/plain", {}, "/plain"),
    ],
    ids=["plain", "converted", "twice", "deep", "pattern", "none"],
)
def test_a_route_is_rebuilt_where_the_framework_does_not_tell(path, parameters, route):
    scope = {"path": path, "path_params": parameters, "endpoint": handler}
    assert route_of(scope) == route


def test_a_route_finder_that_fails_does_not_fail_the_request():
    registry = Registry()

    async def app(scope, receive, send):
        await PlainTextResponse("ok")(scope, receive, send)

    def fails(scope):
        raise LookupError

    counted = MetricsMiddleware(app, registry=registry, find_route=fails)
    (response,) = asyncio.run(asked(counted, ("GET", "/secret/path")))
    assert response.status_code == 200
    assert requests_of(registry) == {("GET", "unknown", "200"): 1}


def test_streams_lifespans_and_websockets_pass():
    registry = Registry()

    async def stream():
        for _ in range(3):
            yield b"12345"

    async def show(request):
        return StreamingResponse(stream())

    app = Starlette(routes=[Route("/s", show)])
    app.add_middleware(MetricsMiddleware, registry=registry)
    (response,) = asyncio.run(asked(app, ("GET", "/s")))
    assert response.content == b"12345" * 3
    sizes = {f.name: f for f in registry.collect()}["http_server_response_body_bytes"].sketches
    assert sizes["/s",].sum == 15

    async def socket(scope, receive, send):
        assert numbers(registry)["http_server_websockets_open"] == {(): 1}

    scope: dict[str, Any] = {"type": "websocket", "path": "/", "headers": []}
    nothing: Any = None
    asyncio.run(MetricsMiddleware(socket, registry=registry)(scope, nothing, nothing))
    assert numbers(registry)["http_server_websockets_open"] == {(): 0}


# ---- /metrics

PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


async def shown(app, method="GET", path="/", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        client.headers.pop("accept-encoding", None)
        return await client.request(method, path, headers=named)


def test_the_endpoint_answers_in_the_format_asked_for():
    registry = Registry()
    registry.counter("jobs").inc()
    app = metrics_app(registry)
    text = asyncio.run(shown(app, accept="*/*"))
    assert text.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "jobs_total 1\n" in text.text
    opened = asyncio.run(shown(app, accept=PROMETHEUS))
    assert opened.headers["content-type"].startswith("application/openmetrics-text")
    assert opened.text.endswith("# EOF\n")
    head = asyncio.run(shown(app, "HEAD"))
    assert head.content == b""
    assert int(head.headers["content-length"]) == len(text.content)
    assert asyncio.run(shown(app, "POST")).status_code == 405


def test_the_endpoint_is_a_route_and_is_not_counted_itself():
    registry = Registry()
    app = fastapi_app(registry)
    app.add_route("/metrics", metrics_app(registry))
    found = asyncio.run(asked(app, ("GET", "/items/1"), ("GET", "/metrics"), ("POST", "/metrics")))
    assert [response.status_code for response in found] == [200, 200, 405]
    assert 'route="/items/{number}",code="200"} 1' in found[1].text
    assert "/metrics" not in found[1].text


def test_a_large_answer_is_compressed_for_those_who_ask():
    registry = Registry()
    jobs = registry.counter("jobs", "", ("a",))
    for at in range(500):
        jobs.add(1, f"a{at}")
    plain = asyncio.run(shown(metrics_app(registry)))
    assert "content-encoding" not in plain.headers
    zipped = asyncio.run(shown(metrics_app(registry), accept_encoding="gzip"))
    assert zipped.headers["content-encoding"] == "gzip"
    assert zipped.text == plain.text
    assert len(gzip.compress(plain.content)) < len(plain.content) / 5


def test_a_token_keeps_others_out():
    app = metrics_app(Registry(), token="t0ken")
    assert asyncio.run(shown(app)).status_code == 401
    assert asyncio.run(shown(app, authorization="Bearer wrong")).status_code == 401
    assert asyncio.run(shown(app, authorization="Bearer t0ken")).status_code == 200

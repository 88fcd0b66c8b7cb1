"""A service in traces: its requests, and what it calls."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.responses import PlainTextResponse

from headgate.cache import Cache
from headgate.observe.logs import context as lines
from headgate.observe.meters import exemplars
from headgate.observe.tracing.asgi import TracingMiddleware
from headgate.observe.tracing.instrument import (
    guard_events,
    trace_cache,
    trace_httpx,
    trace_redis,
    trace_sqlalchemy,
    traced_asyncpg,
    traced_psycopg,
)
from headgate.observe.tracing.instrument.statements import operation_of, without_literals
from headgate.observe.tracing.process import setup, shutdown, trace
from headgate.observe.tracing.rules import TracingRules
from headgate.observe.tracing.tracer import Tracer
from headgate.resilience.settings import Event

GOOD = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ALL = TracingRules(sample=1.0, trust_sampled="all")


@pytest.fixture
def tracer():
    return Tracer(ALL, service="users")


def ask(app, path="/users/7?token=s3cret", method="GET", **headers):
    async def asked():
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://svc:81") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(asked())


def test_a_request_is_one_span_named_by_its_route(tracer):
    api = FastAPI()
    inner = FastAPI()

    @inner.get("/users/{number}")
    async def user(number: int):
        with tracer.span("load"):
            return {"id": number}

    api.mount("/v1", inner)
    ask(TracingMiddleware(api, tracer=tracer), "/v1/users/7?token=s3cret", traceparent=GOOD)
    load, server = tracer.take()
    assert server.name == "GET /v1/users/{number}"
    assert (server.kind, server.service, server.status) == ("server", "users", "unset")
    assert (server.trace_id, server.parent_id) == (GOOD[3:35], GOOD[36:52])
    assert load.parent_id == server.span_id
    assert server.attributes["http.route"] == "/v1/users/{number}"
    assert server.attributes["http.response.status_code"] == 200
    assert server.attributes["url.path"] == "/v1/users/7"
    assert server.attributes["server.address"] == "svc"
    assert "s3cret" not in repr(server)


def test_failures_and_odd_methods_are_told(tracer):
    async def app(scope, receive, send):
        if scope["path"] == "/raise":
            raise RuntimeError("broken")
        await PlainTextResponse("", status_code=int(scope["path"][1:]))(scope, receive, send)

    traced = TracingMiddleware(app, tracer=tracer, skip=["/204"])
    for path, method in (("/raise", "GET"), ("/503", "GET"), ("/404", "GET"), ("/200", "HACK")):
        ask(traced, path, method)
    ask(traced, "/204")
    raised, failed, missing, odd = tracer.take()
    assert (raised.status, raised.attributes["http.response.status_code"]) == ("error", 500)
    assert raised.attributes["error.type"] == "RuntimeError"
    assert (failed.status, failed.attributes["error.type"]) == ("error", "503")
    assert missing.status == "unset"
    assert (odd.name, odd.attributes["http.request.method"]) == ("HTTP", "_OTHER")
    assert tracer.take() == []


def test_a_client_that_leaves_is_no_error(tracer):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await receive()
        raise OSError("nobody listens")

    async def scenario():
        async def receive():
            return {"type": "http.disconnect"}

        async def send(_message):
            pass

        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        await TracingMiddleware(app, tracer=tracer)(scope, receive, send)

    with pytest.raises(OSError, match="nobody"):
        asyncio.run(scenario())
    span = tracer.take()[0]
    assert span.attributes["headgate.disconnected"] is True
    assert span.attributes["http.response.status_code"] == 200


def test_websockets_and_lifespan_pass(tracer):
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await receive()

    async def scenario():
        async def receive():
            return {"type": "websocket.disconnect", "code": 1001}

        async def send(_message):
            pass

        traced = TracingMiddleware(app, tracer=tracer)
        await traced({"type": "lifespan"}, receive, send)
        await traced({"type": "websocket", "path": "/ws", "headers": []}, receive, send)

    asyncio.run(scenario())
    assert seen == ["lifespan", "websocket"]
    span = tracer.take()[0]
    assert span.attributes["http.response.status_code"] == 101
    assert span.attributes["headgate.websocket.close_code"] == 1001


def test_calls_of_httpx_are_client_spans_and_carry_the_trace_on(tracer):
    seen = []

    def answer(request):
        seen.append(dict(request.headers))
        return httpx.Response(503 if request.url.path == "/bad" else 200)

    async def scenario():
        client = trace_httpx(
            trace_httpx(httpx.AsyncClient(transport=httpx.MockTransport(answer)), tracer=tracer),
            tracer=tracer,
            tells=lambda host: host != "stranger",
        )
        async with client:
            with tracer.span("root"), tracer.carrying(user="7"):
                await client.get("http://u:p@svc/x?key=s3cret", headers={"traceparent": "old"})
                await client.get("http://svc/bad")

    asyncio.run(scenario())
    with trace_httpx(
        httpx.Client(transport=httpx.MockTransport(answer)),
        tracer=tracer,
        tells=lambda host: host != "stranger",
    ) as client:
        client.get("http://stranger/")
    one, bad, root, strange = tracer.take()
    assert seen[0]["traceparent"] == f"00-{one.trace_id}-{one.span_id}-03"
    assert seen[0]["baggage"] == "user=7"
    assert (one.parent_id, one.kind, one.name) == (root.span_id, "client", "GET")
    assert one.attributes["url.full"] == "http://svc/x"
    assert (bad.status, bad.attributes["error.type"]) == ("error", "503")
    assert "traceparent" not in seen[2]
    assert strange.attributes["server.address"] == "stranger"


def test_baggage_of_a_request_is_there_and_goes_with_it(tracer):
    found: list[Any] = []

    async def app(scope, receive, send):
        found.append(dict(tracer.baggage))
        found.append(dict(tracer.inject())["baggage"])

    async def scenario():
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"baggage", b"a=1")]}
        await TracingMiddleware(app, tracer=tracer)(scope, None, None)  # type: ignore[arg-type]
        return dict(tracer.baggage)

    assert asyncio.run(scenario()) == {}
    assert found[0]["a"].value == "1"
    assert found[1] == "a=1"


def test_statements_of_sqlalchemy_are_spans_without_data(tracer):
    engine = create_engine("sqlite://")
    end = trace_sqlalchemy(engine, tracer=tracer)
    try:
        with engine.connect() as connection, tracer.span("root"):
            connection.execute(text("SELECT 'secret', 42 WHERE 1 = :one"), {"one": 1})
            with pytest.raises(Exception, match="no such table"):
                connection.execute(text("DELETE FROM missing WHERE a = 'x'"))
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))  # of no trace
        end()
        with engine.connect() as connection, tracer.span("after"):
            connection.execute(text("SELECT 1"))
    finally:
        engine.dispose()
    select, delete, root, after = tracer.take()
    assert select.attributes["db.query.text"] == "SELECT ?, ? WHERE ? = ?"
    assert select.attributes["db.system.name"] == "sqlite"
    assert select.attributes["code.file.path"] == __file__
    assert (select.kind, select.parent_id) == ("client", root.span_id)
    assert delete.status == "error"
    assert delete.attributes["error.type"] == "OperationalError"
    assert "'x'" not in repr(delete)
    assert after.name == "after"


def test_statements_of_an_async_engine_know_who_asked(tracer):
    async def scenario():
        engine = create_async_engine("sqlite+aiosqlite://")
        trace_sqlalchemy(engine, tracer=tracer)
        try:
            async with engine.connect() as connection:
                with tracer.span("root"):
                    await connection.execute(text("SELECT 1"))
        finally:
            await engine.dispose()

    asyncio.run(scenario())
    assert tracer.take()[0].attributes["code.file.path"] == __file__


def test_classes_of_drivers_are_traced(tracer):
    class Connection:
        async def fetch(self, query, *args):
            return [1, 2, 3]

        async def fetchrow(self, query, *args):
            return None

        async def execute(self, query, *args):
            if "bad" in query:
                raise ValueError("bad")
            return "UPDATE 3"

    class Cursor:
        rowcount = 2

        def execute(self, query, params=None):
            return self

        async def executemany(self, query, params=None):
            return None

    async def scenario():
        connection = traced_asyncpg(Connection, tracer=tracer)()
        cursor = traced_psycopg(Cursor, tracer=tracer)()
        assert await connection.fetch("SELECT 1") == [1, 2, 3]  # of no trace
        with tracer.span("root"):
            await connection.fetch("SELECT a FROM b WHERE c = $1 AND d = 'x'", 7)
            await connection.fetchrow("SELECT 1")
            await connection.execute("UPDATE a SET b = 1")
            with pytest.raises(ValueError, match="bad"):
                await connection.execute("bad")
            assert cursor.execute(b"SELECT %s", (1,)) is cursor
            await cursor.executemany("INSERT INTO a VALUES (%s, %s, %s, %s)", [])

    asyncio.run(scenario())
    spans = tracer.take()
    assert [span.attributes.get("db.response.returned_rows") for span in spans[:-1]] == [
        3, 0, 3, None, 2, 2,
    ]  # fmt: skip
    assert spans[0].attributes["db.query.text"] == "SELECT a FROM b WHERE c = $1 AND d = ?"
    assert spans[0].attributes["code.file.path"] == __file__
    assert spans[3].status == "error"
    assert spans[5].attributes["db.query.text"] == "INSERT INTO a VALUES (...)"


def test_commands_of_redis_are_told_without_keys(tracer):
    class Pipeline:
        async def execute(self):
            return [1]

    class Redis:
        async def execute_command(self, *args, **options):
            return args

        def pipeline(self):
            return Pipeline()

    class SyncRedis(Redis):
        def execute_command(self, *args, **options):
            return args

    async def scenario():
        client = trace_redis(trace_redis(Redis(), tracer=tracer), tracer=tracer)
        sync = trace_redis(SyncRedis(), tracer=tracer)
        with tracer.span("root"):
            await client.execute_command("GET", "user:secret")
            await client.pipeline().execute()
            sync.execute_command("config get", "x")

    asyncio.run(scenario())
    spans = tracer.take()
    assert [span.name for span in spans] == ["GET", "PIPELINE", "CONFIG", "root"]
    assert "secret" not in repr(spans)


def test_loads_of_the_cache_are_spans_and_hits_are_not(tracer):
    async def scenario():
        async with Cache() as cache:
            end = trace_cache(cache, slow_s=60.0, tracer=tracer)

            async def load():
                return 1

            with tracer.span("root"):
                await cache.get_or_set("user:7", load, ttl=60)
                await cache.get_or_set("user:7", load, ttl=60)
            end()

    asyncio.run(scenario())
    load, root = tracer.take()
    assert load.name == "cache load"
    assert load.parent_id == root.span_id
    assert "user:7" not in repr(load)


def test_guards_tell_events_of_the_span(tracer):
    heard = guard_events(tracer)
    heard(Event("retry", "api", "retried"))  # of no trace
    with tracer.span("root"):
        heard(Event("breaker", "api", "rejected", "open", 2.0))
    event = tracer.take()[0].events[0]
    assert event.name == "breaker rejected"
    assert event.attributes == {
        "headgate.name": "api",
        "headgate.why": "open",
        "headgate.after_s": 2.0,
    }


# -- statements -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        ("SELECT * FROM a WHERE b = 'x''y' AND c=12.5e3", "SELECT * FROM a WHERE b = ? AND c=?"),
        ("select a1, t2.c3 from t2", "select a1, t2.c3 from t2"),
        ("SELECT 'it''s open", "SELECT ?"),
        ("SELECT E'a\\'b', x'ff', $$text$$, $t$ 'x' $t$", "SELECT ?, ?, ?, ?"),
        ("SELECT 1 -- password: hunter2\n, 2 /* key=7 */", "SELECT ? , ?"),
        ("SELECT $1, :name, %(x)s, @v", "SELECT $1, :name, %(x)s, @v"),
        ('SELECT "a 1" FROM `b 2`', 'SELECT "a 1" FROM `b 2`'),
        ("IN (1, 2, 3,4)", "IN (...)"),
        ("SELECT\n  0xFF,\t.5", "SELECT ?, ?"),
    ],
)
def test_literals_are_taken_out(statement, shown):
    assert without_literals(statement) == shown


def test_double_quotes_are_text_to_mysql():
    assert without_literals('SELECT "x"', quotes_are_text=True) == "SELECT ?"


@given(st.text("'\"`$-*/\\ ab1\n:;()é", max_size=60))
def test_no_quoted_text_gets_through(text):
    quoted = "'" + text.replace("\\", "").replace("'", "''") + "Zq9'"
    assert "Zq9" not in without_literals(f"SELECT {quoted}")
    assert len(without_literals(text)) <= 2000


def test_odd_statements_are_quickly_done():
    for odd in (
        "'" * 50_000,
        "$" * 50_000,
        "$a" * 25_000,
        "/*" * 25_000,
        "(" + "1," * 20_000,
        "\\'" * 20_000,
    ):
        without_literals(odd)
    assert operation_of("") == "OTHER"
    assert operation_of("select 1") == "SELECT"


# -- set-up ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {"sample": 2},
        {"keep_slow": "often"},
        {"propagate": ["zipkin"]},
        {"propagate": "w3c"},
        {"service": ""},
    ],
)
def test_a_wrong_set_up_says_what_to_write(more):
    with pytest.raises(ValueError, match=r"write|needs|is neither|is no list"):
        setup(**{"service": "users", "tracer": Tracer(), **more})


def test_it_can_be_set_up_again_and_ended():
    mine = Tracer()
    setup("users", sample=1.0, tracer=mine)
    with mine.span("x"):
        pass
    setup("users", sample=0.0, keep_slow=None, keep_errors=False, tracer=mine)
    with mine.span("y"):
        pass
    shutdown(mine)
    with mine.span("z"):
        pass
    assert [span.name for span in mine.take()] == ["x"]


def test_metrics_are_told_which_trace_is_sure_to_be_kept(monkeypatch):
    monkeypatch.setattr(exemplars, "current", None)
    monkeypatch.setattr(lines, "current", lines.current)
    setup("users", sample=1.0)
    try:
        recorded: Any = exemplars.current
        with trace.span("x"):
            ids = trace.current_ids()
            assert ids is not None and recorded() == ids[0]
            assert (lines.current()["trace_id"], lines.current()["span_id"]) == ids
        assert recorded() is None
        assert lines.current() == {}
    finally:
        shutdown()
        trace.take()
    tail = Tracer(TracingRules(sample=0.0))
    with tail.span("x"):
        assert tail.exemplar() is None

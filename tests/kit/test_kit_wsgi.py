"""What a WSGI app is given: Flask, and a plain one."""

import io
import json
import random
import threading
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from flask import Flask, Response, abort, redirect, request

from headgate.kit import PARTS, Problem, current_request_id, harden
from headgate.kit.bounds import BodyTooLarge
from headgate.kit.wsgi_bounds import BoundedInput
from headgate.observe import Registry
from headgate.observe.health import Checks
from headgate.observe.health.wsgi import HealthWsgi
from headgate.observe.meters.wsgi import MetricsWsgi, MetricsWsgiEndpoint
from headgate.observe.tracing import Tracer, TracingRules
from headgate.observe.tracing.wsgi import TracingWsgi
from headgate.resilience import BreakerOpen, remaining
from tests.kit.rig import ask_wsgi

SECRET = "hunter2-of-the-database"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")


def flask_app():
    app = Flask("items")

    @app.get("/items/<int:number>")
    def item(number):
        return {"number": number, "id": current_request_id()}

    @app.post("/up")
    def up():
        return str(len(request.get_data()))

    @app.get("/stream")
    def stream():
        def pieces():
            yield b"one"
            yield current_request_id().encode()

        return Response(pieces())

    @app.get("/broken")
    def broken():
        def pieces():
            raise RuntimeError(SECRET)
            yield b""

        return Response(pieces())

    return app


def bare_app():
    def app(environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/up":
            body = str(len(environ["wsgi.input"].read())).encode()
        elif path == "/stream":
            start_response("200 OK", [])
            return iter([b"one", current_request_id().encode()])
        elif path == "/broken":
            return broken(start_response)
        elif path == "/problem":
            raise Problem(409, "two are left", code="short")
        elif path == "/boom":
            raise RuntimeError(SECRET)
        else:
            number = int(path.rpartition("/")[2])
            body = json.dumps({"number": number, "id": current_request_id()}).encode()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [body]

    def broken(start_response):
        start_response("200 OK", [])
        raise RuntimeError(SECRET)
        yield b""

    return app


every_kind = pytest.mark.parametrize("make", [flask_app, bare_app], ids=lambda make: make.__name__)


def hardened(make, **wishes):
    wishes.setdefault("registry", Registry())
    wishes.setdefault("tracer", Tracer())
    wishes["off"] = {"logs", *wishes.get("off", ())}
    return harden(make(), service="items", **wishes)


def judged(got, status):
    assert got.status == status
    assert got["content-type"] == "application/problem+json"
    said = got.json()
    assert said["request_id"] == got["x-request-id"]
    return said


@every_kind
def test_each_request_has_an_id_which_is_answered(make):
    app = hardened(make)
    first, second = ask_wsgi(app, path="/items/1"), ask_wsgi(app, path="/items/2")
    assert first["x-request-id"] == first.json()["id"] != second["x-request-id"]
    taken = ask_wsgi(app, path="/items/1", headers=[("x-request-id", "mine")])
    assert taken["x-request-id"] == taken.json()["id"] == "mine"
    assert ask_wsgi(app, path="/items/1", headers=[PARENT])["x-request-id"] == TRACE
    assert current_request_id() == ""


@every_kind
def test_the_id_is_there_while_a_body_is_made(make):
    got = ask_wsgi(hardened(make), path="/stream", headers=[("x-request-id", "mine")])
    assert got.body == b"onemine"


@every_kind
def test_a_request_is_a_span_of_the_callers_trace(make):
    tracer = Tracer(TracingRules(sample=1.0), rng=random.Random(1))
    ask_wsgi(hardened(make, tracer=tracer), path="/items/1", headers=[PARENT])
    (span,) = tracer.take()
    assert span.trace_id == TRACE
    assert span.attributes["http.response.status_code"] == 200
    assert span.name == ("GET /items/{number}" if make is flask_app else "GET")


@every_kind
def test_requests_are_counted_once_each_by_route(make):
    app = hardened(make)
    ask_wsgi(app, path="/items/1")
    ask_wsgi(app, path="/broken")
    lines = ask_wsgi(app, path="/metrics").body.decode()
    route = "/items/{number}" if make is flask_app else "unmatched"
    assert f'http_server_requests_total{{method="GET",route="{route}",code="200"}}' in lines
    assert "http_server_requests_in_flight 0" in lines


@every_kind
def test_metrics_are_shown_to_this_machine_and_to_who_brings_the_token(make):
    app = hardened(make, metrics_token="scraper")
    far: dict[str, Any] = {"path": "/metrics", "client": "203.0.113.9"}
    assert ask_wsgi(app, **far, headers=[("authorization", "Bearer scraper")]).status == 200
    assert ask_wsgi(app, **far, headers=[("authorization", "Bearer x")]).status == 401
    assert ask_wsgi(hardened(make), **far).status == 403
    assert ask_wsgi(app, "POST", "/metrics").status == 405
    assert ask_wsgi(app, "HEAD", "/metrics").body == b""


@every_kind
def test_health_is_told(make):
    checks = Checks("items", registry=None)

    async def database():
        return is_well

    is_well = True
    checks.add("database", database, critical=True, every="50ms")
    app = hardened(make, checks=checks)
    for path in ("/health", "/health/live", "/health/ready", "/health/startup"):
        assert ask_wsgi(app, path=path).status == 200, path
    assert ask_wsgi(app, "HEAD", "/health").body == b""
    assert ask_wsgi(app, "POST", "/health").status == 405
    checks.drain()
    got = ask_wsgi(app, path="/health/ready")
    assert got.status == 503
    assert got["Retry-After"]
    far = ask_wsgi(app, path="/health", client="203.0.113.9")
    assert "checks" not in far.json()


@every_kind
def test_responses_have_headers_for_browsers(make):
    got = ask_wsgi(hardened(make), path="/items/1")
    assert got["x-content-type-options"] == "nosniff"
    assert ask_wsgi(hardened(make, off={"headers"}), path="/items/1")["x-frame-options"] is None


@every_kind
def test_a_body_that_is_too_long_is_refused(make):
    app = hardened(make, body_limit=1000)
    assert ask_wsgi(app, "POST", "/up", body=b"x" * 1000).body == b"1000"
    announced = ask_wsgi(app, "POST", "/up", body=b"x" * 1001)
    assert judged(announced, 413)["code"] == "body_too_large"
    chunked = ask_wsgi(app, "POST", "/up", body=b"x" * 5000, is_chunked=True)
    assert judged(chunked, 413)["code"] == "body_too_large"
    assert ask_wsgi(app, "POST", "/up", body=b"x" * 900, is_chunked=True).body == b"900"
    assert app_of(app).checks


def app_of(app):
    return app.wsgi_app if isinstance(app, Flask) else app


@every_kind
def test_one_more_than_may_be_at_once_is_told_to_come_back(make):
    go, inside = threading.Event(), threading.Event()

    def slow():
        def app(environ, start_response):
            inside.set()
            go.wait(30)
            start_response("200 OK", [])
            return [b"x"]

        return app

    app = hardened(slow, at_once=1)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(ask_wsgi(app)))
    thread.start()
    try:
        assert inside.wait(30)
        refused = ask_wsgi(app)
    finally:
        go.set()
        thread.join(30)
    assert judged(refused, 503)["code"] == "busy"
    assert answers[0].status == 200
    assert ask_wsgi(app).status == 200


def test_clients_have_rates_of_their_own():
    app = hardened(bare_app, rates="1/min")
    assert ask_wsgi(app, path="/items/1").status == 200
    refused = ask_wsgi(app, path="/items/1")
    assert judged(refused, 429)["code"] == "rate_limited"
    assert refused["retry-after"]
    assert ask_wsgi(app, path="/items/1", client="10.0.0.1").status == 200


def test_the_handler_knows_what_is_left():
    def make():
        def app(environ, start_response):
            start_response("200 OK", [])
            return [str(remaining()).encode()]

        return app

    got = ask_wsgi(hardened(make), headers=[("x-headgate-deadline", "5000")])
    assert 0 < float(got.body) <= 5
    assert ask_wsgi(hardened(make), headers=[("x-headgate-deadline", "0")]).status == 504
    assert ask_wsgi(hardened(make, off={"deadlines"})).body == b"None"


def test_errors_of_flask_are_problems(caplog):
    app = flask_app()

    @app.get("/kinds/<kind>")
    def kinds(kind):
        if kind == "problem":
            raise Problem(409, "two are left", code="short")
        if kind == "abort":
            abort(403, "not you")
        if kind == "open":
            raise BreakerOpen("stock", "open", 3.0)
        if kind == "away":
            return redirect("/there")
        raise RuntimeError(SECRET)

    hardened(lambda: app)
    assert judged(ask_wsgi(app, path="/kinds/problem"), 409)["code"] == "short"
    assert judged(ask_wsgi(app, path="/kinds/abort"), 403)["detail"] == "not you"
    assert ask_wsgi(app, path="/kinds/open")["retry-after"] == "3"
    assert ask_wsgi(app, path="/kinds/away").status == 302
    judged(ask_wsgi(app, path="/nowhere"), 404)
    refused = ask_wsgi(app, "POST", "/kinds/abort")
    judged(refused, 405)
    assert "GET" in (refused["allow"] or "")
    got = ask_wsgi(app, path="/kinds/boom")
    judged(got, 500)
    assert SECRET not in got.body.decode()
    assert SECRET in caplog.text


@every_kind
def test_what_fails_while_the_body_is_made_is_a_500_if_nothing_was_sent(make, caplog):
    got = ask_wsgi(hardened(make), path="/broken")
    judged(got, 500)
    assert SECRET not in got.body.decode()
    assert SECRET in caplog.text


def test_errors_of_a_plain_app_are_problems(caplog):
    app = hardened(bare_app)
    assert judged(ask_wsgi(app, path="/problem"), 409)["code"] == "short"
    judged(ask_wsgi(app, path="/boom"), 500)
    assert SECRET in caplog.text
    open_app = hardened(bare_app, off={"errors"})
    with pytest.raises(RuntimeError, match=SECRET):
        ask_wsgi(open_app, path="/boom")


def test_a_response_that_fails_on_its_way_is_broken_off():
    def make():
        def app(environ, start_response):
            start_response("200 OK", [])
            yield b"one"
            raise RuntimeError(SECRET)

        return app

    with pytest.raises(RuntimeError, match=SECRET):
        ask_wsgi(hardened(make))


def test_a_response_that_nobody_reads_to_its_end_is_closed():
    ended = []

    def make():
        def app(environ, start_response):
            start_response("200 OK", [])
            try:
                yield b"one"
                yield b"two"
            finally:
                ended.append(True)

        return app

    app = hardened(make, at_once=1)
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.input": io.BytesIO()}
    found = app(environ, lambda *args: None)
    assert next(iter(found)) == b"one"
    found.close()
    assert ended == [True]
    assert ask_wsgi(app).body == b"onetwo"


def test_with_everything_off_the_app_is_as_it_was():
    got = ask_wsgi(hardened(bare_app, off=PARTS), path="/items/1")
    assert got.headers == [("content-type", "text/plain")]


def test_a_hardened_app_in_a_hardened_app_does_nothing_twice():
    inner = hardened(bare_app)

    def mounted(environ, start_response):
        return inner(environ, start_response)

    outer = hardened(lambda: mounted)
    got = ask_wsgi(outer, path="/items/1")
    assert len([name for name, _ in got.headers if name == "x-request-id"]) == 1


# ---- the pieces alone


@pytest.mark.parametrize("way", ["read", "sizes", "line", "lines", "each"])
def test_a_stream_is_bounded_whichever_way_it_is_read(way):
    def read(stream):
        if way == "read":
            return stream.read()
        if way == "sizes":
            return b"".join(iter(lambda: stream.read(7), b""))
        if way == "line":
            return b"".join(iter(stream.readline, b""))
        return b"".join(stream.readlines() if way == "lines" else stream)

    data = b"abc\ndef\n" * 12 + b"end!"
    assert read(BoundedInput(io.BytesIO(data), 100)) == data
    bounded = BoundedInput(io.BytesIO(data + b"x"), 100)
    with pytest.raises(BodyTooLarge):
        read(bounded)
    with pytest.raises(BodyTooLarge):
        bounded.read(1)


def test_the_halves_stand_alone():
    tracer = Tracer(TracingRules(sample=1.0))
    registry = Registry()
    app = TracingWsgi(MetricsWsgi(bare_app(), registry=registry), tracer=tracer)
    assert ask_wsgi(app, path="/items/1").status == 200
    with pytest.raises(RuntimeError):
        ask_wsgi(app, path="/boom")
    good, bad = tracer.take()
    assert good.attributes["http.response.status_code"] == 200
    assert bad.attributes["http.response.status_code"] == 500
    shown = ask_wsgi(MetricsWsgiEndpoint(registry), headers=[("accept-encoding", "gzip")])
    assert shown["Content-Encoding"] == "gzip"
    health = HealthWsgi(Checks("x", registry=None), bare_app())
    assert ask_wsgi(health, path="/health/live").status == 200
    assert ask_wsgi(health, path="/items/7").json()["number"] == 7
    assert ask_wsgi(HealthWsgi(Checks("x", registry=None)), path="/other").status == 404


@every_kind
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/items/1", b""),
        ("GET", "/stream", b""),
        ("GET", "/broken", b""),
        ("GET", "/health", b""),
        ("GET", "/metrics", b""),
        ("POST", "/up", b"x" * 10),
        ("POST", "/up", b"x" * 2000),
    ],
    ids=["plain", "stream", "broken", "health", "metrics", "body", "long"],
)
def test_servers_get_what_the_standard_asks_for(make, method, path, body):
    app = hardened(make, body_limit=1000)
    inner = app.wsgi_app if isinstance(app, Flask) else app
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.input": io.BytesIO(body),
    }
    if body:
        environ["CONTENT_LENGTH"] = str(len(body))
    setup_testing_defaults(environ)
    began = []

    def start(*told: Any) -> Any:
        began.append(told)
        return lambda piece: None

    found: Any = validator(inner)(environ, start)
    try:
        for _piece in found:
            pass
    finally:
        found.close()
    assert began

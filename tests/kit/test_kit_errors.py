"""Every error is a problem, whoever raised it, and tells nothing that it should not."""

import asyncio
import sys
from typing import Annotated

import pytest
from fastapi import FastAPI, Header, HTTPException
from fastapi.responses import PlainTextResponse, StreamingResponse
from litestar import Litestar, get, post
from litestar.exceptions import HTTPException as LitestarHTTPException
from litestar.params import FromPath, JSONBody
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.routing import Route

from headgate.errors import UpstreamFailed
from headgate.kit import Problem, harden
from headgate.kit.problems import describe, from_http, invalid, where
from headgate.observe import Registry
from headgate.resilience import BreakerOpen, DeadlineExceeded, RateLimited
from tests.kit.rig import ask

PROBLEM = "application/problem+json"
SECRET = "hunter2-of-the-database"


class Line(BaseModel):
    product: str = Field(max_length=10)
    quantity: int = Field(gt=0)


class Order(BaseModel):
    lines: list[Line]


def failing(kind):
    """What a handler of each kind does."""
    if kind == "problem":
        raise Problem(409, "two are left", code="short", short=[{"id": "p-1"}])
    if kind == "refused":
        raise BreakerOpen("stock", "open", 2.5)
    if kind == "limited":
        raise RateLimited("stock", "used up", 7.0)
    if kind == "late":
        raise DeadlineExceeded(0.5)
    raise RuntimeError(SECRET)


def fastapi_app():
    app = FastAPI()

    @app.get("/fail/{kind}")
    async def fail(kind: str):
        if kind == "http":
            raise HTTPException(402, {"detail": "no money", "code": "payment_refused", "left": 3})
        if kind == "text":
            raise HTTPException(409, "text", {"x-hint": "later"})
        failing(kind)

    @app.post("/orders")
    async def order(order: Order, x_number: Annotated[int, Header()] = 1):
        return {}

    return app


def starlette_app():
    async def fail(request):
        kind = request.path_params["kind"]
        if kind == "text":
            raise StarletteHTTPException(409, "text", {"x-hint": "later"})
        failing(kind)

    return Starlette(routes=[Route("/fail/{kind}", fail)])


def litestar_app():
    @get("/fail/{kind:str}", sync_to_thread=False)
    def fail(kind: FromPath[str]) -> dict:
        if kind == "text":
            raise LitestarHTTPException("text", status_code=409, headers={"x-hint": "later"})
        failing(kind)
        return {}

    @post("/orders", sync_to_thread=False)
    def order(data: JSONBody[Order]) -> dict:
        return {}

    return Litestar([fail, order], logging_config=None)


def bare_app():
    async def app(scope, receive, send):
        if scope["path"].startswith("/fail/"):
            failing(scope["path"].rpartition("/")[2])
        await PlainTextResponse("no", 404)(scope, receive, send)

    return app


def hardened(make, **wishes):
    return harden(make(), registry=Registry(), service="orders", **wishes)


def run(work):
    return asyncio.run(work)


def judged(got, status):
    assert got.status == status, got
    assert got["content-type"] == PROBLEM
    said = got.json()
    assert said["status"] == status
    assert said["type"] == "about:blank"
    assert said["title"]
    assert said["request_id"] == got["x-request-id"]
    return said


every_kind = pytest.mark.parametrize(
    "make", [fastapi_app, starlette_app, litestar_app, bare_app], ids=lambda make: make.__name__
)


@every_kind
def test_a_problem_is_answered_as_it_stands(make):
    said = judged(run(ask(hardened(make), path="/fail/problem")), 409)
    assert said["detail"] == "two are left"
    assert said["code"] == "short"
    assert said["short"] == [{"id": "p-1"}]


@every_kind
def test_calls_that_were_not_made_say_when_to_come_back(make):
    app = hardened(make)
    got = run(ask(app, path="/fail/refused"))
    judged(got, 503)
    assert got["retry-after"] == "3"
    limited = run(ask(app, path="/fail/limited"))
    judged(limited, 429)
    assert limited["retry-after"] == "7"
    judged(run(ask(app, path="/fail/late")), 504)


@every_kind
def test_what_nobody_expected_is_a_500_and_its_reason_stands_in_the_log_alone(make, caplog):
    got = run(ask(hardened(make), path="/fail/other"))
    judged(got, 500)
    assert SECRET not in got.body.decode()
    assert "RuntimeError" not in got.body.decode()
    records = [one for one in caplog.records if one.name == "headgate.kit"]
    assert len(records) == 1
    assert records[0].exc_info is not None
    assert SECRET in str(records[0].exc_info[1])


@pytest.mark.parametrize(
    "make", [fastapi_app, starlette_app, litestar_app], ids=lambda make: make.__name__
)
def test_errors_of_the_framework_are_problems(make):
    app = hardened(make)
    got = run(ask(app, path="/fail/text"))
    assert judged(got, 409)["detail"] == "text"
    assert got["x-hint"] == "later"
    judged(run(ask(app, path="/nowhere")), 404)
    refused = run(ask(app, "DELETE", "/fail/text"))
    judged(refused, 405)
    assert "GET" in refused["allow"]


def test_a_mapping_as_detail_is_members():
    said = judged(run(ask(hardened(fastapi_app), path="/fail/http")), 402)
    assert (said["detail"], said["code"], said["left"]) == ("no money", "payment_refused", 3)


JSON = [("content-type", "application/json"), ("x-number", "many")]


def test_validation_says_where_and_what_and_not_what_was_sent():
    body = b'{"lines": [{"product": "%s", "quantity": 1}, {"product": "a"}]}' % SECRET.encode()
    got = run(ask(hardened(fastapi_app), "POST", "/orders", JSON, body))
    said = judged(got, 422)
    found = {one["where"]: one["type"] for one in said["errors"]}
    assert found == {
        "header.x-number": "int_parsing",
        "body.lines[0].product": "string_too_long",
        "body.lines[1].quantity": "missing",
    }
    assert SECRET not in got.body.decode()
    assert said["detail"].endswith("(and 2 more)")


def test_validation_of_litestar_says_where_too():
    got = run(ask(hardened(litestar_app), "POST", "/orders", JSON[:1], b'{"lines": [{}]}'))
    said = judged(got, 400)
    assert any("lines" in one["where"] for one in said["errors"])


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"", b"null"], ids="abcd")
@pytest.mark.parametrize("make", [fastapi_app, litestar_app], ids=lambda make: make.__name__)
def test_a_body_that_is_none_is_a_fault_of_the_client(make, body):
    got = run(ask(hardened(make), "POST", "/orders", JSON[:1], body))
    assert 400 <= got.status < 500
    judged(got, got.status)


def test_many_faults_are_cut_short():
    found = invalid([{"loc": ("body", n), "msg": "m" * 5000} for n in range(1000)])
    assert len(found.members["errors"]) == 100
    assert found.members["more_errors"] == 900
    assert len(found.body()) < 200_000


def test_handlers_that_the_app_has_chosen_stay():
    app = FastAPI()

    @app.exception_handler(StarletteHTTPException)
    async def mine(request, error):
        return PlainTextResponse("mine", error.status_code)

    @app.exception_handler(Exception)
    async def mine_too(request, error):
        return PlainTextResponse("mine too", 500)

    @app.get("/boom")
    async def boom():
        raise RuntimeError(SECRET)

    harden(app, registry=Registry())
    assert run(ask(app, path="/nowhere")).body == b"mine"
    assert run(ask(app, path="/boom")).body == b"mine too"


def test_handlers_that_are_added_later_hold():
    app = hardened(fastapi_app)

    @app.exception_handler(404)
    async def mine(request, error):
        return PlainTextResponse("mine", 404)

    assert run(ask(app, path="/nowhere")).body == b"mine"


def test_without_errors_they_are_the_frameworks():
    app = hardened(fastapi_app, off={"errors"})
    assert run(ask(app, path="/nowhere")).json() == {"detail": "Not Found"}
    with pytest.raises(RuntimeError, match=SECRET):
        run(ask(app, path="/fail/other"))


def test_a_redirect_is_no_error():
    async def moved(request):
        raise StarletteHTTPException(307, headers={"location": "/there"})

    got = run(ask(hardened(lambda: Starlette(routes=[Route("/", moved)]))))
    assert (got.status, got["location"], got.body) == (307, "/there", b"")


def test_a_response_that_fails_on_its_way_is_broken_off(caplog):
    async def pieces():
        yield b"one"
        raise RuntimeError(SECRET)

    async def handler(request):
        return StreamingResponse(pieces())

    from tests.kit.rig import Answer

    answer = Answer()
    app = hardened(lambda: Starlette(routes=[Route("/", handler)]))
    with pytest.raises(RuntimeError, match=SECRET):
        run(ask(app, answer=answer))
    assert answer.status == 200
    assert answer.body == b"one"
    assert not answer.is_complete
    assert len([one for one in caplog.records if one.name == "headgate.kit"]) == 1


def test_what_fails_after_the_response_is_logged_and_no_more(caplog):
    async def later():
        raise RuntimeError(SECRET)

    async def handler(request):
        return PlainTextResponse("done", background=BackgroundTask(later))

    got = run(ask(hardened(lambda: Starlette(routes=[Route("/", handler)]))))
    assert got.body == b"done"
    assert got.is_complete
    assert SECRET in caplog.text


def test_an_answer_to_head_has_no_body():
    got = run(ask(hardened(bare_app), "HEAD", "/fail/other"))
    assert got.status == 500
    assert got.body == b""
    assert int(got["content-length"]) > 50


# ---- the pure part


@pytest.mark.parametrize(
    ("loc", "text"),
    [
        ((), ""),
        (("body",), "body"),
        (("body", "lines", 2, "price"), "body.lines[2].price"),
        ((0, "a"), "0.a"),
        ("query", "query"),
        (7, ""),
    ],
)
def test_a_place_is_written_as_people_do(loc, text):
    assert where(loc) == text


def test_a_problem_judges_what_it_is_made_of():
    with pytest.raises(ValueError, match="200"):
        Problem(200, "fine")
    assert str(Problem(404, "gone")) == "404: gone"


def test_members_cannot_be_what_a_problem_has_itself():
    with pytest.raises(TypeError, match="request_id"):
        Problem(400, "x", request_id="forged")


def test_an_error_of_a_framework_with_an_odd_status_or_detail_is_an_answer_all_the_same():
    assert from_http(200, "x").status == 500
    assert from_http(499, None).detail == "Error"
    assert from_http(400, ["a", "b"]).members == {"errors": ["a", "b"]}
    assert b"object at" in from_http(400, {"what": object()}).body()
    assert from_http(400, {"status": 200, "type": "x"}).document()["status"] == 400


def test_an_error_that_says_nothing_is_not_described():
    assert describe(RuntimeError("x")) is None
    assert describe(KeyboardInterrupt()) is None


def test_a_body_that_is_nested_without_end_is_a_fault_of_the_client():
    got = run(ask(hardened(fastapi_app), "POST", "/orders", JSON[:1], b"[" * 100_000))
    assert 400 <= got.status < 500
    judged(got, got.status)


@every_kind
@pytest.mark.parametrize(
    ("kind", "status"), [("timeout", 504), ("no_instance", 503), ("reset", 503)]
)
def test_a_service_that_is_away_is_named_and_not_explained(make, kind, status, monkeypatch):
    def fails(_kind):
        raise UpstreamFailed(kind, "10.0.0.7:3001 of the ledger")

    monkeypatch.setattr(sys.modules[__name__], "failing", fails)
    got = run(ask(hardened(make), path="/fail/other"))
    judged(got, status)
    assert b"10.0.0.7" not in got.body

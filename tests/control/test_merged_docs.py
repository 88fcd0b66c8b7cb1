"""One OpenAPI document of all services: what clients see of it, and what is left out."""

from __future__ import annotations

import asyncio
import copy
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from headgate.config import from_document
from headgate.control.admin.service_docs import contents
from headgate.control.merged_docs import Described, LeftOut, merged
from headgate.control.service_docs import ServiceDocs, _ways
from headgate.plan.build import build
from headgate.security.validation import ValidationRules, describe
from headgate.security.validation.rules import Refusal


class User(BaseModel):
    id: int
    name: str | None = None


def users_document() -> dict[str, Any]:
    app = FastAPI(title="Users", version="1")

    @app.get("/users/{user_id}", tags=["people"])
    def user(user_id: int) -> User:
        """One of them, `whole`."""
        return User(id=user_id)

    @app.post("/users", status_code=201)
    def make(user: User) -> User:
        """A new one."""
        return user

    @app.get("/internal/secrets")
    def secrets() -> dict[str, str]:
        return {}

    return app.openapi()


def plan_of(routes: list[dict[str, Any]], **services: Any):
    return build(
        from_document(
            {
                "listeners": [{"bind": "127.0.0.1:1"}],
                "services": services or {"users": {"instances": [{"url": "http://127.0.0.1:1"}]}},
                "routes": routes,
            }
        )
    )


def joined(document: dict[str, Any], *routes: dict[str, Any]) -> dict[str, Any]:
    plan = plan_of([{"to": "users", **route} for route in routes])
    before = copy.deepcopy(document)
    made = merged([Described("users", document, _ways(plan, "users"))], [], "1")
    assert document == before
    return made


@pytest.mark.parametrize(
    ("route", "paths"),
    [
        ({"match": {"path": "/"}}, {"/users/{user_id}", "/users", "/internal/secrets"}),
        ({"match": {"path": "/users/"}}, {"/users/{user_id}", "/users"}),
        ({"match": {"path": "/users/{id:int}"}}, {"/users/{user_id}"}),
        ({"match": {"path": "/users/{rest:path}"}}, {"/users/{user_id}"}),
        ({"match": {"exact": "/users"}}, {"/users"}),
        ({"match": {"path": "/api"}, "strip": True},
         {"/api/users/{user_id}", "/api/users", "/api/internal/secrets"}),
        ({"match": {"path": "/u/{id}"}, "rewrite": "/users/{id}"}, {"/u/{id}"}),
        ({"match": {"path": "/users/", "methods": ["GET"]}}, {"/users/{user_id}"}),
        ({"match": {"path": "/elsewhere/"}}, set()),
    ],
    ids=["all", "start", "param", "rest", "exact", "strip", "rewrite", "method", "none"],
)  # fmt: skip
def test_an_operation_stands_under_the_path_that_clients_use(route, paths):
    assert joined(users_document(), route)["paths"].keys() == paths


@pytest.mark.parametrize(
    "route",
    [
        {"match": {"regex": "/users/(?P<id>[0-9]+)"}},
        {"match": {"path": "/u"}, "rewrite": {"regex": "^/u", "to": "/users"}},
    ],
    ids=["match", "rewrite"],
)
def test_what_cannot_be_read_backwards_is_named(route):
    made = joined(users_document(), {"name": "odd", **route})
    assert made["paths"] == {}
    assert "regular expression" in made["x-left-out"][0]["why"]
    assert "odd" in made["x-left-out"][0]["why"]


def test_names_of_two_services_stay_apart_and_the_whole_is_a_document(tmp_path):
    plan = plan_of(
        [
            {"match": {"path": "/users/"}, "to": "users"},
            {"match": {"path": "/old"}, "to": "old", "strip": True},
        ],
        users={"instances": [{"url": "http://127.0.0.1:1"}]},
        old={"instances": [{"url": "http://127.0.0.1:1"}]},
    )
    old = users_document()
    old["openapi"] = "3.0.3"
    old["components"]["schemas"]["User"] = {
        "type": "object",
        "required": ["id"],
        "properties": {
            "id": {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
            "name": {"type": "string", "nullable": True},
        },
    }
    made = merged(
        [
            Described("users", users_document(), _ways(plan, "users")),
            Described("old", old, _ways(plan, "old")),
        ],
        [LeftOut("x", "why not")],
        "7",
    )
    schemas = made["components"]["schemas"]
    assert {"users.User", "old.User"} <= schemas.keys()
    assert schemas["old.User"]["properties"] == {
        "id": {"type": "integer", "exclusiveMinimum": 0},
        "name": {"type": ["string", "null"]},
    }
    assert made["x-left-out"] == [{"service": "x", "why": "why not"}]
    file = tmp_path / "all.json"
    file.write_text(json.dumps(made))
    # Our own judge of requests reads it, every reference in it too.
    judge = describe(ValidationRules(openapi=str(file)))
    assert not isinstance(judge.find("GET", "/users/7"), Refusal | None)
    assert not isinstance(judge.find("POST", "/old/users"), Refusal | None)


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"swagger": "2.0"}, "3.0 or 3.1"),
        ({"openapi": "3.1.0", "paths": []}, "mapping"),
        ({"openapi": "3.1.0", "paths": {"/": {"$ref": "http://evil.example/x"}}}, "another document"),
        ({}, "3.0 or 3.1"),
    ],
    ids=["swagger", "paths", "remote", "empty"],
)  # fmt: skip
def test_what_is_no_document_is_left_out_with_the_reason(document, why):
    assert why in joined(document, {"match": {"path": "/"}})["x-left-out"][0]["why"]


def test_odd_documents_harm_nobody():
    odd = {
        "openapi": "3.1.0",
        "paths": {
            "/a": None,
            "/b": {"get": 7, "parameters": 3, "post": {"tags": 1, "parameters": [None]}},
            "c": {"get": {}},
            "/d": {"get": {"parameters": [{"$ref": "#/components/parameters/loop"}]}},
        },
        "components": {
            "parameters": {"loop": {"$ref": "#/components/parameters/loop"}},
            "schemas": 3,
        },
        "servers": "no",
    }
    made = joined(odd, {"match": {"path": "/"}})
    assert made["paths"].keys() == {"/b", "/d"}
    assert "<details>" in contents(made)


def test_what_is_shown_is_escaped():
    document = users_document()
    document["paths"]["/<script>x"] = {
        "get": {"summary": "<img onerror=1>", "tags": ["<b>"], "parameters": [{"name": "<i>"}]}
    }
    text = contents(joined(document, {"match": {"path": "/"}}))
    assert "<script" not in text and "<img" not in text and "<i>" not in text
    assert "<code>whole</code>" in text


# -- fetched ---------------------------------------------------------------------------------


class Shows(http.server.ThreadingHTTPServer):
    def __init__(self, body: bytes, status: int = 200) -> None:
        self.asked = 0
        shows = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shows.asked += 1
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self.thread.start()

    def end(self) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join(20)


@pytest.fixture
def shown() -> Iterator[Shows]:
    shows = Shows(json.dumps(users_document()).encode())
    yield shows
    shows.end()


def docs_of(urls: list[str], clock=lambda: 0.0, openapi: Any = "/openapi.json") -> ServiceDocs:
    plan = plan_of(
        [{"match": {"path": "/users/"}, "to": "users"}],
        users={"instances": [{"url": url} for url in urls], "openapi": openapi},
    )
    return ServiceDocs(lambda: plan, lambda _name: urls, clock)


@pytest.mark.integration
def test_an_instance_is_asked_once_a_minute_and_another_when_it_is_away(shown):
    now = [0.0]
    docs = docs_of(["http://127.0.0.1:1", shown.url], lambda: now[0])

    async def main():
        first, second = await asyncio.gather(docs.document("1"), docs.document("1"))
        assert first["paths"].keys() == {"/users/{user_id}", "/users"}
        assert first is second
        assert shown.asked == 1
        now[0] = 61.0
        await docs.document("1")
        assert shown.asked == 2
        await docs.close()

    asyncio.run(main())


@pytest.mark.integration
def test_who_leaves_does_not_end_it_for_others(shown):
    docs = docs_of([shown.url])

    async def main():
        leaves = asyncio.ensure_future(docs.document("1"))
        stays = asyncio.ensure_future(docs.document("1"))
        await asyncio.sleep(0)
        leaves.cancel()
        assert (await stays)["paths"]
        await docs.close()

    asyncio.run(main())


@pytest.mark.integration
@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        (b"", 404, "answered 404"),
        (b"{", 200, "cannot be read"),
        (b"\xff\xfe", 200, "cannot be read"),
        (b"[1]", 200, "is no OpenAPI document"),
        (b"[" * 100_000, 200, "cannot be read"),
    ],
    ids=["status", "json", "bytes", "list", "deep"],
)
def test_an_answer_that_is_none_is_told(body, status, why):
    shows = Shows(body, status)
    try:

        async def main():
            docs = docs_of([shows.url])
            made = await docs.document("1")
            assert why in made["x-left-out"][0]["why"]
            await docs.close()

        asyncio.run(main())
    finally:
        shows.end()


def test_a_file_is_read_and_a_service_that_says_nothing_is_named(tmp_path):
    file = tmp_path / "users.json"
    file.write_text(json.dumps(users_document()))

    async def main():
        docs = docs_of(["http://127.0.0.1:1"], openapi={"file": str(file)})
        assert (await docs.document("1"))["paths"]
        silent = docs_of(["http://127.0.0.1:1"], openapi=None)
        assert "does not describe itself" in (await silent.document("1"))["x-left-out"][0]["why"]
        await docs.close()
        await silent.close()

    asyncio.run(main())

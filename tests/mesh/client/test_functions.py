from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Protocol, TypedDict

import pytest

from headgate.errors import HeadgateError
from headgate.mesh import (
    Body,
    CallFailed,
    Header,
    Query,
    Response,
    Service,
    WrongArguments,
    delete,
    get,
    post,
    put,
)
from headgate.mesh.client.openapi import Document, request_of
from headgate.testing import FakeMesh, FakeService

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "users", "version": "1"},
    "servers": [{"url": "/v2"}],
    "paths": {
        "/users/{user-id}": {
            "parameters": [{"$ref": "#/components/parameters/id"}],
            "get": {
                "operationId": "get_user_users__user_id__get",
                "parameters": [
                    {"name": "full", "in": "query", "schema": {"type": "boolean"}},
                    {
                        "name": "fields",
                        "in": "query",
                        "schema": {"type": "array", "items": {"type": "string"}},
                    },
                    {"name": "X-Tenant", "in": "header", "schema": {"type": "string"}},
                    {
                        "name": "order",
                        "in": "query",
                        "schema": {"type": "string", "enum": ["up", "down"]},
                    },
                ],
                "responses": {
                    "200": {"description": "Him"},
                    "404": {"description": "No such user"},
                },
            },
        },
        "/users": {
            "post": {
                "operationId": "create",
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/New"}}
                    },
                },
            }
        },
        "/token": {
            "post": {
                "operationId": "token",
                "requestBody": {
                    "content": {
                        "application/x-www-form-urlencoded": {
                            "schema": {
                                "type": "object",
                                "properties": {"name": {"type": "string"}},
                            }
                        }
                    }
                },
            }
        },
        "/loop": {"$ref": "#/paths/~1loop"},
    },
    "components": {
        "parameters": {"id": {"name": "user-id", "in": "path", "schema": {"type": "integer"}}},
        "schemas": {
            "New": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "age": {"type": ["integer", "null"]}},
            }
        },
    },
}


def asked(function: str, **arguments: Any) -> Any:
    document = Document(DOCUMENT)
    operation = document.find(function)
    assert operation is not None
    return request_of(operation, arguments, f"users.{function}", document.prefix)


def test_arguments_go_where_the_document_says():
    got = asked("get_user", user_id=42, full=True, fields=["a", "b"], X_Tenant="t")
    assert (got.method, got.path) == ("GET", "/v2/users/42")
    assert got.params == [("full", "true"), ("fields", "a"), ("fields", "b")]
    assert got.headers == {"X-Tenant": "t"}


def test_a_body_is_made_of_its_properties_or_given_whole():
    assert asked("create", name="Ada", age=None).json == {"name": "Ada", "age": None}
    assert asked("create", body={"x": 1}).json == {"x": 1}
    form = asked("token", name="Ada")
    assert (form.json, form.data) == (None, {"name": "Ada"})


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        ("get_user", {}, "user_id is missing"),
        ("get_user", {"user_id": "42"}, "user_id is a str, and must be of type integer"),
        ("get_user", {"user_id": True}, "user_id is True, and must be of type integer"),
        ("get_user", {"user_id": 1, "ful": 1}, 'ful is no argument; did you mean "full"'),
        ("get_user", {"user_id": 1, "order": "x"}, "order is a str, and must be one of up, down"),
        ("get_user", {"id": 1}, "user_id is missing; id is no argument"),
        ("create", {}, "name is missing"),
        ("create", {"name": 5}, "name is 5, and must be of type string"),
        ("create", {"name": "a", "nam": "b"}, "nam is no argument"),
    ],
    ids=["missing", "type", "bool", "typo", "enum", "two", "body", "field", "unknown"],
)
def test_wrong_arguments_are_said_before_anything_is_sent(function, arguments, words):
    with pytest.raises(WrongArguments, match=words):
        asked(function, **arguments)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "no object"),
        ({}, "no OpenAPI document"),
        ({"swagger": "2.0"}, "no OpenAPI document"),
        ({"openapi": "4.0"}, "OpenAPI 4.0; versions 3.0 and 3.1"),
    ],
    ids=["list", "empty", "swagger", "newer"],
)
def test_what_is_no_document_is_refused(content, words):
    with pytest.raises(ValueError, match=words):
        Document(content)


@pytest.mark.parametrize(
    "paths",
    [
        5,
        {"/a": 5},
        {"/a": {"get": 5}},
        {"/a": {"get": {"parameters": [5, {"in": "query"}], "responses": 5, "requestBody": []}}},
        {"/a": {"get": {"requestBody": {"content": {"application/json": 5}}}}},
        {"/a": {"$ref": "https://elsewhere/x"}},
    ],
    ids=["number", "item", "operation", "rows", "media", "elsewhere"],
)
def test_a_document_with_nonsense_in_it_is_read_as_far_as_it_goes(paths):
    Document({"openapi": "3.0.1", "paths": paths})


# ---- by the service


def run(work: Callable[[Service, FakeService], Coroutine[Any, Any, None]], **more: Any) -> None:
    async def whole() -> None:
        async with FakeMesh() as mesh:
            fake = mesh.fake("users")
            await work(mesh.service("users", **more), fake)

    asyncio.run(whole())


def test_a_function_is_called_by_the_document_of_the_service():
    async def work(users: Service, fake: FakeService) -> None:
        fake.on("GET", "/openapi.json").returns(json=DOCUMENT)
        fake.on("GET", "/v2/users/42").returns(json={"id": 42})
        assert await users.call("get_user", user_id=42) == {"id": 42}
        assert await users.call("get_user_users__user_id__get", user_id=42) == {"id": 42}
        fake.assert_called("GET", "/openapi.json", times=1)
        with pytest.raises(WrongArguments, match='no function get_usr; did you mean "get_user'):
            await users.call("get_usr")

    run(work)


def test_a_status_that_says_failure_is_raised_with_its_words():
    async def work(users: Service, fake: FakeService) -> None:
        fake.on("GET", "/v2/users/1").returns(404)
        fake.on("GET", "/v2/users/2").returns(409, json={"detail": "he is asleep"})
        with pytest.raises(CallFailed, match=r"users.get_user: 404 \(No such user\)") as caught:
            await users.call("get_user", user_id=1)
        assert caught.value.status_code == 404
        with pytest.raises(CallFailed, match="409 .he is asleep") as caught:
            await users.call("get_user", user_id=2)
        assert caught.value.body == {"detail": "he is asleep"}

    run(work, openapi=DOCUMENT)


def test_a_document_from_a_file(tmp_path):
    file = tmp_path / "users.json"
    file.write_text(json.dumps(DOCUMENT))

    async def work(users: Service, fake: FakeService) -> None:
        fake.on("POST", "/v2/users").returns(201, text="made")
        assert await users.call("create", name="Ada") == "made"

    run(work, openapi=str(file))
    run(work, openapi=file)


@pytest.mark.parametrize(("text", "words"), [("{", "is no JSON"), ("5", "no object")])
def test_a_file_that_is_no_document_is_named(tmp_path, text, words):
    file = tmp_path / "users.json"
    file.write_text(text)

    async def work(users: Service, fake: FakeService) -> None:
        with pytest.raises(HeadgateError, match=f"users.json.*{words}"):
            await users.call("create")

    run(work, openapi=str(file))


def test_a_service_without_a_document_says_the_way_out():
    async def work(users: Service, fake: FakeService) -> None:
        fake.on("GET", "/openapi.json").returns(404)
        with pytest.raises(CallFailed, match="give its document"):
            await users.call("get_user", user_id=1)

    run(work)


# ---- by a Protocol


class Kind(Enum):
    HUMAN = "human"


@dataclass
class User:
    id: int
    name: str
    born: datetime.date | None = None


class Row(TypedDict):
    id: int


class Users(Protocol):
    @get("/users/{id}")
    async def user(self, id: int, *, full: bool | None = None) -> User: ...

    @get("/users")
    async def users(
        self,
        kind: Kind,
        tags: list[str],
        tenant: Annotated[str | None, Header("x-tenant")] = None,
        page: Annotated[int, Query("p")] = 1,
    ) -> list[Row]: ...

    @post("/users")
    async def create(self, name: str, born: datetime.date | None = None) -> User: ...

    @put("/users/{id}")
    async def replace(self, id: int, user: User) -> None: ...

    @put("/raw")
    async def raw(self, data: Annotated[bytes, Body()]) -> bytes: ...

    @delete("/users/{id}")
    async def delete(self, id: str) -> Response: ...


def test_a_protocol_is_an_object_of_the_service():
    async def work(service: Service, fake: FakeService) -> None:
        users = service.typed(Users)
        fake.on("GET", "/users/42").returns(json={"id": 42, "name": "Ada", "born": "1815-12-10"})
        assert await users.user(42) == User(42, "Ada", datetime.date(1815, 12, 10))
        assert fake.calls[-1].query == ""
        await users.user(id=42, full=True)
        assert fake.calls[-1].query == "full=true"

        fake.on("GET", "/users").returns(json=[{"id": 1}])
        assert await users.users(Kind.HUMAN, ["a", "b"], tenant="t") == [{"id": 1}]
        assert fake.calls[-1].query == "kind=human&tags=a&tags=b&p=1"
        assert fake.calls[-1].headers["x-tenant"] == "t"

        fake.on("POST", "/users").returns(201, json={"id": 1, "name": "Bo"})
        await users.create("Bo", born=datetime.date(2000, 1, 2))
        assert fake.calls[-1].json == {"name": "Bo", "born": "2000-01-02"}

        fake.on("PUT", "/users/1").returns(204)
        assert await users.replace(1, User(1, "Bo")) is None  # type: ignore[func-returns-value]
        assert fake.calls[-1].json == {"id": 1, "name": "Bo", "born": None}

        fake.on("PUT", "/raw").returns(content=b"back")
        assert await users.raw(b"\0\1") == b"back"
        assert fake.calls[-1].body == b"\0\1"

        fake.on("DELETE", "/users/a/b?c").returns(404)
        got = await users.delete("a/b?c")  # quoted on its way
        assert got.status_code == 404
        assert repr(users) == "<Users of users>"

    run(work)


def test_an_answer_of_another_shape_is_a_failure_that_names_the_place():
    async def work(service: Service, fake: FakeService) -> None:
        users = service.typed(Users)
        fake.on("GET", "/users/1").returns(json={"id": "x", "name": "Ada"})
        with pytest.raises(CallFailed, match="not what the method says: id: "):
            await users.user(1)
        fake.on("GET", "/users/2").returns(text="<html>")
        with pytest.raises(CallFailed, match="no JSON"):
            await users.user(2)
        fake.on("GET", "/users/3").returns(500, json={"detail": "boom"})
        with pytest.raises(CallFailed, match=r"users.user: 500 \(boom\)"):
            await users.user(3)

    run(work)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda users: users.user(), "users.user: missing a required argument: 'id'"),
        (lambda users: users.user(1, 2), "too many positional"),
        (lambda users: users.user(1, ful=True), 'did you mean "full"'),
        (lambda users: users.delete(""), "stands in the path, and is empty"),
    ],
    ids=["missing", "many", "typo", "empty"],
)
def test_a_method_called_wrongly_says_how(call, words):
    async def work(service: Service, fake: FakeService) -> None:
        with pytest.raises(WrongArguments, match=words):
            await call(service.typed(Users))
        assert fake.calls == []

    run(work)


def test_a_protocol_that_cannot_be_is_refused_where_it_is_bound():
    class Typo(Protocol):
        @get("/users/{idd}")
        async def user(self, id: int) -> None: ...

    class Starred(Protocol):
        @get("/")
        async def user(self, *ids: int) -> None: ...

    class Both(Protocol):
        @post("/")
        async def user(self, a: str, b: Annotated[bytes, Body()]) -> None: ...

    class Empty(Protocol):
        pass

    async def work(service: Service, fake: FakeService) -> None:
        for protocol, words in (
            (Typo, 'did you mean "id"'),
            (Starred, "cannot be sent"),
            (Both, "a has no place"),
            (Empty, "no method"),
        ):
            with pytest.raises(TypeError, match=words):
                service.typed(protocol)

    run(work)
    with pytest.raises(ValueError, match="begins with /"):
        get("users")

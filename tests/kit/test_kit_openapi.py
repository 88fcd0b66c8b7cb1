"""The document of an app says how it answers errors."""

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, Path
from pydantic import BaseModel

from headgate.kit import harden
from headgate.kit.openapi import with_problems
from headgate.observe import Registry
from tests.kit.rig import ask


class Item(BaseModel):
    name: str


class Problem(BaseModel):
    mine: bool


def app_of(**more):
    app = FastAPI()

    @app.post("/items/{number}", **more)
    async def item(number: Annotated[int, Path()], item: Item) -> Item:
        return item

    return app


def document_of(app, **wishes):
    harden(app, registry=Registry(), **wishes)
    return asyncio.run(ask(app, path="/openapi.json")).json()


def test_a_422_is_described_as_a_problem():
    app = app_of()
    document = document_of(app)
    found = document["paths"]["/items/{number}"]["post"]["responses"]["422"]
    assert found["content"] == {
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
    }
    schemas = document["components"]["schemas"]
    assert set(schemas) == {"Item", "Problem"}
    assert "errors" in schemas["Problem"]["properties"]
    assert app.openapi() == document == app.openapi()


def test_what_the_app_describes_itself_stays():
    class Mine(BaseModel):
        why: str

    document = document_of(app_of(responses={422: {"model": Mine}}))
    found = document["paths"]["/items/{number}"]["post"]["responses"]["422"]
    assert found["content"]["application/json"]["schema"]["$ref"].endswith("/Mine")


def test_a_schema_of_that_name_stays():
    app = app_of()

    @app.get("/problems")
    async def problems() -> Problem:
        return Problem(mine=True)

    schemas = document_of(app)["components"]["schemas"]
    assert "mine" in schemas["Problem"]["properties"]
    assert "errors" in schemas["ProblemDetails"]["properties"]


def test_without_errors_the_document_is_the_frameworks():
    schemas = document_of(app_of(), off={"errors"})["components"]["schemas"]
    assert "HTTPValidationError" in schemas


def test_a_document_without_any_is_left_alone():
    document: dict[str, Any] = {"paths": {}}
    with_problems(document)
    assert document == {"paths": {}}

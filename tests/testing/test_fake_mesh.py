from __future__ import annotations

import asyncio
import contextlib

import pytest

from headgate.errors import UpstreamFailed
from headgate.mesh import Mesh, NoSuchService
from headgate.resilience import DeadlineExceeded, DeadlineMiddleware, TimedOut, deadline, remaining
from headgate.testing import FakeMesh, UnexpectedCall
from tests.mesh.client.mesh_rig import write_file


async def greet(mesh: Mesh, user: int) -> str:
    """What a service may do."""
    got = await mesh.service("users").get(f"/users/{user}")
    if got.status_code == 404:
        return "Hello, stranger"
    return f"Hello, {got.raise_for_status().json()['name']}"


def test_a_service_is_tested_without_a_mesh():
    async def work() -> None:
        async with FakeMesh(name="shop") as mesh:
            users = mesh.fake("users")
            users.on("GET", "/users/42").returns(json={"name": "Ada"})
            users.on("GET", "/users/43").returns(404)
            assert await greet(mesh, 42) == "Hello, Ada"
            assert await greet(mesh, 43) == "Hello, stranger"
            seen = users.assert_called("GET", "/users/42", times=1)
            assert seen.headers["x-headgate-caller"] == "shop"
            assert [each.path for each in mesh.calls] == ["/users/42", "/users/43"]

    asyncio.run(work())


def test_answers_come_in_turn_and_the_last_goes_on():
    async def work() -> None:
        async with FakeMesh() as mesh:
            rule = mesh.fake("users").on("GET", "/").returns(503).fails("reset").returns(text="ok")
            users = mesh.service("users")
            assert (await users.get("/")).status_code == 503  # no policies: as it is
            with pytest.raises(UpstreamFailed, match="reset"):
                await users.get("/")
            assert [(await users.get("/")).text for _ in range(2)] == ["ok", "ok"]
            assert len(rule.calls) == 4

    asyncio.run(work())


def test_a_function_answers():
    async def work() -> None:
        async with FakeMesh() as mesh:
            users = mesh.fake("users")

            @users.on("GET", "/users/{id}")
            def user(request, id):
                return {"id": int(id), "full": request.params.get("full")}

            @users.on("POST", "/users")
            async def create(request):
                return 201, {"name": request.json["name"]}

            @users.on("DELETE", "/users/{id}")
            def delete(request, id):
                return None

            service = mesh.service("users")
            got = await service.get("/users/7", params={"full": 1})
            assert got.json() == {"id": 7, "full": ["1"]}
            made = await service.post("/users", json={"name": "Ada"})
            assert (made.status_code, made.json()) == (201, {"name": "Ada"})
            assert (await service.delete("/users/7")).status_code == 204

    asyncio.run(work())


def test_what_was_not_scripted_fails_also_where_it_was_caught():
    async def work() -> None:
        async with FakeMesh() as mesh:
            mesh.fake("users").on("GET", "/users/{id}")
            with contextlib.suppress(Exception):
                await mesh.service("users").get("/nothing")

    with pytest.raises(UnexpectedCall, match="users is asked GET /nothing; it is faked for GET"):
        asyncio.run(work())


def test_a_service_that_is_not_faked_is_none():
    mesh = FakeMesh()
    mesh.fake("users")
    with pytest.raises(NoSuchService, match='"orders" in this FakeMesh; known are users'):
        mesh.service("orders")


def test_a_call_that_was_wanted_and_did_not_come_says_what_came():
    async def work() -> None:
        async with FakeMesh() as mesh:
            users = mesh.fake("users")
            users.on("*", "/{any}")
            await mesh.service("users").put("/a", json=1)
            with pytest.raises(AssertionError, match="GET /a at least once.*it was asked PUT /a"):
                users.assert_called("GET", "/a")
            with pytest.raises(AssertionError, match="2 times, and was 1 times"):
                users.assert_called("PUT", "/a", times=2)

    asyncio.run(work())


def test_slowness_is_cut_off_by_the_time_of_the_call():
    async def work() -> None:
        async with FakeMesh() as mesh:
            mesh.fake("users").on("GET", "/").returns().after(30)
            with pytest.raises(TimedOut):
                await mesh.service("users").get("/", timeout="30ms")
            with pytest.raises(DeadlineExceeded):
                async with deadline("30ms"):
                    await mesh.service("users").get("/")

    asyncio.run(work())


def test_the_policies_of_a_file_hold(tmp_path):
    services = {"users": {"instances": "http://10.0.0.1:1", "retry": {"wait": "1ms"}}}
    file = write_file(tmp_path, services)

    async def work() -> None:
        async with FakeMesh(file) as mesh:
            users = mesh.fake("users", instances=2)
            users.on("GET", "/").returns(503).returns(json="ok")
            got = await mesh.service("users").get("/")
            assert (got.json(), got.attempts) == ("ok", 2)
            first, second = users.calls
            assert first.instance != second.instance

    asyncio.run(work())


def test_an_app_is_a_service():
    began: list[str] = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                kind = (await receive())["type"]
                began.append(kind)
                await send({"type": f"{kind}.complete"})
                if kind.endswith("shutdown"):
                    return
        body = (await receive())["body"]
        left = remaining()
        text = (
            f"{scope['path']} {scope['query_string'].decode()} {body.decode()} {left is not None}"
        )
        await send(
            {"type": "http.response.start", "status": 201, "headers": [(b"x-a", b"b")]},
        )
        await send({"type": "http.response.body", "body": text.encode()})

    async def work() -> None:
        mesh = FakeMesh()
        orders = mesh.app("orders", DeadlineMiddleware(app))
        async with mesh:
            service = mesh.service("orders")
            got = await service.post("/a b", params={"c": "d"}, content="e")
            assert (got.status_code, got.headers["x-a"], got.text) == (201, "b", "/a b c=d e False")
            assert (await service.get("/", timeout=30)).text.endswith("True")
            assert len(orders.calls) == 2
        assert began == ["lifespan.startup", "lifespan.shutdown"]

    asyncio.run(work())


def test_an_app_that_breaks_is_a_broken_connection():
    async def broken(scope, receive, send):
        raise LookupError("no such table")

    async def silent(scope, receive, send):
        return

    async def work() -> None:
        mesh = FakeMesh()
        mesh.app("orders", broken)
        mesh.app("users", silent)
        async with mesh:
            for name, words in (("orders", "no such table"), ("users", "has not answered")):
                with pytest.raises(UpstreamFailed, match=words) as caught:
                    await mesh.service(name).get("/")
                assert caught.value.kind == "reset"

    asyncio.run(work())


def test_streams_work_with_fakes():
    async def work() -> None:
        async with FakeMesh() as mesh:
            mesh.fake("users").on("GET", "/").returns(text="a\nb")
            async with mesh.service("users").stream("GET", "/") as response:
                assert [line async for line in response.aiter_lines()] == ["a", "b"]

    asyncio.run(work())

from __future__ import annotations

import asyncio
import contextvars
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest

from headgate.errors import HeadgateError, UpstreamFailed
from headgate.mesh import Mesh, StatusError
from headgate.resilience import BreakerOpen, DeadlineExceeded, TimedOut, deadline
from headgate.resilience.hop import ATTEMPT, HOP, Hop
from tests.mesh.client.mesh_rig import (
    Answer,
    Instance,
    Seen,
    in_turn,
    instances,
    says,
    until,
    write_file,
)
from tests.ports import free_port

pytestmark = pytest.mark.integration

QUICK = {"attempts": 3, "wait": "1ms"}


def run(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """In a context of its own, so that what a test sets is gone with it."""
    return contextvars.Context().run(asyncio.run, work())


def mesh_of(tmp_path: Path, found: list[Instance] | list[str], **policies: Any) -> Mesh:
    urls = [each if isinstance(each, str) else each.url for each in found]
    file = write_file(tmp_path, {"users": {"instances": urls, **policies}})
    return Mesh(file, name="orders", report=False)


def test_a_call_by_name_is_answered(tmp_path):
    async def work() -> None:
        async with instances(says(200, {"id": 42})) as found, mesh_of(tmp_path, found) as mesh:
            users = mesh.service("users")
            got = await users.get("/users/42", params={"full": True}, headers={"X-Tenant": "a"})
            assert (got.status_code, got.json(), got.instance) == (200, {"id": 42}, found[0].url)
            assert (got.attempts, got.is_success, got.headers["content-type"]) == (
                1,
                True,
                "application/json",
            )
            seen = found[0].seen[0]
            assert (seen.method, seen.target) == ("GET", "/users/42?full=true")
            assert seen.headers["x-tenant"] == "a"
            assert seen.headers["x-headgate-caller"] == "orders"
            assert "x-headgate-attempt" not in seen.headers  # nobody retries

    run(work)


@pytest.mark.parametrize(
    ("more", "body", "kind"),
    [
        ({"json": {"a": [1, "ü"]}}, '{"a":[1,"ü"]}'.encode(), "application/json"),
        ({"data": {"a": "x y"}}, b"a=x%20y", "application/x-www-form-urlencoded"),
        ({"content": b"raw"}, b"raw", None),
        ({"content": "text"}, b"text", "text/plain; charset=utf-8"),
        ({}, b"", None),
    ],
    ids=["json", "form", "bytes", "text", "none"],
)
def test_a_body_is_sent(tmp_path, more, body, kind):
    async def work() -> None:
        async with instances(says(201)) as found, mesh_of(tmp_path, found) as mesh:
            assert (await mesh.service("users").post("/users", **more)).status_code == 201
            assert found[0].seen[0].body == body
            assert found[0].seen[0].headers.get("content-type") == kind

    run(work)


def test_a_body_that_is_iterated_is_sent_in_chunks(tmp_path):
    async def pieces():
        yield b"one "
        yield b"two"

    async def work() -> None:
        async with instances(says(200)) as found, mesh_of(tmp_path, found) as mesh:
            await mesh.service("users").put("/users", content=pieces())
            assert found[0].seen[0].body == b"one two"

    run(work)


def test_a_failure_is_tried_again_at_another_instance(tmp_path):
    async def work() -> None:
        handlers = [says(503), says(200, {"ok": True})]
        async with (
            instances(*handlers) as found,
            mesh_of(tmp_path, found, retry=QUICK) as mesh,
        ):
            for _ in range(6):
                got = await mesh.service("users").get("/")
                assert got.status_code == 200
            bad, good = found
            assert len(good.seen) == 6
            assert {each.headers["x-headgate-attempt"] for each in bad.seen} == {"1/3"}
            edge = mesh.snapshot()["users"]["edge"]
            assert (edge.requests, edge.errors, edge.retries) == (6, 0, len(bad.seen))

    run(work)


@pytest.mark.parametrize(
    ("method", "more", "attempts"),
    [
        ("GET", {}, 3),
        ("PUT", {"json": 1}, 3),
        ("POST", {"json": 1}, 1),
        ("POST", {"json": 1, "idempotent": True}, 3),
        ("POST", {"json": 1, "headers": {"Idempotency-Key": "k"}}, 3),
        ("GET", {"idempotent": False}, 1),
    ],
    ids=["get", "put", "post", "hint", "key", "not"],
)
def test_what_may_be_carried_out_twice_is_tried_again(tmp_path, method, more, attempts):
    async def work() -> None:
        async with (
            instances(says(503)) as found,
            mesh_of(tmp_path, found, retry=QUICK) as mesh,
        ):
            got = await mesh.service("users").request(method, "/", **more)
            assert (got.status_code, got.attempts) == (503, attempts)
            assert len(found[0].seen) == attempts
            numbers = [each.headers.get("x-headgate-attempt") for each in found[0].seen]
            expected = ["1/3", "2/3", "3/3"] if attempts == 3 else [None]
            assert numbers == expected

    run(work)


def test_what_was_never_sent_goes_elsewhere_without_any_policy(tmp_path):
    async def work() -> None:
        async with instances(says(200)) as found:
            nobody = f"http://127.0.0.1:{free_port()}"
            async with mesh_of(tmp_path, [nobody, found[0].url]) as mesh:
                for _ in range(4):
                    assert (await mesh.service("users").post("/", json=1)).status_code == 200

    run(work)


def test_nobody_there_says_so(tmp_path):
    async def work() -> None:
        async with mesh_of(tmp_path, [f"http://127.0.0.1:{free_port()}"]) as mesh:
            with pytest.raises(UpstreamFailed) as caught:
                await mesh.service("users").get("/")
            assert caught.value.kind == "connect"

    run(work)


def test_a_wait_that_the_service_asks_for_is_kept_to(tmp_path):
    async def work() -> None:
        answers = in_turn((503, {"retry-after": "1"}, b""), 200)
        async with (
            instances(answers) as found,
            mesh_of(tmp_path, found, retry=QUICK) as mesh,
        ):
            got = await mesh.service("users").get("/")
            assert got.attempts == 2
            assert got.elapsed_s >= 1.0
            long = await mesh.service("users").get("/", timeout="30s")
            assert long.status_code == 200
        async with (
            instances(says(503, retry_after="3600")) as found,
            mesh_of(tmp_path, found, retry=QUICK) as mesh,
        ):
            assert (await mesh.service("users").get("/")).attempts == 1

    run(work)


def test_the_budget_bounds_retries_and_the_layer_above_is_told(tmp_path):
    retry = {**QUICK, "budget": {"share": "20%", "floor": "0/s"}}

    async def work() -> None:
        async with instances(says(503)) as found, mesh_of(tmp_path, found, retry=retry) as mesh:
            hop = Hop(may_retry=True)
            HOP.set(hop)
            for _ in range(50):
                await mesh.service("users").get("/")
            assert 50 < len(found[0].seen) <= 60
            assert hop.budget_spent

    run(work)


def test_no_budget_below_ends_it_and_is_passed_on(tmp_path):
    async def work() -> None:
        async with (
            instances(says(503, x_headgate_no_retry="1")) as found,
            mesh_of(tmp_path, found, retry=QUICK) as mesh,
        ):
            hop = Hop(may_retry=True)
            HOP.set(hop)
            assert (await mesh.service("users").get("/")).attempts == 1
            assert hop.budget_spent

    run(work)


@pytest.mark.parametrize("above", ["hop", "attempt"])
def test_only_one_layer_retries(tmp_path, above):
    async def work() -> None:
        async with instances(says(503)) as found, mesh_of(tmp_path, found, retry=QUICK) as mesh:
            if above == "hop":
                HOP.set(Hop(may_retry=False))
            else:
                ATTEMPT.set((2, 4))
            assert (await mesh.service("users").get("/")).attempts == 1
            told = found[0].seen[0].headers["x-headgate-attempt"]
            assert told == ("1/2" if above == "hop" else "2/4")

    run(work)


def test_the_deadline_around_a_call_is_obeyed_and_passed_on(tmp_path):
    gate = asyncio.Event

    async def work() -> None:
        held = gate()

        async def hangs(_: Seen) -> Answer:
            await held.wait()
            return 200, {}, b""

        async with instances(hangs) as found, mesh_of(tmp_path, found, retry=QUICK) as mesh:
            with pytest.raises(DeadlineExceeded):
                async with deadline(0.3):
                    await mesh.service("users").get("/", timeout="30s")
            left_ms = int(found[0].seen[0].headers["x-headgate-deadline"])
            assert 0 < left_ms <= 300
            assert mesh.snapshot()["users"]["group"].members[0].in_flight == 0
            held.set()

    run(work)


def test_a_time_out_of_ones_own_is_a_time_out(tmp_path):
    async def work() -> None:
        held = asyncio.Event()

        async def hangs(_: Seen) -> Answer:
            await held.wait()
            return 200, {}, b""

        async with instances(hangs) as found, mesh_of(tmp_path, found, breaker=True) as mesh:
            with pytest.raises(TimedOut, match="users: no answer within 200ms"):
                await mesh.service("users").get("/", timeout=0.2)
            assert mesh.snapshot()["users"]["breakers"][0].failed_total == 1
            held.set()

    run(work)


def test_a_breaker_that_is_open_lets_nothing_through(tmp_path):
    breaker = {"window": "4 calls", "failure_rate": "50%", "reset_after": "60s"}

    async def work() -> None:
        async with instances(says(500)) as found, mesh_of(tmp_path, found, breaker=breaker) as mesh:
            for _ in range(4):
                assert (await mesh.service("users").get("/")).status_code == 500
            with pytest.raises(BreakerOpen, match="users: breaker open; come back in"):
                await mesh.service("users").get("/")
            assert len(found[0].seen) == 4

    run(work)


def test_without_a_file_a_broken_instance_is_left_alone(tmp_path):
    async def work() -> None:
        async with instances(says(500), says(200)) as found:
            breaker = {"per": "instance", "window": "4 calls", "reset_after": "60s"}
            async with mesh_of(tmp_path, found, breaker=breaker) as mesh:
                for _ in range(40):
                    await mesh.service("users").get("/")
                assert len(found[0].seen) == 4

    run(work)


def test_a_fallback_answers_in_place_of_a_failure(tmp_path):
    async def work() -> None:
        fallback = {"when": ["failed", 503], "respond": {"status": 203, "body": "old"}}
        async with (
            instances(says(503)) as found,
            mesh_of(tmp_path, found, fallback=fallback) as mesh,
        ):
            got = await mesh.service("users").get("/")
            assert (got.status_code, got.text, got.instance) == (203, "old", "")
            await found[0].stop()
            assert (await mesh.service("users").get("/")).status_code == 203

    run(work)


def test_a_fallback_to_another_service_is_asked_once(tmp_path):
    async def work() -> None:
        async with instances(says(503), says(503, {"from": "old"})) as found:
            services = {
                "users": {
                    "instances": [found[0].url],
                    "fallback": {"when": [503], "service": "old"},
                },
                "old": {
                    "instances": [found[1].url],
                    "fallback": {"when": [503], "service": "users"},
                },
            }
            async with Mesh(write_file(tmp_path, services), report=False) as mesh:
                got = await mesh.service("users").get("/")
                assert got.json() == {"from": "old"}
                assert (len(found[0].seen), len(found[1].seen)) == (1, 1)

    run(work)


def test_who_is_slow_is_hedged(tmp_path):
    async def work() -> None:
        held = asyncio.Event()

        async def hangs(_: Seen) -> Answer:
            await held.wait()
            return 200, {}, b"slow"

        hedge = {"after": "20ms"}
        async with (
            instances(hangs, says(200, "quick")) as found,
            mesh_of(tmp_path, found, hedge=hedge) as mesh,
        ):
            for _ in range(4):
                assert (await mesh.service("users").get("/")).json() == "quick"
            assert mesh.snapshot()["users"]["edge"].hedges >= 1

            def in_flight() -> int:
                members = mesh.snapshot()["users"]["group"].members
                return sum(member.in_flight for member in members)

            await until(lambda: in_flight() == 0)
            held.set()

    run(work)


def test_a_call_that_is_cancelled_gives_back_what_it_took(tmp_path):
    async def work() -> None:
        held, came = asyncio.Event(), asyncio.Event()

        async def hangs(_: Seen) -> Answer:
            came.set()
            await held.wait()
            return 200, {}, b""

        async with instances(hangs) as found, mesh_of(tmp_path, found, breaker=True) as mesh:
            task = asyncio.create_task(mesh.service("users").get("/"))
            await came.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            snapshot = mesh.snapshot()["users"]
            assert snapshot["group"].members[0].in_flight == 0
            assert snapshot["breakers"][0].failed_total == 0
            assert (snapshot["edge"].requests, snapshot["edge"].errors) == (1, 0)
            held.set()

    run(work)


def test_a_stream_holds_its_place_until_it_ends(tmp_path):
    async def work() -> None:
        async with instances(says(200, ["a", "b"])) as found, mesh_of(tmp_path, found) as mesh:
            users = mesh.service("users")

            def in_flight() -> int:
                return mesh.snapshot()["users"]["group"].members[0].in_flight

            async with users.stream("GET", "/") as response:
                assert response.status_code == 200
                assert in_flight() == 1
                body = b"".join([piece async for piece in response.aiter_bytes()])
                assert json.loads(body) == ["a", "b"]
            assert in_flight() == 0
            async with users.stream("GET", "/") as response:
                assert [line async for line in response.aiter_lines()] == ['["a", "b"]']
            async with users.stream("GET", "/"):
                pass  # never read
            assert in_flight() == 0

    run(work)


def test_a_status_is_raised_where_asked(tmp_path):
    async def work() -> None:
        async with instances(says(404)) as found, mesh_of(tmp_path, found) as mesh:
            got = await mesh.service("users").get("/")
            with pytest.raises(StatusError, match=r"users \(http://.*\): answered 404") as caught:
                got.raise_for_status()
            assert caught.value.response is got  # type: ignore[comparison-overlap]

    run(work)


def test_a_mesh_begins_by_itself_and_again_in_the_next_loop(tmp_path):
    async def serve() -> None:
        async with instances(says(200)) as found:
            file = write_file(tmp_path, {"users": found[0].url})
            mesh = Mesh(file, report=False)
            assert (await mesh.service("users").get("/")).status_code == 200
            await mesh.aclose()
            with pytest.raises(UpstreamFailed, match="closed"):
                await mesh.service("users").get("/")

    run(serve)


@pytest.mark.parametrize(
    ("path", "more", "words"),
    [
        ("http://users/42", {}, "whole URL"),
        ("//evil/42", {}, "another host"),
        ("/a#b", {}, "fragments"),
        ("/", {"json": 1, "content": b""}, "one body"),
        ("/", {"content": 5}, "give bytes"),
        ("/", {"timeout": "soon"}, "timeout: "),
        ("/", {"timeout": 0}, "no time"),
        ("/", {"headers": {"x": "a\r\nb: c"}}, "line end"),
        ("/", {"headers": {"x": 5}}, "must be text"),
        ("/", {"params": {"a": object()}}, "no text form"),
    ],
    ids=["url", "slashes", "hash", "two", "number", "soon", "zero", "crlf", "header", "param"],
)
def test_a_wrong_call_is_refused_before_anything_is_sent(tmp_path, path, more, words):
    async def work() -> None:
        async with instances(says(200)) as found, mesh_of(tmp_path, found) as mesh:
            with pytest.raises((ValueError, TypeError), match=words):
                await mesh.service("users").get(path, **more)
            assert found[0].seen == []

    run(work)


def test_a_name_that_nobody_knows_is_named(tmp_path):
    async def work() -> None:
        file = write_file(tmp_path, {"users": "http://127.0.0.1:1"})
        async with Mesh(file, report=False) as mesh:
            words = 'usrs: nothing is known.*does not name it: did you mean "users"'
            with pytest.raises(UpstreamFailed, match=words):
                await mesh.service("usrs").get("/", timeout=0.2)
            with pytest.raises(ValueError, match="no name of a service"):
                mesh.service("/users/42")

    run(work)


def test_nowhere_to_look_says_the_way_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HeadgateError, match="HEADGATE_URL"):
        Mesh(environ={})


def test_httpx_speaks_over_the_mesh(tmp_path):
    async def work() -> None:
        async with instances(says(503), says(200, {"ok": 1})) as found:
            mesh = mesh_of(tmp_path, found, retry=QUICK)
            async with httpx.AsyncClient(transport=mesh.transport()) as client:
                got = await client.get("http://users/users/42", params={"a": 1})
                assert got.json() == {"ok": 1}
                assert found[1].seen[0].target == "/users/42?a=1"
                assert (await client.post("http://users/x", json={"b": 2})).status_code in (
                    200,
                    503,
                )
                with pytest.raises(httpx.ConnectError, match="nothing is known"):
                    await client.get("http://nobody/", timeout=0.3)
                assert mesh.snapshot()["users"]["group"].members[0].in_flight == 0

    run(work)


def test_a_client_of_httpx_closes_a_mesh_of_its_own_and_none_that_is_open_around_it(tmp_path):
    async def work() -> None:
        async with instances(says(200)) as found:
            async with mesh_of(tmp_path, found) as mesh:
                for _ in range(2):
                    async with httpx.AsyncClient(transport=mesh.transport()) as client:
                        assert (await client.get("http://users/")).status_code == 200
                assert (await mesh.service("users").get("/")).status_code == 200
            with pytest.raises(UpstreamFailed, match="the mesh is closed"):
                await mesh.service("users").get("/")

            own = mesh_of(tmp_path, found)
            first, second = own.transport(), own.transport()
            for transport in (first, second):
                async with httpx.AsyncClient(transport=transport) as client:
                    assert (await client.get("http://users/")).status_code == 200
            with pytest.raises(httpx.TransportError, match="closed"):
                async with httpx.AsyncClient(transport=own.transport()) as client:
                    await client.get("http://users/")

    run(work)

"""Calls that are given up at any moment, answers that are nonsense, plans that change meanwhile."""

# Parts of control are replaced by what lies.
# mypy: disable-error-code="assignment, union-attr, arg-type"
from __future__ import annotations

import asyncio
import logging

import pytest

from headgate.errors import ConfigInvalid
from headgate.mesh import Mesh
from headgate.observe.tracing import TracingRules, trace
from headgate.resilience import CallTimedOut, DeadlineExceeded, deadline
from headgate.resilience.hop import UNTIL
from headgate.testing import FakeMesh
from tests.mesh.client.control_rig import ControlRig
from tests.mesh.client.mesh_rig import instances, says, until, write_file

BREAKER = {
    "per": "instance",
    "window": "4 calls",
    "failure_rate": "50%",
    "trial_calls": 2,
    "reset_after": "1ms",
}
RETRY = {"attempts": 3, "wait": "1ms", "budget": False}


@pytest.mark.parametrize("hedge", [False, {"after": "1ms"}], ids=["plain", "hedged"])
def test_a_call_that_is_given_up_at_any_turn_gives_everything_back(tmp_path, hedge):
    services = {"users": {"instances": "http://10.0.0.1:1", "retry": RETRY, "breaker": BREAKER}}
    if hedge:
        services["users"]["hedge"] = hedge

    async def work() -> None:
        async with FakeMesh(write_file(tmp_path, services)) as mesh:
            fake = mesh.fake("users", instances=2)
            fake.on("GET", "/").returns(503).fails("reset").returns(500).returns(200).after(0.002)
            users = mesh.service("users")
            for turns in range(1, 41):
                task = asyncio.create_task(users.get("/"))
                for at in range(turns):
                    await asyncio.sleep(0.0 if at % 4 else 0.0004)
                task.cancel()
                await asyncio.wait((task,))
                if not task.cancelled():
                    task.exception()

            def is_idle() -> bool:
                snapshot = mesh.snapshot()["users"]
                flying = sum(member.in_flight for member in snapshot["group"].members)
                return not flying and not any(one.trials_out for one in snapshot["breakers"])

            await until(is_idle)
            assert mesh.snapshot()["users"]["edge"].requests == 40
            assert UNTIL.get() is None

    asyncio.run(work())


def test_instances_that_go_while_they_are_asked(tmp_path):
    services = {
        "users": {"instances": "http://10.0.0.1:1", "retry": RETRY, "hedge": {"after": "1ms"}}
    }

    async def work() -> None:
        async with FakeMesh(write_file(tmp_path, services)) as mesh:
            mesh.fake("users", instances=3).on("GET", "/").returns(200).after(0.003)
            users = mesh.service("users")
            tasks = [asyncio.create_task(users.get("/")) for _ in range(20)]
            for count in (1, 3, 2, 1, 3):
                await asyncio.sleep(0.001)
                fake = mesh._fakes["users"]
                mesh._put("users", fake, count)
            for task in tasks:
                assert (await task).status_code == 200
            await until(
                lambda: (
                    not sum(
                        member.in_flight for member in mesh.snapshot()["users"]["group"].members
                    )
                )
            )

    asyncio.run(work())


def test_a_file_is_read_again_and_a_faulty_one_is_not_taken(tmp_path):
    file = write_file(tmp_path, {"users": "http://10.0.0.1:1"})
    mesh = Mesh(file)
    caller = mesh.caller("users")
    assert caller.plan.retry is None
    write_file(tmp_path, {"users": {"instances": "http://10.0.0.2:1", "retry": 3}})
    mesh.reload()
    assert caller.plan.retry is not None
    assert [member.id for member in caller.serving.group.members] == ["http://10.0.0.2:1"]
    file.write_text("services: 5")
    with pytest.raises(ConfigInvalid):
        mesh.reload()
    assert caller.plan.retry is not None


def test_a_trace_goes_on_and_each_attempt_is_a_span(tmp_path):
    async def work() -> None:
        services = {"users": {"instances": "http://10.0.0.1:1", "retry": RETRY}}
        async with FakeMesh(write_file(tmp_path, services)) as mesh:
            fake = mesh.fake("users")
            fake.on("GET", "/").returns(503).returns(200)
            with trace.span("around") as around:
                await mesh.service("users").get("/", headers={"x": "y"})
            spans = [span for span in trace.take(100) if span.kind == "client"]
            assert [span.attributes["http.response.status_code"] for span in spans] == [503, 200]
            assert spans[1].attributes["http.request.resend_count"] == 1
            told = [each.headers["traceparent"].split("-") for each in fake.calls]
            assert [each[2] for each in told] == [span.span_id for span in spans]
            assert {each[1] for each in told} == {around.context.trace_id}
            # What the caller says itself goes before.
            await mesh.service("users").get("/", headers={"traceparent": "mine"})
            assert fake.calls[-1].headers["traceparent"] == "mine"

    trace.take_up(TracingRules(sample=1.0))
    try:
        asyncio.run(work())
    finally:
        trace.take_up(None)
        trace.take(10_000)


@pytest.mark.integration
@pytest.mark.parametrize(
    "data",
    [
        b"5",
        b"{",
        b"[" * 100_000,
        b"{}",
        b'{"epoch": "e", "revision": "x", "instances": []}',
        b'{"epoch": "e", "revision": 1, "instances": 5}',
    ],
    ids=["number", "torn", "deep", "empty", "revision", "rows"],
)
def test_a_stream_of_nonsense_is_left_and_tried_again(data, caplog):
    async def work() -> None:
        async with instances(says(200, "a")) as found, ControlRig() as control:
            control.add("users", found[0])
            real = control.watchers._all
            told = []

            def first_nonsense(*args: object) -> bytes:
                told.append(args)
                if len(told) == 1:
                    return b"event: all\nid: e-1\ndata: " + data + b"\n\n"
                return real(*args)

            control.watchers._all = first_nonsense
            with caplog.at_level(logging.WARNING, "headgate.mesh"):
                async with Mesh(control.url, report=False) as mesh:
                    assert (await mesh.service("users").get("/")).json() == "a"
            assert len(told) == 2

    asyncio.run(work())
    assert "registry" in caplog.text


@pytest.mark.integration
def test_a_change_of_another_epoch_asks_for_everything():
    async def work() -> None:
        async with instances(says(200, "a"), says(200, "b")) as found, ControlRig() as control:
            control.add("users", found[0])
            async with Mesh(control.url, report=False) as mesh:
                assert (await mesh.service("users").get("/")).json() == "a"
                real = control.watchers._event
                control.watchers._event = lambda _, change: real("e9", change)
                control.add("users", found[1])
                await until(lambda: len(control.watched) == 2)
                assert "last-event-id" not in control.watched[1].headers
                group = mesh.caller("users").serving.group
                await until(lambda: len(group.members) == 2)

    asyncio.run(work())


@pytest.mark.integration
def test_a_mesh_that_nobody_closed_begins_again_in_the_next_loop(tmp_path):
    kept: list[Mesh] = []

    async def work() -> None:
        async with instances(says(200, "a")) as found:
            file = write_file(tmp_path, {"users": found[0].url})
            if not kept:
                kept.append(Mesh(file, report=False))
            kept[0].reload()
            assert (await kept[0].service("users").get("/")).json() == "a"

    asyncio.run(work())
    asyncio.run(work())

    async def end() -> None:
        await kept[0].aclose()

    asyncio.run(end())


def test_a_retry_goes_elsewhere_also_where_the_key_says_who_is_asked(tmp_path):
    balance = {"by": "consistent_hash", "key": "header:x-tenant"}
    services = {"users": {"instances": "http://10.0.0.1:1", "retry": RETRY, "balance": balance}}

    async def work() -> None:
        async with FakeMesh(write_file(tmp_path, services)) as mesh:
            fake = mesh.fake("users", instances=4)
            fake.on("GET", "/").returns(503).returns(200)
            fake.on("GET", "/fine").returns(200)
            users = mesh.service("users")
            for tenant in "abc":
                fake.rules[0]._at = 0
                asked = len(fake.calls)
                got = await users.get("/", headers={"x-tenant": tenant})
                first, second = fake.calls[asked:]
                assert (got.attempts, first.instance != second.instance) == (2, True)
                # The same key leads to the same instance, by whichever name it is given.
                await users.get("/fine", headers={"x-tenant": tenant})
                await users.get("/fine", key=tenant)
                assert {each.instance for each in fake.calls[-2:]} == {first.instance}

    asyncio.run(work())


def test_a_deadline_of_the_caller_says_nothing_about_the_instance(tmp_path):
    services = {"users": {"instances": "http://10.0.0.1:1", "breaker": True}}

    async def work() -> None:
        async with FakeMesh(write_file(tmp_path, services)) as mesh:
            mesh.fake("users").on("GET", "/").after(30)
            users = mesh.service("users")

            def failed() -> int:
                return int(mesh.snapshot()["users"]["breakers"][0].failed_total)

            with deadline("50ms"), pytest.raises(DeadlineExceeded):
                await users.get("/", timeout=20)
            assert failed() == 0
            with pytest.raises(CallTimedOut):
                await users.get("/", timeout="50ms")
            assert failed() == 1

    asyncio.run(work())

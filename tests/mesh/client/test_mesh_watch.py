from __future__ import annotations

import asyncio
import json
import logging

import pytest

from headgate.errors import UpstreamFailed
from headgate.mesh import Mesh
from tests.mesh.client.control_rig import ControlRig
from tests.mesh.client.mesh_rig import instances, says, until, write_file
from tests.ports import free_port

pytestmark = pytest.mark.integration


async def answers(mesh: Mesh, name: str = "users") -> set[str]:
    """Who answers, of some calls."""
    return {(await mesh.service(name).get("/")).json() for _ in range(8)}


def test_instances_come_and_go_without_a_file():
    async def work() -> None:
        async with instances(says(200, "a"), says(200, "b")) as found, ControlRig() as control:
            first = control.add("users", found[0])
            async with Mesh(control.url, report=False) as mesh:
                assert await answers(mesh) == {"a"}
                second = control.add("users", found[1])
                while await answers(mesh) != {"a", "b"}:
                    pass
                control.remove("users", first)
                while await answers(mesh) != {"b"}:
                    pass
                control.remove("users", second, drain_s=60.0)
                # Nobody else is there: an answer from who is leaving is better than none.
                assert await answers(mesh) == {"b"}
                assert len(control.watched) == 1

    asyncio.run(work())


def test_who_drains_gets_nothing_new():
    async def work() -> None:
        async with instances(says(200, "a"), says(200, "b")) as found, ControlRig() as control:
            first = control.add("users", found[0])
            control.add("users", found[1])
            async with Mesh(control.url, report=False) as mesh:
                assert await answers(mesh) == {"a", "b"}
                control.remove("users", first, drain_s=60.0)
                while await answers(mesh) != {"b"}:
                    pass

    asyncio.run(work())


def test_a_stream_that_broke_goes_on_from_where_it_was():
    async def work() -> None:
        async with instances(says(200, "a"), says(200, "b")) as found, ControlRig() as control:
            control.add("users", found[0])
            async with Mesh(control.url, report=False) as mesh:
                assert await answers(mesh) == {"a"}
                await control.cut()
                control.add("users", found[1])
                while await answers(mesh) != {"a", "b"}:
                    pass
                assert len(control.watched) == 2
                assert control.watched[1].headers["last-event-id"].startswith("e1-")

    asyncio.run(work())


def test_calls_go_on_while_control_is_away_and_after_it_has_lost_its_memory():
    async def work() -> None:
        async with instances(says(200, "a"), says(200, "b")) as found, ControlRig() as control:
            control.add("users", found[0])
            async with Mesh(control.url, report=False) as mesh:
                assert await answers(mesh) == {"a"}
                await control.stop()
                assert await answers(mesh) == {"a"}
                control.begin_anew("e2", grace_s=30.0)
                control.add("users", found[1])
                await control.start()
                # What the new one does not know yet may be late, and is kept.
                while await answers(mesh) != {"a", "b"}:
                    pass

    asyncio.run(work())


def test_what_is_late_is_dropped_in_the_end():
    async def work() -> None:
        async with instances(says(200, "a"), says(200, "b")) as found, ControlRig() as control:
            control.add("users", found[0])
            async with Mesh(control.url, report=False) as mesh:
                assert await answers(mesh) == {"a"}
                await control.stop()
                control.begin_anew("e2", grace_s=0.2)
                control.add("users", found[1])
                await control.start()
                while await answers(mesh) != {"b"}:
                    pass

    asyncio.run(work())


def test_a_second_service_is_watched_too():
    async def work() -> None:
        async with instances(says(200, "a"), says(200, "b")) as found, ControlRig() as control:
            control.add("users", found[0])
            control.add("orders", found[1])
            async with Mesh(control.url, report=False) as mesh:
                assert await answers(mesh, "users") == {"a"}
                assert await answers(mesh, "orders") == {"b"}
                targets = [each.target for each in control.watched]
                assert targets[-1].endswith("?services=orders,users")

    asyncio.run(work())


def test_a_service_that_nobody_registered_says_so():
    async def work() -> None:
        async with ControlRig() as control, Mesh(control.url, report=False) as mesh:
            with pytest.raises(UpstreamFailed, match="users: no instance is known") as caught:
                await mesh.service("users").get("/")
            assert caught.value.kind == "no_instance"

    asyncio.run(work())


def test_control_that_never_answers_is_named_within_the_time_of_the_call():
    async def work() -> None:
        url = f"http://127.0.0.1:{free_port()}"
        async with Mesh(url, report=False) as mesh:
            with pytest.raises(
                UpstreamFailed, match="nothing is known of its instances; http://127"
            ):
                await mesh.service("users").get("/", timeout=0.3)

    asyncio.run(work())


def test_static_instances_need_no_control(tmp_path):
    async def work() -> None:
        async with instances(says(200, "a")) as found:
            url = f"http://127.0.0.1:{free_port()}"
            file = write_file(tmp_path, {"users": found[0].url})
            async with Mesh(file, control=url) as mesh:
                assert await answers(mesh) == {"a"}

    asyncio.run(work())


def test_the_file_says_who_is_discovered(tmp_path):
    async def work() -> None:
        async with instances(says(200, "a"), says(200, "b")) as found, ControlRig() as control:
            control.add("users", found[1])
            control.add("found", found[1])
            services = {
                "users": found[0].url,
                "found": {"instances": found[0].url, "discover": "registry"},
            }
            async with Mesh(write_file(tmp_path, services), control=control.url) as mesh:
                assert await answers(mesh, "users") == {"a"}  # whoever registers as it
                while await answers(mesh, "found") != {"a", "b"}:
                    pass

    asyncio.run(work())


def test_what_was_heard_is_kept_for_who_starts_without_control(tmp_path):
    async def work() -> None:
        keep = tmp_path / "instances.json"
        async with instances(says(200, "a")) as found, ControlRig() as control:
            control.add("users", found[0])
            async with Mesh(control.url, report=False, keep=keep) as mesh:
                assert await answers(mesh) == {"a"}
            await control.stop()
            async with Mesh(control.url, report=False, keep=keep) as mesh:
                assert await answers(mesh) == {"a"}

    asyncio.run(work())


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 100_000, b'{"format": 9}'])
def test_a_kept_file_that_is_broken_is_moved_aside(tmp_path, content, caplog):
    keep = tmp_path / "instances.json"
    keep.write_bytes(content)
    with caplog.at_level(logging.WARNING, "headgate.mesh"):
        Mesh("http://127.0.0.1:1", keep=keep)
    assert "instances.json" in caplog.text
    assert not keep.exists() or content.startswith(b"[")


def test_a_kept_file_that_cannot_be_written_is_said_once(tmp_path, caplog):
    async def work() -> None:
        keep = tmp_path / "nowhere" / "instances.json"
        async with instances(says(200, "a")) as found, ControlRig() as control:
            control.add("users", found[0])
            with caplog.at_level(logging.WARNING, "headgate.mesh"):
                async with Mesh(control.url, report=False, keep=keep) as mesh:
                    assert await answers(mesh) == {"a"}

    asyncio.run(work())
    assert caplog.text.count("cannot be written") == 1


def test_a_row_that_cannot_be_read_does_not_take_the_others_along(caplog):
    async def work() -> None:
        async with instances(says(200, "a")) as found, ControlRig() as control:
            held = control.add("users", found[0])
            good = held.instance.to_json()
            rows = [{**good, "id": "x", "url": "gopher://x"}, 5, good]
            content = {"epoch": "e1", "revision": 7, "instances": rows}

            def told(*_: object) -> bytes:
                return b"event: all\nid: e1-7\ndata: " + json.dumps(content).encode() + b"\n\n"

            control.watchers._all = told  # type: ignore[method-assign, assignment]
            async with Mesh(control.url, report=False) as mesh:
                with caplog.at_level(logging.WARNING, "headgate.mesh"):
                    assert await answers(mesh) == {"a"}

    asyncio.run(work())
    assert caplog.text.count("cannot be read") == 2


@pytest.mark.parametrize(("status", "words"), [(401, "HEADGATE_TOKEN"), (404, "switched off")])
def test_a_refusal_says_what_to_do(status, words, caplog):
    async def work() -> None:
        async with ControlRig() as control:
            control.refuses = status
            with caplog.at_level(logging.WARNING, "headgate.mesh"):
                async with Mesh(control.url, report=False) as mesh:
                    with pytest.raises(UpstreamFailed, match="not today"):
                        await mesh.service("users").get("/", timeout=0.5)

    asyncio.run(work())
    assert words in caplog.text


def test_calls_are_reported_and_what_did_not_arrive_goes_along_later():
    async def work() -> None:
        async with instances(says(200, "a"), says(500)) as found, ControlRig() as control:
            control.add("users", found[0])
            control.add("orders", found[1])
            async with Mesh(control.url, name="shop") as mesh:
                reporter = await until(lambda: mesh._reporter)
                for _ in range(3):
                    await mesh.service("users").get("/")
                await mesh.service("orders").get("/")
                control.refuses = 503
                assert await reporter.tell() == 503
                await mesh.service("orders").get("/")
                control.refuses = 0
                assert await reporter.tell() == 204
                assert await reporter.tell() == 200  # there is nothing to say
                await mesh.service("users").get("/")
            rows = {each["to"]: each for each in control.reports[0]["edges"]}
            assert control.reports[0]["source"] == "shop"
            assert (rows["users"]["requests"], rows["orders"]["errors"]) == (3, 2)
            assert rows["users"]["duration_s"]["count"] == 3
            last = control.reports[1]["edges"]  # told at the end
            assert [(each["to"], each["requests"]) for each in last] == [("users", 1)]

    asyncio.run(work())


def test_a_mesh_that_is_left_without_a_word_ends_with_its_loop():
    async def work() -> None:
        async with instances(says(200, "a")) as found, ControlRig() as control:
            control.add("users", found[0])
            mesh = Mesh(control.url, report=False)
            assert await answers(mesh) == {"a"}
            await mesh.aclose()
            await mesh.aclose()

    asyncio.run(work())

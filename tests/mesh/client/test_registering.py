# States change between two looks.
# mypy: disable-error-code="comparison-overlap, arg-type"
from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headgate.mesh import lifespan, register, register_sync
from headgate.mesh.client.failures import ControlRefused
from tests.mesh.client.control_rig import ControlRig
from tests.mesh.client.mesh_rig import instances, says, until
from tests.ports import free_port

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[3]


def of(control: ControlRig, service: str = "orders") -> dict[str, str]:
    return {each.url: each.state for each in control.book.of(service)}


def test_a_block_is_an_instance_while_it_lasts():
    async def work() -> None:
        async with ControlRig() as control:
            async with register(
                "orders",
                port=3004,
                zone="a",
                version="1.2",
                weight=5,
                metadata={"commit": "0b7"},
                ttl="1s",
                drain="50ms",
                source=control.url,
            ) as registration:
                (found,) = control.book.of("orders")
                assert (found.url, found.zone, found.weight) == ("http://127.0.0.1:3004", "a", 5)
                assert found.id == registration.id
                assert registration.state == "held"
                await until(lambda: registration.beats)
            assert set(of(control).values()) <= {"draining"}
            assert registration.state == "left"

    asyncio.run(work())


def test_a_registry_that_forgot_is_told_again():
    async def work() -> None:
        async with ControlRig() as control:
            async with register(
                "orders", port=3004, ttl="1s", drain=0, source=control.url
            ) as registration:
                control.begin_anew("e2")
                await until(lambda: of(control))
                await until(lambda: registration.state == "held")
            assert of(control) == {}

    asyncio.run(work())


def test_who_is_fenced_ends_with_a_word(caplog):
    async def work() -> None:
        async with ControlRig() as control:
            with caplog.at_level(logging.ERROR, "headgate.mesh"):
                async with register(
                    "orders", port=3004, id="one", ttl="1s", drain=0, source=control.url
                ) as registration:
                    control.add("orders", "http://127.0.0.1:3005", "one")
                    await until(lambda: registration.state == "fenced")
            assert of(control) == {"http://127.0.0.1:3005": "up"}  # its successor stays

    asyncio.run(work())
    assert "another process has registered orders as one" in caplog.text


def test_a_registry_that_is_away_does_not_keep_a_service_from_starting(caplog):
    async def work() -> None:
        control = ControlRig()
        control.port = free_port()
        async with register("orders", port=3004, drain=0, source=control.url) as registration:
            assert registration.state == "wanted"
            assert "cannot tell the registry" in caplog.text
            async with control:
                await until(lambda: registration.state == "held")
                assert of(control)
                await control.stop()
            # It is away at the end too, and that is no trouble either.
        assert registration.state == "left"

    with caplog.at_level(logging.WARNING, "headgate.mesh"):
        asyncio.run(work())


def test_what_the_registry_calls_invalid_is_raised():
    async def work() -> None:
        async with ControlRig() as control:
            registration = register("orders", port=3004, weight=5000, source=control.url)
            with pytest.raises(ControlRefused, match="weight: 5000"):
                await registration.start()

    asyncio.run(work())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "port=3004"),
        ({"port": 1, "url": "http://a:1"}, "port=3004"),
        ({"port": 70000}, "is no port"),
        ({"url": "ftp://a"}, "url: is not an instance"),
        ({"port": 1, "ttl": "soon"}, "ttl: "),
        ({"port": 1, "ttl": 0}, "no time"),
    ],
    ids=["nothing", "both", "port", "url", "ttl", "zero"],
)
def test_a_wrong_registration_is_refused_at_once(settings, words):
    with pytest.raises((TypeError, ValueError), match=words):
        register("orders", source="http://127.0.0.1:1", **settings)


def test_health_goes_along_with_the_beats():
    async def work() -> None:
        async with (
            ControlRig() as control,
            register(
                "orders",
                port=3004,
                ttl="1s",
                drain=0,
                source=control.url,
                health=lambda: "down",
            ),
        ):
            await until(lambda: [one for one in control.book.of("orders") if one.health == "down"])

    asyncio.run(work())


def test_a_health_that_fails_is_no_end(caplog):
    def broken() -> str:
        raise LookupError("no pool")

    async def work() -> None:
        async with (
            ControlRig() as control,
            register("orders", port=3004, ttl="1s", drain=0, source=control.url, health=broken),
        ):
            await until(lambda: control.book.of("orders")[0].health == "degraded")

    with caplog.at_level(logging.ERROR, "headgate.mesh"):
        asyncio.run(work())
    assert "no pool" in caplog.text


# ---- apps and plain code


def test_a_lifespan_registers_once_the_port_is_open():
    async def work() -> None:
        async with ControlRig() as control:
            happened: list[str] = []

            @contextlib.asynccontextmanager
            async def around(app: object) -> AsyncIterator[dict[str, str]]:
                happened.append(f"begins {app}")
                yield {"pool": "open"}
                happened.append(f"ends {of(control)}")

            port = free_port()
            span = lifespan("orders", port=port, drain=0, source=control.url, around=around)
            async with span("app") as state:
                assert state == {"pool": "open"}
                await asyncio.sleep(0.1)
                assert of(control) == {}
                async with instances(says(200)) as _:
                    server = await asyncio.start_server(lambda _, w: w.close(), "127.0.0.1", port)
                    await until(lambda: of(control))
                    server.close()
            assert happened == ["begins app", "ends {}"]

    asyncio.run(work())


def test_a_wrong_lifespan_is_refused_where_it_is_written():
    with pytest.raises(TypeError, match="port=3004"):
        lifespan("orders")


def test_plain_code_registers_in_a_thread():
    started, ended = threading.Event(), threading.Event()
    rig: list[ControlRig] = []

    def serve() -> None:
        async def work() -> None:
            async with ControlRig() as control:
                rig.append(control)
                started.set()
                while not ended.is_set():
                    await asyncio.sleep(0.01)

        asyncio.run(work())

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert started.wait(20)
        with register_sync(
            "orders", port=3004, drain=0, source=rig[0].url, when_open=False
        ) as registration:
            assert registration.snapshot().state == "held"
            assert of(rig[0]) == {"http://127.0.0.1:3004": "up"}
        assert of(rig[0]) == {}
        with pytest.raises(RuntimeError, match="once"):
            registration.start()
    finally:
        ended.set()
        thread.join()


PROGRAM_ASYNC = """
import asyncio
from headgate.mesh import register

async def main():
    try:
        async with register("orders", port=3004, drain="200ms", source={url!r}):
            print("up", flush=True)
            await asyncio.Event().wait()
    finally:
        print("ended", flush=True)

asyncio.run(main())
"""
PROGRAM_SYNC = """
import time
from headgate.mesh import register_sync

try:
    with register_sync("orders", port=3004, drain="200ms", source={url!r}, when_open=False):
        print("up", flush=True)
        while True:
            time.sleep(0.01)
finally:
    print("ended", flush=True)
"""
PROGRAM_ASGI = """
import asyncio, uvicorn
from headgate.mesh import lifespan

span = lifespan("orders", port={port}, drain="200ms", source={url!r})

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        async with span(app):
            await send({{"type": "lifespan.startup.complete"}})
            await receive()
        print("ended", flush=True)
        await send({{"type": "lifespan.shutdown.complete"}})
        return
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": b"ok"}})

uvicorn.run(app, host="127.0.0.1", port={port}, log_level="error")
"""


@pytest.mark.parametrize(
    ("program", "number"),
    [
        ("async", signal.SIGTERM),
        ("sync", signal.SIGTERM),
        ("asgi", signal.SIGTERM),
        ("asgi", signal.SIGINT),
    ],
)
def test_a_signal_leaves_first_and_serves_on_meanwhile(program, number, tmp_path):
    texts = {"async": PROGRAM_ASYNC, "sync": PROGRAM_SYNC, "asgi": PROGRAM_ASGI}

    async def work() -> None:
        async with ControlRig() as control:
            port = free_port()
            file = tmp_path / "program.py"
            file.write_text(texts[program].format(url=control.url, port=port))
            env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
            process = await asyncio.create_subprocess_exec(
                sys.executable, str(file), env=env, stdout=subprocess.PIPE
            )
            try:
                await until(lambda: "up" in of(control).values())
                process.send_signal(number)
                await until(lambda: "draining" in of(control).values())
                if program == "asgi":
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                    assert b"200 OK" in await reader.read()
                    writer.close()
                async with asyncio.timeout(20):
                    out, _ = await process.communicate()
                    code = await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            assert out.decode().split()[-1] == "ended"
            if number == signal.SIGTERM:
                # uvicorn, once it has put everything away, lets the signal have its way.
                assert code == (-number if program == "asgi" else 128 + number)

    asyncio.run(work())

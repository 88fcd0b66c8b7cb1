"""The endpoints of health, below FastAPI and bare."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from headgate.observe import Registry, health

TOKEN = "a-token-of-the-test"


def made() -> health.Checks:
    checks = health.Checks("orders", version="1.4.2", registry=Registry())
    checks.add("database", lambda: True, critical=True)
    checks.add("mail", lambda: health.degraded("half of the hosts answer", 50.0, "percent"))
    return checks


def ask(app, path: str, method: str = "GET", client=("127.0.0.1", 5), **more) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app, client=client)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as asker:
            return await asker.request(method, path, **more)

    return asyncio.run(run())


def fastapi_mounted(checks):
    app = FastAPI()
    app.mount("/health", health.HealthEndpoints(checks, token=TOKEN))
    return app


def fastapi_middleware(checks):
    app = FastAPI()
    app.add_middleware(health.HealthMiddleware, checks=checks, token=TOKEN)

    @app.get("/orders")
    def orders():
        return []

    return app


def bare(checks):
    return health.HealthEndpoints(checks, token=TOKEN)


FORMS = pytest.mark.parametrize("form", [fastapi_mounted, fastapi_middleware, bare])


@FORMS
def test_all_four_answer(form):
    app = form(made())
    for path in ("/health/live", "/health/ready", "/health/startup", "/health/"):
        got = ask(app, path)
        assert got.status_code == 200, path
        assert got.headers["content-type"] == "application/health+json"
        assert got.headers["cache-control"] == "no-store"


@FORMS
def test_what_is_not_ready_is_a_503_that_says_when_to_ask_again(form):
    checks = made()
    app = form(checks)
    checks.not_ready("warming")
    got = ask(app, "/health/ready")
    assert (got.status_code, got.headers["retry-after"]) == (503, "5")
    assert got.json()["status"] == "fail"
    assert "warming" in got.json()["output"]
    assert ask(app, "/health/live").status_code == 200
    assert ask(app, "/health/startup").status_code == 503


def test_head_has_the_head_and_no_body():
    got = ask(bare(made()), "/health/ready", "HEAD")
    assert (got.status_code, got.content) == (200, b"")
    assert int(got.headers["content-length"]) > 0
    assert ask(bare(made()), "/health/ready", "POST").status_code == 405
    assert ask(bare(made()), "/elsewhere").status_code == 404


def test_other_paths_are_those_of_the_app():
    app = fastapi_middleware(made())
    assert ask(app, "/orders").json() == []
    assert ask(app, "/healthy").status_code == 404
    assert ask(app, "/health/other").json() == {"detail": "Not Found"}


def test_the_document_has_every_check():
    said = ask(bare(made()), "/health").json()
    assert (said["status"], said["version"], said["releaseId"]) == ("warn", "1", "1.4.2")
    assert said["serviceId"] == "orders"
    (mail,) = said["checks"]["mail:utilization"]
    assert (mail["status"], mail["observedValue"], mail["observedUnit"]) == ("warn", 50, "percent")
    assert mail["output"] == "half of the hosts answer"
    (database,) = said["checks"]["database:responseTime"]
    assert (database["status"], database["critical"]) == ("pass", True)
    assert database["time"].endswith("Z")


@pytest.mark.parametrize(
    ("client", "headers", "sees"),
    [
        (("127.0.0.1", 5), {}, True),
        (("::1", 5), {}, True),
        (("::ffff:127.0.0.1", 5), {}, True),
        (("10.0.0.5", 5), {}, False),
        (("10.0.0.5", 5), {"authorization": f"Bearer {TOKEN}"}, True),
        (("10.0.0.5", 5), {"authorization": f"bearer {TOKEN}"}, True),
        (("10.0.0.5", 5), {"authorization": "Bearer wrong"}, False),
        (("10.0.0.5", 5), {"authorization": f"Basic {TOKEN}"}, False),
        (("127.0.0.1", 5), {"x-forwarded-for": "10.0.0.9"}, False),
        (("127.0.0.1", 5), {"forwarded": "for=10.0.0.9"}, False),
        (("unix", 0), {}, False),
    ],
    ids=range(11),
)
def test_details_are_for_those_who_may_see_them(client, headers, sees):
    said = ask(bare(made()), "/health", client=client, headers=headers).json()
    assert ("checks" in said) == sees
    if not sees:
        assert said == {"status": "warn"}


def test_an_empty_token_opens_nothing():
    app = health.HealthEndpoints(made())
    got = ask(app, "/health", client=("10.0.0.5", 5), headers={"authorization": "Bearer "})
    assert "checks" not in got.json()


def test_the_lifespan_begins_and_ends_the_background():
    async def main():
        checks, sent = made(), []
        app = health.HealthEndpoints(checks)
        messages: asyncio.Queue[Any] = asyncio.Queue()
        messages.put_nowait({"type": "lifespan.startup"})

        async def send(message):
            sent.append(message["type"])

        task = asyncio.create_task(app({"type": "lifespan"}, messages.get, send))
        async with asyncio.timeout(20):
            while not all(each.runs for each in checks.known()):
                await asyncio.sleep(0.01)
            messages.put_nowait({"type": "lifespan.shutdown"})
            await task
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert checks.is_draining

    asyncio.run(main())


def test_of_an_app_the_lifespan_is_kept():
    async def main():
        checks, seen = made(), []

        async def inner(scope, receive, send):
            while True:
                message = await receive()
                seen.append(message["type"])
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return

        messages: asyncio.Queue[Any] = asyncio.Queue()
        sent: list[Any] = []
        messages.put_nowait({"type": "lifespan.startup"})
        messages.put_nowait({"type": "lifespan.shutdown"})

        async def send(message):
            sent.append(message["type"])

        await health.HealthEndpoints(checks, inner)({"type": "lifespan"}, messages.get, send)
        assert seen == ["lifespan.startup", "lifespan.shutdown"]
        assert checks.is_draining

    asyncio.run(main())


def test_a_fault_of_ours_is_a_503(monkeypatch, caplog):
    checks = made()

    async def broken():
        raise RuntimeError("no")

    monkeypatch.setattr(checks, "readiness", broken)
    got = ask(bare(checks), "/health/ready")
    assert (got.status_code, json.loads(got.content)) == (503, {"status": "fail"})
    assert "health cannot be told" in caplog.text

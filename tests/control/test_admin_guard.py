"""The guard without sockets: users of the socket, rates, bounds, and which bodies may be large."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import pytest

from headgate.config.admin import AdminSpec
from headgate.control.admin import guard as rules
from headgate.control.admin.guard import Guard
from headgate.control.admin.limits import Limits
from headgate.units import Rate

Message = MutableMapping[str, Any]


class Asked:
    """An application behind a guard, and what came of one request."""

    def __init__(self, *, is_local: bool = False, **spec: Any) -> None:
        self.limits = Limits(AdminSpec.model_validate(spec))
        self.bodies: list[bytes] = []
        self.abort = asyncio.Event()
        self.guard = Guard(
            self._app, own_host="", is_local=is_local, token=lambda: "right", limits=self.limits
        )
        self.hold: Callable[[Message], Awaitable[None]] | None = None

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if self.hold is not None:
            await self.hold(scope)
        message = await receive()
        self.bodies.append(message["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def ask(
        self,
        path: str = "/api/workers",
        method: str = "GET",
        *,
        body: bytes = b"",
        token: str = "right",
        **state: Any,
    ) -> tuple[int, dict[str, str]]:
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        headers = [(b"authorization", f"Bearer {token}".encode()), (b"host", b"localhost")]
        scope: Message = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": headers,
            "client": ("192.0.2.1", 1),
            "state": dict(state),
        }
        await self.guard(scope, receive, send)
        named = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], named


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await work()

    asyncio.run(bounded())


@pytest.mark.parametrize(
    ("uid", "status"), [(0, 200), (os.geteuid(), 200), (os.geteuid() + 1, 403)]
)
def test_on_the_socket_the_user_decides(uid, status):
    async def work() -> None:
        asked = Asked(is_local=True)
        assert (await asked.ask("/api/drain", "POST", token="", peer=(1, uid)))[0] == status

    run(work)


def test_a_token_has_a_rate_and_the_socket_has_none():
    async def work() -> None:
        asked = Asked(rate=Rate(3, 60.0))
        found = [(await asked.ask())[0] for _ in range(5)]
        assert found == [200, 200, 200, 429, 429]
        status, headers = await asked.ask()
        assert status == 429
        assert 1 <= int(headers["retry-after"]) <= 60
        local = Asked(is_local=True, rate=Rate(1, 60.0))
        assert [(await local.ask(peer=(1, 0)))[0] for _ in range(3)] == [200] * 3

    run(work)


def test_an_address_that_tried_too_many_tokens_is_not_listened_to():
    async def work() -> None:
        asked = Asked(failures=Rate(2, 60.0))
        assert [(await asked.ask(token=f"no-{n}"))[0] for n in range(3)] == [401, 401, 429]
        assert (await asked.ask(token="right"))[0] == 429
        assert asked.bodies == []

    run(work)


def test_only_so_many_are_under_way_and_live_views_do_not_count(monkeypatch):
    monkeypatch.setattr(rules, "UNDER_WAY_MAX", 2)

    async def work() -> None:
        asked, go = Asked(), asyncio.Event()

        async def hold(scope: Message) -> None:
            if scope["path"] == "/api/live":
                scope["state"]["is_live"]()
            await go.wait()

        asked.hold = hold
        live = [asyncio.ensure_future(asked.ask("/api/live")) for _ in range(3)]
        await asyncio.sleep(0)
        held = [asyncio.ensure_future(asked.ask()) for _ in range(2)]
        while asked.limits.under_way < 2:
            await asyncio.sleep(0.001)
        assert (await asked.ask())[0] == 503
        go.set()
        assert {(await each)[0] for each in (*live, *held)} == {200}
        assert asked.limits.under_way == 0

    run(work)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/api/config", 200),
        ("POST", "/api/config/diff", 200),
        ("POST", "/v1/traces", 200),
        ("POST", "/api/explain", 413),
        ("POST", "/api/tokens", 413),
    ],
)
def test_bodies_are_large_only_where_a_file_or_telemetry_comes(method, path, status):
    async def work() -> None:
        asked = Asked()
        assert (await asked.ask(path, method, body=b"x" * 100_000))[0] == status
        assert (await asked.ask(path, method, body=b"x" * 5_000_000))[0] == 413

    run(work)


def test_every_answer_tells_browsers_to_keep_out():
    async def work() -> None:
        for status, headers in (await Asked().ask(), await Asked().ask(token="wrong")):
            assert headers["x-content-type-options"] == "nosniff", status
            assert headers["x-frame-options"] == "DENY"
            assert headers["cache-control"] == "no-store"
            assert "access-control-allow-origin" not in headers

    run(work)

"""A service's app in this process, with messages from the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from headgate_shop.base.settings import Settings
from headgate_shop.queue import open_queue
from tests.shop.signing import Signer

PATIENCE_S = 30.0
SECRET = "a secret of the tests, long enough to be one"


class Running:
    """One service: `client` asks it, `tell` publishes what another one would."""

    def __init__(self, settings: Settings, signer: Signer, client: httpx.AsyncClient) -> None:
        self.settings = settings
        self.signer = signer
        self.client = client
        self.admin = signer.headers("boss", "admin")
        self._number = 0

    async def get(self, path: str, **more: Any) -> Any:
        answer = await self.client.get(path, headers=self.admin, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def tell(self, topic: str, data: dict[str, Any], *, id: str | None = None) -> str:
        self._number += 1
        async with open_queue(self.settings.queue_url(), service="orders") as queue:
            return await queue.publish(topic, data, id=id or f"{topic}-{self._number}")

    async def until(
        self, ask: Callable[[], Awaitable[Any]], is_right: Callable[[Any], object]
    ) -> Any:
        """What is asked for, once it is right."""
        end = time.monotonic() + PATIENCE_S
        while True:
            found = await ask()
            if is_right(found):
                return found
            assert time.monotonic() < end, found
            await asyncio.sleep(0.02)


def settings_of(service: str, folder: Path, **more: Any) -> tuple[Settings, Signer]:
    signer = Signer(folder / "keys")
    made = Settings(
        service=service, folder=folder, identity_keys=signer.keys, secret=SECRET, **more
    )
    return made, signer


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx.ASGITransport(app)
        yield await stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://service")
        )


@asynccontextmanager
async def running(
    make: Any, settings: Settings, signer: Signer, **more: Any
) -> AsyncIterator[Running]:
    async with serving(make(settings, **more)) as client:
        yield Running(settings, signer, client)


def order(
    number: int,
    *lines: tuple[str, int, int],
    at: float,
    user_id: str = "c-1",
    **more: Any,
) -> dict[str, Any]:
    """The data of a message about an order; a line is product, quantity, price."""
    return {
        "order_id": f"order-{number}",
        "user_id": user_id,
        "email": f"{user_id}@shop.test",
        "at": at,
        "total": sum(quantity * price for _, quantity, price in lines),
        "currency": "EUR",
        "lines": [
            {"product_id": one, "name": one.title(), "quantity": quantity, "price": price}
            for one, quantity, price in lines
        ],
        **more,
    }

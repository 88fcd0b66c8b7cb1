"""`products` in this process, on a copy of a small catalogue, and who hears what it tells."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from headgate_shop.base import events
from headgate_shop.base.database import Database
from headgate_shop.base.settings import Settings
from headgate_shop.data import TINY
from headgate_shop.products.app import app
from headgate_shop.products.seed import seed
from headgate_shop.products.tables import PURGES
from headgate_shop.queue import Message, open_queue
from tests.accounts.postgres_server import PostgresServer
from tests.shop.signing import Signer

SECRET = "a secret of the tests, long enough"
PATIENCE_S = 30.0
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0"


class Warehouse:
    """Where the seeded databases are that tests get copies of."""

    def __init__(self, folder: Path) -> None:
        self._seeded = folder / "seeded"
        self._signer = Signer(folder / "keys")
        self._postgres: PostgresServer | None = None

    @property
    def signer(self) -> Signer:
        return self._signer

    async def settings(
        self, folder: Path, postgres: PostgresServer | None = None, **changes: Any
    ) -> Settings:
        """A service that has the catalogue already."""
        folder.mkdir(parents=True, exist_ok=True)
        made = Settings("products", folder, secret=SECRET, identity_keys=self._signer.keys)
        if postgres is not None:
            url = postgres.url.replace("+asyncpg", "").rpartition("/")[0]
            await self._copy_postgres(postgres, url, folder)
            made = replace(made, database=url)
        else:
            if not self._seeded.is_dir():
                await seed(replace(made, folder=self._seeded), TINY)
            shutil.copy(self._seeded / "products.db", folder / "products.db")
        return replace(made, **changes)

    async def _copy_postgres(self, server: PostgresServer, url: str, folder: Path) -> None:
        if self._postgres is None:
            made = Settings("products", folder, secret=SECRET, database=url)
            await seed(made, TINY)
            await _say(server.url, "ALTER DATABASE shop_products RENAME TO seeded")
            self._postgres = server
        await _say(server.url, "DROP DATABASE IF EXISTS shop_products WITH (FORCE)")
        await _say(server.url, "CREATE DATABASE shop_products TEMPLATE seeded")


async def _say(url: str, statement: str) -> None:
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            await connection.execute(sa.text(statement))
    finally:
        await engine.dispose()


class Shelves:
    def __init__(self, settings: Settings, signer: Signer, client: httpx.AsyncClient) -> None:
        self.settings = settings
        self.client = client
        self.admin = signer.headers("a00002", "admin")
        self.customer = signer.headers("a00001")

    async def get(self, path: str, **options: Any) -> Any:
        answer = await self.client.get(path, **options)
        assert answer.status_code == 200, (path, answer.status_code, answer.text)
        return answer.json()

    async def names(self, path: str, **params: Any) -> list[str]:
        return [one["name"] for one in (await self.get(path, params=params))["items"]]

    async def edit(self, product_id: str, **change: Any) -> httpx.Response:
        return await self.client.patch(
            f"/api/admin/products/{product_id}", json=change, headers=self.admin
        )

    async def reserve(self, name: str, ttl_s: float = 900, **wanted: int) -> httpx.Response:
        lines = [{"product_id": one.replace("_", "-"), "quantity": n} for one, n in wanted.items()]
        body = {"reservation_id": name, "lines": lines, "ttl_s": ttl_s}
        return await self.client.post("/internal/reservations", json=body)

    async def commit(self, name: str) -> httpx.Response:
        return await self.client.post(f"/internal/reservations/{name}/commit")

    async def end(self, name: str) -> httpx.Response:
        return await self.client.delete(f"/internal/reservations/{name}")

    async def set_stock(self, product_id: str, **order: int) -> httpx.Response:
        where = f"/api/admin/products/{product_id}/stock"
        return await self.client.post(where, json=order, headers=self.admin)

    async def account(self, product_id: str) -> dict[str, Any]:
        books = await self.get("/internal/books")
        assert books["balanced"], [one for one in books["items"] if not one["balanced"]]
        return next(one for one in books["items"] if one["product_id"] == product_id)


@asynccontextmanager
async def open_shelves(settings: Settings, signer: Signer) -> AsyncIterator[Shelves]:
    api = app(settings)
    async with (
        api.router.lifespan_context(api),
        httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://shop") as client,
    ):
        yield Shelves(settings, signer, client)


@asynccontextmanager
async def hearing(settings: Settings, *topics: str) -> AsyncIterator[list[Message]]:
    """What a service hears that is told of these topics."""
    heard: list[Message] = []

    async def hear(message: Message) -> None:
        heard.append(message)

    queue = open_queue(settings.queue_url(), service="integrations")
    for topic in topics or (events.PRODUCT_CHANGED, events.PRODUCT_REMOVED, events.STOCK_LOW):
        queue.subscribe(topic, hear)
    async with queue:
        yield heard


async def until(true: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> None:
    """Wait for it, with a generous bound."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = true()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.02)


async def run_statement(settings: Settings, statement: sa.Executable) -> Any:
    """Behind the service's back."""
    database = Database(settings)
    try:
        async with database.writing() as connection:
            result = await connection.execute(statement)
            return result.all() if result.returns_rows else None
    finally:
        await database.close()


async def nothing_to_forget(settings: Settings) -> bool:
    """What the seed has had forgotten is told when the service looks first."""
    return not await run_statement(settings, sa.select(PURGES))

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.accounts.postgres_server import PostgresServer
from tests.shop.products.shelves import Shelves, Warehouse, open_shelves

Opening = Callable[..., AbstractAsyncContextManager[Shelves]]


@pytest.fixture(scope="session")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return Warehouse(tmp_path_factory.mktemp("warehouse"))


@pytest.fixture(scope="session")
def shop_postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def shelves(warehouse: Warehouse, tmp_path: Path) -> Opening:
    """`async with shelves() as shop`: on SQLite."""
    return _opening(warehouse, tmp_path, None)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.integration)])
def both(request: pytest.FixtureRequest, warehouse: Warehouse, tmp_path: Path) -> Opening:
    """The same, on each kind of database."""
    if request.param == "sqlite":
        return _opening(warehouse, tmp_path, None)
    return _opening(warehouse, tmp_path, request.getfixturevalue("shop_postgres"))


def _opening(warehouse: Warehouse, folder: Path, postgres: PostgresServer | None) -> Opening:
    @asynccontextmanager
    async def opening(**changes: Any) -> Any:
        settings = await warehouse.settings(folder, postgres, **changes)
        async with asyncio.timeout(60), open_shelves(settings, warehouse.signer) as shop:
            yield shop

    return opening

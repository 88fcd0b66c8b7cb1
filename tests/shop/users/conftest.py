from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.accounts.postgres_server import PostgresServer
from tests.shop.users.household import House, Household, open_household


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("house"))


@pytest.fixture(scope="module")
def users_postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def household(
    house: House, tmp_path: Path
) -> Callable[..., AbstractAsyncContextManager[Household]]:
    """`async with household() as home`: on SQLite unless told otherwise."""

    @asynccontextmanager
    async def opening(database: str = "") -> Any:
        settings = await house.settings(tmp_path / "users", database)
        async with open_household(settings, house.signer) as home:
            yield home

    return opening

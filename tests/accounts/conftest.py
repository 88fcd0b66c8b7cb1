from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.accounts.desk import Desk
from tests.accounts.postgres_server import PostgresServer

NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.integration)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database, each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/users.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.url


@pytest.fixture
def open_desk(url: str) -> Callable[..., Desk]:
    """Desks of one test share their tables unless they say otherwise."""
    prefix = f"t{next(NUMBERS)}_"

    def make(**options: Any) -> Desk:
        return Desk(url, options.pop("prefix", prefix), **options)

    return make


@pytest.fixture
def sqlite_desk(tmp_path: Path) -> Callable[..., Desk]:
    def make(**options: Any) -> Desk:
        return Desk(f"sqlite+aiosqlite:///{tmp_path}/users.db", "headgate_", **options)

    return make

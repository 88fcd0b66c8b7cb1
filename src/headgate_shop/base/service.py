"""The app of a service: FastAPI, hardened by one line, found by its name, and nothing else.

    def app(settings: Settings) -> FastAPI:
        service = Service(settings, "Orders: carts and checkout")
        api = service.api                       # routes go here
        ...
        return service.finish()

`service.opened(...)` hands over what lives as long as the process (the database, the queue); it is
entered in that order at the start and left in the other at the end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI

import headgate
from headgate.mesh import Mesh, lifespan
from headgate.observe import health
from headgate_shop.base.database import Database
from headgate_shop.base.faults import FaultLayer, Faults
from headgate_shop.base.settings import Settings

__all__ = ["Service"]


class Service:
    """What the app of one service is put together from."""

    def __init__(self, settings: Settings, title: str, *, mesh: Mesh | None = None) -> None:
        """`mesh` takes the place of the real one in tests."""
        self.settings = settings
        self._mesh = mesh
        self.checks = health.Checks(service=settings.service, version=settings.version)
        self._resources: list[AbstractAsyncContextManager[Any]] = []
        self.api = FastAPI(
            title=title,
            version=settings.version,
            lifespan=self._lifespan(),
            docs_url=None,
            redoc_url=None,
        )
        self.api.add_middleware(
            FaultLayer, faults=Faults(settings.folder, settings.service)
        )  # the first one added is the innermost

    def opened(self, resource: AbstractAsyncContextManager[Any]) -> None:
        self._resources.append(resource)

    def database(self) -> Database:
        """The service's database, open while it serves, and a part of its health."""
        database = Database(self.settings)
        self.opened(_open(database))
        self.checks.add("database", database.ping, critical=True)
        return database

    def mesh(self) -> Mesh:
        """The other services, by name."""
        if self._mesh is None:
            self._mesh = Mesh(
                self.settings.admin_url or None,
                name=self.settings.room,
                token=self.settings.admin_token or None,
            )
            self.opened(self._mesh)
        return self._mesh

    def finish(self) -> FastAPI:
        """The app, complete."""
        headgate.harden(
            self.api,
            service=self.settings.service,
            version=self.settings.version,
            checks=self.checks,
            identity_keys=self.settings.identity_keys or None,
            audience="shop",
        )
        return self.api

    def _lifespan(self) -> Any:
        @asynccontextmanager
        async def around(app: FastAPI) -> AsyncIterator[None]:
            async with AsyncExitStack() as stack:
                for resource in self._resources:
                    await stack.enter_async_context(resource)
                yield

        if not self.settings.admin_url:
            return around
        return lifespan(
            self.settings.service,
            around=around,
            port=self.settings.port,
            version=self.settings.version,
            source=self.settings.admin_url,
            token=self.settings.admin_token or None,
        )


@asynccontextmanager
async def _open(database: Database) -> AsyncIterator[Database]:
    await database.start()
    try:
        yield database
    finally:
        await database.close()

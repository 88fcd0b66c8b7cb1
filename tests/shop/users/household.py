"""`users` in this process, with the other services played and the mails that it asks for."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from headgate.testing import FakeMesh
from headgate_shop.base import events
from headgate_shop.base.settings import Settings
from headgate_shop.data import TINY
from headgate_shop.queue import Message, open_queue
from headgate_shop.users.app import app
from headgate_shop.users.erasing import KEEPERS
from headgate_shop.users.seed import seed
from tests.shop.signing import Signer

SECRET = "a secret of the tests, long enough"
PASSWORD = "forty quiet lanterns"
PATIENCE_S = 30.0


class House:
    """Where a seeded database is that tests get copies of."""

    def __init__(self, folder: Path) -> None:
        self._seeded = folder / "seeded"
        self.signer = Signer(folder / "keys")

    async def settings(self, folder: Path, database: str = "") -> Settings:
        folder.mkdir(parents=True, exist_ok=True)
        made = Settings(
            "users", folder, database=database, secret=SECRET, identity_keys=self.signer.keys
        )
        if database:
            await seed(made, TINY)
            return made
        if not self._seeded.is_dir():
            await seed(
                Settings("users", self._seeded, secret=SECRET, identity_keys=self.signer.keys),
                TINY,
            )
        shutil.copy(self._seeded / "users.db", folder / "users.db")
        return made


class Keeper:
    """Another service that keeps something about people."""

    def __init__(self, mesh: FakeMesh, name: str) -> None:
        self.forgotten: list[str] = []
        self.status = 200
        rules = mesh.fake(name)

        @rules.on("GET", "/internal/users/{id}/export")
        def export(request: object, id: str) -> Any:
            return {"kept by": name} if self.status == 200 else (self.status, {})

        @rules.on("DELETE", "/internal/users/{id}")
        def forget(request: object, id: str) -> Any:
            if self.status == 200:
                self.forgotten.append(id)
                return {}
            return (self.status, {})


class Household:
    def __init__(
        self, settings: Settings, signer: Signer, client: httpx.AsyncClient, mesh: FakeMesh
    ) -> None:
        self.settings = settings
        self.signer = signer
        self.client = client
        self.keepers = {name: Keeper(mesh, name) for name in KEEPERS}
        self.heard: list[Message] = []
        self.admin = signer.headers("a00002", "admin")
        self.ada = signer.headers("a00001")

    async def post(self, path: str, **body: Any) -> httpx.Response:
        return await self.client.post(f"/api/auth{path}", json=body)

    async def mail(self, template: str, to: str) -> dict[str, Any]:
        def found() -> list[Message]:
            return [
                one
                for one in self.heard
                if one.topic == events.MAIL_WANTED
                and (one.data["template"], one.data["to"]) == (template, to)
            ]

        await until(lambda: bool(found()))
        return found()[-1].data

    async def join(self, email: str, name: str = "") -> str:
        """The id of a new customer."""
        more = {"name": name} if name else {}
        asked = await self.post("/register", email=email, password=PASSWORD, **more)
        assert asked.status_code == 202, asked.text
        mail = await self.mail("confirm_registration", email)
        done = await self.post("/verify-email", token=mail["values"]["token"])
        assert done.status_code == 200, done.text
        return str(mail["user_id"])


@asynccontextmanager
async def open_household(settings: Settings, signer: Signer) -> AsyncIterator[Household]:
    async with asyncio.timeout(60), FakeMesh() as mesh:
        api = app(settings, mesh=mesh)
        transport = httpx.ASGITransport(api, client=("203.0.113.77", 1))
        queue = open_queue(settings.queue_url(), service="notifications")
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            house = Household(settings, signer, client, mesh)

            async def hear(message: Message) -> None:
                house.heard.append(message)

            for topic in (events.MAIL_WANTED, events.USER_REGISTERED, events.USER_ERASED):
                queue.subscribe(topic, hear)
            async with api.router.lifespan_context(api), queue:
                yield house


async def until(true: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = true()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.02)

"""What the tests of methods share: a request that is shown, and parts that are lent."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass, field
from typing import Any


def on_a_loop(test):
    """Run a test that awaits; none takes longer than half a minute."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        async def bounded():
            async with asyncio.timeout(30):
                await test(*args, **kwargs)

        asyncio.run(bounded())

    return run


@dataclass
class Look:
    """A request as a method sees it."""

    method: str = "GET"
    target: str = "/"
    authority: str = "api.example"
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    client_ip: str = "192.0.2.1"
    is_tls: bool = True
    certificate: bytes | None = None

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def host(self) -> str:
        return self.authority.partition(":")[0]


class Lent:
    """Parts of a process: keeps what it is given and remembers what it was told."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []
        self.kept: dict[tuple[object, ...], Any] = {}
        self.published: list[tuple[str, dict[str, Any]]] = []
        self.heard: dict[tuple[str, int], Any] = {}

    def spawn(self, work):
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.append(task)
        return task

    def keep(self, key, make):
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]

    def publish(self, topic, message, retain=None):
        self.published.append((topic, dict(message)))

    def subscribe(self, topic, hear):
        self.heard[topic, id(hear.__self__)] = hear

    def suspect(self, client_ip, kind, weight=1.0):
        """Nobody is banned."""

    def count(self, policy, outcome):
        """Nobody asks."""

    def note(self, kind, fields):
        """Nobody reads."""

    def tell(self, topic, message):
        for (name, _), hear in self.heard.items():
            if name == topic:
                hear(message)

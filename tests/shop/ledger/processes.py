"""The shop's services as processes that can be killed at any moment and come back.

They are forked from a process that has imported what they need, so a start takes a moment and not
two seconds. Each has its port for as long as the test goes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import secrets
import signal
import sys
import threading
import time
from dataclasses import replace
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from headgate_shop.base import events
from headgate_shop.base.database import Database
from headgate_shop.base.settings import Settings
from headgate_shop.queue import Inbox, Message, inbox_table, open_queue
from headgate_shop.stage.serving import serve
from tests.ports import free_port
from tests.shop.signing import Signer

SERVICES = ("orders", "products", "payments")
COUNTER = "counter"
EVERYBODY = (*SERVICES, COUNTER)
GROUP = "analytics"
STARTS_S = 20.0
LATE = (  # what services load on use, at their start
    "aiosqlite",
    "asyncpg",
    "headgate.config",
    "headgate.kit.passport",
    "headgate.kit.starlette",
    "headgate.plan.policies",
    "headgate.policy.split",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.lifespan.on",
)

METADATA = sa.MetaData()
COUNTED = sa.Table(
    "counted",
    METADATA,
    sa.Column("order_id", sa.Text, primary_key=True),
    sa.Column("topic", sa.Text, primary_key=True),
    sa.Column("times", sa.Integer, nullable=False),
)
inbox_table(METADATA)


class Processes:
    def __init__(self, folder: Path, database: str = "") -> None:
        self.folder = folder
        self.signer = Signer(folder / "keys")
        self.ports = {name: free_port() for name in SERVICES}
        self.kills = 0
        self._database = database
        self._running: dict[str, BaseProcess] = {}
        self._forks = multiprocessing.get_context("forkserver")
        self._forks.set_forkserver_preload(
            [*(f"headgate_shop.{name}.app" for name in SERVICES), *LATE, __name__]
        )
        # Static instances: who is dead is called, and that is the point.
        services = {
            name: {"instances": [f"http://127.0.0.1:{port}"]} for name, port in self.ports.items()
        }
        # Away all the time: nobody knows where to write to, and that harms no order.
        services["users"] = {"instances": [f"http://127.0.0.1:{free_port()}"]}
        document = {
            "listeners": ["127.0.0.1:1"],
            "services": services,
            "routes": [{"match": {"path": "/"}, "respond": {"status": 404}}],
        }
        self.file = folder / "headgate.yaml"
        self.file.write_text(json.dumps(document))  # JSON is YAML

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def place(self, service: str, path: str) -> str:
        return self.url(service) + path

    def settings(self, name: str) -> Settings:
        return Settings(
            name,
            self.folder,
            port=self.ports.get(name, 0),
            database=self._database,
            identity_keys=self.signer.keys,
            secret="0123456789abcdef0123456789abcdef",
        )

    def start(self, name: str) -> None:
        made = self._forks.Process(
            target=_run, args=(self.settings(name), str(self.file)), name=name, daemon=True
        )
        made.start()
        self._running[name] = made

    def kill(self, name: str) -> None:
        """kill -9: nothing of it is finished, nothing is told."""
        process = self._running.pop(name)
        if process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
        process.join(10)
        process.close()
        self.kills += 1

    def is_running(self, name: str) -> bool:
        process = self._running.get(name)
        return process is not None and process.is_alive()

    async def listens(self, name: str) -> None:
        """Wait until it takes connections, but not for ever."""
        deadline = time.monotonic() + STARTS_S
        while name in self.ports and time.monotonic() < deadline:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.ports[name])
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            return

    def stop(self) -> None:
        for name in list(self._running):
            self.kill(name)
        # The fork server would stay until the tests have all ended. There is no public way to say so.
        forkserver._forkserver._stop()  # type: ignore[attr-defined]

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""


def _run(settings: Settings, file: str) -> None:
    os.environ["HEADGATE_FILE"] = file
    log = os.open(settings.folder / f"{settings.service}.log", os.O_CREAT | os.O_APPEND | os.O_RDWR)
    os.dup2(log, 1)
    os.dup2(log, 2)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _break(settings.service)
    if settings.service == COUNTER:
        logging.basicConfig(level=logging.WARNING)
        asyncio.run(_count(settings))
    else:
        serve(settings)


def _end_with_parent() -> None:
    """The fork server ends with the test's process, and these end with the fork server."""
    parent = os.getppid()
    while os.getppid() == parent:
        threading.Event().wait(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


async def _count(settings: Settings) -> None:
    """How often the effect of each event was had."""
    database = Database(replace(settings, database=""))
    async with database.writing() as connection:
        await connection.run_sync(METADATA.create_all)
    inbox = Inbox(database)

    async def heard(message: Message) -> None:
        order_id = str(message.data["order_id"])
        mine = (COUNTED.c.order_id == order_id) & (COUNTED.c.topic == message.topic)
        async with database.writing() as connection:
            if not await inbox.first(connection, message):
                return
            times = await connection.scalar(sa.select(COUNTED.c.times).where(mine))
            if times is None:
                row = {"order_id": order_id, "topic": message.topic, "times": 1}
                await connection.execute(COUNTED.insert().values(**row))
            else:
                await connection.execute(COUNTED.update().where(mine).values(times=times + 1))

    # A killed process holds its messages until their lease is over.
    queue = open_queue(settings.queue_url(), service=GROUP, lease_s=2.0)
    queue.subscribe([events.ORDER_PLACED, events.ORDER_PAID, events.ORDER_CANCELLED], heard)
    async with queue:
        await asyncio.Event().wait()


async def counted(settings: Settings) -> dict[tuple[str, str], int]:
    database = Database(replace(settings, service=COUNTER, database=""))
    try:
        async with database.reading() as connection:
            rows = await connection.execute(sa.select(COUNTED))
            return {(row.topic, row.order_id): row.times for row in rows}
    finally:
        await database.close()


def _break(service: str) -> None:
    """One rule of the shop broken on purpose, to see that the test would tell."""
    rule = os.environ.get("SHOP_LEDGER_BREAK", "")
    if service != "orders" or not rule:
        return
    from headgate_shop.orders import saga, saga_store, steps

    broken: Any = sys.modules[steps.__name__]
    if rule == "look_up":  # a payment that is not known is asked for again, as another one
        pay = broken.Outside._pay

        async def blindly(self: Any, work: Any) -> Any:
            if work.tries > 1:
                order = replace(work.order, id=f"{work.order.id}-{work.tries}")
                work = replace(work, tries=1, order=order)
            return await pay(self, work)

        broken.Outside._pay = blindly
    elif rule == "release":  # what is refused is not put back
        broken.Outside._release = _nothing
    elif (
        rule == "lost_event"
    ):  # told outside of the transaction, and not at all by a killed process
        store: Any = saga_store.SagaStore
        tell = store._tell

        async def late(
            self: Any, connection: Any, topic: str, order: Any, *a: Any, **k: Any
        ) -> None:
            if secrets.randbelow(10):
                await tell(self, connection, topic, order, *a, **k)

        store._tell = late
    elif rule == "refund":  # an unknown outcome is taken for a refusal
        broken.UNKNOWN = saga_store.Found(saga.Outcome("refused", "unavailable"), refusal={})


async def _nothing(self: Any, work: Any) -> Any:
    from headgate_shop.orders.steps import DONE

    return DONE

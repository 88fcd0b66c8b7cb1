"""A program that bears processes which publish and consume until they are killed.

Each line of its input bears one and is answered by its pid: a fork is quicker than a start. A
process writes things with their messages, and has an effect for each message it hears; that both
balance is for the test to see.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import sys
from pathlib import Path

import sqlalchemy as sa

from headgate_shop.base.database import Database
from headgate_shop.base.settings import Settings
from headgate_shop.queue import Inbox, Message, Outbox, inbox_table, outbox_table
from tests.shop.queue.hearing import queue_at

METADATA = sa.MetaData()
THINGS = sa.Table("things", METADATA, sa.Column("name", sa.Text, primary_key=True))
EFFECTS = sa.Table(
    "effects",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
)
outbox_table(METADATA)
inbox_table(METADATA)


async def live(url: str, folder: Path) -> None:
    database = Database(Settings("orders", folder))
    queue = queue_at(url, lease_s=0.5)
    outbox, inbox = Outbox(database, queue, poll_s=0.3), Inbox(database)
    rng = random.Random()

    async def handle(message: Message) -> None:
        async with database.writing() as connection:
            if await inbox.first(connection, message):
                await connection.execute(sa.insert(EFFECTS).values(name=message.data["name"]))
        if rng.random() < 0.1:
            raise RuntimeError("after the effect")

    queue.subscribe("sent", handle, attempts=10_000)
    number = 0
    async with queue, outbox:
        while True:
            if (folder / "stop").exists():
                await asyncio.sleep(0.05)
                continue
            number += 1
            name = f"{os.getpid()}.{number}"
            async with database.writing() as connection:
                await connection.execute(sa.insert(THINGS).values(name=name))
                await outbox.add(connection, "sent", {"name": name}, id=name)
            await asyncio.sleep(rng.random() * 0.01)


def main() -> None:
    url, folder = sys.argv[1], Path(sys.argv[2])
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                asyncio.run(live(url, folder))
            finally:
                os._exit(1)
        print(pid, flush=True)


if __name__ == "__main__":
    main()

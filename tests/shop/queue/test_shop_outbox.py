"""What was written with its message, or not at all, and handled once, or not at all."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa

from headgate_shop.base.database import Database
from headgate_shop.base.settings import Settings
from headgate_shop.queue import (
    Inbox,
    MessageInvalid,
    Outbox,
    QueueAway,
    inbox_table,
    outbox_table,
)
from headgate_shop.queue.home import Put
from tests.accounts.postgres_server import PostgresServer
from tests.shop.queue.hearing import Heard, figures, in_loop, queue_at, until

METADATA = sa.MetaData()
THINGS = sa.Table("things", METADATA, sa.Column("name", sa.Text, primary_key=True))
outbox_table(METADATA)
inbox_table(METADATA)


@pytest.fixture(scope="module")
def outbox_postgres():
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.integration)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    where = ""
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("outbox_postgres")
        where = f"postgresql://headgate@127.0.0.1:{server.port}"
    return Settings("orders", tmp_path, database=where)


class Ground:
    """A database with an outbox and an inbox, and a queue beside it."""

    def __init__(self, settings: Settings) -> None:
        self.database = Database(settings)
        self.url = f"sqlite:///{settings.folder}/queue.db"
        self.queue = queue_at(self.url)
        self.outbox = Outbox(self.database, self.queue, poll_s=30.0)
        self.inbox = Inbox(self.database)

    async def __aenter__(self) -> Ground:
        if not self.database.is_sqlite:
            from headgate_shop.base.database import _make

            await _make(self.database.url)
        async with self.database.writing() as connection:
            await connection.run_sync(METADATA.drop_all)
            await connection.run_sync(METADATA.create_all)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.database.close()

    async def make(self, name: str, **options) -> None:
        async with self.database.writing() as connection:
            await connection.execute(sa.insert(THINGS).values(name=name))
            await self.outbox.add(connection, "sent", {"name": name}, id=name, **options)

    async def things(self) -> list[str]:
        async with self.database.reading() as connection:
            return list(await connection.scalars(sa.select(THINGS.c.name).order_by("name")))


@in_loop
async def test_a_message_goes_out_at_once_when_its_transaction_is_kept(settings):
    heard = Heard()
    async with Ground(settings) as ground:
        ground.queue.subscribe("sent", heard)
        async with ground.queue, ground.outbox:  # which polls after half a minute
            await ground.make("a")
            await heard.until(1)
            await ground.make("b")
            await heard.until(2)
            async with asyncio.timeout(20):
                while await ground.outbox.waiting():
                    await asyncio.sleep(0.01)
    assert heard.ids == ["a", "b"]
    assert heard.messages[0].data == {"name": "a"}


@in_loop
async def test_a_transaction_that_fails_takes_its_message_with_it(settings):
    async with Ground(settings) as ground, ground.queue, ground.outbox:
        with pytest.raises(RuntimeError):
            async with ground.database.writing() as connection:
                await connection.execute(sa.insert(THINGS).values(name="no"))
                await ground.outbox.add(connection, "sent", {}, id="no")
                raise RuntimeError
        await ground.make("yes")
        await until(ground.queue, ready=1)
        assert await ground.things() == ["yes"]


@in_loop
async def test_what_could_never_be_published_is_refused_in_the_transaction(settings):
    async with Ground(settings) as ground:
        with pytest.raises(MessageInvalid, match="not JSON"):
            async with ground.database.writing() as connection:
                await connection.execute(sa.insert(THINGS).values(name="no"))
                await ground.outbox.add(connection, "sent", {"x": {1, 2}})
        assert await ground.things() == []


@in_loop
async def test_what_a_killed_process_left_goes_out_in_order_when_the_next_one_starts(settings):
    heard = Heard()
    async with Ground(settings) as ground:
        names = [f"{n:03}" for n in range(230)]  # more than a batch
        async with ground.database.writing() as connection:
            for name in names:
                await ground.outbox.add(connection, "sent", {}, id=name)
        ground.queue.subscribe("sent", heard, concurrency=1)
        async with ground.queue, ground.outbox:
            await heard.until(len(names))
        assert heard.ids == names
        assert await ground.outbox.waiting() == 0


@in_loop
async def test_two_relays_of_one_database_publish_each_message_once(settings):
    heard = Heard()
    async with Ground(settings) as ground:
        ground.queue.subscribe("sent", heard, concurrency=1)
        other = Outbox(ground.database, ground.queue, poll_s=0.01)
        async with ground.queue, ground.outbox, other:
            for n in range(40):
                await ground.make(f"{n:02}")
            await heard.until(40)
            await until(ground.queue, ready=0, in_flight=0)
    assert heard.ids == [f"{n:02}" for n in range(40)]


@in_loop
async def test_a_queue_that_is_away_or_full_delays_and_loses_nothing(settings, caplog, monkeypatch):
    async with Ground(settings) as ground:
        put, trouble = ground.queue.put, ["away", "away", "full", "lost its answer"]

        async def troubled(messages):
            what = trouble.pop(0) if trouble else ""
            if what == "away":
                raise QueueAway("not there")
            if what == "full":
                done = await put(messages[:1])
                return Put(done.accepted, "kitchen")
            done = await put(messages)
            if what:
                raise QueueAway("no answer")
            return done

        monkeypatch.setattr(ground.queue, "put", troubled)
        heard = Heard()
        ground.queue.subscribe("sent", heard, concurrency=1)
        async with ground.queue:
            for n in range(5):
                await ground.make(str(n))
            async with ground.outbox:
                await heard.until(5)
                async with asyncio.timeout(30):
                    while await ground.outbox.waiting():
                        await asyncio.sleep(0.01)
                await until(ground.queue, ready=0, in_flight=0)
    assert heard.ids == ["0", "1", "2", "3", "4"]
    assert not trouble
    assert caplog.text.count("the outbox waits: not there") == 1


@in_loop
async def test_a_row_that_nobody_hears_any_more_does_not_hold_up_the_others(settings, caplog):
    async with Ground(settings) as ground:
        async with ground.database.writing() as connection:
            await connection.execute(
                sa.insert(METADATA.tables["outbox"]).values(
                    id="old", topic="gone", body="{}", at=0.0, due=0.0, priority=0
                )
            )
        async with ground.queue, ground.outbox:
            await ground.make("new")
            await until(ground.queue, ready=1)
    assert "gone old: nobody hears it any more" in caplog.text


@in_loop
async def test_delay_and_priority_go_along(settings):
    async with Ground(settings) as ground:
        async with ground.queue, ground.outbox:
            await ground.make("slow", delay_s=3600)
            await ground.make("high", priority=9)
            await ground.make("low")
            await until(ground.queue, ready=2, delayed=1)
        heard = Heard()
        queue = queue_at(ground.url)
        queue.subscribe("sent", heard, concurrency=1)
        async with queue:
            await heard.until(2)
            assert (await figures(queue))["delayed"] == 1
    assert heard.ids == ["high", "low"]


@in_loop
async def test_effects_are_had_once_however_often_a_message_comes(settings):
    async with Ground(settings) as ground:
        firsts = []

        async def act(message):
            async with ground.database.writing() as connection:
                if await ground.inbox.first(connection, message):
                    firsts.append(message.attempt)
                    await connection.execute(sa.insert(THINGS).values(name=message.id))
            if message.attempt < 3:
                raise RuntimeError("after the effect")

        heard = Heard(act)
        ground.queue.subscribe("sent", heard)
        async with ground.queue:
            await ground.queue.publish("sent", {}, id="one")
            await heard.until(1)
        assert firsts == [1]
        assert await ground.things() == ["one"]


@in_loop
async def test_an_effect_that_is_undone_is_tried_again(settings):
    async with Ground(settings) as ground:

        async def act(message):
            async with ground.database.writing() as connection:
                assert await ground.inbox.first(connection, message)
                await connection.execute(sa.insert(THINGS).values(name=message.id))
                if message.attempt == 1:
                    raise RuntimeError("before the end")

        heard = Heard(act)
        ground.queue.subscribe("sent", heard)
        async with ground.queue:
            await ground.queue.publish("sent", {}, id="one")
            await heard.until(1)
        assert await ground.things() == ["one"]


@in_loop
async def test_of_many_who_handle_a_message_at_once_one_is_first(settings):
    async with Ground(settings) as ground:
        from headgate_shop.queue import Message

        message = Message("m", "sent", {}, 1, 0.0)

        async def handle() -> bool:
            async with ground.database.writing() as connection:
                return await ground.inbox.first(connection, message)

        assert sorted(await asyncio.gather(*(handle() for _ in range(6)))) == [False] * 5 + [True]
        scoped = Inbox(ground.database, scope="other")
        async with ground.database.writing() as connection:
            assert await scoped.first(connection, message)

"""What only the SQLite file can suffer: full disks, damage, other processes."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import time
from collections.abc import Awaitable
from pathlib import Path

import pytest

from headgate_shop.queue import Queue, QueueAway
from headgate_shop.queue.desk import Desk
from headgate_shop.queue.nudges import Nudges
from headgate_shop.queue.sqlite import REMEMBER_S, SqliteHome
from tests.shop.queue.hearing import Heard, figures, in_loop, queue_at, until


def desk_of(queue: Queue) -> Desk:
    assert isinstance(queue._home, SqliteHome)
    return queue._home._desk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


@in_loop
async def test_a_full_disk_refuses_loses_nothing_and_is_over_when_there_is_room(path):
    heard = Heard()
    queue = queue_at(f"sqlite:///{path}")
    queue.subscribe("sent", heard)
    async with queue:
        desk = desk_of(queue)
        pages = await desk.read(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
        await desk.read(lambda db: db.execute(f"PRAGMA max_page_count = {pages + 20}").fetchone())
        accepted = []
        with pytest.raises(QueueAway, match="full"):
            for n in range(100):
                await queue.publish("made", {"text": "x" * 4000}, id=str(n))
                accepted.append(str(n))
        with pytest.raises(QueueAway, match="full"):
            await queue.publish("made", {"text": "x" * 200_000})
        assert 1 < len(accepted) < 60
        await desk.read(lambda db: db.execute("PRAGMA max_page_count = 1000000").fetchone())
        await queue.publish("made", {}, id="after")
        await heard.until_tried(0)
        await until(queue, "books", ready=len(accepted) + 1)
        await queue.ping()


@in_loop
async def test_pieces_that_share_a_transaction_with_a_broken_one_are_done_alone(path):
    async with queue_at(f"sqlite:///{path}") as queue:
        desk = desk_of(queue)

        def block(db: sqlite3.Connection) -> None:
            time.sleep(0.05)  # so that the others come together

        waits: list[Awaitable[object]] = [desk.write(block)]
        waits += [queue.publish("sent", {}, id=f"a{n}") for n in range(5)]
        waits += [desk.write(lambda db: db.execute("INSERT INTO nowhere VALUES (1)"))]
        waits += [queue.publish("sent", {}, id=f"b{n}") for n in range(5)]
        results = await asyncio.gather(*waits, return_exceptions=True)
        wrong = [one for one in results if isinstance(one, BaseException)]
        assert len(wrong) == 1 and "no such table" in str(wrong[0])
        assert (await figures(queue))["ready"] == 10

        def fault(db: sqlite3.Connection) -> None:
            raise KeyError("ours")

        with pytest.raises(KeyError):
            await desk.write(fault)
        await queue.publish("sent", {})


@in_loop
async def test_a_damaged_file_is_said_to_be_so_and_the_service_starts_all_the_same(path, caplog):
    path.write_bytes(b"this is no database, though it is long enough to look at " * 100)
    async with queue_at(f"sqlite:///{path}") as queue:
        with pytest.raises(QueueAway, match="the file is damaged: stop the services, move it"):
            await queue.publish("sent", {})
        with pytest.raises(QueueAway, match="damaged"):
            await queue.ping()
        assert "the queue is away" in caplog.text
        path.unlink()
        await queue.publish("sent", {})  # and as soon as it is out of the way, it goes on
        await queue.ping()


@in_loop
async def test_a_file_of_another_version_is_left_alone(path):
    async with queue_at(f"sqlite:///{path}"):
        pass
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    async with queue_at(f"sqlite:///{path}") as queue:
        with pytest.raises(QueueAway, match="of version 99, and this program knows 1"):
            await queue.publish("sent", {})


@in_loop
async def test_a_file_that_another_process_holds_for_a_moment_is_waited_for(path):
    async with queue_at(f"sqlite:///{path}") as queue:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        asking = asyncio.get_running_loop().create_task(queue.publish("sent", {}))
        await asyncio.sleep(0.05)
        assert not asking.done()
        other.execute("COMMIT")
        other.close()
        await asking


@in_loop
async def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    async with queue_at(f"sqlite:///{tmp_path}/file/queue.db") as queue:
        with pytest.raises(QueueAway):
            await queue.publish("sent", {})


@in_loop
async def test_a_body_that_is_damaged_is_a_dead_letter_and_harms_no_other(path):
    async with queue_at(f"sqlite:///{path}") as queue:
        for n in range(4):
            await queue.publish("sent", {}, id=str(n))
    db = sqlite3.connect(path)
    db.execute("UPDATE message SET body = '{\"data\":' WHERE id = '1'")
    db.execute("UPDATE message SET body = '[]' WHERE id = '2'")
    db.commit()
    db.close()
    heard = Heard()
    queue = queue_at(f"sqlite:///{path}")
    queue.subscribe("sent", heard)
    async with queue:
        await heard.until(2)
        await until(queue, dead=2)
        errors = [one.error for one in await queue.dead("kitchen")]
    assert sorted(heard.ids) == ["0", "3"]
    assert all(error.startswith("unreadable: ") for error in errors)


@in_loop
async def test_ids_are_forgotten_a_day_after_they_are_done_and_not_before(path):
    now = 1_000_000.0
    home = SqliteHome(path, limit=10, wall=lambda: now)
    await home.open(())
    queue = queue_at(f"sqlite:///{path}")
    one = queue.outgoing("sent", {}, id="one")
    assert (await home.put([(one, ("kitchen",))])).accepted == 1
    now += 10 * REMEMBER_S
    assert await home.purge() == 0
    from headgate_shop.queue.home import Done

    now = one.due + 1
    (taken,) = (await home.take("kitchen", ("sent",), 1, 30.0)).taken
    assert await home.finish(taken, Done())
    now += REMEMBER_S - 1
    assert await home.purge() == 0
    await home.put([(one, ("kitchen",))])
    assert (await home.take("kitchen", ("sent",), 1, 30.0)).taken == ()
    now += 2
    assert await home.purge() == 1
    await home.put([(one, ("kitchen",))])
    assert len((await home.take("kitchen", ("sent",), 1, 30.0)).taken) == 1
    await home.close()


@in_loop
async def test_rates_are_those_of_the_last_whole_minute(path):
    now = 1_000_000.0
    home = SqliteHome(path, limit=100, wall=lambda: now)
    await home.open(())
    queue = queue_at(f"sqlite:///{path}")
    from headgate_shop.queue.home import Again, Done

    messages = [queue.outgoing("sent", {}, id=str(n)) for n in range(12)]
    await home.put([(one, ("kitchen",)) for one in messages])
    now = messages[-1].due + 10_000
    await home.put([(queue.outgoing("sent", {}, id=f"x{n}"), ("kitchen",)) for n in range(6)])
    taken = (await home.take("kitchen", ("sent",), 9, 30.0)).taken
    for one in taken[:6]:
        await home.finish(one, Done())
    for one in taken[6:]:
        await home.finish(one, Again(100.0, "no"))
    now += 10
    (row,) = await home.stats()
    assert (row.published_per_s, row.done_per_s, row.failed_per_s) == (0.1, 0.1, 0.05)
    now += 70
    (row,) = await home.stats()
    assert (row.published_per_s, row.done_per_s, row.failed_per_s) == (0.0, 0.0, 0.0)
    await home.close()


@in_loop
async def test_a_nudge_wakes_listeners_of_its_group_and_removes_pipes_of_the_dead(tmp_path):
    folder = tmp_path / "wake"
    told: list[str] = []
    came = asyncio.Event()

    def hear(group: str) -> None:
        told.append(group)
        came.set()

    listening, sending = Nudges(folder), Nudges(folder)
    sending.send(["kitchen"])  # nobody listens yet
    listening.listen("kitchen", hear)
    listening.listen("books", hear)
    os.mkfifo(folder / "kitchen.999.1")  # its process was killed
    (folder / "kitchen.note.txt").write_text("not a pipe")
    sending.send(["other"])
    sending.send(["kitchen", "other"])
    await came.wait()
    assert set(told) == {"kitchen"}
    assert not (folder / "kitchen.999.1").exists()
    listening.close()
    assert [one.name for one in folder.iterdir()] == ["kitchen.note.txt"]
    sending.send(["kitchen"])


@in_loop
async def test_a_pipe_that_is_full_holds_nobody_up(tmp_path):
    nudges = Nudges(tmp_path / "wake")
    nudges.listen("kitchen", lambda _group: None)
    await asyncio.to_thread(nudges.send, ["kitchen"] * 20)
    pipe = os.open(next((tmp_path / "wake").iterdir()), os.O_WRONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(BlockingIOError):
            while True:
                os.write(pipe, b"x" * 4096)
        nudges.send(["kitchen"])
    finally:
        os.close(pipe)
        nudges.close()


@in_loop
async def test_an_idle_consumer_costs_next_to_nothing(path):
    queue = queue_at(f"sqlite:///{path}")
    for topic in ("sent", "lost", "made"):
        queue.subscribe(topic, Heard())
    async with queue:
        await asyncio.sleep(0.2)
        before = resource.getrusage(resource.RUSAGE_SELF)
        await asyncio.sleep(1.0)
        after = resource.getrusage(resource.RUSAGE_SELF)
    used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used_s < 0.2  # some 2 ms; a loop that polls without rest would take a whole second

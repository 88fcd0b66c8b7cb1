"""What only Redis can suffer: it dies, and comes back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headgate_shop.queue import QueueAway
from tests.ports import free_port
from tests.shop.queue.hearing import PATIENCE_S, Heard, figures, in_loop, queue_at, until
from tests.state.redis_server import RedisServer

pytestmark = pytest.mark.integration


@in_loop
async def test_a_redis_that_dies_and_comes_back_loses_nothing_it_had_taken(tmp_path: Path, caplog):
    server = RedisServer(
        tmp_path, "--appendonly", "yes", "--appendfsync", "always", port=free_port()
    )
    server.start()
    heard = Heard()
    try:
        async with queue_at(server.url) as publisher:
            queue = queue_at(server.url)
            queue.subscribe("sent", heard)
            async with queue:
                await publisher.publish("sent", {}, id="before")
                await heard.until(1)
                await publisher.publish("made", {}, id="kept")
                await publisher.publish("sent", {}, id="soon", delay_s=0.2)
                server.kill()
                with pytest.raises(QueueAway):
                    await publisher.publish("sent", {}, id="away")
                with pytest.raises(QueueAway):
                    await queue.ping()
                server.start()
                async with asyncio.timeout(PATIENCE_S):
                    while True:
                        try:
                            await publisher.publish("sent", {}, id="away")
                            break
                        except QueueAway:
                            await asyncio.sleep(0.05)
                await heard.until(3)
                assert (await figures(publisher, "books"))["ready"] == 1
    finally:
        server.stop()
    assert sorted(heard.ids) == ["away", "before", "soon"]


@in_loop
async def test_a_service_starts_without_its_redis_and_hears_when_it_is_there(tmp_path: Path):
    server = RedisServer(tmp_path, port=free_port())
    heard = Heard()
    queue = queue_at(server.url)
    queue.subscribe("sent", heard)
    async with queue:
        with pytest.raises(QueueAway):
            await queue.publish("sent", {})
        server.start()
        try:
            async with queue_at(server.url) as publisher:
                await publisher.publish("sent", {})
                await heard.until(1)
                await until(queue, ready=0, in_flight=0)
        finally:
            server.stop()


@in_loop
async def test_a_redis_without_room_refuses_and_what_it_has_stays_whole(tmp_path: Path):
    server = RedisServer(tmp_path, port=free_port())
    server.start()
    try:
        async with queue_at(server.url) as queue:
            await queue.publish("made", {}, id="first")
            server.say("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(QueueAway, match="OOM|maxmemory"):
                await queue.publish("made", {"text": "x" * 100_000}, id="big")
            server.say("CONFIG", "SET", "maxmemory", "0")
            await queue.publish("made", {}, id="big")
            for group in ("kitchen", "books"):
                assert (await figures(queue, group))["ready"] == 2
    finally:
        server.stop()


@in_loop
async def test_nothing_is_left_in_redis_of_what_is_done_but_its_id(tmp_path: Path):
    server = RedisServer(tmp_path, port=free_port())
    server.start()
    heard = Heard()
    try:
        queue = queue_at(server.url)
        queue.subscribe("sent", heard)
        async with queue:
            for n in range(20):
                await queue.publish("sent", {"n": n}, priority=n % 3)
            await heard.until(20)
            await until(queue, ready=0, in_flight=0)
        names = server.key_names()
        assert len([name for name in names if ":id:" in name]) == 20
        assert not [name for name in names if ":m:" in name or ":lease:" in name]
        for stream in (name for name in names if ":s:" in name):
            assert server.say("XLEN", stream) == b":0\r\n"
        assert server.say("GET", "{shop-queue}:held:kitchen") == b"$1\r\n0\r\n"
    finally:
        server.stop()

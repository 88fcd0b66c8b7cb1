"""The frames about the cache at the worker's end: before it serves, from faulty hands, unasked."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any, cast

from headgate.control.channel import Channel, Message
from headgate.control.worker_main import PURGES_KEPT, WorkerProcess


class Holding:
    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def cache_asked(self, asked: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        if asked.get("do") == "fail":
            raise RuntimeError("a bug of the worker")
        self.asked.append(asked)
        return {"struck": len(self.asked)}


class Link:
    def __init__(self) -> None:
        self.answers: list[Any] = []

    def answer(self, question: Message, kind: str, payload: bytes) -> None:
        assert kind == "cached"
        self.answers.append((question.fields["id"], json.loads(payload)))


class Rig:
    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        self.ours = ours
        self.process = WorkerProcess(ours, cast("Any", None))
        self.link = Link()
        self.worker = Holding()

    async def ask(self, payload: Any, **fields: Any) -> None:
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        question = Message("cache", fields, data)
        self.process._on_question(cast("Channel", self.link), question)
        while self.process._judging:
            await asyncio.sleep(0)

    async def serve(self, worker: object) -> None:
        self.process._worker = cast("Any", worker)
        await self.process._take_early(worker)

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


def purge(stamp: int) -> dict[str, Any]:
    return {"do": "invalidate", "invalidation": {"tags": ["a"], "stamp": stamp}}


def test_what_is_purged_before_a_worker_serves_is_done_when_it_does():
    async def whole() -> None:
        rig = Rig()
        await rig.ask(purge(1), id=1)
        await rig.ask({"do": "inspect", "url": "/a"}, id=2)
        assert rig.link.answers == [(1, {}), (2, {})]
        await rig.serve(rig.worker)
        assert rig.worker.asked == [purge(1)]
        await rig.ask(purge(2), id=3)
        assert rig.link.answers[2:] == [(3, {"struck": 2})]
        rig.close()

    asyncio.run(whole())


def test_too_much_before_it_serves_becomes_everything():
    async def whole() -> None:
        rig = Rig()
        for stamp in range(1, PURGES_KEPT + 2):
            await rig.ask(purge(stamp))
        await rig.serve(rig.worker)
        everything = {"everything": "responses", "stamp": PURGES_KEPT + 1}
        assert rig.worker.asked == [{"do": "invalidate", "invalidation": everything}]
        rig.close()

    asyncio.run(whole())


def test_what_is_not_asked_is_not_answered_and_faults_end_no_worker():
    async def whole() -> None:
        rig = Rig()
        await rig.serve(rig.worker)
        await rig.ask(purge(1))
        assert rig.link.answers == []
        for number, payload in enumerate((b"{", b"[]", b"null", {"do": "fail"})):
            await rig.ask(payload, id=number)
        assert rig.link.answers == [
            (0, {"error": "JSONDecodeError"}),
            (1, {"error": "AttributeError"}),
            (2, {"error": "AttributeError"}),
            (3, {"error": "RuntimeError"}),
        ]
        rig.close()

    asyncio.run(whole())


def test_a_worker_without_a_cache_holds_nothing():
    async def whole() -> None:
        rig = Rig()
        await rig.ask(purge(1), id=1)
        await rig.serve(object())
        await rig.ask(purge(2), id=2)
        assert rig.link.answers == [(1, {}), (2, {})]
        rig.close()

    asyncio.run(whole())

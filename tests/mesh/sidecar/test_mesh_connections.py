"""Connections of callers whose certificates end: closed politely while these still hold."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from headgate.gateway.listener import Listener
from tests.mesh.sidecar.certificates_made import ORDERS, made


class Connection:
    def __init__(self) -> None:
        self.drained = asyncio.Event()

    def drain(self) -> None:
        self.drained.set()


def listening() -> Any:
    listener = object.__new__(Listener)
    listener._ends = {}
    return listener


def test_a_connection_is_drained_before_its_callers_certificate_ends():
    async def play():
        listener, conn = listening(), Connection()
        wall = time.time()
        listener._end_before(conn, made(ORDERS, begins=wall - 1000, ends=wall + 2))
        async with asyncio.timeout(20):
            await conn.drained.wait()
        later = Connection()
        listener._end_before(later, made(ORDERS, begins=wall - 10, ends=wall + 4000))
        left_s = listener._ends[later].when() - asyncio.get_running_loop().time()
        assert 2900 < left_s <= 3000
        assert listener._forget_end(later) is not None

    asyncio.run(play())


def test_one_that_is_gone_is_not_remembered():
    async def play():
        listener, conn = listening(), Connection()
        listener._end_before(conn, made(ORDERS, ends=time.time() + 4000))
        assert listener._forget_end(conn) is not None
        assert listener._ends == {}
        assert listener._forget_end(conn) is None
        listener._end_before(conn, b"no certificate")
        assert listener._ends == {}

    asyncio.run(play())

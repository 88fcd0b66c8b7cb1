"""Whoever is killed at whatever moment: no message is lost, and each has its effect once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
import sqlalchemy as sa

from tests.conftest import ROOT
from tests.shop.queue.hearing import in_loop, queue_at, until
from tests.shop.queue.lives import METADATA

pytestmark = pytest.mark.integration

KILLS = 6
PATIENCE_S = 50.0


class Nursery:
    def __init__(self, url, folder) -> None:
        self.alive: list[int] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.shop.queue.lives", url, str(folder)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}/src:{ROOT}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._said, self._heard = self._process.stdin, self._process.stdout
        assert self._heard.readline() == "ready\n"

    def bear(self) -> None:
        self._said.write("one\n")
        self._said.flush()
        self.alive.append(int(self._heard.readline()))

    def kill(self, which: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.alive.pop(which), signal.SIGKILL)

    def end(self) -> None:
        while self.alive:
            self.kill(0)
        self._said.close()
        self._process.kill()
        self._process.wait()
        self._heard.close()


@in_loop
async def test_under_kill_no_message_is_lost_and_each_has_its_effect_once(url, tmp_path):
    rng = random.Random()
    path = tmp_path / "orders.db"
    engine = sa.create_engine(f"sqlite:///{path}")
    METADATA.create_all(engine)
    engine.dispose()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
    nursery = Nursery(url, tmp_path)
    try:
        for _ in range(3):
            nursery.bear()
        patience = time.monotonic() + PATIENCE_S
        with contextlib.closing(sqlite3.connect(path, timeout=20)) as db:

            def count(table: str) -> int:
                assert time.monotonic() < patience
                return int(db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])

            for _ in range(KILLS):
                more = count("effects") + rng.randrange(1, 12)
                while count("effects") < more:
                    time.sleep(0.01)
                time.sleep(rng.random() * 0.03)
                nursery.kill(rng.randrange(len(nursery.alive)))
                nursery.bear()
            (tmp_path / "stop").touch()
            async with queue_at(url) as queue:
                while count("outbox"):
                    time.sleep(0.05)
                await until(queue, ready=0, delayed=0, in_flight=0, dead=0)
            things = db.execute("SELECT name FROM things ORDER BY name").fetchall()
            effects = db.execute("SELECT name FROM effects ORDER BY name").fetchall()
        assert len(things) >= KILLS
        assert effects == things
    finally:
        nursery.end()

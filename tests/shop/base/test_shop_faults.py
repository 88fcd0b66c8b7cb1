from __future__ import annotations

import asyncio
import functools
import json
import logging
import math
import os
import random
import time
from contextlib import asynccontextmanager

import httpx
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from headgate_shop.base.faults import (
    LOOK_EVERY_S,
    NO_FAULT,
    Fault,
    FaultInvalid,
    FaultLayer,
    Faults,
    slow_down,
)


def in_loop(test):
    """Run a coroutine function as a test, with the same fixtures."""

    @functools.wraps(test)
    def run(**fixtures):
        asyncio.run(test(**fixtures))

    return run


def written(faults, text):
    faults.path.parent.mkdir(parents=True, exist_ok=True)
    faults.path.write_text(text)
    return faults


@pytest.fixture
def faults(tmp_path):
    return Faults(tmp_path, "products")


def test_without_a_file_nothing_is_wrong(faults):
    assert faults.current(0.0) is NO_FAULT


def test_what_is_written_is_read_again(faults):
    fault = Fault(database_ms=800, slow_ms=300, errors=0.5, until=2e9)
    faults.write(fault)
    assert faults.current(0.0, lambda: 1e9) == fault
    assert os.listdir(faults.path.parent) == ["products.json"]
    assert json.loads(faults.path.read_text())["errors"] == 0.5


def test_the_file_is_looked_at_every_half_second(faults):
    assert faults.current(100.0) is NO_FAULT
    faults.write(Fault(slow_ms=5))
    assert faults.current(100.0 + LOOK_EVERY_S - 0.01) is NO_FAULT
    assert faults.current(100.0 + LOOK_EVERY_S).slow_ms == 5
    faults.clear()
    assert faults.current(100.0 + LOOK_EVERY_S + 0.1).slow_ms == 5
    assert faults.current(100.0 + 2 * LOOK_EVERY_S) is NO_FAULT


def test_a_fault_ends_at_its_time_without_a_look(faults):
    faults.write(Fault(errors=1, until=1000.0))
    assert faults.current(0.0, lambda: 999.9).errors == 1
    assert faults.current(0.1, lambda: 1000.0) is NO_FAULT


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 3000, "not JSON"),
        ("[]", "not a JSON object"),
        ('"x"', "not a JSON object"),
        ('{"slow": 1}', "'slow' is none of database_ms"),
        ('{"slow_ms": "1"}', "not a number"),
        ('{"slow_ms": true}', "not a number"),
        ('{"slow_ms": null}', "not a number"),
        ('{"slow_ms": -1}', "not from 0 to 60000"),
        ('{"slow_ms": 60001}', "not from 0 to 60000"),
        ('{"slow_ms": NaN}', "not from 0 to 60000"),
        ('{"errors": 1.01}', "not from 0 to 1"),
        ('{"until": Infinity}', "not from 0 to"),
        ('{"database_ms": %s}' % ("9" * 400), "not from 0 to 60000"),
    ],
    ids=[
        "empty", "cut", "deep", "list", "text", "unknown", "string", "bool", "null", "negative",
        "large", "nan", "share", "infinite", "huge",
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_no_fault_and_told_once(faults, caplog, text, says):
    with pytest.raises(FaultInvalid, match=says):
        Fault.parse(text)
    written(faults, text)
    with caplog.at_level(logging.WARNING):
        for look in range(5):
            assert faults.current(look * LOOK_EVERY_S) is NO_FAULT
    assert len(caplog.records) == 1
    assert says in caplog.text


def test_each_version_of_a_wrong_file_is_told(faults, caplog):
    written(faults, "{")
    faults.current(0.0)
    written(faults, "{{")
    faults.current(1.0)
    assert len(caplog.records) == 2
    written(faults, '{"slow_ms": 1}')
    assert faults.current(2.0).slow_ms == 1


def test_what_is_no_file_or_too_long_is_not_read(faults, caplog):
    faults.path.parent.mkdir(parents=True)
    os.mkfifo(faults.path)  # to read it would wait for ever
    assert faults.current(0.0) is NO_FAULT
    faults.path.unlink()
    faults.path.mkdir()
    assert faults.current(1.0) is NO_FAULT
    faults.path.rmdir()
    written(faults, '{"slow_ms": 1}' + " " * 5000)
    assert faults.current(2.0) is NO_FAULT
    assert len(caplog.records) == 3


def test_a_writer_that_fails_leaves_what_was_there(faults, monkeypatch):
    faults.write(Fault(slow_ms=1))

    def full(self, target):
        raise OSError(28, "no space left")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="no space"):
        faults.write(Fault(slow_ms=2))
    assert faults.current(0.0).slow_ms == 1
    assert len(os.listdir(faults.path.parent)) == 1


async def ask(faults, path="/products", times=1, rng=None):
    async def page(request):
        return PlainTextResponse("fine")

    app = Starlette(routes=[Route("/{rest:path}", page)])
    layer = FaultLayer(app, faults=faults, rng=rng or random.Random(1))
    transport = httpx.ASGITransport(app=layer)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        return [await client.get(path) for _ in range(times)]


@in_loop
async def test_errors_are_answered_in_place_of_the_service(faults):
    faults.write(Fault(errors=1))
    (answer,) = await ask(faults)
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json()["code"] == "prepared_failure"


@in_loop
async def test_a_share_of_errors_is_a_share(faults):
    faults.write(Fault(errors=0.5))
    found = [answer.status_code for answer in await ask(faults, times=200)]
    assert 60 < found.count(500) < 140
    assert found.count(200) + found.count(500) == 200


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/metrics", "/openapi.json"])
@in_loop
async def test_checks_stay_content(faults, path):
    faults.write(Fault(errors=1))
    (answer,) = await ask(faults, path)
    assert answer.status_code == 200


@in_loop
async def test_a_slow_answer_is_late_and_holds_nothing_up(faults, monkeypatch):
    slept = []

    async def sleep(delay_s, *rest):
        slept.append(delay_s)

    monkeypatch.setattr("headgate_shop.base.faults.asyncio.sleep", sleep)
    faults.write(Fault(slow_ms=300))
    (answer,) = await ask(faults)
    assert answer.status_code == 200
    assert slept == [0.3]


@asynccontextmanager
async def opened(tmp_path, faults):
    made = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}")
    slow_down(made, faults)
    try:
        async with made.connect() as connection:
            yield connection
    finally:
        await made.dispose()


@in_loop
async def test_statements_of_a_slow_database_wait_and_the_loop_goes_on(tmp_path, faults):
    faults.write(Fault(database_ms=400))
    turns = 0

    async def turn():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.005)

    other = asyncio.get_running_loop().create_task(turn())
    began = time.monotonic()
    async with opened(tmp_path, faults) as connection:
        assert await connection.scalar(sa.text("SELECT 41 + 1")) == 42
    took_s = time.monotonic() - began
    other.cancel()
    await asyncio.gather(other, return_exceptions=True)
    assert took_s >= 0.4
    assert turns > 5


@in_loop
async def test_who_waits_for_a_slow_database_can_be_cancelled(tmp_path, faults):
    faults.write(Fault(database_ms=60_000))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2), opened(tmp_path, faults) as connection:
            await connection.execute(sa.text("SELECT 1"))
    faults.clear()
    await asyncio.sleep(LOOK_EVERY_S)
    async with opened(tmp_path, faults) as connection:
        assert await connection.scalar(sa.text("SELECT 1")) == 1


@in_loop
async def test_beginning_a_transaction_does_not_wait(tmp_path, faults):
    faults.write(Fault(database_ms=60_000))
    async with asyncio.timeout(30), opened(tmp_path, faults) as connection, connection.begin():
        pass


def test_a_fault_says_only_what_is_otherwise():
    assert Fault(slow_ms=3).dump() == '{"slow_ms": 3}'
    assert NO_FAULT.dump() == "{}"
    assert Fault.parse("{}") == NO_FAULT
    assert math.isinf(NO_FAULT.until)

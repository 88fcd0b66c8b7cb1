"""Kill -9 at any moment: what partners have been told afterwards is each thing, once."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import random
import signal
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn

from headgate.mesh import Mesh
from headgate_shop.base import events
from headgate_shop.integrations import app as integrations
from headgate_shop.integrations import line, syncing
from headgate_shop.integrations.connectors import AccountingConnector, ChatConnector, ShopConnector
from headgate_shop.partners.app import app as partners_app
from headgate_shop.queue import open_queue
from tests.ports import free_port
from tests.shop.running import order, settings_of

pytestmark = pytest.mark.integration

ORDERS = 12
KILLS = 4
PATIENCE_S = 50.0


@contextmanager
def child(work: Callable[[], Coroutine[Any, Any, None]]) -> Iterator[int]:
    """A process of its own that is killed at the end, without a chance to tidy up."""
    with warnings.catch_warnings():
        # Of threads that other tests may have left: what they hold, nothing here asks for.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            logging.disable(logging.CRITICAL)
            asyncio.run(work())
            code = 0
        finally:
            os._exit(code)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_whatever_moment_it_is_killed_at_each_thing_has_its_effect_once(tmp_path, monkeypatch):
    for connector in (AccountingConnector, ChatConnector, ShopConnector):
        monkeypatch.setattr(connector, "rate", "200/s")
        monkeypatch.setattr(connector, "batch", 2)
    monkeypatch.setattr(syncing, "WAIT_S", 0.05)
    monkeypatch.setattr(syncing, "WAIT_MAX_S", 0.2)
    monkeypatch.setattr(line, "RESET_AFTER", "100ms")
    # What a process holds when it is killed comes to the next one so much later.
    monkeypatch.setattr(integrations, "open_queue", functools.partial(open_queue, lease_s=0.5))
    port = free_port()
    file = tmp_path / "headgate.yaml"
    file.write_text(
        f"listeners: [127.0.0.1:{free_port()}]\n"
        f"services: {{partners: {{instances: [http://127.0.0.1:{port}]}}}}\n"
        "routes: [{match: {path: /}, respond: {body: hello}}]\n"
    )
    partner_settings, _ = settings_of("partners", tmp_path)
    settings, _ = settings_of("integrations", tmp_path)

    async def partners() -> None:
        made = partners_app(partner_settings)
        config = uvicorn.Config(made, host="127.0.0.1", port=port, log_level="critical")
        await uvicorn.Server(config).serve()

    async def serve() -> None:
        async with Mesh(str(file), name="integrations", report=False) as mesh:
            made = integrations.app(settings, mesh=mesh)
            async with made.router.lifespan_context(made):
                await asyncio.sleep(PATIENCE_S)

    async def publish() -> None:
        at = time.time()
        async with open_queue(settings.queue_url(), service="orders") as queue:
            for number in range(ORDERS):
                data = order(number, ("kettle", 1, 1000 + number), at=at)
                await queue.publish(events.ORDER_PAID, data, id=f"paid-{number}")
            for number in range(ORDERS // 2):
                product = {"product_id": f"p-{number}", "name": "A", "price": 1, "at": at}
                await queue.publish(events.PRODUCT_CHANGED, product, id=f"changed-{number}")

    rng = random.Random(8)
    with child(publish) as pid:
        _wait_for_end(pid)
    with child(partners), httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        _until(lambda: _is_up(client))
        # Answers are lost as well: what was done is not known to have been done.
        for name in ("ledger", "chat", "shopfront"):
            assert client.post(
                f"/simulator/{name}", json={"rate": 1000, "hang_share": 0.15}
            ).is_success
        for _ in range(KILLS):
            with child(serve):
                time.sleep(rng.uniform(0.1, 0.8))
        with child(serve):
            _until(lambda: len(_has(client, "chat", "message")) == ORDERS)
            _until(lambda: len(_has(client, "ledger", "invoice")) == ORDERS)
            _until(lambda: len(_has(client, "shopfront", "product")) == ORDERS // 2)
        wanted = {f"I-order-{number}" for number in range(ORDERS)}
        assert set(_has(client, "ledger", "invoice")) == wanted
        assert set(_has(client, "chat", "message")) == {f"sold:order-{n}" for n in range(ORDERS)}


def _wait_for_end(pid: int) -> None:
    _until(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None)


def _is_up(client: httpx.Client) -> bool:
    try:
        return client.get("/health/ready").is_success
    except httpx.TransportError:
        return False


def _has(client: httpx.Client, name: str, kind: str) -> list[str]:
    return [one["id"] for one in client.get(f"/simulator/{name}/{kind}").json()["items"]]


def _until(is_so: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)

"""Purges in a running gateway: its processes, its crashes, its audit log; and a linked service."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from headgate.cache.gateway_link import GatewayLink
from headgate.cache.invalidation import Invalidation
from tests.control.running import Gateway, wait_until

pytestmark = pytest.mark.integration

WORKER = "tests.control.caching_worker:CachingWorker"


class Caching(Gateway):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.worker_class = WORKER

    def start(self, *rest: str, prefix: tuple[str, ...] = (), wait: bool = True) -> None:
        super().start(*rest, prefix=prefix, wait=wait)
        self.wait_workers(2)

    def at(self, index: int, *words: str) -> dict[str, Any]:
        """Ask one worker; the kernel chooses whom we reach."""
        path = "/".join(("/cache", str(index), *words))
        for _ in range(500):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
            try:
                connection.request("GET", path, headers={"connection": "close"})
                said: dict[str, Any] = json.loads(connection.getresponse().read())
            finally:
                connection.close()
            if "told" in said:
                return said
        raise AssertionError(f"no connection reaches worker {index}")

    def tags_at(self, index: int) -> list[str]:
        told = self.at(index)["told"]
        return [tag for said in told for tag in said.get("tags", [said.get("everything")])]

    def purge(self, **order: Any) -> dict[str, Any]:
        done: dict[str, Any] = self.admin.ask(
            "POST", "/api/cache/purge", order, timeout_s=30
        ).content
        return done


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Caching]:
    made = Caching(tmp_path)
    made.write()
    made.start()
    yield made
    made.stop()


def is_another_control(gateway: Caching, pid: int) -> bool:
    return gateway.control_pid() not in {0, pid}


def test_a_purge_by_the_command_reaches_all_workers_and_the_audit_log(gateway: Caching):
    done = gateway.command("cache", "purge", "--tag", "product:42", "--prefix", "/shop/")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "10 responses struck; 2 of 2 workers acknowledged\n"
    for index in (0, 1):
        (said,) = gateway.at(index)["told"]
        assert (said["tags"], said["urls"]) == (["product:42"], ["/shop/*"])
    entries = gateway.admin.ask("GET", "/api/audit?action=cache.purged").content["entries"]
    assert entries[0]["actor"].startswith(f"uid:{os.getuid()}")
    assert entries[0]["target"] == "tags: product:42; urls: /shop/*"
    assert entries[0]["detail"]["responses"] == 10
    stats = gateway.command("cache", "stats")
    assert "shop       75.0%     6" in stats.stdout
    held = gateway.command("cache", "inspect", "http://SHOP.example:80/a")
    assert (held.returncode, "in worker 0, 1" in held.stdout) == (0, True)
    assert gateway.command("cache", "inspect", "http://shop.example/b").returncode == 1
    refused = gateway.command("cache", "inspect", "/a")
    assert (refused.returncode, "write https://host/a" in refused.stderr) == (1, True)
    assert gateway.command("cache", "purge", "--everything").returncode == 1
    assert gateway.command("cache", "purge", "--everything", "--yes").returncode == 0
    assert gateway.tags_at(0) == ["product:42", "responses"]


def test_a_worker_that_is_frozen_is_named_and_acts_when_it_goes_on(gateway: Caching):
    pid = gateway.at(1)["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        done = gateway.command("cache", "purge", "--tag", "a")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert done.returncode == 1
    assert "1 of 2 workers acknowledged" in done.stdout
    assert "worker 1 has not answered" in done.stderr
    wait_until(lambda: gateway.tags_at(1) == ["a"])


def test_a_worker_that_dies_in_the_middle_is_no_worker_any_more(gateway: Caching):
    pid = gateway.at(1, "hold")["pid"]
    found: list[dict[str, Any]] = []
    work = threading.Thread(target=lambda: found.append(gateway.purge(tags=["a"])))
    work.start()
    wait_until(lambda: gateway.tags_at(0) == ["a"])
    os.kill(pid, signal.SIGKILL)
    work.join(20)
    (done,) = found
    assert (done["workers"], done["workers_of"], done["complete"]) == (1, 1, True)
    gateway.wait_gone(pid)
    gateway.wait_workers(2)
    assert gateway.purge(tags=["b"])["workers"] == 2
    assert gateway.tags_at(1) == ["b"]


def test_after_a_crash_of_control_stamps_grow_and_all_workers_are_told(gateway: Caching):
    first = gateway.purge(tags=["a"])
    for name in ("b", "c"):
        pid = gateway.control_pid()
        os.kill(pid, signal.SIGKILL)
        wait_until(partial(is_another_control, gateway, pid))
        # At once: the links of the workers may still be on their way.
        again = gateway.purge(tags=[name])
        assert (again["workers"], again["workers_of"]) == (2, 2)
        assert again["stamp"] > first["stamp"]
        first = again
    for index in (0, 1):
        assert gateway.tags_at(index) == ["a", "b", "c"]


def test_purges_during_reloads_reach_all(gateway: Caching):
    names = [f"t{n}" for n in range(30)]

    def reload_often() -> None:
        for number in range(5):
            gateway.write(f"body{number}")
            gateway.admin.ask("POST", "/api/reload", timeout_s=60)

    reloads = threading.Thread(target=reload_often)
    reloads.start()
    for name in names:
        assert gateway.purge(tags=[name])["complete"]
    reloads.join(60)
    for index in (0, 1):
        assert gateway.tags_at(index) == names


def test_a_linked_service_and_an_operator_hear_each_other_also_over_a_crash(gateway: Caching):
    """Two services without a Redis: one by the socket, one over TCP with the token."""

    async def whole() -> None:
        token = gateway.state.token() or ""
        one = GatewayLink(f"unix:{gateway.state.socket_path}", name="one")
        two = GatewayLink(f"http://127.0.0.1:{gateway.admin_port}", token, name="two")
        heard: dict[str, list[str]] = {"one": [], "two": []}
        gaps: list[str] = []

        def hear(who: str, said: Invalidation) -> None:
            heard[who].extend(said.tags)

        for who, link in (("one", one), ("two", two)):
            await link.start(partial(hear, who), partial(gaps.append, who))
        async with asyncio.timeout(60):
            while len(gaps) < 2:
                await asyncio.sleep(0.01)
            assert await one.tell(Invalidation(tags=("from one",)))
            assert await asyncio.to_thread(gateway.tags_at, 1) == ["from one"]
            await asyncio.to_thread(gateway.purge, tags=["by hand"])
            while heard != {"one": ["by hand"], "two": ["from one", "by hand"]}:
                await asyncio.sleep(0.01)
            pid = gateway.control_pid()
            os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(
                wait_until, lambda: gateway.control_pid() not in {0, pid} and gateway.health()
            )
            await two.tell(Invalidation(tags=("later",)))
            while heard["one"] != ["by hand", "later"]:
                await asyncio.sleep(0.01)
            assert sorted(gaps) == ["one", "two"]
            await one.close()
            await two.close()
        actors = await asyncio.to_thread(
            lambda: gateway.admin.ask("GET", "/api/audit?action=cache.purged").content["entries"]
        )
        assert {entry["actor"].partition(" ")[0] for entry in actors} == {
            "admin-token",
            f"uid:{os.getuid()}",
        }
        assert any(entry["detail"].get("by", "").startswith("two#") for entry in actors)

    asyncio.run(whole())


def test_an_end_of_the_gateway_does_not_wait_for_those_who_poll(gateway: Caching):
    stamp = gateway.admin.ask("GET", "/api/cache/news").content["stamp"]
    found: list[Any] = []

    def poll() -> None:
        found.append(
            gateway.admin.ask("GET", f"/api/cache/news?since={stamp}&wait=50", timeout_s=60).content
        )

    work = threading.Thread(target=poll)
    work.start()
    wait_until(lambda: gateway.admin.ask("GET", "/api/cache/stats").content["listeners"] == 1)
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_end() == 0
    work.join(20)
    assert found == [{"stamp": stamp, "gap": False, "news": []}]

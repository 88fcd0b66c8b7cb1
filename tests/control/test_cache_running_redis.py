"""Responses in a Redis that running gateways share: found, purged, and Redis in trouble."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from headgate.control.launch import DEFAULT_WORKER
from tests.control.cache_running_rig import Asking, Origin, Shop, see, shop, wait_until
from tests.state.redis_server import RedisServer

pytestmark = pytest.mark.integration

HOST = "shop.example"
MANY = [f"/page/{number}" for number in range(40)]


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as made:
        yield made


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


def two_gateways(
    stack: ExitStack, folder: Path, origin: Origin, **config: Any
) -> tuple[Shop, Shop]:
    made = []
    for name in ("a", "b"):
        (folder / name).mkdir()
        made.append(stack.enter_context(shop(folder / name, origin, **config)))
    for gateway in made:
        gateway.wait_lower()
        # Until control has joined, it tells of nothing.
        wait_until(lambda: (gateway.ask("/api/cache/stats")["layer"] or {}).get("is_away") is False)
    return made[0], made[1]


@pytest.mark.parametrize("home", ["state", "store"])
def test_gateways_on_one_redis_share_responses_and_purges(
    tmp_path: Path, origin: Origin, redis_server: RedisServer, home: str
):
    """The Redis of `state`, or one that is named for responses alone."""
    said: dict[str, Any] = {"cache_store": {"redis": redis_server.url}}
    if home == "state":
        said = {"cache_store": {"redis": True}, "state": redis_server.url}
    with ExitStack() as stack:
        one, two = two_gateways(stack, tmp_path, origin, **said)
        for path in MANY:
            one.see(path, host=HOST)
        one.wait_written(len(MANY))
        assert all(two.see(path, host=HOST).is_hit for path in MANY)
        assert origin.served == len(MANY)
        origin.version = 2
        done = one.post("/api/cache/purge", prefix=f"http://{HOST}/page/")
        assert (done["complete"], done["others"]) == (True, "told")
        wait_until(lambda: two.see(MANY[0], host=HOST).version == 2)
        assert {two.see(path, host=HOST).version for path in MANY} == {2}
        # Also by workers that know of it from Redis alone.
        two.wait_written(len(MANY))
        one.kill_worker(one.worker_pids()[0])
        assert {one.see(path, host=HOST).version for path in MANY} == {2}
        # What an unsafe method has changed is gone from the other's memory as well.
        origin.version = 3
        assert see(one.port, MANY[0], "POST", host=HOST).status == 200
        wait_until(lambda: two.see(MANY[0], host=HOST).version == 3)


@pytest.mark.parametrize("trouble", ["killed", "frozen"])
def test_a_redis_in_trouble_fails_no_request_and_is_used_again(
    tmp_path: Path, origin: Origin, redis_server: RedisServer, trouble: str
):
    store = {"redis": True, "memory": "1MB"}
    said = {"cache_store": store, "state": redis_server.url}
    with shop(tmp_path, origin, DEFAULT_WORKER, **said) as gateway:
        gateway.wait_lower()
        paths = [f"/size/20000/{number}" for number in range(150)]
        with Asking(gateway.port, paths) as asking:
            asking.wait_for_more(len(paths))
            redis_server.kill() if trouble == "killed" else redis_server.freeze()
            gateway.wait_lower(away=2)
            asking.wait_for_more(len(paths))
            assert gateway.figure("headgate_cache_lower_away", layer="redis") == 2
            wait_until(lambda: gateway.health()["status"] == "degraded")
            assert "cannot be used by 2 of the workers" in gateway.health()["reasons"][0]
            redis_server.start() if trouble == "killed" else redis_server.thaw()
            gateway.wait_lower(away=0)
            wait_until(lambda: gateway.health()["status"] == "ok")
            hits = gateway.lower()["hits"]
            wait_until(lambda: gateway.lower()["hits"] > hits)
        # A request that hangs is a failure too; see docs/cache-weather.md for how long they take.
        assert asking.failures == []
        assert {got.status for _, _, got in asking.answers} == {200}


def test_a_purge_while_redis_is_away_holds_when_it_is_back(
    tmp_path: Path, origin: Origin, redis_server: RedisServer
):
    with shop(tmp_path, origin, cache_store={"redis": True}, state=redis_server.url) as gateway:
        gateway.wait_lower()
        for path in MANY:
            gateway.see(path)
        gateway.wait_written(len(MANY))
        redis_server.freeze()
        gateway.see("/other")
        gateway.wait_lower(away=2)
        origin.version = 2
        done = gateway.post("/api/cache/purge", prefix="/page/")
        assert (done["workers"], done["others"]) == (2, "queued")
        assert gateway.see(MANY[0]).version == 2
        redis_server.thaw()
        gateway.wait_lower(away=0)
        wait_until(lambda: gateway.ask("/api/cache/stats")["layer"]["queued"] == 0)
        for pid in gateway.worker_pids():
            gateway.kill_worker(pid)
        assert {gateway.see(path).version for path in MANY} == {2}


def test_reloads_from_disk_to_redis_and_back_while_requests_run(
    tmp_path: Path, origin: Origin, redis_server: RedisServer
):
    with shop(tmp_path, origin, cache_store={"disk": True}) as gateway:
        with Asking(gateway.port, [f"/new/{number}" for number in range(200)]) as asking:
            for store in ({"redis": redis_server.url}, {"disk": True}, {"redis": redis_server.url}):
                gateway.reload(cache_store=store)
                gateway.wait_kinds("memory", *store)
                gateway.wait_lower(away=0)
                asking.wait_for_more(50)
        assert asking.failures == []
        assert {(got.status, got.version) for _, _, got in asking.answers} == {(200, 1)}
        text = gateway.admin.ask("GET", "/metrics").content
        assert 'headgate_cache_lower_reads_total{layer="disk",result="miss"}' in text
        assert 'headgate_cache_lower_away{layer="redis"} 0' in text
        assert 'headgate_cache_lower_away{layer="disk"}' not in text

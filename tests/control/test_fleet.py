"""Two gateways on one Redis: what an operator tells one of them holds for both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.control.running import wait_until
from tests.control.serving import Instance, Serving, serving
from tests.state.redis_server import RedisServer

pytestmark = pytest.mark.integration


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def fleet(tmp_path: Path, redis_server: RedisServer) -> Iterator[tuple[Serving, Serving]]:
    routes = [{"name": "users", "match": {"path": "/users/"}, "to": "users"}]
    with ExitStack() as stack:
        one, two = (stack.enter_context(Instance(name)) for name in ("one", "two"))
        config = {
            "state": redis_server.url,
            "services": {"users": {"instances": [one.url, two.url], "breaker": True}},
            "routes": routes,
        }
        gateways = []
        for name in ("here", "there"):
            folder = tmp_path / name
            folder.mkdir()
            gateways.append(stack.enter_context(serving(folder, **config)))
        yield gateways[0], gateways[1]


def breaker_state(gateway: Serving) -> set[str]:
    return {
        said["state"]
        for worker in gateway.policies().values()
        for said in worker["services"]["users"]["breakers"]
    }


def test_an_order_reaches_the_other_machine(fleet: tuple[Serving, Serving]):
    here, there = fleet
    here.post("/api/breakers", name="users", do="open", why="a move")
    wait_until(lambda: breaker_state(there) == {"forced_open"})
    there.post("/api/breakers", name="users", do="automatic")
    wait_until(lambda: breaker_state(here) == {"closed"})


def test_a_worker_that_starts_later_hears_what_another_machine_ordered(
    fleet: tuple[Serving, Serving],
):
    here, there = fleet
    here.post("/api/breakers", name="users", do="open")
    wait_until(lambda: breaker_state(there) == {"forced_open"})
    there.kill_worker(there.worker_pids()[0])
    wait_until(lambda: breaker_state(there) == {"forced_open"})


def test_orders_reach_this_machine_while_redis_is_away(
    fleet: tuple[Serving, Serving], redis_server: RedisServer
):
    here, there = fleet
    redis_server.kill()
    here.post("/api/breakers", name="users", do="open")
    wait_until(lambda: breaker_state(here) == {"forced_open"})
    assert breaker_state(there) == {"closed"}
    redis_server.start()
    wait_until(lambda: breaker_state(there) == {"forced_open"})

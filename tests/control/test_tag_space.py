"""One space of tags over Redis: services, gateways, the command, as processes of their own."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from zlib import crc32

import pytest

from tests.cache.redis_rig import Proxy, proxy_to
from tests.control.running import wait_until
from tests.control.tag_space_rig import Space, on_redis
from tests.state.redis_server import RedisServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def way(redis_server: RedisServer) -> Iterator[Proxy]:
    """Between the second service and Redis."""
    with proxy_to(redis_server) as made:
        yield made


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer, way: Proxy
) -> Iterator[Space]:
    with on_redis(tmp_path_factory.mktemp("space"), redis_server.url, way.url) as made:
        yield made


@pytest.fixture
def space(running: Space) -> Space:
    """The same processes for all; each test has a tag of its own."""
    running.write(1)
    return running


@pytest.fixture
def tag(request: pytest.FixtureRequest) -> str:
    return f"product:{crc32(request.node.name.encode())}"


def fill(space: Space, *tags: str) -> None:
    """Every service and every worker has the first version of these."""
    for name, service in space.services.items():
        for tag in tags:
            for edge in space.edges:
                assert edge.fill(f"/{name}/{tag}") == 1
            assert service.holds(tag) == "1"


def seen(space: Space, tag: str) -> set[int]:
    return {
        version
        for name in space.services
        for edge in space.edges
        for version in edge.versions(f"/{name}/{tag}")
    }


def test_a_service_clears_the_other_and_both_gateways_memory_and_disk(space: Space, tag: str):
    other = f"other-{tag}"
    here = space.edges[0]
    fill(space, tag, other)
    here.wait_on_disk(4)
    space.write(2)
    assert seen(space, tag) == {1}
    assert space.one.invalidate(tag)
    wait_until(lambda: space.two.holds(tag) in {None, "2"})
    wait_until(lambda: seen(space, tag) == {2})
    # What has no such tag is still there.
    assert seen(space, other) == {1}
    assert (space.one.holds(other), space.two.holds(other)) == ("1", "1")
    # For workers that start with what is on the disk as well.
    for pid in here.worker_pids():
        os.kill(pid, signal.SIGKILL)
        here.wait_gone(pid)
        here.wait_workers(2)
    assert seen(space, tag) == {2}
    assert seen(space, other) == {1}
    for edge in space.edges:
        (entry,) = [row for row in edge.entries("cache.invalidated") if tag in row["target"]]
        assert (entry["target"], entry["origin"]) == (f"tags: {tag}", "redis")


def test_a_purge_by_the_command_clears_services_and_the_other_gateway(space: Space, tag: str):
    other = f"other-{tag}"
    fill(space, tag, other)
    space.write(2)
    here, there = space.edges
    done = here.command("cache", "purge", "--tag", tag)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 of 2 workers acknowledged" in done.stdout
    assert "services and other gateways have been told" in done.stdout
    for service in space.services.values():
        wait_until(lambda service=service: service.holds(tag) in {None, "2"})  # type: ignore[misc]  # a default
    wait_until(lambda: seen(space, tag) == {2})
    assert seen(space, other) == {1}
    # Who, what and how many, in a log that nobody has changed.
    (entry,) = [row for row in here.entries("cache.purged") if tag in row["target"]]
    assert entry["actor"].startswith(f"uid:{os.getuid()}")
    assert entry["target"] == f"tags: {tag}"
    assert (entry["detail"]["responses"], entry["detail"]["workers"]) == (4, 2)
    assert any(tag in row["target"] for row in there.entries("cache.invalidated"))
    for edge in space.edges:
        verdict = edge.command("audit", "verify")
        assert verdict.returncode == 0, verdict.stdout + verdict.stderr


def test_a_soft_purge_is_served_once_more_while_it_is_made_anew(space: Space, tag: str):
    fill(space, tag)
    space.write(2)
    assert space.one.invalidate(tag, soft=True)
    answers = [edge.get(f"/two/{tag}") for edge in space.edges for _ in range(8)]
    # Nobody waited for the service with something stale at hand.
    assert [got for got in answers if got.status != 200 or "uri-miss" in got.said] == []
    # What a service made of its own stale object was kept by no gateway for new.
    wait_until(lambda: seen(space, tag) == {2})


def test_a_load_begun_before_the_purge_is_kept_by_nobody(space: Space, tag: str):
    """A slow loader in one service, asked through a gateway."""
    edge = space.edges[0]
    space.one.hold_loads()
    found: list[int] = []
    asking = threading.Thread(target=lambda: found.append(edge.get(f"/one/{tag}").version))
    asking.start()
    space.one.wait_held()
    space.write(2)
    assert space.two.invalidate(tag)
    space.one.let_go()
    asking.join(20)
    assert found in ([1], [2])  # who had asked before the purge may get either
    wait_until(lambda: seen(space, tag) == {2})
    assert {space.one.holds(tag), space.two.holds(tag)} == {"2"}


def test_a_response_begun_before_the_purge_is_kept_by_no_gateway(space: Space, tag: str):
    """A slow service without a cache: the gateways are the only ones who could keep it."""
    path = f"/one/raw/{tag}"
    space.one.hold_loads()
    found: list[int] = []
    asking = [
        threading.Thread(target=lambda edge=edge: found.append(edge.get(path).version))
        for edge in space.edges
    ]
    for each in asking:
        each.start()
    space.one.wait_held(2)
    space.write(2)
    here, there = space.edges
    assert here.command("cache", "purge", "--tag", tag).returncode == 0
    wait_until(lambda: any(tag in row["target"] for row in there.entries("cache.invalidated")))
    space.one.let_go()
    for each in asking:
        each.join(20)
    assert found == [1, 1]
    for edge in space.edges:
        assert edge.versions(path) == {2}
    # Nor does it come up from the disk.
    for pid in here.worker_pids():
        os.kill(pid, signal.SIGKILL)
        here.wait_gone(pid)
        here.wait_workers(2)
    assert here.versions(path) == {2}


def test_what_the_edge_fetched_from_a_service_that_heard_late_is_forgotten_again(
    space: Space, way: Proxy, tag: str
):
    """For the tenth of a second in which a service may not know yet, it serves the old value, and
    the edge has asked it already.
    """
    edge = space.edges[0]
    for number in range(5):
        late = f"{tag}-{number}"
        space.write(1)
        fill(space, late)
        space.write(2)
        way.is_still = True
        try:
            assert space.one.invalidate(late)
            edge.versions(f"/two/{late}")
        finally:
            way.is_still = False
        wait_until(lambda late=late: seen(space, late) == {2})  # type: ignore[misc]  # a default
        wait_until(lambda late=late: space.two.holds(late) == "2")  # type: ignore[misc]  # a default


def test_while_redis_is_away_a_purge_holds_here_and_is_told_when_it_is_back(
    space: Space, redis_server: RedisServer, tag: str
):
    fill(space, tag)
    here, there = space.edges
    redis_server.freeze()
    try:
        space.write(2)
        done = here.command("cache", "purge", "--tag", tag)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Redis" in done.stdout + done.stderr
        (entry,) = [row for row in here.entries("cache.purged") if tag in row["target"]]
        assert entry["detail"]["others"] in {"queued", "away"}
        assert entry["detail"]["responses"] == 4
    finally:
        redis_server.thaw()
    wait_until(lambda: seen(space, tag) == {2})
    assert there.versions(f"/one/{tag}") == {2}
    wait_until(lambda: here.layer()["queued"] == 0)

"""One space of tags without Redis: services linked to the gateway by its socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from zlib import crc32

import pytest

from tests.control.running import wait_until
from tests.control.tag_space_rig import Space, by_links

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Space]:
    with by_links(tmp_path_factory.mktemp("space")) as made:
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
    (edge,) = space.edges
    for name, service in space.services.items():
        for tag in tags:
            assert edge.fill(f"/{name}/{tag}") == 1
            assert service.holds(tag) == "1"


def seen(space: Space, tag: str) -> set[int]:
    (edge,) = space.edges
    return {version for name in space.services for version in edge.versions(f"/{name}/{tag}")}


def test_when_a_service_has_invalidated_all_have_forgotten(space: Space, tag: str):
    """At once, and not some time later: services first, then the edge."""
    other = f"other-{tag}"
    fill(space, other)
    for number in range(10):
        each = f"{tag}-{number}"
        space.write(1)
        fill(space, each)
        space.write(2)
        assert space.one.invalidate(each)
        assert space.two.holds(each) is None
        assert seen(space, each) == {2}
    assert seen(space, other) == {1}
    (entry,) = [
        row for row in space.edges[0].entries("cache.purged") if tag + "-9" in row["target"]
    ]
    assert entry["actor"].startswith("uid:")
    assert entry["detail"]["by"].startswith("one#")
    assert (entry["detail"]["responses"], entry["detail"]["workers"]) == (4, 2)
    assert "services_late" not in entry["detail"]


def test_when_the_command_has_ended_all_have_forgotten(space: Space, tag: str):
    fill(space, tag)
    space.write(2)
    done = space.edges[0].command("cache", "purge", "--tag", tag)
    assert (done.returncode, done.stderr) == (0, "")
    assert (space.one.holds(tag), space.two.holds(tag)) == (None, None)
    assert seen(space, tag) == {2}
    verdict = space.edges[0].command("audit", "verify")
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr


def test_a_soft_purge_goes_the_same_way(space: Space, tag: str):
    fill(space, tag)
    space.write(2)
    assert space.one.invalidate(tag, soft=True)
    (edge,) = space.edges
    got = edge.get(f"/two/{tag}")
    assert (got.version, "uri-miss" in got.said) == (1, False)  # once more, while it is made anew
    # What the service made of its own stale object was kept by nobody for new.
    wait_until(lambda: seen(space, tag) == {2})


def test_a_load_begun_before_the_purge_is_kept_by_nobody(space: Space, tag: str):
    (edge,) = space.edges
    found: list[int] = []
    paths = (f"/two/{tag}", f"/two/raw/{tag}")
    space.two.hold_loads()
    asking = [
        threading.Thread(target=lambda path=path: found.append(edge.get(path).version))
        for path in paths
    ]
    for each in asking:
        each.start()
    space.two.wait_held(2)
    space.write(2)
    assert space.one.invalidate(tag)
    space.two.let_go()
    for each in asking:
        each.join(20)
    assert sorted(found) in ([1, 1], [1, 2])  # who asked before the purge may get the old one
    for path in paths:
        assert edge.versions(path) == {2}
    assert space.two.holds(tag) == "2"


def test_a_service_that_is_stopped_is_waited_for_within_a_bound_and_the_edge_told_again(
    space: Space, tag: str
):
    fill(space, tag)
    (edge,) = space.edges
    space.two.freeze()
    try:
        space.write(2)
        assert space.one.invalidate(tag)
        (entry,) = [row for row in edge.entries("cache.purged") if tag in row["target"]]
        assert entry["detail"]["services_late"] == 1
        # The edge has forgotten, and asks the service, which does not know yet.
        asking = [threading.Thread(target=edge.get, args=(f"/two/{tag}",)) for _ in range(4)]
        for each in asking:
            each.start()
    finally:
        space.two.thaw()
    for each in asking:
        each.join(20)
    wait_until(lambda: space.two.holds(tag) in {None, "2"})
    wait_until(lambda: seen(space, tag) == {2})

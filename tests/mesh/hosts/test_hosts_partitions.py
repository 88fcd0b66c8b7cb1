"""A mesh over several hosts, while the network between them breaks in every way that it can.

Somebody calls the service all the time. What must hold in every scene: no call of `c` fails while an instance can be reached.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial

import pytest

from headgate.control.client import Refused
from tests.control.running import wait_until
from tests.mesh.hosts.rig import PATIENCE_S, Hosts

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    mesh = Hosts(tmp_path_factory.mktemp("hosts"))
    try:
        mesh.start_gateway()
        mesh.start_service("a")
        # An hour ahead: leases are durations, so that it is no matter.
        mesh.start_service("b", skew_s=3600.0)
        mesh.start_visitor("users")
        mesh.visited("a", "b")
        yield mesh
    finally:
        mesh.close()


@pytest.fixture(autouse=True)
def whole(mesh: Hosts) -> Iterator[None]:
    mesh.net.heal()
    mesh.visited("a", "b")
    before = mesh.seen()["failed"]
    yield
    mesh.net.heal()
    mesh.visited("a", "b")
    assert mesh.seen()["failed"] == before


def test_an_instance_that_the_caller_cannot_reach_is_done_without(mesh: Hosts) -> None:
    mesh.net.cut("a", "c")
    mesh.visited_only("b")
    assert mesh.instances() == {"a": "up", "b": "up"}  # the registry reaches both


def test_answers_that_are_lost_on_the_way_back_are_asked_for_elsewhere(mesh: Hosts) -> None:
    mesh.net.cut_one_way("a", "c")
    mesh.visited_only("b")


def test_an_instance_that_the_registry_does_not_hear_goes_and_comes_back(mesh: Hosts) -> None:
    mesh.net.cut("a", "g")
    wait_until(lambda: mesh.instances().get("a") != "up", PATIENCE_S)
    mesh.visited("b")
    mesh.net.heal()
    wait_until(lambda: mesh.instances() == {"a": "up", "b": "up"}, PATIENCE_S)


def test_the_registry_cut_off_from_everybody_is_done_without(mesh: Hosts) -> None:
    mesh.net.cut("g")
    # Longer than the leases: it believes that all are dead, and nobody hears of it.
    wait_until(lambda: "up" not in mesh.instances().values(), PATIENCE_S)
    mesh.visited("a", "b", times=50)
    mesh.net.heal()
    wait_until(lambda: mesh.instances() == {"a": "up", "b": "up"}, PATIENCE_S)


def test_slow_links_and_lost_packets_make_calls_slow_and_no_more(mesh: Hosts) -> None:
    mesh.net.slow("a", "c", 0.05, loss=0.05)
    mesh.net.slow("c", "g", 0.1)
    mesh.visited("a", "b", times=20)


def first_told(mesh: Hosts) -> dict[str, str] | None:
    """What it knows once it can be asked."""
    try:
        return mesh.instances()
    except Refused:
        return None  # it begins


def test_the_registry_killed_and_started_again_knows_them_still(mesh: Hosts) -> None:
    mesh.kill_gateway()
    mesh.visited("a", "b", times=30)
    mesh.start_gateway()
    assert wait_until(partial(first_told, mesh), PATIENCE_S).keys() == {"a", "b"}
    wait_until(lambda: mesh.instances() == {"a": "up", "b": "up"}, PATIENCE_S)


def test_every_service_is_started_again_under_load_and_nobody_misses_it(mesh: Hosts) -> None:
    mesh.start_visitor("edge")
    mesh.visited("a", "b", service="edge")
    for host, other in (("a", "b"), ("b", "a")):
        leaving = mesh.services[host]
        leaving.send_signal(signal.SIGTERM)
        leaving.wait(30)
        assert host not in mesh.instances()
        mesh.visited(other)
        mesh.start_service(host)
        wait_until(lambda: mesh.instances() == {"a": "up", "b": "up"}, PATIENCE_S)
        mesh.visited("a", "b")
        mesh.visited("a", "b", service="edge")
    assert mesh.seen("edge")["failed"] == []
    assert mesh.seen("edge")["by"].keys() == {"a", "b"}  # no answer of another status

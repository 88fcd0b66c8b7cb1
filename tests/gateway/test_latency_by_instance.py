"""How long attempts take is counted by instance, where there is a choice of them."""

from __future__ import annotations

import pytest

from headgate.control.admin.mesh import mesh_stats
from headgate.control.admin.stats import gateway_stats
from headgate.observe import merge
from headgate.testing import EchoServer
from tests.gateway.rig import document, get, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def echoes():
    with EchoServer("0") as zero, EchoServer("1") as one, EchoServer("2") as two:
        yield [zero, one, two]


COUNT = "headgate_upstream_attempts_total"
TOOK = "headgate_upstream_attempt_seconds_total"


def asked(gateway, path, times):
    for _ in range(times):
        head, _ = gateway.ask(get(path))
        assert head.status == 200
    wait_until(lambda: gateway.in_flight == 0)


def test_each_instance_has_its_attempts_and_their_time(start, echoes):
    urls = [echo.url for echo in echoes[:2]]
    gateway = start(document(*urls, service={"balance": "round_robin"}))
    asked(gateway, "/delay/0.02", 6)
    wait_until(lambda: gateway.count(COUNT) == 6)
    for url in urls:
        assert gateway.count(COUNT, service_instance=url) == 3
        assert gateway.count(TOOK, service_instance=url) >= 0.06
    asked(gateway, "/", 2)
    wait_until(lambda: gateway.count(COUNT) == 8)

    merged = merge([gateway.on_loop(gateway.worker.snapshot)])
    stats = gateway_stats(merged, {}, [], generation=1, listeners={})
    assert [one.attempts for one in stats.instances] == [4, 4]
    assert all((one.mean_ms or 0) >= 15 for one in stats.instances)
    edges = [edge for edge in mesh_stats(stats, merged).edges if "instance:" in edge.target]
    assert [
        (edge.requests, (edge.latency.mean_ms or 0) >= 15) for edge in edges if edge.latency
    ] == [
        (4, True),
        (4, True),
    ]


def test_what_an_instance_did_is_not_lost_when_it_goes(start, echoes):
    urls = [echo.url for echo in echoes[:3]]
    gateway = start(document(*urls))
    asked(gateway, "/", 6)
    wait_until(lambda: gateway.count(COUNT) == 6)
    gateway.apply(document(*urls[:2]))
    asked(gateway, "/", 2)
    wait_until(lambda: gateway.count(COUNT) == 8)


def test_a_service_of_one_instance_and_no_policies_has_the_services_figures_alone(start, echo):
    gateway = start(document(echo.url))
    asked(gateway, "/", 3)
    assert gateway.count(COUNT) == 0
    merged = merge([gateway.on_loop(gateway.worker.snapshot)])
    (one,) = gateway_stats(merged, {}, [], generation=1, listeners={}).instances
    assert (one.attempts, one.mean_ms) == (0, None)

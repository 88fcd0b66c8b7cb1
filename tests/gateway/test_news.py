"""News from other workers, from control and from operators, sound and unsound."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.state.memory import MemoryShared
from tests.gateway.given_back import assert_all_given_back
from tests.gateway.rig import Gateway, Instance, document, get, response, wait_until

pytestmark = pytest.mark.integration

ODD: list[Any] = [
    None,
    True,
    "text",
    3,
    -1,
    1e300,
    float("nan"),
    float("inf"),
    [],
    ["x"],
    {},
    {"a": []},
    "x" * 100_000,
]
"""What JSON can hold, and some of what it cannot."""


PARTS = [["upstream", 100.0], ["green", 0.0]]


def everything(*instances: Instance, **more: Any) -> dict[str, Any]:
    """A document in which each kind of news finds somebody."""
    said = document(
        *instances,
        service={
            "breaker": {"minimum_calls": 10, "window": 20, "reset_after": "200ms"},
            "outlier": {"errors": 3, "eject": "200ms", "eject_max": "300ms"},
            "health": "/health",
        },
        route={"flag": "hints", "to": {"upstream": "100%", "green": "0%"}, "split": {}},
        **more,
    )
    said["services"]["green"] = {"instances": said["services"]["upstream"]["instances"]}
    said["degrade"] = {"flags": {"hints": "on"}}
    return said


def boards(gateway: Gateway) -> MemoryShared:
    """Give the worker a board; the answer is what a peer has of it."""

    def begin() -> MemoryShared:
        shared = MemoryShared()
        gateway.worker._homes.hub = shared  # type: ignore[assignment]  # another home of the same kind
        gateway.worker._states.news.listen(shared)
        return shared.join()

    peer: MemoryShared = gateway.on_loop(begin)
    return peer


def tell(gateway: Gateway, peer: MemoryShared, topic: str, message: Any, **more: Any) -> None:
    gateway.on_loop(lambda: peer.publish(topic, message, **more))


def serves(gateway: Gateway, instance: Instance) -> bool:
    """Whether a request is answered by the instance."""
    with gateway.client() as client:
        client.send(get())
        peer = instance.accept()
        peer.until(b"\r\n\r\n")
        peer.send(response(b"ok", "Connection: close"))
        return client.answer()[1] == b"ok"


def sound(instance: Instance) -> list[tuple[str, dict[str, Any]]]:
    """A message of each kind that says something, and harms nobody for long."""
    return [
        ("breaker", {"name": "upstream", "for_s": 0.0, "why": "w"}),
        ("outlier", {"service": "upstream", "instance": instance.url, "for_s": 0.0, "why": "w"}),
        ("health", {"service": "upstream", "instance": instance.url, "up": True, "why": "w"}),
        ("order", {"what": "breaker", "name": "upstream", "do": "close", "why": "w"}),
        (
            "order",
            {
                "what": "instance",
                "service": "upstream",
                "instance": instance.url,
                "out": False,
                "why": "w",
            },
        ),
        (
            "order",
            {
                "what": "split",
                "id": "route/all",
                "parts": PARTS,
                "steps": [{"source": "upstream", "target": "green", "over_s": 0.0, "share": 0.5}],
            },
        ),
        ("order", {"what": "level", "level": 0, "for_s": 0.1, "why": "w"}),
        ("order", {"what": "flag", "name": "hints", "share": 1.0, "for_s": 0.1, "why": "w"}),
    ]


def test_no_message_of_wrong_types_harms_a_worker_or_its_next_reload(start, instance):
    gateway = start(everything(instance))
    peer = boards(gateway)
    for topic, message in sound(instance):
        for odd in ODD:
            tell(gateway, peer, topic, odd)
            for part in message:
                tell(gateway, peer, topic, {**message, part: odd})
                tell(gateway, peer, topic, {k: v for k, v in message.items() if k != part})
    # Those that could be heeded may have put something out; an operator puts it right.
    for topic, message in sound(instance):
        tell(gateway, peer, topic, message)
    tell(gateway, peer, "order", {"what": "level", "level": None})
    gateway.apply(document(instance))
    gateway.apply(everything(instance, response_time=False))
    for topic, message in sound(instance):
        tell(gateway, peer, topic, message)
    assert serves(gateway, instance)
    assert_all_given_back(gateway)


def test_an_order_that_a_later_plan_cannot_heed_does_not_stop_a_reload(start, instance):
    gateway = start(document(instance))
    peer = boards(gateway)
    for order in (
        {"what": "flag", "name": "gone", "share": 0.0},
        {"what": "flag", "name": "hints", "share": "much"},
        {"what": "level", "level": 99},
        {"what": "split", "id": "route/all", "parts": PARTS, "steps": [{"source": "gone"}]},
        {"what": "split", "id": "route/all"},
        {"what": "instance", "service": "later", "instance": "http://gone", "out": True},
    ):
        tell(gateway, peer, "order", order, retain=str(order))
    gateway.apply(everything(instance))
    assert serves(gateway, instance)
    assert_all_given_back(gateway)


def test_an_order_that_came_before_its_plan_is_heeded_with_it(start, instance):
    gateway = start(document(instance))
    peer = boards(gateway)
    tell(gateway, peer, "order", {"what": "flag", "name": "hints", "share": 0.0, "why": "tests"})
    assert serves(gateway, instance)
    gateway.apply(everything(instance))
    assert gateway.ask(get())[0].status == 503
    assert_all_given_back(gateway)


@pytest.mark.parametrize("for_s", [float("nan"), float("inf"), 1e300, -1.0])
def test_no_news_opens_a_breaker_for_ever(start, instance, for_s):
    gateway = start(everything(instance))
    peer = boards(gateway)
    tell(gateway, peer, "breaker", {"name": "upstream", "for_s": for_s, "why": "w"})
    breaker = gateway.worker._states.services["upstream"].breaker

    def left_s() -> float:
        from time import monotonic

        left: float = breaker.snapshot(monotonic()).retry_after_s
        return left

    assert 0.0 <= gateway.on_loop(left_s) <= 2 * breaker.rules.reset_max_s


@pytest.mark.parametrize("for_s", [float("nan"), float("inf"), 1e300, -1.0])
def test_no_news_ejects_an_instance_for_ever(start, instance, other, for_s):
    gateway = start(everything(instance, other))
    peer = boards(gateway)
    message = {"service": "upstream", "instance": instance.url, "for_s": for_s, "why": "w"}
    tell(gateway, peer, "outlier", message)
    wait_until(lambda: gateway.count("headgate_instance_usable", service_instance=instance.url))
    wait_until(lambda: not gateway.worker._states.services["upstream"].ejected)


def test_a_peers_ejection_counts_for_as_long_as_it_says(start, instance, other):
    gateway = start(everything(instance, other))
    peer = boards(gateway)
    message = {"service": "upstream", "instance": instance.url, "for_s": 0.3, "why": "5 errors"}
    tell(gateway, peer, "outlier", message)
    ejected = gateway.worker._states.services["upstream"].ejected
    assert gateway.on_loop(lambda: dict(ejected)) == {instance.url: "a peer: 5 errors"}
    wait_until(lambda: not ejected)


def test_what_no_plan_has_is_kept_within_bounds(start, instance):
    gateway = start(everything(instance))
    peer = boards(gateway)

    def flood() -> int:
        for at in range(12_000):
            message = {"service": f"s{at}", "instance": "http://x", "up": False}
            peer.publish("health", message)
        return len(gateway.worker._states.news._checked)

    assert gateway.on_loop(flood) == 10_000
    gateway.apply(everything(instance, response_time=False))
    assert serves(gateway, instance)

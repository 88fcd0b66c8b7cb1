"""Instances that come and go while a worker serves: told on the board, as control tells them."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from headgate.gateway import members
from headgate.gateway.worker import Worker
from headgate.state.hub import HubShared
from headgate.state.memory import MemoryShared
from headgate.testing import EchoServer
from headgate.wire.h2 import H2Limits
from tests.gateway.given_back import assert_all_given_back
from tests.gateway.h2_instance import Conn, Served
from tests.gateway.rig import (
    DEAD,
    Gateway,
    Instance,
    document,
    get,
    request,
    response,
    wait_until,
)
from tests.gateway.test_news import ODD

pytestmark = pytest.mark.integration

_REVISIONS = count(1)

ODD_ROWS: list[Any] = [
    {},
    {"url": None},
    {"url": 3},
    {"url": []},
    {"url": "http://"},
    {"url": "http://127.0.0.1:0"},
    {"url": "http://127.0.0.1:70000"},
    {"url": "ftp://127.0.0.1:21"},
    {"url": "http://127.0.0.1:1/path"},
    {"url": "http://127.0.0.1:1\r\n"},
    {"url": "unix:relative"},
    {"url": "http://127.0.0.1:1", "weight": -1},
    {"url": "http://127.0.0.1:1", "weight": 1e300},
    {"url": "http://127.0.0.1:1", "weight": True},
    {"url": "http://127.0.0.1:1", "weight": 10**30},
    {"url": "http://127.0.0.1:1", "priority": "first"},
    {"url": "http://127.0.0.1:1", "zone": 3},
]


def discovering(*instances: Instance | str, **more: Any) -> dict[str, Any]:
    """A document whose service names these and finds others."""
    service = {"discover": "registry", **more.pop("service", {})}
    return document(*instances, service=service, **more)


def board(gateway: Gateway) -> MemoryShared:
    """Give the worker a board; the answer is what control has of it."""

    def begin() -> MemoryShared:
        shared = MemoryShared()
        gateway.worker.take_shared(shared)  # type: ignore[arg-type]  # another home of the same kind
        return shared.join()

    peer: MemoryShared = gateway.on_loop(begin)
    return peer


def message(*found: Any, service: str = "upstream", **more: Any) -> dict[str, Any]:
    """`found`: instances, URLs, or whole rows."""
    rows = [
        one if isinstance(one, dict) else {"url": one if isinstance(one, str) else one.url}
        for one in found
    ]
    said = {"service": service, "epoch": "e", "revision": next(_REVISIONS), "members": rows}
    return {**said, **more}


def tell(gateway: Gateway, peer: MemoryShared, *found: Any, **more: Any) -> None:
    said = message(*found, **more)
    gateway.on_loop(lambda: peer.publish("members", said, retain=said["service"]))


def answered(gateway: Gateway, number: int = 1, *lines: str) -> Counter[str]:
    """Who answers so many requests: the name of an echo server, or a status."""
    found: Counter[str] = Counter()
    with gateway.client() as client:
        for _ in range(number):
            client.send(get("/", *lines))
            head, body = client.answer()
            found[json.loads(body)["service"] if head.status == 200 else str(head.status)] += 1
    return found


def names(gateway: Gateway) -> set[str]:
    """The instances that the worker has pools for."""
    return {said.instance for said in gateway.pools()}


@pytest.fixture(scope="module")
def fleet():
    """Four real instances."""
    made = [EchoServer(f"echo{number}") for number in range(4)]
    with ExitStack() as stack:
        yield [stack.enter_context(one) for one in made]


# -- coming and going ------------------------------------------------------------------------------


def test_a_service_without_an_instance_says_so_and_serves_as_soon_as_one_is_found(start, fleet):
    gateway = start(discovering())
    peer = board(gateway)
    head, body = gateway.ask(get())
    assert head.status == 503
    assert head.get("retry-after") == "1"
    assert b"no instance of the service is known yet: none has registered" in body
    tell(gateway, peer, fleet[0])
    assert answered(gateway, 3) == {"echo0": 3}
    tell(gateway, peer)
    assert answered(gateway) == {"503": 1}
    assert names(gateway) == set()
    assert_all_given_back(gateway)


@pytest.mark.parametrize(
    ("way", "why"),
    [
        ({"dns": {"name": "users.internal", "port": 80}}, b"its name in DNS gives none"),
        ({"directory": "."}, b"its directory names none"),
        ("registry", b"none has registered"),
    ],
    ids=["dns", "directory", "registry"],
)
def test_why_nobody_is_known_is_told_without_a_name(start, way, why):
    gateway = start(discovering(service={"discover": way}))
    head, body = gateway.ask(get())
    assert head.status == 503
    assert why in body
    assert b"users.internal" not in body


def test_a_fallback_answers_while_no_instance_is_known(start):
    spare = {"fallback": {"respond": {"status": 200, "body": "later"}}}
    gateway = start(discovering(route=spare))
    assert gateway.ask(get())[1] == b"later"


def test_instances_beside_those_of_the_file_serve_with_them(start, fleet):
    gateway = start(discovering(fleet[0]))
    peer = board(gateway)
    assert answered(gateway, 2) == {"echo0": 2}
    tell(gateway, peer, fleet[1])
    assert answered(gateway, 4) == {"echo0": 2, "echo1": 2}
    tell(gateway, peer)
    assert answered(gateway, 2) == {"echo0": 2}


def test_what_is_told_before_the_plan_waits_for_it(start, fleet):
    gateway = start(document(fleet[0]))
    peer = board(gateway)
    tell(gateway, peer, fleet[1])
    assert answered(gateway, 2) == {"echo0": 2}
    gateway.apply(discovering(fleet[0]))
    assert answered(gateway, 4) == {"echo0": 2, "echo1": 2}


def test_a_reload_keeps_what_was_found_and_its_connections(start, fleet):
    gateway = start(discovering())
    peer = board(gateway)
    tell(gateway, peer, fleet[0])
    assert answered(gateway) == {"echo0": 1}
    made = fleet[0].connections
    gateway.apply(discovering(route={"name": "other"}))
    assert answered(gateway) == {"echo0": 1}
    gateway.apply(discovering(service={"breaker": {"per": "instance"}, "outlier": True}))
    assert answered(gateway) == {"echo0": 1}
    assert fleet[0].connections == made
    # A service of the same name that finds nobody has those of the file alone.
    gateway.apply(document(fleet[1]))
    assert answered(gateway, 2) == {"echo1": 2}
    assert names(gateway) == {fleet[1].url}


def test_only_the_pools_of_what_changed_are_touched(start, fleet):
    gateway = start(discovering())
    peer = board(gateway)
    tell(gateway, peer, *fleet[:3])
    before = gateway.on_loop(lambda: {id(line) for line in gateway.worker._lines.values()})
    tell(gateway, peer, *fleet[:2], fleet[3])
    after = gateway.on_loop(lambda: {id(line) for line in gateway.worker._lines.values()})
    assert len(before & after) == 2
    assert names(gateway) == {one.url for one in (*fleet[:2], fleet[3])}


def test_the_counters_of_an_instance_follow_it(start, fleet):
    gateway = start(discovering())
    peer = board(gateway)
    tell(gateway, peer, fleet[0])
    answered(gateway)
    made = "headgate_upstream_connections_created_total"
    assert gateway.count(made, service_instance=fleet[0].url) == 1
    tell(gateway, peer, fleet[1])
    wait_until(
        lambda: not gateway.count("headgate_upstream_connections", service_instance=fleet[0].url)
    )
    tell(gateway, peer, fleet[0])
    answered(gateway)
    assert gateway.count(made, service_instance=fleet[0].url) == 2


# -- requests under way ----------------------------------------------------------------------------


def test_a_request_under_way_at_an_instance_that_goes_ends_there(start, instance, fleet):
    gateway = start(discovering())
    peer = board(gateway)
    tell(gateway, peer, instance)
    client = gateway.client()
    client.send(request("POST", "/", body=b"once"))
    there = instance.accept()
    there.until(b"once")
    tell(gateway, peer, fleet[0])
    assert answered(gateway, 2) == {"echo0": 2}
    there.send(response(b"as begun"))
    assert client.answer()[1] == b"as begun"
    # Nobody is asked on that connection any more.
    assert there.is_closed()
    assert_all_given_back(gateway)


def test_who_waits_for_a_connection_of_an_instance_that_goes_is_served_by_another(
    start, instance, fleet
):
    gateway = start(discovering(service={"pool": {"connections": 1}}))
    peer = board(gateway)
    tell(gateway, peer, instance)
    first, second = gateway.client(), gateway.client()
    first.send(get())
    there = instance.accept()
    there.until(b"\r\n\r\n")
    second.send(request("POST", "/", body=b"waits"))
    wait_until(lambda: gateway.pool.waiting == 1)
    tell(gateway, peer, fleet[0])
    head, body = second.answer()
    assert (head.status, json.loads(body)["service"]) == (200, "echo0")
    there.send(response(b"first"))
    assert first.answer()[1] == b"first"
    assert_all_given_back(gateway)


def test_who_waits_for_a_connection_of_the_last_instance_is_told_at_once(start, instance):
    gateway = start(discovering(service={"pool": {"connections": 1}}))
    peer = board(gateway)
    tell(gateway, peer, instance)
    first, second = gateway.client(), gateway.client()
    first.send(get())
    there = instance.accept()
    there.until(b"\r\n\r\n")
    second.send(get())
    wait_until(lambda: gateway.pool.waiting == 1)
    tell(gateway, peer)
    head, body = second.answer()
    assert head.status == 503
    assert b"none has registered" in body
    there.send(response(b"first"))
    assert first.answer()[1] == b"first"
    assert_all_given_back(gateway)


def test_an_instance_that_refuses_connections_costs_no_request(start, fleet):
    gateway = start(discovering())
    peer = board(gateway)
    tell(gateway, peer, DEAD, fleet[0])
    assert answered(gateway, 8) == {"echo0": 8}
    with gateway.client() as client:
        for _ in range(4):
            client.send(request("POST", "/", body=b"not yet sent"))
            assert client.answer()[0].status == 200


def test_a_request_of_an_older_plan_that_tries_again_finds_the_instances_there_are(
    start, instance, fleet
):
    retry = {"attempts": 2, "wait": "300ms", "jitter": "none", "budget": "off"}
    gateway = start(discovering(route={"retry": retry}))
    peer = board(gateway)
    tell(gateway, peer, instance)
    client = gateway.client()
    client.send(get())
    there = instance.accept()
    there.until(b"\r\n\r\n")
    gateway.apply(discovering(route={"name": "newer"}))
    tell(gateway, peer, fleet[0])
    there.reset()
    head, body = client.answer()
    assert (head.status, json.loads(body)["service"]) == (200, "echo0")
    assert_all_given_back(gateway)


def test_an_instance_that_leaves_gets_nothing_new_while_others_are_there(start, fleet):
    gateway = start(discovering())
    peer = board(gateway)
    leaving = {"url": fleet[0].url, "draining": True}
    tell(gateway, peer, leaving, fleet[1])
    assert answered(gateway, 4) == {"echo1": 4}
    tell(gateway, peer, leaving)
    assert answered(gateway, 2) == {"echo0": 2}
    tell(gateway, peer, leaving, fleet[2])
    assert answered(gateway, 4) == {"echo2": 4}
    # It has come again at its old place, while its predecessor is still said to be leaving.
    tell(gateway, peer, leaving, {"url": fleet[0].url, "id": "next"}, fleet[2])
    assert answered(gateway, 4) == {"echo0": 2, "echo2": 2}


# -- a worker that takes a seat while others serve -------------------------------------------------


class Linked:
    """The worker's end of a link to control, which answers when the test wants it."""

    def send(self, kind: str, /, payload: bytes = b"", fds: Any = (), **fields: Any) -> None: ...


async def first_plan(hub: HubShared, answer_in_s: float) -> list[str]:
    """Seat a worker whose control answers so late; the instances it knows when it serves."""
    worker = Worker(0, lambda _: None)
    worker.take_shared(hub)
    hub.attach(Linked())
    said = message("http://127.0.0.1:9")
    retained = {"holders": 1, "retained": [["members", "upstream", 1, said]]}
    loop = asyncio.get_running_loop()
    loop.call_later(answer_in_s, lambda: hub.heard("shared_welcome", retained))
    with socket.create_server(("127.0.0.1", 0)) as sock:
        await worker.apply(discovering(), {"127.0.0.1:0": [sock]}, 1)
        found = [line.name for line in worker._lines.values()]
        await worker.drain(0.0)
    hub.detach()
    return found


def test_a_worker_serves_as_soon_as_it_has_heard_what_others_know():
    assert asyncio.run(first_plan(HubShared(), 0.05)) == ["http://127.0.0.1:9"]


def test_a_worker_serves_in_a_while_though_control_does_not_answer(monkeypatch):
    monkeypatch.setattr(members, "FIRST_NEWS_S", 0.05)
    assert asyncio.run(first_plan(HubShared(), 30.0)) == []


# -- what else is said of instances ----------------------------------------------------------------


def test_a_client_comes_back_to_its_instance_while_others_come_and_go(start, fleet):
    gateway = start(discovering(service={"affinity": {"cookie": "came"}}))
    peer = board(gateway)
    tell(gateway, peer, fleet[0], fleet[1])
    head, body = gateway.ask(get())
    home = json.loads(body)["service"]
    cookie = f"Cookie: {(head.get('set-cookie') or '').partition(';')[0]}"
    mine, other = fleet[:2] if home == "echo0" else (fleet[1], fleet[0])
    for found in ([mine, fleet[2]], [fleet[3], mine, other], [mine]):
        tell(gateway, peer, *found)
        assert answered(gateway, 4, cookie) == {home: 4}
    tell(gateway, peer, fleet[2])
    head, body = gateway.ask(get("/", cookie))
    assert json.loads(body)["service"] == "echo2"
    moved = f"Cookie: {(head.get('set-cookie') or '').partition(';')[0]}"
    tell(gateway, peer, *fleet)
    assert answered(gateway, 4, moved) == {"echo2": 4}
    assert answered(gateway, 4, cookie) == {home: 4}


def test_an_operators_orders_hold_for_found_instances_and_when_they_come_again(start, fleet):
    gateway = start(discovering())
    peer = board(gateway)
    place = {"service": "upstream", "instance": fleet[0].url, "why": "w", "at": 1.0}
    order = {"what": "instance", "out": True, "order": "o", **place}
    gateway.on_loop(lambda: peer.publish("order", order, retain="o"))
    tell(gateway, peer, *fleet[:2])
    assert answered(gateway, 4) == {"echo1": 4}
    tell(gateway, peer, fleet[1])
    tell(gateway, peer, *fleet[:2])
    assert answered(gateway, 4) == {"echo1": 4}
    back = {**order, "out": False, "at": 2.0}
    gateway.on_loop(lambda: peer.publish("order", back, retain="o"))
    weigh = {"what": "weight", "weight": 3, "of_file": 1, "order": "w", **place}
    gateway.on_loop(lambda: peer.publish("order", weigh, retain="w"))
    assert answered(gateway, 8) == {"echo0": 6, "echo1": 2}
    tell(gateway, peer, *fleet[:2], {"url": fleet[2].url, "weight": 0})
    assert answered(gateway, 8) == {"echo0": 6, "echo1": 2}
    # It says another weight itself: that is newer than the order.
    tell(gateway, peer, {"url": fleet[0].url, "weight": 2}, fleet[1])
    assert answered(gateway, 6) == {"echo0": 4, "echo1": 2}


def test_what_checks_say_before_an_instance_is_known_holds_when_it_comes(start, fleet):
    gateway = start(
        discovering(service={"health": {"path": "/", "start": "down"}, "balance": {"panic": 0}})
    )
    peer = board(gateway)

    def check(one: EchoServer, *, up: bool, **more: Any) -> None:
        said = {"service": "upstream", "instance": one.url, "up": up, "why": "checked", **more}
        gateway.on_loop(lambda: peer.publish("health", said, retain=one.url))

    check(fleet[0], up=True)
    check(fleet[1], up=False)
    tell(gateway, peer, *fleet[:3])
    assert answered(gateway, 3) == {"echo0": 3}
    check(fleet[2], up=True)
    assert answered(gateway, 4) == {"echo0": 2, "echo2": 2}
    # One that goes and comes again before checks have missed it is not told of anew.
    tell(gateway, peer, fleet[2])
    tell(gateway, peer, *fleet[:3])
    assert answered(gateway, 4) == {"echo0": 2, "echo2": 2}
    # Of one that is checked no more nothing is remembered: it waits for a check again.
    tell(gateway, peer, fleet[2])
    check(fleet[0], up=True, gone=True)
    tell(gateway, peer, fleet[0], fleet[2])
    assert answered(gateway, 3) == {"echo2": 3}


# -- what cannot be believed -----------------------------------------------------------------------


def test_a_row_that_cannot_be_read_does_not_take_the_others_along(start, fleet):
    gateway = start(discovering())
    peer = board(gateway)
    for odd in ODD_ROWS:
        tell(gateway, peer, fleet[0], odd)
        assert names(gateway) == {fleet[0].url}
    assert answered(gateway) == {"echo0": 1}
    assert gateway.count("headgate_members_unread_total") == len(ODD_ROWS)


def test_a_message_that_cannot_be_read_leaves_what_is_known(start, fleet):
    gateway = start(discovering())
    peer = board(gateway)
    tell(gateway, peer, fleet[0])
    sound = message(fleet[1])
    for part in sound:
        for odd in ODD:
            said = {**sound, part: odd}
            if said["members"] == [] or (part == "epoch" and isinstance(odd, str)):
                continue  # sound as well
            gateway.on_loop(lambda said=said: peer.publish("members", said))
        said = {key: value for key, value in sound.items() if key != part}
        gateway.on_loop(lambda said=said: peer.publish("members", said))
    gateway.on_loop(lambda: peer.publish("members", message("nonsense", "http://")))
    assert answered(gateway) == {"echo0": 1}
    gateway.apply(discovering(route={"name": "next"}))
    assert answered(gateway) == {"echo0": 1}


def test_older_news_does_not_bring_back_what_has_gone(start, fleet):
    gateway = start(discovering())
    peer = board(gateway)
    older = message(fleet[0])
    tell(gateway, peer, fleet[1])
    gateway.on_loop(lambda: peer.publish("members", older))
    assert answered(gateway, 2) == {"echo1": 2}
    # Another registry counts anew.
    gateway.on_loop(lambda: peer.publish("members", {**older, "epoch": "f", "revision": 1}))
    assert answered(gateway, 2) == {"echo0": 2}


# -- attacked --------------------------------------------------------------------------------------


class Answering(asyncio.Protocol):
    """An instance that answers whatever it is asked with its name."""

    def __init__(self, name: str) -> None:
        self._answer = response(name.encode())
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._answer * data.count(b"\r\n\r\n"))


class Asking(asyncio.Protocol):
    """A client that asks again as soon as it is answered, until it is told to end."""

    def __init__(self, ask: bytes, answers: Counter[bytes], is_over: asyncio.Event) -> None:
        self._ask = ask
        self._answers = answers
        self._is_over = is_over
        self._data = b""
        self._transport: Any = None
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._ask)

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, mark, body = self._data.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if not mark or len(body) < int(length):
            return
        self._data = b""
        self._answers[body if head.startswith(b"HTTP/1.1 200 ") else head[:40] + body] += 1
        if self._is_over.is_set():
            self.ended.set_result(None)
            self._transport.close()
        else:
            self._transport.write(self._ask)

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(ConnectionError("cut off"))


class AnsweringH2(Conn):
    """The same over HTTP/2."""

    def __init__(self, name: str) -> None:
        body = name.encode()

        def act(served: Served) -> None:
            if served.ended:
                served.answer(200, body, ((b"content-length", b"%d" % len(body)),))

        instance = SimpleNamespace(act=act, limits=H2Limits(), conns=[], requests=[])
        super().__init__(instance)  # type: ignore[arg-type]  # has what a connection looks at

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.flush()


async def churn(
    gateway: Gateway, peer: MemoryShared, made: Callable[[str], asyncio.Protocol], changes: int
) -> Counter[bytes]:
    """All on the worker's own loop: nothing of it waits for threads."""
    loop = asyncio.get_running_loop()
    servers, urls = [], []
    for name in ("one", "two", "three", "four"):
        server = await loop.create_server(partial(made, name), "127.0.0.1", 0)
        servers.append(server)
        urls.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    peer.publish("members", message(urls[0]))
    answers, is_over = Counter[bytes](), asyncio.Event()
    asks = [get(), request("POST", "/", body=b"a body")]
    clients = [
        await loop.create_connection(
            partial(Asking, asks[lane % 2], answers, is_over), "127.0.0.1", gateway.port()
        )
        for lane in range(50)
    ]
    rng = random.Random(7)
    for change in range(changes):
        found: list[Any] = [urls[0]]
        for url in urls[1:]:
            what = rng.random()
            if what < 0.7:
                found.append({"url": url, "draining": what < 0.2, "weight": rng.choice((1, 3))})
        if rng.random() < 0.1:
            found.append(DEAD)
        rng.shuffle(found)
        peer.publish("members", message(*found))
        # Some follow each other at once, others after requests.
        await asyncio.sleep(0 if change % 4 else 0.002)
    peer.publish("members", message(urls[0]))
    is_over.set()
    await asyncio.gather(*(asking.ended for _, asking in clients))
    for server in servers:
        server.close()
    return answers


@pytest.mark.parametrize(("by", "changes"), [("breakers", 1000), ("affinity", 300), ("h2", 300)])
def test_many_changes_under_fifty_connections_fail_no_request(start, by, changes):
    """One instance stays, the others come, go and leave; some that are named do not even live."""
    more: dict[str, Any] = {"breaker": {"per": "instance"}, "outlier": True}
    if by == "affinity":
        more = {"affinity": {"cookie": "came"}, "balance": {"by": "least_connections"}}
    made: Callable[[str], asyncio.Protocol] = Answering
    if by == "h2":
        more, made = {"http": "2"}, AnsweringH2
    gateway = start(discovering(service=more))
    answers = gateway.call(churn(gateway, board(gateway), made, changes), timeout_s=60)
    assert set(answers) == {b"one", b"two", b"three", b"four"}
    assert len(names(gateway)) == 1
    assert_all_given_back(gateway)

"""What a fill is made of is freed when it ends, not when the collector comes: on varied traffic it
would lie about, and every request would work in cold memory.
"""

from __future__ import annotations

import gc
from collections import Counter

import pytest

from tests.gateway.caching.rig import (
    BEHIND,
    FRESH,
    ask,
    asked,
    cached,
    dated,
    fills,
    not_modified,
    serve,
)
from tests.gateway.rig import Peer, get, request, response, wait_until

pytestmark = pytest.mark.integration

TAG = 'ETag: "a"'


def miss(gateway, instance, path: str, client: Peer) -> None:
    client.send(get(path))
    serve(instance, response(b"kept", FRESH, TAG, dated()))
    assert client.answer()[1] == b"kept"


def begun(gateway, instance, path: str, client: Peer) -> None:
    client.send(get(path))
    serve(instance, f"HTTP/1.1 200 OK\r\n{FRESH}\r\nContent-Length: 2\r\n\r\na".encode())
    client.until(b"\r\n\r\na")
    instance.accepted[-1].send(b"b")
    client.exactly(1)


def unkept(gateway, instance, path: str, client: Peer) -> None:
    client.send(get(path))
    serve(instance, response(b"own", "Cache-Control: private"))
    assert client.answer()[1] == b"own"


def conditional(gateway, instance, path: str, client: Peer) -> None:
    client.send(get(path, 'If-None-Match: "a"'))
    serve(instance, response(b"kept", FRESH, TAG, dated()))
    assert client.answer()[0].status == 304


def collapsed(gateway, instance, path: str, client: Peer) -> None:
    clients = [asked(gateway, path) for _ in range(3)]
    serve(instance, response(b"kept", FRESH, TAG, dated()))
    assert [each.answer()[1] for each in clients] == [b"kept"] * 3


def passed(gateway, instance, path: str, client: Peer) -> None:
    client.send(request("POST", path))
    serve(instance, response(b"done"))
    assert client.answer()[1] == b"done"


def validated(gateway, instance, path: str, client: Peer) -> None:
    client.send(get(path))
    serve(instance, response(b"kept", "Cache-Control: max-age=0", TAG, dated()))
    assert client.answer()[1] == b"kept"
    client.send(get(path))
    serve(instance, not_modified(TAG, FRESH))
    assert client.answer()[1] == b"kept"


def behind(gateway, instance, path: str, client: Peer) -> None:
    client.send(get(path))
    serve(instance, response(b"kept", BEHIND, TAG, dated()))
    assert client.answer()[1] == b"kept"
    assert ask(client, path)[1] == b"kept"
    serve(instance, not_modified(TAG, FRESH))
    wait_until(lambda: fills(gateway) == 0)


def failed(gateway, instance, path: str, client: Peer) -> None:
    client.send(get(path))
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    peer.send(b"no HTTP\r\n\r\n")
    assert client.answer()[0].status == 502


def called_off(gateway, instance, path: str, client: Peer) -> None:
    before = gateway.in_flight
    leaving = asked(gateway, path)
    peer = instance.accept()
    peer.until(b"\r\n\r\n")
    leaving.reset()
    wait_until(lambda: gateway.in_flight == before)


@pytest.mark.parametrize(
    "play",
    [miss, begun, unkept, conditional, collapsed, passed, validated, behind, failed, called_off],
    ids=lambda play: play.__name__,
)
def test_nothing_of_it_is_left_to_the_collector(start, instance, play):
    gateway = start(cached(instance))
    client = gateway.client()
    for number in range(3):
        play(gateway, instance, f"/warm/{number}", client)
    left: list[object] = []

    def ours() -> list[object]:
        gc.collect()
        found = [each for each in gc.garbage if type(each).__module__.startswith("headgate.")]
        gc.garbage.clear()
        return found

    gateway.on_loop(gc.collect)
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for number in range(10):
            play(gateway, instance, f"/once/{number}", client)
        wait_until(lambda: fills(gateway) == 0)
        left = gateway.on_loop(ours)
    finally:
        gc.set_debug(0)
        gc.enable()
    assert Counter(type(each).__name__ for each in left) == {}

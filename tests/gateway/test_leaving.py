"""The client goes away, at every stage, by FIN and by RST: nothing may be left behind.

What "nothing" is: no exchange in flight, no place in a line, no connection lent; the upstream
connection is closed when the instance may still be at work on it, and kept when it is whole.
"""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from headgate.gateway.filters import Filter, Outcome
from tests.gateway.rig import document, get, request, response, wait_until

pytestmark = pytest.mark.integration

HOW = pytest.mark.parametrize("how", ["fin", "rst"])


@pytest.fixture
def gateway(start, instance):
    return start(document(instance))


def assert_nothing_left(gateway):
    gateway.assert_settles()
    wait_until(lambda: gateway.clients == 0)
    assert all(said.waiting == 0 for said in gateway.pools())


def assert_still_serves(gateway, instance):
    with gateway.client() as client:
        client.send(get("/after"))
        upstream = instance.accept()
        assert upstream.head().line == "GET /after HTTP/1.1"
        upstream.send(response(b"after"))
        assert client.answer()[1] == b"after"


@HOW
@pytest.mark.parametrize("sent", [b"", b"GET /half", b"GET / HTTP/1.1\r\nHost: h\r\nX-Long: "])
def test_while_its_head_is_read(gateway, instance, how, sent):
    client = gateway.client()
    client.send(sent)
    wait_until(lambda: gateway.clients == 1)
    client.leave(how)
    assert_nothing_left(gateway)
    assert instance.is_left_alone()


@HOW
@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
def test_while_it_sends_a_body(gateway, instance, how, framing):
    client = gateway.client()
    client.send(request("POST", "/", framing) + b"5\r\nhello\r\n")
    upstream = instance.accept()
    upstream.head()
    upstream.until(b"hello")
    client.leave(how)
    assert upstream.is_closed()
    assert_nothing_left(gateway)
    assert gateway.pool.open == 0
    assert_still_serves(gateway, instance)


@HOW
def test_while_it_waits_in_line(start, instance, how):
    gateway = start(document(instance, service={"pool": {"connections": 1}}))
    busy, waiting = gateway.client(), gateway.client()
    busy.send(get("/busy"))
    upstream = instance.accept()
    upstream.head()
    waiting.send(get("/waiting"))
    wait_until(lambda: gateway.pool.waiting == 1)
    waiting.leave(how)
    wait_until(lambda: gateway.pool.waiting == 0)
    upstream.send(response())
    assert busy.answer()[1] == b"ok"
    assert upstream.is_quiet()
    busy.close()
    assert_nothing_left(gateway)
    assert gateway.pool.idle == 1


class _Unready:
    """An address that takes connections only once its backlog is emptied."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.port = self.sock.getsockname()[1]
        self.held = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", self.port))
            self.held.append(one)

    def close(self) -> None:
        for one in self.held:
            one.close()
        self.sock.close()


@pytest.fixture
def unready():
    made = _Unready()
    yield made
    made.close()


@HOW
def test_while_a_connection_is_made(start, unready, how):
    gateway = start(
        document(f"http://127.0.0.1:{unready.port}", service={"timeout": {"connect": "700ms"}})
    )
    client = gateway.client()
    client.send(get())
    wait_until(lambda: gateway.pool.connecting == 1)
    client.leave(how)
    wait_until(lambda: gateway.in_flight == 0)
    assert gateway.pool.waiting == 0
    # What is being made for nobody ends by its own time-out.
    assert_nothing_left(gateway)
    assert gateway.pool.open == 0


def test_its_connection_serves_the_next(start):
    """The name resolves slowly for the first; the second takes over what comes of it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        gateway = start(document(f"http://127.0.0.1:{port}", service={"pool": {"connections": 1}}))
        gate = threading.Event()
        line = next(iter(gateway.worker._lines.values()))
        connect = line._connect

        async def late(pool):
            while not gate.is_set():
                await asyncio.sleep(0.005)
            return await connect(pool)

        gateway.on_loop(lambda: setattr(line, "_connect", late))
        leaving, staying = gateway.client(), gateway.client()
        leaving.send(get("/leaving"))
        wait_until(lambda: gateway.pool.connecting == 1)
        staying.send(get("/staying"))
        wait_until(lambda: gateway.pool.waiting == 2)
        leaving.reset()
        wait_until(lambda: gateway.pool.waiting == 1)
        gate.set()
        listening.settimeout(5)
        upstream, _ = listening.accept()
        with upstream:
            assert upstream.recv(1000).startswith(b"GET /staying ")
            upstream.sendall(response())
            assert staying.answer()[1] == b"ok"
        gateway.assert_settles()
        assert gateway.pool.created == 1


def test_a_connection_made_for_nobody_is_kept(start, instance):
    gateway = start(document(instance))
    gate = threading.Event()
    line = next(iter(gateway.worker._lines.values()))
    connect = line._connect

    async def late(pool):
        while not gate.is_set():
            await asyncio.sleep(0.005)
        return await connect(pool)

    gateway.on_loop(lambda: setattr(line, "_connect", late))
    client = gateway.client()
    client.send(get())
    wait_until(lambda: gateway.pool.connecting == 1)
    client.reset()
    wait_until(lambda: gateway.in_flight == 0)
    gate.set()
    upstream = instance.accept()
    wait_until(lambda: gateway.pool.idle == 1)
    with gateway.client() as second:
        second.send(get("/second"))
        assert upstream.head().line == "GET /second HTTP/1.1"
        upstream.send(response())
        assert second.answer()[1] == b"ok"
    assert_nothing_left(gateway)


@HOW
def test_while_the_first_byte_is_awaited(gateway, instance, how):
    client = gateway.client()
    client.send(get())
    upstream = instance.accept()
    upstream.head()
    client.leave(how)
    assert upstream.is_closed()
    assert_nothing_left(gateway)
    assert gateway.pool.open == 0
    assert_still_serves(gateway, instance)


@HOW
@pytest.mark.parametrize("framing", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_in_the_middle_of_an_answer(gateway, instance, how, framing):
    client = gateway.client()
    client.send(get())
    upstream = instance.accept()
    upstream.head()
    upstream.send(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n5\r\nhello\r\n".encode())
    client.until(b"hello")
    client.leave(how)
    # With FIN alone the gateway learns of it by the reset that the next bytes meet.
    wait_until(lambda: not upstream.try_send(b"1\r\nx\r\n"))
    assert_nothing_left(gateway)
    assert gateway.pool.open == 0
    assert_still_serves(gateway, instance)


def test_it_never_reads_and_then_leaves(gateway, instance):
    client = gateway.client()
    client.send(get())
    upstream = instance.accept()
    upstream.head()
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
    upstream.sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        while True:
            upstream.send(bytes(65536))
    client.reset()
    wait_until(lambda: not upstream.try_send(bytes(65536)))
    assert_nothing_left(gateway)


@HOW
def test_in_a_tunnel(gateway, instance, how):
    client = gateway.client()
    client.send(get("/", "Connection: Upgrade", "Upgrade: websocket"))
    upstream = instance.accept()
    upstream.head()
    upstream.send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    assert client.head().status == 101
    client.send(b"ping")
    assert upstream.exactly(4) == b"ping"
    client.leave(how)
    assert upstream.is_closed()
    upstream.close()
    assert_nothing_left(gateway)
    assert gateway.pool.open == 0


def test_an_instance_that_leaves_a_tunnel_ends_it(gateway, instance):
    client = gateway.client()
    client.send(get("/", "Connection: Upgrade", "Upgrade: websocket"))
    upstream = instance.accept()
    upstream.head()
    upstream.send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nlast"
    )
    upstream.close()
    assert client.to_end().endswith(b"\r\n\r\nlast")
    assert_nothing_left(gateway)


# -- on a route with filters


class Waits(Filter):
    """An async hook that a test lets go on."""

    go_on = threading.Event()
    entered = threading.Event()
    ended: list[Outcome] = []

    async def on_request(self, request):
        if request.path == "/after":
            return
        self.entered.set()
        while not self.go_on.is_set():
            await asyncio.sleep(0.005)

    def on_end(self, request, outcome):
        if request.path != "/after":
            self.ended.append(outcome)


class Gathers(Filter):
    request_body_max = 1 << 20
    response_body_max = 1 << 20
    ended: list[Outcome] = []

    def on_request_body(self, request, chunk, last):
        return chunk

    def on_response_body(self, request, response, chunk, last):
        return chunk

    def on_end(self, request, outcome):
        if request.path != "/after":
            self.ended.append(outcome)


def filtered(instance, kind):
    kind.ended.clear()
    return document(instance, route={"plugins": [{"use": f"{__name__}:{kind.__name__}"}]})


@HOW
def test_in_a_hook_that_waits(start, instance, how):
    gateway = start(filtered(instance, Waits))
    Waits.go_on.clear()
    Waits.entered.clear()
    client = gateway.client()
    client.send(request("POST", "/", "Content-Length: 100") + b"some")
    assert Waits.entered.wait(5)
    client.leave(how)
    wait_until(lambda: gateway.in_flight == 0)
    Waits.go_on.set()
    assert instance.is_left_alone()
    assert_nothing_left(gateway)
    assert [(one.status, one.error) for one in Waits.ended] == [(499, "client_gone")]
    assert_still_serves(gateway, instance)


@HOW
def test_while_its_body_is_gathered(start, instance, how):
    gateway = start(filtered(instance, Gathers))
    client = gateway.client()
    client.send(request("POST", "/", "Content-Length: 1000") + b"some")
    wait_until(lambda: gateway.in_flight == 1)
    client.leave(how)
    assert_nothing_left(gateway)
    assert instance.is_left_alone()
    assert len(Gathers.ended) == 1


@HOW
def test_while_an_answer_is_gathered(start, instance, how):
    gateway = start(filtered(instance, Gathers))
    client = gateway.client()
    client.send(get())
    upstream = instance.accept()
    upstream.head()
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome")
    client.leave(how)
    assert upstream.is_closed()
    assert_nothing_left(gateway)
    assert gateway.pool.open == 0
    assert len(Gathers.ended) == 1


def test_hundreds_at_every_stage_at_once(start, instance):
    """The same in a crowd: whatever the order of events, the counts come back to nothing."""
    gateway = start(document(instance, service={"pool": {"connections": 4, "idle": 4}}))
    clients = [gateway.client() for _ in range(60)]
    for at, client in enumerate(clients):
        client.send(get(f"/{at}") if at % 3 else request("POST", f"/{at}", "Content-Length: 9"))
    upstreams = [instance.accept() for _ in range(4)]
    for at, client in enumerate(clients):
        client.leave("rst" if at % 2 else "fin")
    del upstreams
    stop = threading.Event()

    def serve():
        while not stop.is_set():
            try:
                peer = instance.accept(wait_s=0.1)
                peer.head()
                peer.send(response())
            except (AssertionError, OSError):
                continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert_nothing_left(gateway)
    stop.set()
    thread.join(10)

"""WebSocket through the gateway, with a real implementation on both ends."""

from __future__ import annotations

import contextlib
import threading

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import serve
from websockets.typing import Subprotocol

from tests.gateway.rig import Instance, document, get, request, response, wait_until

pytestmark = pytest.mark.integration

CHAT = Subprotocol("chat.v2")


class Service:
    """Sends every message back; a few messages have it do something else."""

    def __init__(self) -> None:
        self.closed: list[tuple[int | None, str]] = []
        self.requests: list[dict[str, str]] = []
        self.server = serve(
            self._serve,
            "127.0.0.1",
            0,
            select_subprotocol=lambda _, offered: CHAT if CHAT in offered else None,
            max_size=1 << 24,
        )
        self.port: int = self.server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self._thread.start()

    def _serve(self, connection) -> None:
        self.requests.append({k.lower(): v for k, v in connection.request.headers.raw_items()})
        try:
            for message in connection:
                if message == "bye":
                    connection.close(4001, "you said bye")
                elif message == "ping me":
                    connection.ping(b"payload").wait(5)
                    connection.send("ponged")
                elif message == "fragments":
                    connection.send(["one ", "two ", "three"])
                else:
                    connection.send(message)
        except ConnectionClosed:
            pass
        finally:
            self.closed.append((connection.close_code, connection.close_reason))

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join(5)


@pytest.fixture
def service():
    made = Service()
    yield made
    made.close()


@pytest.fixture
def gateway(start, service):
    return start(document(f"http://127.0.0.1:{service.port}"))


@pytest.fixture
def dial(gateway):
    def connected(path="/ws", **more):
        return connect(
            f"ws://127.0.0.1:{gateway.port()}{path}",
            open_timeout=5,
            close_timeout=5,
            max_size=1 << 24,
            proxy=None,
            **more,
        )

    return connected


def test_text_and_binary(dial):
    with dial() as ws:
        for message in ("text", "ünïcödé \U0001f980", b"\x00\xff binary", "", b""):
            ws.send(message)
            assert ws.recv(5) == message


def test_large_messages_and_their_order(dial):
    with dial(compression=None) as ws:
        sent = [bytes([at]) * (1 << 20) for at in range(4)] + [b"small"]

        def send_all():
            for message in sent:
                ws.send(message)

        thread = threading.Thread(target=send_all, daemon=True)
        thread.start()
        assert [ws.recv(10) for _ in sent] == sent
        thread.join(5)


def test_pings_both_ways(dial):
    with dial() as ws:
        assert ws.ping(b"are you there").wait(5)
        ws.send("ping me")
        assert ws.recv(5) == "ponged"


def test_fragmented_messages(dial):
    with dial() as ws:
        ws.send(["one ", "two ", "three"])
        assert ws.recv(5) == "one two three"
        ws.send("fragments")
        # The library ends a fragmented message with an empty frame of its own.
        assert [piece for piece in ws.recv_streaming() if piece] == ["one ", "two ", "three"]


def test_the_services_close_code_reaches_the_client(dial):
    with dial() as ws:
        ws.send("bye")
        with pytest.raises(ConnectionClosed) as caught:
            ws.recv(5)
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "you said bye")


def test_the_clients_close_code_reaches_the_service(dial, service, gateway):
    with dial() as ws:
        ws.send("x")
        ws.recv(5)
        ws.close(4321, "had enough")
    wait_until(lambda: service.closed)
    assert service.closed == [(4321, "had enough")]
    gateway.assert_settles()


def test_subprotocol_and_extensions_are_agreed_end_to_end(dial, service):
    with dial(subprotocols=["chat.v9", "chat.v2"], compression="deflate") as ws:
        assert ws.subprotocol == "chat.v2"
        assert [one.name for one in ws.protocol.extensions] == ["permessage-deflate"]
        ws.send("y" * 100_000)
        assert ws.recv(5) == "y" * 100_000
    assert "x-request-id" in service.requests[0]
    assert service.requests[0]["x-forwarded-for"] == "127.0.0.1"


def test_a_tunnel_survives_reloads(dial, service, gateway, other):
    with dial() as ws:
        ws.send("before")
        assert ws.recv(5) == "before"
        said = document(f"http://127.0.0.1:{service.port}", response_time=False)
        gateway.apply(said)
        ws.send("after")
        assert ws.recv(5) == "after"
        gateway.apply(document(other))  # its service is not even in the plan any more
        for at in range(5):
            ws.send(f"still {at}")
            assert ws.recv(5) == f"still {at}"


def test_many_tunnels_at_once(dial, service, gateway):
    with contextlib.ExitStack() as stack:
        tunnels = [stack.enter_context(dial()) for _ in range(20)]
        for at, ws in enumerate(tunnels):
            ws.send(f"tunnel {at}")
        assert [ws.recv(5) for ws in tunnels] == [f"tunnel {at}" for at in range(20)]
    wait_until(lambda: len(service.closed) == 20)
    gateway.assert_settles()


def test_an_upgrade_that_is_not_allowed_is_no_upgrade(start, instance):
    gateway = start(document(instance, route={"upgrade": []}))
    with gateway.client() as client:
        client.send(get("/ws", "Connection: Upgrade", "Upgrade: websocket"))
        upstream = instance.accept()
        seen = upstream.head()
        assert "upgrade" not in seen
        assert "connection" not in seen
        upstream.send(response(b"no upgrade", status="426 Upgrade Required"))
        assert client.answer()[1] == b"no upgrade"
        client.send(get("/next"))
        assert upstream.head().line == "GET /next HTTP/1.1"


def test_an_unlisted_protocol_is_no_upgrade(start, instance):
    gateway = start(document(instance))
    with gateway.client() as client:
        client.send(get("/", "Connection: Upgrade", "Upgrade: tea/1.0"))
        seen = instance.accept().head()
        assert "upgrade" not in seen


def test_a_service_that_refuses_the_handshake(start, instance: Instance):
    gateway = start(document(instance))

    def refuse():
        upstream = instance.accept()
        upstream.head()
        upstream.send(response(b"not you", status="403 Forbidden"))

    thread = threading.Thread(target=refuse, daemon=True)
    thread.start()
    with pytest.raises(InvalidStatus) as caught:
        connect(f"ws://127.0.0.1:{gateway.port()}/", proxy=None, open_timeout=5)
    assert caught.value.response.status_code == 403
    assert caught.value.response.body == b"not you"
    thread.join(5)


def test_what_the_client_sends_with_the_handshake_is_not_lost(start, instance):
    gateway = start(document(instance))
    with gateway.client() as client:
        client.send(get("/", "Connection: Upgrade", "Upgrade: websocket") + b"early bytes")
        upstream = instance.accept()
        upstream.head()
        assert upstream.is_quiet()  # before the instance agrees they are nobody's
        upstream.send(
            b"HTTP/1.1 101 Switching Protocols\r\n"
            b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\nand its own"
        )
        assert client.until(b"and its own")
        assert upstream.exactly(11) == b"early bytes"


def test_an_instance_that_ends_a_tunnel_while_the_client_sends_is_heard_to_the_end(start, instance):
    gateway = start(document(instance))
    with gateway.client() as client:
        client.send(get("/", "Connection: Upgrade", "Upgrade: websocket"))
        upstream = instance.accept()
        upstream.head()
        upstream.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        client.head()
        upstream.send(b"last words")
        upstream.close()
        wait_until(lambda: gateway.in_flight == 0)
        # Each of these would be answered with a reset, were the connection closed.
        client.send(b"still talking")
        assert client.is_quiet() is False
        client.send(b"and talking")
        assert client.until(b"last words")
        assert client.sock.recv(100) == b""
    gateway.assert_settles()


def test_only_a_get_may_become_a_websocket(start, instance):
    gateway = start(document(instance))
    with gateway.client() as client:
        client.send(request("POST", "/", "Connection: Upgrade", "Upgrade: websocket"))
        upstream = instance.accept()
        assert "upgrade" not in upstream.head()
        upstream.send(response())
        assert client.answer()[1] == b"ok"


def test_half_of_a_tunnel_may_close_first(start, instance):
    gateway = start(document(instance))
    with gateway.client() as client:
        client.send(get("/", "Connection: Upgrade", "Upgrade: websocket"))
        upstream = instance.accept()
        upstream.head()
        upstream.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        client.head()
        client.send(b"last words")
        client.end()
        assert upstream.exactly(10) == b"last words"
        assert upstream.is_closed()
        upstream.send(b"a late answer")
        upstream.close()
        assert client.to_end() == b"a late answer"
    gateway.assert_settles()

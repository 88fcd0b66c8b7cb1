"""Connecting: the first of several addresses wins, and nothing is left open, however it ends."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
import time
from contextlib import asynccontextmanager, contextmanager

import pytest
import trustme
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import UpstreamFailed
from headgate.wire import connect as subject
from headgate.wire.connect import Endpoint, Tls, connect, interleaved


class Names:
    """Resolves to what a test says."""

    def __init__(self, *addresses: str, delay_s: float = 0.0) -> None:
        self.addresses = addresses
        self.delay_s = delay_s

    async def resolve(self, name: str) -> tuple[str, ...]:
        await asyncio.sleep(self.delay_s)
        return self.addresses


class Client(asyncio.Protocol):
    def connection_made(self, transport):
        self.got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def data_received(self, data):
        self.got.set_result(data)


async def greet(reader, writer):
    writer.write(b"hello")
    try:
        await reader.read()
    except OSError:
        pass
    writer.close()


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def runner(main):
        with asyncio.Runner(loop_factory=factory) as it, no_leak():
            return it.run(main)

    return runner


@contextmanager
def no_leak():
    gc.collect()
    before = sockets()
    yield
    gc.collect()
    assert sockets() <= before


def sockets() -> int:
    links = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
    return sum(os.readlink(link).startswith("socket:") for link in links if os.path.islink(link))


@asynccontextmanager
async def serving(host="127.0.0.1", port=0, handler=greet, **how):
    server = await asyncio.start_server(handler, host, port, **how)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@contextmanager
def silent(host: str = "127.0.0.1", port: int = 0):
    """A listener with a full backlog: connecting to it hangs."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(0)
        address = listening.getsockname()[:2]
        held = []
        try:
            for _ in range(4):
                sock = socket.socket(listening.family)
                sock.setblocking(False)
                sock.connect_ex(address)
                held.append(sock)
            time.sleep(0.02)
            yield address[1]
        finally:
            for sock in held:
                sock.close()


async def go(endpoint, names, tls=None, timeout_s=5.0):
    loop = asyncio.get_running_loop()
    return await connect(loop, Client, endpoint, tls, timeout_s, names)


async def hello(endpoint, names, tls=None):
    transport, protocol = await go(endpoint, names, tls)
    try:
        assert await protocol.got == b"hello"
        return transport.get_extra_info("peername")
    finally:
        transport.close()
        await asyncio.sleep(0.01)


# ---------------------------------------------------------------------------------------- ordering


@pytest.mark.parametrize(
    ("addresses", "order"),
    [
        (["::1", "::2", "1.1.1.1", "1.1.1.2"], ["::1", "1.1.1.1", "::2", "1.1.1.2"]),
        (["1.1.1.1", "::1", "::2"], ["1.1.1.1", "::1", "::2"]),
        (["1.1.1.1", "1.1.1.2"], ["1.1.1.1", "1.1.1.2"]),
        ([], []),
    ],
)
def test_families_take_turns(addresses, order):
    assert interleaved(addresses) == order


@given(st.lists(st.ip_addresses().map(str), max_size=12))
def test_no_address_is_lost(addresses):
    got = interleaved(addresses)
    assert sorted(got) == sorted(addresses)
    assert got[:1] == addresses[:1]


def test_endpoints_read_as_they_are_written_in_the_file():
    assert str(Endpoint("a", 80)) == "a:80"
    assert str(Endpoint("::1", 80)) == "[::1]:80"
    assert str(Endpoint(path="/run/a")) == "unix:/run/a"


# -------------------------------------------------------------------------------------- connecting


def test_one_address(run):
    async def main():
        async with serving() as port:
            assert await hello(Endpoint("a", port), Names("127.0.0.1")) == ("127.0.0.1", port)

    run(main())


def test_socket_options(run):
    async def main():
        async with serving() as port:
            transport, _ = await go(Endpoint("a", port), Names("127.0.0.1"))
            sock = transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
            transport.close()
            await asyncio.sleep(0.01)

    run(main())


def test_a_refused_address_is_followed_by_the_next_at_once(run, monkeypatch):
    monkeypatch.setattr(subject, "STAGGER_S", 60.0)

    async def main():
        async with serving() as port:
            names = Names("::1", "127.0.0.2", "127.0.0.1")
            assert await hello(Endpoint("a", port), names) == ("127.0.0.1", port)

    run(main())


def test_a_silent_address_is_overtaken(run):
    async def main():
        with silent("127.0.0.2") as port:
            async with serving(port=port):
                began = time.monotonic()
                names = Names("127.0.0.2", "127.0.0.1")
                assert await hello(Endpoint("a", port), names) == ("127.0.0.1", port)
                assert time.monotonic() - began > 0.19

    run(main())


def test_two_that_connect_in_one_turn_leave_one_open(run, monkeypatch):
    monkeypatch.setattr(subject, "STAGGER_S", 0.0)
    made: list[socket.socket] = []

    async def main():
        both = asyncio.Event()

        async def each(loop, address, port):
            sock = socket.socket()
            made.append(sock)
            await both.wait()
            return sock

        monkeypatch.setattr(subject, "_attempt", each)
        loop = asyncio.get_running_loop()
        loop.call_later(0.05, both.set)
        won = await subject._open_tcp(loop, ["127.0.0.1", "127.0.0.2"], 1)
        await asyncio.sleep(0.01)
        assert sorted(sock.fileno() == -1 for sock in made) == [False, True]
        won.close()

    run(main())


def test_unix_sockets(run, tmp_path):
    path = str(tmp_path / "socket")

    async def main():
        server = await asyncio.start_unix_server(greet, path)
        await hello(Endpoint(path=path), Names())
        server.close()

    run(main())


def test_a_unix_socket_with_a_full_backlog_is_waited_for(run, tmp_path):
    path = str(tmp_path / "socket")

    async def main():
        with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as first:
            listening.bind(path)
            listening.listen(0)
            first.connect(path)
            with pytest.raises(UpstreamFailed, match="no connection within") as caught:
                await go(Endpoint(path=path), Names(), timeout_s=0.05)
            assert caught.value.kind == "connect"
            loop = asyncio.get_running_loop()
            accepted = loop.call_later(0.05, lambda: held.append(listening.accept()[0]))
            held: list[socket.socket] = []
            transport, _ = await go(Endpoint(path=path), Names())
            transport.abort()
            await asyncio.sleep(0.01)
            accepted.cancel()
            for sock in held:
                sock.close()

    run(main())


# ---------------------------------------------------------------------------------------- failures


def test_refused(run):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port = sock.getsockname()[1]
        for names in (Names("127.0.0.1"), Names("127.0.0.1", "127.0.0.2")):
            with pytest.raises(UpstreamFailed, match="Connection refused") as caught:
                await go(Endpoint("a", port), names)
            assert caught.value.kind == "connect"
        with pytest.raises(UpstreamFailed, match="No such file") as caught:
            await go(Endpoint(path="/no/such/socket"), Names())
        assert caught.value.kind == "connect"

    run(main())


def test_silent_until_the_deadline(run):
    async def main():
        with silent() as port:
            for names in (Names("127.0.0.1"), Names("127.0.0.1", "127.0.0.1")):
                with pytest.raises(UpstreamFailed, match="no connection within 0[.]4 s") as caught:
                    await go(Endpoint("a", port), names, timeout_s=0.4)
                assert caught.value.kind == "connect"

    run(main())


def test_names_that_are_not_found_in_time_or_have_no_address(run):
    async def main():
        with pytest.raises(UpstreamFailed, match="its name was not found") as caught:
            await go(Endpoint("a", 1), Names("127.0.0.1", delay_s=5), timeout_s=0.05)
        assert caught.value.kind == "dns"
        with pytest.raises(UpstreamFailed) as caught:
            await go(Endpoint("a", 1), Names())
        assert caught.value.kind == "connect"

    run(main())


@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.1, 0.3])
def test_cancellation_closes_everything(run, after_s):
    async def main():
        loop = asyncio.get_running_loop()
        with silent("127.0.0.2") as port:
            names = Names("127.0.0.2", "127.0.0.2", "127.0.0.2")
            task = loop.create_task(go(Endpoint("a", port), names))
            await asyncio.sleep(after_s)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main())


# --------------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def server_tls(authority, name="a.example"):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def client_tls(authority, name="a.example"):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return Tls(context, name)


def test_tls(run, authority):
    async def main():
        async with serving(ssl=server_tls(authority)) as port:
            await hello(Endpoint("a", port), Names("127.0.0.1"), client_tls(authority))

    run(main())


def test_tls_refusals(run, authority):
    async def main():
        names = Names("127.0.0.1")
        async with serving(ssl=server_tls(authority)) as port:
            with pytest.raises(UpstreamFailed, match="Hostname mismatch") as caught:
                await go(Endpoint("a", port), names, client_tls(authority, "b.example"))
            assert caught.value.kind == "tls"
            with pytest.raises(UpstreamFailed, match="unable to get local issuer") as caught:
                await go(Endpoint("a", port), names, client_tls(trustme.CA()))
            assert caught.value.kind == "tls"
            await asyncio.sleep(0.05)
        async with serving() as port:
            with pytest.raises(UpstreamFailed) as caught:
                await go(Endpoint("a", port), names, client_tls(authority))
            assert caught.value.kind == "tls"
            await asyncio.sleep(0.05)

        async def slam(_, writer):
            writer.transport.abort()

        async with serving(handler=slam) as port:
            with pytest.raises(UpstreamFailed) as caught:
                await go(Endpoint("a", port), names, client_tls(authority))
            assert caught.value.kind == "tls"
            await asyncio.sleep(0.05)

    run(main())


def test_a_handshake_that_is_not_answered(run, authority):
    async def hush(reader, writer):
        await reader.read(-1)
        writer.close()

    async def main():
        async with serving(handler=hush) as port:
            with pytest.raises(UpstreamFailed, match="not established in time") as caught:
                await go(Endpoint("a", port), Names("127.0.0.1"), client_tls(authority), 0.2)
            assert caught.value.kind == "timeout"
            await asyncio.sleep(0.05)

    run(main())


def test_cancellation_at_each_turn_of_the_handshake_closes_everything(run, authority):
    async def main():
        loop = asyncio.get_running_loop()
        async with serving(ssl=server_tls(authority)) as port:
            for turns in range(40):
                task = loop.create_task(
                    go(Endpoint("a", port), Names("127.0.0.1"), client_tls(authority))
                )
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    transport, _ = await task
                    transport.abort()
                except asyncio.CancelledError:
                    pass
            await asyncio.sleep(0.2)

    run(main())

"""PROXY headers: whole, byte by byte, with a tail, and from a real HAProxy."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import struct
import subprocess
from functools import partial

import pytest
import trustme
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from headgate.wire.forwarded import UNIX_PEER
from headgate.wire.proxy_protocol import (
    BadProxyHeader,
    NeedMore,
    ProxyHeader,
    ProxyRefused,
    accept_with_proxy,
    crc32c,
    parse_proxy_header,
)
from tests.ports import free_port

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
TCP4 = (
    socket.inet_aton("192.0.2.1") + socket.inet_aton("198.51.100.2") + struct.pack(">HH", 1234, 443)
)
TCP6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1") * 2 + struct.pack(">HH", 1234, 443)


def v2(block: bytes, *, command: int = 0x21, family: int = 0x11) -> bytes:
    return SIGNATURE + bytes((command, family)) + struct.pack(">H", len(block)) + block


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack(">BH", kind, len(value)) + value


def with_crc(block: bytes) -> bytes:
    draft = v2(block + tlv(3, bytes(4)))
    return draft[:-4] + crc32c(draft).to_bytes(4, "big")


GOOD = {
    b"PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\r\n": ("192.0.2.1", 1234),
    b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n": ("255.255.255.255", 65535),
    b"PROXY TCP6 2001:db8::1 2001:db8::2 1234 443\r\n": ("2001:db8::1", 1234),
    b"PROXY TCP6 " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2) + b" 65535 65535\r\n": (
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        65535,
    ),
    b"PROXY UNKNOWN\r\n": None,
    b"PROXY UNKNOWN ffff:: anything 65535 65535\r\n": None,
    v2(TCP4): ("192.0.2.1", 1234),
    v2(TCP6, family=0x21): ("2001:db8::1", 1234),
    v2(bytes(216), family=0x31): None,
    v2(b"", command=0x20, family=0): None,
    v2(b"ignored, whatever it is", command=0x20): None,
    v2(b"ignored", family=0): None,
    v2(TCP4 + tlv(4, bytes(9)) + tlv(0xE0, b"") + tlv(5, bytes(128))): ("192.0.2.1", 1234),
    with_crc(TCP4 + tlv(0xEA, b"x")): ("192.0.2.1", 1234),
}


@pytest.mark.parametrize("data", GOOD)
def test_good_headers_whole_in_parts_and_with_a_tail(data):
    whole = parse_proxy_header(data)
    assert isinstance(whole, ProxyHeader)
    assert whole.source == GOOD[data]
    assert whole.size == len(data)
    assert parse_proxy_header(data + b"GET / HTTP/1.1\r\n\r\n") == whole
    for i in range(len(data)):
        part = parse_proxy_header(data[:i])
        assert isinstance(part, NeedMore)
        assert i < part.size <= len(data)


def test_what_version_2_tells_besides_the_addresses():
    data = v2(TCP4 + tlv(2, b"shop.example") + tlv(1, b"h2"))
    got = parse_proxy_header(data)
    assert got == ProxyHeader(
        2, len(data), ("192.0.2.1", 1234), ("198.51.100.2", 443), "shop.example", b"h2"
    )


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"\r\n\r\n\x00\r\nQUIX",
        b"\r\nGET",
        b"proxy TCP4",
        b"PROXY\tTCP4",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\n\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1234 443 \r\n",
        b"PROXY  TCP4 192.0.2.1 198.51.100.2 1234 443\r\n",
        b"PROXY TCP4 192.0.2.1  198.51.100.2 1234 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1234\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 01234 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 -1 443\r\n",
        b"PROXY TCP4 192.0.2.01 198.51.100.2 1234 443\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 1234 443\r\n",
        b"PROXY TCP6 192.0.2.1 198.51.100.2 1234 443\r\n",
        b"PROXY TCP6 2001:db8::1%1 2001:db8::2 1234 443\r\n",
        b"PROXY UDP4 192.0.2.1 198.51.100.2 1234 443\r\n",
        b"PROXY UNKNOWNX\r\n",
        b"PROXY UNKNOWN \x00\r\n",
        b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
        b"PROXY " + b"x" * 200,
        v2(TCP4, command=0x11),
        v2(TCP4, command=0x22),
        v2(TCP4, family=0x12),
        v2(TCP4, family=0x41),
        v2(TCP4[:-1]),
        v2(TCP4, family=0x21),
        v2(bytes(215), family=0x31),
        v2(TCP4 + b"\x04"),
        v2(TCP4 + b"\x04\x00"),
        v2(TCP4 + b"\x04\x00\x02x"),
        v2(TCP4 + tlv(3, b"\x00\x00\x00")),
        v2(TCP4 + tlv(3, b"\x00\x00\x00\x01")),
        v2(TCP4 + tlv(2, b"\xff")),
        v2(TCP4 + tlv(2, b"a\nb")),
        v2(TCP4 + tlv(2, b"a" * 256)),
        v2(TCP4 + tlv(5, bytes(129))),
        v2(TCP4 + tlv(4, bytes(4096))),
    ],
)
def test_bad_headers(data):
    assert isinstance(parse_proxy_header(data), BadProxyHeader)


def test_the_checksum_covers_every_byte():
    data = with_crc(TCP4 + tlv(0xEA, b"x"))
    for i in range(16, len(data)):
        broken = bytearray(data)
        broken[i] ^= 1
        got = parse_proxy_header(bytes(broken))
        assert not isinstance(got, ProxyHeader) or data[i : i + 1] == b"\x03"


def test_crc32c_of_the_usual_example():
    assert crc32c(b"123456789") == 0xE3069283


@given(
    st.binary(max_size=80), st.sampled_from([b"", b"PROXY ", SIGNATURE, SIGNATURE + b"\x21\x11"])
)
def test_parsing_never_raises_and_never_asks_for_too_much(data, start):
    got = parse_proxy_header(start + data)
    if isinstance(got, NeedMore):
        assert len(start + data) < got.size <= 16 + 4096


# --------------------------------------------------------------------------------------- the rim


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def runner(main):
        with asyncio.Runner(loop_factory=factory) as it:
            return it.run(main)

    return runner


ANYONE = {UNIX_PEER}


def pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, theirs


@pytest.mark.parametrize("data", GOOD)
def test_takes_exactly_the_header_off_the_socket(run, data):
    async def main():
        ours, theirs = pair()
        with ours, theirs:
            theirs.sendall(data + b"\nPROXY rest\r\n")
            got = await accept_with_proxy(ours, ANYONE, 5)
            assert isinstance(got, ProxyHeader)
            assert got.source == GOOD[data]
            assert ours.recv(100) == b"\nPROXY rest\r\n"

    run(main())


@pytest.mark.parametrize("data", [next(iter(GOOD)), v2(TCP4), b"PROXY UNKNOWN\r\n"])
def test_takes_the_header_byte_by_byte(run, data):
    async def main():
        ours, theirs = pair()
        with ours, theirs:
            task = asyncio.get_running_loop().create_task(accept_with_proxy(ours, ANYONE, 5))
            for i in range(len(data)):
                theirs.send(data[i : i + 1])
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            theirs.send(b"rest")
            assert isinstance(await task, ProxyHeader)
            assert ours.recv(100) == b"rest"

    run(main())


@pytest.mark.parametrize(
    ("send", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "does not begin"),
        (b"PROXY TCP4 x" + b"x" * 200, "107 bytes"),
        (b"PROXY TCP4 1.2.3.4 ", "ended before"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n" + b"x" * 10, "ended before"),
        (b"", "ended before"),
        (SIGNATURE + b"\x21", "ended before"),
    ],
)
def test_refuses_and_closes(run, send, reason):
    async def main():
        ours, theirs = pair()
        with ours, theirs:
            theirs.sendall(send)
            theirs.shutdown(socket.SHUT_WR)
            got = await accept_with_proxy(ours, ANYONE, 5)
            assert isinstance(got, ProxyRefused)
            assert reason in got.reason
            assert ours.fileno() == -1

    run(main())


def test_silence_is_refused_after_the_timeout(run):
    async def main():
        ours, theirs = pair()
        with ours, theirs:
            theirs.sendall(b"PROXY TCP4 ")
            got = await accept_with_proxy(ours, ANYONE, 0.05)
            assert got == ProxyRefused("no PROXY header in time")
            assert ours.fileno() == -1

    run(main())


def test_an_untrusted_sender_is_refused_unheard(run):
    async def main():
        ours, theirs = pair()
        with ours, theirs:
            got = await accept_with_proxy(ours, set(), 5)
            assert got == ProxyRefused("unix: is not a trusted proxy")
            assert ours.fileno() == -1

    run(main())


def test_cancellation_closes_the_socket(run):
    async def main():
        ours, theirs = pair()
        with ours, theirs:
            task = asyncio.get_running_loop().create_task(accept_with_proxy(ours, ANYONE, 5))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert ours.fileno() == -1
            theirs.settimeout(1)
            assert theirs.recv(1) == b""

    run(main())


# ----------------------------------------------------------------------------------- a real sender


class Answer(asyncio.Protocol):
    """Answers whatever arrives with what the PROXY header said."""

    def __init__(self, header: ProxyHeader) -> None:
        self.header = header

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        body = repr((self.header.version, self.header.source, self.header.authority)).encode()
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
            % (len(body), body)
        )
        self.transport.close()


@pytest.mark.integration
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    ("options", "version"),
    [
        ("send-proxy", 1),
        ("send-proxy-v2", 2),
        ("send-proxy-v2-ssl", 2),
        ("send-proxy-v2 proxy-v2-options crc32c,unique-id,authority", 2),
    ],
)
def test_haproxy_as_the_sender(run, tmp_path, options, version, tls):
    assert shutil.which("haproxy"), "haproxy is missing: apt-get install haproxy"
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("localhost").configure_cert(context)

    async def main():
        loop = asyncio.get_running_loop()
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        front, back = free_port(), listening.getsockname()[1]
        config = tmp_path / "haproxy.cfg"
        config.write_text(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n"
            f"listen l\n bind 127.0.0.1:{front}\n"
            f" server s 127.0.0.1:{back} {options}\n"
        )

        async def serve():
            while True:
                sock, _ = await loop.sock_accept(listening)
                sock.setblocking(False)
                got = await accept_with_proxy(sock, {"127.0.0.1"}, 5)
                if isinstance(got, ProxyHeader):
                    try:
                        await loop.connect_accepted_socket(partial(Answer, got), sock, ssl=context)
                    except OSError:  # the probe below, which only connects
                        pass

        haproxy = subprocess.Popen(["haproxy", "-db", "-q", "-f", str(config)])
        try:
            for _ in range(100):
                try:
                    socket.create_connection(("127.0.0.1", front)).close()
                    break
                except OSError:
                    await asyncio.sleep(0.05)
            scheme = "https" if tls else "http"
            curl = await asyncio.create_subprocess_exec(
                "curl", "-sk", "--max-time", "10", f"{scheme}://127.0.0.1:{front}/",
                stdout=subprocess.PIPE,
            )  # fmt: skip
            serving = loop.create_task(serve())
            out, _ = await curl.communicate()
            serving.cancel()
            assert f"({version}, ('127.0.0.1', " in out.decode()
        finally:
            haproxy.terminate()
            haproxy.wait()
            listening.close()

    run(main())

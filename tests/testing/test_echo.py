from __future__ import annotations

import asyncio
import json
import socket
import urllib.request

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from headgate.testing import EchoServer


async def _talk(echo: EchoServer, sent: bytes, *, step: int = 0) -> bytes:
    """Send bytes (all at once, or `step` at a time), close our side, read to the end."""
    reader, writer = await asyncio.open_connection(echo.host, echo.port)
    for at in range(0, len(sent), step or len(sent)):
        writer.write(sent[at : at + (step or len(sent))])
        await writer.drain()
        if step:
            await asyncio.sleep(0)
    writer.write_eof()
    got = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return got


def run(scenario):
    async def main():
        async with EchoServer("users") as echo:
            return await scenario(echo)

    return asyncio.run(main())


def _body(answer: bytes) -> dict:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


GET = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n"


def test_it_describes_what_it_received():
    sent = b"POST /a/b?c=d HTTP/1.1\r\nHost: x\r\nX-One: 1\r\nX-One: 2\r\nContent-Length: 5\r\n\r\nhello"
    said = _body(run(lambda echo: _talk(echo, sent)))
    assert said["service"] == "users"
    assert (said["method"], said["path"], said["query"]) == ("POST", "/a/b", "c=d")
    assert said["headers"]["x-one"] == "1, 2"
    assert (said["body"], said["body_bytes"], said["connection"]) == ("hello", 5, 1)


@pytest.mark.parametrize("step", [0, 1, 7])
def test_pipelined_requests_are_answered_in_order_however_the_bytes_are_cut(step):
    sent = (
        GET % b"/first"
        + b"POST /second HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: t\r\n\r\n"
        + GET % b"/third"
    )
    got = run(lambda echo: _talk(echo, sent, step=step))
    assert got.count(b"HTTP/1.1 200 OK") == 3
    assert got.index(b"/first") < got.index(b"/second") < got.index(b"/third")
    assert b'"body": "abcde"' in got
    assert b'"x-trailer": "t"' in got


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nHost: a\r\nBad Name: 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\x00\r\n\r\n", 400),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\nabc", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a", 400),
    ],
)
def test_a_malformed_request_is_refused_and_the_connection_closed(sent, status):
    got = run(lambda echo: _talk(echo, sent + GET % b"/smuggled"))
    assert got.startswith(b"HTTP/1.1 %d" % status)
    assert b"connection: close" in got
    assert b"/smuggled" not in got


def test_head_is_answered_without_a_body_and_with_its_length():
    got = run(lambda echo: _talk(echo, b"HEAD /bytes/7 HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert b"content-length: 7" in got
    assert got.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("code", [204, 304])
def test_an_answer_that_has_no_body_has_none(code):
    got = run(lambda echo: _talk(echo, GET % (b"/status/%d" % code)))
    assert got.startswith(b"HTTP/1.1 %d " % code)
    assert got.endswith(b"\r\n\r\n")
    assert b"content-type" not in got


def test_an_old_client_gets_an_answer_that_ends_with_the_connection():
    got = run(lambda echo: _talk(echo, b"GET /stream/2?tick=0 HTTP/1.0\r\n\r\n"))
    assert b"transfer-encoding" not in got
    assert got.endswith(b"\r\n\r\npiece 0\npiece 1\n")


def test_the_special_paths_answer_as_written():
    async def scenario(echo):
        get = lambda path: _talk(echo, GET % path)  # noqa: E731
        assert (await get(b"/status/503")).startswith(b"HTTP/1.1 503 ")
        assert (await get(b"/status/199")).startswith(b"HTTP/1.1 400 ")
        assert (await get(b"/bytes/100000")).partition(b"\r\n\r\n")[2] == (bytes(range(256)) * 391)[
            :100_000
        ]
        assert (await get(b"/stream/2?tick=0")).endswith(
            b"8\r\npiece 0\n\r\n8\r\npiece 1\n\r\n0\r\n\r\n"
        )
        assert (await get(b"/drip/3?tick=0")).endswith(b"content-type: text/plain\r\n\r\n012")
        assert (await get(b"/sse?n=1")).count(b"event: tick") == 1
        assert (await get(b"/sse?n=much")).startswith(b"HTTP/1.1 400 ")
        assert (await get(b"/delay/0.01")).startswith(b"HTTP/1.1 200 ")
        assert (await get(b"/health/ready")).startswith(b"HTTP/1.1 200 ")
        assert await get(b"/close") == b""
        assert (await get(b"/ws")).startswith(b"HTTP/1.1 426 ")
        upload = b"PUT /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
        assert _body(await _talk(echo, upload))["sha256"].startswith("ba7816bf")

    run(scenario)


def test_a_client_that_expects_100_is_asked_for_its_body_only_when_it_is_read():
    async def scenario(echo):
        head = b"PUT %b HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        reader, writer = await asyncio.open_connection(echo.host, echo.port)
        writer.write(head % b"/upload")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
        writer.close()
        unread = await _talk(echo, head % b"/health")
        assert unread.startswith(b"HTTP/1.1 200 ")

    run(scenario)


def test_websocket_frames_come_back_as_they_were_sent():
    async def scenario(echo):
        url = f"ws://{echo.host}:{echo.port}/ws"
        async with connect(url, subprotocols=[Subprotocol("chat")], max_size=None) as socket_:
            assert socket_.subprotocol == "chat"
            for message in ("", "hello", b"\x00\x01" * 200, "x" * 100_000):
                await socket_.send(message)
                assert await socket_.recv() == message
            await (await socket_.ping())
        assert socket_.close_code == 1000

    run(scenario)


def test_it_keeps_what_it_saw_and_stops_with_connections_open():
    async def scenario(echo):
        reader, writer = await asyncio.open_connection(echo.host, echo.port)
        writer.write(GET % b"/kept?a=b")
        await reader.readuntil(b"\r\n\r\n")
        assert echo.seen[-1].target == "/kept?a=b"
        assert echo.seen[-1].get("host") == "x"
        assert echo.open_connections == 1
        await asyncio.wait_for(echo.stop(), 5)
        assert echo.open_connections == 0
        writer.close()

    run(scenario)


def test_a_plain_test_can_use_it_from_its_thread(tmp_path):
    with EchoServer("plain") as echo, urllib.request.urlopen(echo.url + "/x") as answer:
        assert json.load(answer)["service"] == "plain"
    with EchoServer(unix=tmp_path / "echo.sock") as echo:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(tmp_path / "echo.sock"))
            peer.sendall(b"GET /u HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            got = b""
            while piece := peer.recv(65536):
                got += piece
        assert b'"client": "unix"' in got


def test_a_port_that_is_taken_is_told_to_the_caller():
    with EchoServer() as first, pytest.raises(OSError, match="in use"), EchoServer(port=first.port):
        pass

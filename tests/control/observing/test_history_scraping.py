"""What a service shows is asked for within bounds, however it is packed."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib

import httpx
import pytest

from headgate.control.observing import scraping
from headgate.control.observing.shares import shared, shared_by_kind

pytestmark = pytest.mark.integration
TEXT = b"# TYPE hits_total counter\nhits_total 5\n"


def shown(body: bytes, encoding: str = "") -> str:
    """What is read of an instance that shows this."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            packed = f"content-encoding: {encoding}\r\n" if encoding else ""
            head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n{packed}\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        except OSError:
            pass  # it has gone
        finally:
            writer.close()

    async def main() -> str:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            async with asyncio.timeout(30):
                return await scraping._text_of(httpx, f"http://127.0.0.1:{port}", "/metrics")

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("body", "encoding"),
    [(TEXT, ""), (TEXT, "identity"), (gzip.compress(TEXT), "gzip"), (b"", "")],
    ids=["plain", "identity", "gzip", "nothing"],
)
def test_it_is_read_plain_and_packed(body, encoding):
    assert shown(body, encoding) == (TEXT.decode() if body else "")


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(TEXT)[:-9], "gzip"),
        (b"no gzip at all", "gzip"),
        (TEXT, "br"),
        (zlib.compress(TEXT), "deflate"),
        (b"\xff\xfe", ""),
        (b"x" * (scraping._MAX_BYTES + 1), ""),
    ],
    ids=["torn", "spoilt", "unasked", "deflate", "no-text", "much"],
)
def test_what_cannot_be_read_is_refused(body, encoding):
    with pytest.raises(ValueError, match="it "):
        shown(body, encoding)


def test_a_small_piece_that_becomes_very_much_is_not_unpacked():
    bomb = gzip.compress(bytes(60_000_000), 9)
    assert len(bomb) < 64 * 1024  # one piece of what comes
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="too much"):
            shown(bomb, "gzip")
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("wanted", "room", "each"),
    [
        ({"a": 5, "b": 7}, 20, {"a": 5, "b": 7}),
        ({"a": 50, "b": 7}, 20, {"a": 13, "b": 7}),
        ({"a": 50, "b": 70}, 20, {"a": 10, "b": 10}),
        ({"a": 1, "b": 70, "c": 80}, 20, {"a": 1, "b": 9, "c": 10}),
        ({"a": 3}, 0, {"a": 0}),
        ({}, 9, {}),
    ],
    ids=["all", "one-large", "alike", "rest", "none", "nobody"],
)
def test_room_is_shared_by_who_wants_little_first(wanted, room, each):
    assert shared(wanted, room) == each


def test_many_of_one_kind_leave_the_other_its_half():
    wanted = {f"otlp {n}": 5 for n in range(100)} | {"scrape a": 30, "scrape b": 90}
    found = shared_by_kind(wanted, 100)
    assert found["scrape a"] + found["scrape b"] == 50
    assert found["scrape a"] == 25
    assert sum(found.values()) == 100

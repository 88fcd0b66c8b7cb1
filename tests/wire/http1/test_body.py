"""Where a body ends: the readers on whole messages. How they are cut stands in `test_splits`."""

from __future__ import annotations

import pytest

from headgate.wire.http1.body import (
    ChunkedReader,
    LengthReader,
    UntilCloseReader,
    chunk,
    last_chunk,
)
from headgate.wire.http1.head import HeadLimits

TAIL = b"GET /next"


@pytest.mark.parametrize(
    "data, payload, trailers",
    [
        (b"0\r\n\r\n", b"", ()),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello", ()),
        (b"5\r\nhello\r\n6\r\n world\r\n000\r\n\r\n", b"hello world", ()),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789", ()),
        (b"a;x\r\n0123456789\r\n0;y=z\r\n\r\n", b"0123456789", ()),
        (b'1 ; q="a;b\\"" \r\n', None, ()),
        (b'1;q="a;b\\""\r\nx\r\n0\r\n\r\n', b"x", ()),
        (b"0\r\nX-T: 1\r\nX-U:2 \r\n\r\n", b"", ((b"x-t", b"1"), (b"x-u", b"2"))),
        (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n", ()),
        (b"", None, ()),
        (b"\r\n", None, ()),
        (b"-1\r\n", None, ()),
        (b"+5\r\nhello\r\n", None, ()),
        (b"0x5\r\nhello\r\n", None, ()),
        (b"5_0\r\n", None, ()),
        (b" 5\r\nhello\r\n", None, ()),
        (b"5 \r\nhello\r\n0\r\n\r\n", None, ()),
        (b"5\nhello\r\n", None, ()),
        (b"5\r\nhello!\r\n", None, ()),
        (b"5\r\nhello0\r\n\r\n", None, ()),
        (b"10000000000000000\r\n", None, ()),
        (b"5;" + b"x" * 300 + b"\r\n", None, ()),
        (b"5;a\rb\r\n", None, ()),
        (b"0\r\nX T: 1\r\n\r\n", None, ()),
        (b"0\r\nX: a\nb\r\n\r\n", None, ()),
    ],
)
def test_chunked_bodies(data, payload, trailers):
    reader = ChunkedReader(HeadLimits())
    got, rest = reader.feed(data + TAIL if payload is not None else data)
    if payload is None:
        assert reader.refusal is not None or not reader.is_done
    else:
        assert reader.is_done
        assert (got, rest, reader.trailers) == (payload, TAIL, trailers)


def test_extensions_cannot_be_sent_without_end():
    reader = ChunkedReader(HeadLimits())
    piece = b"1;" + b"x" * 200 + b"\r\ny\r\n"
    for _ in range(1000):
        reader.feed(piece)
        if reader.refusal is not None:
            break
    assert reader.refusal is not None


def test_trailers_are_bounded():
    reader = ChunkedReader(HeadLimits(head_bytes=1000))
    reader.feed(b"0\r\n")
    for _ in range(1000):
        reader.feed(b"X: yyyyyyyyyyyyyyyyyyyyyy\r\n")
        if reader.refusal is not None:
            break
    assert reader.refusal is not None
    reader = ChunkedReader(HeadLimits(field_count=3))
    reader.feed(b"0\r\n" + b"X: y\r\n" * 4 + b"\r\n")
    assert reader.refusal is not None


def test_a_length_is_counted_down():
    reader = LengthReader(5)
    assert reader.feed(b"abc") == (b"abc", b"")
    assert not reader.is_done
    assert reader.feed(b"de" + TAIL) == (b"de", TAIL)
    assert reader.is_done
    assert LengthReader(0).is_done


def test_until_close_never_ends_by_itself():
    reader = UntilCloseReader()
    assert reader.feed(b"0\r\n\r\n") == (b"0\r\n\r\n", b"")
    assert not reader.is_done


def test_what_we_write():
    assert chunk(b"hello") == b"5\r\nhello\r\n"
    assert chunk(bytes(255))[:4] == b"ff\r\n"
    assert last_chunk() == b"0\r\n\r\n"
    assert last_chunk(((b"x", b"1"), (b"y", b""))) == b"0\r\nx: 1\r\ny: \r\n\r\n"

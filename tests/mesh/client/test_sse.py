from __future__ import annotations

import pytest

from headgate.mesh.client.sse import Event, EventReader

STREAM = (
    b": hello\n\nid: e-1\nevent: all\ndata: {\ndata: }\n\n"
    b"event: change\r\ndata: one\r\n\r\nid: e-2\rdata:two\r\r"
    b"retry: 5\nunknown\ndata\n\nevent: lost\n\n"
)
EVENTS = [
    Event("all", "{\n}", "e-1"),
    Event("change", "one", "e-1"),
    Event("message", "two", "e-2"),
    Event("message", "", "e-2"),
]


def test_a_stream_is_read_whole():
    assert EventReader().feed(STREAM) == EVENTS


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_stream_is_read_in_pieces(size):
    reader = EventReader()
    found = []
    for at in range(0, len(STREAM), size):
        found += reader.feed(STREAM[at : at + size])
    assert found == EVENTS


def test_an_event_without_its_empty_line_waits():
    reader = EventReader()
    assert reader.feed(b"data: a\n") == []
    assert reader.feed(b"\n") == [Event("message", "a", "")]


def test_bytes_that_are_no_text_do_not_end_the_stream():
    assert EventReader().feed(b"data: \xff\xfe\n\n")[0].data == "��"


def test_an_id_with_a_null_is_passed_over():
    assert EventReader().feed(b"id: a\nid: b\0\ndata: x\n\n")[0].id == "a"


@pytest.mark.parametrize("piece", [b"data: aaaaaaaaaaaa", b"data: aaaa\ndata: aaaa\ndata: aaaa\n"])
def test_an_event_that_does_not_end_is_refused(piece):
    with pytest.raises(ValueError, match="more than 10 bytes"):
        EventReader(most=10).feed(piece)

"""Headers: a multi-map that cannot break a message."""

from __future__ import annotations

import pytest

from headgate.gateway.filters import Headers

RAW = ((b"accept", b"*/*"), (b"x-a", b"1"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"))


def test_reads_are_case_insensitive_and_keep_order():
    headers = Headers(RAW)
    assert headers.get("X-A") == "1"
    assert headers.get("x-b") is None
    assert headers.get("x-b", "none") == "none"
    assert headers.get_all("Set-Cookie") == ["a=1", "b=2"]
    assert "ACCEPT" in headers
    assert "x-b" not in headers
    assert 7 not in headers
    assert len(headers) == 4
    assert next(headers.items()) == ("accept", "*/*")


def test_set_takes_the_place_of_all_fields_of_the_name():
    headers = Headers(RAW)
    headers.set("Set-Cookie", " c=3\t")
    assert headers.raw == [(b"accept", b"*/*"), (b"x-a", b"1"), (b"set-cookie", b"c=3")]
    headers.set("x-new", "é")
    assert headers.raw[-1] == (b"x-new", b"\xe9")


def test_add_remove_and_rename():
    headers = Headers(RAW)
    headers.add("X-A", "2")
    headers.remove("set-cookie")
    headers.remove("absent")
    headers.rename("x-a", "X-B")
    assert headers.raw == [(b"accept", b"*/*"), (b"x-b", b"1"), (b"x-b", b"2")]


def test_edits_leave_a_shared_head_alone():
    headers = Headers(RAW)
    headers.remove("accept")
    assert RAW[0] == (b"accept", b"*/*")


@pytest.mark.parametrize(
    "value", ["a\r\nx: y", "a\nb", "a\rb", "a\0b", "a\x7fb", "a\x1bb", "snow \u2603", "a\x0b"]
)
def test_values_that_break_framing_are_refused(value):
    headers = Headers()
    with pytest.raises(ValueError, match="header value"):
        headers.set("x-a", value)
    with pytest.raises(ValueError, match="header value"):
        headers.add("x-a", value)
    assert headers.raw == []


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a:", ":path", "a\r\n", "a\n", "ä", "x(y)", "Content-Length", "transfer-encoding",
     "Transfer_Encoding", "connection", "Host", "keep-alive", "upgrade", "te", "trailer"],
)  # fmt: skip
def test_names_that_break_framing_are_refused(name):
    headers = Headers(RAW)
    for change in (
        lambda: headers.set(name, "1"),
        lambda: headers.add(name, "1"),
        lambda: headers.rename("x-a", name),
    ):
        with pytest.raises(ValueError, match="header"):
            change()
    assert tuple(headers.raw) == RAW


def test_repr_tells_no_values():
    assert "a=1" not in repr(Headers(RAW))

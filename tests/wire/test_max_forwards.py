"""How many more hops: RFC 9110 7.6.2."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.wire.max_forwards import BAD_MAX_FORWARDS, counted_down, hops_left


def fields(*values: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"a", b"1"), *((b"max-forwards", value) for value in values), (b"z", b"2")]


@pytest.mark.parametrize(
    ("values", "left"),
    [
        ((), None),
        ((b"0",), 0),
        ((b"000",), 0),
        ((b"1",), 1),
        ((b"007",), 7),
        ((b"3", b"3"), 3),
        ((b"999999999",), 999_999_999),
        ((b"9" * 5000,), 1_000_000_000),
        ((b"3", b"0"), BAD_MAX_FORWARDS),
        ((b"",), BAD_MAX_FORWARDS),
        ((b"-1",), BAD_MAX_FORWARDS),
        ((b"+1",), BAD_MAX_FORWARDS),
        ((b"1, 1",), BAD_MAX_FORWARDS),
        ((b"1_0",), BAD_MAX_FORWARDS),
        ((b"0x1",), BAD_MAX_FORWARDS),
        (("\u0661".encode(),), BAD_MAX_FORWARDS),
        ((b"\xb2",), BAD_MAX_FORWARDS),
    ],
)
def test_what_a_request_may_take(values, left):
    assert hops_left(fields(*values)) == left


@pytest.mark.parametrize(
    ("values", "sent"),
    [
        ((), ()),
        ((b"5",), (b"4",)),
        ((b"010",), (b"9",)),
        ((b"3", b"3"), (b"2",)),
        ((b"9" * 30,), (b"999999999",)),
        ((b"x",), (b"x",)),
    ],
)
def test_what_the_next_hop_is_told(values, sent):
    assert counted_down(fields(*values)) == fields(*sent)


@given(st.integers(1, 10**12), st.integers(1, 20))
def test_every_hop_makes_it_less_until_it_ends(start, hops):
    headers = fields(b"%d" % start)
    for _ in range(hops):
        before = hops_left(headers)
        if before == 0:
            break
        headers = counted_down(headers)
        after = hops_left(headers)
        assert isinstance(before, int)
        assert isinstance(after, int)
        assert after == before - 1

"""The HTTP/1.1 parsers fed whole, in any pieces, byte by byte, and with a tail.

How the kernel cuts a stream must never decide anything: not what is accepted, not where a
message ends.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.gateway.upstream_h1 import render_request
from headgate.wire.http1.body import (
    ChunkedReader,
    LengthReader,
    UntilCloseReader,
    chunk,
    last_chunk,
)
from headgate.wire.http1.head import (
    HeadLimits,
    judge_partial,
    parse_request_head,
    parse_response_head,
)
from headgate.wire.message import Forward, Refusal, RequestHead, ResponseHead
from tests.wire.corpus.requests import CASES
from tests.wire.corpus.responses import CASES as RESPONSES
from tests.wire.strict_http import read_request, read_response

LIMITS = HeadLimits()
TAIL = b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n"
CHUNKED_BODIES = [
    case.raw.partition(b"\r\n\r\n")[2]
    for case in CASES
    if case.id.startswith(("chunk", "trailer")) and len(case.raw) < 2000
]


def feed(reader, pieces):
    """Payload, rest, and the refusal if there was one."""
    payload = b""
    for at, piece in enumerate(pieces):
        got, rest = reader.feed(piece)
        payload += got
        if getattr(reader, "refusal", None) is not None:
            return payload, b"", reader.refusal
        if reader.is_done:
            return payload, rest + b"".join(pieces[at + 1 :]), None
        assert not rest
    return payload, None, None


def cut(data, places):
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in zip(ends, ends[1:], strict=False)]


PLACES = st.lists(st.integers(0, 5000), max_size=8)


def same(whole, parts):
    if whole[2] is not None or parts[2] is not None:
        # How much of the payload came before the fault may differ, the verdict may not.
        return (whole[2] is None) == (parts[2] is None)
    return whole == parts


@pytest.mark.parametrize("body", CHUNKED_BODIES, ids=repr)
@pytest.mark.parametrize("tail", [b"", TAIL])
def test_a_chunked_body_reads_the_same_byte_by_byte(body, tail):
    data = body + tail
    whole = feed(ChunkedReader(LIMITS), [data])
    bytewise = feed(ChunkedReader(LIMITS), [data[at : at + 1] for at in range(len(data))])
    assert same(whole, bytewise)


@settings(max_examples=300)
@given(st.sampled_from(CHUNKED_BODIES), st.sampled_from([b"", TAIL]), PLACES)
def test_a_chunked_body_reads_the_same_however_it_is_cut(body, tail, places):
    data = body + tail
    whole = feed(ChunkedReader(LIMITS), [data])
    parts = ChunkedReader(LIMITS)
    assert same(whole, feed(parts, cut(data, places)))


NAMES = st.text("abcxyz-_09", min_size=1, max_size=10).map(lambda s: b"x-" + s.encode())
VALUES = st.binary(max_size=20).map(
    lambda b: bytes(c for c in b if c == 9 or 0x20 <= c < 0x7F or c >= 0x80).strip(b" \t")
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=4).filter(
    lambda fields: not any(b"_" in name for name, _ in fields)
)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), FIELDS, PLACES)
def test_what_we_chunk_is_read_back_by_us_and_by_the_strict_reader(pieces, trailers, places):
    coded = b"".join(chunk(piece) for piece in pieces) + last_chunk(tuple(trailers))
    payload, rest, refusal = feed(reader := ChunkedReader(LIMITS), cut(coded + TAIL, places))
    assert (payload, rest, refusal) == (b"".join(pieces), TAIL, None)
    assert reader.trailers == tuple(trailers)
    head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    message = read_request(head + coded + TAIL)
    assert message.body == payload
    assert message.trailers == trailers
    assert message.end == len(head + coded)


@given(st.binary(max_size=50), st.integers(0, 60), PLACES)
def test_a_body_of_known_length_ends_there(data, length, places):
    reader = LengthReader(length)
    pieces = cut(data, places)
    if length == 0:
        assert reader.is_done
        return
    payload, rest, _ = feed(reader, pieces)
    if len(data) < length:
        assert (payload, rest) == (data, None)
        assert not reader.is_done
    else:
        assert (payload, rest) == (data[:length], data[length:])


@given(st.binary(max_size=50), PLACES)
def test_a_body_until_close_is_everything(data, places):
    assert feed(UntilCloseReader(), cut(data, places))[0] == data


HEADS = [case.raw[: case.raw.index(b"\r\n\r\n") + 4] for case in CASES if b"\r\n\r\n" in case.raw]


@pytest.mark.parametrize("block", HEADS, ids=lambda block: repr(block[:60]))
def test_a_head_that_will_be_taken_is_never_refused_half_way(block):
    """And one that is refused half way would have been refused whole."""
    early = [
        refusal
        for end in range(1, len(block) - 3, max(1, len(block) // 400))
        if (refusal := judge_partial(block[:end], LIMITS)) is not None
    ]
    if isinstance(parse_request_head(block, LIMITS, "http"), RequestHead):
        assert not early
    if early:
        assert isinstance(parse_request_head(block, LIMITS, "http"), Refusal)


@pytest.mark.parametrize(
    "case", [case for case in RESPONSES if b"\r\n\r\n" in case.raw], ids=lambda case: case.id
)
def test_a_response_head_that_will_be_taken_is_never_refused_half_way(case):
    block = case.raw[: case.raw.index(b"\r\n\r\n") + 4]
    early = any(
        judge_partial(block[:end], LIMITS) is not None
        for end in range(1, len(block) - 3, max(1, len(block) // 400))
    )
    if isinstance(parse_response_head(block, LIMITS), ResponseHead):
        assert not early


def forward_of(head: RequestHead) -> Forward:
    return Forward(
        head.method,
        head.target,
        head.authority or "instance",
        head.headers,
        length=head.length,
        upgrade=head.upgrade,
        expects_continue=head.expects_continue,
    )


def check_forward(head: RequestHead) -> None:
    """What is written for a head that was taken is one strict request and says the same."""
    body = chunk(b"hello") + last_chunk() if head.length < 0 else b"x" * head.length
    sent = render_request(forward_of(head)) + b"\r\n" + body
    message = read_request(sent + TAIL)
    assert message.end == len(sent)
    assert message.method == head.method.encode()
    assert message.target == head.target.encode()
    names = [name for name, _ in message.fields]
    hops = {b"connection", b"upgrade"} if head.upgrade else set()
    forbidden = {b"te", b"keep-alive", b"proxy-connection", b"http2-settings"}
    assert not (forbidden | {b"connection", b"upgrade"}).difference(hops).intersection(names)


@pytest.mark.parametrize("block", HEADS, ids=lambda block: repr(block[:60]))
def test_what_is_sent_for_a_head_of_the_corpus_is_strict(block):
    head = parse_request_head(block, LIMITS, "http")
    if isinstance(head, RequestHead) and head.length < 100_000:
        check_forward(head)


@st.composite
def broken(draw, blocks):
    """A head of the corpus with a few bytes changed."""
    data = bytearray(draw(st.sampled_from(blocks)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(len(data) - 5, 0)))
        until = at + draw(st.integers(0, 3))
        data[at:until] = draw(
            st.sampled_from(
                [b"", b" ", b"\t", b"\r", b"\n", b"\r\n", b":", b",", b"_", b"\0", b"1", b"A"]
            )
        )
    return bytes(data)


@settings(max_examples=1000)
@given(broken([block for block in HEADS if len(block) < 400]))
def test_whatever_is_taken_is_sent_as_one_strict_request(data):
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return
    head = parse_request_head(data[: end + 4], LIMITS, "http")
    if isinstance(head, RequestHead) and head.length < 100_000:
        check_forward(head)


RESPONSE_HEADS = [
    case.raw[: case.raw.index(b"\r\n\r\n") + 4]
    for case in RESPONSES
    if b"\r\n\r\n" in case.raw and len(case.raw) < 400
]


@settings(max_examples=1000)
@given(broken(RESPONSE_HEADS))
def test_a_response_head_that_is_taken_says_one_thing(data):
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return
    head = parse_response_head(data[: end + 4], LIMITS)
    if not isinstance(head, ResponseHead):
        return
    assert not (head.chunked and head.length >= 0)
    block = b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason)
    block += b"".join(b"%b: %b\r\n" % field for field in head.headers) + b"\r\n"
    message = read_response(block, closed=True)
    assert not {n for n, _ in message.fields} & {
        b"content-length",
        b"transfer-encoding",
        b"connection",
    }

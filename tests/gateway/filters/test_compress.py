"""The compress policy: negotiation, when not to, and streams that decode at every flush."""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
import zlib

import brotli  # type: ignore[import-untyped]  # ships no types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.config.policies import CompressSpec
from headgate.gateway.filters import FilterContext
from headgate.gateway.filters.accept import choose_coding
from headgate.gateway.filters.compress import Compress
from headgate.gateway.filters.encoders import ENCODERS

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

OURS = ("zstd", "br", "gzip")
BODY = json.dumps([{"id": n, "name": f"item {n}"} for n in range(200)]).encode()
JSON = (b"content-type", b"application/json; charset=utf-8")


async def value_of(got):
    return await got if inspect.isawaitable(got) else got


class Decoder:
    def __init__(self, coding):
        if coding == "gzip":
            stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
            self.feed = stream.decompress
            self.is_done = lambda: stream.eof
        elif coding == "br":
            stream = brotli.Decompressor()
            self.feed = stream.process
            self.is_done = stream.is_finished
        else:
            zstd_stream = zstd.ZstdDecompressor()
            self.feed = zstd_stream.decompress
            self.is_done = lambda: zstd_stream.eof


@pytest.mark.parametrize(
    "accept, coding",
    [
        (None, None),
        ("", None),
        ("gzip", "gzip"),
        ("GZip", "gzip"),
        ("x-gzip", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip, deflate, br", "br"),
        ("deflate", None),
        ("gzip;q=0", None),
        ("gzip;q=0.000", None),
        ("gzip;q=0.5, br;q=0.4", "gzip"),
        ("gzip ; q=0.5 , br ; q=0.9", "br"),
        ("br;Q=0.1", "br"),
        ("*", "zstd"),
        ("*;q=0", None),
        ("*;q=0, gzip", "gzip"),
        ("gzip;q=0.5, *", "zstd"),
        ("zstd;q=0, br;q=0, *", "gzip"),
        ("identity", None),
        ("identity, gzip", "gzip"),
        ("identity;q=1, gzip;q=0.5", None),
        ("identity;q=0.5, gzip;q=0.8", "gzip"),
        ("identity;q=0", None),
        ("identity;q=0, br", "br"),
        ("identity;q=0, *;q=0", None),
        ("gzip;q=1.5", None),
        ("gzip;q=0.1234", None),
        ("gzip;q=", None),
        ("gzip;level=9", None),
        ("gzip;;q=1", None),
        (",,gzip,,", "gzip"),
        ("gzip;q=0, gzip", None),
        ("\x00gzip", None),
    ],
)
def test_negotiation(accept, coding):
    assert choose_coding(accept, OURS) == coding


@given(st.text())
def test_negotiation_never_raises(accept):
    assert choose_coding(accept, OURS) in {None, *OURS}


@pytest.fixture
def answer(make_request, make_response):
    """Send a response's chunks through the filter and return what the client gets."""

    def run(
        chunks=(BODY,), *, accept="gzip", spec=None, headers=(JSON,), status=200, length=-1,
        request_headers=(), **changes,
    ):  # fmt: skip
        compress = Compress(spec or CompressSpec(), FilterContext("r", "s"))
        asked = [(b"accept-encoding", accept.encode())] if accept is not None else []
        request = make_request([*asked, *request_headers], **changes)
        response = make_response(headers, status, length)
        compress.on_response(request, response)

        async def feed():
            out = []
            for at, chunk in enumerate(chunks):
                got = compress.on_response_body(request, response, chunk, at == len(chunks) - 1)
                out.append(await value_of(got))
            return out

        return response, asyncio.run(feed())

    return run


@pytest.mark.parametrize("coding", OURS)
@pytest.mark.parametrize("length", [-1, len(BODY)])
@pytest.mark.parametrize("size", [1, 7, 1000, len(BODY)])
def test_a_body_survives_any_split(answer, coding, length, size):
    chunks = [BODY[at : at + size] for at in range(0, len(BODY), size)]
    response, out = answer(chunks, accept=coding, length=length)
    assert response.length == -1
    assert response.headers.get("content-encoding") == coding
    decoder = Decoder(coding)
    assert b"".join(decoder.feed(piece) for piece in out if piece) == BODY
    assert decoder.is_done()
    if length > 0:
        assert sum(map(len, out)) < len(BODY) / 2


@pytest.mark.parametrize("coding", OURS)
def test_an_empty_last_call_ends_the_stream(answer, coding):
    _, out = answer([BODY, b""], accept=coding)
    decoder = Decoder(coding)
    assert b"".join(decoder.feed(piece) for piece in out if piece) == BODY
    assert decoder.is_done()


@pytest.mark.parametrize("coding", OURS)
def test_an_empty_body_of_unknown_length_is_a_whole_stream(answer, coding):
    _, out = answer([b""], accept=coding)
    decoder = Decoder(coding)
    assert decoder.feed(out[0]) == b""
    assert decoder.is_done()


@pytest.mark.parametrize("coding", OURS)
def test_events_are_not_held_back(answer, coding):
    events = [f"data: {n}\n\n".encode() for n in range(50)]
    _, out = answer(events, accept=coding, headers=((b"content-type", b"text/event-stream"),))
    decoder = Decoder(coding)
    for event, piece in zip(events, out):
        assert decoder.feed(piece) == event


@pytest.mark.parametrize("coding", OURS)
def test_a_large_chunk_leaves_the_loop_room(coding, make_request, make_response):
    body = BODY * 100
    compress = Compress(CompressSpec(), FilterContext("r", "s"))
    request = make_request([(b"accept-encoding", coding.encode())])
    response = make_response([JSON], length=len(body))
    compress.on_response(request, response)

    async def scenario():
        turns = 0
        done = False

        async def count():
            nonlocal turns
            while not done:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count())
        out = await value_of(compress.on_response_body(request, response, body, True))
        done = True
        await counting
        return out, turns

    out, turns = asyncio.run(scenario())
    assert Decoder(coding).feed(out) == body
    assert turns >= len(body) // 65536


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": ((b"content-type", b"image/png"),)},
        {"headers": ()},
        {"headers": (JSON, (b"content-encoding", b"br"))},
        {"headers": (JSON, (b"cache-control", b"public, No-Transform"))},
        {"headers": (JSON, (b"content-digest", b"sha-256=:x:"))},
        {"headers": (JSON, (b"repr-digest", b"sha-256=:x:"))},
        {"headers": (JSON, (b"content-md5", b"x"))},
        {"request_headers": ((b"cache-control", b"no-transform"),)},
        {"status": 204},
        {"status": 205},
        {"status": 206},
        {"status": 304},
        {"length": 100},
        {"length": 0},
    ],
)
def test_left_alone(answer, changes):
    kept = changes.get("headers", (JSON,))
    response, out = answer(**changes)
    assert tuple(response.headers.raw) == kept
    assert out == [BODY]
    assert response.length == changes.get("length", -1)


@pytest.mark.parametrize("changes", [{"accept": None}, {"accept": "deflate"}])
def test_what_could_be_compressed_varies_even_when_it_is_not(answer, changes):
    response, out = answer(**changes)
    assert response.headers.raw == [JSON, (b"vary", b"accept-encoding")]
    assert out == [BODY]


def test_a_head_says_what_the_get_would(answer):
    response, out = answer(method="HEAD", length=5000)
    assert response.headers.get("content-encoding") == "gzip"
    assert response.length == -1  # not 5000: the answer to a GET would not have that length
    assert out == [BODY]


@pytest.mark.parametrize(
    "before, after",
    [
        (b"origin", b"origin, accept-encoding"),
        (b"Accept-Encoding, origin", b"Accept-Encoding, origin"),
        (b"*", b"*"),
        (b"", b"accept-encoding"),
    ],
)
def test_vary_is_merged(answer, before, after):
    response, _ = answer(headers=(JSON, (b"vary", before)))
    assert response.headers.get_all("vary") == [after.decode()]


def test_identity_as_content_encoding_is_no_encoding(answer):
    response, _ = answer(headers=(JSON, (b"content-encoding", b"identity")))
    assert response.headers.get_all("content-encoding") == ["gzip"]


def test_a_compressed_body_is_another_representation(answer):
    headers = (JSON, (b"etag", b'"v1"'), (b"accept-ranges", b"bytes"))
    response, _ = answer(headers=headers)
    assert response.headers.get("etag") == 'W/"v1"'
    assert "accept-ranges" not in response.headers
    response, _ = answer(headers=(JSON, (b"etag", b'W/"v1"')))
    assert response.headers.get("etag") == 'W/"v1"'


def test_a_304_names_the_tag_the_client_keeps(answer):
    weak = (b"if-none-match", b'"v0", W/"v1"')
    response, _ = answer(status=304, headers=((b"etag", b'"v1"'),), request_headers=(weak,))
    assert response.headers.get("etag") == 'W/"v1"'
    strong = (b"if-none-match", b'"v1"')
    response, _ = answer(status=304, headers=((b"etag", b'"v1"'),), request_headers=(strong,))
    assert response.headers.get("etag") == '"v1"'


def test_several_lines_of_accept_encoding_are_one_list(answer):
    response, _ = answer(accept="gzip;q=0.1", request_headers=((b"accept-encoding", b"br"),))
    assert response.headers.get("content-encoding") == "br"


def test_no_body_is_left_alone_however_small_the_minimum(answer):
    response, out = answer([b""], spec=CompressSpec(min_size=0), length=0)
    assert response.headers.raw == [JSON]
    assert out == [b""]


def test_types_and_size_are_chosen_by_the_spec(answer):
    spec = CompressSpec(
        types=("application/vnd.*+json",), min_size="10B", algorithms=("br", "gzip")
    )
    kind = (b"content-type", b"Application/VND.shop+JSON")
    response, _ = answer(
        spec=spec, headers=(kind,), accept="zstd, gzip", length=10, chunks=[b"0123456789"]
    )
    assert response.headers.get("content-encoding") == "gzip"
    response, _ = answer(spec=spec)
    assert "content-encoding" not in response.headers


@pytest.mark.parametrize("coding", OURS)
def test_an_encoder_stays_small(coding):
    """Thousands of responses may be under way: an encoder must not hold megabytes."""
    import resource

    data = BODY * 40
    make = ENCODERS[coding]
    level = {"gzip": 5, "br": 4, "zstd": 3}[coding]
    with open("/proc/self/statm") as statm:
        before = int(statm.read().split()[1])
    live = []
    for _ in range(40):
        encoder = make(level)
        encoder.feed(data)
        live.append(encoder)
    with open("/proc/self/statm") as statm:
        grown = (int(statm.read().split()[1]) - before) * resource.getpagesize()
    assert grown / 40 < 3_500_000

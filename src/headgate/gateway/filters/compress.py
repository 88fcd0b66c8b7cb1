"""The `compress` policy: responses encoded with gzip, brotli or zstd as the client likes best.

Theory of operation. `on_response` decides from the two heads whether a response *could* be
compressed: if so it gets `Vary: accept-encoding`, also when this client takes it plain, because a
cache must not hand the one form to a client that asked for the other. If the client takes one of
our codings too, an encoder is made and every chunk goes through it as it comes; nothing is
gathered. Never compressed are:

- statuses without a body of their own or with a part of one (204, 205, 206, 304);
- what is encoded already, and what either side marked `no-transform` (RFC 9111 5.2);
- what carries a digest of its bytes (`Content-Digest`, `Repr-Digest`, `Digest`, `Content-MD5`):
  to compress it we would have to drop what the service promised about it;
- types not listed, and bodies known to be shorter than `min_size`.

What an editor must not break:
- A response whose length is not known may be an event stream or a long poll: it is flushed after
  every chunk, so that compression delays nothing. One of known length is compressed tightly.
- A compressed body is another representation: a strong ETag becomes weak (RFC 9110 8.8.1), byte
  ranges are no longer offered, and a 304 names the same weak tag the client had sent.
- A big chunk is compressed in pieces with the event loop running in between.
- A body that comes whole, again and again (the cache holds what the service said), is compressed
  twice and looked up from then on: see `repeats.py`.

Compression and secrets: a response that mixes a secret with text an attacker may choose leaks the
secret through its length (BREACH); docs/howto/headers-and-compression.md says what to leave as it
is.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable

from headgate.config.policies import CompressSpec
from headgate.gateway.filters.accept import choose_coding
from headgate.gateway.filters.base import Filter, FilterContext, Headers, Request, Response
from headgate.gateway.filters.encoders import ENCODERS, Encoder
from headgate.gateway.filters.repeats import Repeats
from headgate.wire.message import Header

_PIECE_BYTES = 64 * 1024  # gzip takes about a millisecond for so much
_CACHE_MAX = 256
_BODILESS = frozenset({204, 205, 206, 304})
_DIGESTS = frozenset({b"content-digest", b"repr-digest", b"digest", b"content-md5"})
_KEY = "headgate.compress"
_repeats = Repeats()
"""Of all routes of this process, also over a reload: what it holds depends on no plan."""
_no_transform = re.compile(rb"(?:^|[\s,])no-transform(?:[\s,]|$)", re.IGNORECASE).search


class _Stream:
    """What one response is encoded with, and whether it must not hold anything back."""

    __slots__ = ("_encoder", "coding", "is_live", "level")

    def __init__(self, coding: str, level: int, *, is_live: bool) -> None:
        self.coding = coding
        self.level = level
        self.is_live = is_live
        self._encoder: Encoder | None = None

    @property
    def has_begun(self) -> bool:
        return self._encoder is not None

    @property
    def encoder(self) -> Encoder:
        """Made on use: most bodies that come again need none."""
        if self._encoder is None:
            self._encoder = ENCODERS[self.coding](self.level)
        return self._encoder


class Compress(Filter):
    """Compresses the responses of one route."""

    def __init__(self, spec: CompressSpec, context: FilterContext) -> None:
        super().__init__(spec, context)
        self._algorithms: tuple[str, ...] = spec.algorithms
        self._levels: dict[str, int] = {name: getattr(spec.level, name) for name in spec.algorithms}
        self._min_size = spec.min_size
        self._is_listed = re.compile(
            "|".join(re.escape(t.strip().lower()).replace(r"\*", ".*") for t in spec.types)
        ).fullmatch
        # Clients send a handful of different values; the bounds are against those who do not.
        self._codings: dict[bytes, str | None] = {}
        self._types: dict[bytes, bool] = {}

    def on_response(self, request: Request, response: Response) -> None:
        headers = response.headers
        if response.status in _BODILESS:
            if response.status == 304:
                self._restate_tag(request, headers)
            return
        if 0 <= response.length < max(self._min_size, 1) or not self._is_candidate(headers.raw):
            return
        accept = cache_control = None
        for key, value in request.headers.raw:
            if key == b"accept-encoding":
                accept = value if accept is None else accept + b"," + value
            elif key == b"cache-control":
                cache_control = value
        if cache_control is not None and _no_transform(cache_control):
            return
        _merge_vary(headers)
        coding = self._coding(accept)
        if coding is None:
            return
        if request.method != "HEAD":
            request.state[_KEY] = _Stream(coding, self._levels[coding], is_live=response.length < 0)
        # Of a HEAD too: a length there must be that of the GET (RFC 9110 8.6), which is not known.
        response.length = -1
        _mark_encoded(headers, coding)

    def on_response_body(
        self, request: Request, response: Response, chunk: bytes, last: bool
    ) -> bytes | Awaitable[bytes]:
        stream = request.state.get(_KEY)
        if stream is None:
            return chunk
        assert isinstance(stream, _Stream)  # noqa: S101 - narrows what we stored above
        if len(chunk) > _PIECE_BYTES:
            return self._in_pieces(stream, chunk, last)
        if last and chunk and not stream.has_begun:
            return self._whole(stream, chunk)
        encoder = stream.encoder
        if not chunk:
            return encoder.finish() if last else b""
        if last:
            return encoder.feed(chunk) + encoder.finish()
        if stream.is_live:
            return encoder.feed(chunk) + encoder.flush()
        return encoder.feed(chunk)

    def _whole(self, stream: _Stream, body: bytes) -> bytes:
        key = (stream.coding, stream.level, body)
        found = _repeats.find(key)
        if found is None:
            encoder = stream.encoder
            found = encoder.feed(body) + encoder.finish()
            _repeats.made(key, found)
        return found

    async def _in_pieces(self, stream: _Stream, chunk: bytes, last: bool) -> bytes:
        encoder = stream.encoder
        out = []
        for start in range(0, len(chunk), _PIECE_BYTES):
            if start:
                await asyncio.sleep(0)
            out.append(encoder.feed(chunk[start : start + _PIECE_BYTES]))
        if last:
            out.append(encoder.finish())
        elif stream.is_live:
            out.append(encoder.flush())
        return b"".join(out)

    def _is_candidate(self, raw: list[Header]) -> bool:
        is_listed = False
        for key, value in raw:
            if key == b"content-type":
                is_listed = self._is_type_listed(value)
            elif key == b"content-encoding":
                if value.strip().lower() not in {b"", b"identity"}:
                    return False
            elif key == b"cache-control":
                if _no_transform(value):
                    return False
            elif key in _DIGESTS:
                return False
        return is_listed

    def _is_type_listed(self, value: bytes) -> bool:
        listed = self._types.get(value)
        if listed is None:
            media_type = value.partition(b";")[0].strip().lower().decode("latin-1")
            listed = self._is_listed(media_type) is not None
            if len(self._types) >= _CACHE_MAX:
                self._types.clear()
            self._types[value] = listed
        return listed

    def _coding(self, accept: bytes | None) -> str | None:
        if accept is None:
            return None
        try:
            return self._codings[accept]
        except KeyError:
            coding = choose_coding(accept.decode("latin-1"), self._algorithms)
            if len(self._codings) >= _CACHE_MAX:
                self._codings.clear()
            self._codings[accept] = coding
            return coding

    @staticmethod
    def _restate_tag(request: Request, headers: Headers) -> None:
        """Give a 304 the weak tag under which the client keeps the compressed body.

        The service compared weakly (RFC 9110 13.1.2) and answers with its own strong tag; a cache
        would not find the stored response by that one (RFC 9111 4.3.4).
        """
        tag, asked = headers.get("etag"), request.headers.get("if-none-match")
        if tag and asked and not tag.startswith("W/") and f"W/{tag}" in asked:
            headers.set("etag", f"W/{tag}")
            _merge_vary(headers)


def _merge_vary(headers: Headers) -> None:
    raw = headers.raw
    for i, (key, value) in enumerate(raw):
        if key == b"vary":
            names = {name.strip() for name in value.lower().split(b",")}
            if not names & {b"accept-encoding", b"*"}:
                raw[i] = (key, value + b", accept-encoding" if value else b"accept-encoding")
            return
    raw.append((b"vary", b"accept-encoding"))


def _mark_encoded(headers: Headers, coding: str) -> None:
    out: list[Header] = []
    for key, value in headers.raw:
        if key in {b"accept-ranges", b"content-length", b"content-encoding"}:
            continue
        is_strong = key == b"etag" and not value.startswith(b"W/")
        out.append((key, b"W/" + value) if is_strong else (key, value))
    out.append((b"content-encoding", coding.encode()))
    headers.raw[:] = out

"""Streaming compressors behind one small interface, with bounded memory each.

Theory of operation. An encoder takes pieces and gives back what is ready; `flush` gives back
everything fed so far in a form the peer can decode at once. Windows are kept small, because there
may be one encoder for each of thousands of responses: measured, one takes about 260 KB for gzip
(its window is 32 KB by definition), and with our windows of 256 KB 1.1 MB for brotli and 1.2 MB for
zstd at the default levels, up to 7 MB and 3 MB at the highest. (RFC 9659 obliges clients to accept
zstd windows up to 8 MB; for one response of ordinary size the larger window gains a few per cent.)
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Protocol

import brotli  # type: ignore[import-untyped]  # ships no types

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_WINDOW_LOG = 18


class Encoder(Protocol):
    """One response's compressor."""

    def feed(self, data: bytes) -> bytes:
        """Take `data`; return what is ready, maybe nothing."""

    def flush(self) -> bytes:
        """Return all that was fed, decodable so far."""

    def finish(self) -> bytes:
        """Return the rest and end the stream."""


class _Gzip:
    __slots__ = ("_stream", "feed")

    def __init__(self, level: int) -> None:
        self._stream = zlib.compressobj(level, zlib.DEFLATED, zlib.MAX_WBITS | 16)
        self.feed: Callable[[bytes], bytes] = self._stream.compress

    def flush(self) -> bytes:
        return self._stream.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._stream.flush(zlib.Z_FINISH)


class _Brotli:
    __slots__ = ("_stream", "feed")

    def __init__(self, level: int) -> None:
        self._stream = brotli.Compressor(quality=level, lgwin=_WINDOW_LOG)
        self.feed: Callable[[bytes], bytes] = self._stream.process

    def flush(self) -> bytes:
        return bytes(self._stream.flush())

    def finish(self) -> bytes:
        return bytes(self._stream.finish())


class _Zstd:
    __slots__ = ("_stream", "feed")

    def __init__(self, level: int) -> None:
        options: dict[int, int] = {
            zstd.CompressionParameter.compression_level: level,
            zstd.CompressionParameter.window_log: _WINDOW_LOG,
        }
        if level > 4:
            # A small window does not make the tables small: level 19 would take 83 MB for them.
            options[zstd.CompressionParameter.chain_log] = _WINDOW_LOG
            options[zstd.CompressionParameter.hash_log] = _WINDOW_LOG
        self._stream = zstd.ZstdCompressor(options=options)
        self.feed: Callable[[bytes], bytes] = self._stream.compress

    def flush(self) -> bytes:
        return self._stream.flush(zstd.ZstdCompressor.FLUSH_BLOCK)

    def finish(self) -> bytes:
        return self._stream.flush(zstd.ZstdCompressor.FLUSH_FRAME)


ENCODERS: dict[str, Callable[[int], Encoder]] = {"gzip": _Gzip, "br": _Brotli, "zstd": _Zstd}

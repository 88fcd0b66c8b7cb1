"""Content codings of responses undone: gzip, deflate, br and zstd (RFC 9110 8.4).

Theory of operation
-------------------
A decoder is fed what comes and yields pieces of at most PIECE bytes, so a small body that unpacks
to gigabytes is bounded by whoever counts the pieces. Several codings are undone in reverse order.
One that is not known is left as it is, as httpx does: the `Content-Encoding` still says so.
Libraries are loaded on use.

Bytes that are not in the coding they claim are the instance's fault: `protocol`.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final, Protocol

from headgate.errors import UpstreamFailed

PIECE: Final = 64 * 1024
_CODINGS_MAX: Final = 4


class Coding(Protocol):
    """One coding being undone."""

    def feed(self, data: bytes) -> Iterator[bytes]: ...

    @property
    def is_whole(self) -> bool:
        """Whether what has come may be all."""
        ...


class _Zlib:
    """gzip, also of several members (RFC 1952 2.2), and deflate in its two readings."""

    def __init__(self, *, is_gzip: bool) -> None:
        self._window = 16 + zlib.MAX_WBITS if is_gzip else zlib.MAX_WBITS
        self._is_gzip = is_gzip
        self._unpack = zlib.decompressobj(self._window)
        self._held = b""
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        if not self._begun:
            data = self._held + data
            self._held = data
            if len(data) < 2:
                return
            self._begun = True
            if not self._is_gzip and (data[0] & 0x0F != 8 or (data[0] << 8 | data[1]) % 31):
                # "deflate" is zlib by the standard, and bare by many who never read it.
                self._unpack = zlib.decompressobj(-zlib.MAX_WBITS)
        while data:
            if self._unpack.eof:
                if not self._is_gzip:
                    return
                self._unpack = zlib.decompressobj(self._window)
            piece = self._unpack.decompress(data, PIECE)
            data = self._unpack.unconsumed_tail or self._unpack.unused_data
            if piece:
                yield piece
            while len(piece) == PIECE and not data and not self._unpack.eof:
                piece = self._unpack.decompress(b"", PIECE)
                if piece:
                    yield piece

    @property
    def is_whole(self) -> bool:
        return self._unpack.eof if self._begun else not self._held


class _Brotli:
    def __init__(self) -> None:
        import brotli  # type: ignore[import-untyped]  # ships no types

        self._unpack: Any = brotli.Decompressor()
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._begun = True
        piece = self._unpack.process(data, output_buffer_limit=PIECE)
        # It may hold output back although it says that it takes more.
        while piece:
            yield piece
            if self._unpack.is_finished():
                return
            piece = self._unpack.process(b"", output_buffer_limit=PIECE)

    @property
    def is_whole(self) -> bool:
        return bool(self._unpack.is_finished()) or not self._begun


class _Zstd:
    """zstd, also of several frames (RFC 8878 3)."""

    def __init__(self) -> None:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd

        self._make: Callable[[], Any] = zstd.ZstdDecompressor
        self._unpack = self._make()
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._begun = True
        while True:
            if self._unpack.eof:
                data = self._unpack.unused_data or data
                if not data:
                    return
                self._unpack = self._make()
            piece = self._unpack.decompress(data, PIECE)
            data = b""
            if piece:
                yield piece
            if self._unpack.needs_input or (self._unpack.eof and not self._unpack.unused_data):
                return

    @property
    def is_whole(self) -> bool:
        return bool(self._unpack.eof) or not self._begun


_CODINGS: Final[dict[bytes, Callable[[], Coding]]] = {
    b"gzip": lambda: _Zlib(is_gzip=True),
    b"x-gzip": lambda: _Zlib(is_gzip=True),
    b"deflate": lambda: _Zlib(is_gzip=False),
    b"br": _Brotli,
    b"zstd": _Zstd,
}

ACCEPTED: Final = b"gzip, deflate, br, zstd"
"""What `Accept-Encoding` may say."""


class Decoder:
    """All codings of one body."""

    __slots__ = ("_codings", "_label", "_name")

    def __init__(self, names: tuple[bytes, ...], instance: str) -> None:
        self._codings = [_CODINGS[name]() for name in reversed(names)]
        self._label = b", ".join(names).decode("ascii")
        self._name = instance

    def feed(self, data: bytes) -> Iterator[bytes]:
        return self._through(0, data)

    def end(self) -> None:
        """Say that nothing more comes; raise if the body breaks off in the middle of a coding."""
        if not all(coding.is_whole for coding in self._codings):
            raise UpstreamFailed("protocol", f"{self._name}: the {self._label} body breaks off")

    def _through(self, at: int, data: bytes) -> Iterator[bytes]:
        if at == len(self._codings):
            yield data
            return
        pieces = self._codings[at].feed(data)
        while True:
            try:
                piece = next(pieces, None)
            except Exception as error:
                # Each library has an error of its own; all mean the same.
                raise UpstreamFailed(
                    "protocol", f"{self._name}: the body is not {self._label}, as it says"
                ) from error
            if piece is None:
                return
            yield from self._through(at + 1, piece)


def decoder_for(said: bytes | None, instance: str) -> Decoder | None:
    """What undoes a `Content-Encoding`; None if there is nothing to undo."""
    if said is None:
        return None
    names = _codings_of(said)
    return Decoder(names, instance) if names else None


@lru_cache(maxsize=256)
def _known(said: bytes) -> tuple[bytes, ...]:
    names = tuple(
        name for part in said.lower().split(b",") if (name := part.strip(b" \t")) != b"identity"
    )
    if len(names) > _CODINGS_MAX or any(name not in _CODINGS for name in names):
        return ()
    return names


def _codings_of(said: bytes) -> tuple[bytes, ...]:
    # The bound keeps a peer's nonsense out of the memory.
    return _known(said) if len(said) <= 64 else ()

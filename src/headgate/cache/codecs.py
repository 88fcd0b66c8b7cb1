"""How an entry becomes bytes for a second layer, and is read back by any release, or not at all.

Theory of operation. The bytes begin with two that name the layout, so that an entry of an older or
a newer release is told apart before anything else is read. All of this is big-endian:

    0   0xCA        what this is
    1   1           the layout
    2   flags       1 zstd, 2 signed, 4 the source had nothing
    3   length of the codec's name
    4   stamp       u64
    12  made_at, fresh_until, usable_until, cost_s   f64 each
    44  lengths of version and validator, number of tags   u16 each
    50  length of the value before compression             u32
    54  codec's name, version, validator; each tag with its length as u16; the value
    -   CRC-32 of all before it, or, where it is signed, its HMAC-SHA-256

Reading ends in an Entry or in Undecodable, which a layer answers like a miss: bytes of another
layout, codec or version of the values, cut short, garbled, signed by nobody known, or swelling
beyond the bound. Checks go from cheap and harmless to dear: the ends first, then the sum or the
signature over everything, only then is anything decompressed, and last decoded. The checksum is
there because a flipped bit within a JSON text often is another valid text. The signature does not
cover the key an entry is kept under: who can write to the store may put one signed entry in the
place of another.

A value is compressed where it is longer than `zstd_above` and gets shorter by it.
"""

from __future__ import annotations

import hmac
import struct
import sys
from math import isnan
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from headgate.cache.codecs_exact import Unencodable
from headgate.cache.codecs_formats import (
    Codec,
    codec_named,
    json_codec,
    msgpack_codec,
    pickle_codec,
)
from headgate.cache.entry import Entry
from headgate.errors import HeadgateError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = [
    "VALUE_MAX",
    "ZSTD_ABOVE",
    "Codec",
    "Packer",
    "Undecodable",
    "Unencodable",
    "codec_named",
    "decode",
    "encode",
    "json_codec",
    "msgpack_codec",
    "pickle_codec",
]

VALUE_MAX: Final = 64 * 1024 * 1024
"""Bytes of one value, before compression."""
ZSTD_ABOVE: Final = 1024
_ZSTD_LEVEL: Final = 3
_WINDOW_LOG_MAX: Final = 23
"""8 MB: what a frame may make the decoder allocate. Level 3 writes at most 2 MB."""

_MAGIC: Final = 0xCA
_LAYOUT: Final = 1
_HEAD: Final = struct.Struct(">BBBBQddddHHHI")
_SHORT: Final = struct.Struct(">H")
_SUM: Final = struct.Struct(">I")
_ZSTD, _SIGNED, _NOTHING = 1, 2, 4
_MAC_BYTES: Final = 32
_COPIED_MAX: Final = 4096
_VERSION_MAX: Final = 200
_PICKLES: Final = ("pickle", "_pickle", "cloudpickle", "dill._dill")


class Undecodable(HeadgateError):
    """These bytes are no entry that this process may read. To a layer it is a miss."""


class Packer:
    """Entries to bytes and back, by one codec. Holds no state: threads may share it."""

    __slots__ = (
        "_above",
        "_codec",
        "_loads",
        "_name",
        "_value_max",
        "_version",
        "_writer",
        "_zstd",
    )

    def __init__(
        self,
        codec: Codec | str = "json",
        *,
        version: str = "",
        zstd_above: int | None = ZSTD_ABOVE,
        value_max: int = VALUE_MAX,
    ) -> None:
        """`version`: of the values' shape. Entries of another are not read, so a deploy that
        changes what it keeps raises it. `zstd_above`: bytes; None never compresses.
        """
        self._codec = codec_named(codec) if isinstance(codec, str) else codec
        if not isinstance(self._codec, Codec):
            raise TypeError(f"codec={codec!r:.80}: write json or msgpack, or give a Codec")
        if _is_pickle(self._codec) and not self._codec.keys:
            raise ValueError("codec pickle needs a key to sign with: codec=pickle_codec(key)")
        if not 0 < value_max <= 0xFFFF_FFFF:
            raise ValueError(f"value_max is {value_max}; it is between 1 byte and 4 GB")
        self._name = self._codec.name.encode()
        self._version = version.encode("utf-8", "surrogatepass")
        if len(self._version) > _VERSION_MAX:
            raise ValueError(f"version is longer than {_VERSION_MAX} bytes")
        self._writer = self._name + self._version
        self._loads = self._codec.loads
        self._above = value_max if zstd_above is None else zstd_above
        self._value_max = value_max
        # Loaded here and not at the first long value, which may be in the midst of a request.
        self._zstd = _zstd_module()

    @property
    def codec(self) -> Codec:
        return self._codec

    def encode(self, entry: Entry) -> bytes:
        """Unencodable: this value cannot be kept exactly by this codec, or is too long."""
        if _is_no_time(entry):
            raise Unencodable("its times are no numbers")
        value = self._dumped(entry.value)
        length = len(value)
        flags = _NOTHING if entry.is_nothing else 0
        if length > self._value_max:
            raise Unencodable(f"{length} bytes; a value has at most {self._value_max}")
        if length > self._above:
            shorter = self._zstd.compress(value, level=_ZSTD_LEVEL)
            if len(shorter) < length:
                value, flags = shorter, flags | _ZSTD
        keys = self._codec.keys
        if keys:
            flags |= _SIGNED
        validator = entry.validator.encode("utf-8", "surrogatepass")
        try:
            head = _HEAD.pack(
                _MAGIC,
                _LAYOUT,
                flags,
                len(self._name),
                entry.stamp,
                entry.made_at,
                entry.fresh_until,
                entry.usable_until,
                entry.cost_s,
                len(self._version),
                len(validator),
                len(entry.tags),
                length,
            )
            parts = [head, self._name, self._version, validator]
            for tag in entry.tags:
                text = tag.encode("utf-8", "surrogatepass")
                parts += (_SHORT.pack(len(text)), text)
        except struct.error as error:
            raise Unencodable(f"its tags, validator, stamp or times do not fit: {error}") from error
        parts.append(value)
        data = b"".join(parts)
        if keys:
            return data + hmac.digest(keys[0], data, "sha256")
        return data + _SUM.pack(crc32(data))

    def _dumped(self, value: Any) -> bytes:
        try:
            made = self._codec.dumps(value)
        except Unencodable:
            raise
        except RecursionError as error:
            raise Unencodable("nested too deep, or holding itself") from error
        except Exception as error:
            raise Unencodable(
                f"codec {self._codec.name} cannot keep a {type(value).__qualname__}: {error}"
            ) from error
        if type(made) is not bytes:
            raise Unencodable(f"codec {self._codec.name} made no bytes of it")
        return made

    def decode(self, data: bytes) -> Entry:
        """Undecodable, and nothing else, for whatever these bytes are."""
        try:
            (
                magic,
                layout,
                flags,
                names,
                stamp,
                made_at,
                fresh,
                usable,
                cost_s,
                versions,
                validators,
                count,
                length,
            ) = _HEAD.unpack_from(data)
        except struct.error:
            raise Undecodable("too short for an entry") from None
        if magic != _MAGIC or layout != _LAYOUT:
            raise Undecodable("not an entry, or of another release") from None
        end = self._checked(data, flags)
        if (
            names != len(self._name)
            or versions != len(self._version)
            or not data.startswith(self._writer, _HEAD.size)
        ):
            is_codec = data[_HEAD.size : _HEAD.size + names] == self._name
            what = "of another version of the values" if is_codec else "written by another codec"
            raise Undecodable(what)
        # No sum of numbers is none, but for infinities of both signs.
        if isnan(made_at + fresh + usable + cost_s) and any(
            map(isnan, (made_at, fresh, usable, cost_s))
        ):
            raise Undecodable("its times are no numbers")
        at = _HEAD.size + names + versions
        validator = ""
        tags: tuple[str, ...] = ()
        if validators or count:
            validator, tags, at = _named(data, at, validators, count)
        if at > end:
            raise Undecodable("its lengths do not agree")
        value = data[at:end]
        if flags & _ZSTD:
            value = self._expanded(value, length)
        elif len(value) != length:
            raise Undecodable("its lengths do not agree")
        return Entry(
            self._loaded(value),
            made_at,
            fresh,
            usable,
            stamp=stamp,
            tags=tags,
            cost_s=cost_s,
            validator=validator,
            is_nothing=bool(flags & _NOTHING),
        )

    def _checked(self, data: bytes, flags: int) -> int:
        """Where the sum or the signature begins, which holds for all before it."""
        keys = self._codec.keys
        if bool(keys) != bool(flags & _SIGNED):
            raise Undecodable("it is not signed" if keys else "it is signed, and there is no key")
        end = len(data) - (_MAC_BYTES if keys else _SUM.size)
        if end < _HEAD.size:
            raise Undecodable("too short for an entry")
        whole: bytes | memoryview
        if not keys:
            # A short copy costs less than a view.
            whole = data[:end] if end <= _COPIED_MAX else memoryview(data)[:end]
            if crc32(whole).to_bytes(4, "big") != data[end:]:
                raise Undecodable("garbled")
            return end
        whole, mac = memoryview(data)[:end], data[end:]
        for key in keys:
            if hmac.compare_digest(hmac.digest(key, whole, "sha256"), mac):
                return end
        raise Undecodable("its signature is of no known key")

    def _expanded(self, value: bytes, length: int) -> bytes:
        if length > self._value_max:
            raise Undecodable(f"longer than {self._value_max} bytes")
        zstd = self._zstd
        options = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX}
        stream = zstd.ZstdDecompressor(options=options)
        try:
            made: bytes = stream.decompress(value, max_length=length + 1)
        except (zstd.ZstdError, EOFError, MemoryError, ValueError) as error:
            raise Undecodable("its compression is broken") from error
        if len(made) != length or not stream.eof or stream.unused_data:
            raise Undecodable("its lengths do not agree")
        return made

    def _loaded(self, value: bytes) -> Any:
        # A codec of a user, a class that has changed, a mark that is none: to a reader of a cache
        # all of these are one thing. Signals and exits pass.
        try:
            return self._loads(value)
        except Exception as error:
            raise Undecodable(
                f"codec {self._codec.name} cannot read it: {type(error).__name__}"
            ) from error


def _named(data: bytes, at: int, validators: int, count: int) -> tuple[str, tuple[str, ...], int]:
    """The validator and the tags, and where the value begins."""
    tags: list[str] = []
    try:
        validator = data[at : at + validators].decode("utf-8", "surrogatepass")
        at += validators
        for _ in range(count):
            (length,) = _SHORT.unpack_from(data, at)
            at += 2
            tags.append(data[at : at + length].decode("utf-8", "surrogatepass"))
            at += length
    except (struct.error, UnicodeError) as error:
        raise Undecodable("its lengths do not agree") from error
    return validator, tuple(tags), at


def _is_no_time(entry: Entry) -> bool:
    return (
        isnan(entry.made_at)
        or isnan(entry.fresh_until)
        or isnan(entry.usable_until)
        or isnan(entry.cost_s)
    )


def _is_pickle(codec: Codec) -> bool:
    return codec.name == "pickle" or getattr(codec.loads, "__module__", "") in _PICKLES


def _zstd_module() -> ModuleType:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    module: ModuleType = zstd
    return module


_default: Packer | None = None


def _packer() -> Packer:
    global _default  # noqa: PLW0603  # made once, when the first entry is packed
    if _default is None:
        _default = Packer()
    return _default


def encode(entry: Entry) -> bytes:
    """As the default packer does: JSON, zstd above 1 KB, unsigned."""
    return _packer().encode(entry)


def decode(data: bytes) -> Entry:
    """The entry of these bytes; Undecodable if there is none."""
    return _packer().decode(data)

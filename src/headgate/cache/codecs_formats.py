"""How values become bytes: JSON, MessagePack, signed pickles, or what a user brings.

JSON and MessagePack keep None, bool, int of any size, float (NaN and infinities too), str, bytes,
bytearray, list, tuple, dict with keys of any of these, set, frozenset, datetime, date, time,
timedelta, Decimal, complex and UUID exactly, and the dataclasses, enums and named tuples that they
are told of. All else is refused (`codecs_exact`).

A pickle can run any code when it is read. It is never the default, it is always signed, and the
signature is checked before a byte of it is unpacked: so whoever can write to the store but does not
have the key gains nothing. Whoever has the key is trusted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from headgate.cache.codecs_exact import Exact, Unencodable
from headgate.errors import ExtraMissing

__all__ = ["Codec", "codec_named", "json_codec", "msgpack_codec", "pickle_codec"]

KEY_MIN: Final = 16
"""Bytes of a key for signatures, at least; 32 from `secrets.token_bytes` are right."""
_KEYS_MAX: Final = 4


@dataclass(frozen=True, slots=True)
class Codec:
    """`dumps` makes bytes of a value and `loads` the value of the bytes. `name` is kept with every
    entry: what another codec wrote is not read. With `keys`, every entry is signed with the first
    of them, and only read if one of them signed it: to change a key, put the new one first.
    """

    name: str
    dumps: Callable[[Any], bytes]
    loads: Callable[[bytes], Any]
    keys: tuple[bytes, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not (0 < len(self.name) < 64 and self.name.isascii() and self.name.isprintable()):
            raise ValueError(
                f"codec {self.name!r:.80}: a name is 1 to 63 printable ASCII characters"
            )
        if len(self.keys) > _KEYS_MAX:
            raise ValueError(f"codec {self.name}: at most {_KEYS_MAX} keys")
        keys: tuple[object, ...] = self.keys
        for key in keys:
            if not isinstance(key, bytes) or len(key) < KEY_MIN:
                raise ValueError(
                    f"codec {self.name}: a key is at least {KEY_MIN} bytes; "
                    "make one with secrets.token_bytes(32)"
                )

    def signed(self, key: bytes | Sequence[bytes]) -> Codec:
        """The same, with every entry signed."""
        return Codec(self.name, self.dumps, self.loads, _keys(self.name, key))


def _keys(name: str, key: bytes | Sequence[bytes]) -> tuple[bytes, ...]:
    keys = (key,) if isinstance(key, bytes) else tuple(key)
    if not keys:
        raise ValueError(f"codec {name}: a key to sign with is needed")
    return keys


def json_codec(types: Iterable[type] = ()) -> Codec:
    """The default. `types`: dataclasses, enums and named tuples to be kept as themselves."""
    exact = Exact(types)
    # Texts are written as they are: escapes would join two lone surrogates to one character.
    dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode
    loads, loads_at_once = json.JSONDecoder().decode, json.JSONDecoder().raw_decode
    loads_marked = json.JSONDecoder(object_hook=exact.restored).decode

    def to_bytes(value: Any) -> bytes:
        return dumps(exact.plain(value)).encode("utf-8", "surrogatepass")

    def from_bytes(data: bytes) -> Any:
        text = data.decode("utf-8", "surrogatepass")
        # A call of Python for each dictionary is only paid where there is a mark to be found.
        if '"$"' in text:
            return loads_marked(text)
        # What we wrote has no blanks around it, and needs not be searched for them.
        made, end = loads_at_once(text)
        return made if end == len(text) else loads(text)

    return Codec("json", to_bytes, from_bytes)


def msgpack_codec(types: Iterable[type] = ()) -> Codec:
    """Smaller than JSON, and bytes as they are; needs `pip install headgate[msgpack]`."""
    try:
        import msgpack  # type: ignore[import-untyped, unused-ignore]  # ships none in some versions
    except ImportError:
        raise ExtraMissing("msgpack", "the codec msgpack") from None
    exact = Exact(types, native=(bytes,))
    pack, unpack = msgpack.packb, msgpack.unpackb

    def to_bytes(value: Any) -> bytes:
        said: bytes = pack(
            exact.plain(value), default=_big_int, unicode_errors="surrogatepass", strict_types=True
        )
        return said

    def from_bytes(data: bytes) -> Any:
        hook = exact.restored if b"\xa1$" in data else None
        return unpack(
            data,
            object_hook=hook,
            ext_hook=_from_ext,
            unicode_errors="surrogatepass",
            use_list=True,
        )

    return Codec("msgpack", to_bytes, from_bytes)


def _big_int(value: Any) -> Any:
    """An integer of more than 64 bits; nothing else is left unknown by `Exact`."""
    import msgpack  # type: ignore[import-untyped, unused-ignore]  # likewise

    if type(value) is not int:
        raise Unencodable(f"a {type(value).__qualname__} cannot be kept exactly")
    length = value.bit_length() // 8 + 1
    return msgpack.ExtType(1, value.to_bytes(length, "big", signed=True))


def _from_ext(code: int, data: bytes) -> Any:
    if code != 1:
        raise ValueError("an extension that this codec does not write")
    return int.from_bytes(data, "big", signed=True)


def pickle_codec(key: bytes | Sequence[bytes]) -> Codec:
    """Keeps nearly anything of Python. `key` signs every entry; of several, the first signs and all
    are accepted. All who have the key can run code in all who read: share it with nobody else.
    """
    import pickle  # signed, and verified before it is read (`Packer.decode`)

    def to_bytes(value: Any) -> bytes:
        return pickle.dumps(value, protocol=5)

    # What was signed is ours: see the module's text.
    return Codec("pickle", to_bytes, pickle.loads, _keys("pickle", key))


def codec_named(name: str) -> Codec:
    """A codec by the name that a setting gives."""
    if name == "json":
        return json_codec()
    if name == "msgpack":
        return msgpack_codec()
    if name == "pickle":
        raise ValueError(
            "codec pickle needs a key to sign with: "
            "codec=pickle_codec(key) from headgate.cache.codecs"
        )
    raise ValueError(f"no codec {name!r:.80}; write json or msgpack, or give a Codec")

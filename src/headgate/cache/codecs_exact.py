"""Values made of what JSON and MessagePack have, and back, without changing any on the way.

Theory of operation. What a format has of its own (None, bool, int, float, str, lists, and
dictionaries whose keys are texts) goes as it is. Any other kind that is known becomes a *mark*, a
dictionary with the one key `$`: `{"$": ["tuple", [1, 2]]}`. A dictionary that holds `$` itself,
or keys that are no texts, is marked too, so that no value of a user is ever taken for a mark.

Only exact types are taken: a subclass (an IntEnum, a defaultdict, a str of a template library)
would come back as its base, and a caller would find out in production. What is not known is refused
with the path to it. The rule an editor must not break: `restored(plain(v))` equals `v` in type and
value all the way down, or `plain` raises.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import enum
import inspect
import uuid
import zoneinfo
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from headgate.cache.errors import Unencodable

__all__ = ["MARK", "Exact", "Unencodable"]

MARK: Final = "$"
_DEPTH_MAX: Final = 150
"""How deep a value may nest. The readers of some formats stop at 200 or 500."""

_PLAIN: Final = frozenset({type(None), bool, int, float, str})
_ONLY_TEXT: Final = frozenset({str})


def _zone(zone: dt.tzinfo | None) -> str | None:
    """What a datetime must say of its zone beside its offset."""
    if zone is None:
        return None
    if type(zone) is zoneinfo.ZoneInfo and zone.key:
        return zone.key
    if type(zone) is dt.timezone:
        offset = zone.utcoffset(None)
        if zone.tzname(None) == dt.timezone(offset).tzname(None):
            return f"{offset // dt.timedelta(microseconds=1)}"
    raise Unencodable(
        f"a time in the zone {zone!r} cannot be kept exactly; use zoneinfo.ZoneInfo or datetime.UTC"
    )


def _zone_from(text: str | None) -> dt.tzinfo | None:
    if text is None:
        return None
    if text.lstrip("-").isdigit():
        # timezone(timedelta(0)) is datetime.UTC itself.
        return dt.timezone(dt.timedelta(microseconds=int(text)))
    return zoneinfo.ZoneInfo(text)


def _from_datetime(value: dt.datetime) -> list[Any]:
    return [value.replace(tzinfo=None).isoformat(), _zone(value.tzinfo), value.fold]


def _to_datetime(said: list[Any]) -> dt.datetime:
    text, zone, fold = said
    return dt.datetime.fromisoformat(text).replace(tzinfo=_zone_from(zone), fold=fold)


def _from_time(value: dt.time) -> list[Any]:
    return [value.replace(tzinfo=None).isoformat(), _zone(value.tzinfo), value.fold]


def _to_time(said: list[Any]) -> dt.time:
    text, zone, fold = said
    return dt.time.fromisoformat(text).replace(tzinfo=_zone_from(zone), fold=fold)


def _to_bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


# Name of a mark: its type, what stands in the mark, and the way back. What the way out gives is
# walked again (so a tuple may hold dates); what the way back is given is restored already.
_Way = tuple[str, Callable[[Any], Any], Callable[[Any], Any]]
_BUILT_IN: Final[dict[type, _Way]] = {
    tuple: ("tuple", list, tuple),
    set: ("set", list, set),
    frozenset: ("frozenset", list, frozenset),
    bytes: ("bytes", lambda value: base64.b64encode(value).decode(), _to_bytes),
    bytearray: (
        "bytearray",
        lambda value: base64.b64encode(value).decode(),
        lambda text: bytearray(_to_bytes(text)),
    ),
    dt.datetime: ("datetime", _from_datetime, _to_datetime),
    dt.date: ("date", dt.date.isoformat, dt.date.fromisoformat),
    dt.time: ("time", _from_time, _to_time),
    dt.timedelta: (
        "timedelta",
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda said: dt.timedelta(*said),
    ),
    Decimal: ("decimal", str, Decimal),
    complex: (
        "complex",
        lambda value: [value.real, value.imag],
        lambda said: complex(*said),
    ),
    uuid.UUID: ("uuid", lambda value: value.hex, uuid.UUID),
}


class Exact:
    """The kinds of values that one codec can keep: the built-in ones, and those a user names."""

    __slots__ = ("_back", "_plain", "_ways")

    def __init__(self, types: Iterable[type] = (), *, native: Iterable[type] = ()) -> None:
        """`native`: built-in types that the format has of its own. `types`: dataclasses, enums and
        named tuples, which come back as themselves.
        """
        self._plain = _PLAIN | frozenset(native)
        self._ways: dict[type, _Way] = dict(_BUILT_IN)
        for kind in types:
            way = _way_of(kind)
            if any(way[0] == known[0] for known in self._ways.values()):
                raise ValueError(
                    f"{way[0]}: two types of this name; keep only one of them in a codec"
                )
            self._ways[kind] = way
        self._back: dict[str, Callable[[Any], Any]] = {
            name: back for name, _, back in self._ways.values()
        }

    def plain(self, value: Any) -> Any:
        """The value in what the format has. Unencodable says what cannot be kept and where."""
        return self._walk(value, _DEPTH_MAX)

    def _walk(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind in self._plain:
            return value
        if not depth:
            raise Unencodable(f"nested more than {_DEPTH_MAX} deep, or holding itself")
        if kind is dict:
            return self._walk_dict(value, depth - 1)
        if kind is list:
            # The types of a whole list are found without a step of Python for each item.
            return value if self._plain.issuperset(map(type, value)) else self._items(value, depth)
        way = self._ways.get(kind)
        if way is None:
            raise Unencodable(_refusal(kind))
        inner = way[1](value)
        return {MARK: [way[0], self._walk(inner, depth - 1)]}

    def _walk_dict(self, value: dict[Any, Any], depth: int) -> Any:
        if _ONLY_TEXT.issuperset(map(type, value)) and MARK not in value:
            if self._plain.issuperset(map(type, value.values())):
                return value
            made = {}
            for key, item in value.items():
                try:
                    made[key] = self._walk(item, depth)
                except Unencodable as error:
                    error.path.append(f"[{key!r:.80}]")
                    raise
            return made
        pairs = []
        for key, item in value.items():
            try:
                pairs.append([self._walk(key, depth), self._walk(item, depth)])
            except Unencodable as error:
                error.path.append(f"[{key!r:.80}]")
                raise
        return {MARK: ["dict", pairs]}

    def _items(self, value: list[Any], depth: int) -> list[Any]:
        made = []
        for index, item in enumerate(value):
            try:
                made.append(self._walk(item, depth - 1))
            except Unencodable as error:
                error.path.append(f"[{index}]")
                raise
        return made

    def restored(self, read: dict[str, Any]) -> Any:
        """What a mark stands for; any other dictionary as it is. For use as an `object_hook`, which
        is given the innermost first. Raises what it will for a mark that is not one.
        """
        if len(read) != 1 or MARK not in read:
            return read
        name, inner = read[MARK]
        if name == "dict":
            return dict(inner)
        return self._back[name](inner)


def _refusal(kind: type) -> str:
    name = kind.__qualname__
    if dataclasses.is_dataclass(kind) or issubclass(kind, enum.Enum) or hasattr(kind, "_fields"):
        return (
            f"a {name} cannot be kept exactly unless the codec knows it: "
            f"codec=json_codec(types=[{name}])"
        )
    for base in (*_BUILT_IN, dict, list, str, int, float):
        if issubclass(kind, base):
            return (
                f"a {name} would come back as a {base.__name__}; "
                f"make it a {base.__name__} before it is kept"
            )
    return (
        f"a {name} cannot be kept exactly; keep its data instead, give a codec of your own, "
        "or use pickle_codec(key) if every process that can write to the cache is trusted"
    )


def _way_of(kind: type) -> _Way:
    name = kind.__qualname__
    if issubclass(kind, enum.Enum):
        # By name, not by value: a value may be anything, and flags are combined of several.
        if issubclass(kind, enum.Flag):
            return name, lambda value: value.value, kind
        return name, lambda value: value.name, kind.__getitem__
    if dataclasses.is_dataclass(kind):
        fields = dataclasses.fields(kind)
        for each in fields:
            if not each.init:
                raise ValueError(
                    f"{name}.{each.name} is not set by its __init__; it cannot be kept"
                )
        names = tuple(each.name for each in fields)
        if inspect.signature(kind).parameters.keys() != set(names):
            raise ValueError(f"{name}: its __init__ does not take its fields, and only these")
        return (
            name,
            lambda value: {each: getattr(value, each) for each in names},
            _maker(kind, names),
        )
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return (
            name,
            lambda value: dict(zip(kind._fields, value, strict=True)),
            _maker(kind, kind._fields),
        )
    raise ValueError(f"{name} is neither a dataclass nor an enum nor a named tuple")


def _maker(kind: Callable[..., Any], names: Iterable[str]) -> Callable[[Mapping[str, Any]], Any]:
    expected = frozenset(names)

    def make(said: Mapping[str, Any]) -> Any:
        # A field that has a default since the value was kept is not filled in silently.
        if said.keys() != expected:
            raise ValueError("the fields have changed since this was kept")
        return kind(**said)

    return make

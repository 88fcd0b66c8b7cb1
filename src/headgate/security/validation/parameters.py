"""The parameters of one operation in one place: path, query, headers or cookies.

Theory of operation. Every parameter is read in its style into one mapping, which is then held
against one schema made of theirs; so a pointer into that mapping begins with the parameter's name.
A parameter given twice that is no list is refused, because the service may take the other one. A
parameter of a mixed type, such as a number or text, is held against its schema as a number first;
where that fails and text is allowed, as text.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from headgate.security.validation.checker import clipped
from headgate.security.validation.json_text import JsonReader, JsonRefused
from headgate.security.validation.references import pointer_of
from headgate.security.validation.rules import FAULTS_MAX, Fault
from headgate.security.validation.shapes import Shape
from headgate.security.validation.styles import (
    DELIMITERS,
    Style,
    Unreadable,
    as_it_is,
    decode,
    decode_query,
    read_joined,
    read_pairs,
    read_path,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from headgate.security.validation.checker import Checker
    from headgate.security.validation.rules import Place

__all__ = ["Parameter", "Parameters"]

_PAIRS_MAX: Final = 1000
_TEXT: Final = Shape(frozenset({"string"}))
_MIXED: Final = frozenset({"integer", "number", "boolean", "null"})


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    style: Style
    explode: bool
    shape: Shape
    is_json: bool = False
    """Written as JSON (`content: application/json`)."""
    is_opaque: bool = False
    """In a media type that is not understood: only whether it is there counts."""
    may_be_empty: bool = False

    @property
    def is_mixed(self) -> bool:
        return "string" in self.shape.types and bool(self.shape.types & _MIXED)


@dataclass(slots=True, eq=False, repr=False)
class Parameters:
    """Those of one place; `others` are names that may stand there besides."""

    place: Place
    parameters: tuple[Parameter, ...]
    checker: Checker
    others: frozenset[str] | None = None
    """With names here, an undescribed name is a fault."""
    reader: JsonReader = field(default_factory=lambda: JsonReader(64, 10_000))
    _by_name: dict[str, Parameter] = field(init=False)
    _spread: tuple[Parameter, ...] = field(init=False)
    _deep: tuple[Parameter, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._by_name = {p.name: p for p in self.parameters}
        self._spread = tuple(
            p
            for p in self.parameters
            if p.shape.is_object and p.explode and p.style not in ("deepObject", "simple")
            and not p.is_json
        )  # fmt: skip
        self._deep = tuple(p for p in self.parameters if p.style == "deepObject")

    # -- reading -------------------------------------------------------------------------------

    def check_path(self, raw: Mapping[str, str]) -> tuple[Fault, ...]:
        """Faults of the path parameters, given as they stand in the path."""
        found = _Found(self.place)
        for p in self.parameters:
            text = raw.get(p.name)
            if text is not None:
                found.read(p, self._path_value, text)
        return self._checked(found)

    def check_query(self, query: str) -> tuple[Fault, ...]:
        """Faults of a query."""
        found = _Found(self.place)
        given: dict[str, list[str]] = {}
        pairs = query.split("&", _PAIRS_MAX) if query else []
        if len(pairs) > _PAIRS_MAX:
            what = f"has more than {_PAIRS_MAX} parameters"
            return (Fault(self.place, "", what, "maxProperties"),)
        for pair in pairs:
            if pair:
                raw_name, _, value = pair.partition("=")
                try:
                    name = decode_query(raw_name)
                except Unreadable as error:
                    found.fault((), f"the name of a parameter {error.detail}", error.keyword)
                    continue
                given.setdefault(name, []).append(value)
        return self._named(given, found, decode_query)

    def check_headers(self, headers: Sequence[tuple[bytes, bytes]]) -> tuple[Fault, ...]:
        """Faults of header fields, whose names are in lower case."""
        found = _Found(self.place)
        for p in self.parameters:
            key = p.name.lower().encode("latin-1")
            values = [value.decode("latin-1") for name, value in headers if name == key]
            if values:
                found.read(p, _header_value, values, self.reader)
        return self._checked(found)

    def check_cookies(self, headers: Sequence[tuple[bytes, bytes]]) -> tuple[Fault, ...]:
        """Faults of cookies."""
        found = _Found(self.place)
        given: dict[str, list[str]] = {}
        for key, value in headers:
            if key == b"cookie":
                for pair in value.decode("latin-1").split(";")[:_PAIRS_MAX]:
                    name, _, text = pair.strip(" \t").partition("=")
                    given.setdefault(name, []).append(text.strip('"'))
        return self._named(given, found, decode)

    # -- by name -------------------------------------------------------------------------------

    def _named(
        self, given: dict[str, list[str]], found: _Found, decoded: Callable[[str], str]
    ) -> tuple[Fault, ...]:
        taken: set[str] = set()
        for p in self.parameters:
            if p in self._spread or p in self._deep:
                continue
            raw = given.get(p.name)
            if raw is not None:
                taken.add(p.name)
                found.read(p, self._value, raw, decoded)
        for p in self._deep:
            pairs = _deep_names(p.name, given)
            if pairs:
                taken.update(pairs)
                fields = {inner: given[name] for name, inner in pairs.items()}
                found.read(p, _fields, fields, decoded)
        for p in self._spread:
            own = given.keys() & p.shape.properties.keys()
            if p.shape.rest is not None:
                own |= given.keys() - taken - self._by_name.keys()
            if own:
                taken.update(own)
                fields = {name: given[name] for name in given if name in own}
                found.read(p, _fields, fields, decoded)
        if self.others is not None:
            for name in given:
                if name not in taken and name not in self.others:
                    found.fault((name,), "is not a parameter of this operation", "unknown")
        return self._checked(found)

    def _value(self, p: Parameter, raw: list[str], decoded: Callable[[str], str]) -> Any:
        if p.shape.is_array and p.explode and not p.is_json:
            item = p.shape.of_items
            return [item.value(decoded(each)) for each in raw]
        if len(raw) > 1:
            raise Unreadable("is given more than once", "duplicate")
        text = raw[0]
        if not text and p.may_be_empty:
            return _Found.EMPTY
        if p.is_json or p.is_opaque:
            return _content(p, decoded(text), self.reader)
        return read_joined(text, p.shape, DELIMITERS.get(p.style, (",",)), decoded)

    def _path_value(self, p: Parameter, text: str) -> Any:
        if p.is_json or p.is_opaque:
            return _content(p, decode(text), self.reader)
        return read_path(text, p.name, p.shape, p.style, explode=p.explode)

    # -- against the schema --------------------------------------------------------------------

    def _checked(self, found: _Found) -> tuple[Fault, ...]:
        values = found.values
        faults = self.checker.faults(values)
        if faults and any(self._by_name[name].is_mixed for name in values):
            faults = self._as_text(found)
        kept = [
            fault
            for fault in faults
            if not (fault.keyword == "required" and fault.pointer in found.present_pointers)
        ]
        return (*found.faults, *kept)[:FAULTS_MAX]

    def _as_text(self, found: _Found) -> tuple[Fault, ...]:
        """Try mixed parameters as the text they were, each that has a fault."""
        faults = self.checker.faults(found.values)
        wrong = {fault.pointer.split("/")[1] for fault in faults if fault.pointer}
        for name, value in list(found.values.items()):
            p = self._by_name[name]
            if p.is_mixed and pointer_of([name])[1:] in wrong and not isinstance(value, str):
                read, given = found.reads[name]
                found.read(replace(p, shape=_TEXT), read, *given)
        return self.checker.faults(found.values)


class _Found:
    """What the parameters of one request hold, and what is wrong with how they are written."""

    EMPTY: Final = object()

    def __init__(self, place: Place) -> None:
        self.place: Final = place
        self.values: dict[str, Any] = {}
        self.reads: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {}
        self.faults: list[Fault] = []
        self.present: set[str] = set()

    @property
    def present_pointers(self) -> set[str]:
        return {pointer_of([name]) for name in self.present}

    def read(self, p: Parameter, value: Callable[..., Any], *given: Any) -> None:
        """Put in what `value` makes of the parameter and what was given of it."""
        try:
            got = value(p, *given)
        except (Unreadable, JsonRefused) as error:
            self.present.add(p.name)
            self.fault((p.name,), error.detail, error.keyword)
            return
        if got is self.EMPTY:
            self.present.add(p.name)
        else:
            self.values[p.name] = got
            self.reads[p.name] = (value, given)

    def fault(self, tokens: Iterable[str], detail: str, keyword: str) -> None:
        pointer = pointer_of([clipped(token) for token in tokens])
        self.faults.append(Fault(self.place, pointer, detail, keyword))


def _deep_names(name: str, given: Iterable[str]) -> dict[str, str]:
    start = f"{name}["
    return {
        each: each[len(start) : -1]
        for each in given
        if each.startswith(start) and each.endswith("]") and "[" not in each[len(start) :]
    }


def _fields(
    p: Parameter, fields: Mapping[str, list[str]], decoded: Callable[[str], str]
) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, raw in fields.items():
        inner = p.shape.of_property(name)
        if inner.is_array:
            item = inner.of_items
            made[name] = [item.value(decoded(each)) for each in raw]
        elif len(raw) > 1:
            raise Unreadable("has a name twice", "duplicate")
        else:
            made[name] = inner.value(decoded(raw[0]))
    return made


def _content(p: Parameter, text: str, reader: JsonReader) -> Any:
    if p.is_opaque:
        return _Found.EMPTY
    return reader.read(text.encode("utf-8"))


def _header_value(p: Parameter, values: list[str], reader: JsonReader) -> Any:
    """A header's value; lists may come in several fields (RFC 9110 section 5.3)."""
    if p.is_json or p.is_opaque:
        if len(values) > 1:
            raise Unreadable("is given more than once", "duplicate")
        return _content(p, values[0].encode("latin-1").decode("utf-8", "replace"), reader)
    shape = p.shape
    if shape.is_array:
        item = shape.of_items
        text = ",".join(values).strip(" \t")
        return [item.value(part.strip(" \t")) for part in text.split(",")] if text else []
    if len(values) > 1:
        raise Unreadable("is given more than once", "duplicate")
    if shape.is_object:
        parts = ",".join(part.strip(" \t") for part in values[0].split(","))
        if p.explode:
            return read_pairs(parts, shape, ",", as_it_is)
        return read_joined(parts, shape, (",",), as_it_is)
    return shape.value(values[0])

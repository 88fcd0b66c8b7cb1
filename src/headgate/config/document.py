"""Nodes to plain data: what scalars mean, merge keys, doubles, references.

Theory of operation
-------------------
The document holds only what JSON can and keeps what was written: a plain scalar becomes a number
or a boolean only when that is spelt the one canonical way (``8080``, ``0.5``, ``true``), so that
the spelling can always be had back. Everything else is text: ``no``, ``off`` and ``on`` (which
YAML 1.1 takes for booleans), ``0600`` and ``22:22`` (which it takes for octal and base sixty),
``1.10``, dates. Fields that want a number or a boolean read it from text (see ``fields``), so
nothing is lost by this and a country code ``NO`` stays one.

Aliases are followed by value. A few lines of them can stand for billions of values; the number
of values is bounded, and so is the text they carry.
"""

from __future__ import annotations

import re
from typing import Any, Final

from headgate.config.faults import Faults, clip, path_text
from headgate.config.nodes import MAX_DEPTH, Mapping, Node, Scalar, Sequence
from headgate.config.references import References

__all__ = ["Builder", "TooMuchError"]

MAX_VALUES: Final = 2_000_000
MAX_TEXT: Final = 256 * 1024 * 1024
_WHOLE: Final = re.compile(r"0|-?[1-9][0-9]{0,17}")
_BROKEN: Final = re.compile(r"-?(0|[1-9][0-9]{0,14})\.([0-9]{0,14}[1-9]|0)")
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_NUMBER_START: Final = frozenset("-0123456789")


class TooMuchError(Exception):
    """The document has more values, or a deeper nesting, than anybody would write."""


class Builder:
    """Turns nodes into values, noting faults on the way."""

    def __init__(self, references: References, faults: Faults) -> None:
        self._references = references
        self._faults = faults
        self._values = 0
        self._text = 0
        self._path: list[str | int] = []

    def build(self, root: Mapping) -> dict[str, Any]:
        """The document under ``root``. Raises TooMuchError when it is far too large."""
        built = self._value(root)
        return built if isinstance(built, dict) else {}

    def _value(self, node: Node) -> Any:
        self._values += 1
        if self._values > MAX_VALUES or len(self._path) > MAX_DEPTH:
            raise TooMuchError
        if isinstance(node, Scalar):
            return self._scalar(node)
        if isinstance(node, Mapping):
            entries = node.entries
            if entries is None:
                entries = self.entries(node)
            result = {}
            path = self._path
            for key, (_, item) in entries.items():
                path.append(key)
                result[key] = self._value(item)
                path.pop()
            return result
        assert isinstance(node, Sequence)  # noqa: S101 - there are three kinds
        listed = []
        for index, item in enumerate(node.items):
            self._path.append(index)
            listed.append(self._value(item))
            self._path.pop()
        return listed

    def _scalar(self, node: Scalar) -> str | int | float | bool | None:
        text = node.text
        if node.plain:
            if text[:1] in _NUMBER_START:
                if _WHOLE.fullmatch(text):
                    return int(text)
                if _BROKEN.fullmatch(text) and str(float(text)) == text:
                    return float(text)
            elif text == "true":
                return True
            elif text == "false":
                return False
            elif text in _NULLS:
                return None
        if "${" in text:
            text = self._references.resolve(node, path_text(tuple(self._path)))
        self._text += len(text)
        if self._text > MAX_TEXT:
            raise TooMuchError
        return text

    def entries(self, node: Mapping, depth: int = 0) -> dict[str, tuple[Scalar, Node]]:
        """What a mapping means: its own pairs, then what its merge keys add."""
        if node.entries is not None:
            return node.entries
        if depth > MAX_DEPTH:
            raise TooMuchError
        own: dict[str, tuple[Scalar, Node]] = {}
        merged: list[Node] = []
        for key, value in node.pairs:
            if not isinstance(key, Scalar):
                self._fault(key, "a key must be a single word, not a list or mapping")
                continue
            if key.text == "<<" and key.plain:
                merged.extend(value.items if isinstance(value, Sequence) else [value])
                continue
            if "${" in key.text:
                self._fault(key, "references stand in values only, not in keys")
                self._faults.unresolved.add(key.place)
            first = own.get(key.text)
            if first is not None:
                place = first[0].place
                self._fault(key, f'"{clip(key.text)}" is said twice, first in line {place.line}')
                continue
            own[key.text] = (key, value)
        for source in merged:
            if not isinstance(source, Mapping):
                self._fault(source, '"<<" merges mappings; this is none')
                continue
            for name, pair in self.entries(source, depth + 1).items():
                own.setdefault(name, pair)
        node.entries = own
        return own

    def _fault(self, node: Node, message: str) -> None:
        self._faults.add(node.place, message, where=path_text(tuple(self._path)))

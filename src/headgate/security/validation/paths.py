"""Path templates: which of the described paths a request is for.

Theory of operation. Templates stand in a tree of segments. A segment that is written out comes
before one that holds a template in part (`{id}.json`), which comes before `{id}` alone (OAS 3.1,
4.8.8.1); all that fit are found, the best first, so that a method which the best does not have may
be another's. Literals are compared decoded, so `%75sers` is `users`; the values of parameters stay
as they are written, for their style to read. A search visits each node of the tree at most once
for each segment, and mixed segments are matched from left to right without going back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar
from urllib.parse import unquote

__all__ = ["PathTree", "template_names"]

T = TypeVar("T")

_NAME: Final = re.compile(r"\{([^{}/]+)\}")
_BRACES: Final = re.compile(r"[{}]")


@dataclass(slots=True)
class _Node(Generic[T]):
    literals: dict[str, _Node[T]] = field(default_factory=dict)
    mixed: list[tuple[tuple[str, ...], _Node[T]]] = field(default_factory=list)
    whole: _Node[T] | None = None
    leaf: tuple[T, str, tuple[str, ...]] | None = None
    """What stands there, its template, and the names of its parameters in order."""


def template_names(template: str) -> list[str]:
    """The names of the parameters of a template; raises ValueError for a malformed one."""
    if not template.startswith("/"):
        msg = "a path must begin with /"
        raise ValueError(msg)
    if _BRACES.search(_NAME.sub("", template)):
        msg = "has a brace without its other one"
        raise ValueError(msg)
    names = _NAME.findall(template)
    if len(set(names)) != len(names):
        msg = "has the same parameter twice"
        raise ValueError(msg)
    if "}{" in template:
        msg = "has two parameters with nothing between them"
        raise ValueError(msg)
    return names


class PathTree(Generic[T]):
    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, template: str, value: T) -> None:
        """Add a template; raises ValueError."""
        names = template_names(template)
        node = self._root
        for segment in template[1:].split("/"):
            pieces = tuple(unquote(piece) for piece in _NAME.split(segment)[::2])
            if len(pieces) == 1:
                node = node.literals.setdefault(pieces[0], _Node())
            elif pieces == ("", ""):
                if node.whole is None:
                    node.whole = _Node()
                node = node.whole
            else:
                known = next((n for p, n in node.mixed if p == pieces), None)
                if known is None:
                    known = _Node()
                    node.mixed.append((pieces, known))
                    node.mixed.sort(key=lambda each: -sum(map(len, each[0])))
                node = known
        if node.leaf is not None:
            msg = f"is the same path as {node.leaf[1]}"
            raise ValueError(msg)
        node.leaf = (value, template, tuple(names))

    def find(self, path: str) -> Iterator[tuple[T, dict[str, str]]]:
        """Whatever fits `path`, the best first, with the parameters as they are written."""
        if path.startswith("/"):
            segments = path[1:].split("/")
            for (value, _, names), texts in self._walk(self._root, segments, 0, ()):
                yield value, dict(zip(names, texts, strict=True))

    def _walk(
        self, node: _Node[T], segments: list[str], at: int, texts: tuple[str, ...]
    ) -> Iterator[tuple[tuple[T, str, tuple[str, ...]], tuple[str, ...]]]:
        if at == len(segments):
            if node.leaf is not None:
                yield node.leaf, texts
            return
        raw = segments[at]
        literal = node.literals.get(unquote(raw) if "%" in raw else raw)
        if literal is not None:
            yield from self._walk(literal, segments, at + 1, texts)
        for pieces, child in node.mixed:
            got = _mixed(pieces, raw)
            if got is not None:
                yield from self._walk(child, segments, at + 1, texts + got)
        if node.whole is not None and raw:
            yield from self._walk(node.whole, segments, at + 1, (*texts, raw))


def _mixed(pieces: tuple[str, ...], raw: str) -> tuple[str, ...] | None:
    """The texts between the literal pieces, each at its first place; none may be empty."""
    first, *middle, last = pieces
    if not raw.startswith(first) or len(raw) < len(first) + len(last) or not raw.endswith(last):
        return None
    at, end = len(first), len(raw) - len(last)
    texts = []
    for piece in middle:
        found = raw.find(piece, at + 1, end)
        if found < 0:
            return None
        texts.append(raw[at:found])
        at = found + len(piece)
    if at >= end:
        return None
    texts.append(raw[at:end])
    return tuple(texts)

"""YAML text to nodes that know where they stand.

Theory of operation
-------------------
The file is read event by event into a tree of ``Scalar``, ``Sequence`` and ``Mapping`` nodes,
each with its source, line and column. PyYAML's own ``compose`` would do it too, but it recurses
in C without a limit, so that a file of a hundred thousand brackets ends the process; here the
depth is counted. It would also decide what every scalar is by the rules of YAML 1.1, which are
not wanted (see ``document``).

An anchor is known once its node is complete. An alias to a node that contains it is therefore
"not defined", and the tree can have no cycles. Aliases share the node: what they cost is bounded
where the tree is turned into values, which is where it could multiply.

Only the core of YAML is spoken: tags for text, numbers, booleans, null, lists and mappings are
accepted and mean what the plain spelling means; any other tag is a fault and never a class.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from headgate.config.faults import Faults, Loc, Place

__all__ = ["Mapping", "Node", "Scalar", "Sequence", "Source", "as_written", "find", "parse_nodes"]

MAX_DEPTH: Final = 64
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNREADABLE: Final = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_SCALAR_TAGS: Final = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null")
) | {"!"}
_SEQUENCE_TAGS: Final = frozenset({"tag:yaml.org,2002:seq", "!"})
_MAPPING_TAGS: Final = frozenset({"tag:yaml.org,2002:map", "!"})

# What libyaml says, and what it means to somebody who looks at the file.
_PLAINER: Final = (
    (
        "mapping values are not allowed",
        'a ":" that cannot stand here; check the indentation, or put the value in quotes',
    ),
    ("found character that cannot start any token", "a character that cannot start a value"),
    ("did not find expected key", "the indentation does not fit the lines before"),
    ("did not find expected '-' indicator", "the indentation does not fit the list before"),
    ("could not find expected ':'", 'a key without ":"'),
    (
        "did not find expected ',' or '}'",
        'a "{" without its "}", or a missing ","; a value with braces in it needs quotes here',
    ),
    ("did not find expected ',' or ']'", 'a "[" without its "]", or a missing ","'),
    ("did not find expected node content", 'a "[" or "{" that is not closed, or a value missing'),
    ("found unexpected end of stream", "quotes that are not closed"),
    ("found undefined tag handle", "a tag, which has no meaning here; put the text in quotes"),
    ("block sequence entries are not allowed", 'a "- " that cannot stand here'),
    ("found unknown escape character", "an unknown escape in double quotes; use single quotes"),
    ("did not find expected <document start>", "text after the end of the document"),
)


@dataclass(frozen=True, slots=True)
class Source:
    """One file: as it is shown to the reader, and where relative names in it start."""

    name: str
    directory: Path


class Node:
    """A place in a source. ``line`` and ``column`` count from one."""

    __slots__ = ("column", "line", "source")

    def __init__(self, source: Source, line: int, column: int) -> None:
        self.source = source
        self.line = line
        self.column = column

    @property
    def place(self) -> Place:
        """File, line and column."""
        return Place(self.source.name, self.line, self.column)


class Scalar(Node):
    """A single value, as text. ``plain`` ones (without quotes) may be numbers or booleans."""

    __slots__ = ("plain", "text")

    def __init__(self, source: Source, line: int, column: int, text: str, plain: bool) -> None:
        super().__init__(source, line, column)
        self.text = text
        self.plain = plain


class Sequence(Node):
    """A list."""

    __slots__ = ("items",)

    def __init__(self, source: Source, line: int, column: int) -> None:
        super().__init__(source, line, column)
        self.items: list[Node] = []


class Mapping(Node):
    """A mapping. ``pairs`` is what was written; ``entries`` what it means.

    ``entries`` is filled once, when the mapping is first turned into a value: merge keys are
    followed and doubles reported there.
    """

    __slots__ = ("entries", "pairs")

    def __init__(self, source: Source, line: int, column: int) -> None:
        super().__init__(source, line, column)
        self.pairs: list[tuple[Node, Node]] = []
        self.entries: dict[str, tuple[Scalar, Node]] | None = None


def find(root: Node | None, loc: Loc) -> tuple[Node | None, Scalar | None, int]:
    """The nearest node to ``loc``, the key it stands under, and how many parts led to it.

    The tree may hold less than the path says: a missing key, or the ``url`` of an instance that
    is written as mere text. Where one mapping stands for a list of one, its ``0`` leads to itself.
    """
    node, key, depth = root, None, 0
    for part in loc:
        if isinstance(node, Mapping) and node.entries and str(part) in node.entries:
            key, node = node.entries[str(part)]
        elif isinstance(node, Sequence) and isinstance(part, int) and part < len(node.items):
            key, node = None, node.items[part]
        elif not (part == 0 and isinstance(node, Mapping) and depth):
            break
        depth += 1
    return node, key, depth


def as_written(root: Node | None, loc: Loc) -> Loc:
    """The path without the ``0`` of lists that are written as their only entry."""
    return tuple(
        part
        for depth, part in enumerate(loc)
        if part != 0 or not isinstance(find(root, loc[:depth])[0], Mapping)
    )


def decode(data: bytes, source: Source, faults: Faults) -> str | None:
    """The text of a file; None, with a fault, when it is none."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        faults.add(Place(source.name, 1, 1), "is UTF-16; save it as UTF-8")
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        place = _place_after(before, source)
        faults.add(place, f"byte 0x{data[error.start]:02x} is not UTF-8; is this a text file?")
        return None
    if found := _UNREADABLE.search(text):
        place = _place_after(text[: found.start()], source)
        faults.add(place, f"control character U+{ord(found[0]):04X}; is this a text file?")
        return None
    return text


def _place_after(before: str, source: Source) -> Place:
    lines = before.split("\n")
    return Place(source.name, len(lines), len(lines[-1]) + 1)


def parse_nodes(data: bytes, source: Source, faults: Faults) -> Node | None:
    """The tree of one file; None when it is empty or, with a fault, when it is not YAML."""
    text = decode(data, source, faults)
    if text is None:
        return None
    try:
        return _Reader(text, source, faults).read()
    except yaml.MarkedYAMLError as error:
        faults.add(*_explain(error, text, source))
    except yaml.YAMLError:
        faults.add(Place(source.name, 1, 1), "is not YAML")
    return None


def _explain(error: yaml.MarkedYAMLError, text: str, source: Source) -> tuple[Place, str]:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark is not None else (0, 0)
    lines = text.split("\n")
    here = lines[line] if line < len(lines) else ""
    problem = error.problem or "is not YAML"
    for known, plain in _PLAINER:
        if known in problem:
            problem = plain
            break
    if "\t" in here[: column + 1] and here[: column + 1].strip() == "":
        problem = "a tab in the indentation; YAML indents with spaces"
    elif here[column : column + 1] in ("@", "`", "%"):
        problem = f'a value cannot start with "{here[column]}"; put it in quotes'
    return Place(source.name, line + 1, column + 1), problem


class _Reader:
    """Builds the tree of one file from its events, without recursion."""

    def __init__(self, text: str, source: Source, faults: Faults) -> None:
        self._source = source
        self._faults = faults
        self._loader = _LOADER(text.encode())  # the C parser takes UTF-8 faster than str
        self._anchors: dict[str, Node] = {}
        self._seen: set[str] = set()

    def read(self) -> Node | None:
        try:
            return self._document()
        finally:
            self._loader.dispose()

    def _document(self) -> Node | None:
        root: Node | None = None
        documents = 0
        stack: list[tuple[Node, str | None]] = []
        key: list[Node | None] = []  # beside the stack: the key that waits for its value
        next_event: Callable[[], Any] = self._loader.get_event
        source = self._source
        while (event := next_event()) is not None:
            kind = type(event)
            if kind is yaml.ScalarEvent:
                mark = event.start_mark
                node: Node = Scalar(
                    source, mark.line + 1, mark.column + 1, event.value, not event.style
                )
                if event.tag is not None:
                    self._check_tag(event, node, _SCALAR_TAGS)
                    assert isinstance(node, Scalar)  # noqa: S101 - for the type checker
                    node.plain = event.tag not in ("!", "tag:yaml.org,2002:str")
                if event.anchor is not None:
                    self._anchor(event.anchor, node)
                    self._anchors[event.anchor] = node
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                if len(stack) >= MAX_DEPTH:
                    self._faults.add(self._at(event), f"is nested more than {MAX_DEPTH} deep")
                    return None
                mark = event.start_mark
                if kind is yaml.MappingStartEvent:
                    node = Mapping(source, mark.line + 1, mark.column + 1)
                    tags = _MAPPING_TAGS
                else:
                    node = Sequence(source, mark.line + 1, mark.column + 1)
                    tags = _SEQUENCE_TAGS
                if event.tag is not None:
                    self._check_tag(event, node, tags)
                if event.anchor is not None:
                    self._anchor(event.anchor, node)
                stack.append((node, event.anchor))
                key.append(None)
                continue
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                node, anchor = stack.pop()
                key.pop()
                if anchor is not None:
                    self._anchors[anchor] = node
            elif kind is yaml.AliasEvent:
                node = self._alias(event)
            elif kind is yaml.DocumentStartEvent:
                documents += 1
                if documents > 1:
                    self._faults.add(self._at(event), 'a second document ("---"); one file is one')
                    return root
                continue
            else:
                continue
            # `node` is complete: it is the next item, key or value of what is open, or the root.
            if not stack:
                root = node
                continue
            parent = stack[-1][0]
            if isinstance(parent, Sequence):
                parent.items.append(node)
            elif isinstance(parent, Mapping):
                waiting = key[-1]
                if waiting is None:
                    key[-1] = node
                else:
                    parent.pairs.append((waiting, node))
                    key[-1] = None
        return root

    def _at(self, event: Any) -> Place:
        return Place(self._source.name, event.start_mark.line + 1, event.start_mark.column + 1)

    def _check_tag(self, event: Any, node: Node, known: frozenset[str]) -> None:
        if event.tag not in known:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._faults.add(
                node.place, f"the tag {tag[:40]} has no meaning here", "put the text in quotes"
            )
            self._faults.unresolved.add(node.place)

    def _anchor(self, name: str, node: Node) -> None:
        if name in self._seen:
            self._faults.add(node.place, f"the anchor &{name[:40]} is set twice")
        self._seen.add(name)

    def _alias(self, event: Any) -> Node:
        node = self._anchors.get(event.anchor)
        if node is not None:
            return node
        why = "stands inside itself" if event.anchor in self._seen else "is not set before this"
        self._faults.add(self._at(event), f"the anchor of *{event.anchor[:40]} {why}")
        self._faults.unresolved.add(self._at(event))
        mark = event.start_mark
        return Scalar(self._source, mark.line + 1, mark.column + 1, "", plain=True)

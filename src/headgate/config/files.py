"""Reading files into one tree, following what they include.

Names are shown as the reader would write them: an included file is named from where the first
one was named, not by its absolute path. Every file is read once; a cycle, or a second inclusion,
is a fault at the line that asks for it.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from headgate.config.document import Builder
from headgate.config.faults import Faults, Place, clip
from headgate.config.merge import merge
from headgate.config.nodes import Mapping, Node, Scalar, Sequence, Source, parse_nodes
from headgate.config.references import References
from headgate.units import MB, format_size

__all__ = ["Files"]

MAX_FILE: Final = 16 * MB
MAX_FILES: Final = 1000
_PATTERN_CHARS: Final = frozenset("*?[")


class Files:
    """Reads files into one tree, following ``include``."""

    def __init__(self, faults: Faults, references: References, builder: Builder) -> None:
        self._faults = faults
        self._references = references
        self._builder = builder
        self._names: dict[Path, str] = {}
        self._open: list[Path] = []
        self.is_complete = True
        """Whether every file could be read. If not, a name may be missing for that reason."""

    @property
    def read(self) -> tuple[Path, ...]:
        """The files read so far."""
        return tuple(self._names)

    def read_all(self, name: str) -> Mapping:
        """The tree of a file or of a directory."""
        nowhere = Place(name)
        if os.path.isdir(name):  # noqa: PTH112
            found = _sorted_yaml(name)
            if not found:
                self._faults.add(nowhere, "has no *.yaml files in it")
        else:
            found = [name]
        root = Mapping(Source(name, Path(name)), 1, 1)
        root.entries = {}
        for each in found:
            tree = self._one(each, nowhere if len(found) == 1 else Place(each))
            if tree is not None:
                root = tree if not root.entries else self._merge(root, tree)
        return root

    def _merge(self, first: Mapping, second: Mapping) -> Mapping:
        return merge(first, second, self._builder.entries, self._faults)

    def _one(self, name: str, asked_at: Place, where: str = "") -> Mapping | None:
        """One file with all it includes."""
        path = Path(os.path.abspath(name))  # noqa: PTH100 - keeps symbolic links
        if path in self._open:
            self._faults.add(asked_at, f'"{clip(name)}" includes itself', where=where)
            return None
        if path in self._names:
            self._faults.add(asked_at, f'"{clip(name)}" is included twice', where=where)
            return None
        if len(self._names) >= MAX_FILES:
            self._faults.add(asked_at, f"more than {MAX_FILES} files", where=where)
            return None
        data = self._bytes(path, name, asked_at, where)
        if data is None:
            self.is_complete = False
            return None
        self._names[path] = name
        source = Source(os.path.normpath(name), path.parent)
        self._faults.begin(source.name)
        errors = self._faults.errors
        node = parse_nodes(data, source, self._faults)
        if self._faults.errors > errors:
            self.is_complete = False
        if node is None:
            return None
        if not isinstance(node, Mapping):
            if not (isinstance(node, Scalar) and node.plain and node.text in ("", "~", "null")):
                self._faults.add(node.place, "the file must be a mapping: listeners, services, ...")
                self.is_complete = False
            return None
        entries = self._builder.entries(node)
        if "include" not in entries:
            return node
        _, included = entries["include"]
        root = Mapping(node.source, node.line, node.column)
        root.entries = {key: pair for key, pair in entries.items() if key != "include"}
        self._open.append(path)
        try:
            for each, place, at in self._included(included, path):
                tree = self._one(each, place, at)
                if tree is not None:
                    root = self._merge(root, tree)
        finally:
            self._open.pop()
        return root

    def _included(self, node: Node, includer: Path) -> Iterator[tuple[str, Place, str]]:
        """The files that an ``include`` names, and where it names them."""
        items = node.items if isinstance(node, Sequence) else [node]
        for index, item in enumerate(items):
            where = f"include[{index}]" if isinstance(node, Sequence) else "include"
            if not isinstance(item, Scalar):
                self._faults.add(item.place, "must name a file", where=where)
                continue
            text = item.text
            if "${" in text:
                text = self._references.resolve(item, where)
            if not text or "\0" in text:
                self._faults.add(item.place, "must name a file", where=where)
                continue
            near = os.path.dirname(item.source.name)  # noqa: PTH120
            name = os.path.normpath(os.path.join(near, text))  # noqa: PTH118
            if _PATTERN_CHARS & set(text) and not os.path.exists(name):  # noqa: PTH110
                # A pattern may take in the file that says it; that is no include of itself.
                found = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 - keeps it relative
                found = [each for each in found if Path(os.path.abspath(each)) != includer]  # noqa: PTH100
            elif os.path.isdir(name):  # noqa: PTH112
                found = _sorted_yaml(name)
            else:
                found = [name]
            for each in found:
                yield each, item.place, where

    def _bytes(self, path: Path, name: str, asked_at: Place, where: str) -> bytes | None:
        shown = clip(name)
        subject = "" if asked_at.file == name else f'"{shown}": '
        try:
            if not path.is_file() and path.exists() and not path.is_fifo():
                self._faults.add(asked_at, f"{subject}is not a file", where=where)
                return None
            with path.open("rb") as file:
                data = file.read(MAX_FILE + 1)
        except (OSError, ValueError) as error:
            reason = (getattr(error, "strerror", None) or "unreadable").lower()
            self._faults.add(asked_at, f"{subject}cannot be read: {reason}", where=where)
            return None
        if len(data) > MAX_FILE:
            most = format_size(MAX_FILE)
            self._faults.add(asked_at, f"{subject}is larger than {most}", where=where)
            return None
        return data


def _sorted_yaml(directory: str) -> list[str]:
    try:
        names = sorted(os.listdir(directory))  # noqa: PTH208
    except OSError:
        return []
    return [
        os.path.join(directory, name)  # noqa: PTH118
        for name in names
        if name.endswith((".yaml", ".yml")) and not name.startswith(".")
    ]

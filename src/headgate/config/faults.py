"""Gathering what is wrong, so that all of it is said at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from headgate.errors import Fault

__all__ = ["Faults", "Loc", "Place", "clip", "did_you_mean", "nearest", "path_text"]

Loc = tuple[str | int, ...]
"""A path in the document: ``("routes", 3, "to")``."""

_SHOWN: Final = 60
_MAX_FAULTS: Final = 1000  # beyond that nobody reads on, and a hostile file could fill memory
_SHORTEST_SECRET: Final = 4
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


class Place(NamedTuple):
    """File, line and column, counted from one; a zero is "not known"."""

    file: str
    line: int = 0
    column: int = 0


class Faults:
    """Collects faults, keeps them from repeating, and knows which words must not be printed."""

    def __init__(self) -> None:
        self._found: dict[tuple[object, ...], Fault] = {}
        self._files: dict[str, int] = {}
        self._secrets: dict[str, str] = {}
        self.errors = 0
        self.unresolved: set[Place] = set()
        """Values that could not be read: what else is found wrong with them is an echo."""

    def begin(self, file: str) -> None:
        """Faults are told in the order in which their files were begun."""
        self._files.setdefault(file, len(self._files))

    def add(
        self,
        place: Place,
        message: str,
        hint: str = "",
        *,
        where: str = "",
        warning: bool = False,
    ) -> None:
        """Note one fault. The same words at the same place are noted once."""
        if len(self._found) >= _MAX_FAULTS:
            self.errors += not warning
            return
        fault = Fault(
            place.file,
            place.line,
            place.column,
            where,
            self._masked(message),
            self._masked(hint),
            "warning" if warning else "error",
        )
        # A document that came from no file has no lines; there the path is the place.
        at = (fault.line, fault.column) if fault.line else fault.where
        key = (fault.file, at, fault.message)
        if key not in self._found:
            self._found[key] = fault
            self.begin(fault.file)
            self.errors += not warning

    def hide(self, value: str, reference: str) -> None:
        """Never print this value: it came from ``reference``, which is printed in its place.

        The second line of defence. The first is that messages show the text of the file, where
        the reference stands unresolved; this catches what a message quotes in other ways. Very
        short values are let through, since replacing every "1" would garble the sentence.
        """
        if len(value) >= _SHORTEST_SECRET:
            self._secrets[value] = reference

    def _masked(self, text: str) -> str:
        for value in sorted(self._secrets, key=len, reverse=True):
            if value in text:
                text = text.replace(value, self._secrets[value])
        return text

    def sorted(self, level: str | None = None) -> tuple[Fault, ...]:
        """All faults, or those of one level: file by file as read, then by line and column."""
        found = (f for f in self._found.values() if level is None or f.level == level)
        order = self._files
        return tuple(sorted(found, key=lambda f: (order[f.file], f.line, f.column)))


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, or nothing when none is near."""
    near = difflib.get_close_matches(word[:100].lower(), list(known), n=1, cutoff=0.6)
    return near[0] if near else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """'did you mean "billing"?', or nothing when no known word is near."""
    near = nearest(word, known)
    return f'did you mean "{near}"?' if near else ""


def path_text(loc: Loc) -> str:
    """A path as it is written: ``routes[3].match.headers["x-beta"]``."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f'["{clip(part)}"]'
    return text


def clip(text: str) -> str:
    """Short enough for a message, on one line."""
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."

"""What may be told of an SQL statement: its shape, without anybody's data; and who asked for it."""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any, Final

__all__ = ["caller", "operation_of", "without_literals"]

MOST: Final = 2_000
_READ: Final = 20_000
_KNOWN_MOST: Final = 4_000
_LITERAL: Final = re.compile(
    r"""
    (?:\b[eEbBxXnN]|\b[uU]&)?'(?:[^'\\]|''|\\.)*(?:'|\Z)   # text; an open one to the end
    | \$(?P<tag>[A-Za-z_]*)\$.*?(?:\$(?P=tag)\$|\Z)         # text of PostgreSQL
    | --[^\n]*                                              # comments may hold anything
    | /\*.*?(?:\*/|\Z)
    | (?P<name>"(?:[^"]|"")*(?:"|\Z) | `[^`]*(?:`|\Z))      # names, where they are quoted
    | (?P<place>\$\d+ | :\w+ | %\(\w+\)s | @\w+)            # places for parameters stay
    | (?P<word>[A-Za-z_]\w*)
    | 0[xX][0-9a-fA-F]+ | (?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?
    """,
    re.VERBOSE | re.DOTALL,
)
_LIST: Final = re.compile(r"\(\s*(?:\?|\$\d+|%s)(?:\s*,\s*(?:\?|\$\d+|%s)){2,}\s*\)")
_SPACE: Final = re.compile(r"\s+")
_OURS: Final = (
    "headgate.",
    "sqlalchemy.",
    "asyncpg.",
    "psycopg.",
    "redis.",
    "asyncio.",
    "contextlib",
)


def without_literals(statement: object, *, quotes_are_text: bool = False) -> str:
    """The statement with `?` for each literal, without comments; long lists are one `(...)`.

    `quotes_are_text` is for MySQL, where what stands in double quotes is text. What comes after
    the first twenty thousand characters is left out, and two thousand of the outcome are kept.
    """
    text = str(statement)[:_READ]
    if len(text) > _KNOWN_MOST:
        return _shape(text, quotes_are_text)
    return _known_shape(text, quotes_are_text)


def _shape(text: str, quotes_are_text: bool) -> str:

    def shown(found: re.Match[str]) -> str:
        if found["word"] is not None or found["place"] is not None:
            return found[0]
        if found["name"] is not None:
            return "?" if quotes_are_text and found[0][0] == '"' else found[0]
        return " " if found[0].startswith(("--", "/*")) else "?"

    plain = _SPACE.sub(" ", _LITERAL.sub(shown, text)).strip()
    return _LIST.sub("(...)", plain)[:MOST]


# Some 40 us for a short statement. Those of a program are few, and come again.
_known_shape = lru_cache(maxsize=512)(_shape)


def operation_of(statement: str) -> str:
    """The first word, if it is one."""
    word = statement.lstrip("( ").split(" ", 1)[0].rstrip(";(").upper()
    return word if word.isascii() and word.isalpha() and len(word) <= 16 else "OTHER"


def caller(depth: int = 2) -> dict[str, Any]:
    """Where the statement comes from: the nearest line of code that is no library's."""
    frame: FrameType | None = sys._getframe(depth)  # noqa: SLF001  # as `logging` does it
    for found in (frame, _outer()):
        frame = found
        for _ in range(80):
            if frame is None:
                break
            module = frame.f_globals.get("__name__", "")
            if not f"{module}.".startswith(_OURS):
                code: CodeType = frame.f_code
                return {
                    "code.file.path": code.co_filename,
                    "code.line.number": frame.f_lineno,
                    "code.function.name": code.co_qualname,
                }
            frame = frame.f_back
    return {}


def _outer() -> FrameType | None:
    """SQLAlchemy runs its part in a greenlet, whose frames end where it begins."""
    greenlet = sys.modules.get("greenlet")
    if greenlet is None:
        return None
    parent = greenlet.getcurrent().parent
    found: FrameType | None = getattr(parent, "gr_frame", None)
    return found

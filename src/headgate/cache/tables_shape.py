"""What is left of a statement when its values are taken out: the key under which it is remembered.

Two statements of one shape name the same tables. So only what is surely a value is replaced (texts
in single quotes, numbers that stand alone, lists of those) and what is surely nothing is left out
(comments, white space). Names in quotes stay as they are. How texts end differs by dialect; where
one does not end as it should, the statement has no shape.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["SHAPE_MAX", "shape_of"]

SHAPE_MAX: Final = 20_000

_SPACE: Final = r"(?P<space>\s+|--[^\n]*)"
_COMMENT: Final = r"(?P<comment>/\*)"
_NUMBER: Final = r"(?P<value>(?<![\w$.@:])\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.]))"
_NAME: Final = r"(?P<name>[^\W\d][\w$]*|\"(?:[^\"]|\"\")*\")"
_REST: Final = r"(?P<rest>.)"

_OWN: Final = {
    # A text with escapes or a prefix is left as it is; what is between dollars has no shape.
    "postgres": (
        _SPACE,
        r"(?P<text>[eE]'(?:[^'\\]|\\.|'')*'|[uU]&'(?:[^']|'')*')",
        r"(?P<dollar>\$(?:[A-Za-z_]\w*)?\$)",
        r"(?P<plain>'(?:[^']|'')*')",
        _NAME,
    ),
    # In double quotes stands a text, or a name, by `sql_mode`: left as it is.
    "mysql": (
        r"(?P<space>\s+|--(?=\s)[^\n]*|\#[^\n]*)",
        r"(?P<text>\"(?:[^\"\\]|\\.|\"\")*\"|`(?:[^`]|``)*`)",
        r"(?P<plain>'(?:[^'\\]|\\.|'')*')",
        r"(?P<name>[^\W\d][\w$]*)",
    ),
    "sqlite": (
        _SPACE,
        r"(?P<text>`(?:[^`]|``)*`|\[[^\]]*\])",
        r"(?P<plain>'(?:[^']|'')*')",
        _NAME,
    ),
}
_PIECES: Final = {
    dialect: re.compile("|".join((_COMMENT, *own, _NUMBER, _REST)), re.DOTALL)
    for dialect, own in _OWN.items()
}
_OPEN: Final = frozenset("'\"`[")
_LIST: Final = re.compile(r"\(\?(?: ?, ?\?)*\)(?: ?, ?\(\?(?: ?, ?\?)*\))*")


def shape_of(sql: str, dialect: str) -> str | None:
    """None: it is remembered by its text alone."""
    find = _PIECES[dialect].match
    made: list[str] = []
    at, end = 0, len(sql)
    while at < end:
        found = find(sql, at)
        if found is None:
            return None
        kind, piece = found.lastgroup, found.group()
        at = found.end()
        if kind == "space":
            piece = " "
        elif kind == "comment":
            # Those of MySQL with a "!" are none, and those of PostgreSQL stand one in another.
            closed = sql.find("*/", at)
            if closed < 0 or sql.startswith(("!", "M!"), at) or "/*" in sql[at:closed]:
                return None
            at, piece = closed + 2, " "
        elif kind == "plain":
            if sql.startswith("'", at) or (made and made[-1][-1:].isalnum()):
                return None
            piece = "?"
        elif kind == "value":
            piece = "?"
        elif kind == "dollar" or (kind == "rest" and piece in _OPEN and dialect != "postgres"):
            return None
        elif kind == "rest" and piece in "'\"":
            return None
        if not (piece == " " and made and made[-1] == " "):
            made.append(piece)
    shape = _LIST.sub("(?+)", "".join(made).strip())
    return shape if len(shape) <= SHAPE_MAX else None

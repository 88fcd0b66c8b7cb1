"""Query texts without their literals: what was asked, not of whom.

Theory of operation. One pass of one expression that knows strings, comments, quoted names and
numbers; whatever is none of these is kept. What has no end is a literal to the end of the text.
Comments go too, since programs write values there. `ansi` is PostgreSQL, SQLite, Oracle and the
standard: a double quote holds a name, a backslash means nothing outside of E'...'. `mysql` is
MySQL and MariaDB: both quotes hold strings, and a backslash escapes.
"""

from __future__ import annotations

import re
from typing import Final, Literal

__all__ = ["Dialect", "without_literals"]

Dialect = Literal["ansi", "mysql"]

_COMMON: Final = r"""
    (?P<comment> --[^\n]*+ | /\*[\s\S]*?(?:\*/|\Z) )
  | (?P<number> (?<![\w$.])[+-]?(?:0[xX][0-9A-Fa-f]++ | 0[bB][01]++
        | (?:[0-9][0-9_]*+(?:\.[0-9]*+)?+ | \.[0-9]++)(?:[eE][+-]?[0-9]++)?+ )(?!\w) )
  | (?P<other> [\w$]++ )
"""
_ANSI: Final = re.compile(
    r"""
    (?P<string> \b[eE]'(?:[^'\\]|\\[\s\S]|'')*+(?:'|\Z)
        | (?:\b[bBxXnN]|\b[uU]&)?'(?:[^']|'')*+(?:'|\Z)
        | (?<![\w$])\$(?P<tag>[A-Za-z_]?\w{0,62})\$[\s\S]*?(?:\$(?P=tag)\$|\Z) )
  | (?P<name> "(?:[^"]|"")*+(?:"|\Z) )
  | """
    + _COMMON,
    re.VERBOSE,
)
_MYSQL: Final = re.compile(
    r"""
    (?P<string> \b[bBxXnN]?'(?:[^'\\]|\\[\s\S]|'')*+(?:'|\Z) | '(?:[^'\\]|\\[\s\S]|'')*+(?:'|\Z)
        | "(?:[^"\\]|\\[\s\S]|"")*+(?:"|\Z) )
  | (?P<name> `(?:[^`]|``)*+(?:`|\Z) )
  | \#(?P<hash>[^\n]*+)
  | """
    + _COMMON,
    re.VERBOSE,
)


def without_literals(text: str, dialect: Dialect = "ansi") -> str:
    """The query with `?` for every string and number, and without its comments."""

    def one(found: re.Match[str]) -> str:
        kind = found.lastgroup
        if kind in {"string", "number", "tag"}:
            return "?"
        if kind in {"comment", "hash"}:
            return " "
        return found[0]

    return (_ANSI if dialect == "ansi" else _MYSQL).sub(one, text)

"""SQL in tokens, one at a time and only as far as somebody asks.

Theory of operation. One pattern matches one token at one place and never gives back what it took,
so reading is linear. It accepts what any of the large databases would: strings with doubled and
with escaped quotes, `0x41`, `/*!50000select*/`, `1e0union`, `@@version`, `[name]` and `` `name` ``.
A comment that hides code (`/*! ... */`) is opened, other closed comments are white space, and a
comment that runs to the end is a token: it cuts off what the service wrote after the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from headgate.security.injection.sql_words import DANGEROUS, DATA, OWNERS, WORDS

_TOKEN: Final = re.compile(
    r"""
    (?P<gap>(?:[\s\x00-\x20\xa0\u200b\ufeff\ufffd]|/\*!\d*|/\*[^*]*\*+(?:[^/*][^*]*\*+)*/|\*/)+)
    |(?P<cut>--[^\n]*|\#[^\n]*|/\*.*|;?\x00.*)
    |(?P<s>(?:[nbxeq]|_[a-z0-9]+)?'[^'\\]*(?:(?:\\.|'')[^'\\]*)*(?:'|\\?\Z)
          |"[^"\\]*(?:(?:\\.|"")[^"\\]*)*(?:"|\\?\Z))
    |(?P<n>0x[0-9a-f]+|0b[01]+\b|(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+|e(?=[.\s(]))?|\\n\b)
    |(?P<v>@@?(?:[\w$.]+|`[^`]*`)?)
    |(?P<w>[^\W\d][\w$]*|`[^`]*`|\[[\w ]{1,64}\])
    |(?P<o><=>|<>|!=|<=|>=|:=|\|\||&&|<<|>>|!<|!>|==|\*=|[-+*/%^&|~!=<>])
    |(?P<p>[(),;.{}:])
    |(?P<x>.)
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_CALLS: Final = re.compile(r"\s*\(").match
_COMPARE: Final = frozenset({"=", "<>", "!=", "<", ">", "<=", ">=", "<=>", "==", "!<", "!>", "*="})
_LOGIC: Final = frozenset({"||", "&&"})


class Token(NamedTuple):
    kind: str
    """Its class: see sql_words."""
    text: str
    """In lower case; of strings, the content alone."""
    is_open: bool = False
    """A string that the value does not close."""


def lex(text: str, start: int = 0) -> Iterator[Token]:
    """Yield the tokens from `start` on."""
    owner = ""
    dotted = False
    for found in _TOKEN.finditer(text, start):
        group = found.lastgroup
        if group == "gap":
            continue
        raw = found.group()
        if group == "w":
            word = raw.lower()
            kind = WORDS.get(word, "w")
            if dotted:
                kind = "w"
            if kind in "w0TcA" and _CALLS(text, found.end()):
                if word in DANGEROUS and (not dotted or owner in OWNERS):
                    kind = "D"
                elif word in DATA and not dotted:
                    kind = "F"
                elif kind == "w" and text[found.end()] == "(":
                    kind = "f"
            owner, dotted = word, False
            yield Token(kind, word.strip("`[]"))
            continue
        if group == "p":
            dotted = raw == "."
            yield Token(raw, raw)
            continue
        dotted = False
        if group == "s":
            mark = raw[-1]
            body = raw[raw.index("'") + 1 :] if raw[0] != '"' else raw[1:]
            is_open = not body or mark != (raw[0] if raw[0] == '"' else "'")
            yield Token("s", (body if is_open else body[:-1]).lower(), is_open)
        elif group == "o":
            if raw in _COMPARE:
                yield Token("C", raw)
            elif raw in _LOGIC:
                yield Token("L", raw)
            else:
                yield Token("N" if raw in "!~" else "A", raw)
        elif group == "cut":
            if raw[0] in "-#" and found.end() < len(text):
                continue  # a comment to the end of its line; the next line goes on
            yield Token("-", raw)
            return
        elif group == "x":
            yield Token("?", raw)
        else:
            yield Token(group or "?", raw.lower())

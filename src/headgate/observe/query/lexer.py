"""An expression cut into words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from headgate.observe.query.model import QueryFault

__all__ = ["Token", "duration_s", "tokens", "unsafe_pattern"]

Sort = Literal["name", "number", "duration", "text", "sign", "end"]

_DURATION: Final = re.compile(r"(?:\d+(?:ms|[smhdwy]))+(?![A-Za-z0-9_])")
_PART: Final = re.compile(r"(\d+)(ms|[smhdwy])")
_SECONDS: Final = {
    "ms": 0.001,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 7 * 86400.0,
    "y": 365 * 86400.0,
}
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_NAME: Final = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
_SIGN: Final = re.compile(r"==|!=|<=|>=|=~|!~|[-+*/%^()\[\]{},=<>:@]")
_BLANK: Final = re.compile(r"(?:\s|#[^\n]*)+")
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'"}


@dataclass(frozen=True, slots=True)
class Token:
    sort: Sort
    text: str
    position: int


def duration_s(text: str) -> float:
    """Seconds in "1h30m"."""
    return sum(int(count) * _SECONDS[unit] for count, unit in _PART.findall(text))


def tokens(text: str) -> list[Token]:
    """All words of `text`, and one that says that it ends."""
    found: list[Token] = []
    at = 0
    while at < len(text):
        blank = _BLANK.match(text, at)
        if blank is not None:
            at = blank.end()
            continue
        if text[at] in "\"'`":
            value, end = _quoted(text, at)
            found.append(Token("text", value, at))
            at = end
            continue
        for sort, pattern in _SORTS:
            match = pattern.match(text, at)
            if match is not None:
                found.append(Token(sort, match.group(), at))
                at = match.end()
                break
        else:
            raise QueryFault(f"{text[at]!r} has no meaning here", at)
    found.append(Token("end", "", len(text)))
    return found


_SORTS: Final[tuple[tuple[Sort, re.Pattern[str]], ...]] = (
    ("duration", _DURATION),
    ("number", _NUMBER),
    ("name", _NAME),
    ("sign", _SIGN),
)


def _quoted(text: str, start: int) -> tuple[str, int]:
    quote = text[start]
    parts: list[str] = []
    at = start + 1
    while at < len(text):
        letter = text[at]
        if letter == quote:
            return "".join(parts), at + 1
        if letter == "\\" and quote != "`":
            at += 1
            escaped = text[at : at + 1]
            if escaped not in _ESCAPES or not escaped:
                raise QueryFault(
                    f"\\{escaped} is no escape",
                    at - 1,
                    "write \\\\ for one backslash, or use `...`",
                )
            parts.append(_ESCAPES[escaped])
        else:
            parts.append(letter)
        at += 1
    raise QueryFault("a text has no end", start, f"close it with {quote}")


_REPEATS: Final = "*+{"
_MAX_PATTERN: Final = 1000


def unsafe_pattern(pattern: str) -> str | None:
    """Why a regular expression is not to be run: it cannot be read, or could take for ever."""
    if len(pattern) > _MAX_PATTERN:
        return f"is longer than {_MAX_PATTERN} letters"
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return f"cannot be read: {error}"
    groups: list[bool] = []
    at, is_in_set = 0, False
    while at < len(pattern):
        letter = pattern[at]
        if letter == "\\":
            if pattern[at + 1 : at + 2].isdigit():
                return "refers back to a group"
            at += 1
        elif is_in_set:
            is_in_set = letter != "]"
        elif letter == "[":
            is_in_set = True
            at += pattern[at + 1 : at + 2] in {"]", "^"}
        elif letter == "(":
            groups.append(False)
        elif letter == ")" and groups:
            has_choice = groups.pop()
            if has_choice and pattern[at + 1 : at + 2] in tuple(_REPEATS):
                return "repeats a group that repeats or chooses inside"
            if groups and has_choice:
                groups[-1] = True
        elif letter in "*+{|" and groups:
            groups[-1] = True
        at += 1
    return None

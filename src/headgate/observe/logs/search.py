"""What is asked of the store, as values: a question, and whether a line is an answer to it.

Theory of operation. A question is put to SQLite for what is kept, and to `Query.takes` for what is
just coming in (the tail); both must find the same. A text is words that must all be there, in any
order and without regard to case; `"two words"` stand together, and `word*` is a beginning. Whatever
else is in it is taken as a word: nobody has to know the language of FTS5, and nobody gets at it.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

__all__ = ["Query", "Stored", "match_of", "stored_of", "words_of"]

_PART: Final = re.compile(r'"([^"]*)"?(\*?)|([^\s"]+)')
_WORD: Final = re.compile(r"[^\W_]+")
TEXT_MAX: Final = 1000
_WORDS_MAX: Final = 30
_INDEXED_MAX: Final = 16 * 1024
_LATEST: Final = 1e11
_HIGHEST: Final = 1000
_AT: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|\+00:00)?"
)


@dataclass(frozen=True, slots=True)
class Stored:
    """A line with what it can be found by."""

    at: float
    level: int
    logger: str
    service: str
    route: str
    request_id: str
    trace_id: str
    line: str
    """JSON."""
    words: str
    """What a text is looked for in: the message, values of fields, the error."""


def stored_of(at: float, level: int, line: bytes | str) -> Stored:
    """Raises ValueError for what is no JSON object, or of no time."""
    if not 0 <= at <= _LATEST:
        raise ValueError("its time is none")
    text = line.decode("utf-8", "replace") if isinstance(line, bytes) else _writable(line)
    try:
        said = json.loads(text)
    except RecursionError as error:
        raise ValueError("too deep") from error
    if not isinstance(said, dict):
        raise ValueError("no object")

    def of(*names: str) -> str:
        for name in names:
            if value := said.get(name):
                return _writable(str(value)[:200])
        return ""

    return Stored(
        at,
        max(0, min(level, _HIGHEST)),
        of("logger"),
        of("service", "service.name"),
        of("route", "http.route"),
        of("request_id"),
        of("trace_id"),
        text,
        _writable(words_of(said)),
    )


def _writable(text: str) -> str:
    """Without lone surrogates, which JSON may say and no file takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


_UNSAID: Final = frozenset({"time", "level", "logger", "service", "version", "host", "pid"})


def words_of(said: Mapping[str, Any]) -> str:
    parts: list[str] = [str(said.get("message", ""))]
    left = _INDEXED_MAX
    for name, value in said.items():
        if name == "message" or name in _UNSAID:
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        parts.append(text[:left])
        left -= len(text)
        if left <= 0:
            break
    return "\n".join(parts)


@lru_cache(maxsize=128)
def _parts(text: str) -> list[tuple[list[str], bool, str]]:
    """Phrases of the text as lists of words; whether the last word is a beginning; as written."""
    found = []
    for match in _PART.finditer(text[:TEXT_MAX]):
        phrase, star, word = match.groups()
        is_prefix = bool(star) if phrase is not None else word.endswith("*")
        said = phrase if phrase is not None else word
        words = _folded(said)
        if words:
            found.append((words, is_prefix, said.replace("\0", " ")))
    return found[:_WORDS_MAX]


def _folded(text: str) -> list[str]:
    """Words as the tokeniser has them: letters without marks, in small."""
    plain = "".join(
        char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char)
    )
    return [word.lower() for word in _WORD.findall(plain)]


def match_of(text: str) -> str:
    """The question in the language of FTS5; empty for none. Phrases stand in it as they were
    written: the index folds them as it has folded the lines, Hangul and kana too.
    """
    return " AND ".join(
        f'"{said}"{"*" if is_prefix else ""}' for _, is_prefix, said in _parts(text)
    )


@dataclass(frozen=True, slots=True)
class Query:
    text: str = ""
    level: int = 0
    logger: str = ""
    """It and those below it."""
    service: str = ""
    route: str = ""
    request_id: str = ""
    trace_id: str = ""
    since: float | None = None
    until: float | None = None

    def where(self) -> tuple[str, list[Any]]:
        """Conditions of SQL, and their values."""
        told: list[str] = []
        values: list[Any] = []
        if self.level > 0:
            told.append("level >= ?")
            values.append(self.level)
        if self.logger:
            told.append("(logger = ? OR substr(logger, 1, ?) = ?)")
            values += [self.logger, len(self.logger) + 1, f"{self.logger}."]
        for name in ("service", "route", "request_id", "trace_id"):
            if value := getattr(self, name):
                told.append(f"{name} = ?")
                values.append(value)
        if self.since is not None:
            told.append("at >= ?")
            values.append(self.since)
        if self.until is not None:
            told.append("at < ?")
            values.append(self.until)
        if match := match_of(self.text):
            told.append("id IN (SELECT rowid FROM words WHERE words MATCH ?)")
            values.append(match)
        return " AND ".join(told) or "1", values

    def takes(self, row: Stored) -> bool:
        """Whether a line that has just come is an answer."""
        if row.level < self.level:
            return False
        if self.logger and not f"{row.logger}.".startswith(f"{self.logger}."):
            return False
        for name in ("service", "route", "request_id", "trace_id"):
            value = getattr(self, name)
            if value and getattr(row, name) != value:
                return False
        if self.since is not None and row.at < self.since:
            return False
        if self.until is not None and row.at >= self.until:
            return False
        return all(_has(row.words, words, prefix) for words, prefix, _ in _parts(self.text))


@lru_cache(maxsize=64)
def _words_there(text: str) -> tuple[str, ...]:
    """Every watcher of the tail looks at the same lines, one after the other."""
    return tuple(_folded(text))


def _has(text: str, words: list[str], is_prefix: bool) -> bool:
    there = _words_there(text)
    size = len(words)
    for at in range(len(there) - size + 1):
        if there[at : at + size - 1] == tuple(words[:-1]):
            last = there[at + size - 1]
            if last == words[-1] or (is_prefix and last.startswith(words[-1])):
                return True
    return False

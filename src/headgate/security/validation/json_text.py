"""JSON from a stranger: bounds first, then a strict reading.

Theory of operation
-------------------
Parsing is what an attacker pays least for, so the shape is measured on the bytes before anything
is built from them. Brackets and commas outside strings bound the number of values from above;
counting them with the strings left in is cheaper still and bounds it as well. So most bodies are
let through by three counts, and only one that seems too large is measured exactly, by passes that
are linear and made in C.

What is refused, though parsers often let it through, because two parsers would read it two ways:
a repeated key, NaN and Infinity, numbers beyond what a double holds (1e400), half of a surrogate
pair, a byte order mark, any encoding but UTF-8 (RFC 8259 section 8.1).
"""

from __future__ import annotations

import json
import re
from array import array
from itertools import accumulate
from math import isinf
from typing import Any, Final, Never

__all__ = ["JsonReader", "JsonRefused"]

_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")


class JsonRefused(ValueError):
    """A text is not JSON as we take it; the message is for the client."""

    def __init__(self, detail: str, keyword: str = "json") -> None:
        super().__init__(detail)
        self.detail = detail
        self.keyword = keyword


class JsonReader:
    """Reads JSON within bounds."""

    __slots__ = ("_decode", "_max_depth", "_max_values")

    def __init__(self, max_depth: int, max_values: int, *, unique_keys: bool = True) -> None:
        self._max_depth = max_depth
        self._max_values = max_values
        self._decode = json.JSONDecoder(
            object_pairs_hook=_unique if unique_keys else None,
            parse_float=_finite,
            parse_constant=_not_json,
        ).decode

    def read(self, text: bytes) -> Any:
        """The value; raises JsonRefused."""
        self._measure(text)
        try:
            decoded = text.decode("utf-8")
        except UnicodeDecodeError:
            raise JsonRefused("is not UTF-8", "encoding") from None
        try:
            value = self._decode(decoded)
        except JsonRefused:
            raise
        except json.JSONDecodeError as error:
            raise JsonRefused(f"is not JSON: {_plain(error)}") from None
        except ValueError:  # Python's own bound on digits, which keeps int() from being quadratic
            raise JsonRefused("has a number with too many digits", "number") from None
        except RecursionError:
            raise JsonRefused(f"is nested deeper than {self._max_depth} levels", "depth") from None
        if b"\\u" in text and _SURROGATE.search(text):
            _check_surrogates(value)
        return value

    def _measure(self, text: bytes) -> None:
        brackets = text.count(b"[") + text.count(b"{")
        if brackets > self._max_depth or brackets + text.count(b",") >= self._max_values:
            bare = without_strings(text)
            values = bare.count(b",") + bare.count(b"[") + bare.count(b"{") + 1
            if values > self._max_values:
                raise JsonRefused(f"holds more than {self._max_values} values", "values")
            if depth_of(bare) > self._max_depth:
                raise JsonRefused(f"is nested deeper than {self._max_depth} levels", "depth")


def without_strings(text: bytes) -> bytes:
    """What stands outside of strings. Of a string that never closes nothing is left."""
    if b"\\" in text:
        # Pairs of backslashes first, so that what is left before a quote escapes it.
        text = text.replace(rb"\\", b"").replace(rb"\"", b"")
    return b"".join(text.split(b'"')[::2])


def depth_of(bare: bytes) -> int:
    """How deep brackets are nested in JSON whose strings were taken out."""
    steps = array("b", bare.translate(_STEPS, _NOT_BRACKETS))
    return max(accumulate(steps), default=0)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise JsonRefused("has an object with the same key twice", "uniqueKeys")
    return made


def _finite(text: str) -> float:
    value = float(text)
    if isinf(value):
        raise JsonRefused("has a number that is too large to be told exactly", "number")
    return value


def _not_json(_: str) -> Never:
    raise JsonRefused("has NaN or Infinity, which are not JSON", "number")


def _check_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise JsonRefused("has half of a surrogate pair in a string", "encoding") from None


def _plain(error: json.JSONDecodeError) -> str:
    """What the parser says, which names no bytes of the text, and where."""
    return f"{error.msg} (line {error.lineno}, column {error.colno})"

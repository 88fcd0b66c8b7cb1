"""Base64url and JSON, each with one spelling for one value.

Theory of operation. A token is judged once and then known by its bytes, and it passes several
readers on its way: what two of them could read differently is refused here.

- Base64url has no padding, no foreign characters, no line breaks, and the bits that its last
  character has left over are zero (RFC 4648 section 3.5). So no two texts stand for one token.
- JSON is UTF-8, has no member twice (RFC 8259 section 4 leaves open who wins), no NaN and no
  Infinity, also not by an exponent that overflows, no lone surrogates, and bounded depth. Its
  size is bounded by whoever hands it in.

What is wrong is said by `Malformed`, in words that hold nothing of the input.
"""

from __future__ import annotations

import binascii
import json
import math
import re
from typing import Any, Final, NoReturn

MAX_DEPTH: Final = 32

# "+" and "/" are of the other alphabet, "=" is padding: all three become what strict decoding
# refuses.
_ALPHABET: Final = bytes.maketrans(b"-_+/=", b"+/!!!")
_PADDING: Final = (b"", None, b"==", b"=")
_LAST_OF_TWO: Final = frozenset(b"AQgw")
_LAST_OF_THREE: Final = frozenset(b"AEIMQUYcgkosw048")
_TEXT: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET: Final = re.compile(r"[\[\]{}]")


class Malformed(ValueError):
    """The reason is for the client: plain words, nothing of what was sent."""


def b64url(text: bytes) -> bytes:
    """The octets that this, and nothing else, stands for."""
    rest = len(text) & 3
    padding = _PADDING[rest]
    if padding is None:
        raise Malformed("not base64url: a character is missing")
    try:
        octets = binascii.a2b_base64(text.translate(_ALPHABET) + padding, strict_mode=True)
    except binascii.Error:
        raise Malformed("not base64url without padding") from None
    if rest and text[-1] not in (_LAST_OF_TWO if rest == 2 else _LAST_OF_THREE):
        raise Malformed("not canonical base64url: bits are left over")
    return octets


def read_json(octets: bytes) -> Any:
    """The value, if every reader would find the same one."""
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        raise Malformed("not UTF-8") from None
    if text.count("{") + text.count("[") > MAX_DEPTH:
        _bound_depth(text)
    try:
        value = _DECODER.decode(text)
        if "\\u" in text:
            # Escaped surrogates come in pairs, or what was read cannot be written again.
            json.dumps(value, ensure_ascii=False).encode()
    except Malformed:
        raise
    except (ValueError, RecursionError):  # also UnicodeEncodeError, and numbers of many digits
        raise Malformed("not JSON") from None
    return value


def read_object(octets: bytes) -> dict[str, Any]:
    """A JSON object."""
    value = read_json(octets)
    if not isinstance(value, dict):
        raise Malformed("not a JSON object")
    return value


def _bound_depth(text: str) -> None:
    depth = 0
    for bracket in _BRACKET.findall(_TEXT.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            raise Malformed("JSON nested too deeply")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Malformed("a JSON member stands twice")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Malformed("a number that is too large")
    return number


def _no_constant(name: str) -> NoReturn:
    raise Malformed("not JSON: NaN and Infinity are no numbers")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_members, parse_float=_finite, parse_constant=_no_constant
)

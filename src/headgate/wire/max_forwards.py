"""Max-Forwards: how many more hops an OPTIONS or TRACE may take (RFC 9110 7.6.2).

With 0 it ends here and is answered as its last recipient would; with more it goes on with one less.
For other methods the field may be ignored, and passes as it came. One that is no number, or is
there twice with different ones, is refused: who counts hops wants to know where they end, and
guessing would let a loop go round for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from headgate.wire.message import Header, Refusal

__all__ = ["BAD_MAX_FORWARDS", "COUNTED", "counted_down", "hops_left"]

COUNTED: Final = frozenset({"OPTIONS", "TRACE"})
"""The methods whose hops are counted."""
BAD_MAX_FORWARDS: Final = Refusal(400, "Max-Forwards is not a number")

_NAME: Final = b"max-forwards"
_DIGITS: Final = 9
_MOST: Final = 10**_DIGITS - 1
"""RFC 9110 lets a recipient send on the largest number it supports in place of a larger one."""


def hops_left(headers: Sequence[Header]) -> int | Refusal | None:
    """How many more hops the request may take; None when it does not say."""
    said = {value for name, value in headers if name == _NAME}
    if not said:
        return None
    value = said.pop()
    if said or not value.isdigit():
        return BAD_MAX_FORWARDS
    digits = value.lstrip(b"0") or b"0"
    return int(digits) if len(digits) <= _DIGITS else _MOST + 1


def counted_down(headers: Sequence[Header]) -> list[Header]:
    """The fields for the next hop, of a request that may take one."""
    left = hops_left(headers)
    if not isinstance(left, int):
        return list(headers)
    value = b"%d" % max(left - 1, 0)
    first = True
    found: list[Header] = []
    for field in headers:
        if field[0] != _NAME:
            found.append(field)
        elif first:
            found.append((_NAME, value))
            first = False
    return found

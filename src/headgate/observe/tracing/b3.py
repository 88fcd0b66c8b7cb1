"""B3, the headers of Zipkin: one `b3`, or several `x-b3-`.

    b3: TRACE-SPAN[-SAMPLED[-PARENT]]     ids in hexadecimal, 16 or 32 digits for the trace
    b3: 0                                 no ids, only the wish not to be recorded

SAMPLED is 1, 0 or d (debug: recorded whatever the rules say); without it the decision is left to
whoever receives. Short ids are filled up with zeros on the left. Where ids break a rule nothing of
the headers counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

__all__ = ["b3_headers", "read_b3", "read_b3_multi"]

Found = tuple[str, str, bool | None, bool]
"""Trace id and span id ("" where only the decision is said), decision, debug."""

_TRACE: Final = r"(?!0+-)([0-9a-f]{32}|[0-9a-f]{16})"
_SPAN: Final = r"(?!0{16})([0-9a-f]{16})"
_SINGLE: Final = re.compile(rf"{_TRACE}-{_SPAN}(?:-([01d])(?:-[0-9a-f]{{16}})?)?")
_TRACE_ALONE: Final = re.compile(r"(?!0+\Z)([0-9a-f]{32}|[0-9a-f]{16})")
_SPAN_ALONE: Final = re.compile(_SPAN)
_DECISIONS: Final[Mapping[str, bool]] = {
    "1": True,
    "d": True,
    "true": True,
    "0": False,
    "false": False,
}


def read_b3(values: Sequence[str]) -> Found | None:
    """The one header."""
    if len(values) != 1:
        return None
    text = values[0].strip(" \t").lower()
    if text in {"0", "1", "d"}:
        return "", "", text != "0", text == "d"
    found = _SINGLE.fullmatch(text)
    if found is None:
        return None
    sampled = found[3]
    return found[1].rjust(32, "0"), found[2], _DECISIONS.get(sampled or ""), sampled == "d"


def read_b3_multi(headers: Mapping[str, Sequence[str]]) -> Found | None:
    """The several headers, by their names in lower case."""

    def only(name: str) -> str | None:
        values = headers.get(name, ())
        return values[0].strip(" \t").lower() if len(values) == 1 else None

    is_debug = only("x-b3-flags") == "1"
    decision = True if is_debug else _DECISIONS.get(only("x-b3-sampled") or "")
    if not headers.get("x-b3-traceid") and not headers.get("x-b3-spanid"):
        return None if decision is None else ("", "", decision, is_debug)
    trace_id, span_id = only("x-b3-traceid"), only("x-b3-spanid")
    if trace_id is None or _TRACE_ALONE.fullmatch(trace_id) is None:
        return None
    if span_id is None or _SPAN_ALONE.fullmatch(span_id) is None:
        return None
    return trace_id.rjust(32, "0"), span_id, decision, is_debug


def b3_headers(
    trace_id: str, span_id: str, *, is_sampled: bool, is_debug: bool, is_multi: bool
) -> list[tuple[str, str]]:
    if not is_multi:
        sampled = "d" if is_debug else "1" if is_sampled else "0"
        return [("b3", f"{trace_id}-{span_id}-{sampled}")]
    found = [("x-b3-traceid", trace_id), ("x-b3-spanid", span_id)]
    if is_debug:
        return [*found, ("x-b3-flags", "1")]  # instead of sampled, which it implies
    return [*found, ("x-b3-sampled", "1" if is_sampled else "0")]

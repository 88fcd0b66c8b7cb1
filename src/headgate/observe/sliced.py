"""A snapshot made in slices, so that a worker serves requests in between.

Theory of operation. A snapshot of a thousand routes takes tens of milliseconds to make and as long
to write as JSON. Both are generators whose steps take a fraction of a millisecond (the first is
`WorkerStats.steps`); whoever drives them gives way once a slice is used up. Rows of one snapshot
are of slightly different moments, which harms nothing: each counter is true for its own.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Final

__all__ = ["json_steps"]

_ROWS: Final = 100
_HISTOGRAM_ROWS: Final = 10
_DEEP: Final = 2


def json_steps(snapshot: Mapping[str, Any]) -> Generator[None, None, bytes]:
    """What `json.dumps(snapshot)` makes, in steps; the generator's result."""
    # Pieces stay apart until the end: a megabyte that is put together twice takes milliseconds.
    parts: list[bytes] = []
    for name, value in snapshot.items():
        parts.append(b"%b%b: " % (b", " if parts else b"{", json.dumps(name).encode()))
        if name in ("rows", "changed"):
            yield from _families_into(parts, value)
        else:
            yield from _value_into(parts, value, _DEEP)
    parts.append(b"}" if parts else b"{}")
    return b"".join(parts)


def _value_into(parts: list[bytes], value: Any, deep: int) -> Generator[None, None, None]:
    """What policies say of themselves may be long as well: an entry for each service or limit."""
    if not deep or not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        parts.append(json.dumps(value).encode())
        yield
        return
    opening = b"{"
    for key, each in value.items():
        parts.append(b"%b%b: " % (opening, json.dumps(key).encode()))
        opening = b", "
        yield from _value_into(parts, each, deep - 1)
    parts.append(b"}" if value else b"{}")


def _families_into(
    parts: list[bytes], families: Mapping[str, Sequence[Any]]
) -> Generator[None, None, None]:
    opening = b"{"
    for family, rows in families.items():
        parts.append(b"%b%b: [" % (opening, json.dumps(family).encode()))
        opening = b"], "
        is_wide = bool(rows) and isinstance(rows[0][1], dict)
        size = _HISTOGRAM_ROWS if is_wide else _ROWS
        for first in range(0, len(rows), size):
            piece = json.dumps(rows[first : first + size])[1:-1].encode()
            parts.append(b", " + piece if first else piece)
            yield
    parts.append(b"]}" if families else b"{}")

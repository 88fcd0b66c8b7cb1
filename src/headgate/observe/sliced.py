"""A snapshot made in slices, so that a worker serves requests in between.

Theory of operation. A snapshot of a thousand routes takes tens of milliseconds to make and as long
to write as JSON. Both are generators whose steps take a fraction of a millisecond (the first is
`WorkerStats.steps`); whoever drives them gives way once a slice is used up. Rows of one snapshot
are of slightly different moments, which harms nothing: each counter is true for its own.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from typing import Any, Final

__all__ = ["json_steps"]

_ROWS: Final = 100
_HISTOGRAM_ROWS: Final = 10


def json_steps(snapshot: Mapping[str, Any]) -> Generator[None, None, bytes]:
    """What `json.dumps(snapshot)` makes, in steps; the generator's result."""
    parts: list[str] = []
    for name, value in snapshot.items():
        if name != "rows":
            parts.append(f"{json.dumps(name)}: {json.dumps(value)}")
            yield
    families: list[str] = []
    for family, rows in snapshot.get("rows", {}).items():
        pieces: list[str] = []
        is_wide = bool(rows) and isinstance(rows[0][1], dict)
        size = _HISTOGRAM_ROWS if is_wide else _ROWS
        for first in range(0, len(rows), size):
            pieces.append(json.dumps(rows[first : first + size])[1:-1])
            yield
        families.append(f"{json.dumps(family)}: [{', '.join(pieces)}]")
    parts.append(f'"rows": {{{", ".join(families)}}}')
    yield
    return f"{{{', '.join(parts)}}}".encode()

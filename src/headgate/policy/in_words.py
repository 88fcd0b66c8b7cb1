"""Spans of time as an operator reads them in an explanation."""

from __future__ import annotations

from typing import Final

__all__ = ["span"]

_STEPS: Final = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def span(seconds: float) -> str:
    """Say it roughly: "12 s", "5 min", "3 h". Two of a unit are needed to speak in it."""
    for scale, unit in _STEPS:
        if seconds >= 2 * scale:
            return f"{seconds / scale:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1.0 else "less than 1 s"

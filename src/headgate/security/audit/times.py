"""Moments as people write them: a date, a time, or an age; and as links do, in seconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from headgate.units import UnitError, parse_duration

__all__ = ["moment_of"]

_SECONDS = re.compile(r"[0-9]{9,11}(\.[0-9]+)?", re.ASCII)
"""Since 1970. Eight digits are a date without its hyphens."""


def moment_of(text: str, wall: float) -> float:
    """Wall time of `2026-01-31`, `2026-01-31T12:00:00Z`, or so long before `wall`: `2h`.

    `1795302109` is in seconds since 1970. Without a zone it is UTC. Raises ValueError, in words for
    the user.
    """
    said = text.strip()
    if _SECONDS.fullmatch(said):
        return float(said)
    if not said[:4].isdigit() or "-" not in said:
        try:
            return wall - parse_duration(said)
        except UnitError:
            pass
    try:
        # In a query a `+` is read as a blank.
        moment = datetime.fromisoformat(said.replace(" ", "+") if "T" in said else said)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            f'"{said[:40]}" is no time; write 2026-01-31, 2026-01-31T12:00:00Z or an age such as 2h'
        ) from None

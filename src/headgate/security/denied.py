"""A refusal of who is known, or of what is not wanted at all."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Denied:
    policy: str
    """Which one refused: `allow`, `addresses`, `bots`, `bans`, `csrf`, ..."""
    reason: str
    """For the client, in plain words."""
    detail: str = ""
    """For the log and `explain`: which rule, which condition."""
    status: int = 403
    retry_after_s: float | None = None
    is_cut: bool = False
    """Close the connection without an answer."""

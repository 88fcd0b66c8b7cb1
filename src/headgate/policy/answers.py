"""What a policy says when it does not let a call through."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Rejected"]


@dataclass(frozen=True, slots=True)
class Rejected:
    """Not now. `reason` is a short fixed phrase, fit for a log field or a metric label."""

    policy: str
    reason: str
    retry_after_s: float
    """When coming back is worth it; 0.0 when nothing is known against at once."""

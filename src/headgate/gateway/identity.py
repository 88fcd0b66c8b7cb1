"""Who a request is from, once a filter has found out.

The seat between authentication and everything that asks for its answer: limits by user, tiers,
access rules, the log. A filter puts an `Identity` on the request; nothing that a client sends
becomes one by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Identity:
    subject: str
    """The user; for a machine, its own name."""
    consumer: str = ""
    """Whoever the key or token belongs to, where that is not the user; else the same."""
    api_key: str = ""
    """The id of the key that was shown; never the key."""
    tier: str = ""
    """The consumer's tier, for limits that know several."""
    claims: Mapping[str, object] = field(default_factory=dict)

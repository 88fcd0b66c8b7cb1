"""Who a request is from, once it has been found out.

What authentication hands to everything that asks for its answer: access rules, limits by user,
tiers, the log, the service behind. Nothing that a client sends becomes one by itself.
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
    method: str = ""
    """The name of the method that vouches for it, as it stands in the file."""
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    expires: float | None = None
    """Wall time after which it holds no more."""

"""One entry of the audit log: who did what to which thing, from where, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

__all__ = ["LIMIT_BYTES", "TEXT_MAX", "Entry", "Outcome", "bounded"]

Outcome = Literal["ok", "refused", "failed", "noted"]

LIMIT_BYTES: Final = 64 * 1024
"""No line of the log is longer; what is larger in an entry is left out and said to be."""
TEXT_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be written. Number, time and chain are the book's."""

    action: str
    """What was done, dotted: `config.reloaded`, `admin.delete`, `ban.added`."""
    actor: str
    """Who: `uid:1000`, `admin-token`, `worker-2`, `gateway`."""
    target: str = ""
    origin: str = ""
    """From where: an address, or `unix` for the socket of this machine."""
    outcome: Outcome = "ok"
    before: Any = None
    after: Any = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    request_id: str = ""

    def content(self) -> dict[str, Any]:
        """As JSON can hold it; what is empty is left out."""
        made: dict[str, Any] = {
            "action": bounded(self.action),
            "actor": bounded(self.actor),
            "outcome": self.outcome,
        }
        for name in ("target", "origin", "request_id"):
            if text := getattr(self, name):
                made[name] = bounded(text)
        for name in ("before", "after"):
            if (value := getattr(self, name)) is not None:
                made[name] = value
        if self.detail:
            made["detail"] = dict(self.detail)
        return made


def bounded(text: str, most: int = TEXT_MAX) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."

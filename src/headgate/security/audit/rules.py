"""How the audit log is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["AuditRules"]


@dataclass(frozen=True, slots=True)
class AuditRules:
    keep_s: float = 400 * 86400.0
    max_bytes: int = 1024 * 1024 * 1024
    segment_bytes: int = 16 * 1024 * 1024
    durable: Literal["batch", "always"] = "batch"
    on_full: Literal["refuse_admin_changes", "drop_and_count"] = "refuse_admin_changes"
    checkpoint_s: float = 300.0
    checkpoint_entries: int = 1000
    key_file: str | None = None
    anchors: tuple[str, ...] = ()

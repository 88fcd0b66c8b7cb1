"""What happened to accounts, for an audit log, a SIEM or a counter. Never a secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Event", "EventKind"]

EventKind = Literal[
    "registration_asked",
    "registered",
    "email_verified",
    "email_change_asked",
    "email_changed",
    "logged_in",
    "login_failed",
    "locked",
    "mfa_failed",
    "mfa_enrolled",
    "mfa_disabled",
    "recovery_code_used",
    "stepped_up",
    "token_refreshed",
    "token_reused",
    "session_ended",
    "password_changed",
    "password_rehashed",
    "reset_asked",
    "password_reset",
    "role_granted",
    "role_revoked",
    "scope_granted",
    "scope_revoked",
    "user_disabled",
    "user_enabled",
    "user_unlocked",
    "user_erased",
    "user_exported",
    "keys_rotated",
    "mail_suppressed",
    "mail_failed",
]


@dataclass(frozen=True, slots=True)
class Event:
    kind: EventKind
    wall: float
    user_id: str = ""
    """Empty where there is none, or where it is not known."""
    session_id: str = ""
    ip: str = ""
    detail: Mapping[str, str | int | float] = field(default_factory=dict)
    """Why and how: `reason`, `role`, `retry_after_s`, `sessions`."""

"""What callers get to see: a user, a session, tokens."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Enrolment", "Page", "Session", "Tokens", "User"]


@dataclass(frozen=True, slots=True)
class User:
    id: str
    email: str
    email_verified_at: float | None = None
    created_at: float = 0.0
    last_login_at: float | None = None
    is_active: bool = True
    has_mfa: bool = False
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Session:
    id: str
    user_id: str
    created_at: float
    used_at: float
    expires_at: float
    ip: str
    agent: str
    amr: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tokens:
    """The answer to a login or a refresh."""

    user_id: str
    session_id: str
    access_token: str = field(repr=False)
    expires_in_s: float
    refresh_token: str = field(repr=False, default="")
    """Empty after a step-up: the session keeps the one it has."""
    device: str = field(repr=False, default="")
    """For a long-lived cookie: shown at the next login, it makes the device known."""
    amr: tuple[str, ...] = ()
    """How the user proved to be one (RFC 8176): `pwd`, `otp`, `kba` for a recovery code."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What an authenticator app has to be told; it counts once a code has confirmed it."""

    secret: str = field(repr=False)
    uri: str = field(repr=False)
    """For the QR code."""


@dataclass(frozen=True, slots=True)
class Page:
    users: tuple[User, ...]
    next: str
    """To be given as `after` for the next page; empty at the end."""

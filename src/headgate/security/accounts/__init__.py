"""Users of a service: registration, login, tokens, sessions, second factor.

    from headgate.security.accounts import Accounts

    accounts = Accounts("sqlite+aiosqlite:///users.db", issuer="https://shop.example", secret=...)
    tokens = await accounts.login(email, password, ip=client_ip)
    identity = accounts.verify(tokens.access_token)

Needs the extra `accounts`. `headgate.security.accounts.fastapi` has the routes and dependencies.
"""

from __future__ import annotations

from headgate.security.accounts import extra as _extra  # noqa: F401 - says what is missing
from headgate.security.accounts.accounts import Accounts, AccountsSnapshot
from headgate.security.accounts.errors import (
    AccountDisabled,
    AccountsError,
    Busy,
    EmailInvalid,
    EmailTaken,
    InvalidCredentials,
    InvalidToken,
    MfaInvalid,
    MfaRequired,
    PasswordTooWeak,
    TokenReused,
    TooManyAttempts,
    UserNotFound,
)
from headgate.security.accounts.events import Event
from headgate.security.accounts.rules import (
    HashRules,
    LaneRules,
    PasswordRules,
    Rules,
    ThrottleRules,
)
from headgate.security.accounts.user import Enrolment, Page, Session, Tokens, User

__all__ = [
    "AccountDisabled",
    "Accounts",
    "AccountsError",
    "AccountsSnapshot",
    "Busy",
    "EmailInvalid",
    "EmailTaken",
    "Enrolment",
    "Event",
    "HashRules",
    "InvalidCredentials",
    "InvalidToken",
    "LaneRules",
    "MfaInvalid",
    "MfaRequired",
    "Page",
    "PasswordRules",
    "PasswordTooWeak",
    "Rules",
    "Session",
    "ThrottleRules",
    "TokenReused",
    "Tokens",
    "TooManyAttempts",
    "User",
    "UserNotFound",
]

"""Where a Vault is, how one logs in, and how patiently one asks it. Values; nothing is opened."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from headgate.policy.breaker import BreakerRules
from headgate.security.secrets.errors import VaultRefused

__all__ = ["AppRole", "Token", "VaultRules", "check_path", "split_path"]

BREAKER: Final = BreakerRules(
    window_calls=10, minimum_calls=5, reset_s=2.0, reset_max_s=30.0, trial_calls=1
)
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_.@=+~$!,:\- ]+")
_MAX_PATH: Final = 1024


@dataclass(frozen=True, slots=True)
class Token:
    """A token that somebody else made: as it is, or in a file that an agent keeps fresh."""

    token: str = field(default="", repr=False)
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class AppRole:
    """A role with a secret of its own; what a service without an agent uses."""

    role_id: str
    secret_id: str = field(default="", repr=False)
    secret_id_file: Path | None = None
    mount: str = "approle"


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultRules:
    """How to reach one Vault (or OpenBao), and what to do while it is away."""

    url: str
    login: Token | AppRole = field(repr=False)
    namespace: str = ""
    ca_file: Path | None = None
    mount: str = "secret"
    """The key-value engine (version 2) that paths without a mount belong to."""
    timeout_s: float = 5.0
    """One request, from connecting to its last byte."""
    retries: int = 2
    """Further attempts of what may be asked twice, within `budget_s`."""
    budget_s: float = 15.0
    """Everything together: waiting for a thread, attempts, pauses, a log-in on the way."""
    cache_s: float = 60.0
    """How long a value is used before it is read again."""
    stale_s: float = 3600.0
    """How old a value may get while Vault is away or sealed. A refusal is never bridged."""
    cache_size: int = 1000
    threads: int = 4
    breaker: BreakerRules = BREAKER

    def problems(self) -> tuple[str, ...]:
        """Why these rules cannot be followed; empty when they can."""
        found: list[str] = []
        try:
            parts = urlsplit(self.url)
            is_url = parts.scheme in {"http", "https"} and bool(parts.hostname)
            _ = parts.port
            if is_url and (parts.username or parts.password or parts.query or parts.fragment):
                found.append("the URL must be scheme, host and port only")
        except ValueError:
            is_url = False
        if not is_url:
            found.append("the URL must be https://host:port")
        for name, value in (
            ("timeout_s", self.timeout_s),
            ("budget_s", self.budget_s),
            ("threads", self.threads),
            ("cache_size", self.cache_size),
        ):
            if not value > 0:
                found.append(f"{name} must be over 0")
        for name, value in (
            ("cache_s", self.cache_s),
            ("stale_s", self.stale_s),
            ("retries", self.retries),
        ):
            if value < 0:
                found.append(f"{name} must not be below 0")
        login = self.login
        if isinstance(login, Token) and bool(login.token) == (login.file is not None):
            found.append("give a token or the file of one, not both or neither")
        if isinstance(login, AppRole):
            if not login.role_id:
                found.append("an AppRole has a role_id")
            if bool(login.secret_id) and login.secret_id_file is not None:
                found.append("give secret_id or secret_id_file, not both")
        return (*found, *self.breaker.problems())


def check_path(path: str) -> str:
    """The path, if it can only mean what it says. Raises VaultRefused.

    A path that comes from a request must not climb out of its mount: libraries on the way
    resolve `..`, and `?` or `#` would end it.
    """
    segments = path.split("/")
    if not path or len(path) > _MAX_PATH:
        raise VaultRefused(f"a path has 1 to {_MAX_PATH} characters")
    if any(segment in {"", ".", ".."} or not _SEGMENT.fullmatch(segment) for segment in segments):
        raise VaultRefused(
            f"{path[:60]!a} is no path: words between single slashes, without . or .."
        )
    return path


def split_path(path: str, mount: str) -> tuple[str, str]:
    """Mount and path: `app/db` is in the usual mount, `/team/app/db` in the mount `team`."""
    if path.startswith("/"):
        mount, _, path = path[1:].partition("/")
    return check_path(mount), check_path(path)

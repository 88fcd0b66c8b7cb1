"""What an operator may set about log-ins. The defaults stand here, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

ClientAuth = Literal["auto", "basic", "post", "private_key_jwt", "none"]

RESERVED_PARAMETERS: Final = frozenset(
    {
        "client_id",
        "client_assertion",
        "client_secret",
        "code_challenge",
        "code_challenge_method",
        "nonce",
        "redirect_uri",
        "request",
        "request_uri",
        "response_mode",
        "response_type",
        "scope",
        "state",
    }
)
"""Parameters of the authorization request that the flow sets itself; others may be added."""

SHORTEST_SECRET: Final = 32


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a provider without discovery is asked; or what is found by discovery."""

    authorize: str = ""
    token: str = ""
    keys: str = ""
    userinfo: str = ""
    end_session: str = ""
    revoke: str = ""


@dataclass(frozen=True, slots=True)
class ClaimNames:
    """Which claims an identity is made of; a dot steps into an object."""

    subject: str = "sub"
    roles: str = "roles"
    groups: str = "groups"
    scopes: str = "scope"
    tier: str = ""


@dataclass(frozen=True, slots=True)
class LoginRules:
    issuer: str
    client_id: str
    name: str = "login"
    client_secret: str = field(default="", repr=False)
    client_auth: ClientAuth = "auto"
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    parameters: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """What cookies are sealed with: the first seals, all open. None: a key that is kept."""
    openid: bool = True
    endpoints: Endpoints | None = None
    userinfo: bool = False
    public_url: str = ""
    login_path: str = "/.headgate/login"
    callback_path: str = "/.headgate/login/callback"
    logout_path: str = "/.headgate/logout"
    back_channel_path: str = ""
    """Empty: the provider cannot end sessions."""
    after_login: str = "/"
    after_logout: str = ""
    """Empty: a page that says so."""
    end_provider_session: bool = True
    cookie: str = ""
    idle_s: float = 3600.0
    max_age_s: float = 12 * 3600.0
    pending_s: float = 600.0
    refresh: bool = True
    refresh_before_s: float = 60.0
    claim_names: ClaimNames = ClaimNames()
    claims: tuple[str, ...] = ("email", "email_verified", "name", "preferred_username")
    keep_id_token: bool = True
    pass_token: bool = False
    timeout_s: float = 10.0
    leeway_s: float = 30.0
    insecure_http: bool = False

    @property
    def cookie_name(self) -> str:
        """The base of the cookies' names; a name that cannot stand in one is made to."""
        if self.cookie:
            return self.cookie
        plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in self.name)
        return f"hg_{plain or 'login'}"

    @property
    def own_paths(self) -> tuple[str, ...]:
        paths = (self.login_path, self.callback_path, self.logout_path, self.back_channel_path)
        return tuple(path for path in paths if path)

"""What a plan says of who is let in: values of the file, with the place of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from headgate.config import Config
    from headgate.config.authenticating import AuthUseSpec
    from headgate.plan.levels import Levels

GUARDS: Final = (
    "addresses",
    "bots",
    "cors",
    "allow",
    "csrf",
    "injection",
    "validation",
    "secure_headers",
)
"""Policies that the gateway builds something from, in the order in which a request meets them."""


@dataclass(frozen=True, slots=True)
class AuthPlan:
    methods: tuple[str, ...]
    """Names of entries under `auth`."""
    anonymous: bool
    """Who shows nothing is let in as well."""
    pass_credentials: bool
    always: bool = False
    """And who shows something that does not hold."""


@dataclass(frozen=True, slots=True)
class GuardPlan:
    """One policy as the file says it."""

    policy: str
    spec: Any
    where: str
    """In the document, for faults found when it is built."""


def auth_of(config: Config, levels: Levels) -> tuple[AuthPlan | None, bool]:
    """Who is asked on a route, and whether nobody has said so."""
    said = levels.nearest("auth", top=config.auth.default)
    use = cast("AuthUseSpec | bool | None", said.value)
    if use is None:
        return None, config.auth.deny_by_default
    if isinstance(use, bool):
        return None, False
    always = use.anonymous == "always"
    return AuthPlan(use.methods, bool(use.anonymous), use.pass_credentials, always), False


def guards_of(levels: Levels) -> tuple[GuardPlan, ...]:
    found = []
    for policy in GUARDS:
        said = levels.nearest(policy)
        if said.value is not None and said.value is not False:
            found.append(GuardPlan(policy, said.value, said.where))
    return tuple(found)

"""Whether whoever asks may: the same words for every kind of app."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from headgate.kit.problems import Problem

if TYPE_CHECKING:
    from headgate.security.identity import Identity

__all__ = ["judged", "wanted_of"]


def wanted_of(roles: Collection[str]) -> frozenset[str]:
    """One role may be given as a text."""
    return frozenset((roles,) if isinstance(roles, str) else roles)


def judged(identity: Identity | None, wanted: frozenset[str], *, optional: bool) -> Identity | None:
    """Raises Problem: 401 for nobody, unless that is `optional`; 403 without one of the roles."""
    if identity is None:
        if optional:
            return None
        raise Problem(401, "sign in first", code="sign_in", headers={"www-authenticate": "Bearer"})
    if wanted and wanted.isdisjoint(identity.roles):
        needed = " or ".join(sorted(wanted))
        raise Problem(403, f"this needs the role {needed}", code="role_missing")
    return identity

"""What each role may do in the admin API.

Theory of operation
-------------------
Three roles in a row, each with all that the one before it may do:

    viewer     reads
    operator   steers: takes instances out, opens breakers, reloads, lifts bans
    admin      changes who may do what and what is served: tokens, the file, the end of the process

Four stand beside them, for services, so that a token that a service carries opens nothing else:

    ingest     sends traces, logs and markers, and nothing else
    service    registers itself, watches who else has, gets its identity, reports whom it calls
    purge      has caches forget, and hears what others have had forgotten
    revoke     ends tokens of users before their time

By default GET and HEAD need a viewer and every other method an operator. `EXCEPTIONS` is the whole
list of what differs, the first row that fits decides. A template is a path with `{name}` for one
segment and `**` at its end for all that follows. Paths here have no version: `/api/v1/x` is
`/api/x` by the time that anybody asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

__all__ = [
    "EXCEPTIONS",
    "Need",
    "Role",
    "at_least",
    "is_of_services",
    "may",
    "needed",
    "takes_reports",
]


class Role(StrEnum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"
    INGEST = "ingest"
    SERVICE = "service"
    PURGE = "purge"
    REVOKE = "revoke"


_RANK: Final = {Role.VIEWER: 1, Role.OPERATOR: 2, Role.ADMIN: 3}
_NARROW: Final = frozenset({Role.INGEST, Role.SERVICE, Role.PURGE, Role.REVOKE})
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Need:
    """One exception. `method` may be `*`, which is every method."""

    method: str
    template: str
    role: Role


EXCEPTIONS: Final[tuple[Need, ...]] = (
    # POST for their size alone; they change nothing.
    Need("POST", "/api/explain", Role.VIEWER),
    Need("POST", "/api/query", Role.VIEWER),
    Need("POST", "/api/query_range", Role.VIEWER),
    Need("POST", "/api/series", Role.VIEWER),
    Need("POST", "/api/labels", Role.VIEWER),
    # Of oneself, and so for everybody who has a token.
    Need("GET", "/api/whoami", Role.VIEWER),
    # Who may do what.
    Need("*", "/api/tokens", Role.ADMIN),
    Need("*", "/api/tokens/**", Role.ADMIN),
    Need("*", "/api/mesh/tokens", Role.ADMIN),
    Need("*", "/api/mesh/tokens/**", Role.ADMIN),
    Need("POST", "/api/mesh/authority/root", Role.ADMIN),
    # The log says who did what, from where.
    Need("GET", "/api/audit", Role.OPERATOR),
    Need("GET", "/api/audit/**", Role.OPERATOR),
    # What is served as a whole, and whether anything is.
    Need("PUT", "/api/config", Role.ADMIN),
    Need("POST", "/api/config/rollback/{number}", Role.ADMIN),
    Need("POST", "/api/drain", Role.ADMIN),
    Need("POST", "/api/upgrade", Role.ADMIN),
)

# What a service reports about itself. Operators and admins may as well; a viewer may not.
_REPORTS: Final = (
    Need("POST", "/v1/**", Role.INGEST),
    Need("POST", "/api/logs", Role.INGEST),
    Need("POST", "/api/markers", Role.INGEST),
)

# One right of an operator, for a service that must have it and nothing more. Likewise.
_SINGLE: Final = (
    Need("POST", "/api/cache/purge", Role.PURGE),
    Need("POST", "/api/revocations", Role.REVOKE),
)

_MESH_REPORT: Final = Need("POST", "/api/mesh/report", Role.SERVICE)

# What a service says of itself in the registry and the mesh, many times a minute. Likewise.
_OF_SERVICES: Final = (
    Need("PUT", "/api/registry/services/{service}/instances/{id}", Role.SERVICE),
    Need("DELETE", "/api/registry/services/{service}/instances/{id}", Role.SERVICE),
    Need("POST", "/api/registry/services/{service}/instances/{id}/beat", Role.SERVICE),
    Need("POST", "/api/mesh/identity/join", Role.SERVICE),
    Need("POST", "/api/mesh/identity/renew", Role.SERVICE),
    _MESH_REPORT,
)
# What viewers read, and services have to.
_READ_BY_SERVICES: Final = (
    Need("GET", "/api/cache/news", Role.PURGE),
    Need("GET", "/api/registry/watch", Role.SERVICE),
    Need("GET", "/api/registry/services", Role.SERVICE),
    Need("GET", "/api/registry/services/{service}", Role.SERVICE),
    Need("GET", "/api/mesh/identity/bundle", Role.SERVICE),
    Need("GET", "/api/mesh/sidecar", Role.SERVICE),
)
_READ_BY: Final = {
    role: tuple(need for need in _READ_BY_SERVICES if need.role is role) for role in _NARROW
}


def at_least(role: Role, wanted: Role) -> bool:
    """Whether whoever has `role` may do what needs `wanted`. The roles of services are no part of
    the row.
    """
    if wanted in _NARROW:
        return role in {wanted, Role.OPERATOR, Role.ADMIN}
    return _RANK.get(role, 0) >= _RANK[wanted]


@lru_cache(maxsize=8192)
def needed(method: str, path: str) -> Role:
    """The least role for a request, or for an operation of the OpenAPI document."""
    for need in (*_REPORTS, *_SINGLE, *_OF_SERVICES, *EXCEPTIONS):
        # What answers GET answers HEAD, so both need the same.
        if need.method in {"*", "GET" if method == "HEAD" else method} and _fits(
            need.template, path
        ):
            return need.role
    return Role.VIEWER if method in _READING else Role.OPERATOR


def may(role: Role, method: str, path: str) -> bool:
    if role in _NARROW and _is_of(_READ_BY[role], method, path):
        return True
    return at_least(role, needed(method, path))


def is_of_services(method: str, path: str) -> bool:
    """Whether a service says this of itself: it comes often, and is no change by an operator."""
    return _is_of(_OF_SERVICES, method, path)


@lru_cache(maxsize=8192)
def _is_of(needs: tuple[Need, ...], method: str, path: str) -> bool:
    asked = "GET" if method == "HEAD" else method
    return any(need.method == asked and _fits(need.template, path) for need in needs)


def takes_reports(method: str, path: str) -> bool:
    """Whether services send what they report here: bodies there are larger than orders."""
    large = (*_REPORTS, _MESH_REPORT)
    return any(need.method == method and _fits(need.template, path) for need in large)


def _fits(template: str, path: str) -> bool:
    wanted = template.split("/")
    given = path.split("/")
    if wanted[-1] == "**":
        wanted = wanted[:-1]
        if len(given) <= len(wanted):
            return False
        given = given[: len(wanted)]
    if len(wanted) != len(given):
        return False
    return all(
        want == got or (want.startswith("{") and got != "")
        for want, got in zip(wanted, given, strict=True)
    )

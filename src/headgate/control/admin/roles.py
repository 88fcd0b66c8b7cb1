"""What each role may do in the admin API.

Theory of operation
-------------------
Three roles in a row, each with all that the one before it may do:

    viewer     reads
    operator   steers: takes instances out, opens breakers, reloads, lifts bans
    admin      changes who may do what and what is served: tokens, the file, the end of the process

`ingest` stands beside them: it is for services that send traces, logs and markers, and may do
nothing else, so that the token that every service carries opens nothing.

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

__all__ = ["EXCEPTIONS", "Need", "Role", "at_least", "may", "needed", "takes_reports"]


class Role(StrEnum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"
    INGEST = "ingest"


_RANK: Final = {Role.VIEWER: 1, Role.OPERATOR: 2, Role.ADMIN: 3}
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


def at_least(role: Role, wanted: Role) -> bool:
    """Whether whoever has `role` may do what needs `wanted`. `ingest` is no part of the row."""
    if wanted is Role.INGEST:
        return role in {Role.INGEST, Role.OPERATOR, Role.ADMIN}
    return _RANK.get(role, 0) >= _RANK[wanted]


@lru_cache(maxsize=2048)
def needed(method: str, path: str) -> Role:
    """The least role for a request, or for an operation of the OpenAPI document."""
    for need in (*_REPORTS, *EXCEPTIONS):
        # What answers GET answers HEAD, so both need the same.
        if need.method in {"*", "GET" if method == "HEAD" else method} and _fits(
            need.template, path
        ):
            return need.role
    return Role.VIEWER if method in _READING else Role.OPERATOR


def may(role: Role, method: str, path: str) -> bool:
    return at_least(role, needed(method, path))


def takes_reports(method: str, path: str) -> bool:
    """Whether services send what they report here: bodies there are larger than orders."""
    return any(need.method == method and _fits(need.template, path) for need in _REPORTS)


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

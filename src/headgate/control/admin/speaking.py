"""Which service a caller may speak for: a token or certificate may be for some of them only."""

from __future__ import annotations

from starlette.requests import Request

from headgate.control.admin.problem import Problem

__all__ = ["must_speak_for"]


def must_speak_for(request: Request, service: str) -> None:
    """Raises Problem 403 where who asks is known to be for other services."""
    caller = request.scope.get("state", {}).get("caller")
    if caller is not None and not caller.speaks_for(service):
        named = ", ".join(caller.services)
        raise Problem(403, f"{caller.name} speaks for {named}, and not for {service}")

"""A refusal as the client gets it: problem details (RFC 9457) with every fault and its place."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headgate.security.validation.rules import Refusal

__all__ = ["problem_of"]


def problem_of(refusal: Refusal, request_id: str = "") -> bytes:
    """The body of the answer, of type application/problem+json."""
    problem: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(refusal.status).phrase,
        "status": refusal.status,
        "detail": refusal.detail,
        "source": "client",
        "request_id": request_id,
    }
    if refusal.faults:
        problem["errors"] = [fault.as_dict() for fault in refusal.faults]
    return json.dumps(problem).encode("ascii")

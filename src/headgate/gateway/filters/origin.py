"""What the policies about pages and their origins have in common."""

from __future__ import annotations

import json
from http import HTTPStatus

from headgate.gateway.filters.base import Reply, Request

__all__ = ["authority_of", "problem", "refusal"]


def authority_of(request: Request) -> str:
    """Host and port as the client wrote them, the port only where it did."""
    said = getattr(request, "authority", "")
    return str(said or request.headers.get("host") or request.host)


def refusal(request: Request, detail: str) -> Reply:
    """A 403 as problem details; the detail must hold nothing of the request."""
    return problem(request, 403, detail)


def problem(request: Request, status: int, detail: str) -> Reply:
    """Problem details of a client's mistake; the detail must hold nothing of the request."""
    body = json.dumps(
        {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
            "source": "client",
            "request_id": request.request_id,
        }
    ).encode()
    return Reply(status, body, (("content-type", "application/problem+json"),))

"""What the policies about pages and their origins have in common."""

from __future__ import annotations

import json

from headgate.gateway.filters.base import Reply, Request

__all__ = ["authority_of", "refusal"]


def authority_of(request: Request) -> str:
    """Host and port as the client wrote them, the port only where it did."""
    said = getattr(request, "authority", "")
    return str(said or request.headers.get("host") or request.host)


def refusal(request: Request, detail: str) -> Reply:
    """A 403 as problem details; the detail must hold nothing of the request."""
    body = json.dumps(
        {
            "type": "about:blank",
            "title": "Forbidden",
            "status": 403,
            "detail": detail,
            "source": "client",
            "request_id": request.request_id,
        }
    ).encode()
    return Reply(403, body, (("content-type", "application/problem+json"),))

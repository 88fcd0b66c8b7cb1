"""ETags against lost updates (RFC 9110, section 13).

Theory of operation
-------------------
The tag of a resource is a hash of its JSON, so it is strong and needs nothing kept. Whoever reads
gets it; whoever writes sends it back in `If-Match`, and is refused with 412 when the resource is
another by now. Where a write without it would be a gamble, its absence is refused with 428.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from headgate.control.admin.problem import Problem

__all__ = ["answer", "check_match", "etag", "is_unchanged"]


def etag(value: Any) -> str:
    """The strong tag of a JSON value, with its quotes."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return f'"{hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]}"'


def is_unchanged(request: Request, tag: str) -> bool:
    """Whether the client has this already: then answer 304."""
    given = request.headers.getlist("if-none-match")
    # Weak comparison, section 13.1.2: a proxy on the way may have made the tag weak.
    return any(one == "*" or one.removeprefix("W/") == tag for one in _listed(given))


def check_match(request: Request, tag: str, *, is_required: bool = True) -> None:
    """A Problem unless the client knows the resource as it is."""
    given = request.headers.getlist("if-match")
    if not given:
        if is_required:
            raise Problem(
                428,
                "send If-Match with the ETag of what you read, so that nobody's change is lost; "
                "`*` says that it does not matter",
                etag=tag,
            )
        return
    # Strong comparison, section 13.1.1: a weak tag never matches.
    if not any(one in ("*", tag) for one in _listed(given)):
        raise Problem(
            412, "it has changed since you read it: read it again, and change that", etag=tag
        )


def answer(
    request: Request,
    content: Any,
    *,
    tag: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The content with its tag, or 304. `content` is what JSON can hold."""
    own = tag if tag is not None else etag(content)
    # no-cache keeps the answer for comparison only, which no-store would forbid.
    fields = {"etag": own, "cache-control": "private, no-cache", **(headers or {})}
    if is_unchanged(request, own):
        return Response(status_code=304, headers=fields)
    return JSONResponse(content, headers=fields)


def _listed(values: list[str]) -> list[str]:
    """The tags of a list; a comma within quotes does not part them."""
    found: list[str] = []
    for value in values:
        part, is_quoted = "", False
        for character in value:
            if character == '"':
                is_quoted = not is_quoted
            if character == "," and not is_quoted:
                found.append(part.strip())
                part = ""
                continue
            part += character
        found.append(part.strip())
    return [one for one in found if one]

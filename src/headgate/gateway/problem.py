"""Answers that the gateway makes itself when something is wrong: RFC 9457 problem details.

`source` in the body says whose fault it is, because a 502 from a route and a 502 from the
gateway look alike otherwise: `client` (the request), `upstream` (an instance), `gateway` (us).
The text never repeats bytes of the request or of an instance.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from headgate.gateway.filters.base import encode_name, encode_value
from headgate.wire.message import ResponseHead

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headgate.errors import UpstreamFailed, UpstreamFailure
    from headgate.gateway.exchange import Exchange
    from headgate.wire.message import Header

_UPSTREAM: Final[dict[UpstreamFailure, tuple[int, str, str]]] = {
    "connect": (502, "upstream", "no instance of the service accepts connections"),
    "timeout": (504, "upstream", "the service did not answer in time"),
    "reset": (502, "upstream", "the service closed the connection before answering"),
    "protocol": (502, "upstream", "the service answered something that is not valid HTTP"),
    "tls": (502, "upstream", "no trusted TLS connection to the service"),
    "dns": (502, "upstream", "the address of the service does not resolve"),
    "queue_full": (503, "gateway", "too many requests wait for the service"),
    "queue_timeout": (503, "gateway", "no connection to the service came free in time"),
    "closed": (503, "gateway", "the service is being taken out"),
    "no_instance": (503, "gateway", "no instance of the service may serve now"),
}
_RETRY_LATER: Final[tuple[Header, ...]] = ((b"retry-after", b"1"),)


def title_of(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def render(
    ex: Exchange,
    status: int,
    detail: str,
    *,
    source: str | None = None,
    headers: tuple[Header, ...] = (),
) -> tuple[ResponseHead, bytes]:
    tracing = ex.site.tracing
    page = ex.site.error_page(ex, status, detail)
    if page is not None:
        content_type, body = page
    else:
        content_type = b"application/problem+json"
        said = {
            "type": "about:blank",
            "title": title_of(status),
            "status": status,
            "detail": detail,
            "source": source or ("client" if status < 500 else "gateway"),
            "request_id": ex.request_id.decode("latin-1"),
        }
        trace_id = tracing.told_to_client(ex, status) if tracing is not None else None
        if trace_id is not None:
            said["trace_id"] = trace_id
        body = json.dumps(said).encode()
    return local(status, body, content_type, headers)


def for_upstream(ex: Exchange, failure: UpstreamFailed) -> tuple[ResponseHead, bytes]:
    status, source, detail = _UPSTREAM[failure.kind]
    if failure.kind == "no_instance" and failure.reason:
        detail = f"no instance of the service is known yet: {failure.reason}"
    headers = _RETRY_LATER if status == 503 else ()
    return render(ex, status, detail, source=source, headers=headers)


def reply(
    status: int, headers: Sequence[tuple[str, str]], body: bytes
) -> tuple[ResponseHead, bytes]:
    """A whole answer from text, whose headers can break nothing."""
    head = ResponseHead(
        status,
        tuple((encode_name(name), encode_value(value)) for name, value in headers),
        reason=title_of(status).encode("ascii"),
        length=len(body),
    )
    return head, body


def local(
    status: int, body: bytes, content_type: bytes, headers: tuple[Header, ...] = ()
) -> tuple[ResponseHead, bytes]:
    head = ResponseHead(
        status,
        ((b"content-type", content_type), *headers) if body else headers,
        reason=title_of(status).encode("ascii"),
        length=len(body),
    )
    return head, body

"""The id of a request: the caller's where it can be taken, else one of our own.

Theory of operation. The gateway gives each request an id and sends it on as `x-request-id`; that
one is taken. Without it the id of a valid trace (`traceparent`) serves: it leads to the same
request in every log. Else it is made: 128 random bits as hex. Where callers are not trusted it is
always made, or a stranger would write into our logs and look like another request.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

from headgate.observe.tracing import parse_traceparent
from headgate.policy.hops import REQUEST_ID as _FORM

__all__ = ["HEADER", "made", "taken"]

HEADER: Final = b"x-request-id"
_TRACE: Final = b"traceparent"


def made() -> str:
    return os.urandom(16).hex()


def taken(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The id that a caller sent; empty where there is none that can be used."""
    trace = b""
    for name, value in headers:
        if name == HEADER:
            if _FORM.fullmatch(value):
                return value.decode("ascii")
        elif name == _TRACE:
            trace = value
    if trace:
        found = parse_traceparent(trace.decode("latin-1"))
        if found is not None:
            return found.trace_id
    return ""

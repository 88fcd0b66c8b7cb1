"""What crosses from hop to hop, as text: how long the caller still waits, and who retries.

Theory of operation. `x-headgate-deadline` shrinks from hop to hop: each takes the smaller of what
it was told and what it allows itself, and passes on what is left. A duration and not a time of
day, because clocks of machines differ by more than a deadline may. `x-headgate-attempt` says that
the layer above retries ("2/3": this is try 2 of 3); a layer that receives it with more than one
try in all does not retry itself, or three layers of three tries would make 27 calls of one.
`x-headgate-no-retry: 1` in a response says that a layer below has no budget left to retry with;
more tries from above would only be turned away there.

These come from outside: what cannot be read is None, as if it was not sent.
"""

from __future__ import annotations

import re
from typing import Final

from headgate.wire.forwarded import FORWARDING_NAMES

__all__ = [
    "ATTEMPT",
    "CALLER",
    "DEADLINE",
    "EXPLAIN",
    "NO_RETRY",
    "OWN_NAMES",
    "REQUEST_ID",
    "SAID_TO_SERVICES",
    "SCHEME_NAMES",
    "format_attempt",
    "format_deadline",
    "may_retry",
    "parse_attempt",
    "parse_deadline",
    "parse_grpc_timeout",
]

DEADLINE: Final = b"x-headgate-deadline"
ATTEMPT: Final = b"x-headgate-attempt"
NO_RETRY: Final = b"x-headgate-no-retry"
EXPLAIN: Final = b"x-headgate-explain"
"""Asks the gateway what becomes of a request, and answers that; it is for no service."""

CALLER: Final = b"x-headgate-caller"
"""Which service calls. Of a caller without a certificate it is no more than what it says."""

OWN_NAMES: Final = frozenset({DEADLINE, ATTEMPT, NO_RETRY, EXPLAIN})
"""What never travels on as it came, whoever sends it."""

SAID_TO_SERVICES: Final = (
    OWN_NAMES | FORWARDING_NAMES | frozenset({b"via", b"traceparent", b"tracestate"})
)
"""Fields in which a service hears the gateway and not, or not only, the client. The names that a
configuration chooses (of the request's id, of who asks) come to these."""

SCHEME_NAMES: Final = frozenset({b"x-forwarded-proto", b"x-forwarded-scheme", b"x-forwarded-ssl"})
"""Of these, what says the scheme only."""

REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")
"""What an id of a request looks like that is taken over from a caller."""

_LONGEST_MS: Final = 10  # digits; 115 days
_ATTEMPT: Final = re.compile(rb"([0-9]{1,3})/([0-9]{1,3})")
# PROTOCOL-HTTP2 of gRPC: at most eight digits and a unit.
_GRPC_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_GRPC_UNITS: Final = {
    b"H": 3600.0,
    b"M": 60.0,
    b"S": 1.0,
    b"m": 1e-3,
    b"u": 1e-6,
    b"n": 1e-9,
}


def parse_deadline(value: bytes) -> float | None:
    """Seconds left."""
    if not 0 < len(value) <= _LONGEST_MS or not value.isdigit():
        return None
    return int(value) / 1000.0


def format_deadline(left_s: float) -> bytes:
    """Rounded down: the next hop must not think it has longer than we wait. At most 115 days."""
    return b"%d" % min(max(0, int(left_s * 1000.0)), 10**_LONGEST_MS - 1)


def parse_attempt(value: bytes) -> tuple[int, int] | None:
    """(this try, all tries)."""
    found = _ATTEMPT.fullmatch(value)
    if found is None:
        return None
    attempt, of = int(found[1]), int(found[2])
    return (attempt, of) if 1 <= attempt <= of else None


def format_attempt(attempt: int, of: int) -> bytes:
    return b"%d/%d" % (attempt, of)


def may_retry(attempt: bytes | None) -> bool:
    """Whether this layer may retry, from the value of `x-headgate-attempt` it received."""
    if attempt is None:
        return True
    parsed = parse_attempt(attempt)
    return parsed is None or parsed[1] == 1


def parse_grpc_timeout(value: bytes) -> float | None:
    """Seconds, from the `grpc-timeout` header."""
    found = _GRPC_TIMEOUT.fullmatch(value)
    return int(found[1]) * _GRPC_UNITS[found[2]] if found else None

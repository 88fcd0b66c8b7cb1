"""What a line of the corpus says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RequestCase:
    """Bytes that a client sends on a fresh connection, and what must come of them."""

    id: str
    raw: bytes
    reason: str
    """Why this answer, with the section of the RFC."""
    answers: tuple[frozenset[int], ...]
    """The final statuses, in order; for each, those that are right."""
    closes: bool
    """Whether the gateway closes the connection then."""
    seen: int
    """How many whole requests reach the instance."""
    sends: tuple[bytes, ...] = ()
    """Fragments that the bytes sent to the instance must contain, compared in lower case."""
    lacks: tuple[bytes, ...] = ()
    """Fragments that they must not contain."""
    partial: bool = False
    """The beginning of a request may have reached the instance; its connection is closed."""
    ends: bool = False
    """The client closes its sending side after the bytes."""
    may_drop: bool = False
    """Closing without any answer is right too."""

    @property
    def forwards(self) -> bool:
        return self.seen > 0


@dataclass(frozen=True)
class ResponseCase:
    """Bytes that an instance sends for a request, and what the client must get."""

    id: str
    raw: bytes
    reason: str
    status: int
    """What the client gets: 502, or what the instance said."""
    reusable: bool
    """Whether the connection to the instance may carry another request."""
    body: bytes | None = None
    """The body the client gets, if it is to be compared."""
    method: bytes = b"GET"
    headers: bytes = b""
    """Further lines of the request."""
    closes: bool = False
    """The instance closes the connection after the bytes."""
    aborted: bool = False
    """The client may also have got the head before: then the message must break off visibly."""
    has: tuple[bytes, ...] = ()
    """Fragments of the client's bytes, in lower case."""
    lacks: tuple[bytes, ...] = ()
    interim: tuple[int, ...] = ()
    """1xx responses that the client gets first."""

"""The beginning of a response, as everybody reads it who asks instances: gateway and mesh client.

Heads come again, so whoever reads many hands in those it has read (`HeadCache`); informational ones
are not kept, as each is about one request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from headgate.wire.http1.body import BodyReader, ChunkedReader, LengthReader, UntilCloseReader
from headgate.wire.http1.head import judge_partial, parse_response_head
from headgate.wire.message import Refusal, ResponseHead

if TYPE_CHECKING:
    from headgate.wire.headcache import HeadCache
    from headgate.wire.http1.head import HeadLimits

__all__ = ["INFORMATIONAL_MAX", "body_reader", "take_head"]

INFORMATIONAL_MAX: Final = 16
"""So many may come before the response; more are an attack or a fault."""


def take_head(
    data: bytes,
    heads: HeadCache[ResponseHead],
    limits: HeadLimits,
    own: frozenset[bytes] = frozenset(),
) -> tuple[ResponseHead, bytes] | str | None:
    """The head and what follows it; None where it is not whole yet; text: what is wrong with it.

    Fields of the names in `own` are left out: whoever reads says these himself.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if judge_partial(data, limits) is not None or not _may_be_http(data):
            return "malformed response head"
        return None
    end += 4
    rest = data[end:]
    block = data[:end] if rest else data
    head = heads.get(block)
    if head is None:
        parsed = parse_response_head(block, limits)
        if isinstance(parsed, Refusal):
            return parsed.reason
        head = parsed
        if not own.isdisjoint([name for name, _ in head.headers]):
            head.headers = tuple([field for field in head.headers if field[0] not in own])
        if head.status >= 200:
            heads.put(block, head)
    return head, rest


def body_reader(head: ResponseHead, limits: HeadLimits) -> BodyReader:
    """What reads the body, where one follows."""
    if head.length >= 0:
        return LengthReader(head.length)
    return ChunkedReader(limits) if head.chunked else UntilCloseReader()


def _may_be_http(data: bytes) -> bool:
    """Whether the beginning of a response can still become a status line."""
    return data[:7] == b"HTTP/1."[: len(data)]

"""What of a request's trace headers goes on, and what a head says once for all requests like it.

Theory of operation. The grammar is in `observe.tracing.context`, the same for gateway and services.
Here is what a gateway adds: bounds on what it hands on for others (of a `tracestate` beyond 512
characters whole members go, first those longer than 128, then from the end, as W3C 3.3.1.5 has it;
of `baggage` what is beyond the 64 members and 8,192 bytes that everybody has to carry), and whose
word is taken: of whom the trace is continued, and of whom also the decision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from headgate.observe.tracing.context import NAMES, RANDOM, SpanContext, extract, inject

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headgate.observe.tracing.rules import Format, TracingRules
    from headgate.wire.message import Header

__all__ = [
    "BAGGAGE",
    "HeadTrace",
    "floor_of",
    "head_trace",
    "kept_baggage",
    "kept_state",
    "lines_of",
    "names",
]

BAGGAGE: Final = b"baggage"
STATE_BYTES: Final = 512
_LONG_MEMBER: Final = 128
BAGGAGE_MEMBERS: Final = 64
BAGGAGE_BYTES: Final = 8192


class HeadTrace:
    """What a head says of its trace."""

    __slots__ = ("is_random", "link", "parent_id", "sampled", "state", "trace_id")

    def __init__(
        self,
        context: SpanContext | None,
        sampled: bool | None,
        link: tuple[str, str] | None = None,
    ) -> None:
        """`context`: the span that asks, where its trace is continued."""
        self.trace_id = context.trace_id.encode() if context is not None else b""
        """Empty: the trace begins with the request."""
        self.parent_id = context.span_id if context is not None else ""
        self.sampled = sampled
        """None: the id decides."""
        self.is_random = context is None or bool(context.flags & RANDOM)
        self.state = kept_state(context.state) if context is not None else ""
        self.link = link
        """The trace of a caller whose word is not taken."""


def names(formats: Sequence[Format]) -> frozenset[bytes]:
    """The fields that go on only as we write them. Those of W3C always: with another format they
    would name a span that knows nothing of this request.
    """
    said = NAMES["w3c"].union(*(NAMES[each] for each in formats))
    return frozenset(name.encode() for name in said)


def head_trace(
    headers: Sequence[Header], rules: TracingRules, floor: bytes, *, trusted: bool
) -> HeadTrace | None:
    """What the head says; None where nothing that counts."""
    incoming = extract(headers, rules.propagate)
    decides = rules.trust_sampled == "all" or (rules.trust_sampled == "proxies" and trusted)
    sampled = (incoming.is_debug or incoming.decision) if decides else None
    context = incoming.parent
    if context is None:
        return None if sampled is None else HeadTrace(None, sampled)
    if not (trusted or rules.trust):
        return HeadTrace(None, sampled, (context.trace_id, context.span_id))
    if sampled is None:
        sampled = context.trace_id[18:].encode() >= floor
    return HeadTrace(context, sampled)


def lines_of(
    formats: Sequence[Format],
    trace_id: bytes,
    span_id: bytes,
    state: str,
    *,
    sampled: bool,
    is_random: bool,
) -> bytes:
    """What a service is told, as lines of HTTP/1.1."""
    flags = sampled | (RANDOM if is_random else 0)
    context = SpanContext(trace_id.decode(), span_id.decode(), flags, state)
    return "".join([f"{name}: {value}\r\n" for name, value in inject(context, formats)]).encode()


def kept_state(state: str) -> str:
    """What goes on of a `tracestate` whose grammar has been looked at."""
    if len(state) <= STATE_BYTES:
        return state
    left = state.split(",")
    size = len(state)
    for least in (_LONG_MEMBER + 1, 0):
        for at in range(len(left) - 1, -1, -1):
            if size <= STATE_BYTES:
                break
            if len(left[at]) >= least:
                size -= len(left.pop(at)) + 1
    return ",".join(left)


def kept_baggage(fields: Sequence[Header]) -> Sequence[Header]:
    """The fields, with no more of `baggage` than everybody has to carry; what is within goes on as
    it came.
    """
    values = [value for name, value in fields if name == BAGGAGE]
    size = sum(map(len, values)) + len(values) - 1
    if size <= BAGGAGE_BYTES and sum(value.count(b",") + 1 for value in values) <= BAGGAGE_MEMBERS:
        return fields
    kept: list[bytes] = []
    room = BAGGAGE_BYTES + 1
    for part in b",".join(values).split(b","):
        member = part.strip(b" \t")
        room -= len(member) + 1 if member else 0
        if room < 0 or len(kept) == BAGGAGE_MEMBERS:
            break
        if member:
            kept.append(member)
    others = [field for field in fields if field[0] != BAGGAGE]
    return [*others, (BAGGAGE, b",".join(kept))] if kept else others


def floor_of(ratio: float) -> bytes:
    """From which last 14 digits of a trace id on it is sampled; see `observe.tracing.ids`."""
    if ratio >= 1.0:
        return b""
    if ratio <= 0.0:
        return b"g"  # behind every digit
    floor = (1 << 56) - round(ratio * (1 << 56))
    return b"%014x" % floor if floor < 1 << 56 else b"g"

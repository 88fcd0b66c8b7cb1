"""Which trace a request belongs to, as headers say it: W3C Trace Context.

Theory of operation
-------------------
`traceparent` and `tracestate` of https://www.w3.org/TR/trace-context-2/. Section numbers below are
of that text. What an editor must not soften:

- `traceparent` stands once. Two of them are none (3.2: it is no list), and so is one that breaks
  any rule; then `tracestate` is not even looked at, and a new trace begins (4.3).
- Hexadecimal digits are lower case. Version `ff` is forbidden. Version `00` has 55 characters; a
  later one has as many, or goes on with a dash, and only what version 00 knows is read of it
  (3.2.4). What is sent is always version 00, with no flags but the two that are known.
- `tracestate` is one list over all its headers, in order (3.3). Empty members are allowed and let
  go. One member that breaks the grammar, or a 33rd, drops the whole list and leaves `traceparent`
  in force. Of two members with one key the first, which is the newer, stays.
- Flag 2 of level 2 says that the id is random. It is handed on as it came, and set on ids of ours.

A `SpanContext` keeps `tracestate` as the text that goes out again: most who carry it never look
inside, and a header that is only handed on must not cost a parse and a join at every span.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from headgate.observe.tracing.b3 import b3_headers, read_b3, read_b3_multi
from headgate.observe.tracing.ids import Ids
from headgate.observe.tracing.rules import Format

__all__ = [
    "DEBUG",
    "RANDOM",
    "SAMPLED",
    "TRACESTATE_KEY",
    "Headers",
    "Incoming",
    "SpanContext",
    "extract",
    "inject",
    "members",
    "parse_traceparent",
    "parse_tracestate",
    "put_member",
]

SAMPLED: Final = 1
RANDOM: Final = 2
TRACESTATE_KEY: Final = "hg"
"""Our own member of `tracestate`."""
DEBUG: Final = "d"
"""Its value where somebody has asked for this trace; B3 has a flag for that, W3C has none."""

_PARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?",
    re.DOTALL,
)
_MEMBER: Final = re.compile(
    r"[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_MOST_MEMBERS: Final = 32
_MOST_STATE: Final = 32 * (256 + 1 + 256 + 1)
_MOST_PARENT: Final = 512

Headers = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]


@dataclass(frozen=True, slots=True)
class SpanContext:
    """What a span is called beyond its own process."""

    trace_id: str
    span_id: str
    flags: int = 0
    state: str = ""
    """`tracestate`, as it is sent on."""

    @property
    def is_sampled(self) -> bool:
        return bool(self.flags & SAMPLED)

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags & 3:02x}"


@dataclass(frozen=True, slots=True)
class Incoming:
    """What the headers of a request say."""

    parent: SpanContext | None = None
    decision: bool | None = None
    """Whether the caller wants it recorded; None where it leaves that to us."""
    is_debug: bool = False
    """Asked for by name: kept, whatever the rules say."""


NOTHING: Final = Incoming()


def parse_traceparent(value: str) -> SpanContext | None:
    """One header; None for whatever breaks a rule."""
    value = value.strip(" \t")
    if len(value) < 55 or len(value) > _MOST_PARENT:
        return None
    found = _PARENT.fullmatch(value)
    if found is None or (found[5] is not None and found[1] == "00"):
        return None
    return SpanContext(found[2], found[3], int(found[4], 16) & 3)


def parse_tracestate(values: Sequence[str]) -> str:
    """All `tracestate` headers as the one that goes out; "" where there is none or a bad one."""
    joined = ",".join(values) if len(values) != 1 else values[0]
    if len(joined) > _MOST_STATE:
        return ""
    kept: dict[str, str] = {}
    count = 0
    for each in joined.split(","):
        member = each.strip(" \t")
        if not member:
            continue
        count += 1
        if count > _MOST_MEMBERS or _MEMBER.fullmatch(member) is None:
            return ""
        kept.setdefault(member.partition("=")[0], member)
    return ",".join(kept.values())


def members(state: str) -> dict[str, str]:
    """The members of a `tracestate` that `parse_tracestate` has let through."""
    return dict(each.split("=", 1) for each in state.split(",")) if state else {}


def put_member(state: str, key: str, value: str) -> str:
    """The same with this member in front, where the newest stands; the oldest goes if it must."""
    member = f"{key}={value}"
    if _MEMBER.fullmatch(member) is None:
        raise ValueError(f"{member!r} cannot stand in tracestate")
    others = [each for each in state.split(",") if each and not each.startswith(f"{key}=")]
    return ",".join([member, *others[: _MOST_MEMBERS - 1]])


def _texts(headers: Headers, wanted: Mapping[str, list[str]]) -> None:
    pairs: Iterable[tuple[str | bytes, str | bytes]]
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    for name, value in pairs:
        key = name.decode("latin-1") if isinstance(name, bytes) else name
        found = wanted.get(key.lower())
        if found is not None:
            found.append(value.decode("latin-1") if isinstance(value, bytes) else value)


def extract(headers: Headers, formats: Sequence[Format] = ("w3c",)) -> Incoming:
    """What a request says of its trace: by the first of the formats that it carries.

    `headers` is a mapping, or pairs in which names may stand more than once, of text or bytes.
    """
    wanted: dict[str, list[str]] = {"traceparent": [], "tracestate": []}
    if "b3" in formats:
        wanted["b3"] = []
    if "b3multi" in formats:
        for name in ("traceid", "spanid", "sampled", "flags"):
            wanted[f"x-b3-{name}"] = []
    _texts(headers, wanted)
    for one in formats:
        if one == "w3c":
            got = _w3c(wanted["traceparent"], wanted["tracestate"])
        else:
            got = _b3(one, wanted)
        if got is not NOTHING:
            return got
    return NOTHING


def _w3c(parents: Sequence[str], states: Sequence[str]) -> Incoming:
    if len(parents) != 1:
        return NOTHING
    context = parse_traceparent(parents[0])
    if context is None:
        return NOTHING
    is_debug = False
    if states:
        state = parse_tracestate(states)
        context = replace(context, state=state)
        is_debug = state.startswith(f"{TRACESTATE_KEY}={DEBUG}") and (
            members(state).get(TRACESTATE_KEY) == DEBUG
        )
    return Incoming(context, context.is_sampled, is_debug)


def _b3(one: Format, wanted: Mapping[str, list[str]]) -> Incoming:
    found = read_b3(wanted["b3"]) if one == "b3" else read_b3_multi(wanted)
    if found is None:
        return NOTHING
    trace_id, span_id, decision, is_debug = found
    state = f"{TRACESTATE_KEY}={DEBUG}" if is_debug else ""
    flags = SAMPLED if decision else 0
    parent = SpanContext(trace_id, span_id, flags, state) if trace_id else None
    return Incoming(parent, decision, is_debug)


def inject(context: SpanContext, formats: Sequence[Format] = ("w3c",)) -> list[tuple[str, str]]:
    """The headers that carry it on, in lower case; they stand in place of any that came."""
    found: list[tuple[str, str]] = []
    for one in formats:
        if one == "w3c":
            found.append(("traceparent", context.traceparent))
            if context.state:
                found.append(("tracestate", context.state))
        else:
            is_debug = bool(context.state) and members(context.state).get(TRACESTATE_KEY) == DEBUG
            found += b3_headers(
                context.trace_id,
                context.span_id,
                is_sampled=context.is_sampled,
                is_debug=is_debug,
                is_multi=one == "b3multi",
            )
    return found


NAMES: Final[Mapping[Format, frozenset[str]]] = {
    "w3c": frozenset({"traceparent", "tracestate"}),
    "b3": frozenset({"b3"}),
    "b3multi": frozenset(
        {"x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags"}
    ),
}
"""The headers of each format: whoever injects takes those that came out first."""


def begin(ids: Ids, *, is_sampled: bool) -> SpanContext:
    """The first span of a new trace."""
    return SpanContext(ids.trace_id(), ids.span_id(), RANDOM | (SAMPLED if is_sampled else 0))

"""What the standards ask of who is called with a trace and calls others: a table, and a judge.

W3C Trace Context level 2 (https://www.w3.org/TR/trace-context-2/) and W3C Baggage
(https://www.w3.org/TR/baggage/). A case is what comes in, and what must go out: whether the trace
goes on, with which state and baggage. The judge knows the grammar by itself and takes nothing from
what it judges.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Case:
    rule: str
    """The part of the text that it is from, and what is tried."""
    sends: tuple[tuple[str, str], ...]
    goes_on: bool
    state: str | None = None
    """What must go out as `tracestate`; None: nothing may."""
    carries: tuple[str, ...] = ()
    """Members of baggage that must go out, in this order."""
    random: bool | None = None
    """The flag of level 2; None: not asked."""


def parent(
    version: str = "00", trace: str = TRACE, span: str = PARENT, flags: str = "01", more: str = ""
) -> str:
    return f"{version}-{trace}-{span}-{flags}{more}"


def on(rule: str, *values: str, random: bool | None = None) -> Case:
    return Case(
        rule, tuple(("traceparent", value) for value in values), goes_on=True, random=random
    )


def anew(rule: str, *values: str) -> Case:
    """What does not count takes the state with it."""
    sends = (*(("traceparent", value) for value in values), ("tracestate", "a=1"))
    return Case(rule, sends, goes_on=False)


def state(rule: str, then: str | None, *values: str) -> Case:
    sends = (("traceparent", parent()), *(("tracestate", value) for value in values))
    return Case(rule, sends, goes_on=True, state=then)


def baggage(rule: str, carries: Sequence[str], *values: str) -> Case:
    sends = (("traceparent", parent()), *(("baggage", value) for value in values))
    return Case(rule, sends, goes_on=True, carries=tuple(carries))


MEMBERS = [f"k{n:02}={n}" for n in range(33)]
ALLOWED = "".join(map(chr, [*range(0x21, 0x2C), *range(0x2D, 0x3D), *range(0x3E, 0x7F)]))
TOKEN = "!#$%&'*+-.^_`|~0123456789abcxyzABCXYZ"

CASES: tuple[Case, ...] = (
    Case("no headers at all", (), goes_on=False),
    # -- the header traceparent
    on("a trace goes on", parent(flags="00")),
    on("a sampled trace goes on", parent()),
    Case("names have no case", (("TraceParent", parent()),), goes_on=True),
    Case("names have no case, all large", (("TRACEPARENT", parent()),), goes_on=True),
    Case("another name is another header", (("trace-parent", parent()),), goes_on=False),
    Case("another name is another header, dot", (("trace.parent", parent()),), goes_on=False),
    on("blanks around a value", f" {parent()} "),
    on("tabs around a value", f"\t{parent()}\t"),
    anew("repeated, the same", parent(), parent()),
    anew("repeated, two of them", parent(), parent(trace=TRACE[::-1])),
    anew("repeated, one is bad", parent(), "x"),
    anew("two in one line", f"{parent()},{parent(trace=TRACE[::-1])}"),
    anew("empty", ""),
    anew("a word", "hello"),
    anew("quoted", f'"{parent()}"'),
    anew("dots", parent().replace("-", ".")),
    anew("underlines", parent().replace("-", "_")),
    anew("blank within", parent().replace("-", "- ", 1)),
    anew("oversized", "x" * 4000),
    anew("cut short", parent()[:-1]),
    anew("only three fields", f"00-{TRACE}-{PARENT}"),
    # -- version
    anew("version ff", parent("ff")),
    anew("version ff and more", parent("ff", more="-what")),
    anew("version of one digit", parent("0")),
    anew("version of three digits", parent("000")),
    anew("version in capitals", parent("0A")),
    anew("version of no digits", parent("zz")),
    anew("version missing", parent("")),
    anew("version 00 and more", parent(more="-what")),
    anew("version 00 and a dash", parent(more="-")),
    anew("version 00 and a letter", parent(more="0")),
    on("version 01", parent("01")),
    on("version cc", parent("cc")),
    on("version fe", parent("fe")),
    on("later version and more", parent("cc", more="-what-the-future-will-be-like")),
    on("later version and a dash", parent("cc", more="-")),
    anew("later version, glued", parent("cc", more=".what")),
    anew("later version, cut short", parent("cc")[:-1]),
    anew("later version, no trace", parent("cc", trace="0" * 32)),
    anew("later version, capitals", parent("cc", trace=TRACE.upper())),
    # -- trace-id
    anew("trace of zeros", parent(trace="0" * 32)),
    anew("trace in capitals", parent(trace=TRACE.upper())),
    anew("one capital in the trace", parent(trace=TRACE[:-1] + "C")),
    anew("trace too long", parent(trace=TRACE + "0")),
    anew("trace too short", parent(trace=TRACE[:-1])),
    anew("trace of other letters", parent(trace=TRACE[:-1] + "g")),
    anew("trace with a dot", parent(trace="." + TRACE[1:])),
    on("trace that begins with zeros", parent(trace="0" * 31 + "1")),
    # -- parent-id
    anew("parent of zeros", parent(span="0" * 16)),
    anew("parent in capitals", parent(span=PARENT.upper())),
    anew("parent too long", parent(span=PARENT + "0")),
    anew("parent too short", parent(span=PARENT[:-1])),
    anew("parent of other letters", parent(span=PARENT[:-1] + "-")),
    # -- trace-flags
    on("unknown flags are not handed on", parent(flags="ff"), random=True),
    on("unknown flags alone", parent(flags="fc"), random=False),
    on("random goes on", parent(flags="02"), random=True),
    on("not random goes on", parent(flags="00"), random=False),
    anew("flags of one digit", parent(flags="1")),
    anew("flags of three digits", parent(flags="001")),
    anew("flags in capitals", parent(flags="0F")),
    anew("flags of other letters", parent(flags=".0")),
    # -- the header tracestate
    Case("state without a parent", (("tracestate", "a=1"),), goes_on=False),
    Case("state twice without a parent", (("tracestate", "a=1"), ("tracestate", "b=2")), False),
    state("one member", "a=1", "a=1"),
    state("several members keep their order", "c=3,a=1,b=2", "c=3,a=1,b=2"),
    state("repeated headers are one list", "a=1,b=2,c=3", "a=1,b=2", "c=3"),
    state("repeated, one is empty", "a=1,b=2", "a=1", "", "b=2"),
    state("repeated, the first is empty", "a=1", "", "a=1"),
    state("empty", None, ""),
    state("only commas", None, ",,,"),
    state("empty members are let go", "a=1,b=2", "a=1,,b=2,"),
    state("blanks around members", "a=1,b=2,c=3", "a=1 \t , \t b=2, c=3"),
    Case(
        "names of it have no case",
        (("traceparent", parent()), ("TraceState", "a=1")),
        goes_on=True,
        state="a=1",
    ),
    Case(
        "another name of it",
        (("traceparent", parent()), ("trace-state", "a=1")),
        goes_on=True,
        state=None,
    ),
    # -- key
    state("key of small letters and signs", "a_-*/9=1", "a_-*/9=1"),
    state("key begins with a digit", "0a=1", "0a=1"),
    state("key of a vendor", "a@b=1", "a@b=1"),
    state("key in capitals", None, "Foo=1"),
    state("key with a blank", None, "a =1"),
    state("key with a blank in it", None, "a b=1"),
    state("key with a dot", None, "a.b=1"),
    state("key begins with an at sign", None, "@a=1"),
    state("no key", None, "=1"),
    state("key of 256", f"{'z' * 256}=1", f"{'z' * 256}=1"),
    state("key of 257", None, f"{'z' * 257}=1"),
    state("one bad key takes all", None, "a=1,B=2"),
    state("one bad key in another header takes all", None, "a=1", "B=2"),
    # -- value
    state("value with a blank within", "a=x y", "a=x y"),
    state("every letter of a value", f"a={ALLOWED}", f"a={ALLOWED}"),
    state("no value", None, "a="),
    state("no equals", None, "a"),
    state("two equals", None, "a=b=c"),
    state("value with a tab", None, "a=x\ty"),
    state("value of 256", f"a={'v' * 256}", f"a={'v' * 256}"),
    state("value of 257", None, f"a={'v' * 257}"),
    # -- limits
    state("32 members", ",".join(MEMBERS[:32]), ",".join(MEMBERS[:32])),
    state("33 members", None, ",".join(MEMBERS)),
    state("33 members in several headers", None, ",".join(MEMBERS[:20]), ",".join(MEMBERS[20:])),
    state("512 letters", f"a={'x' * 253},b={'y' * 254}", f"a={'x' * 253},b={'y' * 254}"),
    state("oversized", None, ",".join(f"k{n}={'x' * 300}" for n in range(30))),
    state("a key twice", "a=1", "a=1,a=2"),
    state("a key twice in two headers", "a=1,b=3", "a=1", "a=2,b=3"),
    # -- baggage
    baggage("one member", ["user=ann"], "user=ann"),
    baggage("several members", ["a=1", "b=2", "c=3"], "a=1,b=2,c=3"),
    baggage("repeated headers are one list", ["a=1", "b=2", "c=3"], "a=1,b=2", "c=3"),
    baggage("blanks around everything", ["a=1;p=2", "b=3"], " a = 1 ; p = 2 , b = 3 "),
    baggage("properties", ["a=1;p;q=2"], "a=1;p;q=2"),
    baggage("equals in a value", ["a=b=c"], "a=b=c"),
    baggage("percent", ["a=%C3%A9%2C"], "a=%C3%A9%2C"),
    baggage("empty value", ["a=", "b=1"], "a=,b=1"),
    baggage("every sign of a key", [f"{TOKEN}=1"], f"{TOKEN}=1"),
    baggage("capitals are other keys", ["a=1", "A=2"], "a=1,A=2"),
    baggage("64 members", [f"k{n}=1" for n in range(64)], ",".join(f"k{n}=1" for n in range(64))),
    baggage(
        "8192 bytes",
        [f"a={'x' * 4000}", f"b={'y' * 4000}"],
        f"a={'x' * 4000},b={'y' * 4000}",
    ),
    baggage("a bad member among others", ["b=1", "c=2"], "b=1,c=2,a b=3"),
    Case("baggage without a trace", (("baggage", "a=1"),), goes_on=False, carries=("a=1",)),
)

_PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_MEMBER = re.compile(
    r"([a-z0-9][a-z0-9_\-*/@]{0,255})=([\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}"
    r"[\x21-\x2b\x2d-\x3c\x3e-\x7e])"
)
_BLANKS = re.compile(r"[ \t]*([;,=])[ \t]*")


def wrong(case: Case, told: Pairs) -> Iterator[str]:
    """What is wrong with what was sent on."""
    said: dict[str, list[str]] = {}
    for name, value in told:
        said.setdefault(name.lower(), []).append(value)
    parents = said.get("traceparent", [])
    if len(parents) != 1:
        yield f"traceparent stands {len(parents)} times"
        return
    found = _PARENT.fullmatch(parents[0])
    if found is None:
        yield f"{parents[0]!r} is no traceparent of version 00"
        return
    trace, span, flags = found[1], found[2], int(found[3], 16)
    sent = next((v for n, v in case.sends if n.lower() == "traceparent"), "").strip()
    wanted = sent[3:35] if case.goes_on else ""
    if case.goes_on and trace != wanted:
        yield f"the trace is {trace}, not {wanted}"
    if not case.goes_on and trace in {TRACE, TRACE[::-1]}:
        yield "a trace that does not count goes on"
    if set(trace) == {"0"} or set(span) == {"0"}:
        yield "an id of zeros"
    if span == PARENT:
        yield "the parent's own id is handed on"
    if flags & ~0x03:
        yield f"unknown flags are handed on: {flags:02x}"
    if case.random is not None and bool(flags & 0x02) is not case.random:
        yield f"the random flag has changed: {flags:02x}"
    yield from _wrong_state(case, said.get("tracestate", []))
    yield from _wrong_baggage(case, said.get("baggage", []))


def _wrong_state(case: Case, values: list[str]) -> Iterator[str]:
    members = [each for value in values for each in value.split(",")]
    # Whoever takes part may put a member of its own in front.
    others = [each for each in members if not each.startswith("hg=")]
    if len(members) > 32:
        yield f"{len(members)} members"
    keys = [each.partition("=")[0] for each in members]
    if len(keys) != len(set(keys)):
        yield "a key stands twice"
    yield from (f"{each!r} is no member" for each in members if not _MEMBER.fullmatch(each))
    got = ",".join(others) or None
    if got != case.state:
        yield f"tracestate is {got!r}, not {case.state!r}"


def _wrong_baggage(case: Case, values: list[str]) -> Iterator[str]:
    if sum(map(len, values)) + len(values) - 1 > 8192:
        yield "more than 8192 bytes of baggage"
    got = [_BLANKS.sub(r"\1", each).strip() for value in values for each in value.split(",")]
    if len(got) > 64:
        yield f"{len(got)} members of baggage"
    kept = [each for each in got if each in case.carries]
    if tuple(kept) != case.carries:
        yield f"baggage is {got!r:.200}"

"""W3C Trace Context, level 2, rule by rule; B3 and baggage beside it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.observe.tracing.baggage import Entry, parse_baggage, write_baggage
from headgate.observe.tracing.context import (
    SpanContext,
    extract,
    inject,
    members,
    parse_traceparent,
    parse_tracestate,
    put_member,
)
from headgate.observe.tracing.rules import Format

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"

HEX = "0123456789abcdef"
trace_ids = st.text(HEX, min_size=32, max_size=32).filter(lambda text: text != "0" * 32)
span_ids = st.text(HEX, min_size=16, max_size=16).filter(lambda text: text != "0" * 16)


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        pytest.param(GOOD, 1, id="sampled"),
        pytest.param(f"00-{TRACE}-{SPAN}-00", 0, id="not sampled"),
        pytest.param(f"00-{TRACE}-{SPAN}-02", 2, id="random"),
        pytest.param(f"00-{TRACE}-{SPAN}-ff", 3, id="unknown flags are let go"),
        pytest.param(f" \t{GOOD}\t", 1, id="white space around"),
        pytest.param(f"cc-{TRACE}-{SPAN}-01", 1, id="later version"),
        pytest.param(f"cc-{TRACE}-{SPAN}-01-what-comes-then", 1, id="later version with more"),
        pytest.param(f"fe-{TRACE}-{SPAN}-01-", 1, id="later version with an empty field"),
    ],
)
def test_a_traceparent_is_read(value, flags):
    assert parse_traceparent(value) == SpanContext(TRACE, SPAN, flags)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("", id="empty"),
        pytest.param(GOOD[:-1], id="too short"),
        pytest.param(GOOD + ".", id="more behind"),
        pytest.param(GOOD + "-more", id="more behind version 00"),
        pytest.param(f"ff-{TRACE}-{SPAN}-01", id="version ff"),
        pytest.param(f"ff-{TRACE}-{SPAN}-01-more", id="version ff with more"),
        pytest.param(f"0-{TRACE}-{SPAN}-01", id="version too short"),
        pytest.param(f"000-{TRACE}-{SPAN}-01", id="version too long"),
        pytest.param(f".0-{TRACE}-{SPAN}-01", id="version of other letters"),
        pytest.param(f"0A-{TRACE}-{SPAN}-01", id="version in upper case"),
        pytest.param(f"cc-{TRACE}-{SPAN}-01.more", id="later version without a dash"),
        pytest.param(f"00-{'0' * 32}-{SPAN}-01", id="trace id of zeros"),
        pytest.param(f"00-{TRACE}-{'0' * 16}-01", id="parent id of zeros"),
        pytest.param(f"00-{TRACE.upper()}-{SPAN}-01", id="trace id in upper case"),
        pytest.param(f"00-{TRACE}-{SPAN.upper()}-01", id="parent id in upper case"),
        pytest.param(f"00-{TRACE[:-1]}-{SPAN}-01", id="trace id too short"),
        pytest.param(f"00-{TRACE}0-{SPAN}-01", id="trace id too long"),
        pytest.param(f"00-{TRACE[:-1]}.-{SPAN}-01", id="trace id of other letters"),
        pytest.param(f"00-{TRACE}-{SPAN}-.0", id="flags of other letters"),
        pytest.param(f"00-{TRACE}-{SPAN}-001", id="flags too long"),
        pytest.param(f"00-{TRACE}-{SPAN}-0A", id="flags in upper case"),
        pytest.param(f"00_{TRACE}_{SPAN}_01", id="other dashes"),
        pytest.param(GOOD + "\n", id="line end"),
        pytest.param(f"00-{'٣' * 32}-{SPAN}-01", id="digits of other scripts"),
        pytest.param(f"cc-{TRACE}-{SPAN}-01-{'x' * 10_000}", id="huge"),
    ],
)
def test_a_traceparent_that_breaks_a_rule_is_none(value):
    assert parse_traceparent(value) is None
    assert extract([("traceparent", value), ("tracestate", "a=1")]).parent is None


def test_two_traceparents_are_none():
    other = f"00-{TRACE[::-1]}-{SPAN}-01"
    for pair in ((GOOD, other), (GOOD, GOOD)):
        assert extract([("traceparent", each) for each in pair]).parent is None


@pytest.mark.parametrize("name", ["traceparent", "TraceParent", "TRACEPARENT"])
def test_names_of_headers_have_no_case(name):
    assert extract({name: GOOD}).parent == SpanContext(TRACE, SPAN, 1)
    assert extract([(name.encode(), GOOD.encode())]).parent == SpanContext(TRACE, SPAN, 1)
    assert extract({f"{name[:5]}-{name[5:]}": GOOD}).parent is None


MANY = [f"bar{n:02}={n}" for n in range(33)]


@pytest.mark.parametrize(
    ("values", "state"),
    [
        pytest.param(["foo=1,bar=2"], "foo=1,bar=2", id="one header"),
        pytest.param(["foo=1,bar=2", "c=3", "d=4"], "foo=1,bar=2,c=3,d=4", id="several headers"),
        pytest.param(["foo=1", "", "bar=2"], "foo=1,bar=2", id="empty header"),
        pytest.param([""], "", id="nothing"),
        pytest.param([",foo=1,, ,"], "foo=1", id="empty members"),
        pytest.param(["foo=1 \t , \t bar=2, \t baz=3\t"], "foo=1,bar=2,baz=3", id="white space"),
        pytest.param(["foo= 1"], "foo= 1", id="space in a value"),
        pytest.param(["foo=1,foo=2"], "foo=1", id="same key twice"),
        pytest.param(["foo=1", "foo=2,bar=3"], "foo=1,bar=3", id="same key in two headers"),
        pytest.param(["foo@=1,foo@@bar=2,a@b@c=3"], "foo@=1,foo@@bar=2,a@b@c=3", id="at signs"),
        pytest.param(["0a=1"], "0a=1", id="key begins with a digit"),
        pytest.param(["z" * 256 + "=1"], "z" * 256 + "=1", id="longest key"),
        pytest.param(["a=" + "v" * 256], "a=" + "v" * 256, id="longest value"),
        pytest.param([",".join(MANY[:32])], ",".join(MANY[:32]), id="32 members"),
        pytest.param([",".join(MANY)], "", id="33 members"),
        pytest.param(["foo=1", "z" * 257 + "=1"], "", id="key too long"),
        pytest.param(["foo=1,a=" + "v" * 257], "", id="value too long"),
        pytest.param(["foo =1"], "", id="space in a key"),
        pytest.param(["FOO=1"], "", id="upper case in a key"),
        pytest.param(["foo.bar=1"], "", id="dot in a key"),
        pytest.param(["@foo=1,bar=2"], "", id="key begins with an at sign"),
        pytest.param(["foo=bar=baz"], "", id="equals in a value"),
        pytest.param(["foo=,bar=3"], "", id="no value"),
        pytest.param(["foo,bar=3"], "", id="no equals"),
        pytest.param(["foo=\x7f"], "", id="control character"),
        pytest.param(["foo=é"], "", id="beyond ASCII"),
        pytest.param(["a=1," * 50_000], "", id="huge"),
    ],
)
def test_a_tracestate_is_read_whole_or_not_at_all(values, state):
    assert parse_tracestate(values) == state
    got = extract([("traceparent", GOOD), *(("tracestate", each) for each in values)])
    assert got.parent == SpanContext(TRACE, SPAN, 1, state)  # it never spoils the traceparent


def test_every_allowed_character_of_a_value_passes():
    value = "".join(map(chr, [*range(0x20, 0x2C), *range(0x2D, 0x3D), *range(0x3E, 0x7F)]))
    key = "abcdefghijklmnopqrstuvwxyz0123456789_-*/@x"
    assert members(parse_tracestate([f"{key}={value}"])) == {key: value}


def test_our_member_stands_in_front_and_stands_once():
    assert put_member("a=1,hg=x,b=2", "hg", "d") == "hg=d,a=1,b=2"
    assert put_member("", "hg", "d") == "hg=d"
    full = parse_tracestate([",".join(MANY[:32])])
    assert put_member(full, "hg", "d").split(",") == ["hg=d", *MANY[:31]]
    with pytest.raises(ValueError, match="cannot stand"):
        put_member("", "hg", "a,b=c")


@given(st.lists(st.text(max_size=80), max_size=6), st.text(max_size=120))
def test_no_text_makes_it_raise(states, parent):
    got = extract([("traceparent", parent), *(("tracestate", each) for each in states)])
    state = parse_tracestate(states)
    assert parse_tracestate([state]) == state
    assert got.parent is None or got.parent.traceparent


@given(trace_ids, span_ids, st.integers(0, 3), st.booleans())
def test_what_is_sent_is_read_back(trace_id, span_id, flags, with_state):
    context = SpanContext(trace_id, span_id, flags, "a=1,b=2" if with_state else "")
    got = extract(inject(context))
    assert got.parent == context
    assert got.decision is context.is_sampled


@given(st.binary(max_size=200))
def test_headers_of_any_bytes_do_no_harm(value):
    names = ("traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-flags")
    got = extract([(name.encode(), value) for name in names], ("w3c", "b3", "b3multi"))
    if got.parent is not None:
        assert extract(inject(got.parent)).parent == got.parent
    baggage = parse_baggage([value.decode("latin-1")])
    assert len(baggage) <= value.count(b",") + 1


# -- B3 -------------------------------------------------------------------------------------------

B3: tuple[Format, ...] = ("b3", "b3multi")


@pytest.mark.parametrize(
    ("headers", "context", "decision", "debug"),
    [
        pytest.param({"b3": f"{TRACE}-{SPAN}-1"}, (TRACE, 1), True, False, id="sampled"),
        pytest.param({"b3": f"{TRACE}-{SPAN}-0-{SPAN}"}, (TRACE, 0), False, False, id="parent"),
        pytest.param({"b3": f"{TRACE}-{SPAN}"}, (TRACE, 0), None, False, id="left to us"),
        pytest.param({"b3": f"{TRACE}-{SPAN}-d"}, (TRACE, 1), True, True, id="debug"),
        pytest.param(
            {"b3": f"{TRACE[:16]}-{SPAN}-1"}, ("0" * 16 + TRACE[:16], 1), True, False, id="64 bits"
        ),
        pytest.param({"b3": f"{TRACE.upper()}-{SPAN}-1"}, (TRACE, 1), True, False, id="upper case"),
        pytest.param({"b3": "0"}, None, False, False, id="only no"),
        pytest.param({"b3": "1"}, None, True, False, id="only yes"),
        pytest.param({"b3": "x"}, None, None, False, id="nonsense"),
        pytest.param({"b3": f"{'0' * 32}-{SPAN}-1"}, None, None, False, id="zeros"),
        pytest.param({"b3": f"{TRACE}-{'0' * 16}-1"}, None, None, False, id="span of zeros"),
        pytest.param({"b3": f"{TRACE}-{SPAN}-2"}, None, None, False, id="no such state"),
        pytest.param(
            {"X-B3-TraceId": TRACE, "X-B3-SpanId": SPAN, "X-B3-Sampled": "true"},
            (TRACE, 1),
            True,
            False,
            id="multi",
        ),
        pytest.param(
            {"X-B3-TraceId": TRACE, "X-B3-SpanId": SPAN, "X-B3-Flags": "1"},
            (TRACE, 1),
            True,
            True,
            id="multi debug",
        ),
        pytest.param({"X-B3-Sampled": "0"}, None, False, False, id="multi only no"),
        pytest.param({"X-B3-TraceId": TRACE, "X-B3-Sampled": "1"}, None, None, False, id="half"),
    ],
)
def test_b3_is_read(headers, context, decision, debug):
    got = extract(headers, B3)
    assert (got.parent and (got.parent.trace_id, got.parent.flags)) == context
    assert (got.decision, got.is_debug) == (decision, debug)


@pytest.mark.parametrize("one", B3)
@given(trace_ids, span_ids, st.booleans(), st.booleans())
def test_b3_is_read_back(one, trace_id, span_id, sampled, debug):
    state = "hg=d" if debug else ""
    context = SpanContext(trace_id, span_id, int(sampled or debug), state)
    got = extract(inject(context, (one,)), (one,))
    assert got.parent == context
    assert got.is_debug == debug


def test_the_first_format_that_a_request_carries_is_read():
    both = {"traceparent": GOOD, "b3": f"{TRACE[::-1]}-{SPAN}-1"}
    assert extract(both, ("w3c", "b3")).parent == SpanContext(TRACE, SPAN, 1)
    back = SpanContext(TRACE[::-1], SPAN, 1)
    assert extract(both, ("b3", "w3c")).parent == back
    assert extract({"b3": both["b3"]}, ("w3c", "b3")).parent == back
    assert extract(both, ("w3c",)).parent == SpanContext(TRACE, SPAN, 1)


# -- baggage --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "found"),
    [
        pytest.param(["user=alice"], {"user": Entry("alice")}, id="one"),
        pytest.param(["a=1,b=2", "c=3"], {k: Entry(v) for k, v in zip("abc", "123")}, id="several"),
        pytest.param(
            [" a = 1 ; x ; y = 2 "], {"a": Entry("1", (("x", None), ("y", "2")))}, id="ows"
        ),
        pytest.param(["a=%C3%A9%2C"], {"a": Entry("é,")}, id="percent"),
        pytest.param(["a=%ff"], {"a": Entry("�")}, id="no UTF-8"),
        pytest.param(["a=x=y"], {"a": Entry("x=y")}, id="equals in a value"),
        pytest.param(["a="], {"a": Entry("")}, id="empty value"),
        pytest.param(["a,b=1,=2,c d=3,e=f g,f=1"], {"b": Entry("1"), "f": Entry("1")}, id="bad"),
        pytest.param(["a=1,a=2"], {"a": Entry("2")}, id="twice"),
    ],
)
def test_baggage_is_read_member_by_member(values, found):
    assert parse_baggage(values) == found


def test_baggage_has_bounds():
    assert len(parse_baggage([",".join(f"k{n}=1" for n in range(100))])) == 64
    assert parse_baggage(["a=" + "x" * 9000]) == {}
    assert list(parse_baggage(["a=1", "b=" + "x" * 9000, "c=1"])) == ["a"]
    long = {f"k{n}": Entry("x" * 1000) for n in range(20)}
    assert len(write_baggage(long)) <= 8192
    assert len(write_baggage({f"k{n}": Entry("") for n in range(100)}).split(",")) == 64


@given(st.dictionaries(st.text("abc!#$.-", min_size=1), st.text(max_size=30), max_size=10))
def test_baggage_is_read_back(values):
    entries = {
        key: Entry(value.encode("utf-8", "replace").decode()) for key, value in values.items()
    }
    assert parse_baggage([write_baggage(entries)]) == entries


def test_a_key_that_cannot_be_sent_is_refused():
    with pytest.raises(ValueError, match="no key of baggage"):
        write_baggage({"a b": Entry("1")})

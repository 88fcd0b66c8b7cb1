"""What has no socket in it: ids, the sampled part, bounds on what is handed on, the waiting list."""

from __future__ import annotations

import json
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.gateway.log_text import Hidden
from headgate.gateway.tracing import SPANS_MAX, KeptTraces, Tracing
from headgate.gateway.tracing_heads import (
    BAGGAGE,
    BAGGAGE_BYTES,
    BAGGAGE_MEMBERS,
    STATE_BYTES,
    floor_of,
    head_trace,
    kept_baggage,
    kept_state,
)
from headgate.gateway.tracing_ids import HEDGE, MIRROR, own_span, span_of
from headgate.observe import histogram, new_rows
from headgate.observe.tracing.context import parse_tracestate
from headgate.observe.tracing.ids import Share
from headgate.observe.tracing.record import SpanRecord
from headgate.observe.tracing.rules import AUTO, TracingRules

HEX = "0123456789abcdef"
trace_ids = st.text(HEX, min_size=32, max_size=32)


@given(trace_ids, st.floats(0, 1))
def test_the_gateway_samples_what_services_would(trace_id, ratio):
    assert (trace_id[18:].encode() >= floor_of(ratio)) is Share(ratio).holds_id(trace_id)


@pytest.mark.parametrize("ratio", [0.0, 1.0, 1e-18, 1 - 1e-17])
def test_all_and_none_are_exactly_that(ratio):
    for trace_id in ("0" * 32, "f" * 32):
        assert (trace_id[18:].encode() >= floor_of(ratio)) is Share(ratio).holds_id(trace_id)


@given(st.text(HEX, min_size=32, max_size=32))
def test_spans_of_a_request_never_share_an_id(own):
    ex: Any = SimpleNamespace(own_id=own.encode())
    numbers = [*range(1, 40), *range(HEDGE + 1, HEDGE + 9), MIRROR]
    ids = {span_of(ex, number) for number in numbers}
    assert len(ids) >= len(numbers) - 1  # "0000000000000000" is no id, and becomes one
    assert all(len(one) == 16 for one in ids)
    assert own_span(ex) == own[:16].encode()


members = st.tuples(
    st.text("abcz019_-*/@", min_size=1, max_size=60).filter(lambda key: key[0].isalnum()),
    st.text("xyz ~!", max_size=200).map(lambda value: value + "v"),
)


@given(st.lists(members, max_size=32))
def test_a_state_is_shortened_by_whole_members_in_order(pairs):
    state = parse_tracestate([",".join(f"{key}={value}" for key, value in pairs)])
    kept = kept_state(state)
    assert len(kept) <= STATE_BYTES or len(state) <= STATE_BYTES
    before, after = state.split(","), kept.split(",") if kept else []
    assert [one for one in before if one in after] == after
    if len(state) <= STATE_BYTES:
        assert kept == state
    assert parse_tracestate([kept]) == kept


@given(st.lists(st.lists(st.binary(max_size=400), max_size=80).map(b",".join), max_size=4))
def test_baggage_is_shortened_by_whole_members_in_order(values):
    fields = [(b"a", b"1"), *((BAGGAGE, value) for value in values)]
    kept = list(kept_baggage(fields))
    assert kept[0] == (b"a", b"1")
    said = b",".join(value for name, value in kept if name == BAGGAGE)
    assert len(said) <= BAGGAGE_BYTES
    assert said.count(b",") < BAGGAGE_MEMBERS
    sent = [part.strip(b" \t") for value in values for part in value.split(b",")]
    left = [part.strip(b" \t") for part in said.split(b",")]
    assert [one for one in left if one] == [one for one in sent if one][: sum(map(bool, left))]


@given(st.lists(st.tuples(st.sampled_from([b"traceparent", b"tracestate", b"b3", b"x-b3-traceid",
       b"x-b3-spanid", b"x-b3-sampled", b"x-b3-flags"]), st.binary(max_size=90)), max_size=6))  # fmt: skip
def test_no_bytes_at_all_break_the_reading(headers):
    rules = TracingRules(propagate=("b3", "b3multi", "w3c"))
    found = head_trace(headers, rules, b"g", trusted=True)
    assert found is None or len(found.trace_id) in (0, 32)


def _span(size: int = 10) -> SpanRecord:
    attributes = {"k": "x" * size}
    return SpanRecord("1" * 32, "2" * 16, "", "n", "server", 1.0, 0.1, attributes=attributes)


def test_what_is_handed_over_is_bounded_and_nothing_is_lost():
    kept = KeptTraces()
    kept.spans += [_span(5000) for _ in range(100)]
    assert kept.told(100.0) is not None
    assert kept.told(100.1) is None
    times = [101.0 + n / 10 for n in range(200)]
    told = {at: event for at in times if (event := kept.told(at)) is not None}
    assert min(b - a for a, b in pairwise(told)) > 0.19
    assert all(len(json.dumps(event)) < 64 * 1024 for event in told.values())
    rows = [row for event in told.values() for row in event["spans"]]
    assert 0 < len(rows) < 100
    assert not kept.spans
    assert kept.told(200.0) is None
    kept.spans += [_span()] * 3
    assert kept.told(200.1) is not None
    kept.spans += [_span()] * 3
    assert kept.told(201.0) is None  # few are handed over once a second
    assert kept.told(201.2) is not None


def test_one_span_that_is_larger_than_all_goes_alone():
    kept = KeptTraces()
    kept.spans += [_span(300_000), _span()]
    first = kept.told(100.0)
    assert first is not None
    assert len(first["spans"]) == 1


def test_a_trace_that_finds_no_room_is_counted_as_a_trace_and_told_as_no_span():
    kept = KeptTraces()
    kept.spans += [_span()] * SPANS_MAX
    assert not kept.has_room()
    told = kept.told(1.0)
    assert told is not None
    assert told.keys() == {"event", "spans"}
    rows = new_rows()
    kept.rows_into(rows)
    assert rows["headgate_traces_dropped_total"] == [(["gateway"], 1)]
    kept.spans.clear()
    assert kept.told(9.0) is None


@pytest.mark.parametrize("keep_slow_s", [AUTO, 1.0], ids=["auto", "fixed"])
def test_routes_that_are_gone_keep_no_exemplars(keep_slow_s):
    kept = KeptTraces()
    for name in ("", "old", "all"):
        kept.note("error", (name, "users"), "ab" * 16, 0.1)
    tracing = Tracing(TracingRules(keep_slow_s=keep_slow_s), kept, Hidden(()))
    tracing.watch((_route(name) for name in ["all", "new"]), None)
    assert [labels[0] for labels in kept.exemplars] == ["", "all"]


def test_a_new_route_has_exemplars_where_there_are_many():
    kept = KeptTraces()
    for number in range(1500):
        kept.note("error", (f"r{number}", "users"), "ab" * 16, 0.1)
    assert len(kept.exemplars) == 1000
    assert ("r1499", "users") in kept.exemplars


def _route(name: str) -> Any:
    stats = SimpleNamespace(duration=histogram.empty(), whole=histogram.empty())
    return SimpleNamespace(name=name, stats=stats)


def test_the_slowest_of_each_route_are_learnt_off_the_path():
    routes = [_route("quick"), _route("long"), _route("rare")]
    tracing = Tracing(TracingRules(sample=0.0, keep_slow_s=AUTO), KeptTraces(), Hidden(()))
    tracing.watch(routes, None)
    assert tracing.slow_s == float("inf")
    for route, seconds in zip(routes, (0.001, 1.0, 0.5), strict=True):
        count = 10 if route.name == "rare" else 1000
        route.stats.whole[histogram.place_of(seconds)] += count
    tracing.turn(1.0)
    assert 0.0009 < tracing.slow_s < 0.0011

    def why(name: str, seconds: float, **more: Any) -> str | None:
        ex: Any = SimpleNamespace(
            route=SimpleNamespace(name=name), status=200, error=None, is_tunnel=False,
            response_headers=(), upstream_s=0.0, own_id=b"0" * 32, root_id=None, marks=None,
            prep=SimpleNamespace(trace=None),
        )  # fmt: skip
        ex.__dict__.update(more)
        return tracing._why(ex, seconds)

    assert why("quick", 0.01) == "slow"
    assert why("long", 0.01) is None
    assert why("long", 2.0) == "slow"
    assert why("rare", 2.0) is None
    assert why("quick", 9.0, is_tunnel=True) is None
    stream = ((b"content-type", b"text/event-stream; x"),)
    assert why("quick", 9.0, response_headers=stream) is None
    assert why("quick", 9.0, response_headers=stream, upstream_s=8.0) == "slow"
    after = Tracing(TracingRules(keep_slow_s=AUTO), KeptTraces(), Hidden(()))
    after.watch(routes[1:], tracing)
    assert after.slow_s > 0.5  # a reload forgets nothing of routes that stay

"""What services are told of traces: the rules of W3C Trace Context, B3, baggage, whose word counts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.gateway.h2_client import Client
from tests.gateway.rig import document, get, response
from tests.gateway.tracing_rig import ALL, CARRIED, NONE, PARENT, TRACE_ID, parent_of

pytestmark = pytest.mark.integration

TRUSTED = {"trusted_proxies": ["127.0.0.0/8"]}
B3 = f"{TRACE_ID}-{PARENT}"


@pytest.fixture
def tell(start, instance):
    """Ask once with some headers; what the instance was told."""
    running: list[tuple[Any, list[Any]]] = []

    def told(*lines, **more):
        if not running:
            running.append((start(document(instance, **more)), []))
        gateway, connections = running[0]
        with gateway.client() as client:
            client.send(get("/", *lines))
            if not connections:
                connections.append(instance.accept())
            seen = connections[0].head()
            connections[0].send(response())
            assert client.answer()[0].status == 200
        return seen

    return told


def test_a_callers_trace_goes_on_with_a_span_of_the_gateways_own(tell):
    trace_id, span_id, _ = parent_of(tell(CARRIED, "tracestate: a=1"))
    assert trace_id == TRACE_ID
    assert span_id != PARENT
    assert parent_of(tell(CARRIED))[1] != span_id


NO_TRACE = {
    "capitals": f"00-{TRACE_ID.upper()}-{PARENT}-01",
    "no trace": f"00-{'0' * 32}-{PARENT}-01",
    "no span": f"00-{TRACE_ID}-{'0' * 16}-01",
    "version ff": f"ff-{TRACE_ID}-{PARENT}-01",
    "more of 00": f"00-{TRACE_ID}-{PARENT}-01-what",
    "dash of 00": f"00-{TRACE_ID}-{PARENT}-01-",
    "later and glued": f"cc-{TRACE_ID}-{PARENT}-01.what",
    "version long": f"000-{TRACE_ID}-{PARENT}-01",
    "version short": f"0-{TRACE_ID}-{PARENT}-01",
    "trace long": f"00-{TRACE_ID}0-{PARENT}-01",
    "trace short": f"00-{TRACE_ID[1:]}-{PARENT}-01",
    "span long": f"00-{TRACE_ID}-{PARENT}0-01",
    "span short": f"00-{TRACE_ID}-{PARENT[1:]}-01",
    "flags long": f"00-{TRACE_ID}-{PARENT}-001",
    "flags short": f"00-{TRACE_ID}-{PARENT}-1",
    "flags bad": f"00-{TRACE_ID}-{PARENT}-.0",
    "dots": f"00.{TRACE_ID}.{PARENT}.01",
    "two": f"00-{TRACE_ID}-{PARENT}-01\r\ntraceparent: 00-{TRACE_ID}-{PARENT}-01",
    "two in one": f"00-{TRACE_ID}-{PARENT}-01, 00-{TRACE_ID}-{PARENT}-01",
    "empty": "",
    "long": f"cc-{TRACE_ID}-{PARENT}-01-{'x' * 2000}",
    "bytes": "\xff\xfe",
}


def test_what_is_no_trace_begins_a_new_one_without_its_state(tell):
    for name, value in NO_TRACE.items():
        seen = tell(f"traceparent: {value}", "tracestate: a=1")
        assert parent_of(seen)[0] != TRACE_ID, name
        assert "tracestate" not in seen, name


def test_a_later_version_may_say_more_and_is_answered_in_ours(tell):
    for more in ("", "-what", "-01-02-"):
        trace_id, span_id, _ = parent_of(tell(f"traceparent: cc-{TRACE_ID}-{PARENT}-01{more}"))
        assert (trace_id, span_id != PARENT) == (TRACE_ID, True)


def test_blanks_around_it_are_no_part_of_it(tell):
    assert parent_of(tell(f"traceparent: \t 00-{TRACE_ID}-{PARENT}-01 \t"))[0] == TRACE_ID


def test_the_random_flag_goes_on_and_unknown_ones_do_not(tell):
    for flags, then in (("02", "02"), ("00", "00"), ("ff", "02"), ("fd", "00")):
        _, _, said = parent_of(tell(f"traceparent: 00-{TRACE_ID}-{PARENT}-{flags}", **NONE))
        assert said == then


STATES = {
    "one": ("a=1", "a=1"),
    "several": ("a=1,b=2\r\ntracestate: c=3", "a=1,b=2,c=3"),
    "blanks": ("a=1 \t , \t b=2, c=3", "a=1,b=2,c=3"),
    "empty members": ("a=1,,b=2,", "a=1,b=2"),
    "empty": ("", None),
    "empty first": ("\r\ntracestate: a=1", "a=1"),
    "twice": ("a=1,a=2", "a=1"),
    "vendors": ("a@b=1,c@@d=2,e@f@g=3", "a@b=1,c@@d=2,e@f@g=3"),
    "blank in a value": ("a=x y", "a=x y"),
    "key of 256": (f"{'z' * 256}=1", f"{'z' * 256}=1"),
    "key of 257": (f"a=1,{'z' * 257}=1", None),
    "capital": ("Foo=1", None),
    "dot": ("a.b=1", None),
    "at first": ("@a=1,b=2", None),
    "blank in a key": ("a =1", None),
    "two equals": ("a=b=c", None),
    "no value": ("a=,b=3", None),
    "32 of them": (",".join(f"k{n}={n}" for n in range(32)), ",".join(f"k{n}={n}" for n in range(32))),
    "33 of them": (",".join(f"k{n}={n}" for n in range(33)), None),
    "long members first": (f"a={'x' * 200},b={'y' * 100},c={'z' * 250},d=1", f"a={'x' * 200},b={'y' * 100},d=1"),
    "then from the end": (",".join(f"k{n}={'x' * 120}" for n in range(6)), ",".join(f"k{n}={'x' * 120}" for n in range(4))),
}  # fmt: skip


def test_the_state_goes_on_as_far_as_it_is_valid(tell):
    for name, (sent, then) in STATES.items():
        seen = tell(CARRIED, f"tracestate: {sent}")
        assert seen.get("tracestate") == then, name
        assert parent_of(seen)[0] == TRACE_ID, name


def test_state_without_a_trace_is_dropped(tell):
    assert "tracestate" not in tell("tracestate: a=1")


def test_other_spellings_of_the_names_are_other_fields(tell):
    for name in ("trace-parent", "trace.parent"):
        assert parent_of(tell(f"{name}: 00-{TRACE_ID}-{PARENT}-01"))[0] != TRACE_ID
    assert (
        parent_of(tell(f"TraceParent: 00-{TRACE_ID}-{PARENT}-01", "TraceState: a=1"))[0] == TRACE_ID
    )


def test_whether_it_is_sampled_is_decided_by_the_id_for_a_stranger(tell):
    assert parent_of(tell(CARRIED, **NONE))[2] == "00"
    assert parent_of(tell())[2] == "02"


def test_a_trusted_proxy_decides(tell):
    assert parent_of(tell(CARRIED, **NONE, **TRUSTED))[2] == "01"
    assert parent_of(tell(f"traceparent: 00-{TRACE_ID}-{PARENT}-00"))[2] == "00"
    assert parent_of(tell())[2] == "02"


def test_anybody_decides_where_the_file_says_so(tell):
    more = {"tracing": {"sample": 0, "trust_sampled": True}}
    assert parent_of(tell(CARRIED, **more))[2] == "01"


def test_the_same_part_of_traces_is_sampled_by_everybody(tell):
    more = {"tracing": {"sample": "50%"}}
    for first, flags in (("7fffffffffffff", "00"), ("80000000000000", "01"), ("ff" * 7, "01")):
        said = f"traceparent: 00-{'1' * 18}{first}-{PARENT}-00"
        assert parent_of(tell(said, **more))[2] == flags


def test_a_strangers_trace_ends_here_where_the_file_says_so(tell):
    more = {"tracing": {"trust": False}}
    seen = tell(CARRIED, "tracestate: a=1", **more)
    assert parent_of(seen)[0] != TRACE_ID
    assert "tracestate" not in seen


def test_b3_is_read_and_written_where_the_file_says_so(tell):
    seen = tell(f"b3: {B3}-1", **TRUSTED, tracing={"propagate": ["b3", "w3c"], "sample": 0})
    trace_id, span_id, flags = parent_of(seen)
    assert (trace_id, flags) == (TRACE_ID, "01")
    assert seen.all("b3") == [f"{TRACE_ID}-{span_id}-1"]
    seen = tell(f"b3: {B3[16:]}-0", CARRIED)
    assert parent_of(seen)[0] == "0" * 16 + TRACE_ID[16:]
    assert parent_of(tell("b3: 0"))[2] == "02"
    assert parent_of(tell("b3: 1"))[2] == "03"
    for bad in ("nonsense", f"{B3}-2", f"{'0' * 32}-{PARENT}", f"{B3}-1\r\nb3: {B3}-1"):
        assert parent_of(tell(f"b3: {bad}"))[0] != TRACE_ID
    assert (
        parent_of(tell(CARRIED))[0] == TRACE_ID
    )  # the second format counts where the first is not


def test_b3_in_several_headers(tell):
    lines = (
        f"X-B3-TraceId: {TRACE_ID}",
        f"X-B3-SpanId: {PARENT}",
        "X-B3-ParentSpanId: " + "1" * 16,
    )
    seen = tell(*lines, "X-B3-Sampled: 1", **TRUSTED, tracing={"propagate": "b3multi", "sample": 0})
    assert seen.all("x-b3-traceid") == [TRACE_ID]
    assert seen.get("x-b3-spanid") not in {None, PARENT}
    assert seen.all("x-b3-sampled") == ["1"]
    assert "x-b3-parentspanid" not in seen
    assert "traceparent" not in seen
    assert tell("X-B3-Flags: 1").all("x-b3-sampled") in ([], ["1"])
    assert tell("X-B3-Sampled: 0", "X-B3-Flags: 0").all("x-b3-sampled") == ["0"]


def test_without_b3_in_the_file_its_headers_are_the_clients_own(tell):
    assert tell(f"b3: {B3}-1").all("b3") == [f"{B3}-1"]


def test_baggage_passes_within_the_limits_that_everybody_has(tell):
    assert tell("baggage: user=ann;p=1, b=2", "baggage: c=3").all("baggage") == [
        "user=ann;p=1, b=2",
        "c=3",
    ]
    many = [f"k{n}=1" for n in range(70)]
    assert tell(f"baggage: {','.join(many)}").all("baggage") == [",".join(many[:64])]
    large = [f"k{n}={'x' * 1000}" for n in range(12)]
    (said,) = tell(f"baggage: {','.join(large)}").all("baggage")
    assert said == ",".join(large[:8])
    assert "baggage" not in tell(f"baggage: a={'x' * 9000}")


def test_off_changes_nothing_that_comes(start, instance):
    gateway = start(document(instance, tracing=False))
    with gateway.client() as client:
        client.send(get("/", CARRIED, "tracestate: a=1"))
        upstream = instance.accept()
        seen = upstream.head()
        upstream.send(response())
        client.answer()
    assert seen.all("traceparent") == [CARRIED.partition(": ")[2]]
    assert seen.get("tracestate") == "a=1"
    assert gateway.worker._traces.spans == []


def test_a_request_id_from_above_is_no_trace_id(tell):
    """Nor do two hops that share one come to the same span."""
    seen = tell("X-Request-Id: " + "z" * 32, **TRUSTED)
    assert seen.get("x-request-id") == "z" * 32
    trace_id, _, _ = parent_of(seen)
    assert int(trace_id, 16)


def test_ten_thousand_traces_are_told_apart(start, instance):
    gateway = start(document(instance, **ALL))
    client, seen = gateway.client(), set()
    upstream = None
    for at in range(0, 10_000, 50):
        for n in range(at, at + 50):
            client.send(get("/", f"traceparent: 00-{n + 1:032x}-{PARENT}-01"))
            upstream = upstream or instance.accept()
            trace_id, span_id, _ = parent_of(upstream.head())
            assert int(trace_id, 16) == n + 1
            seen.add(span_id)
            upstream.send(response())
            client.answer()
    assert len(seen) == 10_000
    assert len(gateway.worker._traces.spans) <= 2048 + 8


def test_http2_on_both_sides(start, echo):
    gateway = start(document(echo.url, **ALL))
    client = Client(gateway.port())
    told = client.get("/echo", (b"traceparent", CARRIED.partition(": ")[2].encode()))
    client.wait(told)
    headers = dict(json.loads(bytes(told.body))["headers"])
    assert headers["traceparent"].split("-")[1] == TRACE_ID
    assert headers["traceparent"].split("-")[2] != PARENT
    client.close()

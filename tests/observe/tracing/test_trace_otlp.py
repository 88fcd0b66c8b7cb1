"""OTLP: what we write is read by the reference, what it writes is read by us; delivery by HTTP."""

from __future__ import annotations

import gzip
import json
import os
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from google.protobuf.json_format import MessageToJson
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from headgate.observe.protobuf import BadProtobuf
from headgate.observe.tracing.export import Exporter, endpoint_of, wait_s
from headgate.observe.tracing.otlp import decode, decode_json, encode, partial_success
from headgate.observe.tracing.process import setup, shutdown
from headgate.observe.tracing.record import UNDECIDED, SpanEvent, SpanLink, SpanRecord
from headgate.observe.tracing.rules import ExportRules
from headgate.observe.tracing.tracer import Tracer

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"

ids = st.integers(1, (1 << 64) - 1)
values = (
    st.text(max_size=20)
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
attributes = st.dictionaries(
    st.text(min_size=1, max_size=10).filter(lambda key: key != UNDECIDED), values, max_size=4
)
times = st.integers(1, 4_000_000_000).map(float)
spans = st.builds(
    SpanRecord,
    ids.map(lambda n: f"{n:032x}"),
    ids.map(lambda n: f"{n:016x}"),
    st.just("") | ids.map(lambda n: f"{n:016x}"),
    st.text(max_size=20),
    st.sampled_from(["server", "client", "internal", "producer", "consumer"]),
    times,
    st.integers(0, 100).map(float),
    st.sampled_from(["unset", "ok", "error"]),
    st.sampled_from(["users", "orders"]),
    attributes,
    st.lists(st.builds(SpanEvent, times, st.text(max_size=5), attributes), max_size=2).map(tuple),
    st.lists(
        st.builds(
            SpanLink, ids.map(lambda n: f"{n:032x}"), ids.map(lambda n: f"{n:016x}"), attributes
        ),
        max_size=2,
    ).map(tuple),
)


def span(n=1, **more):
    return SpanRecord(
        TRACE, f"{n:016x}", "", "x", "server", 1_700_000_000.0, 0.5, "unset", "users", **more
    )


@given(st.lists(spans, max_size=4))
def test_what_is_written_is_read_back(batch):
    got, refused = decode(encode(batch, {"host.name": "a"}))
    assert sorted(got, key=repr) == sorted(batch, key=repr)
    assert refused == 0


def test_the_reference_reads_what_we_write():
    one = span(
        attributes={"a": "é", "b": True, "c": -5, "d": 0.25},
        events=(SpanEvent(1_700_000_000.25, "retry", {"n": 1}),),
        links=(SpanLink(TRACE[::-1], "00f067aa0ba902b7", {"why": "batch"}),),
    )
    request = ExportTraceServiceRequest.FromString(encode([one], {"service.version": "1.2"}))
    resource = request.resource_spans[0].resource.attributes
    assert {pair.key: pair.value.string_value for pair in resource} == {
        "service.version": "1.2",
        "service.name": "users",
    }
    got = request.resource_spans[0].scope_spans[0].spans[0]
    assert got.trace_id.hex() == TRACE
    assert got.span_id.hex() == f"{1:016x}"
    assert got.kind == 2
    assert got.start_time_unix_nano == 1_700_000_000_000_000_000
    assert got.end_time_unix_nano - got.start_time_unix_nano == 500_000_000
    said = {pair.key: pair.value for pair in got.attributes}
    assert (said["a"].string_value, said["b"].bool_value) == ("é", True)
    assert (said["c"].int_value, said["d"].double_value) == (-5, 0.25)
    assert got.events[0].time_unix_nano == 1_700_000_000_250_000_000
    assert got.links[0].trace_id.hex() == TRACE[::-1]
    assert got.flags == 0x101


@given(st.lists(spans, min_size=1, max_size=2))
def test_json_of_the_reference_is_read(batch):
    request = ExportTraceServiceRequest.FromString(encode(batch))
    document = json.loads(MessageToJson(request))
    for resource in document.get("resourceSpans", ()):
        for scope in resource["scopeSpans"]:
            for each in scope["spans"]:
                _hex_ids(each)
                for link in each.get("links", ()):
                    _hex_ids(link)
    got, refused = decode_json(json.dumps(document).encode())
    assert sorted(got, key=repr) == sorted(batch, key=repr)
    assert refused == 0


def _hex_ids(row):
    """OTLP differs here from the JSON of protobuf, which has base64."""
    import base64

    for key in ("traceId", "spanId", "parentSpanId"):
        if key in row:
            row[key] = base64.b64decode(row[key]).hex()


def test_undecided_spans_stay_so_on_the_way():
    got, _ = decode(encode([span(attributes={UNDECIDED: True, "a": 1})]))
    assert got[0].attributes == {"a": 1, UNDECIDED: True}
    request = ExportTraceServiceRequest.FromString(encode([span(attributes={UNDECIDED: True})]))
    assert request.resource_spans[0].scope_spans[0].spans[0].flags == 0x100
    request.resource_spans[0].scope_spans[0].spans[0].flags = 0
    assert UNDECIDED not in decode(request.SerializeToString())[0][0].attributes


def test_values_that_are_lists_become_their_json():
    request = ExportTraceServiceRequest.FromString(encode([span()]))
    got = request.resource_spans[0].scope_spans[0].spans[0]
    pair = got.attributes.add(key="list")
    pair.value.array_value.values.add().int_value = 1
    pair.value.array_value.values.add().string_value = "x"
    assert decode(request.SerializeToString())[0][0].attributes == {"list": '[1, "x"]'}


@pytest.mark.parametrize("field", ["trace_id", "span_id", "parent_span_id", "start_time_unix_nano"])
def test_what_is_no_span_is_counted_and_the_others_are_taken(field):
    request = ExportTraceServiceRequest.FromString(encode([span(1), span(2)]))
    bad = request.resource_spans[0].scope_spans[0].spans[0]
    setattr(bad, field, 0 if field.endswith("nano") else b"\x01\x02")
    got, refused = decode(request.SerializeToString())
    assert (len(got), refused) == (1, 1)


@given(st.binary(max_size=200))
def test_any_bytes_are_spans_or_a_fault(body):
    for read in (decode, decode_json):
        try:
            got, refused = read(body)
        except ValueError:
            continue
        assert refused >= 0
        assert [SpanRecord.of_json(each.to_json()) for each in got] == list(got)


@given(st.lists(spans, min_size=1, max_size=2), st.data())
def test_torn_and_turned_bytes_do_no_harm(batch, data):
    body = bytearray(encode(batch))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] = data.draw(st.integers(0, 255))
    for each in (bytes(body), bytes(body[:at])):
        try:
            got, refused = decode(each)
        except BadProtobuf:
            continue
        assert len(got) + refused <= len(each) // 2  # a span takes two bytes at the least
        assert [SpanRecord.of_json(one.to_json()) for one in got] == list(got)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON, st.sampled_from(["resourceSpans", "scopeSpans", "spans", "attributes", "status"]))
def test_json_of_any_shape_does_no_harm(value, where):
    one = {
        "traceId": TRACE,
        "spanId": "1" * 16,
        "startTimeUnixNano": "1",
        "attributes": [],
        where: value,
    }
    whole = {"resourceSpans": [{"scopeSpans": [{"spans": [one, value]}]}]}
    for document in (whole, {where: value}, value):
        try:
            got, refused = decode_json(json.dumps(document).encode())
        except ValueError:
            continue
        assert len(got) + refused <= 2
        assert [SpanRecord.of_json(each.to_json()) for each in got] == list(got)


def test_json_that_is_nested_without_end_is_a_fault():
    with pytest.raises(ValueError, match="nested"):
        decode_json(b'{"resourceSpans":' + b"[" * 100_000)


# -- delivery -------------------------------------------------------------------------------------


class Collector:
    """Answers as it is told, the last answer again and again."""

    def __init__(self, *answers):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                with outer.lock:
                    outer.seen.append((self.path, dict(self.headers), gzip.decompress(body)))
                    left = outer.answers
                    status, headers, answer = left.pop(0) if len(left) > 1 else left[0]
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args):
                pass

        self.answers = list(answers) or [(200, {}, b"")]
        self.seen = []
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def spans(self):
        return [each for _, _, body in self.seen for each in decode(body)[0]]


def delivered(collector, count, **more):
    exporter = Exporter(
        ExportRules(url=collector.url, headers=(("authorization", "Bearer s3cret"),), **more),
        rng=random.Random(1),
    )
    exporter.put([span(n + 1) for n in range(count)])
    exporter.close(20)
    return exporter


@pytest.mark.integration
def test_spans_are_delivered_and_the_end_waits_for_them():
    with Collector() as collector:
        exporter = delivered(collector, 1200)
        assert len({each.span_id for each in collector.spans()}) == 1200
        assert exporter.stats.sent == 1200
        path, headers, _ = collector.seen[0]
    assert path == "/v1/traces"
    assert headers["content-type"] == "application/x-protobuf"
    assert headers["authorization"] == "Bearer s3cret"
    assert "s3cret" not in repr(exporter) + repr(ExportRules(headers=(("a", "s3cret"),)))


@pytest.mark.integration
def test_what_waits_in_a_ring_is_carried_away_without_pauses():
    ring = [span(n + 1) for n in range(3000)]

    def take(most):
        taken = ring[:most]
        del ring[:most]
        return taken

    with Collector() as collector:
        # A pause after each batch would be an hour.
        rules = ExportRules(url=collector.url, batch=500, every_s=3600.0)
        exporter = Exporter(rules, take=take)
        exporter.put([span(10_000 + n) for n in range(500)])
        for _ in range(400):
            if exporter.stats.sent == 3500:
                break
            time.sleep(0.05)
        assert exporter.stats.sent == 3500
        exporter.close(20)
        assert len(collector.spans()) == 3500


@pytest.mark.integration
def test_a_receiver_that_is_busy_is_asked_again_when_it_says():
    answers = [(503, {"retry-after": "0"}, b""), (429, {"retry-after": "0"}, b""), (200, {}, b"")]
    with Collector(*answers) as collector:
        exporter = delivered(collector, 3)
        assert len(collector.seen) == 3
    assert (exporter.stats.sent, exporter.stats.retries) == (3, 2)


@pytest.mark.integration
def test_what_a_receiver_does_not_want_is_not_sent_again():
    with Collector((400, {}, b"")) as collector:
        exporter = delivered(collector, 3)
        assert len(collector.seen) == 1
    assert exporter.stats.dropped_refused == 3
    assert exporter.is_down


@pytest.mark.integration
def test_a_batch_that_is_too_large_is_halved():
    with Collector((413, {}, b""), (200, {}, b"")) as collector:
        exporter = delivered(collector, 4)
        assert [len(decode(body)[0]) for _, _, body in collector.seen] == [4, 2, 2]
    assert exporter.stats.sent == 4


@pytest.mark.integration
def test_partial_success_is_counted():
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = 2
    answer.partial_success.error_message = "too old"
    body = answer.SerializeToString()
    assert partial_success(body) == (2, "too old")
    with Collector((200, {"content-type": "application/x-protobuf"}, body)) as collector:
        exporter = delivered(collector, 3)
    assert (exporter.stats.sent, exporter.stats.dropped_refused) == (1, 2)


@pytest.mark.integration
def test_an_error_that_nobody_foresaw_costs_a_batch_and_not_the_thread(monkeypatch, caplog):
    met: list[int] = []

    def broken(batch, resource):
        if len(met) < 2:
            met.append(len(batch))
            raise RuntimeError("a header of Bearer s3cret")
        return encode(batch, resource)

    def take(most):
        if len(met) == 1:
            met.append(0)
            raise KeyError("Bearer s3cret")
        return ()

    monkeypatch.setattr("headgate.observe.tracing.export.encode", broken)
    with Collector() as collector, caplog.at_level("WARNING", "headgate.tracing"):
        exporter = Exporter(ExportRules(url=collector.url, every_s=0.01), take=take)
        exporter.put([span(1), span(2)])
        for _ in range(400):
            if len(met) == 2:
                break
            time.sleep(0.05)
        assert exporter.is_down
        assert exporter.stats.dropped_faulty == 2
        exporter.put([span(3)])
        exporter.close(20)
        assert len(collector.spans()) == 1
    assert (exporter.stats.sent, exporter.stats.dropped_faulty) == (1, 2)
    assert not exporter.is_down
    assert [one.message for one in caplog.records if "RuntimeError in broken" in one.message]
    assert len(caplog.records) == 1  # told once
    assert "s3cret" not in caplog.text


@pytest.mark.integration
def test_nobody_there_means_dropped_and_counted_at_the_end():
    with Collector() as collector:
        url = collector.url
    exporter = Exporter(ExportRules(url=url, queue=10, batch=4))
    exporter.put([span(n + 1) for n in range(50)])
    exporter.close(0.2)
    stats = exporter.stats
    assert stats.sent == 0
    assert stats.dropped_full + stats.dropped_late == 50
    assert stats.dropped_full >= 36


def test_waits_grow_and_have_an_end():
    rng = random.Random(1)
    waits = [wait_s(tries, None, rng) for tries in range(1, 40)]
    assert waits[0] <= 0.5
    assert max(waits) <= 30.0
    assert wait_s(1, 7.0, rng) == 7.0
    assert wait_s(1, 1e9, rng) == 120.0


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("http://a:4318", "http://a:4318/v1/traces"),
        ("https://a/", "https://a/v1/traces"),
        ("https://a/otlp/v1/traces?x=1", "https://a/otlp/v1/traces?x=1"),
    ],
)
def test_a_url_without_a_path_is_that_of_the_standard(url, where):
    assert endpoint_of(url) == where


@pytest.mark.integration
def test_a_child_process_delivers_its_own_spans_and_none_of_its_parent():
    tracer = Tracer()
    with Collector() as collector:
        setup("users", sample=1.0, export=collector.url, tracer=tracer)
        try:
            with tracer.span("parent"):
                pass
            pid = os.fork()
            if pid == 0:  # pragma: no cover  # the child
                try:
                    with tracer.span("child"):
                        pass
                    shutdown(tracer, 20)
                finally:
                    os._exit(0)
            os.waitpid(pid, 0)
        finally:
            shutdown(tracer, 20)
        assert sorted(each.name for each in collector.spans()) == ["child", "parent"]

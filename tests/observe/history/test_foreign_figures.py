"""What services show and send, and what goes out again: text, OTLP, CSV, Parquet, slices."""

from __future__ import annotations

import csv
import importlib
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.observe import Carried, WorkerStats, to_prometheus
from headgate.observe.history.export import as_series, to_csv, to_parquet
from headgate.observe.history.families import families_of, of_text
from headgate.observe.history.otlp import OtlpUnreadable, of_json, of_protobuf
from headgate.observe.query import Sample, Series
from headgate.observe.sliced import json_steps

TEXT = """# HELP orders_total Orders.
# TYPE orders_total counter
orders_total{kind="a \\"b\\"\\n",} 5 1700000000
temperature 21.5
took_bucket{le="+Inf"} 3 # {trace_id="x"} 0.5
broken{ 5
nothing
bad{a="b"} x
"""


def test_what_a_service_shows_is_read_and_what_cannot_be_is_counted():
    families, left_out = of_text(TEXT, {"service": "users"}, 100)
    found = {one.name: one for one in families}
    assert left_out == 3
    assert found["orders_total"].kind == "counter"
    assert found["orders_total"].samples == {('a "b"\n', "users"): 5.0}
    assert found["temperature"].kind == "gauge"
    assert found["took_bucket"].labels == ("le", "service")


def test_no_more_series_than_allowed_are_taken():
    families, left_out = of_text("".join(f"x{n} 1\n" for n in range(10)), {}, 4)
    assert (len(families), left_out) == (4, 6)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_read_or_left_out(text):
    families, left_out = of_text(text, {"service": "x"}, 10)
    assert sum(len(one.samples) for one in families) <= 10
    assert left_out >= 0
    assert all(one.samples and "service" in one.labels for one in families)


def test_figures_are_the_series_of_the_exposition():
    stats = WorkerStats("worker-0", "a")
    stats.route("r", "s").record("GET", 200, 0.01, 0.01, 3, 5)
    carried = Carried()
    carried.take(stats.snapshot())
    merged = carried.merged()
    shown, _ = of_text(to_prometheus(merged), {}, 10_000)
    ours = list(families_of(merged))

    def flat(families):
        return {
            (one.name, *sorted(zip(one.labels, key, strict=True))): value
            for one in families
            for key, value in one.samples.items()
        }

    assert flat(ours) == pytest.approx(flat(shown))
    assert {one.name: one.kind for one in ours} == {one.name: one.kind for one in shown}


def _export(**metric):
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
    scopes = [{"metrics": [metric]}]
    return {"resourceMetrics": [{"resource": resource, "scopeMetrics": scopes}]}


def test_otlp_in_json_becomes_series_as_prometheus_names_them():
    point = {"asInt": "7", "attributes": [{"key": "http.method", "value": {"stringValue": "GET"}}]}
    said = _export(
        name="http.requests",
        sum={"isMonotonic": True, "aggregationTemporality": 2, "dataPoints": [point]},
    )
    source, families, left_out = of_json(json.dumps(said).encode())
    assert (source, left_out) == ("shop", 0)
    (family,) = families
    assert (family.name, family.kind) == ("http_requests_total", "counter")
    assert family.samples == {("GET", "shop"): 7.0}


def test_otlp_histograms_become_buckets_and_deltas_are_left_out():
    point = {"count": "6", "sum": 3.5, "bucketCounts": ["1", "2", "3"], "explicitBounds": [0.1, 1]}
    said = _export(name="took", histogram={"aggregationTemporality": 2, "dataPoints": [point]})
    _, families, _ = of_json(json.dumps(said).encode())
    found = {one.name: dict(one.samples) for one in families}
    assert found["took_bucket"] == {("0.1", "shop"): 1, ("1", "shop"): 3, ("+Inf", "shop"): 6}
    assert found["took_count"] == {("shop",): 6}
    assert found["took_sum"] == {("shop",): 3.5}
    said = _export(name="took", histogram={"aggregationTemporality": 1, "dataPoints": [point]})
    assert of_json(json.dumps(said).encode())[1:] == ([], 1)


def test_otlp_in_protobuf_is_the_same_as_in_json():
    pb = importlib.import_module("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")
    from google.protobuf import json_format

    points = [{"asDouble": 1.5, "attributes": [{"key": "n", "value": {"intValue": "-4"}}]}]
    said = _export(name="load.average", gauge={"dataPoints": points})
    metrics = said["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
    held = {"aggregationTemporality": 2, "isMonotonic": True, "dataPoints": [{"asInt": "-9"}]}
    metrics.append({"name": "b", "sum": held})
    bucketed = {"count": "3", "sum": 1.0, "bucketCounts": ["1", "2"], "explicitBounds": [0.5]}
    metrics.append(
        {"name": "h", "histogram": {"aggregationTemporality": 2, "dataPoints": [bucketed]}}
    )
    message = json_format.ParseDict(said, pb.ExportMetricsServiceRequest())
    assert of_protobuf(message.SerializeToString()) == of_json(json.dumps(said).encode())


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120))
def test_foreign_bytes_are_otlp_or_refused(data):
    for decode in (of_protobuf, of_json):
        try:
            decode(data)
        except OtlpUnreadable:
            pass


SERIES = [
    Series({"__name__": "x", "a": "=1+1"}, np.array([1.0, 2.0]), np.array([0.5, 3.0])),
    Series({"__name__": "x", "b": "z"}, np.array([2.0]), np.array([float("nan")])),
]


def test_csv_has_a_row_a_sample_and_no_formulas():
    rows = list(csv.reader(io.StringIO(to_csv(SERIES))))
    assert rows[0] == ["time", "__name__", "a", "b", "value"]
    assert rows[1] == ["1.000", "x", "'=1+1", "", "0.5"]
    assert len(rows) == 4


def test_parquet_has_the_same_columns():
    parquet = importlib.import_module("pyarrow.parquet")
    table = parquet.read_table(io.BytesIO(to_parquet(SERIES)))
    assert table.column_names == ["time", "__name__", "a", "b", "value"]
    assert table.column("b").to_pylist() == [None, None, "z"]
    assert parquet.read_table(io.BytesIO(to_parquet([]))).num_rows == 0
    assert as_series([Sample({}, 2.0)], 5.0)[0].times.tolist() == [5.0]


def _driven(steps):
    count = 0
    while True:
        try:
            next(steps)
            count += 1
        except StopIteration as done:
            return done.value, count


def test_a_snapshot_in_slices_is_the_snapshot():
    stats = WorkerStats("worker-0", "a")
    for n in range(60):
        stats.route(f"r{n}", "s").record("GET", 200, 0.01, 0.008, 3, 5)
        stats.instance("s", f"i{n}").created += 1
    said, steps = _driven(stats.steps())
    assert steps >= 8
    assert said == stats.snapshot()
    text, pieces = _driven(json_steps({**said, "more": [1]}))
    assert json.loads(text) == json.loads(json.dumps({**said, "more": [1]}))
    assert pieces >= 12


def test_names_that_are_folded_between_slices_are_not_counted_twice():
    stats = WorkerStats("worker-0", "a", max_sets=20)
    for n in range(20):
        stats.route(f"r{n}", "s").record("GET", 200, 0.01, 0.008, 0, 0)
    steps = stats.steps()
    next(steps)
    next(steps)
    stats.keep([("new", "s")], [], [])
    stats.route("new", "s").record("GET", 200, 0.01, 0.008, 0, 0)
    said, _ = _driven(steps)
    total = sum(value for _, value in said["rows"]["headgate_http_requests_total"])
    assert total == 21

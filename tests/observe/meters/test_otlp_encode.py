"""OTLP by hand, read with the published schema."""

from __future__ import annotations

import importlib
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.observe.meters.exemplars import Exemplar
from headgate.observe.meters.families import Family, Sample
from headgate.observe.meters.otlp_encode import BUCKETS_MAX, encode
from headgate.observe.meters.registry import Registry
from headgate.observe.meters.sketch import Sketch

service = importlib.import_module("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")


def decoded(families):
    data = encode(families, {"service.name": "shop"}, start_wall=10.0, wall=20.5, version="1")
    request = service.ExportMetricsServiceRequest.FromString(data)
    (resource,) = request.resource_metrics
    assert [(a.key, a.value.string_value) for a in resource.resource.attributes] == [
        ("service.name", "shop")
    ]
    (scope,) = resource.scope_metrics
    assert (scope.scope.name, scope.scope.version) == ("headgate.observe", "1")
    # Nothing is in it that the schema does not know.
    assert request.SerializeToString(deterministic=True)
    return {metric.name: metric for metric in scope.metrics}


def named(point):
    return {a.key: a.value.string_value for a in point.attributes}


def test_counters_gauges_and_summaries():
    registry = Registry()
    registry.counter("jobs", "Jobs.", ("kind", "empty")).add(2**40, "mail", "")
    registry.gauge("memory_bytes").set(-1.5)
    registry.gauge("zero_seconds", unit="seconds").set(0)
    registry.summary("wait").observe(2.0)
    found = decoded(registry.collect())
    (jobs,) = found["jobs"].sum.data_points
    assert found["jobs"].sum.is_monotonic
    assert found["jobs"].sum.aggregation_temporality == 2
    assert (jobs.as_int, named(jobs)) == (2**40, {"kind": "mail", "empty": ""})
    assert (jobs.start_time_unix_nano, jobs.time_unix_nano) == (10 * 10**9, 20_500_000_000)
    assert found["memory_bytes"].gauge.data_points[0].as_double == -1.5
    assert found["memory_bytes"].unit == "By"
    assert found["zero_seconds"].gauge.data_points[0].WhichOneof("value") == "as_int"
    assert found["zero_seconds"].unit == "s"
    (wait,) = found["wait"].summary.data_points
    assert (wait.count, wait.sum) == (1, 2.0)
    assert wait.quantile_values[0].value == pytest.approx(2.0, rel=0.01)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e12, 1e12), max_size=60))
def test_histograms_are_exponential_and_hold_every_value(values):
    sketch = Sketch()
    for value in values:
        sketch.put(value)
    family = Family("h", "histogram", bounds=(1.0,), sketches={(): sketch})
    (point,) = decoded([family])["h"].exponential_histogram.data_points
    assert point.count == len(values)
    assert point.zero_count + sum(point.positive.bucket_counts) + sum(
        point.negative.bucket_counts
    ) == len(values)
    base = 2.0 ** (2.0**-point.scale)
    for side, sign in ((point.positive, 1), (point.negative, -1)):
        assert len(side.bucket_counts) <= BUCKETS_MAX
        mine = [sign * v for v in values if sign * v >= point.zero_threshold]
        for at, count in enumerate(side.bucket_counts):
            low, high = base ** (side.offset + at), base ** (side.offset + at + 1)
            inside = sum(low * (1 + 1e-9) < v <= high * (1 - 1e-9) for v in mine)
            near = sum(low * (1 - 1e-9) <= v <= high * (1 + 1e-9) for v in mine)
            assert inside <= count <= near


def test_exemplars_carry_their_trace():
    good, bad = Exemplar(0.5, "ab" * 16, 15.0), Exemplar(0.5, "no hex", 15.0)
    family = Family("n_total", "counter", numbers={(): 1}, exemplars={(): (good, bad)})
    (point,) = decoded([family])["n"].sum.data_points
    (shown,) = point.exemplars
    assert (shown.trace_id.hex(), shown.as_double) == ("ab" * 16, 0.5)


def test_foreign_samples_are_shown_by_their_names():
    samples = (
        Sample("f_bucket", (("le", "1"),), 3.0),
        Sample("f_bucket", (("le", "+Inf"),), 4.0),
        Sample("f_sum", (), 1.25),
    )
    found = decoded([Family("f", "histogram", samples=samples), Family("empty", "gauge")])
    assert {name: len(metric.sum.data_points) for name, metric in found.items()} == {
        "f_bucket": 2,
        "f_sum": 1,
    }


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**64, -(2**63), 1e308])
def test_numbers_of_any_size(value):
    (point,) = decoded([Family("g", "gauge", numbers={(): value})])["g"].gauge.data_points
    shown = getattr(point, point.WhichOneof("value"))
    assert shown == value or (math.isnan(value) and math.isnan(shown))


def test_text_that_is_no_utf8_goes_out_all_the_same():
    registry = Registry()
    registry.counter("n", "", ("a",)).add(1, "\ud800")
    assert named(decoded(registry.collect())["n"].sum.data_points[0]) == {"a": "?"}

"""The text formats: golden lines, promtool, and the parsers of prometheus_client."""

from __future__ import annotations

import importlib
import math
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.observe.meters import exemplars
from headgate.observe.meters.exemplars import Exemplar
from headgate.observe.meters.families import Family
from headgate.observe.meters.registry import Registry
from headgate.observe.meters.sketch import Sketch
from headgate.observe.meters.text import bound_text, number, to_openmetrics, to_text

parser = importlib.import_module("prometheus_client.parser")
om_parser = importlib.import_module("prometheus_client.openmetrics.parser")

ODD = 'a "quoted" \\ back\nslash'


def full(monkeypatch):
    registry = Registry()
    requests = registry.counter("http_requests", "Requests.", ("route", "code"))
    requests.add(3, "/a", "200")
    requests.add(0.5, ODD, "500")
    requests.labels("/a", "404").inc(1, trace_id="cd" * 16)
    registry.gauge("open_files", "Files\nthat are \\ open.").set(-3)
    registry.gauge("odd", "", ("kind",)).put(math.inf, "up")
    registry.gauge("odd", "", ("kind",)).put(-math.inf, "down")
    registry.gauge("odd", "", ("kind",)).put(math.nan, "none")
    monkeypatch.setattr(exemplars, "current", lambda: "ab" * 16)
    took = registry.timer("took_seconds", "Durations.", ("route",), unit="seconds")
    for value in (0.0001, 0.003, 0.3, 70.0):
        took.put(value, "/a")
    monkeypatch.setattr(exemplars, "current", None)
    registry.summary("wait", "Waits.").observe(2.0)
    registry.summary("idle", "Never seen.")
    return registry


def samples(families):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_the_text_format_is_read_back(monkeypatch):
    text = to_text(full(monkeypatch).collect())
    found = samples(parser.text_string_to_metric_families(text))
    assert found["http_requests_total", (("code", "200"), ("route", "/a"))] == 3
    assert found["http_requests_total", (("code", "500"), ("route", ODD))] == 0.5
    assert found["took_seconds_bucket", (("le", "0.005"), ("route", "/a"))] == 2
    assert found["took_seconds_bucket", (("le", "+Inf"), ("route", "/a"))] == 4
    assert found["took_seconds_count", (("route", "/a"),)] == 4
    assert found["wait_count", ()] == 1
    assert found["odd", (("kind", "up"),)] == math.inf
    assert math.isnan(found["odd", (("kind", "none"),)])


def test_openmetrics_is_read_back_with_exemplars_and_units(monkeypatch):
    text = to_openmetrics(full(monkeypatch).collect())
    assert text.endswith("# EOF\n")
    families = {family.name: family for family in om_parser.text_string_to_metric_families(text)}
    assert families["http_requests"].type == "counter"
    assert families["took_seconds"].unit == "seconds"
    shown = {
        sample.labels.get("le"): sample.exemplar
        for sample in families["took_seconds"].samples
        if sample.exemplar
    }
    assert shown["0.005"].labels == {"trace_id": "ab" * 16}
    assert shown["0.005"].value == 0.003
    assert set(shown) == {"0.00025", "0.005", "0.5", "+Inf"}
    (counted,) = [s for s in families["http_requests"].samples if s.exemplar]
    assert counted.exemplar.labels == {"trace_id": "cd" * 16}


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_labels_of_any_text_are_read_back(values):
    registry = Registry()
    made = registry.counter("n", "".join(values), ("a",))
    for value in values:
        made.add(1, value)
    shown = {"".join(label) for label in made.family().numbers}
    for text, read in (
        (to_text(registry.collect()), parser),
        (to_openmetrics(registry.collect()), om_parser),
    ):
        (family,) = read.text_string_to_metric_families(text)
        assert {sample.labels["a"] for sample in family.samples} == shown


def test_promtool_finds_no_error(monkeypatch):
    promtool = shutil.which("promtool")
    assert promtool is not None, "`python tools/bootstrap.py programs test` installs it"
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=to_text(full(monkeypatch).collect()),
        capture_output=True,
        text=True,
        timeout=60,
    )
    # 3 says that a linter has a taste; 1 says that it cannot be read.
    assert done.returncode in (0, 3), done.stderr
    assert "error while linting" not in done.stderr


def test_a_bucket_shows_one_exemplar_also_when_several_processes_have_one():
    sketch = Sketch()
    sketch.put(0.5)
    shown = tuple(Exemplar(0.5, digit * 32, 1.0) for digit in "ab")
    family = Family("h", "histogram", bounds=(1.0,), sketches={(): sketch}, exemplars={(): shown})
    assert to_openmetrics([family]).count(" # {") == 1


def test_nothing_is_nothing():
    assert to_text([]) == ""
    assert to_openmetrics([]) == "# EOF\n"


def test_text_that_is_no_utf8_is_shown_all_the_same():
    registry = Registry()
    registry.counter("n", "", ("a",)).add(1, "\ud800")
    to_text(registry.collect()).encode()
    to_openmetrics(registry.collect()).encode()


def test_a_histogram_of_negative_values_has_no_sum_in_openmetrics():
    registry = Registry()
    registry.histogram("change", bounds=(-1, 0, 1)).observe(-0.5)
    assert "change_sum" not in to_openmetrics(registry.collect())
    list(om_parser.text_string_to_metric_families(to_openmetrics(registry.collect())))
    assert "change_sum" in to_text(registry.collect())


@pytest.mark.parametrize(
    ("value", "text"),
    [(1, "1"), (1.0, "1"), (0.1, "0.1"), (1e300, "1e+300"), (-0.5, "-0.5"), (2**70, str(2**70))],
    ids=["int", "whole", "tenth", "large", "negative", "big"],
)
def test_numbers(value, text):
    assert number(value) == text
    assert float(text) == value


@pytest.mark.parametrize("bound", [0.005, 1, 2.5, 1e-9, 1e6, 123456789.0, 1e22])
def test_bounds_are_floats_that_are_read_back(bound):
    text = bound_text(float(bound))
    assert float(text) == bound
    assert "." in text or "e" in text

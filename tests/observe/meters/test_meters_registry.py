"""The registry: one of each name, what is included, and what fails."""

from __future__ import annotations

import pytest

from headgate.observe.meters.families import Family, merge
from headgate.observe.meters.registry import OVERFLOWED, Registry


def names(registry):
    return [family.name for family in registry.collect()]


def test_the_same_definition_is_the_same_metric():
    registry = Registry()
    one = registry.counter("jobs", "Jobs", ("kind",))
    assert registry.counter("jobs_total", "Jobs", ("kind",)) is one
    with pytest.raises(ValueError, match="already a counter jobs_total"):
        registry.counter("jobs", "Jobs", ("other",))
    with pytest.raises(ValueError, match="with other settings"):
        registry.histogram("took", bounds=(1, 2)) and registry.histogram("took", bounds=(1, 3))


def test_names_of_samples_do_not_mix():
    registry = Registry()
    registry.histogram("took")
    with pytest.raises(ValueError, match="mixed up with those of took, as took_count"):
        registry.gauge("took_count")
    registry.remove("took")
    registry.gauge("took_count")


def test_a_metric_is_found_by_name():
    registry = Registry()
    made = registry.gauge("open")
    assert registry["open"] is made
    assert "open" in registry
    with pytest.raises(KeyError, match="there are: open"):
        registry["opne"]


def test_other_registries_and_functions_are_included_until_they_end():
    registry, other = Registry(), Registry()
    other.counter("theirs").inc()
    registry.counter("ours").inc()
    end = registry.include(other)
    registry.include(lambda: [Family("made", "gauge", numbers={(): 1})])
    registry.include(lambda: [Family("ours_total", "gauge", numbers={(): 9})])
    assert names(registry) == ["ours_total", "theirs_total", "made"]
    assert registry.collect()[0].numbers == {(): 1}
    end()
    end()
    assert "theirs_total" not in names(registry)
    with pytest.raises(ValueError, match="itself"):
        registry.include(registry)
    with pytest.raises(TypeError, match="no registry"):
        registry.include(7)


def test_a_source_that_fails_is_left_out_and_logged_once(caplog):
    registry = Registry()
    registry.counter("ours").inc()
    registry.include(lambda: 1 / 0)
    assert names(registry) == ["ours_total"]
    assert names(registry) == ["ours_total"]
    assert registry.collect_failures == 2
    assert len(caplog.records) == 1


def test_what_overflowed_is_a_metric():
    registry = Registry(max_series=1)
    users = registry.counter("users", "", ("id",))
    users.add(1, "a")
    assert OVERFLOWED not in names(registry)
    users.add(1, "b")
    found = {family.name: family for family in registry.collect()}
    assert found[OVERFLOWED].numbers == {("users_total",): 1}


def test_processes_are_added_up_by_kind():
    def process(scale):
        registry = Registry()
        registry.counter("n", "", ("a",)).add(scale, "x")
        registry.gauge("high", merge="max").set(scale)
        registry.gauge("low", merge="min").set(scale)
        registry.gauge("open").set(scale)
        registry.histogram("took").observe(scale)
        registry.summary("wait").observe(scale)
        return registry.collect()

    whole: dict[str, Family] = {}
    assert merge(whole, process(1)) == 0
    assert merge(whole, process(3)) == 0
    assert merge(whole, process(10), is_over=True) == 0
    assert whole["n_total"].numbers == {("x",): 14}
    assert whole["high"].numbers == {(): 3}
    assert whole["low"].numbers == {(): 1}
    assert whole["open"].numbers == {(): 4}
    assert whole["took"].sketches[()].count == 3
    assert whole["wait"].totals[()] == (3, 14.0)
    assert whole["wait"].sketches[()].count == 2
    assert merge(whole, [Family("open", "counter", numbers={(): 1})]) == 1

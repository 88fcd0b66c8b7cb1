"""Beside prometheus_client: theirs in ours, ours in theirs, and both at once."""

from __future__ import annotations

import importlib

from headgate.observe.meters.prometheus import Exposed
from headgate.observe.meters.registry import Registry
from headgate.observe.meters.text import to_openmetrics, to_text

client = importlib.import_module("prometheus_client")
om_parser = importlib.import_module("prometheus_client.openmetrics.parser")


def theirs():
    registry = client.CollectorRegistry()
    client.Counter("jobs", "Jobs", ["kind"], registry=registry).labels("mail").inc(
        2, exemplar={"trace_id": "ab" * 16}
    )
    client.Gauge("open", "Open", registry=registry).set(3)
    client.Histogram("took", "Took", registry=registry, buckets=(1, 2)).observe(1.5)
    client.Summary("wait", "Wait", registry=registry).observe(2)
    client.Info("build", "Build", registry=registry).info({"version": "1"})
    client.Enum("state", "State", states=["on", "off"], registry=registry).state("on")
    return registry


def samples(families):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_theirs_are_shown_by_ours():
    registry = Registry()
    registry.include(theirs())
    opened = to_openmetrics(registry.collect())
    assert samples(om_parser.text_string_to_metric_families(opened)) == samples(theirs().collect())
    assert 'jobs_total{kind="mail"} 2 # {trace_id="abab' in opened
    text = to_text(registry.collect())
    assert "# TYPE build_info gauge" in text
    read = samples(client.parser.text_string_to_metric_families(text))
    assert read["took_bucket", (("le", "2.0"),)] == 1


def test_ours_are_shown_by_theirs():
    ours, registry = Registry(), client.CollectorRegistry()
    ours.counter("jobs", "Jobs", ("kind",)).add(2, "mail")
    ours.histogram("took", bounds=(1, 2)).observe(1.5)
    ours.summary("wait", quantiles=(0.5,)).observe(2)
    ours.summary("idle", quantiles=(0.5,))
    registry.register(Exposed(ours))
    text = client.generate_latest(registry).decode()
    found = samples(client.parser.text_string_to_metric_families(text))
    assert found["jobs_total", (("kind", "mail"),)] == 2
    assert found["took_bucket", (("le", "2.0"),)] == 1
    assert found["took_count", ()] == 1
    assert found["wait_sum", ()] == 2
    from prometheus_client.openmetrics.exposition import generate_latest

    assert generate_latest(registry).endswith(b"# EOF\n")


def test_both_at_once_do_not_go_round_in_a_circle():
    ours, registry = Registry(), theirs()
    ours.counter("mine").inc()
    ours.include(registry)
    registry.register(Exposed(ours))
    assert to_text(ours.collect()).count("jobs_total{") == 1
    assert client.generate_latest(registry).decode().count("mine_total 1") == 1
    assert client.generate_latest(registry).decode().count('jobs_total{kind="mail"} 2') == 1

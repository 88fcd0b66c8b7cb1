"""Files of metrics: what is written is read back, and what is spoilt is known for it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headgate.observe.meters import exemplars
from headgate.observe.meters.families import Family, Sample
from headgate.observe.meters.registry import Registry
from headgate.observe.meters.shard_file import Heads, ShardSpoilt, pack, unpack


def full(monkeypatch):
    registry = Registry()
    registry.counter("n", "Help\n", ("a", "b")).add(2**40, 'x"', "\N{SNOWMAN}")
    registry.gauge("open", merge="max").set(-1.5)
    monkeypatch.setattr(exemplars, "current", lambda: "ab" * 16)
    took = registry.histogram("took", "", ("a",), bounds=(1, 2))
    for value in (0, 1, 1e9, -5):
        took.put(value, "x")
    monkeypatch.setattr(exemplars, "current", None)
    registry.summary("wait").observe(3)
    foreign = Family("f", "gauge", samples=(Sample("f", (("a", "b"),), 7.0),))
    return [*registry.collect(), foreign]


def test_what_is_written_is_read_back(monkeypatch):
    families = full(monkeypatch)
    heads = Heads()
    kept: dict[str, Any] = {}
    data = pack(families, kept)
    assert unpack(data, heads) == families
    assert pack(families, kept) == data
    assert unpack(data, heads) == families


def test_a_head_is_written_anew_when_series_come():
    registry = Registry()
    kept: dict[str, Any] = {}
    jobs = registry.counter("jobs", "", ("a",))
    for name in ("x", "y", "z"):
        jobs.add(1, name)
        assert unpack(pack(registry.collect(), kept), Heads()) == registry.collect()


def test_heads_are_bounded():
    heads = Heads(most=2)
    for name in "abcd":
        unpack(pack([Family(name, "gauge", numbers={(): 1})], {}), heads)
    assert len(heads._kept) == 2


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_spoilt_bytes_are_refused(data):
    whole = pack([Family("n", "counter", "H", ("a",), numbers={("x",): 1.0, ("y",): 2.0})], {})
    how = data.draw(st.sampled_from(["cut", "flip", "more", "noise"]))
    if how == "cut":
        spoilt = whole[: data.draw(st.integers(0, len(whole) - 1))]
    elif how == "flip":
        at = data.draw(st.integers(0, len(whole) - 1))
        spoilt = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    elif how == "more":
        spoilt = whole + data.draw(st.binary(min_size=1, max_size=9))
    else:
        spoilt = data.draw(st.binary(max_size=200))
    with pytest.raises(ShardSpoilt):
        unpack(spoilt, Heads())

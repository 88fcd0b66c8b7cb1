"""Counting: bounded, right within a bucket, and in the words of a cache's events."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.cache.events import CacheEvent
from headgate.cache.stats import (
    BOUNDS_S,
    FAMILIES_MAX,
    OTHER,
    TAGS_MAX,
    Histogram,
    Stats,
    family_of,
)


@given(times=st.lists(st.floats(0, 100), min_size=1), share=st.floats(0.01, 1))
def test_a_quantile_is_right_within_its_bucket(times, share):
    histogram = Histogram()
    for each in times:
        histogram.add(each)
    ranked = sorted(times)
    exact = next(t for at, t in enumerate(ranked, 1) if at >= share * len(ranked))
    got = histogram.quantile(share)
    assert exact <= got
    assert got <= max(exact * 2, BOUNDS_S[0]) or got == max(times)
    assert histogram.count == len(times) == sum(histogram.buckets)


def test_an_empty_histogram_says_nothing():
    assert Histogram().times().p99_s == 0.0


@pytest.mark.parametrize(
    "key,family",
    [
        ("user:42", "user"),
        ("user:{id}:posts", "user"),
        ("report{id}", "report"),
        ("home", "home"),
        (":42", OTHER),
        ("", OTHER),
        ("f" * 64, OTHER),
        ("x" * 5000 + ":1", OTHER),
    ],
    ids=["colon", "template", "brace", "plain", "no-name", "empty", "digest", "huge"],
)
def test_a_family_is_what_stands_before_the_first_variable(key, family):
    assert family_of(key) == family


def test_families_and_tags_are_bounded():
    stats = Stats()
    for at in range(1000):
        stats.family_of_key(f"f{at}:1").hits += 1
        stats.tag(f"t{at}:1").kept += 1
        stats.layer(f"l{at}").hits += 1
    said = stats.snapshot()
    assert len(said["families"]) == FAMILIES_MAX + 1
    assert len(said["tags"]) == TAGS_MAX + 1
    assert len(said["layers"]) == 9
    assert said["families"][OTHER]["hits"] == 1000 - FAMILIES_MAX
    assert sum(each["hits"] for each in said["families"].values()) == 1000


def test_events_are_counted():
    stats = Stats()
    for event in [
        CacheEvent("hit", "user:1", "user", "memory"),
        CacheEvent("hit", "user:1", layer="memory"),
        CacheEvent("stale", "user:1", "user", "memory"),
        CacheEvent("miss", "user:2", "user"),
        CacheEvent("layer_miss", "user:2", layer="redis", took_s=0.001),
        CacheEvent("load", "user:2", "user", took_s=0.02, tags=("user:2", "all")),
        CacheEvent("load_failed", "user:3", "user"),
        CacheEvent("invalidated", "", tags=("user:2",)),
        CacheEvent("dropped", "user:2", "user", tags=("user:2",)),
        CacheEvent("layer_away", layer="redis"),
        CacheEvent("gap"),
    ]:
        stats.hear(event)
    said = stats.snapshot()
    user = said["families"]["user"]
    assert (user["hits"], user["stale"], user["misses"], user["loads"]) == (2, 1, 1, 1)
    assert user["load_failures"] == 1 and user["hit_ratio"] == 0.75
    assert user["max_s"] == 0.02
    assert said["tags"] == {
        "user": {"kept": 1, "invalidations": 1, "dropped": 1},
        "all": {"kept": 1, "invalidations": 0, "dropped": 0},
    }
    assert said["layers"]["redis"]["misses"] == said["layers"]["redis"]["failures"] == 1
    assert said["layers"]["memory"]["hits"] == 3
    json.dumps(said, allow_nan=False)


def test_rows_are_counters_and_cumulative_buckets():
    stats = Stats()
    family = stats.family("user")
    family.hits += 3
    family.load_times.add(0.5)
    stats.kept(family, 100, ["user:1"])
    rows = {(row.name, row.labels): row.value for row in stats.rows()}
    assert rows["family_hits", (("family", "user"),)] == 3
    assert rows["family_bytes_in", (("family", "user"),)] == 100
    assert rows["tag_kept", (("tag", "user"),)] == 1
    buckets = [row.value for row in stats.rows() if row.name == "load_seconds_bucket"]
    assert buckets == sorted(buckets) and buckets[-1] == 1
    assert rows["load_seconds_sum", (("family", "user"),)] == 0.5

"""Counting: bounded, right within a bucket, and in the words of a cache's events."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.cache import Cache
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
    json.dumps(said, allow_nan=False)


def test_rows_are_counters_and_cumulative_buckets():
    stats = Stats()
    family = stats.family("user")
    family.hits += 3
    family.load_times.add(0.5)
    stats.count("set", "user:1", tags=("user:1",))
    rows = {(row.name, row.labels): row.value for row in stats.rows()}
    assert rows["family_hits", (("family", "user"),)] == 3
    assert rows["family_sets", (("family", "user"),)] == 1
    assert rows["tag_kept", (("tag", "user"),)] == 1
    buckets = [row.value for row in stats.rows() if row.name == "load_seconds_bucket"]
    assert buckets == sorted(buckets) and buckets[-1] == 1
    assert rows["load_seconds_sum", (("family", "user"),)] == 0.5


def run_a_little(cache):
    @cache.cached("user:{n}", tags=["users"])
    async def user(n):
        if n == 9:
            raise LookupError
        return n

    async def main():
        for _ in range(3):
            for n in range(2):
                await user(n)
                await cache.get(f"plain:{n}")
        await cache.set("plain:0", "x" * 1000, tags=["users"])
        await cache.get("plain:0")
        await cache.namespace("eu").set("plain:1", 1)
        with pytest.raises(LookupError):
            await user(9)
        await cache.invalidate(tags=["users"])

    asyncio.run(main())


def test_a_cache_counts_by_itself_for_layers_families_and_tags():
    cache = Cache()
    run_a_little(cache)
    said = cache.stats()
    user, plain = said["families"]["user:{n}"], said["families"]["plain"]
    assert (user["hits"], user["misses"], user["loads"], user["load_failures"]) == (4, 3, 2, 1)
    assert (plain["hits"], plain["misses"], plain["sets"]) == (1, 6, 2)
    assert 900 < plain["bytes"] < 5000
    assert said["tags"]["users"] == {"kept": 3, "invalidations": 1, "dropped": 0}
    assert said["layers"]["memory"]["puts"] == 4
    assert "eu" not in said["families"]
    assert cache.advice() is not None
    json.dumps(said, allow_nan=False)


def test_what_is_evicted_is_counted_for_its_family():
    async def main():
        cache = Cache(items=10)
        for n in range(100):
            await cache.set(f"f:{n}", n)
        return cache

    cache = asyncio.run(main())
    evicted = cache.stats()["families"]["f"]["evictions"]
    assert evicted == cache.stats()["layers"]["memory"]["evictions"] > 50


def test_metrics_are_text_that_a_scraper_reads():
    cache = Cache()
    run_a_little(cache)
    asyncio.run(cache.set('odd"\n:1', 1))
    text = cache.prometheus()
    assert 'headgate_cache_family_hits_total{family="user:{n}"} 4' in text
    assert 'headgate_cache_load_seconds_bucket{family="user:{n}",le="+Inf"} 2' in text
    assert "# TYPE headgate_cache_load_seconds histogram" in text
    assert "# TYPE headgate_cache_layer_items gauge" in text
    assert 'family="odd\\"\\n"' in text
    typed = [line.split()[2] for line in text.splitlines() if line.startswith("#")]
    assert len(typed) == len(set(typed))
    for line in text.splitlines():
        assert line.startswith(("#", "headgate_cache_")), line
        assert line.startswith("#") or float(line.rpartition(" ")[2]) >= 0


def test_progress_of_a_warming_is_in_the_snapshot():
    cache, seen = Cache(), []

    async def load(key):
        seen.append(cache.snapshot().warming)
        return key

    asyncio.run(cache.warm(["a", "b"], load, rate=None, concurrency=1))
    assert [(one.done, one.total) for (one,) in seen] == [(0, 2), (1, 2)]
    assert cache.snapshot().warming == ()

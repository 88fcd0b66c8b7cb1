"""The responses in memory: what is found, what is struck, what goes when it is full."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.cache.barriers import Barriers
from headgate.cache.http.stored import Stored
from headgate.cache.invalidation import Invalidation
from headgate.gateway.caching.store import ResponseStore
from tests.gateway.caching.store_rig import MB, keep, stored


def test_what_was_put_is_found_and_its_uses_are_counted() -> None:
    store = ResponseStore(MB)
    kept = keep(store, "a")
    assert kept is not None
    assert kept.is_live
    assert store.find("a", ()) is kept
    assert store.find("a", ()) is kept
    assert kept.hits == 2
    assert store.find("b", ()) is None


def test_a_new_response_replaces_the_old_one() -> None:
    store = ResponseStore(MB)
    old, new = keep(store, "a", "t"), keep(store, "a", "t")
    assert store.find("a", ()) is new
    assert old is not None
    assert not old.is_live
    assert len(store) == 1
    assert store.invalidate(Invalidation(tags=("t",), stamp=1)) == 1


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(Invalidation(tags=("red",)), id="tag"),
        pytest.param(Invalidation(urls=("https://h/a",)), id="url"),
        pytest.param(Invalidation(urls=("https://h/a*",)), id="prefix"),
        pytest.param(Invalidation(urls=("*/a",)), id="pattern"),
    ],
)
def test_what_is_named_is_struck_and_the_rest_stays(asked: Invalidation) -> None:
    store = ResponseStore(MB)
    gone, stays = keep(store, "a", "red", "x"), keep(store, "b", "blue", "x")
    assert gone is not None
    assert store.invalidate(asked.at(7)) == 1
    assert not gone.is_live
    assert store.find("a", ()) is None
    assert store.find("b", ()) is stays
    assert store.snapshot().entries == 1
    assert store.snapshot().struck == 1


def test_a_path_is_struck_at_any_host_and_only_there() -> None:
    store = ResponseStore(MB)
    keep(store, "a")
    store.put("2", "http://other:8080/a", stored(), b"", (), (), 0)
    store.put("3", "http://other:8080/x/a", stored(), b"", (), (), 0)
    assert store.invalidate(Invalidation(urls=("/a",), stamp=1)) == 2
    assert store.find("3", ()) is not None


def test_everything_is_struck_but_not_by_what_means_objects() -> None:
    store = ResponseStore(MB)
    keep(store, "a")
    assert store.invalidate(Invalidation(everything="objects", stamp=1)) == 0
    assert store.invalidate(Invalidation(everything="responses", stamp=2)) == 1
    assert len(store) == 0


def test_a_soft_invalidation_makes_stale_and_counts_each_once() -> None:
    store = ResponseStore(MB)
    kept = keep(store, "a", "t")
    asked = Invalidation(tags=("t",), soft=True, stamp=5)
    assert store.invalidate(asked) == 1
    assert store.invalidate(asked.at(6)) == 0
    assert store.find("a", ()) is kept
    assert kept is not None
    assert kept.is_soft_struck
    assert store.snapshot().struck_soft == 1


def test_what_was_begun_before_an_invalidation_is_not_kept() -> None:
    store = ResponseStore(MB)
    begun = store.barriers.stamp
    store.invalidate(Invalidation(tags=("t",), stamp=begun + 1))
    assert keep(store, "a", "t", stamp=begun) is None
    assert keep(store, "a", "other", stamp=begun) is not None
    assert keep(store, "b", "t", stamp=store.barriers.stamp) is not None


def test_an_invalidation_without_a_stamp_strikes_what_is_here_and_under_way() -> None:
    store = ResponseStore(MB)
    keep(store, "a", "t")
    assert store.invalidate(Invalidation(tags=("t",))) == 1
    assert keep(store, "a", "t", stamp=0) is None


def test_barriers_that_another_raised_are_seen_at_the_next_use() -> None:
    barriers = Barriers("responses")
    store = ResponseStore(MB, barriers)
    kept, soft = keep(store, "a", "t"), keep(store, "b", "u")
    barriers.raise_for(Invalidation(tags=("t",), stamp=3))
    barriers.raise_for(Invalidation(tags=("u",), soft=True, stamp=4))
    assert store.find("a", ()) is None
    assert kept is not None
    assert not kept.is_live
    assert store.find("b", ()) is soft
    assert soft is not None
    assert soft.is_soft_struck


def test_a_struck_variant_does_not_hide_another_that_fits() -> None:
    store = ResponseStore(MB)
    fields = ((b"x-a", b"1"),)
    keep(store, "a", "t", fields=fields, names=(b"x-a",))
    plain = keep(store, "a", fields=((b"x-a", b"2"),))
    store.barriers.raise_for(Invalidation(tags=("t",), stamp=3))
    assert store.find("a", fields) is plain


def test_who_stops_varying_is_heard() -> None:
    store = ResponseStore(MB)
    fields = ((b"x-a", b"1"),)
    keep(store, "a", fields=fields, names=(b"x-a",))
    plain = keep(store, "a", fields=fields)
    assert store.find("a", fields) is plain
    assert store.find("a", ()) is plain
    assert len(store) == 1


def test_variants_of_one_key_stay_within_their_share() -> None:
    store = ResponseStore(MB)
    for n in range(40):
        fields = ((b"x", b"%d" % n),)
        assert keep(store, "a", body=bytes(10_000), fields=fields, names=(b"x",)) is not None
    snapshot = store.snapshot()
    assert snapshot.bytes <= MB // 8
    assert 1 < snapshot.entries <= 12
    assert snapshot.keys == 1


def test_a_hostile_vary_is_not_kept_or_stays_bounded() -> None:
    store = ResponseStore(MB)
    names = tuple(sorted(b"x-%d" % n for n in range(1000)))
    assert keep(store, "a", names=names) is None
    long = ((b"cookie", b"c" * 400_000),)
    assert keep(store, "a", fields=long, names=(b"cookie",)) is None
    assert store.snapshot().bytes == 0
    assert store.snapshot().declined == 2


def test_memory_stays_within_the_bound_and_what_went_is_nowhere() -> None:
    store = ResponseStore(MB)
    kept = [keep(store, f"{n}", "all", f"t{n}", body=bytes(5000)) for n in range(2000)]
    snapshot = store.snapshot()
    assert snapshot.bytes <= MB
    alive = [one for one in kept if one is not None and one.is_live]
    assert len(alive) == snapshot.entries == len(store) > 50
    assert snapshot.evictions == 2000 - len(alive)
    assert store.invalidate(Invalidation(tags=("all",), stamp=1)) == len(alive)
    assert store.snapshot().bytes == 0


def test_a_response_larger_than_its_share_is_declined_and_the_old_one_stays() -> None:
    store = ResponseStore(MB)
    old = keep(store, "a")
    assert keep(store, "a", body=bytes(MB // 2)) is None
    assert store.find("a", ()) is old


def test_what_is_counted_is_what_it_takes() -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        store = ResponseStore(64 * MB)
        for n in range(3000):
            headers = tuple((b"x-header-%d" % i, b"value %d of %d" % (i, n)) for i in range(8))
            about = Stored(
                200,
                b"OK",
                headers,
                received_at=0.0,
                initial_age_s=0.0,
                fresh_s=60.0,
                tags=("all", f"tag{n}"),
                vary=((b"accept-language", b"language %d" % n),),
            )
            fields = ((b"accept-language", b"language %d" % n),)
            store.put(f"key {n}", f"https://host/{n}", about, bytes(100), (), fields, 0)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken <= store.snapshot().bytes <= 3 * taken


def test_a_purge_of_very_many_gives_the_loop_its_turns() -> None:
    async def main() -> None:
        store = ResponseStore(256 * MB)
        for n in range(20_000):
            keep(store, f"{n}", "all")
        turns = 0

        async def tick() -> None:
            nonlocal turns
            while len(store):
                turns += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        assert await store.purge(Invalidation(urls=("https://h/*",), stamp=1)) == 20_000
        await ticking
        assert turns >= 20

    asyncio.run(main())


def test_what_comes_in_during_a_purge_stays_and_what_leaves_harms_nothing() -> None:
    store = ResponseStore(256 * MB)
    old = [keep(store, f"{n}") for n in range(5000)]
    struck = store.invalidate(Invalidation(urls=("https://h/*",), stamp=1))
    assert 0 < struck < 5000
    # In the midst of it: some leave otherwise, some come.
    for n in range(0, 3000, 3):
        keep(store, f"{n}", stamp=1)
    new = [keep(store, f"n{n}", stamp=1) for n in range(100)]
    for _ in range(100):
        store.sweep(1000.0)
    assert not any(one is not None and one.is_live for one in old)
    assert all(one is not None and one.is_live for one in new)
    assert len(store) == 1100


def test_many_purges_that_need_a_walk_stay_bounded_and_all_hold() -> None:
    store = ResponseStore(256 * MB)
    for n in range(3000):
        keep(store, f"{n}")
    for n in range(300):
        store.invalidate(Invalidation(urls=(f"https://h/{n}x*", f"https://h/{n}"), stamp=n + 1))
    assert len(store._walks) <= 100
    assert all(store.find(f"{n}", ()) is None for n in range(300))
    assert store.find("300", ()) is not None


def test_sweep_lets_go_of_what_nobody_can_use() -> None:
    store = ResponseStore(MB)
    over = keep(store, "over", etag=None, may_be_stale=False)
    kept = keep(store, "kept")
    assert store.sweep(1030.0) == 0
    assert store.sweep(1061.0) == 1
    assert over is not None
    assert not over.is_live
    assert store.find("kept", ()) is kept
    assert store.sweep(1060.0 + 3601.0) == 1
    assert len(store) == 0


def test_a_response_from_the_future_goes_when_the_clock_was_set_back() -> None:
    store = ResponseStore(MB)
    keep(store, "a")
    assert store.sweep(1000.0 - 59.0) == 0
    assert store.sweep(1000.0 - 3600.0) == 1


def test_inspect_tells_of_each_variant_but_not_what_users_said() -> None:
    store = ResponseStore(MB)
    fields = ((b"cookie", b"secret"),)
    keep(store, "a", "t", fields=fields, names=(b"cookie",))
    (told,) = store.inspect("https://h/a", 1010.0)
    assert told["vary"] == ["cookie"]
    assert told["tags"] == ["t"]
    assert told["age_s"] == 10.0
    assert told["is_fresh"]
    assert "secret" not in str(told)
    assert store.inspect("https://h/b", 0.0) == []


def test_a_smaller_bound_holds_at_once() -> None:
    store = ResponseStore(8 * MB)
    for n in range(500):
        keep(store, f"{n}", body=bytes(10_000))
    store.resize(MB)
    assert store.snapshot().bytes <= MB
    assert store.snapshot().entries == len(store)


STEPS = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 5), st.integers(0, 3)),
    st.tuples(st.just("tag"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("url"), st.integers(0, 5), st.booleans()),
    st.tuples(st.just("glob"), st.integers(0, 5), st.booleans()),
    st.tuples(st.just("late"), st.integers(0, 5), st.integers(0, 3)),
    st.tuples(st.just("sweep"), st.just(0), st.just(0)),
    st.tuples(st.just("refresh"), st.integers(0, 5), st.integers(0, 3)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=60))
def test_nothing_struck_is_ever_found_and_the_sums_hold(steps: list[tuple[str, int, Any]]) -> None:
    store = ResponseStore(MB)
    clock = 0
    struck: dict[str, int] = {}
    for what, which, how in steps:
        if what in ("put", "late"):
            stamp = clock if what == "put" else max(clock - 2, 0)
            fields = ((b"x", b"%d" % how),)
            names = (b"x",) if how else ()
            keep(store, f"{which}", f"t{how}", stamp=stamp, fields=fields, names=names)
        elif what == "refresh":
            kept = store.find(f"{which}", ((b"x", b"%d" % how),))
            if kept is not None:
                store.refresh(kept, kept.stored, stamp=clock)
        elif what == "sweep":
            store.sweep(1000.0)
        else:
            clock += 1
            name = {"tag": f"t{which}", "url": f"https://h/{which}", "glob": f"*/{which}"}[what]
            tags, urls = ((name,), ()) if what == "tag" else ((), (name,))
            store.invalidate(Invalidation(tags=tags, urls=urls, soft=how, stamp=clock))
            if not how:
                struck[name] = clock
        for key in range(6):
            for said in range(4):
                kept = store.find(f"{key}", ((b"x", b"%d" % said),))
                if kept is not None:
                    names_of = (*kept.stored.tags, kept.url, f"*/{key}")
                    assert all(kept.stamp >= struck.get(name, 0) for name in names_of)
                    assert kept.is_live
        alive = list(store._roll.walk())
        assert store._shelf.bytes == sum(kept.size for kept in alive)
        assert [store._roll._seats[kept.seat] for kept in alive] == alive
    store.clear()
    assert store.snapshot().bytes == len(store._roll._urls) == len(store._roll._tags) == 0

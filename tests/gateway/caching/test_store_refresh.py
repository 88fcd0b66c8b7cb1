"""What a 304 does to a response, marks of what cannot be kept, and the layer below."""

from __future__ import annotations

import asyncio

from headgate.cache.http.vary import normal
from headgate.cache.invalidation import Invalidation
from headgate.gateway.caching.store import ResponseStore
from headgate.gateway.caching.store_passes import PASSES_MAX
from tests.gateway.caching.store_rig import MB, Below, keep, stored


def test_a_confirmed_response_takes_the_place_of_the_old_one() -> None:
    store = ResponseStore(MB)
    kept = keep(store, "a", "t")
    assert kept is not None
    store.invalidate(Invalidation(tags=("t",), soft=True, stamp=4))
    again = store.refresh(kept, stored(("t",), at=2000.0), stamp=4)
    assert store.find("a", ()) is again
    assert again.is_live
    assert not again.is_soft_struck
    assert again.body == b"body"
    assert not kept.is_live
    assert len(store) == 1


def test_without_a_newer_stamp_a_confirmed_response_stays_struck() -> None:
    store = ResponseStore(MB)
    kept = keep(store, "a", "t")
    assert kept is not None
    store.invalidate(Invalidation(tags=("t",), soft=True, stamp=4))
    assert store.refresh(kept, stored(("t",))).is_soft_struck


def test_a_confirmation_that_was_overtaken_by_a_purge_is_used_once() -> None:
    store = ResponseStore(MB)
    kept = keep(store, "a", "t")
    assert kept is not None
    store.invalidate(Invalidation(tags=("t",), stamp=4))
    again = store.refresh(kept, stored(("t",)), stamp=0)
    assert not again.is_live
    assert store.find("a", ()) is None


def test_a_confirmation_does_not_displace_a_newer_answer() -> None:
    store = ResponseStore(MB)
    kept, newer = keep(store, "a"), keep(store, "a", body=b"newer")
    assert kept is not None
    assert not store.refresh(kept, stored(), stamp=0).is_live
    assert store.find("a", ()) is newer


def test_a_confirmation_that_forbids_to_keep_takes_it_out() -> None:
    below = Below()
    store = ResponseStore(MB, lower=below)
    kept = keep(store, "a")
    assert kept is not None
    assert not store.refresh(kept, stored(is_storable=False), stamp=0).is_live
    assert store.find("a", ()) is None
    assert below.removed == [kept]


def test_a_confirmation_that_varies_otherwise_leaves_one_response() -> None:
    store = ResponseStore(MB)
    kept = keep(store, "a")
    assert kept is not None
    fields = ((b"x", b"1"),)
    again = store.refresh(kept, stored(vary=normal((b"x",), fields)), stamp=0)
    assert store.find("a", fields) is again
    assert store.find("a", ()) is None
    assert len(store) == 1


def test_marks_of_what_cannot_be_kept_end_and_are_bounded() -> None:
    store = ResponseStore(MB)
    store.mark_pass("a", 10.0)
    assert store.passes("a", 9.0)
    assert not store.passes("a", 10.0)
    assert not store.passes("a", 9.0)
    for n in range(PASSES_MAX + 5):
        store.mark_pass(f"{n}", 10.0)
    assert store.snapshot().passes == PASSES_MAX
    assert not store.passes("0", 1.0)
    for n in range(1000):
        store.mark_pass(f"{n}" * 20_000, 10.0)
    assert sum(map(len, store._passes._until)) <= 4 * MB


def test_a_key_that_could_be_kept_is_marked_no_longer() -> None:
    store = ResponseStore(MB)
    store.mark_pass("a", 10.0)
    keep(store, "a")
    assert not store.passes("a", 1.0)


def test_a_lower_layer_is_told_of_everything_and_asked_once() -> None:
    async def main() -> None:
        below = Below()
        store = ResponseStore(MB, lower=below)
        kept = keep(store, "a", "t")
        assert below.held == {"a": kept}
        store.clear()
        assert store.find("a", ()) is None
        found = await store.fetch("a", ())
        assert found is kept
        assert store.find("a", ()) is kept
        assert await store.purge(Invalidation(tags=("t",), stamp=4)) == 1
        assert below.said == [Invalidation(tags=("t",), stamp=4)]
        assert below.settled == 1
        # It has not come round to it yet: what it has is not taken.
        assert await store.fetch("a", ()) is None

    asyncio.run(main())


def test_what_is_forgotten_may_come_again_with_the_same_stamp() -> None:
    below = Below()
    store = ResponseStore(MB, lower=below)
    old = keep(store, "a")
    assert store.forget(("https://h/a", "https://h/b")) == 1
    assert old is not None
    assert not old.is_live
    assert below.held == {}
    assert keep(store, "a") is not None


def test_what_the_lower_layer_has_does_not_displace_what_came_meanwhile() -> None:
    store = ResponseStore(MB)
    old = keep(store, "a")
    new = keep(store, "a")
    assert old is not None
    assert store.adopt(old) is new

"""Uses of sampled keys are noted and read later, and nothing is lost or grows for that."""

from __future__ import annotations

import threading

from headgate.cache.entry import Entry
from headgate.cache.ghost import NOTES_MOST, Ghost
from headgate.cache.memory import Memory


def sampled_in(ghost: Ghost) -> str:
    return next(key for number in range(10_000) if ghost.is_sampled(key := f"k{number}"))


def test_hits_alone_never_leave_more_than_a_batch_of_notes() -> None:
    memory = Memory(100)
    ghost = memory._ghost
    assert ghost is not None
    key = sampled_in(ghost)
    memory.put(key, Entry("value", 0.0))
    for _ in range(3 * NOTES_MOST + 5):
        assert memory.get(key, 1.0) is not None
        assert len(ghost.notes) < NOTES_MOST


def test_what_was_noted_is_read_before_the_key_is_forgotten() -> None:
    memory = Memory(100)
    ghost = memory._ghost
    assert ghost is not None
    key = sampled_in(ghost)
    memory.put(key, Entry("value", 0.0))
    for _ in range(3):
        memory.get(key, 1.0)
    assert len(ghost.notes) == 3
    memory.delete(key)
    assert not ghost.notes
    assert [shelf.hits for shelf in ghost._shelves] == [3] * len(ghost._shelves)
    assert [len(shelf) for shelf in ghost._shelves] == [0] * len(ghost._shelves)


def test_misses_are_noted_too() -> None:
    memory = Memory(100)
    ghost = memory._ghost
    assert ghost is not None
    key = sampled_in(ghost)
    for _ in range(NOTES_MOST):
        assert memory.get(key, 1.0) is None
    assert not ghost.notes
    assert [shelf.misses for shelf in ghost._shelves] == [NOTES_MOST] * len(ghost._shelves)


def test_no_note_is_lost_between_threads() -> None:
    memory = Memory(100)
    ghost = memory._ghost
    assert ghost is not None
    key = sampled_in(ghost)
    memory.put(key, Entry("value", 0.0))

    def ask() -> None:
        for _ in range(2000):
            memory.get(key, 1.0)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with memory._lock:
        ghost.read_notes()
    assert ghost._seen == 8000
    assert ghost._shelves[0].hits == 8000

from __future__ import annotations

import threading

from headgate.cache.stamps import LocalStamps


def test_stamps_grow_while_the_clock_stands():
    stamps = LocalStamps(lambda: 5.0)
    assert [stamps.next() for _ in range(3)] == [5_000_000, 5_000_001, 5_000_002]


def test_stamps_grow_while_the_clock_goes_back():
    at = [100.0]
    stamps = LocalStamps(lambda: at[0])
    first = stamps.next()
    at[0] = 1.0
    assert stamps.next() == first + 1


def test_a_stamp_is_above_what_is_known_already():
    stamps = LocalStamps(lambda: 1.0)
    assert stamps.next(at_least=9_000_000) == 9_000_001
    assert stamps.next() == 9_000_002


def test_no_two_threads_get_the_same_stamp():
    stamps = LocalStamps(lambda: 1.0)
    found: list[int] = []

    def take():
        mine = [stamps.next() for _ in range(2000)]
        found.extend(mine)
        assert mine == sorted(mine)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(20)
    assert len(set(found)) == 8000

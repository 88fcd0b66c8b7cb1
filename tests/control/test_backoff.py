from __future__ import annotations

from headgate.control.backoff import LONGEST_WAIT_S, STABLE_S, Backoff


def crash_loop(count: int, life_s: float = 0.1) -> list[float]:
    backoff, now, waits = Backoff(), 100.0, []
    for _ in range(count):
        ready_at, now = now, now + life_s
        waits.append(backoff.crashed(now, ready_at))
        now += waits[-1]
    return waits


def test_the_first_crash_is_answered_at_once():
    assert crash_loop(1) == [0.0]


def test_a_loop_waits_longer_each_time_up_to_half_a_minute():
    waits = crash_loop(14)
    assert waits[:5] == [0.0, 0.1, 0.2, 0.4, 0.8]
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_WAIT_S


def test_a_stable_life_forgives():
    assert crash_loop(20, STABLE_S + 1) == [0.0] * 20


def test_a_process_that_never_became_ready_is_not_stable_however_old():
    backoff = Backoff()
    assert backoff.crashed(1000.0, None) == 0.0
    assert backoff.crashed(2000.0, None) == 0.1


def test_a_new_configuration_forgives():
    backoff = Backoff()
    for now in range(5):
        backoff.crashed(float(now), float(now))
    backoff.forgive()
    assert backoff.crashed(6.0, 6.0) == 0.0


def test_the_snapshot_tells_a_loop_from_a_mishap():
    backoff = Backoff()
    backoff.crashed(0.0, 0.0)
    assert not backoff.snapshot(1.0).is_looping
    for _ in range(3):
        backoff.crashed(1.0, 1.0)
    assert backoff.snapshot(1.0).is_looping
    assert not backoff.snapshot(20.0, ready_at=2.0).is_looping
    seen = backoff.snapshot(60.5, ready_at=2.0)
    assert (seen.crashes, seen.crashes_last_minute) == (4, 3)

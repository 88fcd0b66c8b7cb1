"""Every line ends in one count, whatever the sink does, and nobody waits for it."""

from __future__ import annotations

import time

import pytest

from headgate.observe.logs.pump import Sent
from tests.observe.logs.conftest import Noted, lines, wait_until

pytestmark = pytest.mark.integration


def counts(pump):
    stats = pump.snapshot()
    return stats.written, stats.dropped, stats.failed


def test_lines_are_written_in_order(pumped):
    carrier = Noted()
    pump = pumped(carrier)
    for line in lines(*map(str, range(500))):
        pump.put(line)
    assert pump.flush(20)
    assert carrier.taken == [line.data for line in lines(*map(str, range(500)))]
    assert counts(pump) == (500, 0, 0)
    assert pump.snapshot().queued_bytes == 0


def test_a_slow_sink_costs_a_bounded_queue_and_the_newest_lines(pumped):
    carrier = Noted()
    carrier.gate.clear()
    pump = pumped(carrier, queue_bytes=10_000)
    many = lines(*(f"{number:050}" for number in range(1000)))
    for line in many:
        pump.put(line)
    assert pump.snapshot().queued_bytes <= 10_000
    dropped = pump.snapshot().dropped
    assert dropped > 900
    carrier.gate.set()
    assert pump.flush(20)
    assert carrier.taken == [line.data for line in many[: 1000 - dropped]]
    assert counts(pump) == (1000 - dropped, dropped, 0)


def test_a_sink_that_is_away_is_tried_again(pumped, capfd):
    carrier = Noted(ConnectionRefusedError(111, "refused"), OSError("worse"))
    pump = pumped(carrier)
    for line in lines("a", "b"):
        pump.put(line)
    assert pump.flush(20)
    assert counts(pump) == (2, 0, 0)
    assert pump.snapshot().retries >= 2
    assert "log sink noted: refused; lines wait" in capfd.readouterr().err


def test_part_of_a_batch_is_tried_again(pumped):
    carrier = Noted(lambda batch: Sent(1, 1, batch[2:], why="busy"))
    pump = pumped(carrier, linger_s=0.2)
    for line in lines("a", "b", "c", "d"):
        pump.put(line)
    wait_until(lambda: sum(counts(pump)) == 4)
    assert counts(pump) == (3, 0, 1)


def test_a_fault_in_a_carrier_loses_its_batch_and_not_the_thread(pumped):
    carrier = Noted(ZeroDivisionError())
    pump = pumped(carrier)
    pump.put(lines("a")[0])
    wait_until(lambda: counts(pump) == (0, 0, 1))
    pump.put(lines("b")[0])
    wait_until(lambda: counts(pump) == (1, 0, 1))


def test_the_end_comes_in_time_and_counts_what_was_not_written(pumped):
    carrier = Noted(*[ConnectionError("away")] * 1000)
    pump = pumped(carrier)
    for line in lines("a", "b", "c"):
        pump.put(line)
    wait_until(lambda: carrier.batches)
    began = time.monotonic()
    assert pump.close(0.5)
    assert time.monotonic() - began < 15
    pump.put(lines("late")[0])
    assert counts(pump) == (0, 4, 0)


def test_reopening_comes_after_what_was_queued(pumped):
    carrier = Noted()
    pump = pumped(carrier)
    pump.put(lines("a")[0])
    pump.reopen()
    assert pump.flush(20)
    assert carrier.reopened == 1

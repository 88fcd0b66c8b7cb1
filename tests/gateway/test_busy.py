"""Whether a thread was at work, by what the kernel says."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from headgate.gateway.busy import BUSY, Busy


def test_who_works_all_the_time_is_busy_and_who_sleeps_is_not():
    busy = Busy()
    busy.share(time.monotonic())
    until = time.monotonic() + 0.1
    while time.monotonic() < until:
        pass
    assert busy.share(time.monotonic()) >= BUSY
    time.sleep(0.3)
    assert busy.share(time.monotonic()) < BUSY
    busy.close()


def test_time_in_line_for_a_processor_is_work_that_is_wanted(tmp_path: Path):
    file = tmp_path / "schedstat"
    file.write_text("1000000000 500000000 7\n")
    busy = Busy(file)
    busy.share(10.0)
    file.write_text("1200000000 900000000 9\n")
    assert busy.share(11.0) == pytest.approx(0.6)
    assert busy.share(11.0) == 1.0  # no time has passed
    busy.close()


@pytest.mark.parametrize("said", [None, "", "1\n", "one two three\n"])
def test_where_the_kernel_does_not_tell_it_is_taken_to_be_busy(tmp_path: Path, said):
    file = tmp_path / "schedstat"
    if said is not None:
        file.write_text(said)
    busy = Busy(file)
    assert busy.share(1.0) == 1.0
    assert busy.share(2.0) == 1.0
    busy.close()
    assert busy.share(3.0) == 1.0

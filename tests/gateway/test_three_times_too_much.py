"""A running gateway under three times the load that its service bears, in short: see
`benchmarks.overload` for figures.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest

from benchmarks.overload import RECOVERY_S, SCENES, Cast, recovery_of, series_of, tell

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

ROOM = 100.0


def test_after_overload_all_is_well_within_the_time_that_is_promised(tmp_path: Path):
    scene = replace(next(one for one in SCENES if one.name == "service"), slots=4)
    assert scene.slots / scene.takes_s == ROOM
    cast = Cast(scene, tmp_path, with_policies=True)
    try:
        cast.gateway.wait_ready()
        cast.ask(1, (0.5, ROOM / 4))
        rows = cast.ask(2, (4.0, 3 * ROOM))
        ended = monotonic()
        told = Counter((letter, what) for _, _, letter, what in rows)
        good = {letter: told[letter, "good"] / max(1, len([r for r in rows if r[2] == letter]))
                for letter in "fl"}  # fmt: skip
        assert sum(count for (_, what), count in told.items() if what == "refused"), told
        assert good["f"] > good["l"], told
        while {what for *_, what in cast.ask(3, (1.0, ROOM / 2))} != {"good"}:
            assert monotonic() < ended + RECOVERY_S, "not well again in time"
    finally:
        cast.end()


def test_how_recovery_is_counted():
    rows = [(at / 10, 0.1, "u", "good" if not 20 <= at < 35 else "refused") for at in range(100)]
    series = series_of(rows, 10.0)
    assert recovery_of(series, 2.0, 10.0) == 1.5
    assert recovery_of(series, 4.0, 10.0) == 0.0
    rows[80] = (8.0, 0.1, "u", "late")
    assert recovery_of(series_of(rows, 10.0), 2.0, 10.0) == 6.5
    rows[93] = (9.3, 0.1, "u", "late")
    assert recovery_of(series_of(rows, 10.0), 2.0, 10.0) is None
    told = tell(rows, 2.0, 5.0, 10.0, 0.0)
    assert told.outcomes == {"good": 15, "refused": 15}
    assert told.shares == {"usual": 0.5}

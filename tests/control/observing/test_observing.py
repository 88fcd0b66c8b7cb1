"""Departments live and fail apart from each other."""

from __future__ import annotations

import asyncio

from headgate.config import Config
from headgate.control.observing import Observing
from headgate.observe import new_rows


class Recorded:
    def __init__(self, name: str, log: list[str], fails: str = "") -> None:
        self.name = name
        self.log = log
        self.fails = fails

    def _did(self, what: str) -> None:
        if what == self.fails:
            raise OSError("the disk is full")
        self.log.append(f"{self.name} {what}")

    def start(self) -> None:
        self._did("start")

    def take(self, config: Config) -> None:
        self._did("take")

    async def close(self) -> None:
        self._did("close")

    def worries(self):
        yield from (f"{self.name} worries",) if self.fails == "worry" else ()

    def rows_into(self, rows) -> None:
        rows["headgate_workers"].append(([], 1))


def test_departments_end_in_the_other_order_than_they_began():
    log: list[str] = []
    observing = Observing([Recorded("a", log), Recorded("b", log)])
    observing.start()
    observing.take(Config())
    asyncio.run(observing.close())
    assert log == ["a start", "b start", "a take", "b take", "b close", "a close"]
    assert list(observing.worries()) == []


def test_one_that_cannot_take_up_the_file_is_a_worry_until_it_can(caplog):
    log: list[str] = []
    spoilt = Recorded("a", log, fails="take")
    observing = Observing([spoilt, Recorded("b", log)])
    observing.take(Config())
    assert list(observing.worries()) == ["a: cannot take: the disk is full"]
    assert log == ["b take"]
    spoilt.fails = ""
    observing.take(Config())
    assert list(observing.worries()) == []


def test_one_that_does_not_end_keeps_no_other_from_it(caplog):
    log: list[str] = []
    observing = Observing([Recorded("a", log), Recorded("b", log, fails="close")])
    asyncio.run(observing.close())
    assert log == ["a close"]


def test_worries_and_figures_are_those_of_all():
    observing = Observing([Recorded("a", [], "worry"), Recorded("b", [])])
    assert list(observing.worries()) == ["a worries"]
    rows = new_rows()
    observing.rows_into(rows)
    assert rows["headgate_workers"] == [([], 1), ([], 1)]

"""Requests for the live view: who is told what, and that nobody is while nobody looks."""

from __future__ import annotations

import random
from time import monotonic
from types import SimpleNamespace
from typing import Any

from headgate.config.model import AccessLogSpec
from headgate.gateway.access_log import AccessLog
from headgate.gateway.live import ROWS_MAX, LiveRequests
from headgate.observe import LogStats


class Board:
    def __init__(self) -> None:
        self.hear: Any = None

    def subscribe(self, topic: str, listener: Any) -> Any:
        self.hear = listener

    def publish(self, topic: str, message: Any, *, retain: str | None = None) -> None:
        raise NotImplementedError

    def forget(self, topic: str, retain: str) -> None:
        raise NotImplementedError


def record(route: str = "a", status: int = 200, duration_s: float = 0.01) -> Any:
    asked = SimpleNamespace(told_head=None, route=SimpleNamespace(name=route))
    ex = SimpleNamespace(
        status=status, service=SimpleNamespace(name="s"), instance="http://i", request_id=b"rid",
        error=None, client_ip="10.0.0.1", identity=SimpleNamespace(subject="anna"),
    )  # fmt: skip
    return (asked, ex, 1.0, duration_s, b"tid")


def made() -> tuple[LiveRequests, AccessLog, Board, list[dict[str, Any]]]:
    told: list[dict[str, Any]] = []
    live = LiveRequests(told.append, random.Random(7))
    log = AccessLog(AccessLogSpec(format="off"), LogStats())
    board = Board()
    live.listen(board)
    live.follow(log)
    return live, log, board, told


def test_no_record_is_made_while_nobody_looks():
    _, log, board, _ = made()
    assert not log.is_on
    board.hear({"wanted": [{}], "for_s": 5.0})
    assert log.is_on
    log.configure(AccessLogSpec(format="off"))  # a reload
    assert log.is_on
    board.hear({"wanted": [], "for_s": 5.0})
    assert not log.is_on


def test_it_ends_by_itself_where_nobody_says_more():
    live, log, board, _ = made()
    board.hear({"wanted": [{}], "for_s": 5.0})
    live.turn(monotonic() + 4.0)
    assert log.is_on
    live.turn(monotonic() + 6.0)
    assert not log.is_on


def test_only_what_is_looked_for_is_told_once_a_second():
    live, log, board, told = made()
    board.hear({"wanted": [{"route": "a", "low": 500, "top": 599, "least_s": 0.1}], "for_s": 60})
    for each in (
        record("a", 503, 0.2),
        record("b", 503, 0.2),
        record("a", 200, 0.2),
        record("a", 503, 0.01),
    ):
        asked, ex, _, duration_s, trace_id = each
        log.add(asked, ex, duration_s, trace_id, None)
    now = monotonic()
    live.turn(now)
    live.turn(now + 0.5)
    (event,) = told
    assert event["seen"] == 1
    (row,) = event["rows"]
    assert (row[2], row[6]) == (503, "a")
    assert "10.0.0.1" not in row
    assert "anna" not in row


def test_of_many_a_sample_is_told_with_the_failures_in_it():
    live, _, board, told = made()
    board.hear({"wanted": [{}], "for_s": 60})
    for status in [200] * 5000 + [503] * 20 + [200] * 5000:
        live.take(*record(status=status))
    live.turn(monotonic())
    (event,) = told
    assert event["seen"] == 10_020
    assert len(event["rows"]) == ROWS_MAX
    assert sum(row[2] == 503 for row in event["rows"]) >= 15

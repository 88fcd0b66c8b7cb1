"""The first values of a counter are an increase where it is sure that it was 0, and only there."""

from __future__ import annotations

import pytest

from headgate.observe import Carried, WorkerStats
from headgate.observe.history import Family, Keep
from headgate.observe.history.asking import ask
from headgate.observe.history.families import families_of
from headgate.observe.history.store import Store
from headgate.observe.query import parse

BASE = 1_700_006_400.0  # a whole minute
FAILURES = 'increase(headgate_http_requests_total{code="502"}[40s])'
SHARE = (
    'sum(rate(headgate_http_requests_total{code=~"5.."}[1m]))'
    " / sum(rate(headgate_http_requests_total[1m])) > 0.2"
)


class Gateway:
    """Control's figures and its history, second by second."""

    def __init__(self, folder, second: int = 0, **keep) -> None:
        self.carried = Carried()
        self.workers: dict[str, WorkerStats] = {}
        self.store = Store(folder, Keep(**keep))
        self.second = second

    def answer(self, code: int, times: int = 1, *, worker: str = "w0", route: str = "r") -> None:
        stats = self.workers.setdefault(worker, WorkerStats(worker, "1"))
        for _ in range(times):
            stats.route(route, "s").record("GET", code, 0.01, 0.01, 0, 1)

    def take(self) -> None:
        for stats in self.workers.values():
            self.carried.take(stats.snapshot())
        merged = self.carried.merged()
        at = BASE + self.second
        self.store.append(at, float(self.second), list(families_of(merged)), merged.lives)
        self.second += 1

    def seconds(self, count: int) -> None:
        for _ in range(count):
            self.answer(200)
            self.take()

    def ask(self, question: str) -> list[float]:
        return [one.value for one in ask(parse(question), self.store, BASE + self.second - 1)]


@pytest.fixture
def gateway(tmp_path):
    made = Gateway(tmp_path / "h")
    yield made
    made.store.close()


# At 60 the first failures fall into a new minute, that is, into another block.
@pytest.mark.parametrize("before", [5, 59, 60, 61])
def test_a_rule_of_the_share_of_errors_fires_on_the_first_failures_of_a_route(gateway, before):
    gateway.seconds(before)
    assert gateway.ask(SHARE) == []
    gateway.answer(502, 20)
    gateway.seconds(6)
    assert gateway.ask(SHARE)
    assert sum(gateway.ask(FAILURES)) >= 20
    counted = "increase(headgate_http_request_duration_seconds_count[40s])"
    assert sum(gateway.ask(counted)) >= 20


def test_the_very_first_requests_are_failures_and_are_seen(gateway):
    gateway.workers["w0"] = WorkerStats("w0", "1")
    gateway.take()
    gateway.answer(502, 20)
    gateway.take()
    gateway.take()
    assert sum(gateway.ask(FAILURES)) >= 20


def test_what_workers_counted_before_control_came_is_no_increase(tmp_path):
    before = Gateway(tmp_path / "h")
    before.seconds(5)
    before.answer(502, 1000, worker="w1")
    before.store.close()  # and what it carried goes with it; the workers live on
    after = Gateway(tmp_path / "h", second=10)
    after.workers["w0"] = before.workers["w0"]
    after.take()
    after.take()
    after.workers["w1"] = before.workers["w1"]  # it is heard two seconds later
    after.take()
    after.take()
    assert sum(after.ask(FAILURES)) == 0
    after.answer(502, 30, worker="w1")
    after.answer(504, 5, worker="w1")
    after.take()
    after.take()
    assert 30 <= sum(after.ask(FAILURES)) < 300
    assert sum(after.ask(FAILURES.replace("502", "504"))) >= 5
    after.store.close()


def test_carried_totals_that_are_shown_again_are_no_increase(gateway):
    gateway.answer(502, 1000)
    gateway.seconds(5)
    hidden = gateway.carried
    gateway.carried = Carried()  # without the counts of a life that has ended
    gateway.workers = {"w0": WorkerStats("w0", "1")}
    gateway.seconds(70)
    gateway.carried = hidden
    gateway.carried.end("w0")
    gateway.seconds(5)
    assert sum(gateway.ask(FAILURES)) == 0


def test_a_series_that_found_no_room_and_then_does_is_no_increase(tmp_path):
    store = Store(tmp_path / "h", Keep(max_series=2))
    lives = frozenset({("w", "1")})

    def moment(second: int, **values: float) -> None:
        samples: dict[tuple[str, ...], float] = {(name,): value for name, value in values.items()}
        families = [Family("hits_total", "counter", ("n",), samples, from_zero=True)]
        store.append(BASE + second, float(second), families, lives)

    for second in range(60):
        moment(second, a=1.0, b=1.0, c=1000.0 + second)
    for second in range(60, 125):  # `b` is gone, and from the next minute on there is room
        moment(second, a=1.0, c=1000.0 + second)
    found = ask(parse('increase(hits_total{n="c"}[2m])'), store, BASE + 124)
    assert all(one.value < 200 for one in found)
    assert ask(parse('hits_total{n="c"}'), store, BASE + 124)
    store.close()


def test_figures_of_others_and_unknown_lives_are_left_as_they_are(tmp_path):
    for from_zero, lives in ((False, frozenset({("w", "1")})), (True, None)):
        store = Store(None)
        for second, count in enumerate((0.0, 0.0, 500.0, 500.0)):
            values: dict[tuple[str, ...], float] = {("a",): count} if count else {}
            one = Family("hits_total", "counter", ("n",), values, from_zero)
            level = Family("level", "gauge", (), {(): 1.0})
            store.append(BASE + second, float(second), [one, level], lives)
        found = ask(parse("increase(hits_total[10s])"), store, BASE + 3)
        assert [sample.value for sample in found] == [0.0]
        store.close()


def test_zeros_are_there_after_a_restart_too(tmp_path):
    gateway = Gateway(tmp_path / "h")
    gateway.seconds(5)
    gateway.answer(502, 20)
    gateway.seconds(3)
    before = gateway.ask("sum(headgate_http_requests_total) by (code)"), gateway.ask(FAILURES)
    gateway.store.close()
    again = Store(tmp_path / "h")
    again.append(BASE + 9, 0.0, [Family("level", "gauge", (), {(): 1.0})])
    found = ask(parse(FAILURES), again, BASE + 7)
    assert [one.value for one in found] == before[1]
    assert before[1][0] >= 20
    again.close()

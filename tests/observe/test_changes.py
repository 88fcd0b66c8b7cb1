"""Snapshots of which only the changes are told are the snapshots."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.gateway.tracing import KeptTraces
from headgate.observe import Carried, WorkerStats
from headgate.observe.changes import NOTHING, Misfit, Telling, held
from headgate.observe.sliced import json_steps


def _driven(steps):
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value


def _plain(snapshot):
    return json.loads(json.dumps(snapshot))


def _without_number(snapshot):
    return {name: value for name, value in snapshot.items() if name != "number"}


class Pair:
    """A worker that tells and a hub that holds."""

    def __init__(self) -> None:
        self.stats = WorkerStats("worker-0", "a", max_sets=4)
        self.telling = Telling()
        self.held: dict[str, Any] = {}
        self.sent = b""

    def ask(self, *, is_lost=False):
        snapshot = self.stats.snapshot()
        have = self.held.get("number", NOTHING)
        self.sent = _driven(json_steps(_driven(self.telling.steps(snapshot, have))))
        if not is_lost:
            self.held = held(self.held or None, json.loads(self.sent))
            assert _without_number(self.held) == _plain(snapshot)


does = st.one_of(
    st.tuples(
        st.just("record"),
        st.integers(0, 5),
        st.sampled_from(["GET", "POST", "BREW"]),
        st.sampled_from([200, 404, 599]),
        st.floats(0, 200),
        st.booleans(),
    ),
    st.tuples(st.just("instance"), st.integers(0, 5)),
    st.tuples(st.just("keep"), st.sets(st.integers(0, 5))),
    st.tuples(st.just("ask"), st.booleans()),
)


@given(st.lists(does, max_size=40))
def test_what_is_held_is_what_was_counted_whatever_was_lost(steps):
    pair = Pair()
    for step in steps:
        match step:
            case ("record", route, method, status, seconds, whole):
                stats = pair.stats.route(f"r{route}", "s")
                stats.record(method, status, seconds, seconds if whole else -1.0, 1, 2)
            case ("instance", number):
                pair.stats.instance("s", f"i{number}").created += 1
            case ("keep", numbers):
                pair.stats.keep([(f"r{n}", "s") for n in numbers], [("s", "i1")], [])
            case ("ask", is_lost):
                pair.ask(is_lost=is_lost)
    pair.ask()
    pair.ask()


def test_what_stands_still_is_not_told_again():
    pair = Pair()
    for number in range(4):
        pair.stats.route(f"r{number}", "s").record("GET", 200, 0.01, 0.01, 0, 5)
    pair.ask()
    whole = len(pair.sent)
    pair.ask()
    quiet = len(pair.sent)
    pair.stats.route("r1", "s").record("GET", 200, 0.02, 0.02, 0, 5)
    pair.ask()
    told = json.loads(pair.sent)
    assert told["changed"]["headgate_http_requests_total"] == [[1, 2]]
    ((place, change),) = told["changed"]["headgate_http_request_duration_seconds"]
    assert (place, [count for _, count in change["at"]]) == (1, [1])
    assert quiet < whole / 4
    assert len(pair.sent) < whole / 3


def test_an_exemplar_is_told_though_its_route_is_quiet():
    pair = Pair()
    traces = KeptTraces()
    pair.stats.add_source(traces.rows_into)
    pair.stats.route("r", "s").record("GET", 200, 0.01, 0.01, 0, 5)
    pair.ask()
    traces.note("sampled", ("r", "s"), "ab" * 16, 0.01)
    pair.ask()
    ((_, value),) = pair.held["rows"]["headgate_http_request_duration_seconds"]
    assert value["exemplars"][0][1] == "ab" * 16
    assert sum(value["counts"]) == 1


def test_two_tellings_at_once_leave_what_was_told_first_or_misfit():
    pair = Pair()
    pair.stats.route("r", "s").record("GET", 200, 0.01, 0.01, 0, 5)
    pair.ask()
    before = pair.held
    number = before["number"]
    pair.stats.route("r", "s").record("GET", 200, 0.01, 0.01, 0, 5)
    one = pair.telling.steps(pair.stats.snapshot(), number)
    next(one)
    pair.stats.route("r", "s").record("GET", 200, 0.01, 0.01, 0, 5)
    later = _plain(_driven(pair.telling.steps(pair.stats.snapshot(), number)))
    first = _plain(_driven(one))
    pair.held = held(before, later)
    with pytest.raises(Misfit):
        held(pair.held, first)
    pair.ask()


def test_totals_of_ended_workers_do_not_fall():
    pair = Pair()
    carried = Carried()
    for _ in range(3):
        pair.stats.route("r", "s").record("GET", 200, 0.01, 0.01, 0, 5)
        pair.ask()
        carried.take(pair.held)
    carried.end("worker-0")
    assert carried.merged().total("headgate_http_requests_total") == 3


@pytest.mark.parametrize(
    "torn",
    [
        {"changed": {"none": []}, "rows": {}, "gone": []},
        {"changed": {"headgate_http_requests_total": [[9, 1]]}, "rows": {}, "gone": []},
        {"changed": {"headgate_http_requests_total": [[0]]}, "rows": {}, "gone": []},
        {"changed": [], "rows": {}, "gone": []},
        {"changed": {}, "rows": 1, "gone": []},
        {},
    ],
    ids=["family", "place", "value", "list", "rows", "nothing"],
)
def test_torn_tellings_raise_and_what_is_held_stays(torn):
    pair = Pair()
    pair.stats.route("r", "s").record("GET", 200, 0.01, 0.01, 0, 5)
    pair.ask()
    before = _plain(pair.held)
    with pytest.raises((ValueError, KeyError, TypeError, LookupError, AttributeError)):
        held(pair.held, {**torn, "since": pair.held["number"], "number": 9})
    assert pair.held == before


@pytest.mark.parametrize("value", [{}, {"a": {}}, {"a": {"b": {"c": 1}}}, {"a": {1: 2}}, [1], None])
def test_long_values_are_written_in_pieces_as_in_one(value):
    said = {"start": "a", "policies": value, "rows": {}, "changed": {"f": []}}
    text = _driven(json_steps(said))
    assert json.loads(text) == _plain(said)

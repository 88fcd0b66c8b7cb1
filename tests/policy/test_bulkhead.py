"""Bulkhead: never more under way than the limit, everybody in line is settled exactly once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.policy.adaptive import AdaptiveLimit, AdaptiveRules
from headgate.policy.answers import Rejected
from headgate.policy.bulkhead import Bulkhead, BulkheadRules, Queued, Seat


def bulkhead(limit: int = 1, queue: int = 0, **rules) -> Bulkhead:
    return Bulkhead("users", BulkheadRules(limit=limit, queue=queue, **rules), 0.0)


def seat(got: Seat | Queued | Rejected) -> Seat:
    assert isinstance(got, Seat)
    return got


def queued(got: Seat | Queued | Rejected) -> Queued:
    assert isinstance(got, Queued)
    return got


def names(settled) -> list[object]:
    return [each.who for each in settled]


# ---- seats


def test_the_limit_is_how_many_get_in():
    gate = bulkhead(limit=2)
    first, second = seat(gate.enter(0.0, "a")), seat(gate.enter(0.0, "b"))
    assert (first.in_flight, second.in_flight) == (1, 2)
    assert gate.enter(0.0, "c") == Rejected("concurrency", "full", 0.0)
    assert gate.leave(first, 1.0) == ()
    assert seat(gate.enter(1.0, "c")).in_flight == 2


def test_a_seat_is_given_back_once():
    gate = bulkhead(limit=2)
    held = seat(gate.enter(0.0, "a"))
    gate.enter(0.0, "b")
    gate.leave(held, 1.0)
    gate.leave(held, 1.0)
    assert gate.in_flight == 1
    assert gate.snapshot(1.0).late == 1


def test_a_seat_from_before_a_reset_frees_nothing():
    gate = bulkhead(limit=1)
    lost = seat(gate.enter(0.0, "a"))
    gate.reset(1.0)
    held = seat(gate.enter(1.0, "b"))
    gate.leave(lost, 2.0)
    assert gate.in_flight == 1
    assert isinstance(gate.enter(2.0, "c"), Rejected)
    gate.leave(held, 2.0)
    assert gate.in_flight == 0


def test_a_reset_lets_the_line_in():
    gate = bulkhead(limit=1, queue=2)
    gate.enter(0.0, "a")
    gate.enter(0.0, "b")
    assert names(gate.reset(1.0)) == ["b"]


# ---- the line


def test_the_line_is_served_by_priority_then_by_arrival():
    gate = bulkhead(limit=1, queue=10)
    held = seat(gate.enter(0.0, "held"))
    for who, priority in (("n1", 2), ("b1", 4), ("c1", 0), ("n2", 2), ("c2", 0)):
        queued(gate.enter(0.0, who, priority))
    order = []
    for _ in range(5):
        (admitted,) = gate.leave(held, 1.0)
        order.append(admitted.who)
        assert admitted.seat is not None
        held = admitted.seat
    assert order == ["c1", "c2", "n1", "n2", "b1"]
    assert gate.leave(held, 1.0) == ()
    assert gate.in_flight == gate.waiting == 0


def test_the_line_has_an_end():
    gate = bulkhead(limit=1, queue=1)
    gate.enter(0.0, "a")
    queued(gate.enter(0.0, "b"))
    assert gate.enter(0.0, "c") == Rejected("concurrency", "queue_full", 0.0)


def test_in_a_full_line_the_newest_of_the_least_important_gives_way():
    gate = bulkhead(limit=1, queue=3)
    gate.enter(0.0, "held")
    for who, priority in (("low1", 3), ("low2", 3), ("normal", 2)):
        gate.enter(0.0, who, priority)
    newcomer = queued(gate.enter(0.0, "high", 1))
    assert newcomer.evicted is not None
    assert newcomer.evicted.who == "low2"
    assert newcomer.evicted.rejected == Rejected("concurrency", "evicted", 0.0)
    assert names([queued(gate.enter(0.0, "critical", 0)).evicted]) == ["low1"]
    assert names([queued(gate.enter(0.0, "another", 1)).evicted]) == ["normal"]
    assert gate.waiting == 3


def test_nobody_gives_way_to_an_equal():
    gate = bulkhead(limit=1, queue=1)
    gate.enter(0.0, "held")
    gate.enter(0.0, "low", 3)
    assert isinstance(gate.enter(0.0, "another", 3), Rejected)
    assert isinstance(gate.enter(0.0, "background", 4), Rejected)


def test_time_in_line_runs_out():
    gate = bulkhead(limit=1, queue=5, queue_timeout_s=2.0)
    held = seat(gate.enter(0.0, "held"))
    for at, who, priority in ((0.0, "a", 4), (1.0, "b", 2), (1.5, "c", 4)):
        gate.enter(at, who, priority)
    assert gate.expire(1.9) == ()
    (over,) = gate.expire(2.0)
    assert over.who == "a"
    assert over.rejected == Rejected("concurrency", "queue_timeout", 0.0)
    assert names(gate.expire(3.5)) == ["b", "c"]
    assert gate.leave(held, 4.0) == ()
    assert gate.snapshot(4.0).timed_out == 3


def test_who_leaves_the_line_is_not_admitted():
    gate = bulkhead(limit=1, queue=5)
    held = seat(gate.enter(0.0, "held"))
    gone = queued(gate.enter(0.0, "gone"))
    gate.enter(0.0, "next")
    assert gate.forget(gone, 0.5) == ()
    assert gate.forget(gone, 0.5) == ()
    assert gate.waiting == 1
    assert names(gate.leave(held, 1.0)) == ["next"]


def test_who_leaves_just_when_admitted_passes_the_seat_on():
    gate = bulkhead(limit=1, queue=5)
    held = seat(gate.enter(0.0, "held"))
    gone = queued(gate.enter(0.0, "gone"))
    gate.enter(0.0, "next")
    assert names(gate.leave(held, 1.0)) == ["gone"]
    assert names(gate.forget(gone, 1.0)) == ["next"]
    assert gate.in_flight == 1


def test_when_to_come_back_is_when_the_line_will_have_been_served():
    gate = bulkhead(limit=2, queue=3)
    gate.leave(seat(gate.enter(0.0, "a")), 4.0)
    for who in range(5):
        gate.enter(4.0, who)
    rejected = gate.enter(4.0, "late")
    assert isinstance(rejected, Rejected)
    assert rejected.retry_after_s == pytest.approx(4.0 * 4 / 2)


def test_calls_that_say_nothing_are_left_out_of_the_mean():
    gate = bulkhead(limit=2)
    gate.leave(seat(gate.enter(0.0, "a")), 100.0, outcome="ignored")
    assert gate.snapshot(100.0).mean_s == 0.0
    gate.leave(seat(gate.enter(0.0, "a")), 100.0, took_s=2.0, outcome="dropped")
    assert gate.snapshot(100.0).mean_s == 2.0


# ---- shares by priority


def test_a_share_of_the_limit_is_kept_for_the_important():
    gate = bulkhead(limit=10, shares=(1.0, 1.0, 0.8, 0.5, 0.3))
    got = {
        priority: sum(isinstance(gate.enter(0.0, None, priority), Seat) for _ in range(10))
        for priority in (4, 3, 2, 1)
    }
    assert got == {4: 3, 3: 2, 2: 3, 1: 2}


def test_a_small_limit_still_has_a_seat_for_everybody():
    gate = bulkhead(limit=1, shares=(1.0, 0.9, 0.5, 0.1, 0.01))
    assert isinstance(gate.enter(0.0, None, 4), Seat)


def test_the_less_important_wait_while_only_kept_seats_are_free():
    gate = bulkhead(limit=2, queue=5, shares=(1.0, 1.0, 1.0, 1.0, 0.5))
    one, two = seat(gate.enter(0.0, 1, 4)), seat(gate.enter(0.0, 2, 0))
    gate.enter(0.0, "background", 4)
    assert gate.leave(two, 1.0) == ()
    three = seat(gate.enter(1.0, 3, 0))
    assert gate.leave(three, 1.0) == ()
    assert names(gate.leave(one, 1.0)) == ["background"]


# ---- a limit that moves


def test_below_what_is_under_way_the_limit_lets_nobody_in_until_enough_have_left():
    gate = bulkhead(limit=4, queue=5)
    held = [seat(gate.enter(0.0, n)) for n in range(4)]
    gate.enter(0.0, "next")
    assert gate.set_limit(2, 1.0) == ()
    assert gate.leave(held[0], 1.0) == ()
    assert gate.leave(held[1], 1.0) == ()
    assert isinstance(gate.enter(1.0, "later"), Queued)
    assert names(gate.leave(held[2], 1.0)) == ["next"]
    assert gate.in_flight == 2


def test_a_raised_limit_lets_the_line_in_at_once():
    gate = bulkhead(limit=1, queue=5)
    gate.enter(0.0, "held")
    for who in "abc":
        gate.enter(0.0, who)
    assert names(gate.set_limit(3, 1.0)) == ["a", "b"]


def test_an_adaptive_limit_is_in_force_and_told_of_every_call():
    adaptive = AdaptiveLimit(
        AdaptiveRules(algorithm="aimd", start=2, window_s=1.0, window_samples=2, target_s=9.0), 0.0
    )
    gate = Bulkhead("users", BulkheadRules(limit=50, queue=5), 0.0, adaptive)
    first, second = seat(gate.enter(0.0, 1)), seat(gate.enter(0.0, 2))
    gate.enter(0.0, "a")
    gate.enter(0.0, "b")
    assert names(gate.leave(first, 0.5)) == ["a"]
    assert names(gate.leave(second, 1.0)) == ["b"]
    assert gate.limit == adaptive.limit == 3
    assert gate.in_flight == 2


def test_a_dropped_call_cuts_the_adaptive_limit_and_an_ignored_one_does_not():
    def after(outcome) -> int:
        adaptive = AdaptiveLimit(AdaptiveRules(algorithm="aimd", window_samples=1), 0.0)
        gate = Bulkhead("users", BulkheadRules(), 0.0, adaptive)
        gate.leave(seat(gate.enter(0.0, 1)), 1.0, 1.0, outcome)
        return gate.limit

    assert after("dropped") == 18
    assert after("ignored") == 20


# ---- new rules


def test_new_rules_keep_seats_and_line():
    gate = bulkhead(limit=1, queue=5, queue_timeout_s=10.0)
    gate.enter(0.0, "held")
    gate.enter(0.0, "a", 4)
    gate.enter(1.0, "b", 2)
    gate.enter(2.0, "c", 4)
    gate.enter(3.0, "d", 4)
    settled = gate.take_rules(BulkheadRules(limit=2, queue=2, queue_timeout_s=2.0), 3.0)
    assert [(each.who, each.seat is not None, each.rejected is not None) for each in settled] == [
        ("b", True, False),
        ("d", False, True),
    ]
    assert names(gate.expire(3.0)) == ["a"]
    assert gate.in_flight == 2
    assert gate.waiting == 1


@pytest.mark.parametrize(
    "rules, problem",
    [
        ({"limit": 0}, "limit=0 would let nothing through"),
        ({"queue": -1}, "queue=-1 must not be negative"),
        ({"queue": 1, "queue_timeout_s": 0.0}, "queue_timeout_s=0: nobody could stand in line"),
        ({"queue": 1, "queue_timeout_s": math.inf}, "queue_timeout_s=inf"),
        ({"shares": (1.0, 1.0)}, "shares names 2 priorities; there are 5"),
        ({"shares": (1.0, 1.0, 1.0, 1.0, 0.0)}, "must be above 0"),
        ({"shares": (0.5, 1.0, 1.0, 1.0, 1.0)}, "give a lower priority more"),
    ],
)
def test_senseless_rules_are_refused_in_words(rules, problem):
    (said,) = BulkheadRules(**rules).problems()
    assert problem in said
    with pytest.raises(ValueError, match="."):
        Bulkhead("users", BulkheadRules(**rules), 0.0)


def test_the_defaults_are_sound():
    assert BulkheadRules().problems() == ()
    assert BulkheadRules(queue_timeout_s=0.0).problems() == ()  # without a line it says nothing


# ---- against a model that keeps everything in one list


@dataclass
class Model:
    limit: int
    queue: int
    timeout_s: float
    shares: tuple[float, ...]
    in_flight: int = 0
    line: list[tuple[int, int, float]] = field(default_factory=list)
    """Priority, who, until; in the order in which they are served."""

    def may_enter(self, priority: int) -> bool:
        return self.in_flight < math.ceil(self.limit * self.shares[priority] - 1e-9)

    def admit(self) -> list[int]:
        admitted = []
        while self.line and self.may_enter(self.line[0][0]):
            admitted.append(self.line.pop(0)[1])
            self.in_flight += 1
        return admitted

    def enter(self, who: int, priority: int, now: float) -> tuple[str, int | None]:
        if self.may_enter(priority):
            self.in_flight += 1
            return "seat", None
        evicted = None
        if len(self.line) >= self.queue:
            worse = [each for each in self.line if each[0] > priority]
            if not worse:
                return "rejected", None
            self.line.remove(worse[-1])
            evicted = worse[-1][1]
        self.line.append((priority, who, now + self.timeout_s))
        self.line.sort(key=lambda each: each[0])  # stable, so by arrival within a priority
        return "queued", evicted

    def expire(self, now: float) -> list[int]:
        over = [who for _, who, until in self.line if until <= now]
        self.line = [each for each in self.line if each[2] > now]
        return over


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.integers(0, 4)),
        st.tuples(st.just("leave"), st.integers(0, 50)),
        st.tuples(st.just("forget"), st.integers(0, 50)),
        st.tuples(st.just("limit"), st.integers(1, 6)),
        st.tuples(st.just("expire"), st.just(0)),
        st.tuples(st.just("wait"), st.integers(1, 4)),
    ),
    max_size=80,
)


@settings(max_examples=300)
@given(STEPS, st.integers(1, 5), st.integers(0, 4), st.booleans())
def test_it_does_what_the_plain_model_does(steps, limit, queue, is_reserved):
    shares = (1.0, 1.0, 0.8, 0.6, 0.4) if is_reserved else (1.0,) * 5
    gate = bulkhead(limit=limit, queue=queue, queue_timeout_s=5.0, shares=shares)
    model = Model(limit, queue, 5.0, shares)
    now = 0.0
    seats: list[Seat] = []
    tickets: dict[object, Queued] = {}

    def admitted(settled) -> list[object]:
        for each in settled:
            assert each.seat is not None
            seats.append(each.seat)
            del tickets[each.who]
        return names(settled)

    for who, (what, number) in enumerate(steps):
        if what == "enter":
            kind, evicted = model.enter(who, number, now)
            got = gate.enter(now, who, number)
            if kind == "seat":
                seats.append(seat(got))
            elif kind == "queued":
                tickets[who] = queued(got)
                loser = tickets[who].evicted
                assert (loser.who if loser else None) == evicted
                if loser is not None:
                    assert tickets.pop(evicted) is loser
            else:
                assert isinstance(got, Rejected)
        elif what == "leave" and seats:
            model.in_flight -= 1
            expected = model.admit()
            assert admitted(gate.leave(seats.pop(number % len(seats)), now)) == expected
        elif what == "forget" and tickets:
            gone = list(tickets)[number % len(tickets)]
            model.line = [each for each in model.line if each[1] != gone]
            assert gate.forget(tickets.pop(gone), now) == ()
        elif what == "limit":
            model.limit = number
            assert admitted(gate.set_limit(number, now)) == model.admit()
        elif what == "expire":
            over = gate.expire(now)
            assert names(over) == model.expire(now)
            for each in over:
                assert tickets.pop(each.who).rejected is not None
        elif what == "wait":
            now += number
        assert gate.in_flight == model.in_flight == len(seats)
        assert gate.waiting == len(model.line) == len(tickets)
        assert gate.waiting <= queue
    for held in seats:
        assert all(each.seat is not None for each in gate.leave(held, now))

"""Degradation: who asked for what, what is in force, and when it ends by itself."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.degrade import Degrade, DegradeRules, Level, Reason

RNG = Random(3)
FLAGS = (("new-search", 1.0), ("chat", 1.0), ("beta", 0.3), ("gone", 0.0))
LEVELS = (
    Level("normal"),
    Level("stale", ("stale",), ("chat",)),
    Level("fallback", ("stale", "static"), ("chat", "beta")),
    Level("survival", ("static", "shed"), ("chat", "beta", "new-search")),
)


def degrade(hold_s: float = 30.0, now: float = 0.0) -> Degrade:
    return Degrade(DegradeRules(levels=LEVELS, flags=FLAGS, hold_s=hold_s), now)


# ---- levels


def test_nothing_is_in_force_at_first():
    answer = degrade().answer(0.0)
    assert (answer.level, answer.name, answer.measures, answer.reasons) == (0, "normal", (), ())


def test_the_highest_level_asked_for_is_in_force_with_all_the_reasons():
    state = degrade()
    state.set("load", 1, 1.0, "shedding")
    answer = state.set("breaker:users", 2, 2.0, "open: 60 % failed")
    assert (answer.level, answer.name, answer.measures) == (2, "fallback", ("stale", "static"))
    assert answer.reasons == (
        Reason("breaker:users", 2, "open: 60 % failed", 2.0, None),
        Reason("load", 1, "shedding", 1.0, None),
    )


def test_a_source_takes_back_only_what_it_asked_for_itself():
    state = degrade(hold_s=0.0)
    state.set("load", 1, 1.0, "shedding")
    state.set("breaker:users", 2, 2.0, "open")
    assert state.clear("breaker:orders", 3.0).level == 2
    assert state.clear("breaker:users", 3.0).level == 1
    assert state.clear("load", 3.0).level == 0


@pytest.mark.parametrize("level", [0, 1, 3])
def test_the_hand_wins_upwards_and_downwards(level):
    state = degrade()
    state.set("load", 2, 1.0, "shedding")
    answer = state.set("hand", level, 2.0, "exercise")
    assert answer.level == level
    assert answer.reasons[0] == Reason("hand", level, "exercise", 2.0, None)
    assert state.set("breaker:users", 2, 3.0, "open").level == level
    assert state.clear("hand", 4.0).level == 2


def test_an_order_by_hand_ends_with_its_time():
    state = degrade()
    state.set("load", 1, 1.0, "shedding")
    assert state.set("hand", 3, 2.0, "deploy", for_s=10.0).reasons[0].until == 12.0
    assert state.answer(11.9).level == 3
    assert state.answer(12.0).level == 1
    assert [reason.source for reason in state.answer(12.0).reasons] == ["load"]


def test_the_hand_lets_go_at_once():
    state = degrade()
    state.set("hand", 3, 1.0, "exercise")
    assert state.clear("hand", 2.0).reasons == ()
    state.set("hand", 3, 3.0, "exercise")
    assert state.set("hand", 1, 4.0, "less of it").level == 1


# ---- holding


def test_what_came_by_itself_is_held_after_its_cause_has_gone():
    state = degrade(hold_s=30.0)
    state.set("load", 2, 1.0, "shedding")
    assert state.clear("load", 10.0).reasons == (Reason("load", 2, "shedding", 1.0, 40.0),)
    assert state.answer(39.9).level == 2
    assert state.answer(40.0).level == 0
    assert state.answer(40.0).reasons == ()


def test_a_source_that_comes_back_during_the_hold_starts_it_anew():
    state = degrade(hold_s=30.0)
    state.set("load", 2, 0.0, "shedding")
    state.clear("load", 10.0)
    assert state.set("load", 2, 20.0, "again").reasons == (Reason("load", 2, "again", 0.0, None),)
    assert state.answer(1000.0).reasons == (Reason("load", 2, "again", 0.0, None),)
    state.clear("load", 1000.0)
    assert state.answer(1029.0).level == 2
    assert state.answer(1030.0).level == 0


def test_a_source_comes_down_to_what_it_asks_for_after_the_hold():
    state = degrade(hold_s=30.0)
    state.set("load", 3, 0.0, "much")
    answer = state.set("load", 1, 10.0, "less")
    assert answer.reasons == (Reason("load", 3, "much", 0.0, 40.0),)
    assert state.answer(40.0).reasons == (Reason("load", 1, "less", 40.0, None),)
    state.clear("load", 50.0)
    assert state.answer(79.0).level == 1
    assert state.answer(80.0).level == 0


def test_asking_for_the_same_again_and_again_does_not_prolong_the_hold():
    state = degrade(hold_s=30.0)
    state.set("load", 3, 0.0, "much")
    for at in range(10, 60):
        level = state.set("load", 1, float(at), "less").level
        assert level == (3 if at < 40 else 1)
    state.clear("load", 60.0)
    for at in range(61, 100):
        assert state.clear("load", float(at)).level == (1 if at < 90 else 0)


def test_an_order_of_a_source_for_a_time_is_held_from_its_end_on():
    state = degrade(hold_s=30.0)
    state.set("breaker:users", 1, 0.0, "open", for_s=60.0)
    assert state.answer(89.0).level == 1
    assert state.answer(90.0).level == 0


def test_taking_back_what_has_run_out_long_ago_holds_nothing():
    state = degrade(hold_s=30.0)
    state.set("breaker:users", 1, 0.0, "open", for_s=10.0)
    assert state.clear("breaker:users", 50.0).level == 0


def test_flapping_shows_as_one_stretch():
    state = degrade(hold_s=30.0)
    levels = set()
    for at in range(200):
        if at % 10 == 0:
            state.set("breaker:users", 2, float(at), "open")
        elif at % 10 == 5:
            state.clear("breaker:users", float(at))
        levels.add(state.answer(float(at)).level)
    assert levels == {2}


def test_the_answer_is_the_same_object_until_something_changes():
    state = degrade()
    before = state.answer(0.0)
    assert state.answer(1e9) is before
    state.clear("load", 5.0)
    assert state.answer(5.0) is before
    during = state.set("load", 1, 6.0, "shedding")
    assert during is not before
    assert state.answer(7.0) is during


class Plain:
    """All that was ever asked, looked through from the start each time."""

    def __init__(self, hold_s: float) -> None:
        self.hold_s = hold_s
        self.asked: dict[str, list[tuple[float, int]]] = {}

    def level(self, now: float) -> int:
        levels = [self.of(source, now) for source in self.asked if source != "hand"]
        hand = self.asked.get("hand", [(0.0, -1)])[-1][1]
        return hand if hand >= 0 else max(levels, default=0)

    def of(self, source: str, now: float) -> int:
        level = held = 0
        held_until = -math.inf
        for at, asked in self.asked[source]:
            if held_until <= at:
                held = 0
            if asked < level:
                held, held_until = max(level, held), at + self.hold_s
            if asked >= held:
                held = 0
            level = asked
        return max(level, held if now < held_until else 0)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["hand", "load", "breaker:a"]),
            st.integers(-1, 3),
            st.integers(0, 20),
        ),
        max_size=40,
    ),
    st.sampled_from([0.0, 5.0, 30.0]),
)
def test_it_does_what_the_plain_model_does(steps, hold_s):
    state, plain = degrade(hold_s=hold_s), Plain(hold_s)
    now = 0.0
    for source, level, wait in steps:
        now += wait
        assert state.answer(now).level == plain.level(now)
        if level < 0:
            state.clear(source, now)
        else:
            state.set(source, level, now, "")
        if source != "hand":
            level = max(level, 0)
        plain.asked.setdefault(source, []).append((now, level))
        assert state.answer(now).level == plain.level(now)


# ---- flags


def test_flags_are_on_as_the_file_says():
    state = degrade()
    assert state.is_on("new-search", 0.0, None, RNG)
    assert not state.is_on("gone", 0.0, 1, RNG)


def test_a_share_is_always_the_same_keys():
    state = degrade()
    keys = [RNG.getrandbits(64) for _ in range(10_000)]
    on = [state.is_on("beta", 0.0, key, RNG) for key in keys]
    assert sum(on) / len(on) == pytest.approx(0.3, abs=0.02)
    assert on == [state.is_on("beta", 99.0, key, RNG) for key in keys]
    drawn = [state.is_on("beta", 0.0, None, RNG) for _ in keys]
    assert sum(drawn) / len(drawn) == pytest.approx(0.3, abs=0.02)


def test_a_growing_share_keeps_those_who_have_it():
    state = degrade()
    keys = [RNG.getrandbits(64) for _ in range(1000)]
    before = {key for key in keys if state.is_on("beta", 0.0, key, RNG)}
    state.set_flag("beta", 0.5, 0.0, "roll out")
    assert before < {key for key in keys if state.is_on("beta", 0.0, key, RNG)}


def test_shares_of_different_flags_are_independent():
    state = Degrade(DegradeRules(flags=(("a", 0.5), ("b", 0.5))), 0.0)
    keys = [RNG.getrandbits(64) for _ in range(10_000)]
    both = sum(state.is_on("a", 0.0, k, RNG) and state.is_on("b", 0.0, k, RNG) for k in keys)
    assert both / len(keys) == pytest.approx(0.25, abs=0.02)


def test_a_level_switches_flags_off_and_the_hand_wins():
    state = degrade(hold_s=0.0)
    state.set("load", 1, 1.0, "shedding")
    assert not state.is_on("chat", 1.0, None, RNG)
    assert state.is_on("new-search", 1.0, None, RNG)
    state.set_flag("chat", True, 2.0, "the boss needs it", for_s=10.0)
    assert state.is_on("chat", 11.9, None, RNG)
    assert not state.is_on("chat", 12.0, None, RNG)
    state.clear("load", 13.0)
    assert state.is_on("chat", 13.0, None, RNG)


def test_a_flag_comes_back_when_the_hold_of_its_level_is_over():
    state = degrade(hold_s=30.0)
    state.set("load", 1, 0.0, "shedding")
    state.clear("load", 10.0)
    assert not state.is_on("chat", 39.0, None, RNG)
    assert state.is_on("chat", 40.0, None, RNG)


def test_the_snapshot_says_why_a_flag_is_as_it_is():
    state = degrade()
    state.set("load", 1, 0.0, "shedding")
    state.set_flag("beta", False, 1.0, "too slow", for_s=5.0)
    flags = {flag.name: flag for flag in state.snapshot(2.0).flags}
    assert (flags["new-search"].share, flags["new-search"].why) == (1.0, "file")
    assert (flags["chat"].share, flags["chat"].why) == (0.0, 'level "stale"')
    assert (flags["beta"].share, flags["beta"].why, flags["beta"].until) == (0.0, "too slow", 6.0)
    state.clear_flag("beta", 3.0)
    assert state.snapshot(3.0).flags[2].why == "file"


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda state: state.set("load", 4, 0.0, ""), "no level 4; the last is 3"),
        (lambda state: state.set("load", -1, 0.0, ""), "no level -1"),
        (lambda state: state.set_flag("cat", True, 0.0, ""), 'no flag "cat"; there is new-search'),
        (lambda state: state.clear_flag("cat", 0.0), 'no flag "cat"'),
        (lambda state: state.set_flag("chat", 1.1, 0.0, ""), "cannot be on for 1.1"),
    ],
)
def test_what_there_is_not_is_refused(call, message):
    state = degrade()
    before = state.snapshot(0.0)
    with pytest.raises(ValueError, match=message):
        call(state)
    assert state.snapshot(0.0) == before


# ---- new rules


def test_new_rules_keep_what_is_asked_for():
    state = degrade()
    state.set("load", 3, 0.0, "much")
    state.set("breaker:users", 2, 0.0, "open")
    state.clear("breaker:users", 1.0)
    state.set_flag("chat", False, 0.0, "broken")
    state.set_flag("beta", True, 0.0, "all")
    state.take_rules(DegradeRules(levels=LEVELS[:2], flags=(("chat", 0.5),)), 2.0)
    seen = state.snapshot(2.0)
    assert [(reason.source, reason.level) for reason in seen.answer.reasons] == [
        ("load", 1),
        ("breaker:users", 1),
    ]
    assert [(flag.name, flag.share, flag.why) for flag in seen.flags] == [("chat", 0.0, "broken")]


@pytest.mark.parametrize(
    "rules, problem",
    [
        ({"levels": ()}, "at least one level"),
        ({"levels": (Level("normal", ("shed",)),)}, '"normal", is the usual one'),
        ({"levels": (Level("a"), Level("a"))}, 'two levels are called "a"'),
        ({"levels": (Level("a"), Level("b", off=("x",)))}, 'switches off "x", which is no flag'),
        ({"levels": (Level("a"), Level("b", ("stale", "stale")))}, "names a measure twice"),
        ({"flags": (("x", 1.5),)}, 'flag "x" is on for 1.5'),
        ({"flags": (("x", 1.0), ("x", 0.0))}, 'flag "x" stands more than once'),
        ({"hold_s": -1.0}, "hold_s=-1"),
    ],
)
def test_senseless_rules_are_refused_in_words(rules, problem):
    (said,) = DegradeRules(**rules).problems()
    assert problem in said
    with pytest.raises(ValueError, match="."):
        Degrade(DegradeRules(**rules), 0.0)


def test_the_defaults_are_sound():
    assert DegradeRules().problems() == ()

"""A service's instances as those see them who send requests there; no network, no clock."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.answers import Rejected
from headgate.policy.balancer import BalanceRules, Member, MemberSpec
from headgate.policy.breaker import Breaker, BreakerRules, Permit
from headgate.policy.health import HealthRules
from headgate.policy.outlier import OutlierRules
from headgate.policy.serving import Serving


@dataclass(frozen=True)
class Use:
    rules: BreakerRules
    per: str


@dataclass(frozen=True)
class Plan:
    members: tuple[MemberSpec, ...] = ()
    name: str = "users"
    balance_rules: BalanceRules = field(default_factory=BalanceRules)
    breaker: Use | None = None
    outlier: OutlierRules | None = None
    health: HealthRules | None = None

    def of(self, *ids: str | MemberSpec) -> Plan:
        made = tuple(MemberSpec(one) if isinstance(one, str) else one for one in ids)
        return replace(self, members=made)


class Ask:
    def __init__(self, *tried: Member, key: int = 0, came_back_to: Member | None = None) -> None:
        self.key = key
        self.tried = tried
        self.came_back_to = came_back_to
        self.permits: list[tuple[Breaker, Permit]] = []

    def take_permit(self, breaker: Breaker, permit: Permit) -> None:
        self.permits.append((breaker, permit))


BREAKER = BreakerRules(window_calls=2, minimum_calls=2)
CHECKED = HealthRules(start="down")
OUTLIER = OutlierRules(consecutive_errors=2)


def serving(plan: Plan) -> Serving:
    return Serving(plan, 0.0, random.Random(1))


def picked(known: Serving, now: float = 1.0, times: int = 12) -> Counter[str]:
    """Who is picked."""
    found: Counter[str] = Counter()
    for _ in range(times):
        member = known.pick(Ask(), now)
        found[member.id if isinstance(member, Member) else repr(member)] += 1
    return found


def one(known: Serving, ask: Ask, now: float) -> Member:
    """The member that is picked."""
    found = known.pick(ask, now)
    assert isinstance(found, Member)
    return found


def member(known: Serving, url: str) -> Member:
    found = known.group.member(url)
    assert found is not None
    return found


def leaving(url: str) -> MemberSpec:
    return MemberSpec(url, leaving=True)


# -- instances that come and go --------------------------------------------------------------------


@pytest.mark.parametrize(
    "plan",
    [
        Plan(),
        Plan(breaker=Use(BREAKER, "instance"), outlier=OUTLIER, health=CHECKED),
        Plan(breaker=Use(BREAKER, "service")),
    ],
    ids=["bare", "by-instance", "by-service"],
)
def test_a_service_may_be_without_instances_and_come_by_some(plan):
    known = serving(plan)
    assert known.pick(Ask(), 1.0) is None
    known.take(plan.of("a", "b"), 1.0)
    for url in ("a", "b"):
        known.say(known.down, url, None, 1.0)
    assert set(picked(known)) == {"a", "b"}
    known.take(plan, 2.0)
    assert known.pick(Ask(), 2.0) is None
    assert not known.has("a")


def test_what_stays_keeps_what_is_known_of_it_and_what_comes_again_begins_anew():
    plan = Plan(breaker=Use(BREAKER, "instance"), outlier=OUTLIER).of("a", "b", "c")
    known = serving(plan)
    breaker = known.breakers["a"]
    for _ in range(2):
        permit = breaker.admit(1.0)
        assert isinstance(permit, Permit)
        breaker.fail(permit, 1.0, 0.1)
        known.note(member(known, "a"), True, 0.1, 1.0)
    assert "a" in known.ejected
    assert known.is_broken_at(1.0)
    known.take(plan.of("a", "c", "d"), 2.0)
    assert known.breakers["a"] is breaker
    assert "a" in known.ejected
    assert set(picked(known, 2.0)) == {"c", "d"}
    known.take(plan.of("c", "d"), 3.0)
    assert known.ejected == {}
    known.take(plan.of("a", "c", "d"), 4.0)
    assert not known.is_broken_at(4.0)
    assert set(picked(known, 4.0)) == {"a", "c", "d"}


def test_a_breaker_that_is_due_for_trials_is_not_open_though_nobody_calls():
    rules = BreakerRules(window_calls=2, minimum_calls=2, reset_s=10.0, jitter=0.0)
    known = serving(Plan(breaker=Use(rules, "service")).of("a"))
    assert known.breaker is not None
    for _ in range(2):
        got = known.breaker.admit(0.0)
        assert isinstance(got, Permit)
        known.breaker.fail(got, 0.0)
    assert known.is_broken_at(9.9)
    assert not known.is_broken_at(10.0)
    known.breaker.force_open(10.0)
    assert known.is_broken_at(1e6)


def test_a_member_that_has_gone_is_never_picked_though_a_client_comes_back_to_it():
    plan = Plan()
    known = serving(plan.of("a", "b"))
    gone = member(known, "a")
    known.group.started(gone)
    known.take(plan.of("b", "c"), 1.0)
    for _ in range(8):
        assert one(known, Ask(came_back_to=gone), 1.0).id in ("b", "c")
        assert one(known, Ask(member(known, "b"), gone), 1.0).id == "c"
    known.group.finished(gone, 0.1, False, 1.0)
    assert gone.in_flight == 0


def test_a_newcomer_of_a_running_service_starts_slowly_and_the_first_do_not():
    plan = Plan(balance_rules=BalanceRules(slow_start_s=10.0))
    known = serving(plan)
    known.take(plan.of("a", "b"), 1.0)
    assert picked(known, 1.0, 100) == {"a": 50, "b": 50}
    known.take(plan.of("a", "b", "c"), 2.0)
    assert 0 < picked(known, 2.0, 210)["c"] <= 15
    assert picked(known, 12.0, 30) == {"a": 10, "b": 10, "c": 10}


def test_keys_keep_their_homes_while_others_come_and_go():
    plan = Plan(balance_rules=BalanceRules(by="consistent_hash"))
    ids = [f"http://10.0.0.{n}:80" for n in range(20)]
    known = serving(plan.of(*ids))
    keys = [random.Random(n).getrandbits(64) for n in range(500)]
    before = [one(known, Ask(key=key), 1.0).id for key in keys]
    known.take(plan.of(*ids, "http://10.0.0.99:80"), 2.0)
    moved = [one(known, Ask(key=key), 2.0).id for key in keys]
    assert {new for old, new in zip(before, moved, strict=True) if new != old} == {
        "http://10.0.0.99:80"
    }
    known.take(plan.of(*ids), 3.0)
    assert [one(known, Ask(key=key), 3.0).id for key in keys] == before


# -- leaving ---------------------------------------------------------------------------------------


def test_who_leaves_gets_nothing_new_while_another_is_in_work():
    plan = Plan()
    known = serving(plan.of("a", leaving("b")))
    assert picked(known) == {"a": 12}
    known.take(plan.of("a", "b"), 2.0)
    assert picked(known, 2.0) == {"a": 6, "b": 6}


def test_who_leaves_is_asked_when_nobody_else_is_there():
    plan = Plan()
    known = serving(plan.of(leaving("a"), leaving("b")))
    assert picked(known) == {"a": 6, "b": 6}
    known.take(plan.of(leaving("a"), leaving("b"), "c"), 2.0)
    assert picked(known, 2.0) == {"c": 12}
    known.drain("c", "by hand", 3.0)
    assert picked(known, 3.0) == {"a": 6, "b": 6}
    known.drain("a", "by hand", 4.0)
    assert picked(known, 4.0) == {"b": 12}
    known.drain("c", None, 5.0)
    assert picked(known, 5.0) == {"c": 12}


def test_one_that_was_not_checked_yet_takes_the_place_of_no_one():
    plan = Plan(health=CHECKED)
    known = serving(plan.of("a"))
    known.say(known.down, "a", None, 1.0)
    known.take(plan.of(leaving("a"), "b"), 2.0)
    assert picked(known, 2.0) == {"a": 12}
    known.say(known.down, "b", None, 3.0)
    assert picked(known, 3.0) == {"b": 12}


# -- operators -------------------------------------------------------------------------------------


def test_a_drained_instance_stays_out_though_members_change():
    plan = Plan()
    known = serving(plan.of("a", "b"))
    known.drain("a", "by hand", 1.0)
    known.take(plan.of("a", "b", "c"), 2.0)
    assert set(picked(known, 2.0)) == {"b", "c"}
    known.take(plan.of("b", "c"), 3.0)
    known.take(plan.of("a", "b", "c"), 4.0)
    assert set(picked(known, 4.0)) == {"a", "b", "c"}  # whoever ordered it says it again


def test_an_operators_weight_holds_until_the_plan_says_another():
    plan = Plan()
    known = serving(plan.of("a", "b"))
    assert known.weigh("a", 2, 1, 1.0)
    assert picked(known) == {"a": 8, "b": 4}
    known.take(plan.of("a", "b", "c"), 2.0)
    assert picked(known, 2.0) == {"a": 6, "b": 3, "c": 3}
    known.take(plan.of(MemberSpec("a", 3), "b"), 3.0)
    assert picked(known, 3.0) == {"a": 9, "b": 3}
    assert known.weights == {}
    assert not known.weigh("a", 2, 1, 4.0)
    assert not known.weigh("unknown", 2, 1, 4.0)


# -- picking ---------------------------------------------------------------------------------------


def test_an_open_breaker_of_one_instance_leads_to_the_others_and_of_all_to_a_refusal():
    plan = Plan(breaker=Use(BREAKER, "instance")).of("a", "b")
    known = serving(plan)
    known.breakers["a"].force_open(1.0, "by hand")
    ask = Ask()
    assert {one(known, ask, 1.0).id for _ in range(4)} == {"b"}
    assert len(ask.permits) == 4
    known.breakers["b"].force_open(1.0, "by hand")
    assert isinstance(known.pick(Ask(), 1.0), Rejected)


def test_when_all_have_been_tried_one_is_tried_again():
    known = serving(Plan().of("a", "b"))
    assert one(known, Ask(*known.group.members), 1.0).id in ("a", "b")


# -- any order -------------------------------------------------------------------------------------

NAMES = "abcde"
SPECS = st.builds(
    MemberSpec,
    st.sampled_from(NAMES),
    st.integers(0, 3),
    st.integers(0, 1),
    st.just(""),
    st.booleans(),
)
STEPS = st.one_of(
    st.tuples(st.just("take"), st.lists(SPECS, max_size=5, unique_by=lambda spec: spec.id)),
    st.tuples(st.just("drain"), st.sampled_from(NAMES)),
    st.tuples(st.just("undrain"), st.sampled_from(NAMES)),
    st.tuples(st.just("down"), st.sampled_from(NAMES)),
    st.tuples(st.just("up"), st.sampled_from(NAMES)),
    st.tuples(st.just("weigh"), st.sampled_from(NAMES)),
    st.tuples(st.just("fail"), st.sampled_from(NAMES)),
)


@given(
    st.lists(STEPS, max_size=25),
    st.sampled_from(["round_robin", "consistent_hash", "least_connections", "peak_ewma"]),
    st.sampled_from([None, "instance", "service"]),
    st.booleans(),
)
def test_whatever_happens_a_pick_is_of_those_there_are_and_of_those_in_work(
    steps, by, per, is_checked
):
    plan = Plan(
        balance_rules=BalanceRules(by=by, slow_start_s=3.0),
        breaker=Use(BREAKER, per) if per else None,
        outlier=OUTLIER,
        health=CHECKED if is_checked else None,
    )
    known = serving(plan)
    specs: dict[str, MemberSpec] = {}
    drained: set[str] = set()
    for at, (what, said) in enumerate(steps):
        now = float(at)
        if what == "take":
            specs = {spec.id: spec for spec in said}
            drained &= specs.keys()
            known.take(plan.of(*said), now)
        elif said not in specs:
            continue  # whoever tells asks `has` first
        elif what == "drain":
            drained.add(said)
            known.drain(said, "by hand", now)
        elif what == "undrain":
            drained.discard(said)
            known.drain(said, None, now)
        elif what == "weigh":
            known.weigh(said, 2, specs[said].weight, now)
        elif what == "fail":
            known.note(member(known, said), True, 0.1, now)
        else:
            known.say(known.down, said, None if what == "up" else "checked", now)
        assert {member.id for member in known.group.members} == specs.keys()
        assert set(known.breakers) == (specs.keys() if per == "instance" else set())
        in_work = {
            url
            for url, spec in specs.items()
            if (spec.weight or url in known.weights)
            and url not in drained
            and url not in known.unchecked
        }
        stay = {url for url in in_work if not specs[url].leaving}
        for _ in range(3):
            found = known.pick(Ask(key=at), now)
            if isinstance(found, Member):
                assert found.id in (stay or in_work)
                assert found is known.group.member(found.id)
            elif found is None:
                # Slow start and panic leave somebody, unless nobody is in work.
                assert not (stay or in_work) or plan.balance_rules.panic == 0.0

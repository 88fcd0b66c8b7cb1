"""A service with the instances that were found beside those of its file."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.config import from_document
from headgate.plan.build import build, explain
from headgate.plan.members import NO_MEMBERS, Members, joined, read, worries
from headgate.plan.plan import Plan, ServicePlan
from headgate.policy.balancer import MemberSpec

A, B, C = "http://10.0.0.1:80", "http://10.0.0.2:80", "unix:/run/c.sock"


def plan_of(*instances: Any, discover: Any = "registry") -> Plan:
    document = {
        "listeners": [{"bind": "127.0.0.1:0"}],
        "services": {"users": {"instances": list(instances), "discover": discover}},
        "routes": [{"to": "users"}],
    }
    return build(from_document(document))


def service(*instances: Any) -> ServicePlan:
    return plan_of(*instances).services["users"]


def message(*rows: Any, epoch: Any = "e", revision: Any = 1) -> dict[str, Any]:
    found = [{"url": row} if isinstance(row, str) else row for row in rows]
    return {"service": "users", "epoch": epoch, "revision": revision, "members": found}


def members(*rows: Any) -> Members:
    found = read(message(*rows))
    assert found is not None
    return found


# -- reading ---------------------------------------------------------------------------------------


def test_a_row_becomes_an_instance_and_a_member():
    row = {"id": "i", "url": A, "weight": 3, "priority": 1, "zone": "south", "draining": True}
    found = members(row, C).found
    assert list(found) == [A, C]
    assert found[A].member == MemberSpec(A, 3, 1, "south", leaving=True)
    assert (found[A].instance.endpoint.host, found[A].instance.endpoint.port) == ("10.0.0.1", 80)
    assert found[C].member == MemberSpec(C)
    assert found[C].instance.endpoint.path == "/run/c.sock"


def test_what_is_told_again_is_the_same_object_and_what_has_changed_is_not():
    before = members(A, B)
    again = read(message({"url": A}, {"url": B, "weight": 2}, revision=2), before)
    assert again is not None
    assert again.found[A] is before.found[A]
    assert again.found[B].member.weight == 2
    assert again.found[B].instance.endpoint is before.found[B].instance.endpoint


def test_older_news_is_none_but_of_another_epoch_it_is():
    before = read(message(A, revision=5))
    assert before is not None
    assert read(message(B, revision=4), before) is None
    assert read(message(B, revision=5), before) is not None
    assert read(message(B, revision=1, epoch="f"), before) is not None


@pytest.mark.parametrize(
    "rows",
    [
        [{"url": A, "draining": True}, {"url": A, "weight": 2}],
        [{"url": A, "weight": 2}, {"url": A, "draining": True}],
        [{"url": A, "weight": 2}, {"url": A, "weight": 7}],
    ],
    ids=["leaves-first", "leaves-last", "both-stay"],
)
def test_two_at_one_place_are_one_that_stays(rows):
    found = members(*rows).found
    assert len(found) == 1
    assert found[A].member == MemberSpec(A, 2)


@pytest.mark.parametrize("row", [None, 3, [], "x", True, {"url": 1}, {"url": A, "weight": "1"}])
def test_a_row_that_cannot_be_read_is_named_and_left_out(row):
    said = message(B)
    said["members"].append(row)
    found = read(said)
    assert found is not None
    assert list(found.found) == [B]
    assert found.unread == 1
    assert found.fault


@pytest.mark.parametrize(
    "said",
    [
        {},
        message(A, epoch=1),
        message(A, revision="1"),
        message(A, revision=True),
        {**message(), "members": "http://10.0.0.1:80"},
        {**message(), "members": None},
        {**message(), "members": {A: {}}},
        {**message(A), "service": None},
        message("nonsense", {"url": None}),
    ],
    ids=[
        "empty",
        "epoch",
        "revision",
        "revision-bool",
        "text",
        "none",
        "mapping",
        "service",
        "no-row",
    ],
)
def test_a_message_of_which_nothing_can_be_read_is_refused(said):
    with pytest.raises((ValueError, KeyError, TypeError)):
        read(said, members(A))


def test_no_members_are_members_too():
    assert members().found == {}


ROWS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(A),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["url", "weight", "priority", "zone", "draining"]), inner)
    ),
    max_leaves=12,
)


@given(st.lists(ROWS, max_size=6))
def test_whatever_rows_there_are_what_is_read_is_sound(rows):
    try:
        found = read({**message(), "members": rows})
    except ValueError:
        return
    assert found is not None
    assert found.unread + len(found.found) <= len(rows)
    for url, one in found.found.items():
        assert one.instance.url == one.member.id == url
        assert 0 <= one.member.weight <= 1000
        assert isinstance(one.member.zone, str)


# -- joining ---------------------------------------------------------------------------------------


def test_a_service_without_instances_has_those_that_were_found():
    plan = service()
    assert (plan.instances, plan.members) == ((), ())
    assert joined(plan, NO_MEMBERS) is plan
    found = joined(plan, members(A, {"url": B, "weight": 2}))
    assert [one.url for one in found.instances] == [A, B]
    assert found.members == (MemberSpec(A), MemberSpec(B, 2))
    assert replace(found, instances=(), members=()) == plan


def test_what_the_file_says_of_an_instance_holds_but_its_leaving_is_heard():
    plan = service({"url": A, "weight": 5})
    found = joined(plan, members({"url": A, "weight": 1, "draining": True}, B))
    assert [one.url for one in found.instances] == [A, B]
    assert found.instances[0].weight == 5
    assert found.members == (MemberSpec(A, 5, leaving=True), MemberSpec(B))
    stays = joined(plan, members({"url": A, "weight": 1}))
    assert stays.members[0] is plan.members[0]


def test_a_place_that_the_file_writes_in_another_way_is_the_same_place():
    plan = service("http://10.0.0.1")
    found = joined(plan, members(A, B))
    assert [one.url for one in found.instances] == ["http://10.0.0.1", B]
    assert joined(plan, members({"url": A, "draining": True})).members[0].leaving


# -- for those who ask -----------------------------------------------------------------------------

WAYS = {"registry": True, "dns": {"name": "users.internal", "port": 80}, "directory": "found"}


def test_who_asks_for_a_service_that_has_nobody_is_told_how_instances_are_found():
    (said,) = worries(plan_of(discover=WAYS))
    assert said == (
        "users has no instance and answers 503: none has registered, its name in DNS gives none, "
        "its directory names none (discover: registry, dns users.internal, directory found)"
    )
    assert list(worries(plan_of(A))) == []


def test_explain_says_how_many_were_found_and_how():
    plan = plan_of()
    assert "none known, and 503 until one is; found by registry" in str(
        explain(plan, "GET", "/", [], "127.0.0.1")
    )
    found = joined(plan.services["users"], members(A, B))
    assert "2; found by registry  (from the service)" in str(
        explain(replace(plan, services={"users": found}), "GET", "/", [], "127.0.0.1")
    )

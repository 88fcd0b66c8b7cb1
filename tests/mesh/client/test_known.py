from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.mesh.client.known import Known, members_of
from headgate.mesh.registry.model import Change, Instance
from headgate.plan import calls
from headgate.plan.members import joined

A = Instance(service="users", id="a", url="http://127.0.0.1:1", revision=1)
B = Instance(service="users", id="b", url="http://127.0.0.1:2", revision=2)
C = Instance(service="orders", id="c", url="http://127.0.0.1:3", revision=3)


def known() -> Known:
    found = Known()
    found.take_all(["users", "orders"], "e", 3, [A, B, C])
    return found


def test_nothing_is_known_of_a_service_nobody_spoke_of():
    assert Known().of("users") is None
    assert Known().position == ""


def test_a_service_that_is_watched_and_has_no_instance_has_none():
    found = Known()
    assert found.take_all(["users"], "e", 3, []) == {"users"}
    assert found.of("users") == ()
    assert found.position == "e-3"


def test_telling_everything_again_changes_nothing():
    assert known().take_all(["users", "orders"], "e", 4, [A, B, C]) == set()


def test_instances_of_others_are_passed_over():
    found = Known()
    found.take_all(["users"], "e", 3, [A, C])
    assert found.of("users") == (A,)
    assert found.of("orders") is None


def test_a_change_comes_goes_and_changes():
    found = known()
    heavier = replace(A, weight=5)
    assert found.take_change(Change(4, 0.0, "changed", heavier)) == "users"
    assert found.of("users") == (heavier, B)
    assert found.take_change(Change(5, 0.0, "went", B)) == "users"
    assert found.of("users") == (heavier,)
    assert found.take_change(Change(6, 0.0, "came", B)) == "users"
    assert found.position == "e-6"


@pytest.mark.parametrize("revision", [1, 3])
def test_a_change_that_was_told_before_is_passed_over(revision):
    found = known()
    assert found.take_change(Change(revision, 0.0, "went", A)) is None
    assert found.of("users") == (A, B)


def test_a_change_of_a_service_that_is_not_watched_moves_the_position_only():
    found = Known()
    found.take_all(["users"], "e", 3, [A])
    assert found.take_change(Change(9, 0.0, "came", C)) is None
    assert (found.of("orders"), found.position) == (None, "e-9")


def test_what_is_late_is_kept_until_it_is_dropped():
    found = known()
    assert found.take_all(["users", "orders"], "e2", 1, [B], may_be_late=True) == set()
    assert found.of("users") == (B, A)
    found.take_change(Change(2, 0.0, "came", C))
    assert found.drop_late() == {"users"}
    assert (found.of("users"), found.of("orders")) == ((B,), (C,))
    assert found.drop_late() == set()


def test_what_is_kept_comes_back_without_its_place():
    found = Known.of_json(json.loads(json.dumps(known().to_json())))
    assert found.of("users") == (A, B)
    assert found.position == ""


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {"format": 2, "services": {}},
        {"format": 1},
        {"format": 1, "services": []},
        {"format": 1, "services": {"users": [1]}},
        {"format": 1, "services": {"users": [{"service": "users", "id": "a"}]}},
        {"format": 1, "services": {"users": [{"service": "u", "id": "a", "url": "ftp://x"}]}},
        {"format": 1, "services": {"u": [{**A.to_json(), "weight": "9"}]}},
    ],
    ids=["null", "list", "newer", "no-services", "list-of", "number", "no-url", "ftp", "weight"],
)
def test_what_is_no_list_of_instances_is_refused(content):
    with pytest.raises(ValueError):
        Known.of_json(content)


# ---- what the calls go by


def test_who_drains_or_is_down_is_leaving_and_a_suspect_is_not():
    found = (
        A,
        B,
        replace(C, state="draining"),
        Instance(service="users", id="d", url="http://127.0.0.1:4", health="down"),
        Instance(service="users", id="e", url="http://127.0.0.1:5", state="suspect"),
    )
    got = members_of(found)
    assert [one.member.leaving for one in got.found.values()] == [False, False, True, True, False]


def test_processes_that_share_an_address_leave_it_with_the_last_of_them():
    first, second = A, replace(A, id="a2")
    gone = replace(first, state="draining")

    def leaving(*instances: Instance) -> list[bool]:
        return [one.member.leaving for one in members_of(instances).found.values()]

    assert leaving(first, second) == [False]
    assert leaving(gone, second) == [False]
    assert leaving(second, gone) == [False]
    assert leaving(gone, replace(second, health="down")) == [True]


def test_what_has_not_changed_keeps_its_objects():
    before = members_of((A, B))
    after = members_of((A, replace(B, weight=2)), before)
    assert after.found[A.url] is before.found[A.url]
    assert after.found[B.url] is not before.found[B.url]


def test_calls_go_to_the_instances_of_the_file_and_of_the_registry():
    plan = joined(calls.unsaid("users", ["http://127.0.0.1:9"]), members_of((A, B)))
    assert [each.url for each in plan.instances] == ["http://127.0.0.1:9", A.url, B.url]


@given(
    st.lists(
        st.builds(
            Change,
            st.integers(1, 30),
            st.just(0.0),
            st.sampled_from(["came", "changed", "went"]),
            st.builds(
                Instance,
                service=st.sampled_from(["users", "orders"]),
                id=st.sampled_from(["a", "b"]),
                url=st.sampled_from(["http://127.0.0.1:1", "http://127.0.0.1:2"]),
            ),
        ),
        max_size=30,
    )
)
def test_the_same_changes_twice_are_the_same_as_once(changes):
    once, twice = Known(), Known()
    for found in (once, twice):
        found.take_all(["users", "orders"], "e", 0, [])
    for change in changes:
        once.take_change(change)
        twice.take_change(change)
        assert twice.take_change(change) is None
    assert (once.of("users"), once.revision) == (twice.of("users"), twice.revision)

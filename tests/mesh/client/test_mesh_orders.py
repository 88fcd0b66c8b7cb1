"""Orders of operators hold for those who call by a client or a sidecar, as at the gateway."""

from __future__ import annotations

import random
from typing import Any

import pytest

from headgate.mesh.client.orders import Orders, order_of
from headgate.mesh.sidecar.ordered import Ordered
from headgate.plan.calls import unsaid
from headgate.plan.members import joined, read
from headgate.policy.serving import Serving

A, B = "http://10.0.0.1:80", "http://10.0.0.2:80"


def drained(url: str = A, **more: Any) -> dict[str, Any]:
    row = {"what": "instance", "service": "users", "instance": url, "out": True, "why": "disk"}
    return {**row, "at": 5.0, "left_s": None, **more}


def weighed(weight: int, of_file: int = 1, **more: Any) -> dict[str, Any]:
    row = {"what": "weight", "service": "users", "instance": A, "weight": weight}
    return {**row, "of_file": of_file, "why": "", "at": 6.0, "left_s": None, **more}


def serving_of(*rows: dict[str, Any]) -> Serving:
    found = read({"service": "users", "epoch": "", "revision": 1, "members": list(rows)})
    assert found is not None
    return Serving(joined(unsaid("users"), found), 0.0, random.Random(1))


def both() -> Serving:
    return serving_of({"url": A}, {"url": B})


def picked(serving: Serving) -> set[str]:
    found = {serving.group.pick(1.0, at, ()) for at in range(40)}
    return {member.id for member in found if member is not None}


def test_a_drained_instance_gets_nothing_until_that_is_taken_back():
    orders, serving = Orders(), both()
    assert orders.take([drained()], 0.0) == {"users"}
    orders.onto("users", serving, 0.0)
    assert picked(serving) == {B}
    assert serving.drained == {A: "disk"}
    assert orders.take([], 1.0) == {"users"}
    orders.onto("users", serving, 1.0)
    assert picked(serving) == {A, B}


def test_an_ejected_instance_is_put_out_and_let_in_again():
    orders, serving = Orders(), both()
    orders.take([drained(what="eject")], 0.0)
    orders.onto("users", serving, 0.0)
    assert picked(serving) == {B}
    orders.take([], 0.0)
    orders.onto("users", serving, 0.0)
    assert picked(serving) == {A, B}


def test_an_operators_weight_stands_in_place_of_the_instances_own():
    orders, serving = Orders(), both()
    orders.take([weighed(40)], 0.0)
    orders.onto("users", serving, 0.0)
    assert {member.id: member.weight for member in serving.group.members} == {A: 40, B: 1}
    orders.take([weighed(40, of_file=7)], 0.0)  # the instance says another weight since
    orders.onto("users", serving, 0.0)
    assert serving.weights == {}


def test_an_order_ends_by_the_time_that_is_left_of_it():
    orders, serving = Orders(), both()
    orders.take([drained(left_s=30.0)], 100.0)
    assert orders.over(129.0) == set()
    assert orders.over(130.0) == {"users"}
    orders.onto("users", serving, 130.0)
    assert picked(serving) == {A, B}
    assert orders.over(500.0) == set()


def test_an_order_holds_again_for_an_instance_that_comes_back():
    orders = Orders()
    orders.take([drained()], 0.0)
    serving = serving_of({"url": B})
    orders.onto("users", serving, 0.0)  # it is not there
    assert serving.drained == {}
    found = read({"service": "users", "epoch": "", "revision": 2, "members": [{"url": A}]})
    assert found is not None
    serving.take(joined(unsaid("users"), found), 1.0)
    orders.onto("users", serving, 1.0)
    assert serving.drained == {A: "disk"}


@pytest.mark.parametrize(
    "row",
    [
        7,
        {},
        drained(service=3),
        drained(left_s="soon"),
        drained(left_s=True),
        drained(left_s=float("nan")),
        drained(at="now"),
        weighed(-1),
        weighed(4000),
        weighed(True),
        {**weighed(2), "of_file": "1"},
    ],
)
def test_rows_that_are_no_orders_are_left_out_and_the_others_hold(row, caplog):
    orders = Orders()
    orders.take([row, drained(B)], 0.0)
    assert [url for _, url in orders.of("users")] == [B]
    assert "cannot be read" in caplog.text


def test_orders_of_a_newer_control_say_nothing():
    assert order_of(drained(what="paint"), 0.0) is None
    assert order_of(drained(out=False), 0.0) is None


def test_a_sidecars_worker_is_told_what_is_given_and_what_is_taken_back():
    ordered = Ordered()
    names = {"users": "users", "orders": "orders.mesh"}
    own = {**drained(), "service": "orders", "left_s": 30.0}
    told = dict(ordered.messages([drained(), own, weighed(3), 7], names, 1000.0))
    assert [message["service"] for message in told.values()] == ["users", "orders.mesh", "users"]
    assert [message["until"] for message in told.values()] == [None, 1030.0, None]
    assert ordered.messages([drained(), own, weighed(3)], names, 1001.0) == []
    back = ordered.messages([weighed(5, at=7.0)], names, 1002.0)
    assert [(said["what"], said.get("out"), said.get("weight")) for _, said in back] == [
        ("instance", False, None),
        ("instance", False, None),
        ("weight", None, 5),
    ]
    assert all(said["at"] > 5.0 for _, said in back)
    [(_, last)] = ordered.messages([], names, 1003.0)
    assert (last["weight"], last["until"]) == (None, None)
    assert last["at"] > 7.0

"""Orders: judged, kept in a book, told once; pure."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.config import from_document
from headgate.control.orders import NoSuchThing, OrderRefused, Orders
from headgate.plan.build import build

A, B, C = "http://a:1", "http://b:1", "http://c:1"
DOCUMENT: dict[str, Any] = {
    "listeners": [{"bind": "127.0.0.1:1"}],
    "services": {
        "users": {"instances": [A, B, C], "breaker": True},
        "alone": {"instances": [A]},
        "old": {"instances": [A]},
        "new": {"instances": [B]},
    },
    "degrade": {"flags": {"tips": "on"}},
    "routes": [
        {"name": "canary", "match": {"path": "/c/"}, "to": {"old": "90%", "new": "10%"}},
        {"name": "users", "match": {"path": "/"}, "to": "users", "flag": "tips"},
    ],
}


class Desk:
    """Orders with a clock that stands, and what was told."""

    def __init__(self) -> None:
        self.wall = 1000.0
        self.told: list[tuple[dict[str, Any], str | None]] = []
        self.plan = build(from_document(DOCUMENT))
        self.orders = Orders(
            lambda: self.plan, lambda order, subject: self.told.append((order, subject)), self.now
        )

    def now(self) -> float:
        return self.wall

    def take_weight(self, weight: int) -> None:
        first, *rest = DOCUMENT["services"]["users"]["instances"]
        users = {"instances": [{"url": first, "weight": weight}, *rest], "breaker": True}
        services = {**DOCUMENT["services"], "users": users}
        self.plan = build(from_document({**DOCUMENT, "services": services}))
        self.orders.settle()

    @property
    def standing(self) -> list[str]:
        return [given.subject for given in self.orders.standing()]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_the_same_order_is_told_once(desk: Desk):
    first = desk.orders.instance("users", A, out=True, why="disk")
    again = desk.orders.instance("users", A, out=True, why="disk")
    assert (first.is_new, again.is_new) == (True, False)
    assert first.id == again.id
    assert len(desk.told) == 1


def test_the_same_order_with_an_end_begins_anew(desk: Desk):
    desk.orders.instance("users", A, out=True, why="", for_s=10.0)
    desk.wall += 5
    again = desk.orders.instance("users", A, out=True, why="", for_s=10.0)
    assert again.is_new
    assert again.order["until"] == 1015.0
    assert len(desk.standing) == 1


def test_an_order_that_is_over_stands_no_more(desk: Desk):
    desk.orders.breaker("users", "open", "", for_s=10.0)
    assert desk.standing == ["breaker users"]
    desk.wall += 10
    assert desk.standing == []


def test_revisions_grow_also_when_the_clock_is_set_back(desk: Desk):
    one = desk.orders.breaker("users", "open", "")
    desk.wall -= 500
    two = desk.orders.breaker("users", "disable", "")
    assert two.order["at"] > one.order["at"]


@pytest.mark.parametrize("do", ["close", "automatic", "reset"])
def test_a_breaker_that_goes_by_its_rules_has_no_order(desk: Desk, do: Any):
    desk.orders.breaker("users", "open", "")
    desk.orders.breaker("users", do, "")
    assert desk.standing == []


def test_each_kind_is_withdrawn(desk: Desk):
    orders = desk.orders
    orders.breaker("users", "open", "")
    orders.instance("users", A, out=True, why="")
    orders.eject("users", B, out=True, why="", for_s=60)
    orders.weight("users", C, 5, why="")
    orders.split("canary", "old", "new", 0.5, 0.0)
    orders.flag("tips", 0.0, None, "")
    orders.level(2, None, "")
    assert len(desk.standing) == 7
    for given in orders.standing():
        orders.withdraw(given.id)
    assert desk.standing == []
    ends = {order["what"]: order for order, _ in desk.told[7:]}
    assert ends["breaker"]["do"] == "automatic"
    assert ends["instance"]["out"] is False
    assert ends["eject"]["readmit"] is False
    assert ends["weight"]["weight"] is None
    assert ends["split"]["steps"] == []
    assert ends["flag"]["share"] is None
    assert ends["level"]["level"] is None
    assert all(order["until"] is None for order in ends.values())


def test_a_book_that_begins_anew_hears_what_stands(desk: Desk):
    desk.orders.instance("users", A, out=True, why="disk", by="somebody")
    heard = Desk()
    for order, _ in desk.told:
        heard.orders.hear(order)
    assert [given.order for given in heard.orders.standing()] == [desk.told[0][0]]
    assert not heard.orders.instance("users", A, out=True, why="disk").is_new


def test_the_file_has_the_last_word_on_a_weight(desk: Desk):
    desk.orders.weight("users", A, 5, why="")
    desk.take_weight(1)
    assert desk.standing == [f"weight users {A}"]
    desk.take_weight(2)
    assert desk.standing == []
    desk.take_weight(1)
    assert desk.standing == []


@pytest.mark.parametrize("last", ["instance", "eject"])
def test_the_last_one_in_work_is_not_taken_out(desk: Desk, last: str):
    desk.orders.instance("users", A, out=True, why="")
    desk.orders.eject("users", B, out=True, why="", for_s=60)
    with pytest.raises(OrderRefused, match="last instance of users that is in work"):
        if last == "instance":
            desk.orders.instance("users", C, out=True, why="")
        else:
            desk.orders.eject("users", C, out=True, why="", for_s=60)
    desk.wall += 61  # the ejection is over
    assert desk.orders.instance("users", C, out=True, why="").is_new


@pytest.mark.parametrize(
    ("give", "words"),
    [
        (lambda o: o.weight("users", A, 0, why=""), "drain it instead"),
        (lambda o: o.weight("users", A, 1001, why=""), "1001 is no weight"),
        (lambda o: o.weight("alone", A, 5, why=""), "the only instance of alone"),
        (lambda o: o.eject("users", A, out=True, why=""), "has an end"),
        (lambda o: o.eject("users", A, out=True, why="", for_s=1e6), "within a day"),
        (lambda o: o.breaker("users", "open", "", for_s=1e12), "366 days"),
        (lambda o: o.breaker("usres", "open", ""), 'did you mean "users"'),
        (lambda o: o.withdraw("breaker-0"), "no order that stands"),
    ],
    ids=["zero", "heavy", "alone", "endless", "long", "for-ever", "typo", "none"],
)
def test_what_makes_no_sense_is_refused(desk: Desk, give: Any, words: str):
    with pytest.raises(OrderRefused, match=words):
        give(desk.orders)
    assert not desk.told


def test_what_does_not_exist_is_told_from_what_cannot_be(desk: Desk):
    with pytest.raises(NoSuchThing):
        desk.orders.withdraw("flag tips")


def test_an_order_of_a_newer_version_is_passed_over(desk: Desk):
    desk.orders.hear({"what": "something new"})
    assert desk.standing == []

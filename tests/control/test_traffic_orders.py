"""What an operator tells a running gateway about its traffic, and what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from headgate.control.client import Refused
from tests.control.running import wait_until
from tests.control.serving import Instance, Serving, Visitor, serving, soon

pytestmark = pytest.mark.integration

FALLBACK = {"respond": {"status": 200, "body": "instead"}}
NAMES = ("a", "b", "well", "sick", "good", "bad", "old", "new", "one", "two")


@pytest.fixture(scope="module")
def instances() -> Iterator[dict[str, Instance]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(Instance(name)) for name in NAMES}


@pytest.fixture(scope="module")
def gateway(
    instances: dict[str, Instance], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    def urls(*names: str) -> list[str]:
        return [instances[name].url for name in names]

    health = {"path": "/ready", "every": "50ms", "fall": 1, "rise": 1}
    routes: list[dict[str, Any]] = [
        {"name": "limited", "match": {"path": "/limited/"}, "respond": {"body": "in time"}},
        {"name": "tips", "match": {"path": "/tips/"}, "to": "users", "flag": "tips"},
        {"name": "news", "match": {"path": "/news/"}, "to": "users"},
        {"name": "canary", "match": {"path": "/canary/"}, "to": {"old": "100%", "new": "0%"}},
        {"name": "checked", "match": {"path": "/checked/"}, "to": "checked"},
        {"name": "watched", "match": {"path": "/watched/"}, "to": "watched"},
        {"name": "paired", "match": {"path": "/paired/"}, "to": "paired"},
        {"name": "users", "match": {"path": "/users/"}, "to": "users"},
    ]
    routes[0]["limit"] = {"rate": "3/24h", "by": "header:x-who", "name": "who"}
    routes[1]["fallback"] = routes[2]["fallback"] = FALLBACK
    with serving(
        tmp_path_factory.mktemp("orders"),
        services={
            "users": {"instances": urls("a", "b"), "breaker": True},
            "checked": {"instances": urls("well", "sick"), "health": health},
            "watched": {
                "instances": urls("good", "bad"),
                "outlier": {"errors": 3, "eject": "1h"},
            },
            "paired": {"instances": urls("one", "two"), "breaker": {"per": "instance"}},
            "old": {"instances": urls("old")},
            "new": {"instances": urls("new")},
        },
        routes=routes,
        degrade={"flags": {"tips": "on"}},
    ) as gateway:
        yield gateway


@pytest.fixture
def visitors(gateway: Serving) -> list[Visitor]:
    """One for each worker."""
    return list(gateway.visitors().values())


def statuses(visitors: list[Visitor], path: str) -> set[int]:
    return {visitor.status(path) for visitor in visitors}


def bodies(visitors: list[Visitor], path: str, times: int = 1) -> set[str]:
    return {visitor.get(path)[1] for visitor in visitors for _ in range(times)}


def breaker(gateway: Serving, name: str = "users") -> dict[str, Any]:
    (found,) = [each for each in gateway.ask("/api/breakers") if each["name"] == name]
    assert isinstance(found, dict)
    return found


def service(gateway: Serving, name: str) -> dict[str, dict[str, Any]]:
    """The instances of a service by URL."""
    (found,) = [each for each in gateway.ask("/api/services") if each["name"] == name]
    return {each["url"]: each for each in found["instances"]}


def refusal(gateway: Serving, path: str, **order: Any) -> str:
    with pytest.raises(Refused) as refused:
        gateway.post(path, **order)
    assert refused.value.status == 422
    return str(refused.value)


# -- breakers


def test_a_breaker_is_opened_and_closed_in_every_worker_within_a_second(
    gateway: Serving, visitors: list[Visitor]
):
    def order(do: str) -> Any:
        return lambda: gateway.post("/api/breakers", name="users", do=do, why="the database moves")

    def answers(status: int) -> Any:
        return lambda: statuses(visitors, "/users/") == {status}

    soon(order("open"), answers(503), undo=order("automatic"))
    said = breaker(gateway)
    assert said["state"] == "forced_open"
    assert said["rejected_total"] >= 2
    assert said["history"][-1] == {
        "before": "closed",
        "after": "forced_open",
        "why": "the database moves",
    }
    soon(order("close"), answers(200), undo=order("open"))
    assert breaker(gateway)["state"] == "closed"
    order("automatic")()
    wait_until(lambda: breaker(gateway)["history"][-1]["why"] == "the database moves")
    assert breaker(gateway)["state"] == "closed"


@pytest.mark.parametrize(
    ("do", "state"), [("disable", "disabled"), ("metrics_only", "metrics_only")]
)
def test_a_breaker_can_be_told_not_to_reject(gateway: Serving, do: str, state: str):
    gateway.post("/api/breakers", name="users", do=do)
    wait_until(lambda: breaker(gateway)["state"] == state)
    gateway.post("/api/breakers", name="users", do="automatic")
    wait_until(lambda: breaker(gateway)["state"] == "closed")


def test_a_worker_that_starts_later_hears_what_was_ordered(gateway: Serving):
    gateway.post("/api/breakers", name="users", do="open")
    gateway.post("/api/flags", name="tips", share=0)
    fresh = gateway.kill_worker(gateway.worker_pids()[0])
    visitor = gateway.visitors()[fresh]
    wait_until(lambda: visitor.status("/users/") == 503)
    wait_until(lambda: visitor.get("/tips/") == (200, "instead"))
    # An order taken back is an order too.
    gateway.post("/api/breakers", name="users", do="automatic")
    gateway.post("/api/flags", name="tips", share=None)
    fresh = gateway.kill_worker(fresh)
    visitor = gateway.visitors()[fresh]
    wait_until(lambda: visitor.status("/users/") == 200)
    wait_until(lambda: visitor.get("/tips/")[1] in {"a", "b"})


def test_one_instance_has_a_breaker_by_its_own_name(
    gateway: Serving, visitors: list[Visitor], instances: dict[str, Instance]
):
    name = f"paired {instances['one'].url}"
    gateway.post("/api/breakers", name=name, do="open")
    wait_until(lambda: bodies(visitors, "/paired/", 4) == {"two"})
    assert breaker(gateway, name)["state"] == "forced_open"
    gateway.post("/api/breakers", name=name, do="automatic")
    wait_until(lambda: bodies(visitors, "/paired/", 4) == {"one", "two"})


# -- instances


def test_an_instance_is_taken_out_of_every_worker_and_put_back(
    gateway: Serving, visitors: list[Visitor], instances: dict[str, Instance]
):
    url = instances["a"].url

    def order(*, out: bool) -> Any:
        return lambda: gateway.post(
            "/api/instances", service="users", instance=url, out=out, why="new kernel"
        )

    def names(*expected: str) -> Any:
        return lambda: bodies(visitors, "/users/", 4) == set(expected)

    soon(order(out=True), names("b"), undo=order(out=False))
    said = service(gateway, "users")[url]
    assert (said["workers_out"], said["why_out"]) == (2, "new kernel")
    soon(order(out=False), names("a", "b"), undo=order(out=True))
    wait_until(lambda: service(gateway, "users")[url]["workers_out"] == 0)


def test_an_instance_that_is_out_stays_out_of_a_worker_that_starts_later(
    gateway: Serving, instances: dict[str, Instance]
):
    url = instances["b"].url
    gateway.post("/api/instances", service="users", instance=url)
    fresh = gateway.kill_worker(gateway.worker_pids()[0])
    visitor = gateway.visitors()[fresh]
    wait_until(lambda: bodies([visitor], "/users/", 4) == {"a"})
    gateway.post("/api/instances", service="users", instance=url, out=False)
    wait_until(lambda: bodies([visitor], "/users/", 4) == {"a", "b"})


# -- splits


def test_a_split_is_shifted_in_every_worker(gateway: Serving, visitors: list[Visitor]):
    assert bodies(visitors, "/canary/", 5) == {"old"}

    def shift(source: str, target: str) -> Any:
        return lambda: gateway.post("/api/splits", route="canary", source=source, target=target)

    soon(
        shift("old", "new"),
        lambda: bodies(visitors, "/canary/", 5) == {"new"},
        undo=shift("new", "old"),
    )
    shift("new", "old")()
    wait_until(lambda: bodies(visitors, "/canary/", 5) == {"old"})


def test_a_split_moves_little_by_little(gateway: Serving):
    def moved() -> list[float]:
        return [
            weights["new"]
            for worker in gateway.policies().values()
            for weights in worker["splits"].values()
        ]

    order = {"route": "canary", "source": "old", "target": "new", "share": 0.5}
    gateway.post("/api/splits", **order, over="10min")
    shares = wait_until(lambda: all(moved()) and moved())
    assert len(shares) == 2
    assert max(shares) < 0.5
    gateway.post("/api/splits", route="canary", source="new", target="old")
    wait_until(lambda: moved() == [0.0, 0.0])


# -- flags and levels


def test_a_flag_is_switched_in_every_worker(gateway: Serving, visitors: list[Visitor]):
    def order(share: float | None) -> Any:
        return lambda: gateway.post("/api/flags", name="tips", share=share)

    soon(order(0), lambda: bodies(visitors, "/tips/", 2) == {"instead"}, undo=order(None))
    order(None)()
    wait_until(lambda: bodies(visitors, "/tips/", 2) <= {"a", "b"})


def test_a_flag_that_is_held_for_a_while_goes_back_by_itself(
    gateway: Serving, visitors: list[Visitor]
):
    def order(hold: str) -> Any:
        return lambda: gateway.post("/api/flags", name="tips", share=0, hold=hold)

    order("1h")()
    wait_until(lambda: bodies(visitors, "/tips/", 2) == {"instead"})
    order("10ms")()
    wait_until(lambda: bodies(visitors, "/tips/", 2) <= {"a", "b"})


def test_a_level_is_set_by_hand_in_every_worker(gateway: Serving, visitors: list[Visitor]):
    def order(level: int | None) -> Any:
        return lambda: gateway.post("/api/degrade", level=level, why="a flood")

    soon(order(2), lambda: bodies(visitors, "/news/", 2) == {"instead"}, undo=order(None))
    for worker in gateway.policies().values():
        assert worker["degrade"]["name"] == "fallback"
        (reason,) = worker["degrade"]["reasons"]
        assert (reason["source"], reason["why"]) == ("hand", "a flood")
    order(None)()
    wait_until(lambda: bodies(visitors, "/news/", 2) <= {"a", "b"})


# -- orders that make no sense


@pytest.mark.parametrize(
    ("path", "order", "words"),
    [
        (
            "/api/breakers",
            {"name": "usres", "do": "open"},
            'no circuit breaker named "usres"; did you mean "users"?',
        ),
        (
            "/api/instances",
            {"service": "userz", "instance": "http://x"},
            'no service named "userz"; did you mean "users"?',
        ),
        (
            "/api/instances",
            {"service": "users", "instance": "http://10.0.0.1"},
            'no instance of users named "http://10.0.0.1"',
        ),
        (
            "/api/splits",
            {"route": "canarry", "source": "old", "target": "new"},
            'no route with a split named "canarry"; did you mean "canary"?',
        ),
        (
            "/api/splits",
            {"route": "canary", "source": "odl", "target": "new"},
            'no service of canary\'s split named "odl"; did you mean "old"?',
        ),
        (
            "/api/splits",
            {"route": "canary", "source": "new", "target": "new"},
            "source and target are the same",
        ),
        (
            "/api/splits",
            {"route": "canary", "source": "old", "target": "new", "over": "soon"},
            "soon",
        ),
        (
            "/api/splits",
            {"route": "canary", "source": "old", "target": "new", "share": 1.5},
            "1.5",
        ),
        (
            "/api/flags",
            {"name": "tipps", "share": 0},
            'no flag named "tipps"; did you mean "tips"?',
        ),
        ("/api/flags", {"name": "tips", "share": -1}, "-1"),
        ("/api/flags", {"name": "tips", "share": 0, "hold": "0s"}, "for no time"),
        ("/api/degrade", {"level": 9}, "no level 9; the highest is 3"),
        ("/api/degrade", {"level": -1}, "no level -1"),
        ("/api/breakers", {"name": "users", "do": "explode"}, ""),
    ],
)
def test_what_does_not_exist_is_refused_with_a_suggestion(
    gateway: Serving, path: str, order: dict[str, Any], words: str
):
    assert words in refusal(gateway, path, **order)


def test_the_only_instance_of_a_service_is_not_taken_out(
    gateway: Serving, instances: dict[str, Instance]
):
    said = refusal(gateway, "/api/instances", service="old", instance=instances["old"].url)
    assert "the only instance of old" in said


# -- what it says of itself


def test_services_say_which_instance_fails_its_checks(
    gateway: Serving, visitors: list[Visitor], instances: dict[str, Instance]
):
    sick = instances["sick"]
    sick.health = 503

    def said() -> dict[str, Any]:
        return service(gateway, "checked")[sick.url]

    wait_until(lambda: said()["workers_out"] == 2)
    assert "status 503" in said()["why_out"]
    assert said()["health"].startswith("down since")
    assert bodies(visitors, "/checked/", 4) == {"well"}
    assert service(gateway, "checked")[instances["well"].url]["workers_out"] == 0
    done = gateway.command("explain", "GET", "/checked/", "--live")
    assert f"{sick.url} is out in 2 of 2 workers: {said()['why_out']}" in done.stdout, done
    sick.health = 200
    wait_until(lambda: said()["workers_out"] == 0)
    assert said()["why_out"] is None
    assert bodies(visitors, "/checked/", 4) == {"well", "sick"}
    assert "is out" not in gateway.command("explain", "GET", "/checked/", "--live").stdout


def test_services_say_which_instance_was_put_out_for_its_answers(
    gateway: Serving, visitors: list[Visitor], instances: dict[str, Instance]
):
    bad = instances["bad"]
    bad.status = 500
    first = visitors[0]  # the other worker hears of it

    def is_out() -> bool:
        first.get("/watched/")
        return bool(service(gateway, "watched")[bad.url]["workers_out"] == 2)

    wait_until(is_out)
    bad.status = 200
    assert bodies(visitors, "/watched/", 4) == {"good"}
    why = service(gateway, "watched")[bad.url]["why_out"]
    assert "3 errors in a row" in why
    done = gateway.command("explain", "GET", "/watched/", "--live")
    assert f"{bad.url} is out in 2 of 2 workers: " in done.stdout


def test_limits_are_told_over_all_workers(gateway: Serving, visitors: list[Visitor]):
    def said() -> dict[str, Any]:
        (found,) = [row for row in gateway.ask("/api/limits") if row["id"] == "route/limited/who"]
        assert isinstance(found, dict)
        return found

    before = said()
    assert before["home"] == "shared"
    seen = [visitor.status("/limited/", x_who="anna") for _ in range(3) for visitor in visitors]
    assert seen.count(200) == 3
    after = said()
    assert after["allowed"] - before["allowed"] == 3
    assert after["refused"] - before["refused"] == 3
    assert after["keys"] - before["keys"] == 1

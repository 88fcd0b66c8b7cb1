"""What the workers of one gateway know together: limits, breakers, ejections, health."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.control.running import wait_until
from tests.control.serving import Instance, Serving, Visitor, serving, soon

pytestmark = pytest.mark.integration

ALGORITHMS = ("gcra", "token_bucket", "sliding_window", "sliding_log", "fixed_window")
TEN = 10


@pytest.fixture
def instance() -> Iterator[Instance]:
    with Instance("one") as instance:
        yield instance


@pytest.fixture
def other() -> Iterator[Instance]:
    with Instance("two") as instance:
        yield instance


def limited(rate: str = "10/24h", name: str = "limited", **more: Any) -> dict[str, Any]:
    """A route that counts each `x-who` by itself."""
    return {
        "name": name,
        "match": {"path": f"/{name}/"},
        "respond": {"body": "in time"},
        "limit": {"rate": rate, "by": "header:x-who", **more},
    }


def alternately(visitors: list[Visitor], times: int, path: str, who: str) -> list[int]:
    return [visitor.status(path, x_who=who) for _ in range(times) for visitor in visitors]


def spend(visitors: list[Visitor], path: str, who: str, limit: int) -> None:
    """The limit passes, and no more. To be asked with `when_away: closed` where it must be exact:
    on a busy machine control may be late, and workers decide alone for a second.
    """
    seen: list[int] = []

    def passed() -> int:
        seen.extend(alternately(visitors, 1, path, who))
        return seen.count(200)

    wait_until(lambda: passed() >= limit)
    seen.extend(alternately(visitors, 2 * limit, path, who))
    assert seen.count(200) == limit, (path, who, seen)


def wait_shared(visitors: list[Visitor]) -> None:
    """Until each worker may allow the whole limit: for a moment after control has come, each still
    decides alone.
    """
    tried = count()

    def all_pass(visitor: Visitor) -> bool:
        seen = alternately([visitor], TEN, "/limited/", f"try {next(tried)}")
        return seen == [200] * TEN

    for visitor in visitors:
        wait_until(partial(all_pass, visitor))


def ask_until(visitor: Visitor, what: Callable[[], bool]) -> None:
    def asked() -> bool:
        visitor.get()
        return what()

    wait_until(asked)


def is_open_to(visitor: Visitor) -> bool:
    return visitor.status("/shaky") == 503


def out(gateway: Serving, service: str) -> list[dict[str, str]]:
    """By worker: which instances are out, and why."""
    return [worker["services"][service]["out"] for worker in gateway.policies().values()]


# -- limits


def test_two_workers_allow_exactly_the_limit_whoever_is_asked(tmp_path: Path):
    def strict(rate: str, name: str, **more: Any) -> dict[str, Any]:
        return limited(rate, name, when_away="closed", **more)

    routes = [strict("5/24h", algorithm, algorithm=algorithm) for algorithm in ALGORITHMS]
    with serving(tmp_path, routes=[*routes, strict("5/min", "minute")]) as gateway:
        first, second = visitors = list(gateway.visitors().values())
        for path in ("/minute/", *(f"/{algorithm}/" for algorithm in ALGORITHMS)):
            spend(visitors, path, "both", 5)
            spend([first], path, "one", 5)
            spend([second], path, "two", 5)


def test_a_worker_that_takes_the_place_of_another_allows_nothing_more(tmp_path: Path):
    with serving(tmp_path, routes=[limited()]) as gateway:
        visitors = list(gateway.visitors().values())
        wait_shared(visitors)
        alternately(visitors, 2 * TEN, "/limited/", "anna")
        os.kill(gateway.worker_pids()[0], signal.SIGKILL)
        seen = []
        for _ in range(40):  # what the kernel gives to the dead one waits for its successor
            visitor = Visitor(gateway)
            seen.append(visitor.status("/limited/", x_who="anna"))
            visitor.close()
        assert set(seen) == {429}, seen


def test_limits_go_on_while_control_is_gone_and_come_back(tmp_path: Path):
    """Each worker spends its own share then, and what was spent counts when control is back."""
    with serving(tmp_path, routes=[limited()]) as gateway:
        visitors = list(gateway.visitors().values())
        wait_shared(visitors)
        control = gateway.control_pid()
        # Stopped before it is killed: its successor would be there too soon.
        os.kill(control, signal.SIGSTOP)
        for visitor in visitors:
            seen = alternately([visitor], TEN, "/limited/", "anna")
            assert seen == [200] * 5 + [429] * 5, seen
        os.kill(control, signal.SIGKILL)
        wait_until(lambda: gateway.control_pid() not in {0, control})
        wait_shared(visitors)
        # Both have told the new one what they spent alone.
        assert set(alternately(visitors, TEN, "/limited/", "anna")) == {429}
        gateway.wait_linked()
        wait_shared(visitors)


def test_no_request_is_lost_when_control_is_killed(tmp_path: Path):
    with serving(tmp_path, routes=[limited("100000/s")]) as gateway:
        visitors = gateway.visitors()
        seen: list[int] = []
        stop = threading.Event()

        def ask(visitor: Visitor) -> None:
            while not stop.is_set():
                seen.append(visitor.status("/limited/", x_who="anna"))

        threads = [threading.Thread(target=ask, args=(each,)) for each in visitors.values()]
        for thread in threads:
            thread.start()
        try:
            for _ in range(2):
                wait_until(gateway.control_pid)
                control, asked = gateway.control_pid(), len(seen)
                os.kill(control, signal.SIGKILL)
                wait_until(lambda: gateway.control_pid() not in {0, control})
                wait_until(lambda: len(seen) > asked + 50)
                gateway.wait_linked()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert set(seen) == {200}


def test_seats_that_a_killed_worker_had_are_free(tmp_path: Path, instance: Instance):
    route = {
        "name": "seats",
        "match": {"path": "/"},
        "to": "users",
        "limit": {"concurrency": 2, "by": "route", "name": "seats"},
    }
    services = {"users": {"instances": [instance.url]}}
    with serving(tmp_path, services=services, routes=[route, limited()]) as g:
        visitors = g.visitors()
        wait_shared(list(visitors.values()))
        (first, holder), (second, asker) = visitors.items()
        instance.hold()
        holder.begin("/a")

        def is_full() -> bool:
            if instance.held < 2:
                g.visitor_of(first).begin("/b")
            return instance.held == 2

        wait_until(is_full)
        assert asker.status("/c") == 429
        g.kill_worker(first)
        instance.let_go()
        wait_until(lambda: asker.status("/d") == 200)
        assert second in g.worker_pids()


# -- breakers and ejections


def test_a_breaker_that_opens_in_one_worker_opens_in_the_others(tmp_path: Path, instance: Instance):
    breaker = {"window": "10 calls", "minimum_calls": 5, "reset_after": "10min"}
    services = {"users": {"instances": [instance.url], "breaker": breaker}}
    with serving(tmp_path, services=services) as gateway:
        first, second = gateway.visitors().values()

        def fail() -> None:
            instance.status = 500
            assert [first.status() for _ in range(5)] == [500] * 5
            assert first.status() == 503
            instance.status = 200

        def heal() -> None:
            gateway.post("/api/breakers", name="users", do="close")
            wait_until(lambda: first.status() == second.status() == 200)
            gateway.post("/api/breakers", name="users", do="automatic")
            wait_until(lambda: gateway.ask("/api/breakers")[0]["state"] == "closed")

        soon(fail, lambda: second.status() == 503, undo=heal)
        served = instance.served
        assert {first.status() for _ in range(5)} == {503}
        assert {second.status() for _ in range(5)} == {503}
        assert instance.served == served
        (said,) = gateway.ask("/api/breakers")
        assert said["state"] == "open"
        assert said["retry_after_s"] > 500
        heard = [
            moved["why"]
            for worker in gateway.policies().values()
            for breaker in worker["services"]["users"]["breakers"]
            for moved in breaker["history"]
            if moved["after"] == "open"
        ]
        assert any(why.startswith("a peer: ") for why in heard), heard


def test_an_instance_that_one_worker_puts_out_is_out_in_the_others(
    tmp_path: Path, instance: Instance, other: Instance
):
    services = {
        "users": {
            "instances": [instance.url, other.url],
            "outlier": {"errors": 3, "eject": "10min"},
        }
    }
    with serving(tmp_path, services=services) as gateway:
        first, second = gateway.visitors().values()
        other.status = 500
        ask_until(first, lambda: all(out(gateway, "users")))
        served = other.served
        assert {second.get()[1] for _ in range(10)} == {"one"}
        assert other.served == served


def test_a_worker_that_starts_later_knows_what_is_open_and_what_is_out(
    tmp_path: Path, instance: Instance, other: Instance
):
    breaker = {"window": "5 calls", "minimum_calls": 5, "reset_after": "10min"}
    ejecting = {"errors": 3, "eject": "10min"}
    config: dict[str, Any] = {
        "services": {
            "users": {"instances": [instance.url, other.url], "outlier": ejecting},
            "shaky": {"instances": [instance.url], "breaker": breaker},
        },
        "routes": [
            {"name": "shaky", "match": {"path": "/shaky"}, "to": "shaky"},
            {"name": "users", "to": "users"},
        ],
    }
    with serving(tmp_path, **config) as gateway:
        first, second = gateway.visitors().items()
        other.status = 500
        ask_until(first[1], lambda: all(out(gateway, "users")))
        instance.status = 500
        assert [first[1].status("/shaky") for _ in range(5)] == [500] * 5
        instance.status = other.status = 200
        # The one that found it all out goes too: what it said stays.
        for pid, _ in (second, first):
            fresh = gateway.visitor_of(gateway.kill_worker(pid))
            wait_until(partial(is_open_to, fresh))
            wait_until(lambda: [list(each) for each in out(gateway, "users")] == [[other.url]] * 2)
            assert {fresh.get()[1] for _ in range(5)} == {"one"}

        # What an operator has ended is not told to those who come later.
        gateway.post("/api/breakers", name="shaky", do="close")
        wait_until(lambda: gateway.ask("/api/breakers")[0]["state"] == "closed")
        gateway.post("/api/breakers", name="shaky", do="automatic")
        fresh = gateway.visitor_of(gateway.kill_worker(gateway.worker_pids()[0]))
        wait_until(lambda: [list(each) for each in out(gateway, "users")] == [[other.url]] * 2)
        assert fresh.status("/shaky") == 200


# -- health


def test_health_is_told_to_all_workers_and_to_one_that_starts_later(
    tmp_path: Path, instance: Instance, other: Instance
):
    services = {
        "users": {
            "instances": [instance.url, other.url],
            "health": {"path": "/ready", "every": "50ms", "fall": 1, "rise": 1},
        }
    }
    with serving(tmp_path, services=services) as gateway:
        visitors = gateway.visitors()
        other.health = 503
        wait_until(lambda: [list(each) for each in out(gateway, "users")] == [[other.url]] * 2)
        assert {each.get()[1] for each in visitors.values() for _ in range(5)} == {"one"}

        fresh = gateway.kill_worker(next(iter(visitors)))
        wait_until(lambda: [list(each) for each in out(gateway, "users")] == [[other.url]] * 2)
        visitor = gateway.visitors()[fresh]
        assert {visitor.get()[1] for _ in range(5)} == {"one"}

        # A new control process checks anew, and takes nothing for well meanwhile.
        served = other.served
        control = gateway.control_pid()
        os.kill(control, signal.SIGKILL)
        wait_until(lambda: gateway.control_pid() not in {0, control})
        checked = other.checked
        wait_until(lambda: other.checked > checked + 1)
        gateway.wait_linked()
        assert {visitor.get()[1] for _ in range(5)} == {"one"}
        assert other.served == served

        other.health = 200
        wait_until(lambda: out(gateway, "users") == [{}, {}])
        wait_until(lambda: {visitor.get()[1] for _ in range(4)} == {"one", "two"})


def test_one_failed_check_after_a_new_start_of_control_puts_nothing_out(
    tmp_path: Path, instance: Instance, other: Instance
):
    services = {
        "users": {
            "instances": [instance.url, other.url],
            "health": {"path": "/ready", "every": "1h", "fall": 3},
        }
    }

    def state(url: str) -> str:
        (users,) = gateway.ask("/api/services")
        (said,) = [each["health"] for each in users["instances"] if each["url"] == url]
        return str(said)

    with serving(tmp_path, services=services) as gateway:
        wait_until(lambda: instance.checked and other.checked)
        wait_until(lambda: state(other.url).startswith("up"))
        other.health = 503
        control = gateway.control_pid()
        os.kill(control, signal.SIGKILL)
        wait_until(lambda: gateway.control_pid() not in {0, control})
        gateway.wait_linked()
        wait_until(lambda: "but the last failed" in state(other.url))
        assert "down after 2 more" in state(other.url)
        assert out(gateway, "users") == [{}, {}]


def test_an_instance_that_was_removed_is_not_checked_any_more(
    tmp_path: Path, instance: Instance, other: Instance
):
    health = {"path": "/ready", "every": "50ms"}

    def services(*urls: str) -> dict[str, Any]:
        return {"users": {"instances": list(urls), "health": health}}

    with serving(tmp_path, services=services(instance.url, other.url)) as gateway:
        wait_until(lambda: other.checked)
        gateway.reload(services=services(instance.url))
        checked, others = other.checked, instance.checked
        wait_until(lambda: instance.checked >= others + 5)
        assert other.checked <= checked + 1  # one may have been on its way
        said = gateway.ask("/api/services")
        assert [each["url"] for each in said[0]["instances"]] == [instance.url]

        # Without checks none is out, and none is asked.
        instance.health = 503
        wait_until(lambda: all(out(gateway, "users")))
        gateway.reload(services={"users": {"instances": [instance.url]}})
        wait_until(lambda: out(gateway, "users") == [{}, {}])


# -- reload


def test_a_reload_keeps_counts_breakers_and_ejections(
    tmp_path: Path, instance: Instance, other: Instance
):
    def config(rate: str, reset: str) -> dict[str, Any]:
        return {
            "services": {
                "users": {
                    "instances": [instance.url, other.url],
                    "outlier": {"errors": 3, "eject": "10min"},
                },
                "shaky": {
                    "instances": [instance.url],
                    "breaker": {"window": "5 calls", "minimum_calls": 5, "reset_after": reset},
                },
            },
            "routes": [
                limited(rate, when_away="closed"),
                {"name": "shaky", "match": {"path": "/shaky"}, "to": "shaky"},
                {"name": "users", "to": "users"},
            ],
        }

    with serving(tmp_path, **config("10/24h", "10min")) as gateway:
        first, second = visitors = list(gateway.visitors().values())
        spend(visitors, "/limited/", "anna", TEN)
        other.status = 500
        ask_until(first, lambda: all(out(gateway, "users")))
        instance.status = 500
        assert [first.status("/shaky") for _ in range(5)] == [500] * 5
        instance.status = other.status = 200
        wait_until(lambda: second.status("/shaky") == 503)

        gateway.reload(**config("12/24h", "11min"))
        assert [each.status("/shaky") for each in visitors] == [503, 503]
        assert {each.get()[1] for each in visitors for _ in range(4)} == {"one"}
        assert [list(each) for each in out(gateway, "users")] == [[other.url]] * 2
        # Of the new limit what is beyond the old one is left.
        spend(visitors, "/limited/", "anna", 2)
        spend(visitors, "/limited/", "ben", 12)

        gateway.reload(**config("12/24h", "11min"))
        assert set(alternately(visitors, 3, "/limited/", "ben")) == {429}
        assert [each.status("/shaky") for each in visitors] == [503, 503]

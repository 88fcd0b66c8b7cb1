"""What has happened, what is going on, and who looks; without a gateway."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from headgate.control.observing.happenings import Happenings
from headgate.control.observing.live_views import LiveViews, RequestFilter
from headgate.control.observing.overview import look, overview
from headgate.observe import Merged, histogram
from headgate.observe.merge import Histogram

REQUESTS = "headgate_http_requests_total"
DURATIONS = "headgate_http_request_duration_seconds"


def merged(**routes: tuple[int, int, int]) -> Merged:
    """Totals: of each route answers with 200, 404 and 503, all of 10 ms."""
    made = Merged()
    numbers = made.numbers.setdefault(REQUESTS, {})
    made.numbers["headgate_http_requests_in_flight"] = {(): 3}
    for route, counts in routes.items():
        for code, count in zip(("200", "404", "503"), counts, strict=True):
            numbers[route, "users", "GET", code] = count
        buckets = histogram.empty()
        buckets[histogram.place_of(0.01)] = sum(counts)
        total = Histogram(buckets, sum(counts) * 0.01)
        made.histograms.setdefault(DURATIONS, {})[route, "users"] = total
    return made


def test_events_come_after_the_one_that_was_seen():
    ring = Happenings("e")
    made = [ring.tell(n * 10.0, "reload", f"number {n}") for n in range(3)]
    assert made[0] is not None
    missed = ring.after(made[0].id)
    assert [event.text for event in missed.events] == ["number 1", "number 2"]
    assert not missed.has_gap
    assert made[2] is not None
    assert ring.after(made[2].id).events == ()


@pytest.mark.parametrize("id_", ["other-1", "e-99", "e-", "e-x", "-", "e-0000000000000000001"])
def test_an_id_that_is_not_ours_gives_all_there_is(id_: str):
    ring = Happenings("e")
    ring.tell(1.0, "reload", "one")
    missed = ring.after(id_)
    assert (len(missed.events), missed.has_gap) == (1, True)


def test_what_the_ring_has_let_go_is_a_gap():
    ring = Happenings("e", most=3)
    for n in range(10):
        ring.tell(n * 10.0, "reload", f"number {n}")
    assert len(ring) == 3
    assert ring.after("e-6").has_gap
    after = ring.after("e-7")
    assert (after.has_gap, [event.id for event in after.events]) == (False, ["e-8", "e-9", "e-10"])


def test_what_two_workers_say_at_once_is_one_event():
    ring = Happenings("e")
    assert ring.tell(1.0, "breaker", "users: open") is not None
    assert ring.tell(1.5, "breaker", "users: open") is None
    assert ring.tell(9.0, "breaker", "users: open") is not None


def test_an_overview_is_what_happened_in_between():
    before = look(merged(a=(100, 0, 0), b=(5, 5, 0)), 10.0)
    after = look(merged(a=(140, 5, 5), b=(5, 5, 0)), 15.0)
    said = overview(before, after)
    assert said["requests_per_s"] == 10.0
    assert (said["error_rate"], said["client_error_rate"]) == (0.1, 0.1)
    assert 8 < said["p50_ms"] < 12
    assert said["in_flight"] == 3
    assert [row["route"] for row in said["routes"]] == ["a"]


def test_totals_that_have_fallen_count_as_nothing():
    said = overview(look(merged(a=(100, 0, 9)), 1.0), look(merged(a=(1, 0, 0)), 2.0))
    assert said["requests_per_s"] == 0.0
    assert said["p99_ms"] is None


def views(said: list[Any], **more: Any) -> LiveViews:
    async def refresh() -> None:
        return None

    given: dict[str, Any] = {
        "refresh": refresh,
        "merged": lambda: merged(a=(1, 0, 0)),
        "health": lambda: ("ok", []),
        "workers": list,
        "last_reload": lambda: None,
        "publish": lambda _topic, message: said.append(message),
        **more,
    }
    return LiveViews(**given)


def test_workers_are_told_only_while_somebody_looks():
    asyncio.run(_test_workers_are_told_only_while_somebody_looks())


async def _test_workers_are_told_only_while_somebody_looks() -> None:
    said: list[Any] = []
    live = views(said)
    looking = live.requests(RequestFilter("a", 500, 599, 0.25))
    first = asyncio.ensure_future(anext(looking))
    await asyncio.sleep(0)
    assert said[-1]["wanted"] == [{"route": "a", "low": 500, "top": 599, "least_s": 0.25}]
    row = [1.0, 0.3, 503, "GET", "h", "/", "a", "users", "http://x", "r", "t", ""]
    other = [1.0, 0.3, 503, "GET", "h", "/", "b", "users", "http://x", "r", "t", ""]
    live.requests_heard(0, {"rows": [other, row], "seen": 5})
    assert (await first)["route"] == "a"
    assert await anext(looking) == {"left_out": 3, "worker": 0}
    await looking.aclose()
    assert said[-1]["wanted"] == []
    await live.close()


def test_a_change_of_health_a_reload_and_a_lost_worker_are_events():
    asyncio.run(_test_a_change_of_health_a_reload_and_a_lost_worker_are_events())


async def _test_a_change_of_health_a_reload_and_a_lost_worker_are_events() -> None:
    state: dict[str, Any] = {"health": ("ok", []), "workers": [], "reload": None}
    live = views(
        [],
        health=lambda: state["health"],
        workers=lambda: state["workers"],
        last_reload=lambda: state["reload"],
    )
    state["workers"] = [{"index": 0, "pid": 7, "state": "ready"}]
    live._attend_once()
    state["health"] = ("degraded", ["a disk is full"])
    state["workers"] = []
    state["reload"] = SimpleNamespace(ok=False, reason="SIGHUP", generation=3)
    live._attend_once()
    assert [event.text for event in live.missed("").events] == [
        "the gateway is degraded: a disk is full",
        "the reload by SIGHUP was refused, generation 3",
        "worker 0 (pid 7) has ended",
    ]


def test_a_viewer_gets_what_is_kept_and_then_what_comes():
    asyncio.run(_test_a_viewer_gets_what_is_kept_and_then_what_comes())


async def _test_a_viewer_gets_what_is_kept_and_then_what_comes() -> None:
    live = views([])
    live.tell("alert", "one")
    looking = live.events("")
    assert (await anext(looking)).text == "one"  # type: ignore[union-attr]  # an event
    second = asyncio.ensure_future(anext(looking))
    await asyncio.sleep(0)
    live.tell("alert", "two", level="critical")
    found = await second
    assert found is not None
    assert found.to_json()["level"] == "critical"
    await looking.aclose()
    await live.close()

"""The page's service over real sockets, with a scripted gateway and stage."""

from __future__ import annotations

import asyncio
import json
import re
import time

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from headgate.security.audit import Query, find, verify_folder
from headgate.testing import FakeMesh
from headgate_shop.base.faults import Faults
from headgate_shop.operations import testers, watching
from headgate_shop.operations.asking import Api
from headgate_shop.operations.people import People
from headgate_shop.operations.playing import Player, PlayRefused
from headgate_shop.operations.sse import Reader
from tests.ports import free_port
from tests.shop.operations.world import Server, World, serving, stage_of
from tests.shop.signing import Signer

pytestmark = pytest.mark.integration
PATIENCE_S = 40.0


@pytest.fixture
def signer(tmp_path):
    return Signer(tmp_path / "keys")


@pytest.fixture
def world(tmp_path):
    return World(tmp_path, every_s=0.1)


@pytest.fixture
def site(world, signer):
    with Server(world, signer.keys) as server:
        yield server


@pytest.fixture
def client(site, signer):
    with httpx.Client(
        base_url=site.url, headers=signer.headers("boss", "admin"), timeout=PATIENCE_S
    ) as made:
        page = made.get("/operations/")
        assert page.status_code == 200, page.text
        token = re.search('data-csrf="([0-9a-f]+)"', page.text)
        assert token is not None
        made.headers["x-csrf-token"] = token[1]
        yield made


def news(client, after="", headers=None):
    """One message after the other, for as long as the stream lasts."""
    with client.stream("GET", "/operations/live", params={"after": after}, headers=headers) as said:
        assert said.status_code == 200
        assert said.headers["content-type"].startswith("text/event-stream")
        reader = Reader()
        for piece in said.iter_text():
            for event in reader.feed(piece):
                if event.kind == "board":
                    yield event.id, json.loads(event.data)


def until(client, is_right, after=""):
    """All that a watcher knows, when it is right; with the last id."""
    known: dict = {"parts": {}, "log": [], "points": []}
    end = time.monotonic() + PATIENCE_S
    for id_, said in news(client, after):
        known["parts"].update(said["parts"])
        known["log"] += [line["text"] for line in said["log"]]
        known["points"] += said["points"]
        known["id"] = id_
        if is_right(known):
            return known
        assert time.monotonic() < end, known
    raise AssertionError(f"the stream ended: {known}")


def begin(client, failure, choice=""):
    return client.post(f"/operations/failures/{failure}", json={"choice": choice})


# -- who may ----------------------------------------------------------------------------------


def test_only_admins_get_in(site, signer):
    led = httpx.get(site.url + "/operations/")
    assert (led.status_code, led.headers["location"]) == (303, "/signin?next=%2Foperations%2F")
    for path in ("/operations/", "/operations/live", "/operations/board", "/operations/mails/m0"):
        assert path == "/operations/" or httpx.get(site.url + path).status_code == 401
        customer = httpx.get(site.url + path, headers=signer.headers("ada", "user"))
        assert customer.status_code == 403
    refused = httpx.post(
        f"{site.url}/operations/failures/kill", json={}, headers=signer.headers("ada", "user")
    )
    assert refused.status_code == 403


def test_the_page_runs_nothing_that_stands_in_it(client):
    page = client.get("/operations/")
    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert page.headers["cache-control"] == "no-store"
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=", page.text)


def test_a_name_that_is_markup_stays_text(site, signer):
    page = httpx.get(
        f"{site.url}/operations/", headers=signer.headers("<img src=x onerror=alert(1)>", "admin")
    )
    assert "<img" not in page.text
    assert "&lt;img" in page.text


@pytest.mark.parametrize(
    "headers",
    [
        {"x-csrf-token": ""},
        {"x-csrf-token": "0" * 64},
        {"x-csrf-token": "é"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
    ids=["none", "wrong", "letters", "cross", "same"],
)
def test_a_change_that_is_not_of_this_page_is_refused(client, site, headers):
    sent = {name: value.encode() for name, value in headers.items()}
    for answer in (
        client.post("/operations/failures/burst", json={}, headers=sent),
        client.delete("/operations/failures/burst", headers=sent),
    ):
        assert answer.status_code == 403
        assert answer.json()["code"] == "csrf"
    assert site.world.asked == []


def test_a_form_of_another_page_cannot_press_a_button(client, site):
    answer = client.post("/operations/failures/burst", data={"choice": ""})
    assert answer.status_code == 422
    assert site.world.asked == []


# -- what is seen -----------------------------------------------------------------------------


def test_a_watcher_hears_everything_there_is(client):
    wanted = {
        "services", "breakers", "splits", "alerts", "queue", "orders", "sales", "integrations",
        "mails", "stage", "catalogue", "failures", "doing", "cache", "routes",
    }  # fmt: skip
    known = until(client, lambda k: wanted <= k["parts"].keys() and len(k["points"]) > 100)
    parts = known["parts"]
    assert [row["name"] for row in parts["services"]][:2] == ["users", "products"]
    assert all(row["state"] == "ok" for row in parts["services"])
    assert parts["sales"]["orders"] == 63
    assert parts["queue"]["ready"] == 0
    assert len(parts["catalogue"]) == 6
    assert parts["failures"] == []
    assert all(source["ok"] for source in parts["sources"].values()), parts["sources"]
    times = [point["t"] for point in known["points"][-3:]]
    assert times == sorted(times)


def test_who_comes_back_gets_what_was_missed(client, world):
    known = until(client, lambda k: "services" in k["parts"])
    world.happen("order", "users: open (by ann)")
    later = until(client, lambda k: k["log"], known["id"])
    assert "users: open (by ann)" in later["log"]
    assert "catalogue" not in later["parts"]
    header = {"last-event-id": known["id"]}
    id_, said = next(news(client, headers=header))
    assert not said["whole"]
    assert id_ != known["id"]


def test_a_stream_ends_before_the_word_on_who_watches_does(site, signer, monkeypatch):
    monkeypatch.setattr("headgate_shop.operations.app.STREAM_MIN_S", 0.2)
    headers = signer.headers("boss", "admin", ttl_s=2)
    with httpx.Client(base_url=site.url, headers=headers, timeout=PATIENCE_S) as client:
        for _ in news(client):
            pass  # it ends


def test_as_many_watch_as_may(client, monkeypatch):
    monkeypatch.setattr(watching, "WATCHERS", 1)
    first = news(client)
    next(first)
    refused = client.get("/operations/live")
    assert refused.status_code == 503
    assert refused.json()["code"] == "too_many"
    assert "retry-after" in refused.headers
    first.close()
    end = time.monotonic() + PATIENCE_S
    while True:  # its place is free again as soon as the server has noticed
        with client.stream("GET", "/operations/live") as answer:
            if answer.status_code == 200:
                break
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_gateway_that_is_away_is_said_and_found_again(client, world):
    until(client, lambda k: "services" in k["parts"])
    world.away = True
    known = until(
        client, lambda k: not k["parts"].get("sources", {}).get("gateway", {"ok": True})["ok"]
    )
    assert "503" in known["parts"]["sources"]["gateway"]["why"]
    assert known["parts"]["sources"]["stage"]["ok"]
    world.away = False
    until(
        client,
        lambda k: all(row["ok"] for row in k["parts"].get("sources", {"": {"ok": False}}).values()),
    )


def test_mails_are_shown_and_nothing_in_them_runs(client):
    mail = client.get("/operations/mails/m0").json()
    assert mail["subject"] == "Your order 10042"
    assert mail["has_html"]
    assert "html" not in mail
    page = client.get("/operations/mails/m0/page")
    assert page.headers["content-security-policy"].startswith("sandbox;")
    assert "Thank you" in page.text
    assert client.get("/operations/mails/m1/page").status_code == 404
    for wrong in ("m99", "..%2Fstate", "a b", "x" * 100, "é"):
        assert client.get(f"/operations/mails/{wrong}").status_code == 404


# -- failures ---------------------------------------------------------------------------------


def test_a_killed_service_is_back_and_everybody_can_read_it(client, world):
    assert begin(client, "kill", "orders").status_code == 201
    known = until(
        client, lambda k: k["parts"].get("failures") == [] and "runs again, after" in str(k["log"])
    )
    said = "\n".join(known["log"])
    assert "Kill a service: orders: begun by boss" in said
    assert "orders ejected: 5 errors in a row (connect)" in said
    assert ("orders", "kill", {}) in world.asked
    assert world.marks[0] == {"kind": "failure", "text": "Kill a service: orders: begun"}


def test_a_bad_deploy_is_begun_seen_and_undone(client, world):
    canary = Faults(world.folder, "products-next")
    assert begin(client, "bad-deploy").status_code == 201
    assert canary.current(0).errors == 0.8
    assert canary.current(0).until > time.time()
    until(client, lambda k: "the canary is taken out" in str(k["log"]))
    assert client.delete("/operations/failures/bad-deploy").json() == {"failures": []}
    assert not canary.path.exists()
    until(client, lambda k: "products-next closed: calls pass again" in str(k["log"]))


def test_what_cannot_be_played_is_refused_with_the_reason(client, world):
    for failure, choice, status, code in (
        ("flood", "", 404, "unknown_failure"),
        ("kill", "operations", 409, "cannot_be_played"),
        ("kill", "", 409, "cannot_be_played"),
        ("redis", "", 409, "cannot_be_played"),
    ):
        answer = begin(client, failure, choice)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"
    assert client.post("/operations/failures/burst", json={"choice": 3}).status_code == 422
    assert client.post("/operations/failures/burst", json={"rate": 3}).status_code == 422
    assert client.delete("/operations/failures/burst").json()["code"] == "not_running"
    assert world.asked == []


def test_one_failure_runs_once(client, world):
    assert begin(client, "burst").status_code == 201
    assert world.rate == 250
    again = begin(client, "burst")
    assert (again.status_code, again.json()["code"]) == (409, "runs_already")
    assert client.delete("/operations/failures/burst").status_code == 200
    assert world.rate == 42


def test_who_played_what_is_in_the_audit_log(world, signer):
    with Server(world, signer.keys) as server:
        headers = signer.headers("boss", "admin")
        with httpx.Client(base_url=server.url, headers=headers, timeout=PATIENCE_S) as client:
            token = re.search('data-csrf="([0-9a-f]+)"', client.get("/operations/").text)
            assert token is not None
            client.headers["x-csrf-token"] = token[1]
            begin(client, "slow-database", "orders")
            begin(client, "slow-database", "orders")
            client.delete("/operations/failures/slow-database")
    folder = world.folder / "operations-audit"
    page = find(folder, Query(action="failure.*"), newest_first=False)
    found = [(entry["action"], entry["actor"], entry["target"]) for entry in page.entries]
    assert found == [
        ("failure.begun", "boss", "slow-database orders"),
        ("failure.refused", "boss", "slow-database orders"),
        ("failure.undone", "boss", "slow-database"),
    ]
    assert verify_folder(folder).is_good


def test_without_a_stage_the_page_says_what_cannot_be_played(world, signer):
    with (
        Server(world, signer.keys, stage=False) as server,
        httpx.Client(
            base_url=server.url, headers=signer.headers("boss", "admin"), timeout=PATIENCE_S
        ) as client,
    ):
        token = re.search('data-csrf="([0-9a-f]+)"', client.get("/operations/").text)
        assert token is not None
        client.headers["x-csrf-token"] = token[1]
        assert "no stage runs this shop" in begin(client, "burst").json()["detail"]
        assert begin(client, "bad-deploy").status_code == 201
        assert client.get("/operations/mails/m0").status_code == 404


# -- playing, without the page ----------------------------------------------------------------


class Clock:
    def __init__(self):
        self.at = time.time()

    def __call__(self):
        return self.at


def playing(world, play, *, token="stage"):
    """Run `play(player, clock, told)` with a stage that is there."""

    async def main():
        tasks: set[asyncio.Task] = set()
        told: list[str] = []
        clock = Clock()
        async with (
            serving(stage_of(world, tasks), "off") as url,
            Api("the stage", url, token) as stage,
            Player(
                world.folder, stage, tell=lambda line: told.append(line["text"]),
                changed=lambda running: None, wall=clock,
            ) as player,
        ):  # fmt: skip
            await play(player, clock, told)
        for task in tasks:
            task.cancel()
        return told

    return asyncio.run(main())


async def settled(is_right):
    end = time.monotonic() + PATIENCE_S
    while not is_right():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


def test_a_failure_ends_by_itself(world):
    async def play(player, clock, told):
        await player.begin("outage", "orders", "ann")
        await player.begin("slow-database", "products", "ann")
        assert world.processes["orders"]["state"] == "stopped"
        clock.at += 119
        await asyncio.sleep(0.7)
        assert len(player.snapshot()) == 2
        clock.at += 2
        await settled(lambda: not player.snapshot())
        assert world.processes["orders"]["state"] == "running"
        assert not list((world.folder / "faults").iterdir())

    told = playing(world, play)
    assert "Take a service away: orders: ended by itself" in told


def test_when_the_service_ends_everything_is_undone(world):
    async def play(player, clock, told):
        await player.begin("burst", "", "ann")
        await player.begin("bad-deploy", "", "ann")

    playing(world, play)
    assert world.rate == 42
    assert not list((world.folder / "faults").iterdir())


def test_a_service_that_was_killed_finds_what_runs_and_ends_it(world):
    started = time.time()

    async def killed(player, clock, told):
        await player.begin("bad-deploy", "", "ann")
        player.end()
        await player._task
        kept = player._kept.read_text()
        player._running.clear()  # as if nothing of its end were run
        player._kept.write_text(kept)

    playing(world, killed)
    assert Faults(world.folder, "products-next").path.exists()

    async def again(player, clock, told):
        (row,) = player.snapshot()
        assert (row["id"], row["by"]) == ("bad-deploy", "ann")
        assert started <= row["since"] < row["until"]
        with pytest.raises(PlayRefused, match="runs already"):
            await player.begin("bad-deploy", "", "bob")
        await player.undo("bad-deploy", "bob")

    assert playing(world, again) == ["Bad deploy to the canary: undone by bob"]
    assert not Faults(world.folder, "products-next").path.exists()


@pytest.mark.parametrize(
    "text", ["", "[{}]", '[{"failure": "x"}]', "3", '[{"failure": "flood", "choice": "", "since": 1, "until": 2, "by": ""}]']
)  # fmt: skip
def test_what_is_kept_and_not_understood_is_left_out(world, text):
    (world.folder / "faults").mkdir()
    (world.folder / "faults" / "running.json").write_text(text)

    async def play(player, clock, told):
        assert player.snapshot() == []
        await player.begin("bad-deploy", "", "ann")

    playing(world, play)


def test_a_stage_that_refuses_leaves_nothing_begun(world):
    async def play(player, clock, told):
        with pytest.raises(PlayRefused):
            await player.begin("burst", "", "ann")
        assert player.snapshot() == []
        assert not list((world.folder / "faults").glob("*.json"))

    assert playing(world, play, token="wrong") == []


def test_two_who_press_at_once_begin_it_once(world):
    async def play(player, clock, told):
        found = await asyncio.gather(
            *(player.begin("burst", "", name) for name in ("ann", "bob", "cy")),
            return_exceptions=True,
        )
        assert sum(isinstance(one, PlayRefused) for one in found) == 2

    playing(world, play)
    assert [row for row in world.asked if row[2] == 250] == [("traffic", "rate", 250)]


def test_a_folder_that_cannot_be_written_is_said(world, monkeypatch):
    def full(self, fault):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Faults, "write", full)

    async def play(player, clock, told):
        with pytest.raises(PlayRefused, match="No space left"):
            await player.begin("bad-deploy", "", "ann")
        assert player.snapshot() == []

    playing(world, play)


# -- beside the page --------------------------------------------------------------------------


def test_testers_ask_the_canary_for_as_long_as_they_are_wanted(monkeypatch):
    monkeypatch.setattr(testers, "EVERY_S", 0.01)
    monkeypatch.setattr(testers, "AFTER_S", 0.1)
    asked: list[tuple[str, str, str]] = []

    async def page(request):
        asked.append((request.headers["x-canary"], str(request.url.query), request.client.host))
        return JSONResponse({}, 500)

    async def main():
        wanted = True
        application = Starlette(routes=[Route("/api/products", page)])
        async with serving(application, "off") as url, testers.Testers(url, lambda: wanted):
            await settled(lambda: len(asked) > 3)
            wanted = False
            await asyncio.sleep(0.3)
            before = len(asked)
            await asyncio.sleep(0.1)
            assert len(asked) == before

    asyncio.run(main())
    assert {row[0] for row in asked} == {"1"}
    assert len({row[1] for row in asked}) == len(asked)
    assert {row[2] for row in asked} == {testers.ADDRESS}


def test_testers_go_on_when_nobody_answers(monkeypatch):
    monkeypatch.setattr(testers, "EVERY_S", 0.01)

    async def main():
        async with testers.Testers(f"http://127.0.0.1:{free_port()}", lambda: True) as made:
            await asyncio.sleep(0.2)
            assert made._task is not None and not made._task.done()

    asyncio.run(main())


def test_people_are_called_by_their_names_and_by_their_ids_while_users_is_away():
    async def main():
        async with FakeMesh() as mesh:
            rule = mesh.fake("users").on("GET", "/api/users/profile")
            rule.fails("connect").returns(json={"name": "Robin"})
            people = People(mesh)
            assert await people.name("a-1", {}) == "a-1"
            assert await people.name("a-1", {}) == "Robin"
            assert await people.name("a-1", {}) == "Robin"
            assert len(mesh.calls) == 2

    asyncio.run(main())

"""The registry by the admin API: instances register, beat and leave, and what comes of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from headgate.config import Config
from headgate.control.admin.problem import install
from headgate.control.admin.registry import add_registry
from headgate.control.admin.roles import Role, may
from headgate.control.admin.tokens import Caller
from headgate.control.observing import Surroundings
from headgate.control.registering import Registering
from headgate.control.registering_events import ENTRIES_A_MINUTE, EVENTS_A_SECOND, events_of
from headgate.mesh.registry.asked import Asked
from headgate.mesh.registry.model import Change, Instance
from headgate.mesh.registry.store_sqlite import StoreTrouble
from headgate.observe import new_rows
from headgate.wire.resolve import Resolver

SERVICES: dict[str, Any] = {
    "users": {"discover": "registry"},
    "items": {"instances": ["http://10.0.0.9:80", "http://[fd00::9]:81"]},
    "both": {"instances": "http://10.0.0.8:80", "discover": "registry"},
}
USERS = "/api/registry/services/users/instances"
URL = "http://10.0.0.1:3001"
PATIENCE_S = 20.0


class Board:
    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.forgotten: list[str] = []
        self.hear: Callable[[dict[str, Any]], None] = lambda message: None

    def publish(self, topic: str, message: Any, *, retain: str | None = None) -> None:
        assert (topic, message["service"]) == ("members", retain)
        self.told.append(message)

    def forget(self, topic: str, retain: str) -> None:
        self.forgotten.append(retain)

    def subscribe(self, topic: str, listener: Any) -> None:
        assert topic == "members"
        self.hear = listener

    def urls(self, service: str) -> list[str] | None:
        """As workers have them now, those that leave with a minus before."""
        for message in reversed(self.told):
            if message["service"] == service:
                return [("-" if m["draining"] else "") + m["url"] for m in message["members"]]
        return None


class Rig:
    """A registry on a folder, with an app before it and a clock of its own."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.passed = 0.0
        self.wall_off = 0.0
        self.board = Board()
        self.recorded: list[tuple[str, str, str]] = []
        self.told: list[str] = []
        self.caller = Caller("token/shop", Role.SERVICE)
        around = Surroundings(
            state_dir=folder,
            refresh=cast("Any", None),
            merged=cast("Any", None),
            health=cast("Any", None),
            record=self._record,
        )
        self.config = Config.model_validate({"services": SERVICES, **config})
        self.resolver = Resolver(self.config.dns)
        self.registry = Registering(
            around,
            cast("Any", self.board),
            self.resolver,
            lambda kind, text, **more: self.told.append(f"{kind}: {text}"),
            clock=lambda: 1000.0 + self.passed,
            wall=lambda: 1_700_000_000.0 + self.passed + self.wall_off,
        )
        app = FastAPI()
        install(app)
        router = APIRouter()
        add_registry(router, self)
        app.include_router(router)
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self._as_caller(app), client=("192.0.2.7", 5)),
            base_url="http://admin",
        )

    def _as_caller(self, app: ASGIApp) -> ASGIApp:
        async def known(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("state", {})["caller"] = self.caller
            await app(scope, receive, send)

        return known

    def _record(self, action: str, actor: str, *, target: str, **more: Any) -> None:
        self.recorded.append((action, actor, target))

    def start(self) -> None:
        self.registry.start()
        self.registry.take(self.config)

    async def close(self, *, is_killed: bool = False) -> None:
        if is_killed:
            # As far as the file goes: nothing is written at the end.
            self.registry.home._is_open = False
        await self.registry.close()
        await self.client.aclose()
        await self.resolver.aclose()

    async def until(self, what: Callable[[], Any]) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            while not (found := what()):
                self.registry._wake.set()
                await asyncio.sleep(0.005)
        return found

    async def until_told(self, urls: list[str]) -> None:
        await self.until(lambda: self.board.urls("users") == urls)

    def listed(self, name: str) -> Instance:
        found = self.registry.book.find("users", name)
        assert found is not None
        return found

    async def pass_time(self, seconds: float, step_s: float = 0.5) -> None:
        """As it does: with turns on the way."""
        for _ in range(round(seconds / step_s)):
            self.passed += step_s
            self.registry._wake.set()
            await asyncio.sleep(0.002)

    async def put(self, name: str = "a", service: str = "users", **body: Any) -> httpx.Response:
        path = f"/api/registry/services/{service}/instances/{name}"
        return await self.client.put(path, json=body or {"url": URL})

    async def get(self, path: str, **more: Any) -> Any:
        answer = await self.client.get(f"/api/registry/{path}", **more)
        assert answer.status_code == 200, answer.text
        return answer.json()


@contextlib.asynccontextmanager
async def registry(folder: Path, **config: Any) -> AsyncIterator[Rig]:
    rig = Rig(folder, **config)
    rig.start()
    try:
        await rig.until(lambda: not rig.registry.unready)
        yield rig
    finally:
        await rig.close()


def run(folder: Path, work: Callable[[Rig], Awaitable[None]], **config: Any) -> None:
    async def with_rig() -> None:
        async with registry(folder, **config) as rig:
            await work(rig)

    asyncio.run(with_rig())


# -- roles -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "roles"),
    [
        ("PUT", f"{USERS}/a", "service operator admin"),
        ("POST", f"{USERS}/a/beat", "service operator admin"),
        ("DELETE", f"{USERS}/a", "service operator admin"),
        ("GET", "/api/registry/watch", "service viewer operator admin"),
        ("HEAD", "/api/registry/services", "service viewer operator admin"),
        ("GET", "/api/registry/services/users", "service viewer operator admin"),
        ("GET", "/api/registry/history", "viewer operator admin"),
        ("GET", "/api/registry/stats", "viewer operator admin"),
        ("GET", "/api/services", "viewer operator admin"),
        ("POST", "/v1/traces", "ingest operator admin"),
        ("PUT", f"{USERS}/a/b", "operator admin"),
        ("POST", f"{USERS}//beat", "operator admin"),
        ("PUT", "/api/registry/services//instances/a", "operator admin"),
        ("GET", "/api/tokens", "admin"),
    ],
)
def test_a_role_may_do_what_it_is_for(method, path, roles):
    assert {role.value for role in Role if may(role, method, path)} == set(roles.split())


# -- leases ------------------------------------------------------------------------------------


def test_whoever_registers_holds_a_lease_beats_and_leaves(tmp_path):
    async def work(rig: Rig) -> None:
        made = await rig.put(url=URL, zone="a", version="1.2", metadata={"x": "y"}, ttl="9s")
        assert made.status_code == 201
        lease = made.json()
        assert lease["ttl_s"] == 9.0
        assert lease["beat_every_s"] == 3.0
        assert lease["instance"]["metadata"] == {"x": "y"}
        assert (lease["epoch"], lease["revision"]) == (rig.registry.book.epoch, 4)
        again = await rig.put()
        assert again.status_code == 200
        assert again.json()["fence"] > lease["fence"]
        beaten = await rig.client.post(f"{USERS}/a/beat", json={"fence": again.json()["fence"]})
        assert beaten.json() == {
            "fence": again.json()["fence"],
            "ttl_s": 30.0,
            "beat_every_s": 10.0,
            "state": "up",
            "epoch": rig.registry.book.epoch,
            "revision": rig.registry.book.revision,
        }
        left = await rig.client.delete(f"{USERS}/a?fence={again.json()['fence']}&drain=5s")
        assert left.json()["instance"]["state"] == "draining"
        await rig.until(lambda: rig.board.urls("users") == [f"-{URL}"])
        await rig.pass_time(6)
        await rig.until(lambda: rig.board.urls("users") == [])
        gone = await rig.client.post(f"{USERS}/a/beat", json={"fence": again.json()["fence"]})
        assert (gone.status_code, gone.json()["lost"]) == (404, "unknown")

    run(tmp_path, work)


def test_a_process_that_was_replaced_is_told_so(tmp_path):
    async def work(rig: Rig) -> None:
        old = (await rig.put()).json()["fence"]
        new = (await rig.put(url="http://10.0.0.2:1")).json()["fence"]
        for answer in (
            await rig.client.post(f"{USERS}/a/beat", json={"fence": old}),
            await rig.client.delete(f"{USERS}/a?fence={old}"),
        ):
            assert (answer.status_code, answer.json()["lost"]) == (409, "fenced")
            assert answer.headers["content-type"] == "application/problem+json"
        assert rig.listed("a").fence == new

    run(tmp_path, work)


def test_one_that_says_it_is_down_gets_no_new_requests(tmp_path):
    async def work(rig: Rig) -> None:
        fence = (await rig.put()).json()["fence"]
        for health, urls in (("down", [f"-{URL}"]), ("degraded", [URL]), ("up", [URL])):
            body = {"fence": fence, "health": health}
            assert (await rig.client.post(f"{USERS}/a/beat", json=body)).status_code == 200
            await rig.until_told(urls)
        wrong = await rig.client.post(f"{USERS}/a/beat", json={"fence": fence, "health": "fine"})
        assert wrong.status_code == 422

    run(tmp_path, work)


def test_a_lease_without_beats_runs_out(tmp_path):
    async def work(rig: Rig) -> None:
        await rig.put(url=URL, ttl="3s")
        await rig.pass_time(5)
        await rig.until(lambda: rig.board.urls("users") == [])
        (went, came, *_) = (await rig.get("history"))["changes"]
        assert (went["what"], came["what"]) == ("went", "came")
        assert any("a went" in text for text in rig.told), rig.told

    run(tmp_path, work, registry={"protect": "off"})


def test_a_control_process_that_stood_still_takes_nobody_for_dead(tmp_path):
    async def work(rig: Rig) -> None:
        await rig.put(url=URL, ttl="3s")
        await rig.until(lambda: rig.board.urls("users") == [URL])
        rig.passed += 600
        before = rig.registry.book.revision
        await rig.pass_time(1)
        assert rig.listed("a").state == "up"
        assert rig.registry.book.revision == before

    run(tmp_path, work, registry={"protect": "off"})


def test_a_port_is_where_it_asks_from(tmp_path):
    async def work(rig: Rig) -> None:
        made = await rig.put(port=3004)
        assert made.json()["instance"]["url"] == "http://192.0.2.7:3004"

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"url": URL, "port": 1}, 422, "write url or port"),
        ({"zone": "a"}, 422, "write url, or port"),
        ({"url": "ftp://x"}, 422, "url: is not an instance"),
        ({"url": "http://joe:hunter22@10.0.0.1:1"}, 422, "user info"),
        ({"url": "unix:/run/x.sock"}, 403, "a Unix socket is of this machine"),
        ({"url": "http+unix:///run/x.sock"}, 403, "a Unix socket is of this machine"),
        ({"url": " unix:/run/x.sock"}, 403, "a Unix socket is of this machine"),
        ({"url": "UNIX:/run/x.sock"}, 422, "url: is not an instance"),
        ({"url": URL, "ttl": "soon"}, 422, "ttl: "),
        ({"url": URL, "ttl": -1}, 422, "ttl: "),
        ({"url": URL, "ttl": 0}, 422, "ttl: "),
        ({"url": URL, "ttl": True}, 422, "form"),
        ({"url": URL, "ttl": 1e400}, 422, "ttl: "),
        ({"url": URL, "ttl": "9" * 400}, 422, "ttl: "),
        ({"url": URL, "weight": True}, 422, "form"),
        ({"url": URL, "zone": "\ud800"}, 422, "form"),
        ({"url": "http://\ud800"}, 422, "form"),
        ({"url": URL, "weight": 1001}, 422, "form"),
        ({"url": URL, "metadata": {"a": "x" * 5000}}, 422, "metadata"),
        ({"url": URL, "metadata": {"a": 1}}, 422, "form"),
        ({"url": URL, "zone": "a\nb"}, 422, "zone"),
        ({"url": URL, "wieght": 2}, 422, "form"),
        ([URL], 422, "form"),
    ],
    ids=str,
)
def test_what_cannot_be_listed_is_refused_with_the_way_out(tmp_path, body, status, said):
    async def work(rig: Rig) -> None:
        content = json.dumps(body)  # also what is no JSON, as NaN is not
        head = {"content-type": "application/json"}
        answer = await rig.client.put(f"{USERS}/a", content=content, headers=head)
        assert answer.status_code == status, answer.text
        assert said in answer.json()["detail"]
        assert "hunter22" not in answer.text
        assert rig.registry.book.find("users", "a") is None

    run(tmp_path, work)


@pytest.mark.parametrize("name", ["-a", "a%2Fb", "%20", "a" * 150, "%00"])
def test_an_id_is_plain(tmp_path, name):
    async def work(rig: Rig) -> None:
        answer = await rig.client.put(f"{USERS}/{name}", json={"url": URL})
        assert answer.status_code in (404, 422), answer.text
        assert rig.registry.book.of("users") == []

    run(tmp_path, work)


def test_whoever_is_on_this_machine_may_register_a_unix_socket(tmp_path):
    async def work(rig: Rig) -> None:
        rig.caller = Caller("root", Role.ADMIN, "user")
        assert (await rig.put(url="unix:/run/users.sock")).status_code == 201

    run(tmp_path, work)


def test_nobody_draws_the_traffic_of_a_service_that_does_not_ask_for_it(tmp_path):
    async def work(rig: Rig) -> None:
        answer = await rig.put(service="items")
        assert answer.status_code == 403
        assert "write `discover: registry`" in answer.json()["detail"]
        assert (await rig.put(service="not-in-the-file")).status_code == 201
        assert rig.board.urls("not-in-the-file") is None

    run(tmp_path, work)


def test_a_registry_that_is_off_lets_nobody_register_and_tells_what_stands_in_the_file(tmp_path):
    async def work(rig: Rig) -> None:
        answer = await rig.put(service="any")
        assert (answer.status_code, "registry off" in answer.json()["detail"]) == (403, True)
        assert [row["service"] for row in await rig.get("services")] == ["items"]

    run(tmp_path, work, registry=False, services={"items": SERVICES["items"]})


@pytest.mark.parametrize(
    ("networks", "url", "status"),
    [
        ("192.0.2.0/24", "http://users.internal:3001", 201),
        (["192.0.2.0/24", "10.0.0.0/8"], "http://10.0.0.1:3001", 201),
        ("192.0.2.0/24", "http://10.0.0.1:3001", 403),
        ("10.0.0.0/8", "http://10.0.0.1:3001", 403),
        ("fd00::/8", "http://[fd00::1]:80", 403),
    ],
    ids=["name", "both", "url-outside", "caller-outside", "other-family"],
)
def test_only_the_networks_of_the_file_may_register(tmp_path, networks, url, status):
    async def work(rig: Rig) -> None:
        answer = await rig.put(url=url)
        assert answer.status_code == status
        if status == 403:
            assert "registry.networks" in answer.json()["detail"]
        rig.caller = Caller("root", Role.ADMIN, "user")  # by the socket of this machine
        assert (await rig.put("b", url="http://10.9.9.9:1")).status_code == 201

    run(tmp_path, work, registry={"networks": networks})


def test_the_registry_is_full_at_its_bound(tmp_path):
    async def work(rig: Rig) -> None:
        assert (await rig.put("a", "free", url="http://10.0.0.1:1")).status_code == 201
        answer = await rig.put("b", "free", url="http://10.0.0.1:2")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "30"
        assert (await rig.put("a", "free", url="http://10.0.0.1:3")).status_code == 200

    run(tmp_path, work, registry={"max_instances": 4})  # three stand in the file


def test_only_operators_end_a_lease_without_its_fence(tmp_path):
    async def work(rig: Rig) -> None:
        await rig.put()
        refused = await rig.client.delete(f"{USERS}/a")
        assert (refused.status_code, "fence" in refused.json()["detail"]) == (422, True)
        rig.caller = Caller("joe", Role.OPERATOR)
        assert (await rig.client.delete(f"{USERS}/a?drain=0s")).status_code == 200
        assert (await rig.client.delete(f"{USERS}/a")).status_code == 404
        assert rig.recorded == [
            ("registry.registered", "token/shop", "users/a"),
            ("registry.deregistered", "joe", "users/a"),
        ]

    run(tmp_path, work)


# -- views -------------------------------------------------------------------------------------


def test_services_are_listed_with_who_named_them(tmp_path):
    async def work(rig: Rig) -> None:
        await rig.put("a", zone="x", url=URL, version="2")
        await rig.put("b", "both", url="http://10.0.0.8:80")
        rows = {row["service"]: row for row in await rig.get("services")}
        assert set(rows) == {"users", "items", "both"}
        assert rows["users"]["zones"] == {"x": 1}
        assert rows["users"]["versions"] == {"2": 1}
        assert rows["items"]["sources"] == {"file": 2}
        assert rows["both"]["sources"] == {"self": 1}  # the same place as in the file
        said = await rig.get("services/both")
        shown = {(row["id"], row["source"]): row["is_listed"] for row in said["instances"]}
        assert shown == {("b", "self"): True, ("10.0.0.8:80", "file"): False}
        missing = await rig.client.get("/api/registry/services/user")
        assert (missing.status_code, '"users"' in missing.json()["detail"]) == (404, True)

    run(tmp_path, work)


def test_a_list_that_did_not_change_is_not_sent_again(tmp_path):
    async def work(rig: Rig) -> None:
        first = await rig.client.get("/api/registry/services")
        again = {"if-none-match": first.headers["etag"]}
        second = await rig.client.get("/api/registry/services", headers=again)
        assert second.status_code == 304
        await rig.put()
        third = await rig.client.get("/api/registry/services", headers=again)
        assert third.status_code == 200

    run(tmp_path, work)


def test_history_goes_back_page_by_page(tmp_path):
    async def work(rig: Rig) -> None:
        for name in "abcde":
            await rig.put(name, url=f"http://10.0.0.1:{ord(name)}")
        seen: list[str] = []
        before: int | None = None
        while True:
            more = "" if before is None else f"&before={before}"
            page = await rig.get(f"history?service=users&limit=2{more}")
            seen += [change["instance"]["id"] for change in page["changes"]]
            before = page["before"]
            if before is None:
                break
        assert seen == list("edcba")
        only = await rig.get("history?service=users&instance=c")
        assert [change["why"] for change in only["changes"]] == ["registered"]

    run(tmp_path, work)


def test_the_figures_count_what_happened(tmp_path):
    async def work(rig: Rig) -> None:
        fence = (await rig.put()).json()["fence"]
        await rig.client.post(f"{USERS}/a/beat", json={"fence": fence})
        await rig.client.post(f"{USERS}/a/beat", json={"fence": fence - 1})
        await rig.put("b", url="ftp://x")
        said = await rig.get("stats")
        assert (said["leases"], said["refused"], said["is_kept"]) == (1, 1, True)
        assert said["counts"]["beats"] == 1
        assert said["counts"]["fenced"] == 1
        assert said["by_service"]["users"]["instances"] == 1
        rows = new_rows()
        await rig.pass_time(2)
        rig.registry.rows_into(rows)
        events = {labels[0]: count for labels, count in rows["headgate_registry_events_total"]}
        assert (events["registered"], events["beat"], events["fenced"]) == (1, 1, 1)
        instances = {tuple(labels): n for labels, n in rows["headgate_registry_instances"]}
        assert instances == {("users", "up"): 1, ("both", "up"): 1, ("items", "up"): 2}

    run(tmp_path, work)


def test_names_that_nobody_wrote_into_the_file_are_not_endless_in_the_figures(tmp_path):
    async def work(rig: Rig) -> None:
        for number in range(105):
            asked = Asked(f"s{number}", "a", f"http://10.0.1.1:{number + 1}")
            rig.registry.book.register(asked, 1000.0, 1.7e9)
        rows = new_rows()
        rig.registry.rows_into(rows)
        found = {tuple(labels): n for labels, n in rows["headgate_registry_instances"]}
        assert found["(others)", "up"] == 5
        assert len(found) == 104

    run(tmp_path, work)


def test_nothing_is_answered_before_it_is_known_what_was(tmp_path):
    async def work() -> None:
        rig = Rig(tmp_path)
        try:
            answer = await rig.put()
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "2"
        finally:
            await rig.close()

    asyncio.run(work())


def test_a_fleet_that_changes_all_the_time_pushes_nothing_else_out_of_sight(tmp_path):
    async def work(rig: Rig) -> None:
        for number in range(ENTRIES_A_MINUTE + 30):
            await rig.put(f"i{number}", url=f"http://10.0.1.1:{number + 1}")
        assert len(rig.told) <= EVENTS_A_SECOND + 1
        assert len(rig.recorded) == ENTRIES_A_MINUTE
        await rig.pass_time(61)
        await rig.until(lambda: any("more things happened" in text for text in rig.told))
        await rig.until(lambda: ("registry.more", "services", "registry") in rig.recorded)

    run(tmp_path, work, registry={"ttl": "5min"})


def test_what_happens_to_a_service_at_once_is_one_event():
    def change(what: Any, name: str, **more: Any) -> Change:
        instance = Instance(service="users", id=name, url=URL, **more)
        return Change(1, 0.0, what, instance, "for a reason")

    changes = [
        change("came", "a"),
        change("came", "b"),
        change("went", "c"),
        change("changed", "d"),
        change("changed", "e", state="draining"),
        change("changed", "f", health="down"),
    ]
    assert [event.text for event in events_of(changes)] == [
        "users: 2 instances came (for a reason)",
        "users: c went (for a reason)",
        "users: e draining (for a reason)",
        "users: f down (for a reason)",
    ]


# -- what workers are told ---------------------------------------------------------------------


def test_what_happens_at_once_is_told_once(tmp_path):
    async def work(rig: Rig) -> None:
        await rig.until(lambda: rig.board.urls("users") == [])
        told = len(rig.board.told)
        for name in "abcdef":
            url = f"http://10.0.0.1:{ord(name)}"
            rig.registry.book.register(Asked("users", name, url), 1000.0, 1.7e9)
        await rig.until(lambda: len(rig.board.urls("users") or ()) == 6)
        assert len(rig.board.told) == told + 1
        row = rig.board.told[-1]["members"][0]
        assert row == {
            "id": "a",
            "url": "http://10.0.0.1:97",
            "weight": 1,
            "priority": 0,
            "zone": "",
            "draining": False,
        }

    run(tmp_path, work)


def test_workers_hear_of_those_that_were_found_and_not_of_the_file(tmp_path):
    async def work(rig: Rig) -> None:
        await rig.put("a", "both")
        await rig.until(lambda: rig.board.urls("both") == [URL])
        assert rig.board.urls("items") is None

    run(tmp_path, work)


def test_a_reload_that_closes_a_service_ends_its_leases_and_tells_workers(tmp_path):
    async def work(rig: Rig) -> None:
        fence = (await rig.put()).json()["fence"]
        await rig.until(lambda: rig.board.urls("users") == [URL])
        closed = {"services": {"users": {"instances": "http://10.0.0.3:1"}}}
        rig.registry.take(Config.model_validate(closed))
        assert set(rig.board.forgotten) == {"users", "both"}
        answer = await rig.client.post(f"{USERS}/a/beat", json={"fence": fence})
        assert answer.status_code == 404
        listed = [one.url for one in rig.registry.book.of("users")]
        assert listed == ["http://10.0.0.3:1"]

    run(tmp_path, work)


# -- restarts ----------------------------------------------------------------------------------


def test_an_end_in_order_is_gone_on_from(tmp_path):
    async def work() -> None:
        async with registry(tmp_path) as rig:
            fence = (await rig.put()).json()["fence"]
            before = rig.registry.book.epoch, rig.registry.book.revision
        async with registry(tmp_path) as rig:
            assert (rig.registry.book.epoch, rig.registry.book.revision) == before
            assert rig.registry.grace_s == 0
            answer = await rig.client.post(f"{USERS}/a/beat", json={"fence": fence})
            assert answer.status_code == 200
            await rig.until(lambda: rig.board.urls("users") == [URL])
            assert rig.registry.book.since(*before) == []

    asyncio.run(work())


def test_a_process_that_was_killed_comes_back_with_its_leases_and_another_epoch(tmp_path):
    async def work() -> None:
        rig = Rig(tmp_path)
        rig.start()
        await rig.until(lambda: not rig.registry.unready)
        fence = (await rig.put()).json()["fence"]
        epoch = rig.registry.book.epoch
        await rig.until(lambda: rig.registry.home.store.writes >= 2)
        await rig.close(is_killed=True)
        async with registry(tmp_path) as rig:
            assert rig.registry.book.epoch != epoch
            assert rig.registry.grace_s > 0
            answer = await rig.client.post(f"{USERS}/a/beat", json={"fence": fence})
            assert answer.status_code == 200
            again = await rig.put()
            assert again.json()["fence"] > fence

    asyncio.run(work())


def test_a_registry_that_lost_its_memory_takes_no_traffic_from_anybody(tmp_path):
    async def work() -> None:
        rig = Rig(tmp_path)
        rig.start()
        # A worker says hello, with what control told it before.
        kept = {"id": "z", "url": "http://10.0.0.7:1", "weight": 1, "draining": False}
        rig.board.hear({"service": "users", "epoch": "old", "revision": 9, "members": [kept, 7]})
        rig.board.hear({"service": None, "members": []})
        rig.board.hear({"service": "users", "members": None})
        try:
            await rig.until(lambda: rig.board.urls("users") == ["http://10.0.0.7:1"])
            await rig.put(url=URL, ttl="5min")
            await rig.until(lambda: rig.board.urls("users") == [URL, "http://10.0.0.7:1"])
            await rig.pass_time(rig.registry.grace_s + 1)
            await rig.until(lambda: rig.board.urls("users") == [URL])
        finally:
            await rig.close()

    asyncio.run(work())


def test_a_spoilt_file_is_put_aside_and_told(tmp_path, caplog):
    folder = tmp_path / "registry"
    folder.mkdir()
    (folder / "registry.sqlite").write_bytes(b"nothing of ours" * 1000)

    async def work(rig: Rig) -> None:
        assert (await rig.put()).status_code == 201
        await rig.until(lambda: rig.registry.home.store.writes >= 1)
        assert not list(rig.registry.worries())
        assert len(list(folder.glob("registry.sqlite.spoilt-*"))) == 1

    run(tmp_path, work)
    assert "is now registry.sqlite.spoilt-" in caplog.text


def test_what_cannot_be_taken_up_is_begun_anew(tmp_path, monkeypatch, caplog):
    def broken(*_: Any) -> None:
        raise TypeError("an odd row")

    async def work() -> None:
        rig = Rig(tmp_path)
        with monkeypatch.context() as patched:
            patched.setattr(rig.registry.book, "restore", broken)
            rig.start()
            await rig.until(lambda: not rig.registry.unready)
        assert (await rig.put()).status_code == 201
        await rig.close()
        async with registry(tmp_path) as rig:
            assert rig.listed("a").url == URL

    asyncio.run(work())
    assert "an odd row" in caplog.text


def test_an_end_takes_nobody_away_from_workers(tmp_path):
    async def work() -> None:
        rig = Rig(tmp_path)
        rig.start()
        await rig.until(lambda: not rig.registry.unready)
        await rig.put()
        await rig.until_told([URL])
        told = len(rig.board.told)
        await rig.put("b", url="http://10.0.0.2:1")
        await rig.registry.close()
        assert (await rig.put("c")).status_code == 503
        await asyncio.sleep(0.05)  # longer than what happens at once is waited for
        assert len(rig.board.told) == told
        assert rig.board.forgotten == []
        await rig.client.aclose()
        await rig.resolver.aclose()

    asyncio.run(work())


def test_what_could_not_be_kept_is_kept_later_and_nobody_waits_for_it(tmp_path, monkeypatch):
    async def work(rig: Rig) -> None:
        store = rig.registry.home.store

        def full(*_: Any, **__: Any) -> None:
            store.trouble = "registry.sqlite: the disk is full"
            raise StoreTrouble(store.trouble)

        with monkeypatch.context() as patched:
            patched.setattr(store, "write", full)
            assert (await rig.put()).status_code == 201
            await rig.until(lambda: any("disk is full" in each for each in rig.registry.worries()))
            assert (await rig.get("stats"))["is_kept"] is False
        await rig.pass_time(2)
        await rig.until(lambda: store.writes >= 2 or (store.trouble == "" and store.writes))
        await rig.until(lambda: not list(rig.registry.worries()))

    async def again(rig: Rig) -> None:
        assert rig.registry.book.find("users", "a") is not None

    run(tmp_path, work)
    run(tmp_path, again)


def test_the_files_of_a_directory_come_and_go_with_it(tmp_path):
    folder = tmp_path / "users.d"
    folder.mkdir()
    (folder / "a.yaml").write_text("[http://10.0.0.4:1, {url: http://10.0.0.4:2, weight: 3}]")
    found = {"users": {"discover": {"directory": str(folder)}}}
    none = {"users": {"discover": "registry"}}

    async def work(rig: Rig) -> None:
        await rig.until(lambda: len(rig.board.urls("users") or ()) == 2)
        assert rig.board.told[-1]["members"][1]["weight"] == 3
        (folder / "b.json").write_text("{")
        await rig.until(lambda: any("b.json" in each for each in rig.registry.worries()))
        assert len(rig.board.urls("users") or ()) == 2
        assert (await rig.put()).status_code == 403
        rig.registry.take(Config.model_validate({"services": none}))
        await rig.until(lambda: rig.board.urls("users") == [])
        assert not list(rig.registry.worries())

    async def after(rig: Rig) -> None:
        assert rig.registry.book.of("users") == []

    run(tmp_path, work, services=found)
    run(tmp_path, after, services=none)


def test_a_source_that_nobody_asks_for_any_more_is_forgotten_at_the_next_start(tmp_path):
    folder = tmp_path / "users.d"
    folder.mkdir()
    (folder / "a.json").write_text('"http://10.0.0.4:1"')
    found = {"users": {"discover": {"directory": str(folder)}}}

    async def first(rig: Rig) -> None:
        await rig.until(lambda: rig.board.urls("users") == ["http://10.0.0.4:1"])

    async def second(rig: Rig) -> None:
        assert rig.registry.book.of("users") == []

    run(tmp_path, first, services=found)
    run(tmp_path, second)


def test_what_runs_out_at_once_is_suspected_and_a_worry(tmp_path):
    async def work(rig: Rig) -> None:
        for name in "abcd":
            await rig.put(name, url=f"http://10.0.0.1:{ord(name)}", ttl="4s")
        await rig.pass_time(6)
        assert {one.state for one in rig.registry.book.of("users")} == {"suspect"}
        await rig.until(lambda: any("suspected" in each for each in rig.registry.worries()))
        await rig.until(lambda: len(rig.board.urls("users") or ()) == 4)

    run(tmp_path, work)

"""Bans by the admin API and by `headgate bans`: listed, ordered, lifted, and heard by workers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from headgate.cli import bans as bans_command
from headgate.cli.app import main
from headgate.config.guarding import BansSpec
from headgate.control.admin.bans import add_bans
from headgate.control.admin.problem import install
from headgate.control.ban_book import BanBook
from headgate.control.channel import Channel
from headgate.control.channel import Message as Sent
from headgate.control.client import Answer, Refused
from headgate.control.shared import Shared
from headgate.security.bans import Bans

IP = "198.51.100.1"


class Link:
    """A worker as control sees it: what is sent to it is heard by its bans at once."""

    def __init__(self, name: str, shared: Shared, spec: BansSpec) -> None:
        self.life = name
        self.index = 0
        self.channel = cast("Channel", self)
        self.backlog = 0
        self.shared = shared
        self.listeners: list[Callable[[Mapping[str, Any]], None]] = []
        self.bans = Bans(spec.rules(["203.0.113.200/32"]), time.monotonic())
        self.bans.attach(self)
        shared.heard(self, Sent("shared_hello", {"retained": []}))

    def send(self, kind: str, **fields: Any) -> None:
        if kind == "shared_news" and fields["topic"] == "ban":
            for hear in self.listeners:
                hear(json.loads(json.dumps(fields["message"])))
        elif kind == "shared_welcome":
            for topic, _, _, message in fields["retained"]:
                self.send("shared_news", topic=topic, message=message)

    @property
    def snapshot(self) -> dict[str, Any]:
        said = {"list": self.bans.snapshot(time.monotonic()), "figures": self.bans.figures()}
        return {"entrance": {"bans": said}}

    # -- the worker's parts

    def spawn(self, work: Coroutine[object, object, None]) -> object:
        work.close()
        return None

    def subscribe(self, topic: str, hear: Callable[[Mapping[str, Any]], None]) -> None:
        self.listeners.append(hear)

    def publish(self, topic: str, message: Mapping[str, Any], retain: str | None = None) -> None:
        fields = {"topic": topic, "message": message, "retain": retain, "version": 1}
        self.shared.heard(self, Sent("shared_news", json.loads(json.dumps(fields))))


@dataclass
class Hub:
    links: dict[str, Any] = field(default_factory=dict)

    async def refresh(self) -> None:
        await asyncio.sleep(0)


@dataclass
class Rig:
    config: Any
    shared: Shared
    bans: BanBook
    hub: Hub
    app: FastAPI

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
                return await client.request(method, path, json=body)

        return asyncio.run(asked())

    def worker(self, name: str) -> Link:
        link = self.hub.links[name] = Link(name, self.shared, self.config.bans)
        return link


@pytest.fixture
def rig() -> Rig:
    config: Any = SimpleNamespace(
        bans=BansSpec.model_validate(
            {"when": [{"kind": "injection", "more_than": 2, "within": "1min", "ban": "10min"}]}
        ),
        trusted_proxies=("203.0.113.200/32",),
    )
    shared = Shared()
    book = BanBook(shared, lambda: config)
    book.bans.attach(_Quiet(book), shared.forget)
    app = FastAPI()
    install(app)
    router = APIRouter()
    rig = Rig(config, shared, book, Hub(), app)
    add_bans(router, cast("Any", rig))
    app.include_router(router)
    return rig


class _Quiet:
    """The book's own parts but for the task, which would need a loop that stays."""

    def __init__(self, book: BanBook) -> None:
        self.publish, self.subscribe = book.publish, book.subscribe

    def spawn(self, work: Coroutine[object, object, None]) -> object:
        work.close()
        return None


def offend(link: Link, client_ip: str = IP) -> None:
    for _ in range(3):
        link.bans.saw(client_ip, "injection")


def is_out(link: Link, client_ip: str = IP) -> bool:
    return link.bans.check(client_ip, time.monotonic()) is not None


def test_a_ban_of_a_worker_is_listed_with_its_reason_and_lifted_everywhere(rig: Rig):
    one, other = rig.worker("one"), rig.worker("other")
    offend(one)
    assert is_out(one)
    assert is_out(other)
    listed = rig.ask("GET", "/api/bans").json()
    (row,) = listed["bans"]
    assert (row["id"], row["by"], row["times"], row["refused"]) == (IP, "injection", 1, 2)
    assert row["why"] == "more than 2 of injection within 60 s"
    assert 590 < row["remaining_s"] <= 600
    assert abs(row["since"] - time.time()) < 60
    assert listed["total"] == 1
    assert listed["by_rule"] == {"injection": 1}
    assert listed["events"] == {"injection": 3}
    assert listed["refused"] == 2
    got = rig.ask("DELETE", f"/api/bans/{IP}")
    assert (got.status_code, got.json()) == (200, {"message": f"{IP} may come in again"})
    assert not is_out(one)
    assert not is_out(other)
    assert rig.ask("GET", "/api/bans").json()["bans"] == []


@pytest.mark.parametrize(
    ("address", "id_", "inside"),
    [
        ("192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("192.0.2.0/24", "192.0.2.0/24", "192.0.2.99"),
        ("2001:db8::1", "2001:db8::/64", "2001:db8::2"),
    ],
)
def test_what_is_banned_by_hand_is_out_in_all_workers_also_in_later_ones(
    rig: Rig, address: str, id_: str, inside: str
):
    one = rig.worker("one")
    got = rig.ask("POST", "/api/bans", {"address": address, "for": "30min", "why": "noise"})
    assert got.status_code == 201
    assert got.json()["id"] == id_
    later = rig.worker("later")
    for worker in (one, later):
        assert is_out(worker, inside)
    (row,) = rig.ask("GET", "/api/bans").json()["bans"]
    assert (row["id"], row["by"], row["why"], row["refused"]) == (id_, "hand", "noise", 2)
    assert rig.ask("DELETE", f"/api/bans/{id_}").status_code == 200
    assert not is_out(one, inside)
    assert not is_out(later, inside)


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ({"address": "nonsense"}, "is not an address or network"),
        ({"address": "203.0.113.200"}, "is exempt"),
        ({"address": "127.0.0.1"}, "is exempt"),
        ({"address": "0.0.0.0/0"}, "too wide"),
        ({"address": IP, "for": "soon"}, "soon"),
        ({"address": IP, "for": "0s"}, "lasts for some time"),
        ({"address": IP, "for": "1000d"}, "366 days"),
        ({"address": IP, "why": "x" * 300}, "form"),
        ({"address": IP, "until": "noon"}, "form"),
        ({}, "form"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_as_a_problem(
    rig: Rig, order: dict[str, Any], reason: str
):
    got = rig.ask("POST", "/api/bans", order)
    assert got.status_code == 422
    assert got.headers["content-type"] == "application/problem+json"
    assert reason in got.json()["detail"]
    assert rig.ask("GET", "/api/bans").json()["total"] == 0


def test_who_is_not_banned_cannot_be_lifted_and_the_network_that_holds_it_is_named(rig: Rig):
    got = rig.ask("DELETE", "/api/bans/192.0.2.7")
    assert (got.status_code, got.json()["detail"]) == (404, "192.0.2.7 is not banned")
    rig.ask("POST", "/api/bans", {"address": "192.0.2.0/24"})
    got = rig.ask("DELETE", "/api/bans/192.0.2.7")
    assert got.status_code == 404
    assert "shut out with 192.0.2.0/24" in got.json()["detail"]
    assert rig.ask("DELETE", "/api/bans/nonsense").status_code == 422


def test_the_list_comes_in_pages_and_by_address(rig: Rig):
    worker = rig.worker("one")
    for number in range(25):
        offend(worker, f"198.51.100.{number}")
    rig.ask("POST", "/api/bans", {"address": "198.51.0.0/16"})
    found: list[str] = []
    for offset in range(0, 40, 10):
        page = rig.ask("GET", f"/api/bans?limit=10&offset={offset}").json()
        assert page["total"] == 26
        found += [row["id"] for row in page["bans"]]
    assert len(found) == len(set(found)) == 26
    assert found[0] == "198.51.0.0/16"  # the newest
    holding = rig.ask("GET", "/api/bans?address=198.51.100.7").json()
    assert {row["id"] for row in holding["bans"]} == {"198.51.0.0/16", "198.51.100.7"}
    assert rig.ask("GET", "/api/bans?address=192.0.2.1").json()["total"] == 0
    for wrong in ("limit=0", "limit=1001", "offset=-1", "address=nonsense"):
        assert rig.ask("GET", f"/api/bans?{wrong}").status_code == 422


def test_bans_that_only_workers_know_are_listed_and_lifted_too(rig: Rig):
    worker = rig.worker("one")
    worker.listeners.clear()
    worker.shared = Shared()  # its news goes to a Redis
    offend(worker)
    assert rig.bans.bans.snapshot(time.monotonic()) == []
    assert [row["id"] for row in rig.ask("GET", "/api/bans").json()["bans"]] == [IP]
    assert rig.ask("DELETE", f"/api/bans/{IP}").status_code == 200


def test_what_has_ended_is_taken_off_the_board_whoever_said_it(rig: Rig):
    offend(rig.worker("one"))
    rig.ask("POST", "/api/bans", {"address": "192.0.2.7", "for": "1min"})
    assert rig.shared.snapshot()["retained"] == 2
    now = time.monotonic()
    rig.bans.bans.sweep(now + 59)
    assert rig.shared.snapshot()["retained"] == 2
    rig.bans.bans.sweep(now + 61)
    assert rig.shared.snapshot()["retained"] == 1
    rig.bans.bans.sweep(now + 601)
    assert rig.shared.snapshot()["retained"] == 0


def test_a_reload_is_taken_up_by_the_list_of_control(rig: Rig):
    offend(rig.worker("one"))
    assert rig.ask("GET", "/api/bans").json()["total"] == 1
    rig.hub.links.clear()
    exempt = BansSpec.model_validate({"exempt": f"{IP}/32", "when": rig.config.bans.when})
    rig.config = SimpleNamespace(bans=exempt, trusted_proxies=())
    rig.bans._config = lambda: rig.config
    assert rig.ask("GET", "/api/bans").json()["total"] == 0
    assert rig.ask("POST", "/api/bans", {"address": IP}).status_code == 422


def test_where_the_file_has_no_bans_an_operator_may_ban_all_the_same(rig: Rig):
    rig.config = SimpleNamespace(bans=None, trusted_proxies=("203.0.113.200/32",))
    rig.bans._config = lambda: rig.config
    assert rig.ask("POST", "/api/bans", {"address": IP}).status_code == 201
    assert rig.ask("POST", "/api/bans", {"address": "203.0.113.200"}).status_code == 422


def test_the_book_sweeps_while_it_runs_and_ends_with_control():
    async def whole() -> None:
        shared = Shared()
        config = cast("Any", SimpleNamespace(bans=None, trusted_proxies=()))
        book = BanBook(shared, lambda: config)
        book.start()
        book.bans.ban(IP, 60, "noise")
        assert shared.snapshot()["retained"] == 1
        book.stop()
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1
        book.stop()

    asyncio.run(whole())


# -- the command


class Client:
    """The admin API behind the command, without its socket."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        got = self.rig.ask(method, path, body)
        if got.status_code >= 400:
            raise Refused(got.status_code, got.json())
        return Answer(got.status_code, got.json())


@pytest.fixture
def command(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setattr(bans_command, "find", lambda *_: Client(rig))
    monkeypatch.setitem(__import__("headgate.cli.app", fromlist=["app"]).COMMANDS, "bans", "Bans.")

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["bans", *words])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out.strip(), err.strip()

    return run


def test_the_command_lists_adds_and_lifts(rig: Rig, command: Callable[..., tuple[int, str, str]]):
    worker = rig.worker("one")
    assert command() == (0, "nobody is shut out", "")
    added = command("add", "2001:db8::7", "--for", "3h", "--why", "noise")
    assert added == (0, "2001:db8::/64 is shut out for 3 h", "")
    assert is_out(worker, "2001:db8::9")
    code, out, _ = command("list")
    assert code == 0
    assert out.startswith("2001:db8::/64")
    assert "3 h left" in out
    assert out.endswith("hand: noise")
    assert command("list", "192.0.2.1")[1] == "nobody is shut out"
    assert json.loads(command("list", "2001:db8::9", "--format", "json")[1])["total"] == 1
    assert command("lift", "2001:db8::9") == (0, "2001:db8::/64 may come in again", "")
    assert not is_out(worker, "2001:db8::9")


def test_the_command_tells_why_it_was_refused(command: Callable[..., tuple[int, str, str]]):
    code, out, err = command("add", "127.0.0.1")
    assert (code, out) == (1, "")
    assert "is exempt" in err
    assert command("lift", "192.0.2.7")[2] == "headgate: 192.0.2.7 is not banned"
    assert command("add")[0] == 1
    assert "which address?" in command("lift")[2]
    assert command("add", IP, "--for", "soon")[0] == 1


def test_the_command_reads_page_after_page(
    rig: Rig, command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
):
    worker = rig.worker("one")
    for number in range(12):
        offend(worker, f"198.51.100.{number}")
    monkeypatch.setattr(bans_command, "_PAGE", 5)
    assert len(command("--limit", "20")[1].splitlines()) == 12
    assert command("--limit", "7")[1].splitlines()[-1] == "and 5 more; see --limit"

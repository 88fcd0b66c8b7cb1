"""The cache by the admin API: purging, figures, what is held, news; and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from headgate.cache.invalidation import Invalidation
from headgate.control.admin import caching as admin_caching
from headgate.control.admin.audit import Audited
from headgate.control.admin.caching import add_caching
from headgate.control.admin.guard import Guard
from headgate.control.admin.problem import install
from headgate.control.caching import Caching
from headgate.control.caching_edge import Edge
from headgate.control.state_dir import StateDir
from headgate.security.redact import Redactor
from tests.control.caching_parts import Board, Link, Records, Shop


class Rig:
    """The endpoints behind guard and audit, on workers that are none."""

    def __init__(self, folder: Path) -> None:
        self.one, self.two = Link(0), Link(1)
        self.hub = Shop(self.one, self.two)
        self.records = Records()
        edge = Edge(lambda: self.hub.links, lambda: self.hub.workers)
        self.caching = Caching(edge, StateDir(folder), self.records, Board())
        api = FastAPI()
        install(api)
        router = APIRouter()
        add_caching(router, cast("Any", self))
        api.include_router(router)
        guard = Guard(api, token=lambda: "secret", own_host="", is_local=False)
        self.app = Audited(guard, cast("Any", _NoAudit(self.records)))

    def client(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=cast("Any", self.app))
        headers = {"authorization": "Bearer secret"}
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers)

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def asked() -> httpx.Response:
            async with self.client() as client:
                return await client.request(method, path, **more)

        return asyncio.run(asked())

    def purge(self, **order: Any) -> httpx.Response:
        return self.ask("POST", "/api/cache/purge", json=order)

    def run(self, work: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with asyncio.timeout(20), self.client() as client:
                await work(client)

        asyncio.run(whole())


class _NoAudit:
    def __init__(self, records: Records) -> None:
        self.record = records.record

    def refusal(self) -> str:
        return ""

    async def settle(self) -> None:
        await asyncio.sleep(0)

    def counted(self, *_words: Any) -> None:
        pass

    @property
    def redactor(self) -> Redactor:
        return Redactor()


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


HOST = "https://shop.example"


@pytest.mark.parametrize(
    ("order", "means"),
    [
        ({"url": f"{HOST}/a?b=1"}, {"urls": (f"{HOST}/a?b=1",)}),
        ({"url": "https://SHOP.example:443/a"}, {"urls": (f"{HOST}/a",)}),
        ({"url": ["/a", "/b"]}, {"urls": ("/a", "/b")}),
        ({"urls": ["/a", "/b/*"]}, {"urls": ("/a", "/b/*")}),
        ({"prefix": "/a/"}, {"urls": ("/a/*",)}),
        ({"prefix": f"{HOST}/a"}, {"urls": (f"{HOST}/a*",)}),
        ({"pattern": "*.png"}, {"urls": ("*.png",)}),
        ({"tags": "a"}, {"tags": ("a",)}),
        ({"tags": ["a", "b", "a"]}, {"tags": ("a", "b")}),
        ({"tags": ["with a space, é"]}, {"tags": ("with a space, é",)}),
        ({"keys": ["k\x00"], "patterns": ["p:*"]}, {"keys": ("k\x00",), "patterns": ("p:*",)}),
        ({"everything": "responses"}, {"everything": "responses"}),
        ({"everything": "all", "soft": True}, {"everything": "all", "soft": True}),
        ({"tags": ["a"], "url": "/a"}, {"tags": ("a",), "urls": ("/a",)}),
        ({"tags": ["a"], "by": "shop"}, {"tags": ("a",), "by": "shop"}),
    ],
    ids=lambda value: None,
)
def test_what_is_ordered_is_what_workers_are_told(
    rig: Rig, order: dict[str, Any], means: dict[str, Any]
):
    got = rig.purge(**order)
    assert got.status_code == 200, got.text
    said = got.json()
    expected = Invalidation(**means, stamp=said["stamp"])
    assert rig.one.heard == rig.two.heard == [expected]
    assert said | {"stamp": 0} == {
        "stamp": 0,
        "responses": 6,
        "workers": 2,
        "workers_of": 2,
        "silent": [],
        "others": "none",
        "why": "",
        "queued": False,
        "listeners": 0,
        "complete": True,
    }
    purged, order_row = rig.records.rows
    assert (purged.action, purged.actor, purged.origin) == (
        "cache.purged",
        "admin-token",
        "127.0.0.1",
    )
    assert purged.detail["responses"] == 6
    assert (order_row.action, order_row.after) == ("admin.post", order)


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ({}, "nothing to purge"),
        ({"soft": True}, "nothing to purge"),
        ({"tags": []}, "nothing to purge"),
        ({"tag": ["a"]}, "form"),
        ({"tags": [1]}, "form"),
        ({"tags": None}, "form"),
        ({"tags": [""]}, "form"),
        ({"tags": ["x" * 2049]}, "form"),
        ({"tags": {"a": 1}}, "form"),
        ({"soft": 1, "tags": ["a"]}, "form"),
        ({"soft": "yes", "tags": ["a"]}, "form"),
        ({"everything": True}, "form"),
        ({"everything": "some"}, "form"),
        ({"stamp": 5, "tags": ["a"]}, "form"),
        ({"tags": ["a"] * 1001}, "form"),
        ({"tags": [str(n) for n in range(600)], "keys": [str(n) for n in range(600)]}, "1000"),
        ({"url": "shop.example/a"}, "not complete"),
        ({"url": "ftp://shop.example/a"}, "not complete"),
        ({"url": "https://u:p@shop.example/a"}, "password"),
        ({"url": "https://shop.example:99999/a"}, "port"),
        ({"url": "/a*"}, "prefix or a pattern"),
        ({"url": "/a b"}, "space"),
        ({"prefix": "/a*b"}, "pattern"),
        ({"pattern": "/a"}, "url"),
        ({"pattern": "*a" * 50}, "more than"),
        ({"tags": ["a"], "by": "x" * 201}, "form"),
    ],
    ids=lambda value: None,
)
def test_an_order_that_makes_no_sense_is_a_problem_and_tells_nobody(
    rig: Rig, order: dict[str, Any], reason: str
):
    got = rig.purge(**order)
    assert got.status_code == 422, got.text
    assert got.headers["content-type"] == "application/problem+json"
    assert reason in got.json()["detail"]
    assert rig.one.heard == []


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[]", b'"a"', b"\xff", b'{"tags": ["\\ud800"]}', b"[" * 50_000],
    ids=["empty", "torn", "null", "list", "text", "bytes", "surrogate", "deep"],
)
def test_a_body_that_is_no_order_is_a_problem(rig: Rig, body: bytes):
    headers = {"content-type": "application/json"}
    got = rig.ask("POST", "/api/cache/purge", content=body, headers=headers)
    assert got.status_code in {400, 422}, got.text
    assert got.headers["content-type"] == "application/problem+json"
    assert rig.one.heard == []


def test_a_huge_body_is_refused(rig: Rig):
    got = rig.purge(tags=["x" * 1000] * 100)
    assert got.status_code == 413
    assert rig.one.heard == []


def test_without_the_token_nothing_is_told_and_nothing_is_done(rig: Rig):
    for method, path in (
        ("POST", "/api/cache/purge"),
        ("GET", "/api/cache/stats"),
        ("GET", "/api/cache/inspect?url=/a"),
        ("GET", "/api/cache/news"),
    ):
        got = rig.ask(method, path, headers={"authorization": "Bearer wrong"})
        assert got.status_code == 401
    assert rig.one.heard == []


def test_a_purge_that_a_worker_has_not_heard_is_not_complete(rig: Rig):
    rig.two.mood = "silent"
    said = rig.purge(tags=["a"]).json()
    assert (said["workers"], said["workers_of"], said["silent"]) == (1, 2, [1])
    assert not said["complete"]


def test_purges_beyond_the_rate_are_asked_to_come_again(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    rig.caching._tokens = 1.0
    monkeypatch.setattr("headgate.control.caching.RATE", 0.001)
    assert rig.purge(tags=["a"]).status_code == 200
    got = rig.purge(tags=["a"])
    assert got.status_code == 429
    assert int(got.headers["retry-after"]) >= 1
    assert "name several in one purge" in got.json()["detail"]


# -- figures


def test_figures_of_all_workers_are_one(rig: Rig):
    lower = {"kind": "disk", "place": "/c", "entries": 50, "bytes": 5000, "hits": 3, "misses": 1}
    rig.one.snapshot = {
        "cache": {
            "routes": {"shop": {"hit": 6, "miss": 2, "stale": 1, "pass": 9}},
            "store": {
                "entries": 2,
                "bytes": 100,
                "bytes_max": 1000,
                "evictions": 4,
                "lower": lower,
            },
        }
    }
    rig.two.snapshot = {
        "cache": {
            "routes": {"shop": {"hit": 1, "collapsed": 1, "revalidated": 1}, "api": {"miss": 1}},
            "store": {
                "entries": 3,
                "bytes": 50,
                "bytes_max": 1000,
                "lower": {**lower, "entries": 48, "is_away": True, "why": "full disk"},
            },
        }
    }
    said = rig.ask("GET", "/api/cache/stats").json()
    api, shop = said["routes"]
    assert (api["route"], api["misses"], api["hit_ratio"]) == ("api", 1, 0.0)
    assert (shop["hits"], shop["stale"], shop["collapsed"], shop["passed"]) == (7, 1, 1, 9)
    assert shop["hit_ratio"] == 0.75
    assert said["total"]["hits"] == 7
    memory, disk = said["stores"]
    assert (memory["entries"], memory["bytes"], memory["bytes_max"]) == (5, 150, 2000)
    assert memory["evictions"] == 4
    assert (disk["kind"], disk["entries"], disk["bytes"], disk["hits"]) == ("disk", 50, 5000, 6)
    assert (disk["away"], disk["why"]) == (1, "full disk")
    assert (said["workers"], said["layer"]) == (2, None)


def test_what_a_store_does_not_know_of_itself_is_null(rig: Rig):
    lower = {"kind": "redis", "place": "r", "entries": -1, "bytes": -1, "bytes_max": -1, "hits": 3}
    for worker in (rig.one, rig.two):
        worker.snapshot = {"cache": {"routes": {}, "store": {"entries": 2, "lower": lower}}}
    memory, redis = rig.ask("GET", "/api/cache/stats").json()["stores"]
    assert (memory["entries"], memory["bytes"]) == (4, 0)
    assert (redis["entries"], redis["bytes"], redis["bytes_max"]) == (None, None, None)
    assert redis["hits"] == 6


@pytest.mark.parametrize(
    "snapshot",
    [
        None,
        {},
        {"cache": None},
        {"cache": []},
        {"cache": {"routes": [], "store": 7}},
        {"cache": {"routes": {"a": 5}, "store": {"entries": "x", "bytes": -1, "lower": None}}},
    ],
    ids=["none", "empty", "null", "list", "wrong", "wronger"],
)
def test_figures_of_a_worker_without_a_cache_are_none(rig: Rig, snapshot: Any):
    rig.one.snapshot = snapshot
    got = rig.ask("GET", "/api/cache/stats")
    assert got.status_code == 200, got.text
    assert got.json()["total"]["hits"] == 0
    assert got.json()["total"]["hit_ratio"] is None


# -- what is held


def test_copies_of_several_workers_are_one_row_with_its_workers(rig: Rig):
    held = {
        "url": f"{HOST}/a",
        "status": 200,
        "age_s": 5.0,
        "fresh_s": 60.0,
        "is_fresh": True,
        "is_soft_struck": False,
        "vary": ["accept"],
        "tags": ["a"],
        "etag": '"x"',
        "body_bytes": 10,
        "held_bytes": 100,
        "hits": 3,
        "stamp": 4,
    }
    rig.one.rows = [held, {**held, "vary": [], "hits": 1, "age_s": 2.0}, {**held, "age_s": 9.0}]
    rig.two.rows = [{**held, "hits": 4, "age_s": 50.0}, {"url": 5, "tags": 7, "hits": "x"}]
    said = rig.ask("GET", "/api/cache/inspect?url=https://SHOP.example:443/a").json()
    assert said["url"] == f"{HOST}/a"
    broken, first, second, third = said["responses"]
    assert (broken["url"], broken["tags"], broken["hits"]) == ("5", [], 0)
    assert (first["age_s"], first["hits"], first["workers"], first["vary"]) == (2.0, 1, [0], [])
    assert (second["hits"], second["workers"], second["status"]) == (7, [0, 1], 200)
    assert (second["age_s"], second["ttl_s"], second["held_bytes"]) == (5.0, 55.0, 200)
    assert [copy["ttl_s"] for copy in second["copies"]] == [55.0, 10.0]
    assert (third["age_s"], third["workers"]) == (9.0, [0])
    assert (said["workers"], said["workers_of"]) == (2, 2)


@pytest.mark.parametrize(
    "url", ["", "nonsense", "/path", "x" * 3000], ids=["empty", "nonsense", "path", "long"]
)
def test_what_is_no_url_is_not_looked_for(rig: Rig, url: str):
    assert rig.ask("GET", "/api/cache/inspect", params={"url": url}).status_code == 422


# -- news


def test_who_polls_hears_of_a_purge_while_it_waits(rig: Rig):
    async def whole(client: httpx.AsyncClient) -> None:
        begin = (await client.get("/api/cache/news")).json()
        assert (begin["gap"], begin["news"]) == (False, [])
        waiting = asyncio.create_task(client.get(f"/api/cache/news?since={begin['stamp']}"))
        while not rig.caching.listeners:
            await asyncio.sleep(0)
        purged = (await client.post("/api/cache/purge", json={"tags": ["a"], "by": "me"})).json()
        assert purged["listeners"] in {0, 1}
        said = (await waiting).json()
        assert said == {
            "stamp": purged["stamp"],
            "gap": False,
            "news": [{"tags": ["a"], "by": "me", "stamp": purged["stamp"]}],
        }
        assert rig.caching.listeners == 0
        past = await client.get(f"/api/cache/news?since={begin['stamp']}&wait=0")
        assert past.json() == said

    rig.run(whole)


def test_who_polls_is_told_of_a_gap_and_of_nothing_when_the_time_is_over(rig: Rig):
    async def whole(client: httpx.AsyncClient) -> None:
        stamp = rig.caching.news.stamp
        assert (await client.get("/api/cache/news?since=5")).json()["gap"] is True
        assert (await client.get(f"/api/cache/news?since={stamp + 1}")).json()["gap"] is True
        got = await client.get(f"/api/cache/news?since={stamp}&wait=0")
        assert got.json() == {"stamp": stamp, "gap": False, "news": []}

    rig.run(whole)


def test_the_end_of_control_lets_go_of_those_who_wait(rig: Rig):
    async def whole(client: httpx.AsyncClient) -> None:
        since = rig.caching.news.stamp
        waiting = asyncio.create_task(client.get(f"/api/cache/news?since={since}&wait=50"))
        while not rig.caching.listeners:
            await asyncio.sleep(0)
        rig.caching.hush()
        assert (await waiting).json()["news"] == []

    rig.run(whole)


def test_those_who_wait_are_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(admin_caching, "LISTENERS_MAX", 1)

    async def whole(client: httpx.AsyncClient) -> None:
        since = rig.caching.news.stamp
        waiting = asyncio.create_task(client.get(f"/api/cache/news?since={since}&wait=50"))
        while not rig.caching.listeners:
            await asyncio.sleep(0)
        got = await client.get(f"/api/cache/news?since={since}")
        assert got.status_code == 503
        assert got.headers["retry-after"] == "5"
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert rig.caching.listeners == 0

    rig.run(whole)


@pytest.mark.parametrize("query", ["since=-1", "since=x", "since=1e3", "wait=51", "wait=-1"])
def test_a_question_that_is_none_is_refused(rig: Rig, query: str):
    assert rig.ask("GET", f"/api/cache/news?{query}").status_code == 422

"""A service linked to a gateway: told, hearing, away and back; and what a broken peer may say."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.cache import gateway_http, gateway_link
from headgate.cache.cache import Cache
from headgate.cache.gateway_http import Gateway, GatewayAway
from headgate.cache.gateway_link import NAMES_MAX, GatewayLink, _pieces
from headgate.cache.invalidation import Invalidation
from tests.listening import stop_listening

pytestmark = pytest.mark.integration

Asked = tuple[str, str, dict[str, str], Any]


def tags(*names: str, soft: bool = False) -> Invalidation:
    return Invalidation(tags=names, soft=soft)


class Peer:
    """An admin API of which the test writes every answer."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.purges: list[dict[str, Any]] = []
        self.news: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.status = 200
        self.refused: set[str] = set()
        self.raw: bytes | None = None
        self.go = asyncio.Event()
        self.go.set()
        self.url = ""
        self.stamp = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head[:-4].split("\r\n")
            method, path, _version = first.split(" ")
            fields = dict(line.split(": ", 1) for line in lines)
            body = await reader.readexactly(int(fields.get("content-length", "0")))
            said = json.loads(body) if body else None
            self.asked.append((method, path, fields, said))
            answer = self.raw or await self.answer(method, said)
            writer.write(answer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def answer(self, method: str, said: Any) -> bytes:
        status, content = self.status, {}
        if method == "GET":
            if status == 200:
                content = await self.news.get()
        else:
            await self.go.wait()
            if self.refused & set(said.get("tags", ())):
                status, content = 422, {"detail": "no such tag"}
            elif status == 200:
                self.purges.append(said)
                content = {"complete": True}
        text = json.dumps(content).encode()
        return (
            f"HTTP/1.1 {status} It is\r\ncontent-type: application/json\r\n"
            f"content-length: {len(text)}\r\n\r\n"
        ).encode() + text

    def say(self, *news: Invalidation, gap: bool = False) -> None:
        self.stamp += 1
        said = [each.to_json() for each in news]
        self.news.put_nowait({"stamp": self.stamp, "gap": gap, "news": said})

    @property
    def polls(self) -> list[str]:
        return [path for method, path, _, _ in self.asked if method == "GET"]

    async def end(self, server: asyncio.Server) -> None:
        await stop_listening(server)
        while self._tasks:
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.sleep(0.001)
        for writer in self._writers:  # what nobody has read is not waited for
            writer.transport.abort()
        await server.wait_closed()


class Heard:
    def __init__(self) -> None:
        self.news: list[Invalidation] = []
        self.gaps = 0

    def gap(self) -> None:
        self.gaps += 1


@asynccontextmanager
async def peer(port: int = 0) -> AsyncIterator[Peer]:
    made = Peer()
    server = await asyncio.start_server(made.serve, "127.0.0.1", port)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        await made.end(server)


@asynccontextmanager
async def linked(
    url: str, heard: Heard | None = None, **settings: Any
) -> AsyncIterator[GatewayLink]:
    link = GatewayLink(url, "secret", rng=random.Random(1), **settings)
    if heard is not None:
        await link.start(heard.news.append, heard.gap)
    try:
        yield link
    finally:
        await link.close()


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await work
            # A server of a test may be about to accept what has gone already.
            await eventually(lambda: len(asyncio.all_tasks()) == 1)
            for _ in range(5):  # what was closed is closed a turn of the loop later
                await asyncio.sleep(0)

    asyncio.run(bounded())


async def eventually(what: Callable[[], Any]) -> None:
    while not what():
        await asyncio.sleep(0.002)


# -- telling


def test_what_a_service_invalidates_is_posted_with_the_token_and_its_name():
    async def whole() -> None:
        async with peer() as gateway, linked(gateway.url, name="shop") as link:
            assert await link.tell(Invalidation(tags=("a",), keys=("k",), soft=True, stamp=77))
            ((method, path, fields, said),) = gateway.asked
            assert (method, path) == ("POST", "/api/cache/purge")
            assert fields["authorization"] == "Bearer secret"
            assert fields["host"] == gateway.url.removeprefix("http://")
            assert said.pop("by").startswith("shop#")
            assert said == {"tags": ["a"], "keys": ["k"], "soft": True}
            assert link.snapshot().told == 1

    run(whole())


def test_what_is_told_meanwhile_goes_together():
    async def whole() -> None:
        async with peer() as gateway, linked(gateway.url) as link:
            gateway.go.clear()
            telling = [asyncio.create_task(link.tell(tags("first")))]
            await eventually(lambda: gateway.asked)
            telling += [asyncio.create_task(link.tell(tags(f"t{n}", "same"))) for n in range(50)]
            telling += [asyncio.create_task(link.tell(tags("soft", soft=True)))]
            await asyncio.sleep(0)
            gateway.go.set()
            assert all(await asyncio.gather(*telling))
            first, many, soft = gateway.purges
            assert (first["tags"], soft["tags"], soft["soft"]) == (["first"], ["soft"], True)
            assert len(many["tags"]) == 51

    run(whole())


def test_what_is_long_goes_in_several_messages_that_the_admin_api_takes():
    async def whole() -> None:
        async with peer() as gateway, linked(gateway.url) as link:
            names = tuple(f"{n:04}" + "é" * 300 for n in range(200))
            assert await link.tell(Invalidation(tags=names, keys=("k",)))
            assert len(gateway.purges) > 1
            found = [tag for said in gateway.purges for tag in said.get("tags", ())]
            assert found == list(names)
            assert gateway.purges[-1]["keys"] == ["k"]
            for _, _, fields, said in gateway.asked:
                assert int(fields["content-length"]) < 64 * 1024
                assert sum(len(said.get(kind, ())) for kind in ("tags", "keys")) <= 1000

    run(whole())


def test_a_name_that_the_gateway_refuses_does_not_keep_others_from_being_told(
    caplog: pytest.LogCaptureFixture,
):
    async def whole() -> None:
        async with peer() as gateway, linked(gateway.url) as link:
            gateway.refused = {"bad"}
            gateway.go.clear()
            telling = [asyncio.create_task(link.tell(tags("first")))]
            await eventually(lambda: gateway.asked)
            for name in ("good", "bad", "better"):
                telling.append(asyncio.create_task(link.tell(tags(name))))
            await asyncio.sleep(0)
            gateway.go.set()
            assert await asyncio.gather(*telling) == [True, True, False, True]
            assert [said["tags"] for said in gateway.purges] == [["first"], ["good"], ["better"]]
            assert link.snapshot().refused == 1
            assert "no such tag" in caplog.text

    run(whole())


def test_while_the_gateway_is_away_purges_wait_and_are_told_when_it_is_back():
    async def whole() -> None:
        async with peer() as gateway:
            port = int(gateway.url.rpartition(":")[2])
            url = gateway.url
        async with linked(url, timeout_s=0.1) as link:
            assert not await link.tell(tags("a"))
            assert not await link.tell(tags("b"))
            said = link.snapshot()
            assert (said.is_away, said.queued) == (True, 2)
            async with peer(port) as back:
                await eventually(lambda: back.purges)
                await eventually(lambda: not link.snapshot().queued)
                assert [said["tags"] for said in back.purges] == [["a", "b"]]
                assert not link.snapshot().is_away

    run(whole())


@pytest.mark.parametrize("status", [401, 429, 500, 503])
def test_what_the_gateway_cannot_take_now_is_told_later(status: int):
    async def whole() -> None:
        async with peer() as gateway, linked(gateway.url, timeout_s=0.2) as link:
            gateway.status = status
            assert not await link.tell(tags("a"))
            gateway.status = 200
            await eventually(lambda: gateway.purges)
            await eventually(lambda: not link.snapshot().queued)

    run(whole())


def test_too_much_that_waits_becomes_everything(caplog: pytest.LogCaptureFixture):
    async def whole() -> None:
        async with peer() as gateway, linked(gateway.url, timeout_s=0.05) as link:
            gateway.status = 503
            for start in range(0, NAMES_MAX + 1000, 1000):
                names = tuple(f"t{n}" for n in range(start, start + 1000))
                work = asyncio.create_task(link.tell(Invalidation(tags=names)))
                await asyncio.sleep(0)
                work.cancel()
            assert link.snapshot().queued < 2000
            gateway.status = 200
            await eventually(lambda: gateway.purges and not link.snapshot().queued)
            assert gateway.purges[0]["everything"] == "all"
            assert "everything" in caplog.text

    run(whole())


def test_a_caller_that_leaves_does_not_take_its_purge_with_it():
    async def whole() -> None:
        async with peer() as gateway, linked(gateway.url) as link:
            gateway.go.clear()
            work = asyncio.create_task(link.tell(tags("a")))
            await eventually(lambda: gateway.asked)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            gateway.go.set()
            await eventually(lambda: gateway.purges)

    run(whole())


def test_nothing_is_told_after_the_end_and_nothing_for_nothing():
    async def whole() -> None:
        async with peer() as gateway:
            async with linked(gateway.url) as link:
                assert not await link.tell(Invalidation())
            assert not await link.tell(tags("a"))
            await link.close()
            assert gateway.asked == []

    run(whole())


def test_a_close_in_the_middle_of_telling_ends(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gateway_link, "FLUSH_S", 0.05)

    async def whole() -> None:
        async with peer() as gateway:
            link = GatewayLink(gateway.url, timeout_s=10)
            assert await link.tell(tags("a"))
            gateway.go.clear()
            work = asyncio.create_task(link.tell(tags("b")))
            await eventually(lambda: len(gateway.asked) == 2)
            await link.close()
            assert await work is False

    run(whole())


def test_a_link_goes_on_in_another_loop_and_after_a_close():
    link = GatewayLink("http://127.0.0.1:9", timeout_s=0.05)
    heard = Heard()

    async def away() -> None:
        await link.start(heard.news.append, heard.gap)
        assert not await link.tell(tags("waited"))

    asyncio.run(away())

    async def whole() -> None:
        async with peer() as gateway:
            link._gateway = Gateway.at(gateway.url, "")
            await link.start(heard.news.append, heard.gap)
            assert await link.tell(tags("later"))
            assert [said["tags"] for said in gateway.purges] == [["waited", "later"]]
            await link.close()
            await link.start(heard.news.append, heard.gap)
            gateway.say()  # to the one that has gone
            gateway.say()
            await eventually(lambda: heard.gaps)
            await link.close()

    run(whole())


def test_a_cache_with_a_link_tells_and_hears():
    async def whole() -> None:
        async with peer() as gateway:
            cache = Cache(links=[GatewayLink(gateway.url)])
            await cache.start()
            gateway.say()
            await eventually(lambda: len(gateway.polls) == 2)
            await cache.set("product:42", "old", tags=["product:42"])
            await cache.set("user:7", "kept", tags=["user:7"])
            gateway.say(tags("product:42").at(3))
            await eventually(lambda: len(gateway.polls) == 3)
            assert await cache.get("product:42") is None
            assert await cache.get("user:7") == "kept"
            await cache.invalidate(tags=["user:7"])
            assert await cache.get("user:7") is None
            assert [said["tags"] for said in gateway.purges] == [["user:7"]]
            await cache.close()

    run(whole())


# -- hearing


def test_news_are_heard_in_order_and_the_next_question_begins_there():
    async def whole() -> None:
        heard = Heard()
        async with peer() as gateway, linked(gateway.url, heard):
            gateway.say()
            gateway.say(tags("a").at(7), tags("b").at(8))
            gateway.say(tags("c").at(9))
            await eventually(lambda: len(gateway.polls) == 4)
            assert [each.tags for each in heard.news] == [("a",), ("b",), ("c",)]
            assert [each.stamp for each in heard.news] == [7, 8, 9]
            assert [path.rpartition("since=")[2] for path in gateway.polls[1:]] == ["1", "2", "3"]
            assert "since" not in gateway.polls[0]
            assert heard.gaps == 1  # at the first contact

    run(whole())


def test_a_gap_is_called_out():
    async def whole() -> None:
        heard = Heard()
        async with peer() as gateway, linked(gateway.url, heard):
            gateway.say()
            gateway.say(gap=True)
            await eventually(lambda: heard.gaps == 2)
            assert heard.news == []

    run(whole())


def test_ones_own_words_are_not_heard_back():
    async def whole() -> None:
        heard = Heard()
        async with peer() as gateway, linked(gateway.url, heard) as link:
            gateway.say()
            await link.tell(tags("mine"))
            own = Invalidation.from_json(gateway.purges[0])
            gateway.say(own.at(5), tags("others").at(6))
            await eventually(lambda: heard.news)
            assert [each.tags for each in heard.news] == [("others",)]

    run(whole())


def test_a_listener_that_raises_hears_on(caplog: pytest.LogCaptureFixture):
    async def whole() -> None:
        news: list[Invalidation] = []

        def hear(said: Invalidation) -> None:
            news.append(said)
            raise RuntimeError("a bug of the service")

        async with peer() as gateway:
            link = GatewayLink(gateway.url)
            await link.start(hear, lambda: None)
            gateway.say()
            gateway.say(tags("a").at(2), tags("b").at(3))
            await eventually(lambda: len(news) == 2)
            await link.close()
        assert "a bug of the service" in caplog.text

    run(whole())


def test_a_gateway_that_was_away_is_asked_for_what_came_since(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gateway_link, "BACK_OFF_MAX_S", 0.05)

    async def whole() -> None:
        heard = Heard()
        async with peer() as gateway:
            port = int(gateway.url.rpartition(":")[2])
            link = GatewayLink(gateway.url, rng=random.Random(1))
            await link.start(heard.news.append, heard.gap)
            gateway.say()
            await eventually(lambda: len(gateway.polls) == 2)
        await eventually(lambda: link.snapshot().is_away)
        async with peer(port) as back:
            back.stamp = 1
            back.say(tags("missed").at(2))
            await eventually(lambda: heard.news)
            assert back.polls[0].endswith("since=1")
            assert heard.gaps == 1
            await link.close()

    run(whole())


LONG = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n"
JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"


RAW = [
    b"\x00" * 50,
    b"HTTP/1.1 200",
    b"SSH-2.0-x\r\n\r\n",
    b"HTTP/2 200 OK\r\n\r\n",
    b"HTTP/1.1 2x0 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 10_000 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nlocation: http://evil.example/\r\ncontent-length: 0\r\n\r\n",
    LONG + b"{}",
    JSON + b"{",
    JSON + b"\xff",
    JSON + b"[" * 100_000,
    JSON + b"[]",
    JSON + b"null",
    JSON + b"{}",
    JSON + b'{"stamp": "x", "gap": false, "news": []}',
    JSON + b'{"stamp": -1, "gap": false, "news": []}',
    JSON + b'{"stamp": 1, "gap": 0, "news": []}',
    JSON + b'{"stamp": 1, "gap": false, "news": 5}',
    JSON + b'{"stamp": 1, "gap": false, "news": ["x"]}',
    JSON + b'{"stamp": 1, "gap": false, "news": [{"tags": [1]}]}',
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
]


@pytest.mark.parametrize("raw", RAW, ids=range(len(RAW)))
def test_a_peer_that_is_no_admin_api_is_away_and_nothing_else(
    raw: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gateway_link, "BACK_OFF_MAX_S", 0.02)

    async def whole() -> None:
        heard = Heard()
        async with peer() as gateway:
            gateway.raw = raw
            async with linked(gateway.url, heard) as link:
                await eventually(lambda: len(gateway.polls) > 2)
                assert link.snapshot().is_away
                assert (heard.news, heard.gaps) == ([], 0)
                assert "secret" not in link.snapshot().why
                gateway.raw = None
                gateway.say()
                await eventually(lambda: heard.gaps)

    run(whole())


def test_an_answer_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gateway_http, "BODY_MAX", 1000)

    async def whole() -> None:
        async with peer() as gateway:
            gateway.raw = JSON + b" " * 100_000
            with pytest.raises(GatewayAway, match="longer than 1000"):
                await Gateway.at(gateway.url, "").ask("GET", "/", None, 5.0)

    run(whole())


def test_a_peer_that_is_silent_is_away_when_the_time_is_over():
    async def whole() -> None:
        async with peer() as gateway:
            with pytest.raises(GatewayAway, match=r"has not answered in 0\.05 s"):
                await Gateway.at(gateway.url, "").ask("GET", "/", None, 0.05)

    run(whole())


def test_a_socket_in_a_folder_is_asked_without_a_token(tmp_path: Path):
    async def whole() -> None:
        made = Peer()
        path = tmp_path / "control.sock"
        server = await asyncio.start_unix_server(made.serve, path)
        link = GatewayLink(f"unix:{path}")
        assert await link.tell(tags("a"))
        (asked,) = made.asked
        assert asked[2]["host"] == "localhost"
        assert "authorization" not in asked[2]
        await link.close()
        await made.end(server)

    run(whole())


# -- settings


@pytest.mark.parametrize(
    ("url", "token", "reason"),
    [
        ("127.0.0.1:9900", "", "write http://host:9900"),
        ("ftp://host", "", "write http://host:9900"),
        ("http://", "", "write http://host:9900"),
        ("http://host:99999", "", "ort"),
        ("http://u:p@host", "", "give the token instead"),
        ("http://host/?a=b", "", "write http://host:9900"),
        ("unix:here", "", "unix:/path"),
        ("http://host", "a\r\nb: c", "line break"),
        ("http://host", "é", "line break"),
    ],
    ids=lambda value: None,
)
def test_what_is_no_admin_api_is_refused_with_the_way_out(url: str, token: str, reason: str):
    with pytest.raises(ValueError, match=reason) as refused:
        GatewayLink(url, token)
    assert "u:p" not in str(refused.value)


def test_the_token_is_in_no_text_of_a_link():
    link = GatewayLink("https://gateway.example:9900/base/", "secret")
    assert "secret" not in repr(link) + repr(link._gateway) + repr(link.snapshot())
    with pytest.raises(ValueError, match="from 1 to 50"):
        GatewayLink("http://host", wait_s=51)


@given(
    st.lists(st.text(min_size=1, max_size=400).filter(str.isprintable), max_size=120),
    st.lists(st.text("ab", min_size=1, max_size=2000), max_size=60),
    st.sampled_from(["", "objects", "all"]),
)
def test_pieces_hold_all_and_are_small(tag_names: list[str], keys: list[str], everything: Any):
    said = Invalidation(
        tags=tuple(tag_names), keys=tuple(keys), everything=everything, soft=True, by="x"
    )
    pieces = list(_pieces(said))
    assert [tag for piece, _ in pieces for tag in piece.tags] == tag_names
    assert [key for piece, _ in pieces for key in piece.keys] == keys
    assert "".join(piece.everything for piece, _ in pieces) == everything
    for piece, _size in pieces:
        assert piece.soft
        assert not piece.is_empty
        assert len(json.dumps(piece.to_json())) < 32_000

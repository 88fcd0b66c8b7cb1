"""httpx over the mesh's wire: what httpx promises holds."""

# Fakes stand in for connections, pools and loops.
# mypy: disable-error-code="arg-type, union-attr, var-annotated, list-item, assignment, misc"
from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
from typing import Any

import httpx
import pytest
import trustme
import uvloop

from headgate.errors import UpstreamFailed
from headgate.mesh.http import HttpClient, PoolSizes
from headgate.mesh.http.blocking import LoopThread
from headgate.mesh.http.sender import Direct
from headgate.mesh.http.transports import MeshTransport, SyncMeshTransport, translated
from tests.mesh.http.instance_rig import PATIENCE_S, instance
from tests.ports import free_port

pytestmark = pytest.mark.integration


def answer(body: bytes, *fields: bytes, status: bytes = b"200 OK") -> bytes:
    head = b"HTTP/1.1 %b\r\ncontent-length: %d\r\n" % (status, len(body))
    return head + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


async def site(talk):
    """A few resources."""
    while (got := await talk.request()) is not None:
        head, _, body = got.partition(b"\r\n\r\n")
        method, path, _ = head.split(b" ", 2)
        if path == b"/json":
            reply = answer(b'{"a": 1}', b"content-type: application/json", b"set-cookie: s=1")
        elif path == b"/moved":
            reply = answer(b"", b"location: /head", status=b"302 Found")
        elif path == b"/gzip":
            reply = answer(gzip.compress(b"packed"), b"content-encoding: gzip")
        elif path == b"/large":
            reply = answer(b"x" * 1_000_000)
        elif path == b"/error":
            reply = answer(b"", status=b"503 Service Unavailable")
        elif path == b"/body":
            reply = answer(body)
        elif path == b"/close":
            return
        elif path == b"/garbage":
            reply = b"no\r\n\r\n"
        elif path == b"/half":
            talk.send(answer(b"x" * 100)[:-50])
            await talk.flush()
            await asyncio.sleep(0.01)
            return
        elif path == b"/mute":
            await talk.gone()
            return
        else:
            reply = answer(got)
        talk.send(reply[: -len(b"x")] if method == b"HEAD" and path == b"/one" else reply)
        await talk.flush()


def run(main):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as it:
        return it.run(asyncio.wait_for(main, PATIENCE_S * 2))


@contextlib.contextmanager
def client_of(kind, **how):
    """A client of either kind as one with sync methods, and the instance it speaks to."""
    thread = LoopThread()
    there = instance(site)
    found = thread.run(there.__aenter__())
    sizes = how.pop("sizes", PoolSizes())
    direct = Direct(HttpClient(sizes), resolve={"users": found.url}.get)
    client = None
    try:
        if kind == "sync":
            client = httpx.Client(transport=SyncMeshTransport(direct), **how)
            yield client, found
        else:
            client = Waiting(thread, httpx.AsyncClient(transport=MeshTransport(direct), **how))
            yield client, found
    finally:
        if client is not None:
            client.close()
        thread.run(there.__aexit__(None, None, None))
        thread.close()


class Waiting:
    """An AsyncClient used from outside of its loop."""

    def __init__(self, thread, client):
        self._thread = thread
        self.client = client

    def request(self, *args, **more):
        if isinstance(more.get("content"), list):
            more["content"] = several(more["content"])
        return self._thread.run(self.client.request(*args, **more))

    def get(self, *args, **more):
        return self.request("GET", *args, **more)

    def close(self):
        self._thread.run(self.client.aclose())


async def several(parts):
    for part in parts:
        yield part


KINDS = pytest.mark.parametrize("kind", ["async", "sync"])


@KINDS
def test_names_urls_cookies_and_redirects(kind):
    with client_of(kind, follow_redirects=True) as (client, there):
        got = client.get("http://users/json")
        assert (got.status_code, got.reason_phrase, got.json()) == (200, "OK", {"a": 1})
        assert got.http_version == "HTTP/1.1"
        assert got.headers["content-length"] == "8"
        got = client.get(there.url + "/x", params={"q": "a b"})
        assert got.text.startswith("GET /x?q=a+b HTTP/1.1\r\n")
        assert f"\r\nHost: {there.endpoint}\r\n" in got.text
        got = client.get("http://users/moved", headers={"X-One": "1"})
        assert [each.status_code for each in got.history] == [302]
        assert got.text.startswith("GET /head HTTP/1.1\r\n")
        assert "\r\nHost: users\r\n" in got.text
        assert "\r\nCookie: s=1\r\n" in got.text
        assert "\r\nX-One: 1" in got.text
        assert client.get("http://users/gzip").text == "packed"
        with pytest.raises(httpx.HTTPStatusError):
            client.get("http://users/error").raise_for_status()
        assert len(there.talks) == 1


@KINDS
def test_bodies_of_every_kind_go_up(kind):
    with client_of(kind) as (client, there):
        url = "http://users/body"
        assert client.request("POST", url, content=b"raw").content == b"raw"
        assert client.request("POST", url, json={"a": 1}).json() == {"a": 1}
        assert client.request("POST", url, data={"a": "b"}).text == "a=b"
        assert client.request("PUT", url, content=[b"one", b"", b"two"]).text == "onetwo"
        if kind == "sync":
            got = client.request("POST", url, files={"f": ("name", b"held")})
            assert b"held" in got.content
        got = client.request("POST", "http://users/x", content=b"")
        assert "content-length: 0" in got.text.lower()
        assert len(there.talks) == 1


@KINDS
def test_failures_are_httpx_s_own(kind):
    nobody = f"http://127.0.0.1:{free_port()}/"
    cases = [
        (nobody, httpx.ConnectError, {}),
        ("http://nosuch/", httpx.ConnectError, {}),
        ("http://users/close", httpx.RemoteProtocolError, {}),
        ("http://users/garbage", httpx.RemoteProtocolError, {}),
        ("http://users/half", httpx.RemoteProtocolError, {}),
        ("http://users/mute", httpx.ReadTimeout, {"timeout": httpx.Timeout(5, read=0.1)}),
        ("ftp://users/", httpx.UnsupportedProtocol, {}),
        ("http://users/", httpx.LocalProtocolError, {"headers": {"a": "b\nc"}}),
    ]
    with client_of(kind) as (client, _):
        for url, wanted, how in cases:
            with pytest.raises(httpx.TransportError) as caught:
                client.get(url, **how)
            assert type(caught.value) is wanted, url
            assert caught.value.request.url == url
        assert client.get("http://users/json").status_code == 200


def test_each_kind_of_failure_has_its_exception():
    request = httpx.Request("GET", "http://users/")
    late = UpstreamFailed("connect", "users:80: no connection within 1 s")
    late.__cause__ = TimeoutError()
    torn = UpstreamFailed("reset", "users:80: closed")
    torn.__cause__ = ConnectionResetError()
    cases = [
        (late, httpx.ConnectTimeout),
        (torn, httpx.ReadError),
        (UpstreamFailed("reset"), httpx.RemoteProtocolError),
        (UpstreamFailed("timeout"), httpx.ReadTimeout),
        (UpstreamFailed("timeout", "", "took nothing of the request"), httpx.WriteTimeout),
        (UpstreamFailed("connect", "", "no connection in time"), httpx.ConnectTimeout),
        (UpstreamFailed("queue_full"), httpx.PoolTimeout),
        (UpstreamFailed("queue_timeout"), httpx.PoolTimeout),
        (UpstreamFailed("dns"), httpx.ConnectError),
        (UpstreamFailed("tls"), httpx.ConnectError),
        (UpstreamFailed("closed"), httpx.ConnectError),
        (UpstreamFailed("no_instance"), httpx.ConnectError),
        (ValueError("x"), httpx.LocalProtocolError),
    ]
    for failure, wanted in cases:
        assert type(translated(failure, request)) is wanted, failure


def test_an_async_stream_is_read_or_left():
    async def main():
        async with instance(site) as there:
            transport = MeshTransport(Direct(HttpClient(PoolSizes(connections=1))))
            async with httpx.AsyncClient(transport=transport) as client:
                async with client.stream("GET", there.url + "/large") as got:
                    assert sum([len(part) async for part in got.aiter_bytes()]) == 1_000_000
                async with client.stream("GET", there.url + "/large") as got:
                    assert got.status_code == 200
                async with client.stream("GET", there.url + "/half") as got:
                    with pytest.raises(httpx.RemoteProtocolError):
                        await got.aread()
                # With one connection in all, each of them has given it back.
                assert (await client.get(there.url + "/json")).json() == {"a": 1}

    run(main())


def test_a_sync_stream_is_read_or_left():
    with client_of("sync", sizes=PoolSizes(connections=1)) as (client, _):
        with client.stream("GET", "http://users/large") as got:
            assert sum(len(part) for part in got.iter_bytes()) == 1_000_000
        with client.stream("GET", "http://users/large") as got:
            assert got.status_code == 200
        broken = pytest.raises(httpx.RemoteProtocolError)
        with client.stream("GET", "http://users/half") as got, broken:
            got.read()
        assert client.get("http://users/json").json() == {"a": 1}


def test_a_full_pool_is_a_pool_timeout_and_none_waits_for_ever():
    async def main():
        async with instance(site) as there:
            transport = MeshTransport(Direct(HttpClient(PoolSizes(connections=1))))
            async with httpx.AsyncClient(transport=transport) as client:
                async with client.stream("GET", there.url + "/large"):
                    with pytest.raises(httpx.PoolTimeout):
                        await client.get(
                            there.url + "/json", timeout=httpx.Timeout(5, pool=0.1, connect=0.1)
                        )
                got = await client.get(there.url + "/json", timeout=None)
                assert got.status_code == 200

    run(main())


def test_https_is_verified():
    authority = trustme.CA()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(serving)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    async def main():
        async with instance(site, tls=serving) as there:
            url = f"https://localhost:{there.endpoint.port}/json"
            async with httpx.AsyncClient(transport=MeshTransport(Direct(tls=trusting))) as client:
                assert (await client.get(url)).json() == {"a": 1}
                with pytest.raises(httpx.ConnectError, match="certificate is refused"):
                    await client.get(url.replace("localhost", "127.0.0.1"))
            async with httpx.AsyncClient(transport=MeshTransport()) as client:
                with pytest.raises(httpx.ConnectError, match="certificate is refused"):
                    await client.get(url)

    run(main())


def test_a_sender_of_another_make_is_asked_by_name():
    asked = []

    class Mesh:
        async def send(self, origin, method, target, headers, body, **how):
            asked.append((origin, method, target, dict(headers)[b"Host"], body, how["stream"]))
            raise UpstreamFailed("no_instance", f"{origin}: all are out")

        async def aclose(self):
            asked.append("closed")

    out = pytest.raises(httpx.ConnectError, match="http://users: all are out")
    transport = SyncMeshTransport(Mesh())
    with httpx.Client(transport=transport, base_url="http://users") as client, out:
        client.post("/a", params={"b": "c"}, content=b"d")
    assert asked == [("http://users", "POST", b"/a?b=c", b"users", b"d", True), "closed"]


def test_the_same_answers_as_httpx_s_own_transport():
    async def main():
        async with instance(site) as there:
            ours = httpx.AsyncClient(transport=MeshTransport())
            own = httpx.AsyncClient()
            async with ours, own:
                for path in ("/json", "/gzip", "/error", "/large", "/moved", "/x"):
                    for method in ("GET", "POST"):
                        pair = [
                            await client.request(method, there.url + path) for client in (ours, own)
                        ]
                        told: list[Any] = [
                            (g.status_code, sorted(g.headers.items()), g.text) for g in pair
                        ]
                        if path == "/x":  # it shows the request: the same fields in any case
                            told = [sorted(g.text.lower().splitlines()) for g in pair]
                            told[1].remove("connection: keep-alive")
                        assert told[0] == told[1], path

    run(main())


def test_what_is_no_body_of_its_kind_is_refused():
    async def main():
        async with httpx.AsyncClient(transport=MeshTransport()) as client:
            with pytest.raises(RuntimeError, match="sync"):
                await client.post("http://127.0.0.1:1/", content=iter([b"a"]))

    run(main())
    refused = pytest.raises(RuntimeError, match="sync")
    with httpx.Client(transport=SyncMeshTransport()) as client, refused:
        client.post("http://127.0.0.1:1/", content=several([b"a"]))

"""One look at things that behave, and at things that do not: each ends in time, with a reason."""

from __future__ import annotations

import asyncio
import gc
import json
import ssl
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from headgate.config.model import DnsSpec
from headgate.control.observing.monitors_probe import (
    MAX_BODY,
    Looking,
    json_at,
    judge_answer,
    look,
)
from headgate.observe.health.monitoring import Expected, Monitor, MonitorTls
from headgate.observe.health.running import Runs
from headgate.wire.resolve import Resolver

# A connection that the server of a test has accepted, but not yet begun to serve, is left by the
# loop when it ends: a socket that nobody closed. That is the server's, and stays in its test.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def nothing_is_left_for_others():
    yield
    gc.collect()


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-state: ready\r\n\r\nok"


# -- judging, without a network --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expect", "why"),
    [
        (Expected(), ""),
        (Expected(status=((204, 204),)), "it answered 200"),
        (Expected(body="ready"), ""),
        (Expected(body="gone"), "the body lacks 'gone'"),
        (Expected(headers=(("X-State", "fine"),)), ""),
        (Expected(headers=(("X-State", ""),)), ""),
        (Expected(headers=(("X-Other", ""),)), "the header X-Other is missing"),
        (Expected(headers=(("X-State", "bad"),)), "the header X-State lacks 'bad'"),
        (Expected(json=(("state", "ready"), ("n", 3), ("n", "3"), ("up", True))), ""),
        (Expected(json=(("up", "true"), ("items.1.id", "b"))), ""),
        (Expected(json=(("up", 1),)), "another value at up"),
        (Expected(json=(("items.2.id", "b"),)), "nothing at items.2.id"),
        (Expected(json=(("items", "b"),)), "another value at items"),
        (Expected(json=(("none", "None"),)), "another value at none"),
    ],
    ids=range(14),
)
def test_an_answer_is_held_against_what_is_expected(expect, why):
    body = {"state": "ready", "n": 3, "up": True, "items": [{"id": "a"}, {"id": "b"}], "none": None}
    found = judge_answer(200, {"x-state": "fine"}, json.dumps(body).encode(), expect)
    assert (found.status == "ok") == (why == "")
    assert why in found.why


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 200_000, b"\xff\xfe", b"nan x"], ids=range(5))
def test_what_is_no_json_is_told_so(body):
    assert judge_answer(200, {}, body, Expected(json=(("a", 1),))).why == "the body is no JSON"


@pytest.mark.parametrize(
    ("path", "found"),
    [("", False), ("a..b", False), ("a.-1", False), ("a.99999999999999999", False), ("a.0", True)],
    ids=range(5),
)
def test_a_path_that_leads_nowhere_is_no_error(path, found):
    assert json_at({"a": [1]}, path)[0] is found


# -- looking ---------------------------------------------------------------------------------------


@asynccontextmanager
async def serving(answer, tls=None):
    """A server that gives each connection to `answer(reader, writer)`."""

    at_work: set[asyncio.Task[None]] = set()

    async def serve(reader, writer):
        task = asyncio.current_task()
        assert task is not None
        at_work.add(task)
        try:
            await answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in at_work:
            task.cancel()
        await asyncio.gather(*at_work, return_exceptions=True)
        await asyncio.sleep(0.01)  # so that what was aborted is gone


def says(raw: bytes):
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()
        await asyncio.sleep(0.05)

    return answer


async def looked(kind, target, timeout_s=10.0, **more):
    resolver = Resolver(DnsSpec())
    monitor = Monitor("a", kind, target, timeout_s=timeout_s, **more)
    looking = Looking(resolver, lambda: Resolver(DnsSpec()), time.time)
    found = []

    async def ask():
        found.append(await look(monitor, looking))
        return found[0].outcome

    runs = Runs()
    try:
        outcome = await runs.run("a", ask, timeout_s)
        return found[0] if found else outcome
    finally:
        await settled(runs)
        await resolver.aclose()


async def settled(runs: Runs) -> None:
    """What was ended has closed its connection: the loop is about to end, too."""
    async with asyncio.timeout(20):
        while runs.is_hung("a"):
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.01)


def why_of(found) -> str:
    outcome = getattr(found, "outcome", found)
    assert outcome.status == "failing"
    return outcome.why


async def forever(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    piece = b"x" * 65536
    while True:
        writer.write(piece)
        await writer.drain()


async def drips(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def headers_forever(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x-more: " + b"y" * 1000 + b"\r\n")
        await writer.drain()


async def continues_forever(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    while True:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
        await writer.drain()
        await asyncio.sleep(0.001)


async def silent(reader, writer):
    await reader.read()


async def hangs_up(reader, writer):
    return


async def breaks_off(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    await writer.drain()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (drips, "no answer within"),
        (continues_forever, "no answer within"),
        (silent, "no answer within"),
        (headers_forever, "is not HTTP, or broke off"),
        (hangs_up, "is not HTTP, or broke off"),
        (breaks_off, "is not HTTP, or broke off"),
        (says(b"\x00\xff garbage \x1b[2J\r\n\r\n"), "is not HTTP, or broke off"),
        (says(b"HTTP/1.1 503 Sorry\r\ncontent-length: 0\r\n\r\n"), "it answered 503"),
        (says(b"HTTP/1.1 302 Go\r\nlocation: /\r\ncontent-length: 0\r\n\r\n"), "say redirects"),
        (says(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx"), "lacks"),
    ],
    ids=range(10),
)
def test_a_server_that_misbehaves_is_down_with_a_reason(answer, why):
    async def main():
        async with serving(answer) as port:
            expect = Expected(body="ok")
            url = f"http://127.0.0.1:{port}/"
            quick = why.startswith("no answer")
            found = await looked("url", url, timeout_s=0.3 if quick else 10.0, expect=expect)
            said = why_of(found)
            assert why in said
            assert said.isprintable()

    asyncio.run(main())


def test_of_an_endless_body_a_megabyte_is_read():
    async def main():
        async with serving(forever) as port:
            found = await looked("url", f"http://127.0.0.1:{port}/", expect=Expected(body="ok"))
            assert "in its first megabyte" in why_of(found)
            found = await looked("url", f"http://127.0.0.1:{port}/")
            assert found.outcome.status == "ok"

    asyncio.run(main())
    assert MAX_BODY == 1_000_000


def test_a_bomb_stays_packed():
    import gzip

    packed = gzip.compress(b"\0" * 50_000_000)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed)

    async def main():
        async with serving(says(head + packed)) as port:
            assert (await looked("url", f"http://127.0.0.1:{port}/")).outcome.status == "ok"

    asyncio.run(main())


def test_what_is_asked_is_what_the_file_says():
    async def main():
        asked = []

        async def answer(reader, writer):
            head = await reader.readuntil(b"\r\n\r\n")
            asked.append(head + await reader.readexactly(4))
            writer.write(OK)
            await writer.drain()

        async with serving(answer) as port:
            found = await looked(
                "url",
                f"http://localhost:{port}/a?b=1",
                method="POST",
                body="ping",
                headers=(("X-Key", "k"), ("accept-encoding", "gzip")),
            )
        assert (found.outcome.status, found.status) == ("ok", 200)
        (head,) = asked
        assert head.startswith(b"POST /a?b=1 HTTP/1.1\r\n")
        lower = head.lower()
        assert b"\r\nhost: localhost:%d\r\n" % port in lower
        assert b"\r\nx-key: k\r\n" in lower
        assert b"\r\naccept-encoding: identity\r\n" in lower
        assert b"user-agent: headgate-monitor" in lower
        assert head.endswith(b"ping")

    asyncio.run(main())


def test_redirects_are_followed_as_often_as_is_said():
    async def main():
        heads = []

        async def answer(reader, writer):
            head = await reader.readuntil(b"\r\n\r\n")
            heads.append(head)
            number = int(head.split(b" ")[1].strip(b"/") or b"0")
            if number >= 3:
                writer.write(OK)
            else:
                location = f"/{number + 1}"
                writer.write(
                    f"HTTP/1.1 302 Go\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n".encode()
                )
            await writer.drain()

        async with serving(answer) as port:
            url = f"http://127.0.0.1:{port}/0"
            assert (await looked("url", url, redirects=3)).outcome.status == "ok"
            assert why_of(await looked("url", url, redirects=2)) == (
                "it redirects more than 2 times"
            )
        loop = says(b"HTTP/1.1 301 Go\r\nlocation: /\r\ncontent-length: 0\r\n\r\n")
        async with serving(loop) as port:
            found = await looked("url", f"http://127.0.0.1:{port}/", redirects=10)
            assert "more than 10 times" in why_of(found)
        for to in (b"file:///etc/passwd", b"http://[", b"gopher://x/"):
            raw = b"HTTP/1.1 301 Go\r\nlocation: %s\r\ncontent-length: 0\r\n\r\n" % to
            async with serving(says(raw)) as port:
                found = await looked("url", f"http://127.0.0.1:{port}/", redirects=2)
                assert why_of(found) == "it redirects to what is no URL", to

    asyncio.run(main())


def test_secrets_do_not_follow_a_redirect_to_another_host():
    async def main():
        heads = []

        async def other(reader, writer):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(OK)
            await writer.drain()

        async with serving(other) as far:
            to = (
                f"HTTP/1.1 307 Go\r\nlocation: http://127.0.0.1:{far}/\r\ncontent-length: 0\r\n\r\n"
            )
            async with serving(says(to.encode())) as near:
                url = f"http://127.0.0.1:{near}/"
                headers = (("authorization", "Bearer s3cret"),)
                found = await looked("url", url, redirects=1, headers=headers)
                assert found.outcome.status == "ok"
                found = await looked("url", url, redirects=1, method="POST", body="pin=1")
                assert "redirects the body" in why_of(found)
        assert len(heads) == 1
        assert b"s3cret" not in heads[0]

    asyncio.run(main())


def test_slow_is_degraded_or_down_as_is_said():
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.05)
        writer.write(OK)
        await writer.drain()

    async def main():
        async with serving(answer) as port:
            url = f"http://127.0.0.1:{port}/"
            found = await looked("url", url, warn_above_s=0.01)
            assert (found.outcome.status, "more than 10ms" in found.outcome.why) == (
                "degraded", True,
            )  # fmt: skip
            assert "more than 20ms" in why_of(
                await looked("url", url, warn_above_s=0.01, fail_above_s=0.02)
            )

    asyncio.run(main())


# -- TLS -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    authority = trustme.CA()
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return authority, str(file)


def context_of(authority, left: timedelta, name: str = "localhost") -> ssl.SSLContext:
    ends = datetime.now(UTC) + left
    made = authority.issue_cert(name, not_before=ends - timedelta(days=400), not_after=ends)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.configure_cert(context)
    return context


@pytest.mark.parametrize(
    ("left", "name", "verify", "status", "why"),
    [
        (timedelta(days=90), "localhost", True, "ok", ""),
        (timedelta(days=10), "localhost", True, "degraded", "ends in 10 d"),
        (timedelta(days=2), "localhost", True, "failing", "ends in"),
        (timedelta(days=-2), "localhost", True, "failing", "expired"),
        (timedelta(days=-2), "localhost", False, "failing", "ended"),
        (timedelta(days=90), "other.example", True, "failing", "TLS: "),
        (timedelta(days=90), "other.example", False, "ok", ""),
    ],
    ids=range(7),
)
def test_certificates_are_judged_by_name_trust_and_end(authority, left, name, verify, status, why):
    issuer, file = authority
    tls = MonitorTls(verify=verify, ca_file=file if verify else None)

    async def main():
        async with serving(says(OK), context_of(issuer, left, name)) as port:
            found = await looked("certificate", f"localhost:{port}", tls=tls)
            assert (found.outcome.status, why in found.outcome.why) == (status, True)
            found = await looked("url", f"https://localhost:{port}/", tls=tls)
            assert (found.outcome.status, why in found.outcome.why) == (status, True)
            if status == "ok":
                assert found.expires is not None
                plain = await looked("tcp", f"localhost:{port}", tls=tls, is_tls=True)
                assert plain.outcome.status == "ok"

    asyncio.run(main())


def test_a_server_nobody_trusts_is_down():
    async def main():
        context = context_of(trustme.CA(), timedelta(days=90))
        async with serving(says(OK), context) as port:
            found = await looked("url", f"https://localhost:{port}/")
            assert why_of(found).startswith("TLS: ")

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["certificate", "url"])
def test_a_handshake_that_never_ends_is_over_in_time(kind):
    async def main():
        async with serving(silent) as port:
            place = f"127.0.0.1:{port}"
            found = await looked(
                kind, place if kind == "certificate" else f"https://{place}/", timeout_s=0.2
            )
            assert "no answer within" in why_of(found)

    asyncio.run(main())


# -- the others ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 400 Bad\r\n\r\n",
        b"$99999999999\r\n",
        b"$-1\r\n",
        b"+" + b"x" * 200_000,
        b"",
        b"$100\r\nhalf",
        b"-ERR \x1b[2J no\r\n",
    ],
    ids=range(7),
)
def test_what_is_no_redis_is_told_so(raw):
    async def answer(reader, writer):
        await reader.readuntil(b"PING\r\n")
        writer.write(raw)
        await writer.drain()

    async def main():
        async with serving(answer) as port:
            said = why_of(await looked("redis", f"redis://127.0.0.1:{port}"))
            assert "Redis" in said or "closed" in said or "PING was refused: ERR" in said
            assert said.isprintable()

    asyncio.run(main())


@pytest.mark.parametrize("raw", [b"", b"N", b"E" * 500, b"R\xff\xff\xff\xff" * 5], ids=range(4))
def test_what_is_no_postgres_is_told_so(raw):
    async def answer(reader, writer):
        await reader.readexactly(8)
        writer.write(raw)
        await writer.drain()
        await asyncio.sleep(0.02)

    async def main():
        async with serving(answer) as port:
            url = f"postgresql://a@127.0.0.1:{port}/a"
            found = await looked("postgres", url, timeout_s=2.0)
            assert why_of(found)

    asyncio.run(main())


def test_names_are_looked_up_anew_each_time():
    async def main():
        found = await looked("dns", "localhost")
        assert found.outcome.status == "ok"
        assert "addresses, not 9" in why_of(await looked("dns", "localhost", addresses=9))

    asyncio.run(main())


def test_a_name_server_that_is_silent_is_over_in_time():
    import socket

    async def main():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("127.0.0.1", 0))
            place = f"127.0.0.1:{server.getsockname()[1]}"
            options = DnsSpec(servers=[place])
            resolver = Resolver(options)
            looking = Looking(resolver, lambda: Resolver(options), time.time)
            monitor = Monitor("a", "dns", "pay.example")

            async def ask():
                return (await look(monitor, looking)).outcome

            found = await Runs().run("a", ask, 0.2)
            assert "no answer within" in why_of(found)
            await resolver.aclose()

    asyncio.run(main())

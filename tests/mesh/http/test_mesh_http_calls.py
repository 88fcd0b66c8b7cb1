"""Calls over real sockets: what goes out, what comes back, and what becomes of the connection."""

# Fakes stand in for connections, pools and loops.
# mypy: disable-error-code="arg-type, union-attr, var-annotated, list-item, assignment, misc"
from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import math
import ssl
from time import monotonic

import pytest
import trustme
import uvloop

from headgate.errors import UpstreamFailed
from headgate.mesh.http import BodyTooLarge, HttpClient, PoolSizes, Timeouts
from headgate.mesh.http.body import HIGH
from headgate.wire.connect import Endpoint, Tls
from tests.mesh.http.instance_rig import OK, PATIENCE_S, always, echo, instance, until

pytestmark = pytest.mark.integration


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def runner(main):
        with asyncio.Runner(loop_factory=factory) as it:
            return it.run(asyncio.wait_for(main, PATIENCE_S * 2))

    return runner


async def pieces(*parts, closed=None):
    try:
        for part in parts:
            yield part
    finally:
        if closed is not None:
            closed.append(True)


def state(client):
    """(open, idle, connecting, waiting) over all pools."""
    found = [(p.open, p.idle, p.connecting, p.waiting) for p in client.snapshot()]
    return tuple(map(sum, zip(*found, strict=True))) if found else (0, 0, 0, 0)


def test_calls_in_turn_share_one_connection(run):
    async def main():
        async with instance(echo) as there, HttpClient() as client:
            for n in range(5):
                got = await client.send(there.endpoint, None, "POST", b"/", body=b"%d" % n)
                assert (got.status, got.content, got.name) == (200, b"%d" % n, str(there.endpoint))
            assert len(there.talks) == 1
            assert state(client) == (1, 1, 0, 0)
            assert client.snapshot()[0].reused == 4
        assert state(client) == (0, 0, 0, 0)

    run(main())


CASES = {
    "length": (OK, 200, b"ok", True),
    "empty": (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, b"", True),
    "no-content": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "unchanged": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", 304, b"", True),
    "chunked": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n3;x=y\r\nyes\r\n0\r\n\r\n",
        200,
        b"okyes",
        True,
    ),
    "trailers": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: y\r\n\r\n",
        200,
        b"ok",
        True,
    ),
    "interim": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + OK,
        200,
        b"ok",
        True,
    ),
    "said-close": (
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        200,
        b"ok",
        False,
    ),
    "http-1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, b"ok", False),
    "gzip": (
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b"
        % (len(gzip.compress(b"ok")), gzip.compress(b"ok")),
        200,
        b"ok",
        True,
    ),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_every_framing_is_read_whole_or_byte_by_byte(run, stream):
    async def main():
        async with HttpClient() as client:
            for answer, status, body, kept in CASES.values():
                for step in (len(answer), 1):

                    async def script(talk, answer=answer, step=step):
                        while await talk.request():
                            for at in range(0, len(answer), step):
                                talk.send(answer[at : at + step])
                                await asyncio.sleep(0)

                    async with instance(script) as there:
                        for _ in range(2 if step > 1 else 1):
                            got = await client.send(
                                there.endpoint, None, "GET", b"/", stream=stream
                            )
                            assert (got.status, await got.read()) == (status, body), answer
                            assert await got.read() == body
                        if step > 1:
                            assert len(there.talks) == (1 if kept else 2), answer

    run(main())


def test_a_body_may_end_with_the_connection(run):
    async def script(talk):
        await talk.request()
        talk.send(b"HTTP/1.1 200 OK\r\n\r\nall of ")
        await asyncio.sleep(0.01)
        talk.send(b"it")
        talk.close()

    async def main():
        async with instance(script) as there, HttpClient() as client:
            for stream in (False, True):
                got = await client.send(there.endpoint, None, "GET", b"/", stream=stream)
                assert await got.read() == b"all of it"
            await until(lambda: state(client)[0] == 0)

    run(main())


def test_a_head_request_has_no_body_whatever_its_length_says(run):
    async def main():
        answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"
        async with instance(always(answer)) as there, HttpClient() as client:
            for _ in range(3):
                got = await client.send(there.endpoint, None, "HEAD", b"/")
                assert got.content == b""
                assert got.headers["content-length"] == "5"
            assert len(there.talks) == 1

    run(main())


def test_a_caller_s_close_ends_the_connection(run):
    async def main():
        async with instance(always(OK)) as there, HttpClient() as client:
            await client.send(there.endpoint, None, "GET", b"/", [(b"connection", b"close")])
            await client.send(there.endpoint, None, "GET", b"/")
            assert len(there.talks) == 2

    run(main())


def test_another_protocol_is_refused(run):
    async def main():
        answer = b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"
        async with instance(always(answer)) as there, HttpClient() as client:
            with pytest.raises(UpstreamFailed, match="switched protocols") as caught:
                await client.send(there.endpoint, None, "GET", b"/")
            assert caught.value.kind == "protocol"

    run(main())


def test_unix_sockets_and_names(run, tmp_path):
    async def main():
        path = str(tmp_path / "s")
        async with instance(always(OK), path=path) as there, HttpClient() as client:
            assert (await client.send(there.endpoint, None, "GET", b"/")).content == b"ok"
        async with instance(always(OK)) as there, HttpClient() as client:
            named = Endpoint("localhost", there.endpoint.port)
            assert (await client.send(named, None, "GET", b"/")).content == b"ok"
            with pytest.raises(UpstreamFailed, match="refused"):
                await client.send(Endpoint("127.0.0.1", 1), None, "GET", b"/")
            assert state(client) == (1, 1, 0, 0)

    run(main())


def test_tls_is_spoken_and_a_foreign_certificate_refused(run):
    authority = trustme.CA()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    async def main():
        async with instance(echo, tls=serving) as there, HttpClient() as client:
            tls = Tls(trusting, "127.0.0.1")
            big = b"x" * 1_000_000
            for _ in range(2):
                got = await client.send(there.endpoint, tls, "POST", b"/", body=big)
                assert got.content == big
            assert len(there.talks) == 1
            stranger = Tls(ssl.create_default_context(), "127.0.0.1")
            with pytest.raises(UpstreamFailed, match="certificate is refused") as caught:
                await client.send(there.endpoint, stranger, "GET", b"/")
            assert caught.value.kind == "tls"
            assert state(client)[0] == 1

    run(main())


# -------------------------------------------------------------------------------- bodies going up


def test_a_body_of_pieces_goes_up_in_chunks_or_by_its_length(run):
    async def script(talk):
        while (got := await talk.request()) is not None:
            talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(got), got))
            await talk.flush()

    async def main():
        async with instance(script) as there, HttpClient() as client:
            closed = []
            parts = [b"one", b"", bytearray(b"two"), memoryview(b"x" * 50_000)]
            got = await client.send(
                there.endpoint, None, "POST", b"/", body=pieces(*parts, closed=closed)
            )
            assert b"transfer-encoding: chunked" in got.content
            assert got.content.endswith(b"\r\n\r\nonetwo" + b"x" * 50_000)
            assert closed == [True]
            length = [(b"content-length", b"6")]
            got = await client.send(
                there.endpoint, None, "POST", b"/", length, pieces(b"one", b"two")
            )
            assert got.content.endswith(b"content-length: 6\r\n\r\nonetwo")
            got = await client.send(there.endpoint, None, "POST", b"/", body=pieces())
            assert got.content.endswith(b"\r\n\r\n")
            assert len(there.talks) == 1

    run(main())


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        ([b"1234567"], "longer than its content-length"),
        ([b"123"], "shorter than its content-length"),
        ([b"1", "2"], "not str"),
    ],
    ids=["long", "short", "text"],
)
def test_a_body_that_is_not_what_it_promised_ends_its_call_and_connection(run, parts, wanted):
    async def main():
        async with instance(echo) as there, HttpClient() as client:
            length = [(b"content-length", b"6")]
            closed = []
            with pytest.raises((ValueError, TypeError), match=wanted):
                await client.send(
                    there.endpoint, None, "POST", b"/", length, pieces(*parts, closed=closed)
                )
            await until(lambda: closed)
            await until(lambda: state(client) == (0, 0, 0, 0))

    run(main())


def test_what_the_caller_s_iterator_raises_is_the_caller_s(run):
    async def broken():
        yield b"a"
        raise KeyError("mine")

    async def main():
        async with instance(echo) as there, HttpClient() as client:
            with pytest.raises(KeyError, match="mine"):
                await client.send(there.endpoint, None, "POST", b"/", body=broken())
            with pytest.raises(TypeError, match="not str"):
                await client.send(there.endpoint, None, "POST", b"/", body="text")
            await until(lambda: state(client) == (0, 0, 0, 0))

    run(main())


def test_an_early_answer_ends_the_upload_and_the_connection(run):
    async def script(talk):
        await talk.reader.readuntil(b"\r\n\r\n")
        talk.send(b"HTTP/1.1 413 No\r\ncontent-length: 2\r\n\r\nno")
        await talk.gone()

    async def main():
        async with instance(script) as there, HttpClient(PoolSizes(idle_timeout_s=600)) as client:
            closed = []

            async def endless():
                try:
                    yield b"a"
                    await asyncio.Event().wait()
                finally:
                    closed.append(True)

            got = await client.send(there.endpoint, None, "POST", b"/", body=endless())
            assert (got.status, got.content) == (413, b"no")
            await until(lambda: closed)
            await until(lambda: state(client) == (0, 0, 0, 0))

    run(main())


def test_up_and_down_may_go_on_at_the_same_time(run):
    async def script(talk):
        await talk.reader.readuntil(b"\r\n\r\n")
        talk.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while size := int(await talk.reader.readuntil(b"\r\n"), 16):
            data = await talk.reader.readexactly(size + 2)
            talk.send(b"%x\r\n%b" % (size, data))
        await talk.reader.readexactly(2)
        talk.send(b"0\r\n\r\n")
        await talk.gone()

    async def main():
        async with instance(script) as there, HttpClient() as client:
            heard = asyncio.Queue()
            times = Timeouts(silence_s=0.3)

            async def talking():
                for n in range(3):
                    yield b"%d" % n
                    assert await heard.get() == b"%d" % n
                await asyncio.sleep(0.5)  # it is the instance that waits for us

            got = await client.send(
                there.endpoint, None, "POST", b"/", body=talking(), stream=True, timeouts=times
            )
            async for piece in got.aiter_bytes():
                heard.put_nowait(piece)
            assert state(client) == (1, 1, 0, 0)

    run(main())


@pytest.mark.parametrize("kind", ["at-hand", "pieces"])
def test_an_instance_that_takes_nothing_holds_the_upload_and_is_timed_out(run, kind):
    async def script(talk):
        await talk.reader.readuntil(b"\r\n\r\n")
        talk.writer.transport.pause_reading()
        await asyncio.Event().wait()

    async def main():
        sent = 0

        async def many():
            nonlocal sent
            for _ in range(2000):
                yield b"x" * 65536
                sent += 65536

        async with instance(script) as there, HttpClient() as client:
            body = many() if kind == "pieces" else b"x" * 50_000_000
            times = Timeouts(silence_s=0.3)
            with pytest.raises(UpstreamFailed, match="took nothing of the request") as caught:
                await client.send(there.endpoint, None, "PUT", b"/", body=body, timeouts=times)
            assert caught.value.kind == "timeout"
            assert sent < 30_000_000  # what the kernel's buffers hold, not all of it
            await until(lambda: state(client) == (0, 0, 0, 0))

    run(main())


# ------------------------------------------------------------------------------ bodies coming down


def test_a_slow_reader_holds_the_instance(run):
    size = 40_000_000

    async def main():
        sent = 0

        async def script(talk):
            nonlocal sent
            await talk.request()
            talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
            while sent < size:
                talk.send(b"x" * 100_000)
                await talk.flush()
                sent += 100_000
            await talk.gone()

        async with instance(script) as there, HttpClient() as client:
            got = await client.send(there.endpoint, None, "GET", b"/", stream=True)
            incoming = got._stream.incoming
            await until(lambda: incoming.bytes_held > HIGH)
            before = -1
            while before < sent:
                before = sent
                await asyncio.sleep(0.05)
            assert sent < size
            assert incoming.bytes_held < HIGH + 300_000
            read = 0
            async for piece in got.aiter_bytes():
                read += len(piece)
            assert read == size
            assert state(client) == (1, 1, 0, 0)

    run(main())


async def endless(talk):
    await talk.request()
    talk.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    with contextlib.suppress(OSError):
        while True:
            talk.send(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
            await talk.flush()
            await asyncio.sleep(0)


def test_a_response_that_is_closed_or_left_ends_its_connection(run):
    async def main():
        async with instance(endless) as there, HttpClient() as client:
            got = await client.send(there.endpoint, None, "GET", b"/", stream=True)
            await got.aclose()
            with pytest.raises(RuntimeError, match="read"):
                await got.read()
            async with await client.send(there.endpoint, None, "GET", b"/", stream=True) as got:
                assert got.status == 200
            got = await client.send(there.endpoint, None, "GET", b"/", stream=True)
            async with contextlib.aclosing(got.aiter_bytes()) as parts:
                async for piece in parts:
                    assert piece
                    break
            with pytest.raises(BodyTooLarge, match="larger than 50000 bytes"):
                got = await client.send(there.endpoint, None, "GET", b"/", stream=True)
                await got.read(50_000)
            with pytest.raises(BodyTooLarge, match="larger than 30000 bytes"):
                await client.send(there.endpoint, None, "GET", b"/", body_bytes_max=30_000)
            await until(lambda: state(client) == (0, 0, 0, 0))
            assert len(there.talks) == 5

    run(main())


async def forget(client, there):
    await client.send(there.endpoint, None, "GET", b"/", stream=True)
    await asyncio.sleep(0)  # the loop itself holds what it has just handed over
    gc.collect()


def test_a_response_that_is_forgotten_is_told_and_gives_its_connection_back(run):
    async def main():
        async with instance(endless) as there, HttpClient(PoolSizes(connections=1)) as client:
            with pytest.warns(ResourceWarning, match="neither read to its end nor closed"):
                await forget(client, there)
            await until(lambda: state(client) == (0, 0, 0, 0))

    run(main())


def test_a_whole_body_has_a_bound_before_it_comes(run):
    async def main():
        answers = always(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\nx")
        async with instance(answers) as there, HttpClient(body_bytes_max=10) as client:
            with pytest.raises(BodyTooLarge, match="larger than 10 bytes"):
                await client.send(there.endpoint, None, "GET", b"/")
            await until(lambda: state(client) == (0, 0, 0, 0))
        async with instance(always(OK)) as there, HttpClient(body_bytes_max=1) as client:
            for _ in range(4):  # also by the way of a head that is known
                with pytest.raises(BodyTooLarge):
                    await client.send(there.endpoint, None, "GET", b"/")

    run(main())


# ------------------------------------------------------------------------------------------- time


def test_each_wait_has_its_own_end(run):
    async def mute(talk):
        await talk.gone()

    async def stopping(talk):
        talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
        await talk.gone()

    async def dripping(talk):
        talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n")
        with contextlib.suppress(OSError):
            while True:
                talk.send(b"x")
                await asyncio.sleep(0.02)

    def second(script):
        async def both(talk):
            await talk.request()
            talk.send(OK)
            await talk.request()
            await script(talk)

        return both

    soon = Timeouts(silence_s=0.1)
    waits = [
        (mute, {"deadline": 0.1}, "deadline"),
        (mute, {"timeouts": soon}, "silent for 0.1 s"),
        (stopping, {"timeouts": soon}, "silent for 0.1 s"),
        (stopping, {"deadline": 0.1}, "deadline"),
        (dripping, {"deadline": 0.2, "timeouts": Timeouts(silence_s=5)}, "deadline"),
    ]

    async def main():
        async def one(script, how, wanted):
            async with instance(second(script)) as there, HttpClient() as client:
                await client.send(there.endpoint, None, "GET", b"/")
                if "deadline" in how:
                    how = {**how, "deadline": monotonic() + how["deadline"]}
                with pytest.raises(UpstreamFailed, match=wanted) as caught:
                    await client.send(there.endpoint, None, "GET", b"/", **how)
                assert caught.value.kind == "timeout"
                assert str(there.endpoint) in str(caught.value)
                await until(lambda: state(client) == (0, 0, 0, 0))

        await asyncio.gather(*(one(*each) for each in waits))

    run(main())


def test_a_deadline_that_has_passed_sends_nothing(run):
    async def main():
        async with instance(always(OK)) as there, HttpClient() as client:
            with pytest.raises(UpstreamFailed, match="deadline has passed"):
                await client.send(there.endpoint, None, "GET", b"/", deadline=monotonic() - 1)
            assert not there.talks
            assert client.snapshot() == ()

    run(main())


def test_a_reader_s_own_pace_is_not_the_instance_s_silence(run):
    async def script(talk):
        await talk.request()
        talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2000000\r\n\r\n" + b"x" * 2_000_000)
        await talk.gone()

    async def main():
        async with instance(script) as there, HttpClient() as client:
            times = Timeouts(silence_s=0.2)
            got = await client.send(there.endpoint, None, "GET", b"/", timeouts=times, stream=True)
            await until(lambda: got._stream.incoming.bytes_held > HIGH)
            await asyncio.sleep(0.5)
            assert len(await got.read()) == 2_000_000

    run(main())


def test_kept_connections_are_closed_before_their_servers_do_it(run):
    async def main():
        sizes = PoolSizes(idle_timeout_s=0.1)
        async with instance(always(OK)) as there, HttpClient(sizes) as client:
            await client.send(there.endpoint, None, "GET", b"/")
            await until(lambda: client.snapshot() == ())
            await client.send(there.endpoint, None, "GET", b"/")
            assert len(there.talks) == 2

    run(main())


def test_no_time_out_is_for_ever(run):
    async def main():
        async with instance(always(OK)) as there, HttpClient() as client:
            times = Timeouts(math.inf, math.inf, math.inf)
            got = await client.send(there.endpoint, None, "GET", b"/", timeouts=times)
            assert got.content == b"ok"

    run(main())


# ------------------------------------------------------------------------------------------ loops


def test_a_client_lives_on_in_the_next_loop_and_refuses_two_at_a_time(run):
    client = HttpClient()

    async def main():
        async with instance(always(OK)) as there:
            got = await client.send(there.endpoint, None, "GET", b"/", [(b"connection", b"close")])
            assert got.content == b"ok"

            def elsewhere():
                asyncio.run(client.send(there.endpoint, None, "GET", b"/"))

            with pytest.raises(RuntimeError, match="belongs to another event loop"):
                await asyncio.to_thread(elsewhere)
            await until(lambda: client.snapshot() == ())

    run(main())
    run(main())


def test_a_closed_client_ends_what_runs_and_begins_nothing(run):
    async def mute(talk):
        await talk.request()
        await talk.gone()

    async def main():
        async with instance(mute) as there:
            client = HttpClient(PoolSizes(connections=1))
            calls = [
                asyncio.ensure_future(client.send(there.endpoint, None, "GET", b"/"))
                for _ in range(3)
            ]
            await until(lambda: there.talks)
            await client.aclose()
            for got in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(got, UpstreamFailed)
                assert got.kind == "closed"
            assert client.snapshot() == ()
            with pytest.raises(UpstreamFailed, match="closed"):
                await client.send(there.endpoint, None, "GET", b"/")
            await client.aclose()

    run(main())

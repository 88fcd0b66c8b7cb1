"""Instances that break the rules, break off, or drip; and callers that leave at any moment."""

# Fakes stand in for connections, pools and loops.
# mypy: disable-error-code="arg-type, union-attr, var-annotated, list-item, assignment, misc"
from __future__ import annotations

import asyncio
import contextlib
import random
from math import inf
from time import monotonic
from types import SimpleNamespace

import pytest
import uvloop

from headgate.errors import UpstreamFailed
from headgate.mesh.http import HttpClient, PoolSizes, Timeouts
from headgate.mesh.http.body import Incoming
from headgate.mesh.http.connection import Connection
from headgate.mesh.http.exchange import Exchange
from headgate.mesh.http.pool import Pool
from headgate.mesh.http.request import RequestHead
from headgate.wire.connect import Endpoint
from headgate.wire.headcache import HeadCache
from headgate.wire.http1.head import HeadLimits
from headgate.wire.message import ResponseHead
from tests.mesh.http.instance_rig import OK, PATIENCE_S, echo, instance, until
from tests.ports import free_port

pytestmark = pytest.mark.integration

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

KEPT = PoolSizes(idle_timeout_s=600)  # nothing is closed for its age while a test looks


def run(main):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as it:
        return it.run(asyncio.wait_for(main, PATIENCE_S * 2))


def state(client):
    """(open, idle, connecting, waiting) over all pools."""
    found = [(p.open, p.idle, p.connecting, p.waiting) for p in client.snapshot()]
    return tuple(map(sum, zip(*found, strict=True))) if found else (0, 0, 0, 0)


async def failing(client, there, method="GET", **how):
    with pytest.raises(UpstreamFailed) as caught:
        got = await client.send(there.endpoint, None, method, b"/", **how)
        await got.read()
    assert str(there.endpoint) in str(caught.value)
    return caught.value


MALFORMED = {
    "no-http": b"SSH-2.0-OpenSSH_9\r\n",
    "http-2": b"HTTP/2 200\r\n\r\n",
    "no-status": b"HTTP/1.1 \r\n\r\n",
    "odd-status": b"HTTP/1.1 20 OK\r\n\r\n",
    "lf": b"HTTP/1.1 200 OK\ncontent-length: 0\n\n",
    "cr": b"HTTP/1.1 200 OK\rx\r\n\r\n",
    "nul": b"HTTP/1.1 200 OK\r\na: \0\r\n\r\n",
    "space-colon": b"HTTP/1.1 200 OK\r\na : b\r\n\r\n",
    "fold": b"HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
    "two-lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok",
    "bad-length": b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok",
    "list-length": b"HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok",
    "both": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "204-body": b"HTTP/1.1 204 No\r\ncontent-length: 2\r\n\r\nok",
    "chunk-size": CHUNKED + b"zz\r\n",
    "chunk-minus": CHUNKED + b"-1\r\n",
    "chunk-huge": CHUNKED + b"f" * 16 + b"\r\n",
    "chunk-end": CHUNKED + b"2\r\nokay",
    "chunk-lf": CHUNKED + b"2\nok",
    "chunk-line": CHUNKED + b"1" + b";" + b"x" * 500,
    "trailer": CHUNKED + b"0\r\na : b\r\n\r\n",
    "trailers-endless": CHUNKED + b"0\r\n" + b"a: b\r\n" * 20_000,
    "fields": b"HTTP/1.1 200 OK\r\n" + b"".join(b"a%d: b\r\n" % n for n in range(200)) + b"\r\n",
    "field-huge": b"HTTP/1.1 200 OK\r\na: " + b"x" * 100_000,
    "line-huge": b"HTTP/1.1 200 " + b"x" * 100_000,
    "interim-endless": b"HTTP/1.1 100 Continue\r\n\r\n" * 30,
}


def test_what_is_no_response_is_refused_whole_or_byte_by_byte():
    async def main():
        async with HttpClient(KEPT) as client:
            for name, answer in MALFORMED.items():
                for step in (len(answer), 1 if len(answer) < 200 else 7001):

                    async def script(talk, answer=answer, step=step):
                        await talk.request()
                        for at in range(0, len(answer), step):
                            talk.send(answer[at : at + step])
                            await talk.flush()
                            await asyncio.sleep(0)
                        await talk.gone()

                    async with instance(script) as there:
                        for stream in (False, True):
                            failure = await failing(client, there, stream=stream)
                            assert failure.kind == "protocol", name
                        await until(lambda: state(client) == (0, 0, 0, 0))

    run(main())


WHOLE = (
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx: y\r\n\r\nhello",
    CHUNKED + b"3\r\nhel\r\n2\r\nlo\r\n0\r\nt: u\r\n\r\n",
)


@pytest.mark.parametrize("how", ["reset", "closed"])
def test_a_response_cut_off_at_any_byte_is_never_taken_for_whole(how):
    async def main():
        async with HttpClient(KEPT) as client:
            cut = [(whole, at) for whole in WHOLE for at in range(len(whole))]
            served = iter(cut)

            async def script(talk):
                await talk.request()
                whole, at = next(served)
                talk.send(whole[:at])
                await talk.flush()
                if how == "reset":
                    await asyncio.sleep(0.001)
                    talk.reset()
                else:
                    talk.close()

            async with instance(script) as there:
                for n in range(len(cut)):
                    failure = await failing(client, there, "POST", stream=bool(n % 2))
                    assert failure.kind == "reset", (failure, cut[n])
                await until(lambda: state(client) == (0, 0, 0, 0))

    run(main())


def test_bytes_after_a_response_are_nobody_s_answer():
    async def main():
        smuggled = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"

        async def script(talk):
            await talk.request()
            talk.send(OK + smuggled)
            await talk.gone()

        async def later(talk):
            await talk.request()
            talk.send(OK)
            await talk.flush()
            await asyncio.sleep(0.02)
            talk.send(smuggled)
            await talk.gone()

        async def chunked(talk):
            await talk.request()
            talk.send(CHUNKED + b"2\r\nok\r\n0\r\n\r\n" + smuggled)
            await talk.gone()

        async with HttpClient(KEPT) as client:
            for each in (script, later, chunked):
                async with instance(each) as there:
                    for _ in range(3):
                        got = await client.send(there.endpoint, None, "GET", b"/")
                        assert got.content == b"ok"
                        await until(lambda: state(client)[0] == 0)
                    assert len(there.talks) == 3

    run(main())


class Wire:
    """A transport that only notes its end."""

    aborted = False

    def abort(self):
        self.aborted = True


def test_an_answer_to_a_question_that_was_not_asked_is_not_taken():
    made = []
    conn = Connection(SimpleNamespace(lost=made.append), None, HeadCache(), HeadLimits())
    wire = Wire()
    conn.connection_made(wire)
    conn.data_received(OK)
    assert wire.aborted
    assert conn.is_closing
    conn.connection_lost(None)
    assert made == [conn]


def test_a_body_where_none_may_be_is_nobody_s_answer():
    async def main():
        for method, status in (("HEAD", b"200 OK"), ("GET", b"304 Not Modified")):
            head = b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n" % (status, len(OK))

            async def script(talk, head=head):
                await talk.request()
                talk.send(head + OK)
                await talk.gone()

            async with instance(script) as there, HttpClient(KEPT) as client:
                for _ in range(4):  # the head is known by the third
                    got = await client.send(there.endpoint, None, method, b"/")
                    assert got.content == b""
                    await until(lambda: state(client)[0] == 0)

    run(main())


# ---------------------------------------------------------------------------- the stale connection


def closes_after(count, how="close"):
    async def script(talk):
        for _ in range(count):
            if await talk.request() is None:
                return
            talk.send(OK)
            await talk.flush()
        await talk.request()  # read and never answered
        talk.reset() if how == "reset" else talk.close()

    return script


@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_unanswered_request_on_a_kept_connection_is_sent_again_once_if_it_may(how):
    async def main():
        async with instance(closes_after(1, how)) as there, HttpClient(KEPT) as client:
            for _ in range(4):  # every other one finds a connection that ends
                got = await client.send(there.endpoint, None, "GET", b"/")
                assert got.content == b"ok"
            assert len(there.talks) == 4
        async with instance(closes_after(1, how)) as there, HttpClient(KEPT) as client:
            await client.send(there.endpoint, None, "GET", b"/")
            failure = await failing(client, there, "POST", body=b"x")
            assert failure.kind == "reset"
            assert len(there.talks) == 1
        async with instance(closes_after(1, how)) as there, HttpClient(KEPT) as client:

            async def parts():
                yield b"x"

            await client.send(there.endpoint, None, "GET", b"/")
            assert (await failing(client, there, "PUT", body=parts())).kind == "reset"
            assert len(there.talks) == 1

    run(main())


def test_a_request_that_is_never_answered_is_not_sent_for_ever():
    async def main():
        requests = 0

        async def script(talk):
            nonlocal requests
            if talk.number == 0:
                await talk.request()
                talk.send(OK)
                await talk.flush()
            if await talk.request() is not None:
                requests += 1

        async with instance(script) as there, HttpClient(KEPT) as client:
            await client.send(there.endpoint, None, "GET", b"/")
            assert (await failing(client, there)).kind == "reset"
            assert requests == 2
            assert (await failing(client, there)).kind == "reset"
            assert requests == 3  # on a new connection there is nothing to blame on its age

    run(main())


def test_two_stale_connections_are_not_tried_one_after_the_other_for_ever():
    async def main():
        requests = 0

        async def script(talk):
            nonlocal requests
            for _ in range(2):
                await talk.request()
                requests += 1
                if _ == 0:
                    await until(lambda: requests >= 2)
                    talk.send(OK)
                    await talk.flush()

        async with instance(script) as there, HttpClient(KEPT) as client:
            calls = [client.send(there.endpoint, None, "GET", b"/") for _ in range(2)]
            await asyncio.gather(*calls)
            assert state(client) == (2, 2, 0, 0)
            assert (await failing(client, there)).kind == "reset"
            assert requests == 4

    run(main())


def test_a_loop_that_was_held_up_does_not_send_on_a_connection_that_has_ended():
    async def main():
        async def script(talk):
            await talk.request()
            talk.send(OK)
            await talk.flush()

        async with instance(script) as there, HttpClient(KEPT) as client:
            await client.send(there.endpoint, None, "GET", b"/")
            pool = next(iter(client._pools.values()))
            if pool.idle:
                # As if the loop had not turned since: the end waits in the socket.
                conn = pool.idle[0]
                conn.idle_since -= 10
                await until(conn.has_news)
            got = await client.send(there.endpoint, None, "POST", b"/", body=b"x")
            assert got.content == b"ok"
            assert len(there.talks) == 2

    run(main())


# ---------------------------------------------------------------------------------- bounds and line


def test_a_thousand_callers_share_ten_connections():
    async def main():
        sizes = PoolSizes(connections=10, idle_timeout_s=600)
        async with instance(echo) as there, HttpClient(sizes) as client:

            async def one(n):
                got = await client.send(there.endpoint, None, "POST", b"/", body=b"%d" % n)
                return int(got.content)

            times = await asyncio.gather(*(one(n) for n in range(1000)))
            assert times == list(range(1000))
            assert there.open_most <= 10
            assert state(client) == (10, 10, 0, 0)

    run(main())


def test_the_line_has_an_end_and_a_time():
    async def main():
        async def mute(talk):
            await talk.request()
            await talk.gone()

        sizes = PoolSizes(connections=1, queue=2)
        async with instance(mute) as there, HttpClient(sizes) as client:
            times = Timeouts(queue_s=0.1)

            def call(**how):
                return asyncio.ensure_future(
                    client.send(there.endpoint, None, "GET", b"/", timeouts=times, **how)
                )

            taken = asyncio.ensure_future(client.send(there.endpoint, None, "GET", b"/"))
            await until(lambda: there.talks)
            # All three begin in one turn of the loop.
            spent = monotonic() + 0.05
            got = await asyncio.gather(call(), call(deadline=spent), call(), return_exceptions=True)
            assert [each.kind for each in got] == ["queue_timeout", "timeout", "queue_full"]
            left = call()
            await asyncio.sleep(0)
            assert state(client)[3] == 1
            left.cancel()
            await asyncio.wait([left])
            assert state(client)[3] == 0
            taken.cancel()
            await asyncio.wait([taken])
            await until(lambda: state(client) == (0, 0, 0, 0))

    run(main())


def test_an_instance_that_is_away_is_told_to_everybody_at_once():
    async def main():
        port = free_port()
        async with HttpClient(PoolSizes(connections=2)) as client:
            here = Endpoint("127.0.0.1", port)
            calls = [client.send(here, None, "GET", b"/") for _ in range(50)]
            got = await asyncio.gather(*calls, return_exceptions=True)
            assert {each.kind for each in got} == {"connect"}
            assert len(set(map(id, got))) == 50
            await until(lambda: client.snapshot() == ())

    run(main())


def test_an_instance_that_closes_what_it_accepts_is_not_dialled_without_end():
    async def main():
        async def slam(talk):
            talk.reset()

        async with instance(slam) as there, HttpClient(PoolSizes(connections=4)) as client:
            calls = [client.send(there.endpoint, None, "GET", b"/") for _ in range(40)]
            got = await asyncio.gather(*calls, return_exceptions=True)
            assert {each.kind for each in got} <= {"connect", "reset"}
            assert len(there.talks) <= 80
            await until(lambda: state(client) == (0, 0, 0, 0))

    run(main())


def test_a_slow_drip_ends_with_the_deadline_and_holds_nobody_else_up():
    async def main():
        async def script(talk):
            while (request := await talk.request()) is not None:
                if b"/slow" not in request:
                    talk.send(OK)
                    await talk.flush()
                    continue
                with contextlib.suppress(OSError):
                    for byte in b"HTTP/1.1 200 OK\r\nx: " + b"y" * 10_000:
                        talk.send(bytes([byte]))
                        await asyncio.sleep(0.01)

        sizes = PoolSizes(connections=2)
        async with instance(script) as there, HttpClient(sizes) as client:
            await client.send(there.endpoint, None, "GET", b"/")
            until_s = monotonic() + 0.15
            slow = asyncio.ensure_future(
                client.send(there.endpoint, None, "GET", b"/slow", deadline=until_s)
            )
            for _ in range(20):
                assert (await client.send(there.endpoint, None, "GET", b"/")).content == b"ok"
            got = (await asyncio.gather(slow, return_exceptions=True))[0]
            assert isinstance(got, UpstreamFailed)
            assert got.kind == "timeout"
            await until(lambda: state(client)[0] == 1)

    run(main())


# --------------------------------------------------------------------------------------- leaving


async def weather(talk):
    """Answers of all kinds, at all paces."""
    rng = random.Random(talk.number)
    while (got := await talk.request()) is not None:
        body = got.partition(b"\r\n\r\n")[2]
        kind = rng.randrange(8)
        if kind == 0:
            await asyncio.sleep(rng.random() * 0.004)
        if kind == 1:
            talk.reset()
            return
        if kind == 2:
            talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body[:1])
            await talk.flush()
            await asyncio.sleep(rng.random() * 0.004)
            talk.send(body[1:])
        elif kind == 3:
            talk.send(CHUNKED)
            for byte in body:
                talk.send(b"1\r\n%c\r\n" % byte)
                await asyncio.sleep(0)
            talk.send(b"0\r\n\r\n")
        else:
            talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await talk.flush()


class Lent:
    """A connection that only notes what is done with it."""

    is_closing = False
    deadline = wake = 0.0

    def __init__(self):
        self.done = []

    def start(self, ex, now):
        self.done.append("start")

    def cancel(self):
        self.done.append("cancel")


def exchange(future, **more):
    head = RequestHead(b"", 0, keep=True)
    return Exchange(future, "GET", head, None, inf, Timeouts(), inf, is_stream=True, **more)


def test_whoever_leaves_as_its_turn_comes_is_passed_over():
    async def main():
        futures = [asyncio.get_running_loop().create_future() for _ in range(2)]
        first, second = map(exchange, futures)
        pool = Pool("n", b"", PoolSizes(), None, set(), None, None)
        pool.waiting = {first: inf, second: inf}
        futures[0].cancel()  # and its coroutine has not run since
        conn = Lent()
        pool.give(conn, 0.0)
        assert conn.done == ["start"]
        assert pool.waiting == {}

    run(main())


def test_whoever_leaves_as_its_answer_comes_leaves_no_open_response():
    async def main():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        ex, conn = exchange(future), Lent()
        incoming = Incoming(loop, conn, ResponseHead(200))
        assert ex.finish(ResponseHead(200), b"", incoming, "n")
        ex.leave(future)
        assert conn.done == ["cancel"]
        assert incoming.is_done

    run(main())


@pytest.mark.parametrize("seed", range(4))
def test_callers_that_leave_at_any_moment_hurt_nobody_and_leave_nothing(seed):
    rng = random.Random(seed)

    async def main():
        sizes = PoolSizes(connections=5, idle_timeout_s=600)
        async with instance(weather) as there, HttpClient(sizes) as client:

            async def parts(body):
                for at in range(len(body)):
                    await asyncio.sleep(0)
                    yield body[at : at + 1]

            async def one(n):
                body = b"%d" % (10_000 + n)
                sent = parts(body) if n % 5 == 0 else body
                try:
                    got = await client.send(
                        there.endpoint, None, "PUT", b"/", body=sent, stream=n % 3 == 0
                    )
                    async with got:
                        assert await got.read() == body
                except UpstreamFailed as failure:
                    assert failure.kind in ("reset", "connect")
                    return 0
                return 1

            calls = [asyncio.ensure_future(one(n)) for n in range(200)]
            leaving = [call for call in calls if rng.random() < 0.5]
            rng.shuffle(leaving)
            for at, call in enumerate(leaving):
                call.cancel()
                if at % 3 == 0:
                    await asyncio.sleep(rng.random() * 0.004)
            got = await asyncio.gather(*calls, return_exceptions=True)
            for each in got:
                if isinstance(each, BaseException) and not isinstance(each, asyncio.CancelledError):
                    raise each
            assert sum(each == 1 for each in got) > 20
            # Every permit is back, and five more calls at once get five connections.
            await until(lambda: state(client)[2:] == (0, 0))
            await until(lambda: state(client)[0] == state(client)[1])
            assert there.open_most <= 5 + len(leaving)
            assert await asyncio.gather(*(one(1 + 3 * n) for n in range(5)))
            assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("body")]

    run(main())


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_call_cancelled_in_any_turn_of_the_loop_leaves_no_half_read_connection(stream):
    async def main():
        sizes = PoolSizes(connections=1)
        async with instance(echo) as there, HttpClient(sizes) as client:
            for turns in range(60):
                call = asyncio.ensure_future(
                    client.send(
                        there.endpoint, None, "POST", b"/", body=b"x" * 70_000, stream=stream
                    )
                )
                other = asyncio.ensure_future(
                    client.send(there.endpoint, None, "POST", b"/", body=b"mine")
                )
                for _ in range(turns % 30):
                    await asyncio.sleep(0)
                call.cancel()
                assert (await other).content == b"mine"
                with contextlib.suppress(asyncio.CancelledError):
                    await (await call).aclose()
                await until(lambda: state(client)[0] == state(client)[1])

    run(main())

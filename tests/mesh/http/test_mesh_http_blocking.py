"""Calls from threads, from children of a fork, and at the interpreter's end."""

# Fakes stand in for connections, pools and loops.
# mypy: disable-error-code="arg-type, union-attr, var-annotated, list-item, assignment, misc"
from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import pytest

from headgate.errors import UpstreamFailed
from headgate.mesh.http import BodyTooLarge, StatusError, Timeouts
from headgate.mesh.http.blocking import LoopThread, loop_thread
from headgate.mesh.http.blocking_client import BlockingClient
from tests.mesh.http.instance_rig import OK, PATIENCE_S, always, echo, instance

pytestmark = pytest.mark.integration


@contextlib.contextmanager
def serving(script):
    """An instance in a loop and a thread of its own."""
    thread = LoopThread()
    there = instance(script)
    try:
        found = thread.run(there.__aenter__())
        yield found
    finally:
        thread.run(there.__aexit__(None, None, None))
        thread.close()


def test_a_call_is_made_without_a_loop():
    with serving(echo) as there, BlockingClient() as client:
        for n in range(3):
            got = client.send(there.url, "POST", b"/", body=b"[%d]" % n)
            assert (got.status, got.json(), got.read()) == (200, [n], b"[%d]" % n)
            assert got.headers["content-length"] == "3"
            assert got.raise_for_status() is got
            assert got.is_success
            assert not got.is_error
        assert len(there.talks) == 1


def test_threads_share_the_connections():
    with serving(echo) as there, BlockingClient() as client:

        def one(n):
            return int(client.send(there.url, "POST", b"/", body=b"%d" % n).content)

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(one, range(200))) == list(range(200))
        assert there.open_most <= 8


def test_a_body_of_pieces_is_read_in_the_thread_that_calls():
    with serving(echo) as there, BlockingClient() as client:
        seen = set()

        def parts():
            for n in range(5):
                seen.add(threading.get_ident())
                yield b"%d" % n if n != 2 else b""

        got = client.send(there.url, "POST", b"/", body=parts())
        assert got.content == b"0134"
        assert seen == {threading.get_ident()}
        got = client.send(there.url, "POST", b"/", body=iter([b"a" * 100_000, b"b"]))
        assert got.content == b"a" * 100_000 + b"b"

        def broken():
            yield b"a"
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            client.send(there.url, "POST", b"/", body=broken())
        with pytest.raises(TypeError, match="not str"):
            client.send(there.url, "POST", b"/", body=["text"])
        with pytest.raises(UpstreamFailed, match="refused"):
            client.send("http://127.0.0.1:1", "POST", b"/", body=parts())


def test_a_stream_is_read_piece_by_piece():
    async def script(talk):
        while await talk.request():
            talk.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            for n in range(3):
                talk.send(b"1\r\n%d\r\n" % n)
                await asyncio.sleep(0.01)
            talk.send(b"0\r\n\r\n")

    with serving(script) as there, BlockingClient() as client:
        with client.send(there.url, "GET", b"/", stream=True) as got:
            assert b"".join(got.iter_bytes()) == b"012"
        with client.send(there.url, "GET", b"/", stream=True) as got:
            assert next(got.iter_raw())
        with client.send(there.url, "GET", b"/", stream=True) as got:
            assert got.read() == b"012"
            assert got.text == "012"
        with client.send(there.url, "GET", b"/", stream=True) as got, pytest.raises(BodyTooLarge):
            got.read(2)


def test_failures_come_as_they_are():
    async def script(talk):
        await talk.request()
        await talk.gone()

    with serving(script) as there, BlockingClient() as client:
        with pytest.raises(UpstreamFailed, match="silent for 0.1 s"):
            client.send(there.url, "GET", b"/", timeouts=Timeouts(silence_s=0.1))
        with pytest.raises(ValueError, match="control character"):
            client.send(there.url, "GET", b"/", [(b"a", b"\n")])
    answer = b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"
    with serving(always(answer)) as there, BlockingClient() as client:
        got = client.send(there.url, "GET", b"/")
        with pytest.raises(StatusError, match="answered 500 No"):
            got.raise_for_status()


def test_the_caller_s_context_holds_in_its_call():
    trace = ContextVar("trace", default="none")

    async def look():
        return trace.get()

    trace.set("mine")
    assert loop_thread().run(look()) == "mine"


def test_a_call_from_the_loop_s_own_thread_says_what_is_wrong():
    async def inside():
        with pytest.raises(RuntimeError, match="would wait for itself"):
            loop_thread().run(asyncio.sleep(0))

    loop_thread().run(inside())


def test_a_thread_that_ends_cancels_what_waits():
    thread = LoopThread()
    begun = threading.Event()
    got = []

    async def forever():
        begun.set()
        await asyncio.Event().wait()

    def wait():
        with pytest.raises(RuntimeError, match="ended") as caught:
            thread.run(forever())
        got.append(caught.value)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert begun.wait(PATIENCE_S)
    thread.close()
    waiting.join(PATIENCE_S)
    assert got
    coro = forever()
    with pytest.raises(RuntimeError, match="ending"):
        thread.run(coro)


PROGRAM = """
    import os, signal, sys, threading
    from headgate.mesh.http.blocking_client import BlockingClient
    client = BlockingClient()
    def call(n):
        got = client.send(sys.argv[1], "POST", b"/", body=b"%d" % n)
        assert got.content == b"%d" % n, got.content
    call(0)
"""


def in_a_process(there, lines: str) -> str:
    program = textwrap.dedent(PROGRAM) + textwrap.dedent(lines)
    got = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, there.url],
        capture_output=True,
        timeout=60,
        text=True,
        check=False,
    )
    assert got.returncode == 0, got.stderr
    assert "Error" not in got.stderr, got.stderr
    return got.stdout


def test_a_child_of_a_fork_begins_anew_and_leaves_its_parent_s_connections_alone():
    with serving(echo) as there:
        said = in_a_process(
            there,
            """
            for _ in range(3):
                child = os.fork()
                if not child:
                    call(1)
                    call(2)
                    print("child", flush=True)
                    sys.exit(0)
                assert os.waitpid(child, 0)[1] == 0
                call(3)
            client.close()
            print("parent")
            """,
        )
        assert said.split() == ["child"] * 3 + ["parent"]
        # One for the parent throughout, one for each child.
        assert len(there.talks) == 4


def test_the_interpreter_ends_with_connections_and_calls_under_way():
    async def script(talk):
        while (got := await talk.request()) is not None:
            if b"/slow" in got:
                await asyncio.sleep(PATIENCE_S)
            talk.send(OK.replace(b"2\r\n\r\nok", b"1\r\n\r\n0"))
            await talk.flush()

    with serving(script) as there:
        said = in_a_process(
            there,
            """
            def slow():
                try:
                    client.send(sys.argv[1], "GET", b"/slow")
                except BaseException as error:
                    os.write(1, b"ended\\n")  # print's lock must not be held at the end
            threading.Thread(target=slow, daemon=True).start()
            call(0)
            print("done", flush=True)
            """,
        )
        assert "done" in said.split()


def test_a_caller_that_is_interrupted_cancels_its_call():
    with serving(echo) as there:
        said = in_a_process(
            there,
            """
            from headgate.mesh.http.blocking import loop_thread
            import asyncio, time
            ended = threading.Event()
            async def forever():
                threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.set()
            try:
                loop_thread().run(forever())
            except KeyboardInterrupt:
                print(ended.wait(20))
            """,
        )
        assert said.split() == ["True"]


def test_nothing_heavy_is_loaded_to_make_a_call():
    heavy = "pydantic fastapi sqlite3 cryptography httpx dns brotli h2 typer rich"
    program = (
        "import sys, headgate.mesh.http, headgate.mesh.http.blocking_client;"
        f"print([name for name in {heavy!r}.split() if name in sys.modules])"
    )
    got = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        timeout=60,
        text=True,
        check=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert got.stdout.strip() == "[]"

"""Bodies pass as they come, in bounded memory, and whoever is slow slows only the other end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from time import monotonic

import pytest

from tests.gateway.rig import Instance, Peer, document, get, request, wait_until

pytestmark = pytest.mark.integration

MB = 1024 * 1024
LARGE = 300 * MB


# -- nothing is held back


def test_events_arrive_one_by_one(start, instance):
    """Each event is sent only after the last has arrived: nothing may wait for more bytes."""
    gateway = start(document(instance))
    with gateway.client() as client:
        client.send(get("/events", "Accept: text/event-stream"))
        upstream = instance.accept()
        upstream.head()
        upstream.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        assert client.head().get("content-type") == "text/event-stream"
        for at in range(50):
            event = b"id: %d\n\n" % at
            upstream.send(b"%x\r\n%b\r\n" % (len(event), event))
            assert client.until(b"\n\n\r\n") == b"%x\r\n%b\r\n" % (len(event), event)


def test_events_until_close_arrive_one_by_one(start, instance):
    gateway = start(document(instance))
    with gateway.client() as client:
        client.send(get("/events"))
        upstream = instance.accept()
        upstream.head()
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        client.head()
        for at in range(5):
            upstream.send(b"data: %d\n\n" % at)
            assert b"data: %d" % at in client.until(b"\n\n\r\n")


def test_a_long_poll_is_answered_when_there_is_news(start, instance):
    gateway = start(document(instance))
    with gateway.client() as client:
        client.send(get("/poll"))
        upstream = instance.accept()
        upstream.head()
        assert client.is_quiet(1.5)
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnews")
        assert client.answer()[1] == b"news"


def test_a_conversation_in_one_exchange(start, instance):
    """Request and response bodies in turns, as streaming calls over HTTP/1.1 do."""
    gateway = start(document(instance))
    with gateway.client() as client:
        client.send(request("POST", "/", "Transfer-Encoding: chunked"))
        upstream = instance.accept()
        upstream.head()
        upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.head()
        for at in range(20):
            client.send(b"3\r\nq%02d\r\n" % at)
            assert upstream.exactly(8) == b"3\r\nq%02d\r\n" % at
            upstream.send(b"3\r\na%02d\r\n" % at)
            assert client.exactly(8) == b"3\r\na%02d\r\n" % at


# -- back-pressure


def push(peer: Peer) -> int:
    """Send until nobody takes any more, or it is cut off; how much was taken."""
    peer.sock.settimeout(0.5)
    sent, piece = 0, bytes(256 * 1024)
    try:
        while sent < LARGE:
            sent += peer.sock.send(piece)
    except (TimeoutError, ConnectionError):
        pass
    peer.sock.settimeout(8)
    return sent


def test_a_client_that_does_not_read_stops_the_instance(start, instance):
    gateway = start(document(instance))
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE)
        sent = push(upstream)
        assert sent < 40 * MB  # the kernels' buffers on both ways, and ours
        client.head()
        client.exactly(sent)
        upstream.send(b"goes on")
        assert client.exactly(7) == b"goes on"


@pytest.mark.parametrize("stage", ["before the answer", "during the answer"])
def test_an_instance_that_does_not_read_stops_the_client(start, instance, stage):
    gateway = start(document(instance, route={"body_limit": LARGE + 1}))
    with gateway.client() as client:
        client.send(request("POST", "/", f"Content-Length: {LARGE}"))
        upstream = instance.accept()
        upstream.head()
        if stage == "during the answer":
            upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            client.head()
        sent = push(client)
        assert sent < 40 * MB
        upstream.exactly(sent)
        client.send(b"goes on")
        assert upstream.exactly(7) == b"goes on"


def test_a_client_that_never_reads_is_cut_off(start, instance):
    gateway = start(document(instance, limits={"write_timeout": "500ms"}))
    client = gateway.client()
    client.send(get())
    upstream = instance.accept()
    upstream.head()
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE)
    push(upstream)
    wait_until(lambda: not upstream.try_send(b"x"))
    gateway.assert_settles()
    assert gateway.pool.open == 0
    assert gateway.clients == 0


def test_a_client_that_reads_a_little_now_and_then_is_not_cut_off(start, instance):
    gateway = start(document(instance, limits={"write_timeout": "1s"}))
    with gateway.client() as client:
        client.send(get())
        upstream = instance.accept()
        upstream.head()
        total = 12 * MB
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        feeder = threading.Thread(target=upstream.try_send, args=(bytes(total),), daemon=True)
        feeder.start()
        head = client.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        left = total - len(client.data)
        client.data = b""
        began = monotonic()
        while monotonic() - began < 2.5 and left > MB:
            left -= len(client.sock.recv(MB))
            client.is_quiet(0.1)
        while left:
            got = len(client.sock.recv(MB))
            assert got
            left -= got
        feeder.join(5)


# -- bounded memory, measured on a process of its own


class _Process:
    """`headgate run` with one worker, and how much memory that worker holds."""

    def __init__(self, folder: Path, instance: Instance) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        said = document(instance, route={"body_limit": LARGE + 1}, workers=1)
        said["listeners"] = [{"bind": f"127.0.0.1:{self.port}"}]
        said["state_dir"] = str(folder / "state")
        file = folder / "headgate.yaml"
        file.write_text(json.dumps(said))
        root = Path(__file__).resolve().parents[2]
        self._log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "headgate", "run", str(file)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(root / "src")},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until(self._answers, 30)
        except BaseException:
            self.close()
            raise
        self.pids = [
            pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._is_ours(pid)
        ]
        assert self.pids

    def _answers(self) -> bool:
        assert self.process.poll() is None, Path(self._log.name).read_text()
        # The supervisor's socket takes connections before there is a worker to serve them; only a
        # worker says what is wrong with this request.
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as client:
                client.sendall(b"nonsense\r\n\r\n")
                return client.recv(12) == b"HTTP/1.1 400"
        except OSError:
            return False

    def _is_ours(self, pid: int) -> bool:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return False
        # Control is none: it may still be loading what it needs, and grows by that.
        is_worker = stat.partition("(")[2].startswith("headgate-w")
        return is_worker and int(stat.rpartition(")")[2].split()[1]) == self.process.pid

    def rss(self) -> int:
        """The largest resident set that a worker has had (VmHWM)."""
        found = 0
        for pid in self.pids:
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    found = max(found, int(line.split()[1]) * 1024)
        return found

    def client(self) -> Peer:
        return Peer(socket.create_connection(("127.0.0.1", self.port), 10))

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()


@pytest.fixture(scope="module")
def large_instance():
    made = Instance()
    yield made
    made.close()


@pytest.fixture(scope="module")
def process(tmp_path_factory, large_instance):
    running = _Process(tmp_path_factory.mktemp("run"), large_instance)
    yield running
    running.close()


def pour(source: Peer, total: int) -> threading.Thread:
    def run() -> None:
        piece = memoryview(bytes(MB))
        for _ in range(total // MB):
            source.sock.sendall(piece)

    source.sock.settimeout(60)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def drink(target: Peer, total: int, *, slowly: bool, exactly: bool = True) -> None:
    buffer = bytearray(MB)
    got = len(target.data)
    target.sock.settimeout(30)
    rests = 0
    while got < total:
        count = target.sock.recv_into(buffer)
        assert count, f"closed at {got} of {total}"
        got += count
        if slowly and rests < 10 and got > rests * total // 10:
            rests += 1
            threading.Event().wait(0.1)
    assert got == total or not exactly


@pytest.mark.parametrize("slowly", [False, True], ids=["quick", "slow reader"])
def test_a_large_download_needs_little_memory(process, large_instance, slowly):
    with process.client() as client:
        client.send(get())
        upstream = large_instance.accept()
        upstream.head()
        before = process.rss()
        upstream.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % LARGE)
        pouring = pour(upstream, LARGE)
        client.head()
        drink(client, LARGE, slowly=slowly)
        pouring.join(10)
        assert process.rss() - before < 50 * MB


def test_a_large_download_of_unknown_length_needs_little_memory(process, large_instance):
    with process.client() as client:
        client.send(get())
        upstream = large_instance.accept()
        upstream.head()
        before = process.rss()
        upstream.send(b"HTTP/1.1 200 OK\r\n\r\n")
        pouring = pour(upstream, LARGE)
        client.head()
        # Chunk sizes come on top of the body; as much as the body is enough to measure.
        drink(client, LARGE, slowly=False, exactly=False)
        pouring.join(10)
        upstream.close()
        assert process.rss() - before < 50 * MB


@pytest.mark.parametrize("slowly", [False, True], ids=["quick", "slow instance"])
def test_a_large_upload_needs_little_memory(process, large_instance, slowly):
    with process.client() as client:
        client.send(request("POST", "/", f"Content-Length: {LARGE}"))
        upstream = large_instance.accept()
        upstream.head()
        before = process.rss()
        pouring = pour(client, LARGE)
        drink(upstream, LARGE, slowly=slowly)
        pouring.join(10)
        assert process.rss() - before < 50 * MB
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ndone")
        assert client.answer()[1] == b"done"


def test_a_standard_client_downloads_whole(process, large_instance):
    """The same with somebody else's client, byte for byte."""
    wanted = os.urandom(3 * MB + 17)

    def answer() -> None:
        peer = large_instance.accept()
        peer.head()
        peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(wanted)
        )
        peer.send(wanted)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    with urllib.request.urlopen(f"http://127.0.0.1:{process.port}/", timeout=10) as got:
        assert got.read() == wanted
    thread.join(5)

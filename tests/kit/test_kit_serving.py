"""A hardened service under a real server, until its end."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.ports import free_port

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
LONG_S = 60.0

APP = """
import asyncio, os, sys
import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import StreamingResponse
import headgate

app = FastAPI()

@app.get("/quick")
async def quick():
    return {}

@app.post("/up")
async def up(request: Request):
    return len(await request.body())

@app.get("/slow")
async def slow():
    print("begun", flush=True)
    await asyncio.sleep(0.4)
    return {"is": "whole"}

@app.get("/events")
async def events():
    async def each():
        yield b"data: one\\n\\n"
        await asyncio.Event().wait()
    return StreamingResponse(each(), media_type="text/event-stream")

@app.get("/boom")
async def boom():
    raise RuntimeError("hunter2")

headgate.harden(app, service="real", leave=os.environ["LEAVE"], finish="20s", body_limit=1000)
uvicorn.run(app, port=int(sys.argv[1]), log_config=None)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    (folder / "served.py").write_text(APP)
    port, path = free_port(), folder / "log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "served.py", str(port)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "LEAVE": "200ms"},
            stdout=log,
            stderr=log,
        )
    try:
        over = time.monotonic() + LONG_S
        while not is_ready(port):
            assert process.poll() is None, path.read_text()
            assert time.monotonic() < over
            time.sleep(0.05)
        yield process, port, path
    finally:
        process.kill()
        process.wait()


def is_ready(port):
    try:
        return ask(port, "/health/ready")[0] == 200
    except OSError:
        return False


def ask(port, path, **more):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG_S)
    try:
        connection.request("GET", path, **more)
        got = connection.getresponse()
        return got.status, dict(got.getheaders()), got.read()
    finally:
        connection.close()


def begin(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG_S)
    connection.request("GET", path)
    return connection


def wait_for(log, word):
    over = time.monotonic() + LONG_S
    while word not in log.read_text():
        assert time.monotonic() < over, log.read_text()
        time.sleep(0.02)


def test_a_huge_chunked_upload_is_refused_and_the_next_request_is_served(server):
    _, port, log = server
    with socket.create_connection(("127.0.0.1", port), timeout=LONG_S) as client:
        client.sendall(b"POST /up HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        client.sendall(b"7d0\r\n" + b"x" * 2000 + b"\r\n")
        first = client.recv(65536)
    assert first.split(b" ", 2)[1] == b"413"
    assert ask(port, "/quick")[0] == 200
    assert "Traceback" not in log.read_text()


def test_a_failure_is_one_line_of_the_log_with_its_id(server):
    _, port, log = server
    assert ask(port, "/quick", headers={"x-request-id": "my-request"})[0] == 200
    status, headers, body = ask(port, "/boom", headers={"x-request-id": "my-failure"})
    assert status == 500
    assert b"hunter2" not in body
    assert headers["x-request-id"] == "my-failure"
    wait_for(log, "hunter2")
    wait_for(log, "my-request")
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    by_id = {line.get("request_id"): line for line in lines}
    assert by_id["my-request"]["service"] == "real"
    failures = [line for line in lines if "hunter2" in json.dumps(line)]
    assert len(failures) == 1
    assert failures[0]["request_id"] == "my-failure"
    assert failures[0]["level"] == "error"


def test_a_signal_lets_what_is_under_way_finish_and_ends_streams(server):
    process, port, log = server
    slow, events = begin(port, "/slow"), begin(port, "/events")
    stream = events.getresponse()
    assert stream.read(11) == b"data: one\n\n"
    wait_for(log, "begun")
    process.send_signal(signal.SIGTERM)
    over = time.monotonic() + LONG_S
    # It serves on, not ready any more, until it has left.
    while is_ready(port):
        assert time.monotonic() < over
    got = slow.getresponse()
    assert got.status == 200
    assert json.loads(got.read()) == {"is": "whole"}
    assert stream.read() == b""
    slow.close()
    events.close()
    assert process.wait(LONG_S) in {0, -signal.SIGTERM}
    assert log.read_text().count("Traceback") == 1  # of /boom

"""The hosts that other tests here stand on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.mesh.hosts.net import Net

pytestmark = pytest.mark.integration

ECHO = """
import socket
server = socket.create_server(("", 7), reuse_port=False)
print("ready", flush=True)
while True:
    peer, _ = server.accept()
    with peer:
        while data := peer.recv(65536):
            peer.sendall(data)
"""
ASK = """
import socket, sys, time
began = time.monotonic()
try:
    with socket.create_connection((sys.argv[1], 7), timeout=float(sys.argv[2])) as peer:
        peer.settimeout(float(sys.argv[2]))
        peer.sendall(b"x" * 200_000)
        got = 0
        while got < 200_000:
            got += len(peer.recv(65536))
    print("ok", time.monotonic() - began)
except OSError as error:
    print(type(error).__name__, time.monotonic() - began)
"""


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with Net("a", "b", "c") as net:
        for name in ("b", "c"):
            echo = net.start(name, [sys.executable, "-c", ECHO], stdout=subprocess.PIPE)
            assert echo.stdout is not None
            assert echo.stdout.readline() == b"ready\n"
            echo.stdout.close()
        yield net


@pytest.fixture(autouse=True)
def whole(net):
    net.heal()


def asked(net, host, to, timeout_s=20.0):
    process = net.start(
        host, [sys.executable, "-c", ASK, net.address(to), str(timeout_s)], stdout=subprocess.PIPE
    )
    out, _ = process.communicate(timeout=60)
    word, took = out.decode().split()
    return word, float(took)


def test_hosts_reach_each_other(net):
    assert asked(net, "a", "b")[0] == "ok"
    assert asked(net, "c", "b")[0] == "ok"


def test_a_cut_link_is_silent_and_others_go_on(net):
    net.cut("a", "b")
    assert asked(net, "a", "b", 0.5)[0] == "TimeoutError"
    assert asked(net, "a", "c")[0] == "ok"
    net.heal()
    assert asked(net, "a", "b")[0] == "ok"


def test_a_host_can_be_cut_off_in_one_direction(net):
    net.cut_one_way("b", "a")
    assert asked(net, "a", "b", 0.5)[0] == "TimeoutError"
    assert asked(net, "c", "b")[0] == "ok"


def test_a_slow_link_is_slow_both_ways(net):
    net.slow("a", "b", 0.1)
    word, took_s = asked(net, "a", "b")
    assert word == "ok"
    assert took_s >= 0.4  # a round to connect, a round for the data

"""Several hosts on one machine: network namespaces, and a router between them that we steer.

Theory of operation. Each host is a namespace with one TUN interface; the other end of that
interface is a descriptor here. A thread reads every packet that a host sends and hands it to the
host it is for, at once, later, or not at all: so that a link can be cut in both directions or in
one, be slow, or lose a share of what is sent. Clocks, disks and processes stay those of the
machine; a Unix socket of a host can be reached from the test.

Needs the right to make namespaces. Without it a test fails and says so: what is tested here cannot
be seen without a network that breaks.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import itertools
import os
import random
import selectors
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Net"]

_TUNSETIFF: Final = 0x400454CA
_TUN_PLAIN: Final = 0x0001 | 0x1000  # IFF_TUN, IFF_NO_PI
_MTU: Final = 1500
_READ: Final = 65536
_QUEUED_MAX: Final = 20_000
"""Packets on slow links; more are lost, as in a router."""


@dataclass(slots=True)
class Link:
    """One direction between two hosts."""

    is_cut: bool = False
    delay_s: float = 0.0
    loss: float = 0.0


class Net:
    def __init__(self, *names: str, seed: int = 1) -> None:
        self._rng = random.Random(seed)
        self._mark = f"hg{os.getpid():x}{random.SystemRandom().randrange(4096):x}"
        self._names = names
        self._namespaces: list[str] = []
        self._fd_of: dict[bytes, int] = {}
        self._links = {(a, b): Link() for a in names for b in names if a != b}
        self._host_at: dict[bytes, str] = {}
        self._running: list[subprocess.Popen[bytes]] = []
        self._wake_reads, self._wake_writes = os.pipe()
        self.passed = 0
        self.lost = 0
        try:
            for number, name in enumerate(names, 1):
                self._add(number, name)
        except BaseException:
            self._remove()
            raise
        self._thread = threading.Thread(target=self._route, name="router")
        self._thread.start()

    def __enter__(self) -> Net:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- hosts -------------------------------------------------------------------------------

    def address(self, name: str) -> str:
        return f"10.99.0.{self._names.index(name) + 1}"

    def start(self, name: str, command: Sequence[str], **more: Any) -> subprocess.Popen[bytes]:
        """Run a program on a host until the network is closed."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self._namespace(name), *command],
            stdin=more.pop("stdin", subprocess.DEVNULL),
            **more,
        )
        self._running.append(process)
        return process

    def _namespace(self, name: str) -> str:
        return f"{self._mark}{name}"

    def _add(self, number: int, name: str) -> None:
        namespace, device = self._namespace(name), f"{self._mark}{number}"[:15]
        _ip("netns", "add", namespace)
        self._namespaces.append(namespace)
        if not os.path.exists("/dev/net/tun"):
            raise RuntimeError("there is no /dev/net/tun: modprobe tun")
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        self._fd_of[bytes((10, 99, 0, number))] = fd
        self._host_at[bytes((10, 99, 0, number))] = name
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _TUN_PLAIN))
        _ip("link", "set", device, "netns", namespace)
        inside = ("-n", namespace)
        _ip(*inside, "addr", "add", f"{self.address(name)}/24", "dev", device)
        _ip(*inside, "link", "set", device, "mtu", str(_MTU), "up")
        _ip(*inside, "link", "set", "lo", "up")

    # -- links -------------------------------------------------------------------------------

    def cut(self, *pair: str) -> None:
        """Nothing passes between two hosts; with one named, between it and all others."""
        for link in self._both_ways(*pair):
            link.is_cut = True

    def cut_one_way(self, sender: str, receiver: str) -> None:
        self._links[sender, receiver].is_cut = True

    def slow(self, a: str, b: str, delay_s: float, loss: float = 0.0) -> None:
        """Each way takes so long, and loses such a share."""
        for link in self._both_ways(a, b):
            link.delay_s, link.loss = delay_s, loss

    def heal(self) -> None:
        for link in self._links.values():
            link.is_cut, link.delay_s, link.loss = False, 0.0, 0.0

    def _both_ways(self, *pair: str) -> list[Link]:
        return [link for ends, link in self._links.items() if set(pair) <= set(ends)]

    # -- the router --------------------------------------------------------------------------

    def _route(self) -> None:
        later: list[tuple[float, int, int, bytes]] = []
        order = itertools.count()
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_reads, selectors.EVENT_READ)
            for fd in self._fd_of.values():
                selector.register(fd, selectors.EVENT_READ)
            while True:
                wait_s = max(0.0, later[0][0] - time.monotonic()) if later else None
                for key, _ in selector.select(wait_s):
                    if key.fd == self._wake_reads:
                        return
                    self._take(key.fd, later, order)
                now = time.monotonic()
                while later and later[0][0] <= now:
                    _, _, fd, packet = heapq.heappop(later)
                    self._give(fd, packet)

    def _take(
        self, fd: int, later: list[tuple[float, int, int, bytes]], order: itertools.count[int]
    ) -> None:
        for _ in range(64):
            try:
                packet = os.read(fd, _READ)
            except BlockingIOError:
                return
            to = self._fd_of.get(packet[16:20]) if packet[:1] >= b"\x40" else None
            ends = (self._host_at.get(packet[12:16], ""), self._host_at.get(packet[16:20], ""))
            link = self._links.get(ends)
            if to is None or link is None:
                continue  # IPv6, multicast: nobody here
            if link.is_cut or (link.loss and self._rng.random() < link.loss):
                self.lost += 1
            elif not link.delay_s:
                self._give(to, packet)
            elif len(later) < _QUEUED_MAX:
                heapq.heappush(later, (time.monotonic() + link.delay_s, next(order), to, packet))
            else:
                self.lost += 1

    def _give(self, fd: int, packet: bytes) -> None:
        try:
            os.write(fd, packet)
            self.passed += 1
        except OSError:  # its queue is full: TCP sends it again
            self.lost += 1

    # -- the end -----------------------------------------------------------------------------

    def close(self) -> None:
        os.write(self._wake_writes, b"x")
        self._thread.join(20)
        self._remove()

    def _remove(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()
        for fd in (*self._fd_of.values(), self._wake_reads, self._wake_writes):
            os.close(fd)
        for namespace in self._namespaces:
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "del", namespace)


def _ip(*words: str) -> None:
    if shutil.which("ip") is None:
        raise AssertionError("ip is missing: make os-test, or apt-get install iproute2")
    done = subprocess.run(["ip", *words], capture_output=True, timeout=20)
    if done.returncode:
        raise AssertionError(
            f"ip {' '.join(words)}: {done.stderr.decode().strip()}; hosts of a test need the right"
            " to make network namespaces (root, or CAP_NET_ADMIN and CAP_SYS_ADMIN)"
        )

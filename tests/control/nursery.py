"""A process that has imported Headgate once and forks where a test would start an interpreter.

Half of what tests of running gateways cost is importing, anew for each. The copy does what
`python -m MODULE WORDS...` does, with folder, environment, standard output and error of its own,
and from there on all is as it is for a user: the command is called with its words, it becomes the
supervisor by exec, and so on. One nursery serves one process of pytest and ends with it.

Gateways that are started with a prefix (`unshare`, a shell) are fresh interpreters, and so is what
`tests/control/test_template.py` starts to see that these do the same.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from headgate.control.template import run_to_the_end

__all__ = ["Process", "nursery"]

PACKET_BYTES = 200 * 1024
IMPORTED = (
    "headgate.cli.run",
    "headgate.control.control_main",
    "headgate.gateway.worker",
    "uvloop",
    "tests.control.echo_worker",
)


class Process:
    """The part of `subprocess.Popen` that tests use, for a process that a nursery has forked."""

    def __init__(self, pid: int, life: socket.socket, stderr: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stderr = os.fdopen(stderr)
        self._life = life
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        return self._hear(0.0)

    def wait(self, timeout: float | None = None) -> int:
        status = self._hear(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return status

    def _hear(self, timeout_s: float | None) -> int | None:
        with self._lock:
            if self.returncode is None:
                self._life.settimeout(timeout_s)
                with contextlib.suppress(BlockingIOError, TimeoutError):
                    said = self._life.recv(64)
                    assert said, "the nursery has died"
                    self.returncode = os.waitstatus_to_exitcode(int(said))
                    self._life.close()
            return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class Nursery:
    def __init__(self, env: Mapping[str, str]) -> None:
        self._lock = threading.Lock()
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # -P: the folder that pytest was called in is not where a user's gateway imports from.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, "--channel", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=env,
                start_new_session=True,
            )
        atexit.register(self.close)

    def close(self) -> None:
        self._sock.close()
        self._process.wait(20)

    def start(
        self, module: str, words: Sequence[str], *, cwd: Path, env: Mapping[str, str]
    ) -> Process:
        """`python -m module words...`, with its standard error in a pipe."""
        order = json.dumps({"module": module, "words": words, "cwd": str(cwd), "env": dict(env)})
        life, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        read, write = os.pipe()
        with theirs:
            try:
                with self._lock:
                    socket.send_fds(self._sock, [order.encode()], [theirs.fileno(), 1, write])
            finally:
                os.close(write)
        life.settimeout(60)
        said = life.recv(64)
        assert said, "the nursery has died"
        return Process(int(said), life, read)


@functools.cache
def nursery() -> Nursery:
    from tests.control.running import ENV

    return Nursery(ENV)


# ------------------------------------------------------------------------ in the process itself


def _serve(sock: socket.socket) -> int:
    for module in IMPORTED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    lives: dict[int, socket.socket] = {}
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is woken:
                    with contextlib.suppress(BlockingIOError):
                        woken.recv(4096)
                    _reap(lives)
                elif not _take_order(sock, lives):
                    # pytest has gone, perhaps in the middle of a test: nobody will end these.
                    for pid in lives:
                        os.kill(pid, signal.SIGKILL)
                    return 0


def _take_order(sock: socket.socket, lives: dict[int, socket.socket]) -> bool:
    data, fds, _flags, _address = socket.recv_fds(sock, PACKET_BYTES, 3, socket.MSG_CMSG_CLOEXEC)
    if not data:
        return False
    life = socket.socket(fileno=fds[0])
    pid = os.fork()
    if pid == 0:
        run_to_the_end(lambda: _be(json.loads(data), out=fds[1], err=fds[2]))
    for fd in fds[1:]:
        os.close(fd)
    lives[pid] = life
    life.send(b"%d" % pid)
    return True


def _reap(lives: dict[int, socket.socket]) -> None:
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            life = lives.pop(ended[0], None)
            if life is not None:
                with contextlib.suppress(OSError):
                    life.send(b"%d" % ended[1])
                life.close()


def _be(order: dict[str, object], *, out: int, err: int) -> int:
    """Be `python -m module words...`."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(out, 1)
    os.dup2(err, 2)
    for fd in {int(name) for name in os.listdir("/proc/self/fd")} - {0, 1, 2}:
        with contextlib.suppress(OSError):
            os.close(fd)
    os.chdir(str(order["cwd"]))
    os.environ.clear()
    os.environ.update(order["env"])  # type: ignore[call-overload]
    sys.argv[1:] = order["words"]  # type: ignore[call-overload]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*found in sys.modules.*")
        runpy.run_module(str(order["module"]), run_name="__main__", alter_sys=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--channel", type=int, required=True)
    options = parser.parse_args()
    os.set_inheritable(options.channel, False)
    return _serve(socket.socket(fileno=options.channel))


if __name__ == "__main__":
    sys.exit(main())

"""A process that has imported what its copies need, and is copied when one is wanted.

Theory of operation
-------------------
What a worker imports takes a second of a core and some fifty megabytes, and it is the same for each
of them. So one process imports it once, does nothing else, and forks on the supervisor's demand:
the copy runs after some milliseconds and shares the pages that neither writes to.

    `headgate run`         has imported the models to check the file; it leaves a copy of itself
                           behind before it reads the file (`fork_template`), and becomes the
                           supervisor. The copy imports the rest meanwhile.
    afterwards             a fresh interpreter: at an upgrade in place, which wants the new code,
                           and when the template has died

A fork is harmless when nothing lives that a fork breaks. The template has one thread and no loop,
opens no file, reads no configuration and loads no plugin; it logs nothing. Where that does not hold
`fork_template` makes none. Objects made by imports are frozen, so that no
collection of a copy touches them. Python, OpenSSL and `random` see to it themselves that copies do
not draw the same numbers.

A copy is a grandchild whose parent has ended, and the supervisor adopts such orphans
(PR_SET_CHILD_SUBREAPER): SIGCHLD, waitpid and the request to die with the parent are for it as for
any child. It does not go on before it has been adopted. Its end of the channel comes as a
descriptor beside the order. What is said is one packet each:

                                           ->  {} when all is imported | {"failed"}
    {"role", "arguments", "lent"} + descriptors  ->  {"pid"} | {"failed"}

`lent` are the names under which the copy is told of the descriptors.

The supervisor waits for the answer, which comes within milliseconds, at most `ANSWER_S`; a template
that is slower is ended. Whenever there is none that is ready, children are fresh interpreters as if
there were no template: nothing depends on it but time and memory (`template_seat`).
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import gc
import importlib
import json
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn, Self

from headgate.control.children import MODULES, adopt_orphans, die_with_parent, name_process
from headgate.control.service_manager import raise_descriptor_limit

__all__ = ["PACKET_BYTES", "READY", "fork_template", "main", "pair", "run_to_the_end"]

PACKET_BYTES: Final = 64 * 1024
FDS_MAX: Final = 8
READY: Final = b"{}"
EX_SOFTWARE: Final = 70
# What only control needs is not among these: it would be in every worker's memory.
_SHARED: Final = (
    "headgate.control.worker_main",
    "headgate.gateway.worker",
    "uvloop",
    # What the worker itself loads when it is needed, so that a sidecar may do without.
    "headgate.config",
    "headgate.gateway.identity_key",
    "headgate.wire.certificates",
    "dns.asyncresolver",
)


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def fork_template() -> dict[str, int] | None:
    """Leave a copy of this process behind as template: its pid, and the descriptor by which whoever
    we become reaches it. None when a fork would not be harmless.

    To be called before anything is read that a worker need not know.
    """
    if not _may_fork() or not adopt_orphans():
        return None
    gc.freeze()
    ours, theirs = pair()
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        pid = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        return None
    if pid == 0:
        run_to_the_end(lambda: _live(theirs, parent))
    theirs.close()
    ours.set_inheritable(True)
    return {"pid": pid, "fd": ours.detach()}


def _may_fork() -> bool:
    """One thread, and nothing imported from where the command happened to be called."""
    return _is_alone() and (sys.flags.safe_path or not _came_from(sys.path[0]))


def _is_alone() -> bool:
    """Whether we have one thread, also among those that Python does not know of."""
    try:
        return len(list(Path("/proc/self/task").iterdir())) == 1
    except OSError:
        return False  # nobody can tell


def _came_from(entry: str) -> bool:
    """Whether a module was imported from this entry of the search path, which -P would leave
    out.
    """
    folder = Path(entry).absolute()
    for name, module in tuple(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is None or "." in name or name == "__main__":
            continue
        path = Path(file).absolute()
        if (path.parent.parent if path.stem == "__init__" else path.parent) == folder:
            return True
    return False


def _live(sock: socket.socket, parent: int) -> int:
    try:
        return _be_template(sock, parent)
    except ConnectionError:
        return 0  # whoever would ask has gone, perhaps because the file was refused


def _be_template(sock: socket.socket, parent: int) -> int:
    die_with_parent(parent)
    name_process("headgate-t")
    _part(sock)
    raise_descriptor_limit()
    gc.disable()  # what is imported stays
    try:
        for module in _SHARED:
            importlib.import_module(module)
        if not _is_alone():
            raise RuntimeError("a module that workers need has started a thread at its import")
    except Exception as error:
        sock.send(json.dumps({"failed": f"{type(error).__name__}: {error}"}).encode())
        raise
    gc.collect()
    gc.freeze()
    gc.enable()
    sock.send(READY)
    return _Template(sock, parent).serve()


def _part(sock: socket.socket) -> None:
    """Hold nothing of the process that we were forked from but its output."""
    if os.getpgid(0) != os.getpid():
        os.setpgid(0, 0)
    if not sys.flags.safe_path and sys.path:
        del sys.path[0]  # as -P does: where the command was called is no place to import from
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for fd in {int(entry.name) for entry in Path("/proc/self/fd").iterdir()} - {
        0,
        1,
        2,
        sock.fileno(),
    }:
        with contextlib.suppress(OSError):
            os.close(fd)


class _Template:
    def __init__(self, sock: socket.socket, parent: int) -> None:
        self._sock = sock
        self._parent = parent

    def serve(self) -> int:
        while True:
            data, fds, _flags, _address = socket.recv_fds(
                self._sock, PACKET_BYTES, FDS_MAX, socket.MSG_CMSG_CLOEXEC
            )
            if not data:
                return 0  # the supervisor has gone, or wants another one
            try:
                answer: dict[str, Any] = {"pid": self._copy(json.loads(data), fds)}
            except OSError as error:
                answer = {"failed": str(error)}
            finally:
                for fd in fds:
                    os.close(fd)
            self._sock.send(json.dumps(answer).encode())

    def _copy(self, order: dict[str, Any], fds: list[int]) -> int:
        """A copy of us that is a child of our parent; its pid."""
        said, say = os.pipe()
        may_go, go = os.pipe()
        with _Closing(said, say, may_go, go) as pipes:
            between = os.fork()
            if between == 0:
                run_to_the_end(lambda: self._come_between(order, fds, say, may_go, pipes))
            pipes.close(say)
            pid = os.read(said, 32)
            os.waitpid(between, 0)
            if not pid:
                raise OSError("no copy could be made")
            return int(pid)
        # From here on the copy may go: it is the supervisor's.

    def _come_between(
        self, order: dict[str, Any], fds: list[int], say: int, may_go: int, pipes: _Closing
    ) -> int:
        pid = os.fork()
        if pid:
            os.write(say, b"%d" % pid)
            os._exit(0)
        for fd in pipes.fds - {may_go}:
            pipes.close(fd)
        os.read(may_go, 1)
        pipes.close(may_go)
        self._sock.close()
        if os.getppid() != self._parent:
            return 1
        os.setpgid(0, 0)
        arguments = ["--parent", str(self._parent), *order["arguments"]]
        for name, fd in zip(order["lent"], fds, strict=True):
            arguments += [f"--{name}", str(fd)]
        status: int = importlib.import_module(MODULES[order["role"]]).main(arguments)
        return status


class _Closing:
    """Descriptors that are closed at the end, each of them once."""

    def __init__(self, *fds: int) -> None:
        self.fds = set(fds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        for fd in tuple(self.fds):
            self.close(fd)

    def close(self, fd: int) -> None:
        self.fds.discard(fd)
        os.close(fd)


def run_to_the_end(work: Callable[[], int]) -> NoReturn:
    """Run `work` in a process that has just been forked, and never return to what it was before.

    Everything that an interpreter does at its end is done but to take its memory to pieces.
    """
    status = EX_SOFTWARE
    try:
        try:
            status = work()
        except SystemExit as ended:
            if ended.code is None or isinstance(ended.code, int):
                status = ended.code or 0
            else:
                print(ended.code, file=sys.stderr)  # noqa: T201  as an interpreter does
                status = 1
        except BaseException:  # noqa: BLE001  it would end an interpreter
            traceback.print_exc()
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001  as multiprocessing does
        atexit._run_exitfuncs()  # noqa: SLF001
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="headgate.control.template")
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args(arguments)
    os.set_inheritable(options.channel, False)
    return _live(socket.socket(fileno=options.channel), options.parent)


if __name__ == "__main__":
    sys.exit(main())

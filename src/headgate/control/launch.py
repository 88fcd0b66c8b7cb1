"""What a supervisor is started with, and how it hands itself over to new code.

Theory of operation
-------------------
A supervisor always starts by exec, with everything it must know in a memfd: an anonymous file
in memory, because the document holds secrets and must not touch the disk. `headgate run` checks
the file, writes a `Launch` without processes and execs: the parser, the models and the terminal
library of the command are gone from the process that will live for months. An upgrade in place
writes a `Launch` with the open sockets and the living children and execs the same way, so that
the first start and the hundredth upgrade take one path. The pid stays what it was, so children
remain children and a service manager notices nothing.

`Outline` is the little that the supervisor must understand of a document. The document itself
is opaque to it: it comes from control, or from `headgate run`, and goes to workers.
"""

from __future__ import annotations

import json
import math
import os
import struct
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from headgate.control.listening import Endpoint
from headgate.control.redaction import brought_in
from headgate.errors import HeadgateError

if TYPE_CHECKING:
    from headgate.config.loader import Loaded

__all__ = ["DEFAULT_WORKER", "HandoverUnreadable", "Launch", "Outline", "exec_supervisor"]

FORMAT = 1
DEFAULT_WORKER = "headgate.gateway.worker:Worker"
_LENGTH = struct.Struct("!Q")


class HandoverUnreadable(HeadgateError):
    """The state that another version of the supervisor left is not one this version knows."""


@dataclass(frozen=True, slots=True)
class Outline:
    """What the supervisor reads of a configuration."""

    listeners: tuple[Endpoint, ...]
    workers: int
    drain_s: float
    admin: str | None  # bind of the admin API; None when it is off
    files: tuple[str, ...] = ()  # what the document was read from, for the watch
    hidden: tuple[tuple[str, str], ...] = ()  # values that references brought in, and which
    state_dir: str = ""  # what the file said of it when the run began; "" is not known
    watchdog_s: float = 30.0  # how long a worker may give no sign of life; 0 is for ever

    @classmethod
    def of(cls, loaded: Loaded, workers: int | None = None) -> Outline:
        config = loaded.config
        count = workers
        if count is None:
            count = worker_count() if config.workers == "auto" else config.workers
        # Workers read it too: whoever is alone needs no shared home for its limits.
        loaded.document["workers"] = count
        return cls(
            listeners=tuple(Endpoint(spec.bind, spec.mode) for spec in config.listeners),
            workers=count,
            drain_s=config.drain,
            admin=None if config.admin.bind == "off" else config.admin.bind,
            files=tuple(str(path) for path in loaded.files),
            hidden=brought_in(loaded.files, kept=loaded.hidden),
            state_dir=config.state_dir or "",
            watchdog_s=config.watchdog,
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Outline:
        return cls(
            listeners=tuple(Endpoint(**endpoint) for endpoint in content["listeners"]),
            workers=content["workers"],
            drain_s=content["drain_s"],
            admin=content["admin"],
            files=tuple(content["files"]),
            hidden=tuple((value, reference) for value, reference in content["hidden"]),
            # Code that is older than these does not say them.
            state_dir=content.get("state_dir", ""),
            watchdog_s=content.get("watchdog_s", 30.0),
        )


@dataclass(slots=True)
class Launch:
    """Everything a supervisor starts from."""

    config_file: str
    state_dir: str
    outline: Outline
    document: bytes = b""
    workers: int | None = None  # --workers; None: the file says
    watch: bool | None = None  # --watch; None: the file says
    worker_class: str = DEFAULT_WORKER
    template: dict[str, int] | None = None  # the process that the command left behind (`template`)
    # Only after an upgrade in place:
    incarnation: int = 0
    running: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Of the configuration: plugins may lie there."""
        path = Path(self.config_file)
        return str(path if path.is_dir() else path.parent)

    def to_memfd(self) -> int:
        head = {
            "format": FORMAT,
            "config_file": self.config_file,
            "state_dir": self.state_dir,
            "outline": self.outline.to_json(),
            "workers": self.workers,
            "watch": self.watch,
            "worker_class": self.worker_class,
            "template": self.template,
            "incarnation": self.incarnation,
            "running": self.running,
        }
        encoded = json.dumps(head).encode()
        fd = os.memfd_create("headgate-launch", 0)  # inherited by exec
        view = memoryview(_LENGTH.pack(len(encoded)) + encoded + self.document)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    @classmethod
    def from_memfd(cls, fd: int) -> Launch:
        # By pread: during an upgrade a trial process reads the same open file as the successor.
        content = bytearray()
        while chunk := os.pread(fd, 1 << 20, len(content)):
            content += chunk
        try:
            (length,) = _LENGTH.unpack_from(content)
            end = _LENGTH.size + length
            head = json.loads(content[_LENGTH.size : end])
            if head.pop("format") != FORMAT:
                raise HandoverUnreadable("the running supervisor's state has another format")
            head["outline"] = Outline.from_json(head["outline"])
            return cls(document=bytes(content[end:]), **head)
        except (struct.error, ValueError, KeyError, TypeError) as error:
            raise HandoverUnreadable(f"the supervisor's state cannot be read: {error}") from error


def exec_supervisor(state_fd: int) -> NoReturn:
    """Become the supervisor. Raises OSError when the interpreter cannot be started."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, python("headgate.control.supervisor", "--state", str(state_fd)))  # noqa: S606


def python(module: str, *arguments: str) -> list[str]:
    """A command line of our own interpreter.

    -P: the directory that a gateway happens to be started in is no place to import from.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def worker_count(cgroup: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """One a core that we may use: the affinity mask, cut to the CPU quota of the container."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = cgroup.read_text().split()
        if quota != "max":
            cores = min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        pass  # no such group, or version 1 of it: the mask is what there is
    return max(1, cores)

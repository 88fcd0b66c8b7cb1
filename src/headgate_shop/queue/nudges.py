"""Processes on one machine wake each other through named pipes in a folder.

Each listener has a pipe, `GROUP.PID.RANDOM`, that nobody else reads; a nudge is one byte into each
pipe of the group. Nothing polls, and a nudge that goes astray costs no message: consumers look by
themselves now and then. Pipes and not sockets, for the path of a socket may have 107 characters.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path

__all__ = ["Nudges"]


class Nudges:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pipes: dict[Path, int] = {}

    def listen(self, group: str, told: Callable[[str], None]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        # Processes in containers may have the same pid.
        name = f"{group}.{os.getpid()}.{secrets.token_hex(4)}"
        hidden, path = self._folder / f".{name}", self._folder / name
        hidden.unlink(missing_ok=True)
        os.mkfifo(hidden, 0o600)
        # Open for writing too: without a writer a pipe would be readable, and at its end, for ever.
        pipe = os.open(hidden, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        # Only now by its name: a pipe that nobody reads is removed by whoever comes upon it.
        hidden.rename(path)
        self._pipes[path] = pipe

        def readable() -> None:
            with contextlib.suppress(BlockingIOError):
                os.read(pipe, 4096)
            told(group)

        asyncio.get_running_loop().add_reader(pipe, readable)

    def close(self) -> None:
        pipes, self._pipes = self._pipes, {}
        for path, pipe in pipes.items():
            asyncio.get_running_loop().remove_reader(pipe)
            path.unlink(missing_ok=True)
            os.close(pipe)

    def send(self, groups: Iterable[str]) -> None:
        """Wake whoever listens for these groups. From any thread; never waits."""
        wanted = set(groups)
        try:
            names = [path.name for path in self._folder.iterdir()]
        except OSError:
            return
        for name in names:
            if name.startswith(".") or name.rsplit(".", 2)[0] not in wanted:
                continue
            path = self._folder / name
            try:
                pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                if error.errno == errno.ENXIO:  # its process was killed
                    path.unlink(missing_ok=True)
                continue
            try:
                os.write(pipe, b"\0")
            except OSError:
                pass  # full: it is awake
            finally:
                os.close(pipe)

"""What the registry said last, in a file: a process that starts while control is away can call.

Theory of operation. The file is written whole or not at all, from a thread, at most once a second
and once at the end. One that cannot be read is moved aside, said in the log, and begun anew; one
that cannot be written is said once, and the calls go on.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Final

from headgate.mesh.client.known import Known
from headgate.security.whole_file import write_whole

__all__ = ["Keeper"]

log: Final = logging.getLogger("headgate.mesh")


class Keeper:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_due = False
        self._has_complained = False

    def load(self) -> Known:
        try:
            return Known.of_json(json.loads(self.path.read_bytes()))
        except FileNotFoundError:
            return Known()
        except (OSError, RecursionError) as error:
            log.warning("%s cannot be read, so nothing is known at first: %s", self.path, error)
            return Known()
        except ValueError as error:
            aside = self.path.with_name(self.path.name + ".bad")
            log.warning("%s %s; it is moved to %s", self.path, error, aside.name)
            try:
                self.path.replace(aside)
            except OSError as trouble:
                log.warning("%s cannot be moved: %s", self.path, trouble)
            return Known()

    async def keep(self, known: Known) -> None:
        """Write it if something has changed, without holding up the loop."""
        if not self.is_due:
            return
        self.is_due = False
        content = json.dumps(known.to_json(), separators=(",", ":"))
        await asyncio.to_thread(self._write, content)

    def write(self, known: Known) -> None:
        """Write it now, if something has changed."""
        if self.is_due:
            self.is_due = False
            self._write(json.dumps(known.to_json(), separators=(",", ":")))

    def _write(self, content: str) -> None:
        try:
            write_whole(self.path, content.encode())
        except OSError as error:
            if not self._has_complained:
                self._has_complained = True
                log.warning("%s cannot be written: %s", self.path, error)
        else:
            self._has_complained = False

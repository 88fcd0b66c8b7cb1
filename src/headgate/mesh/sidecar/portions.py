"""Where a sidecar has from what it goes by: control or a file, and the last that was good.

Theory of operation. What was taken up last is kept in the state directory, readable by its owner
alone, so that a sidecar starts while control is away. Control is asked with the tag of what is
known, and answers when there is something else, or after a while with a few bytes. A file is read
again on SIGHUP.
What cannot be had, or is refused by the worker, is said once and changes nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from headgate.errors import HeadgateError
from headgate.mesh.client.failures import ControlAway
from headgate.mesh.sidecar.children import ChildFailed, ask_child
from headgate.security.whole_file import write_whole

if TYPE_CHECKING:
    from headgate.mesh.client.control import Control
    from headgate.mesh.sidecar.document import Portion

__all__ = ["NoPortion", "Portions"]

log: Final = logging.getLogger("headgate.sidecar")

_FORMAT: Final = 1
_PATIENCE_S: Final = 10.0
_LARGEST: Final = 32 * 1024 * 1024


class NoPortion(HeadgateError):
    """There is nothing to go by: the text says why."""


class Portions:
    def __init__(self, control: Control | None, file: str, state_dir: Path) -> None:
        self._control = control
        self._file = file
        self._kept = state_dir / "portion.json"
        self._tag = ""
        self._said = ""

    @property
    def is_polled(self) -> bool:
        return not self._file and self._control is not None

    async def first(self) -> Portion:
        """To begin with. Raises NoPortion."""
        try:
            found = await self.fresh()
        except NoPortion as error:
            kept = self._read_kept()
            if kept is None:
                raise
            log.warning("%s; what was known last is gone by", error)
            return kept
        if found is None:
            raise NoPortion("nothing says which services there are: give a FILE, or --control")
        return found

    async def fresh(self, wait_s: float = 0.0) -> Portion | None:
        """What holds now; None where it is what was answered last. Raises NoPortion. Control is
        given `wait_s` to say that it has changed.
        """
        if self._file:
            return await self._of_file()
        return await self._of_control(wait_s) if self._control is not None else None

    def again(self) -> None:
        """What was told last could not be taken up, by no fault of its own: be told again."""
        self._tag = ""

    async def _of_file(self) -> Portion:
        try:
            answer = await ask_child("headgate.mesh.sidecar.reading", {"file": self._file})
        except (ChildFailed, OSError) as error:
            raise NoPortion(f"{self._file} cannot be read: {error}") from None
        if "faults" in answer:
            raise NoPortion("\n".join(answer["faults"]))
        found: Portion = answer["portion"]
        return found

    async def _of_control(self, wait_s: float) -> Portion | None:
        control = self._control
        if control is None:
            return None
        # The tag is a part of the address: a client of ours sends no conditions.
        path = f"/api/mesh/sidecar?known={quote(self._tag, safe='')}&wait={wait_s:g}"
        try:
            answer = await control.ask("GET", path, timeout_s=wait_s + _PATIENCE_S)
        except ControlAway as error:
            raise NoPortion(f"control is away: {error}") from None
        content = answer.content
        if answer.status != 200 or not isinstance(content, dict) or "tag" not in content:
            raise NoPortion(f"{control.text} does not say: {answer.status} {answer.said}")
        self._tag = str(content["tag"])
        found: Portion | None = content.get("portion")
        return found

    # -- the last good one ---------------------------------------------------------------------

    async def keep(self, portion: Portion) -> None:
        """It serves: go by it also after a new start."""
        text = json.dumps({"format": _FORMAT, "portion": portion}, separators=(",", ":"))
        try:
            await asyncio.to_thread(write_whole, self._kept, text.encode())
        except OSError as error:
            self.say(f"{self._kept} cannot be written: {error.strerror}")

    def _read_kept(self) -> Portion | None:
        try:
            with self._kept.open("rb") as file:
                content = json.loads(file.read(_LARGEST))
            if content["format"] == _FORMAT and isinstance(content["portion"], dict):
                found: Portion = content["portion"]
                return found
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            aside = self._kept.with_name(f"{self._kept.name}.bad")
            log.warning("%s cannot be read (%s) and is moved to %s", self._kept, error, aside.name)
            try:
                self._kept.replace(aside)
            except OSError:
                log.warning("%s cannot be moved", self._kept)
        return None

    def say(self, why: str) -> None:
        """A trouble, once for as long as it lasts."""
        if why and why != self._said:
            log.warning("%s", why)
        self._said = why

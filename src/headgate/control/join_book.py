"""The book of join tokens and denials: one change at a time, on the disk, and shared by Redis.

Theory of operation
-------------------
A change is made in memory, written, and taken back if that fails; only then does whoever asked for
it hear of it. The write goes on a thread. A request that is given up leaves its thread behind, so
writes carry a number, and a late one does not undo what came after it.

A book that cannot be read is moved aside and told: its tokens are void, and so, which an operator
must know, are its denials.

Where the registry has a Redis, several control processes have one book (`join_shared`). Every
change begins with what is there, and is made again when another was faster; the file is a copy of
it, and renewals are judged by what was read in the last `REFRESH_S`.

    Redis is away       nobody joins, and no token is made: it might be used twice. Renewals go on.
                        Who is denied here is denied here at once, and for all when it is back.
    it has lost its     the controls put together what each of them knows: of two tokens that are
    memory, or is new   the same the one that is used up further counts
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from headgate.errors import HeadgateError
from headgate.mesh.identity.joining import Denial, JoinBook, JoinToken, Kind
from headgate.mesh.identity.refusals import IdentityRefused
from headgate.security.service_identity.rules import IdentityRules
from headgate.security.whole_file import write_whole

if TYPE_CHECKING:
    from headgate.control.join_shared import Found, SharedBook

__all__ = ["FILE", "KeptBook"]

FILE: Final = "joining.json"
REFRESH_S: Final = 2.0
_LARGEST: Final = 64 * 1024 * 1024
_TRIES: Final = 20
_LOOK_S: Final = 0.1
"""Strangers may show what they like; Redis is not asked for each."""
_AWAY: Final = "the book of join tokens cannot be asked just now; try again"
"""Strangers read this: it names no place."""
_SPOILT: Final = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
T = TypeVar("T")

log = logging.getLogger("headgate.control.authority")


class KeptBook:
    def __init__(self, folder: Path, rules: IdentityRules) -> None:
        """Reads what is there; it blocks for that."""
        self._folder = folder
        self._bounds = (rules.tokens, rules.denials)
        self.book = JoinBook(*self._bounds)
        self.trouble = ""
        self._one_by_one = asyncio.Lock()
        self._on_disk = threading.Lock()
        self._number = 0
        self._written = 0
        self._url = ""
        self._shared: SharedBook | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._mark = ""
        """Of the shared book that ours is a copy of."""
        self._read_number = 0
        self._owed: set[tuple[Kind, str]] = set()
        """Denied while Redis was away."""
        self._spoilt = ""
        self._is_behind = False
        """The file is."""
        self._look_at = 0.0
        self._read()

    @property
    def worry(self) -> str:
        """Why nobody can join; empty if they can."""
        if self._spoilt:
            return self._spoilt
        if self._shared is not None and self._shared.away:
            place, why = self._shared.place, self._shared.away
            return f"join tokens are kept in {place}, which is away ({why}): nobody can join"
        return ""

    async def change(self, act: Callable[[JoinBook], T], *, without_redis: bool = False) -> T:
        """Change the book by `act`, which may be called more than once. It is written at the end,
        or was never made. `without_redis`: a denial, which holds here though Redis is away.

        Raises IdentityRefused.
        """
        async with self._one_by_one:
            for _ in range(_TRIES):
                found = await self._catch_up()
                if self._shared is not None and found is None and not without_redis:
                    raise IdentityRefused("unavailable", _AWAY, 5.0)
                before = self.book.copy()
                try:
                    got = act(self.book)
                    if self.book.is_like(before):
                        return got
                    if found is not None and not await self._offer(found):
                        self.book.take(before)
                        continue
                except BaseException:
                    self.book.take(before)
                    raise
                if self._shared is not None and found is None and isinstance(got, Denial):
                    self._owed.add((got.kind, got.what))
                await self._keep_or_take(before, is_shared=found is not None)
                return got
        raise IdentityRefused("unavailable", "others change the join tokens too; try again", 0.5)

    async def _keep_or_take(self, before: JoinBook, *, is_shared: bool) -> None:
        """Write a change down. What cannot be written was never made, but where Redis has it: then
        the file is behind, and nothing else.
        """
        try:
            await self._keep()
        except OSError as error:
            if is_shared:
                return
            self.book.take(before)
            why = (error.strerror or "unknown").lower()
            raise IdentityRefused(
                "unavailable", f"{self._folder / FILE} cannot be written: {why}", 5.0
            ) from error
        except BaseException:
            if not is_shared:
                self.book.take(before)
            raise

    # -- shared ----------------------------------------------------------------------------------

    async def follow(self, url: str) -> None:
        """Share the book by this Redis from now on; "": it is ours alone."""
        if url == self._url:
            return
        await self.close()
        self._url = url
        if not url:
            return
        from headgate.control.join_shared import SharedBook

        try:
            self._shared = SharedBook(url)
        except HeadgateError as error:
            self._spoilt = f"join tokens are of this process alone: {error}"
            log.warning("%s", self._spoilt)
            return
        await self._refresh()
        loop = asyncio.get_running_loop()
        self._refreshing = loop.create_task(self._keep_fresh(), name="join tokens")

    async def close(self) -> None:
        task, self._refreshing = self._refreshing, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        shared, self._shared = self._shared, None
        self._url = self._spoilt = ""
        if shared is not None:
            await shared.close()

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self._refresh()
            except Exception:
                log.exception("the shared join tokens could not be looked at")

    async def find(self, token: str, wall: float) -> JoinToken:
        """Whose token this is. One that is not known may have been made elsewhere just now. Raises
        IdentityRefused.
        """
        try:
            return self.book.find(token, wall)
        except IdentityRefused:
            now = time.monotonic()
            if self._shared is None or now < self._look_at:
                raise
            self._look_at = now + _LOOK_S
        await self._refresh()
        return self.book.find(token, wall)

    async def _refresh(self) -> None:
        async with self._one_by_one:
            await self._catch_up()
            if self._is_behind:
                with contextlib.suppress(OSError):
                    await self._keep()

    async def _catch_up(self) -> Found | None:
        """Have the book as it is in Redis; None where it is ours alone, or Redis is away."""
        shared = self._shared
        if shared is None:
            return None
        for _ in range(_TRIES):
            found = await shared.read(self._mark, self._read_number)
            if found is None:
                return None
            if found.text is None and not self._owed:
                return found
            theirs = JoinBook(*self._bounds)
            try:
                if found.text:
                    theirs.take_json(json.loads(found.text))
                elif found.text is None:
                    theirs.take(self.book)
            except _SPOILT:
                self._spoilt = f"the join tokens in {shared.place} are spoilt: nobody can join"
                return None
            self._spoilt = ""
            as_found = theirs.copy()
            if found.mark != self._mark or not found.mark:
                theirs.merge(self.book)
            for denial in self.book.denials():
                if (denial.kind, denial.what) in self._owed:
                    theirs.put(denial)
            if not self.book.is_like(theirs) or self._owed or found.mark != self._mark:
                self._is_behind = True
            self.book.take(theirs)
            if found.mark and theirs.is_like(as_found):
                self._mark, self._read_number = found.mark, found.number
                self._owed.clear()
                return found
            if await self._offer(found):
                self._owed.clear()
        return None

    async def _offer(self, found: Found) -> bool:
        """Write the book over what was found; False if it is another by now, or Redis has gone."""
        shared = self._shared
        if shared is None:
            return False
        mark = found.mark or secrets.token_hex(8)
        number = await shared.write(found, mark, json.dumps(self.book.to_json()))
        if not number:
            return False
        self._mark, self._read_number = mark, number
        return True

    # -- on the disk -----------------------------------------------------------------------------

    def _read(self) -> None:
        path = self._folder / FILE
        try:
            with path.open("rb") as file:
                said = json.loads(file.read(_LARGEST))
            self.book.take_json(said)
            self._mark = str(said.get("mark", ""))
            self._owed = {(kind, what) for kind, what in said.get("owed", ())}
        except FileNotFoundError:
            return
        except OSError as error:
            self.trouble = f"{path} cannot be read ({error.strerror}); its tokens are refused"
        except _SPOILT:
            aside = path.with_name(f"{FILE}.spoilt")
            with contextlib.suppress(OSError):
                path.replace(aside)
            self.trouble = (
                f"{path} is spoilt and was moved to {aside.name}: its join tokens are void, and so "
                "is what was denied; deny it again"
            )

    async def _keep(self) -> None:
        """Raises OSError."""
        self._number += 1
        said: dict[str, Any] = {"mark": self._mark, "owed": sorted(self._owed)}
        self._is_behind = False
        try:
            await asyncio.to_thread(self._put, self._number, self.book.copy(), said)
        except BaseException:
            self._is_behind = True
            raise

    def _put(self, number: int, book: JoinBook, said: dict[str, Any]) -> None:
        content = json.dumps({**book.to_json(), **said}, separators=(",", ":")).encode()
        with self._on_disk:
            if number > self._written:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_whole(self._folder / FILE, content)
                self._written = number

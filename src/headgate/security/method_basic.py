"""User name and password as a method of authentication (RFC 7617).

Theory of operation
-------------------
    header -> user and password -> remembered? -> Verified
                                      | no
                           one check in a thread for equal credentials -> remembered for a while

A check costs tens of milliseconds and of megabytes, so it runs in threads of its own: `checks` at
a time, `waiting` more in line, and 503 beyond that. One address may hold a quarter of the line, so
that who guesses does not keep out who knows; and whoever was remembered needs no place in it.

What is remembered is HMAC-SHA256 of user and password under a key that lives in this process
alone. So the memory holds no password, and nothing in it can be tried elsewhere. It is emptied
when the users change. Only successes are remembered.

What an editor must not break: the same work for a user that nobody knows; requests that wait for
one check are each free to go (the check is shielded and ends by itself).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from headgate.security.line import Line
from headgate.security.method import (
    Finding,
    Method,
    Parts,
    Refused,
    Shown,
    Strips,
    Verified,
    headers,
)
from headgate.security.passwords import (
    LONGEST_PASSWORD,
    LONGEST_USER,
    BasicRules,
    User,
    matches,
    read_user_file,
    stand_in,
)
from headgate.security.watched_file import WatchedFile


@dataclass(frozen=True, slots=True)
class _Check:
    """One check under way, and whose hash it is against: users may change meanwhile."""

    running: asyncio.Future[bool]
    user: User | None
    generation: int


_MALFORMED: Final = Refused("malformed", "The Authorization header is not that of Basic.")
_SEVERAL: Final = Refused("ambiguous", "This request has more than one Authorization header.")
_WRONG: Final = Refused("bad_password", "User name or password is wrong.")
_SLEW_S: Final = 5.0  # how far a clock that is being set right may seem to go back
_BUSY: Final = Refused("busy", "Too many log-ins at once; try again.", status=503)


class BasicMethod(Method):
    """The users of one entry."""

    def __init__(
        self, rules: BasicRules, inline: Mapping[str, User] | None = None, file: str = ""
    ) -> None:
        """Read the file; ValueError says what is wrong with it."""
        self.name = rules.name
        self.challenge = f'Basic realm="{rules.realm}", charset="UTF-8"'
        self.strips = Strips(headers=frozenset({b"authorization"}))
        self._rules = rules
        self._inline = dict(inline or {})
        self._secret = secrets.token_bytes(32)
        self._random = secrets.token_bytes(48)
        self._remembered: OrderedDict[bytes, tuple[Verified, float]] = OrderedDict()
        self._running: dict[bytes, _Check] = {}
        self._line = Line(rules.checks + rules.waiting)
        self._threads: ThreadPoolExecutor | None = None
        self.checked = 0
        """How many passwords were checked against a hash."""
        self._file: WatchedFile[dict[str, User]] | None = None
        loaded: dict[str, User] = {}
        if file:
            self._file = WatchedFile(file, self._read)
            loaded = self._file.load()
        self._set(loaded)

    def verify(self, shown: Shown, wall: float) -> Finding | Awaitable[Finding]:
        found = headers(shown, b"authorization")
        if not found or not any(_is_basic(value) for value in found):
            return None
        if len(found) > 1:
            return _SEVERAL
        pair = _parse(found[0])
        if pair is None:
            return _MALFORMED
        name, password = pair
        tag = hmac.digest(self._secret, name.encode() + b"\0" + password, "sha256")
        kept = self._remembered.get(tag)
        if kept is not None:
            # Also refused: one from the future, after the clock was set back.
            if 0 < kept[1] - wall <= self._rules.remember_s + _SLEW_S:
                self._remembered.move_to_end(tag)
                return kept[0]
            del self._remembered[tag]
        check = self._running.get(tag)
        if check is None:
            place = self._line.take(shown.client_ip)
            if place is None:
                return _BUSY
            check = self._begin(tag, name, password, place)
        return self._outcome(check, tag, name, wall)

    def start(self, parts: Parts) -> None:
        if self._file is not None:
            self._file.start(parts, self._take)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._threads is not None:
            # Requests that came before a reload still wait for their answers; a new one makes
            # threads of its own, which end with this object.
            self._threads.shutdown(wait=False)
            self._threads = None
        self._remembered.clear()

    def snapshot(self, wall: float) -> dict[str, Any]:
        return {
            "users": len(self._users),
            "remembered": len(self._remembered),
            "checking": len(self._running),
            "checked": self.checked,
            "file": self._file.snapshot() if self._file is not None else None,
        }

    def _begin(self, tag: bytes, name: str, password: bytes, place: object) -> _Check:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._rules.checks, f"headgate-{self.name}")
        user = self._users.get(name)
        kept = user.hash if user is not None else self._nobody
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._threads, matches, kept, password)
        check = self._running[tag] = _Check(running, user, self.generation)
        self.checked += 1

        def end(done: asyncio.Future[bool]) -> None:
            self._running.pop(tag, None)
            self._line.give_back(place)
            if not done.cancelled():
                done.exception()  # seen, if everybody who waited has gone

        running.add_done_callback(end)
        return check

    async def _outcome(self, check: _Check, tag: bytes, name: str, wall: float) -> Finding:
        user = check.user
        try:
            is_right = await asyncio.shield(check.running)
        except (MemoryError, ValueError):
            return _BUSY
        if user is None or user.is_disabled or not is_right:
            return _WRONG
        if check.generation != self.generation:
            # The users have changed meanwhile, maybe this one's password: it holds this once.
            changed = self._users.get(name)
            if changed is None or changed.is_disabled or changed.hash != user.hash:
                return _WRONG
            return Verified(changed.identity, 0.0)
        until = wall + self._rules.remember_s
        verified = Verified(user.identity, until)
        if self._rules.remember_s > 0:
            self._remembered[tag] = (verified, until)
            self._remembered.move_to_end(tag)
            while len(self._remembered) > self._rules.remembered_max:
                self._remembered.popitem(last=False)
        return verified

    def _read(self, content: bytes) -> dict[str, User]:
        loaded = read_user_file(content, self.name)
        both = loaded.keys() & self._inline.keys()
        if both:
            raise ValueError(f"the user {min(both)!r} stands in the configuration as well")
        return loaded

    def _set(self, loaded: Mapping[str, User]) -> None:
        self._users: dict[str, User] = {**self._inline, **loaded}
        self._nobody = stand_in((user.hash for user in self._users.values()), self._random)

    def _take(self, loaded: dict[str, User]) -> None:
        self._set(loaded)
        self._remembered.clear()
        self.generation += 1


def _is_basic(value: bytes) -> bool:
    return value.strip(b" \t")[:6].lower() == b"basic "


def _parse(value: bytes) -> tuple[str, bytes] | None:
    text = value.strip(b" \t")[6:].strip(b" ")
    if len(text) > (LONGEST_USER + LONGEST_PASSWORD) * 4 // 3 + 8:
        return None
    try:
        name, colon, password = base64.b64decode(text, validate=True).partition(b":")
        user = name.decode()
        password.decode()
    except (binascii.Error, ValueError):
        return None
    if not colon or len(name) > LONGEST_USER or len(password) > LONGEST_PASSWORD:
        return None
    # RFC 7617 section 2: neither may hold characters of control.
    if any(byte < 32 or byte == 127 for byte in name + password):
        return None
    return user, password

"""Passwords are hashed in threads: a bounded number at once, a bounded number in line.

Theory of operation. A hash takes tens of milliseconds and 19 MiB on purpose. `threads` run at
once and `waiting` may be in line; beyond, `Busy` is raised before anything was done. A place is
given back when the work has left its thread or its line, whatever became of whoever asked for it:
a caller that goes away cannot make more than `threads` of them run.

With peppers, what is hashed is HMAC-SHA256(pepper, password), and the stored text begins with the
name of the pepper. The first pepper makes new hashes; older ones verify, and are replaced at the
next login, as are hashes without one and hashes made with smaller parameters.

To verify the password of nobody, `nobody` is verified against: the same work, never the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from headgate.security.accounts.errors import Busy
from headgate.security.accounts.rules import HashRules
from headgate.security.accounts.sealing import Secret, secret_bytes

__all__ = ["Hasher", "HasherSnapshot", "Verdict"]

T = TypeVar("T")
MARK: Final = "pepper="


@dataclass(frozen=True, slots=True)
class Verdict:
    is_right: bool
    is_stale: bool = False
    """Right, and to be hashed again with today's parameters."""


@dataclass(frozen=True, slots=True)
class HasherSnapshot:
    done: int
    """Hashes made or verified."""
    taken: int
    """In a thread or in line."""
    refused: int


class Hasher:
    def __init__(self, rules: HashRules, peppers: Mapping[str, Secret]) -> None:
        for name in peppers:
            if not name or "$" in name or not name.isascii() or len(name) > 32:
                raise ValueError(f"a pepper is named by up to 32 letters and digits, not {name!r}")
        self._peppers = {name: secret_bytes(secret) for name, secret in peppers.items()}
        if any(len(pepper) < 16 for pepper in self._peppers.values()):
            raise ValueError("a pepper must have at least 16 bytes")
        self._newest = next(iter(self._peppers), "")
        self._argon2 = PasswordHasher(
            time_cost=rules.passes,
            memory_cost=rules.memory_kib,
            parallelism=rules.lanes,
            type=Type.ID,
        )
        self._places = rules.threads + rules.waiting
        self._threads = ThreadPoolExecutor(rules.threads, thread_name_prefix="headgate-argon2")
        self._lock = threading.Lock()
        self._taken = 0
        self._done = 0
        self._refused = 0
        self.nobody = self._hash(secrets.token_urlsafe(16))

    async def hash(self, password: str) -> str:
        return await self._run(lambda: self._hash(password))

    async def verify(self, stored: str, password: str) -> Verdict:
        return await self._run(lambda: self._verify(stored, password))

    async def _run(self, work: Callable[[], T]) -> T:
        with self._lock:
            if self._taken >= self._places:
                self._refused += 1
                raise Busy("too many passwords are being checked")
            self._taken += 1
        try:
            future = self._threads.submit(work)
        except BaseException:
            self._gone(None)
            raise
        future.add_done_callback(self._gone)
        # Cancelling takes it out of the line; what runs is left to end, with its place.
        return await asyncio.wrap_future(future)

    def _gone(self, _: Future[T] | None) -> None:
        with self._lock:
            self._taken -= 1

    def _given(self, pepper: str, password: str) -> bytes:
        given = password.encode()
        if not pepper:
            return given
        return hmac.digest(self._peppers[pepper], given, hashlib.sha256)

    def _hash(self, password: str) -> str:
        made = self._argon2.hash(self._given(self._newest, password))
        self._count()
        return f"{MARK}{self._newest}{made}" if self._newest else made

    def _verify(self, stored: str, password: str) -> Verdict:
        pepper, made = self._parted(stored)
        try:
            self._argon2.verify(made, self._given(pepper, password))
        except VerifyMismatchError:
            self._count()
            return Verdict(is_right=False)
        except (VerificationError, InvalidHashError):
            # Nothing was computed: what is stored is no hash of ours. The work is done all the
            # same, and cannot end well.
            pepper, made = self._parted(self.nobody)
            try:
                self._argon2.verify(made, self._given(pepper, password))
            except VerifyMismatchError:
                self._count()
            return Verdict(is_right=False)
        self._count()
        is_stale = pepper != self._newest or self._argon2.check_needs_rehash(made)
        return Verdict(is_right=True, is_stale=is_stale)

    def _parted(self, stored: str) -> tuple[str, str]:
        """The pepper's name and what argon2 knows; with a pepper that is gone, no hash at all."""
        if not stored.startswith(MARK):
            return "", stored
        pepper, dollar, rest = stored[len(MARK) :].partition("$")
        return (pepper, dollar + rest) if pepper in self._peppers else ("", "")

    def _count(self) -> None:
        """One more was really computed."""
        with self._lock:
            self._done += 1

    def snapshot(self) -> HasherSnapshot:
        with self._lock:
            return HasherSnapshot(self._done, self._taken, self._refused)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

"""Asking a Vault from an event loop: few threads, deadlines, retries, a breaker.

Theory of operation
-------------------
hvac blocks, so each request runs on one of `threads` threads. A thread is taken before the
request and given back when the request has really ended, not when its caller has: one who gives up
leaves a request behind that may hang until its time-out, and as many of those as there are threads
make the next caller wait, not a new thread. Waiting counts towards the caller's budget; more than
`MAX_WAITING` are turned away at once.

What a request made although nobody waits for it any more (credentials, above all) is handed to
`orphan`, so that it can be given back.

The breaker counts what is unavailable: away, too slow, sealed. A refusal is an answer. After it
opens, callers hear so at once and may use what they kept; one trial at a time finds out when it is
over.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from headgate.policy.answers import Rejected
from headgate.policy.breaker import Breaker
from headgate.security.secrets.errors import (
    SecretError,
    VaultAway,
    VaultSealed,
    VaultUnavailable,
)
from headgate.security.secrets.vault_session import VaultSession

__all__ = ["Calls"]

Answer = TypeVar("Answer")

MAX_WAITING: Final = 256
_FIRST_PAUSE_S: Final = 0.1

log = logging.getLogger("headgate.secrets")


class Calls:
    """Requests to one Vault."""

    def __init__(self, session: VaultSession, rng: random.Random) -> None:
        rules = session.rules
        self._session = session
        self._rules = rules
        self._rng = rng
        self._pool = ThreadPoolExecutor(rules.threads, thread_name_prefix="headgate-vault")
        self._free = asyncio.Semaphore(rules.threads)
        self._waiting = 0
        self._last: type[VaultUnavailable] = VaultAway
        self.breaker = Breaker("vault", rules.breaker, time.monotonic(), rng)

    async def ask(
        self,
        call: Callable[[Any], Answer],
        what: str,
        *,
        is_safe: bool = True,
        orphan: Callable[[Answer], None] | None = None,
    ) -> Answer:
        """What `call(client)` answers. `is_safe`: it may be asked twice."""

        def asked() -> Answer:
            return self._session.ask(call, what)

        return await self.run(asked, what, is_safe=is_safe, orphan=orphan)

    async def run(
        self,
        work: Callable[[], Answer],
        what: str,
        *,
        is_safe: bool = True,
        orphan: Callable[[Answer], None] | None = None,
    ) -> Answer:
        """What `work()` answers, on a thread."""
        deadline = time.monotonic() + self._rules.budget_s
        attempts = 1 + (self._rules.retries if is_safe else 0)
        for attempt in range(attempts):
            try:
                return await self._once(work, what, deadline, orphan)
            except VaultSealed:
                raise  # that takes a person, not a second
            except VaultUnavailable:
                pause_s = self._rng.uniform(0.0, _FIRST_PAUSE_S * 4.0**attempt)
                is_last = attempt + 1 == attempts
                if is_last or time.monotonic() + pause_s >= deadline or not self._may_try():
                    raise
                await asyncio.sleep(pause_s)
        raise AssertionError  # the last attempt answers or raises

    def _may_try(self) -> bool:
        return self.breaker.ready is not None

    async def _once(
        self,
        work: Callable[[], Answer],
        what: str,
        deadline: float,
        orphan: Callable[[Answer], None] | None,
    ) -> Answer:
        began = time.monotonic()
        permit = self.breaker.admit(began)
        if isinstance(permit, Rejected):
            raise self._last(
                f"{what}: {self._rules.url} failed often and is left alone for another "
                f"{permit.retry_after_s:.1f} s"
            )
        try:
            answer = await self._on_thread(work, what, deadline, orphan)
        except VaultUnavailable as error:
            self._last = type(error)
            now = time.monotonic()
            self.breaker.fail(permit, now, now - began)
            raise
        except SecretError:
            now = time.monotonic()
            self.breaker.succeed(permit, now, now - began)
            raise
        except BaseException:
            self.breaker.abandon(permit, time.monotonic())
            raise
        now = time.monotonic()
        self.breaker.succeed(permit, now, now - began)
        return answer

    async def _on_thread(
        self,
        work: Callable[[], Answer],
        what: str,
        deadline: float,
        orphan: Callable[[Answer], None] | None,
    ) -> Answer:
        if self._waiting >= MAX_WAITING:
            raise VaultAway(f"{what}: {MAX_WAITING} requests to {self._rules.url} wait already")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] | None = None
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                self._waiting += 1
                try:
                    await self._free.acquire()
                finally:
                    self._waiting -= 1
                try:
                    future = loop.run_in_executor(self._pool, work)
                except BaseException:
                    self._free.release()
                    raise
                future.add_done_callback(self._ended)
                # Shielded: cancelling it would give the thread back before it is free.
                return await asyncio.shield(future)
        except TimeoutError:
            self._leave(future, orphan)
            raise VaultAway(
                f"{what}: {self._rules.url} did not answer within {self._rules.budget_s:g} s"
            ) from None
        except asyncio.CancelledError:
            self._leave(future, orphan)
            raise

    def _leave(
        self, future: asyncio.Future[Answer] | None, orphan: Callable[[Answer], None] | None
    ) -> None:
        """Nobody waits for it any more: what it brings is given back."""
        if future is None or orphan is None:
            return

        def ended(done: asyncio.Future[Answer]) -> None:
            if done.cancelled() or done.exception() is not None:
                return
            try:
                self._pool.submit(orphan, done.result())
            except RuntimeError:
                log.warning("what was made for nobody ends by itself: closed meanwhile")

        future.add_done_callback(ended)

    def _ended(self, future: asyncio.Future[Any]) -> None:
        self._free.release()
        if not future.cancelled():
            future.exception()  # it was told to whoever still waited

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

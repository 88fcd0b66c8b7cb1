"""Keys of an issuer, fetched over HTTP and kept fresh.

Theory of operation. One task does all fetching, one after the other:

    at the start, then every `refresh_s` (or what Cache-Control says, within bounds), give or take
    a tenth so that many gateways do not ask at once; after a failure sooner, growing from 1 s;
    at once when a token names an unknown key, at most once in `cooldown_s`

Such a fetch is a `_Flight`. Requests that wait for one share its future and only look at it, so
one that gives up takes nothing from the others. A flight that was under way when a token came may
have read the old set, so what matters to the token is the end of one that began later.

What a hostile client can do with names of keys that do not exist: cause one fetch in `cooldown_s`.
Names that a fetch has not brought are remembered (bounded, until the set changes or `refresh_s` is
over) and refused without another. Names met during the cooldown are refused but not remembered,
since one of them may be the issuer's newest. At most `MAX_WAITING` requests wait.

While nothing is known yet, requests wait for the flight that is under way, within `wait_s`; between
flights they are told at once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from headgate.security.method import Parts
from headgate.security.tokens.fetch import (
    Fetched,
    FetchFailed,
    discover,
    fetch,
    open_client,
    shown_url,
)
from headgate.security.tokens.jwk import read_jwks
from headgate.security.tokens.rules import RemoteRules
from headgate.security.tokens.source import Clock, KeySource, log, wall_clock

if TYPE_CHECKING:
    import httpx

MAX_WAITING: Final = 1000
MAX_UNKNOWN: Final = 1000
_FIRST_RETRY_S: Final = 1.0
_LONGEST_RETRY_S: Final = 60.0
_LONGEST_RETRY_UNKNOWN_S: Final = 10.0
_SHORTEST_SHARE: Final = 0.2
_LONGEST_SHARE: Final = 12.0
_JITTER: Final = 0.1


class _Flight:
    """One fetch, and who waits for its end."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def land(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class RemoteKeys(KeySource):
    def __init__(
        self,
        rules: RemoteRules,
        *,
        clock: Clock = wall_clock,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(None)
        self.rules = rules
        self.key = ("keys of an issuer", replace(rules, wait_s=0.0))
        self.where = shown_url(rules.url or rules.issuer)
        self._clock = clock
        self._rng = rng or random.Random()
        self._wake = asyncio.Event()
        self._under_way: _Flight | None = None
        self._next: _Flight | None = None
        self._asked_at: float | None = None
        """When a token last caused a fetch."""
        self._unknown: dict[str, float] = {}
        """Names of keys that a fetch has not brought, and when that was."""
        self._waiting = 0
        self._failures = 0
        self._fetched_at: float | None = None
        self._jwks_url = rules.url
        self._fetched = 0
        """How many fetches brought a set."""
        self.fetches = 0

    # -- what requests ask ---------------------------------------------------------------------

    def wait_first(self, wait_s: float) -> Awaitable[None] | None:
        flight = self._under_way or self._next
        if self.keys is not None or flight is None or self._waiting >= MAX_WAITING:
            return None
        return self._wait(flight, wait_s)

    def wait_for(self, kid: str, wall: float, wait_s: float) -> Awaitable[None] | None:
        missed = self._unknown.get(kid)
        if missed is not None and 0 <= wall - missed < self.rules.refresh_s:
            return None
        if self._waiting >= MAX_WAITING or not self._is_started or self._is_let_go:
            return None
        if self._next is None:
            # A clock that was set back is no reason to wait for it.
            if self._asked_at is not None and 0 <= wall - self._asked_at < self.rules.cooldown_s:
                return None
            self._asked_at = wall
            self._next = _Flight()
            self._wake.set()
        return self._wait_kid(self._next, kid, wall, wait_s)

    async def _wait_kid(self, flight: _Flight, kid: str, wall: float, wait_s: float) -> None:
        fetched = self._fetched
        await self._wait(flight, wait_s)
        has_fetched = flight.done.done() and self._fetched != fetched
        if has_fetched and self.keys is not None and not self.keys.find(kid):
            self._unknown.pop(kid, None)
            while len(self._unknown) >= MAX_UNKNOWN:
                del self._unknown[next(iter(self._unknown))]
            self._unknown[kid] = wall

    async def _wait(self, flight: _Flight, wait_s: float) -> None:
        self._waiting += 1
        try:
            # Not `await flight.done`: cancelling one request would cancel what all wait for.
            await asyncio.wait((flight.done,), timeout=wait_s)
        finally:
            self._waiting -= 1

    # -- the task ------------------------------------------------------------------------------

    def _start(self, parts: Parts) -> None:
        self._next = _Flight()  # there is something to wait for from the first request on
        parts.spawn(self._run())

    def _stop(self) -> None:
        super()._stop()
        self._land(self._next)

    async def _run(self) -> None:
        self._task = asyncio.current_task()
        client: httpx.AsyncClient | None = None
        try:
            while not self._is_let_go:
                self._wake.clear()
                self._under_way, self._next = self._next or _Flight(), None
                wait_s = self._retry_s()
                try:
                    if client is None:
                        client = await open_client(self.rules.ca_file, self.rules.timeout_s)
                    wait_s = await self._refresh(client)
                except (FetchFailed, ValueError) as error:  # ValueError: bad keys, a bad ca_file
                    self._missed(error)
                except ImportError:
                    self._missed(FetchFailed("httpx is not installed; pip install httpx"))
                except Exception as error:  # noqa: BLE001 - a fault of ours must not end refreshing
                    log.exception("keys from %s", self.where)
                    self._missed(FetchFailed(f"unexpected: {type(error).__name__}"))
                flight, self._under_way = self._under_way, None
                self._land(flight)
                if self.last_error and client is not None:
                    # The next one looks up the host and reads ca_file afresh.
                    await client.aclose()
                    client = None
                await self._sleep(wait_s)
        finally:
            self._land(self._under_way)
            self._land(self._next)
            self._under_way = self._next = None
            if client is not None:
                await client.aclose()

    @staticmethod
    def _land(flight: _Flight | None) -> None:
        if flight is not None:
            flight.land()

    async def _sleep(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _refresh(self, client: httpx.AsyncClient) -> float:
        """Fetch once; how long that may be believed."""
        rules = self.rules
        self.fetches += 1
        if not rules.url:
            document = await discover(
                client, rules.issuer, max_bytes=rules.max_bytes, timeout_s=rules.timeout_s
            )
            self._jwks_url = document["jwks_uri"]
        got = await fetch(
            client, self._jwks_url, max_bytes=rules.max_bytes, timeout_s=rules.timeout_s
        )
        keys = read_jwks(got.body, is_public=True, is_strict=False)
        is_new = self.keys is None or self.keys.mark != keys.mark
        self._failures = 0
        self._fetched_at = self._clock()
        self._fetched += 1
        if is_new:
            self._unknown.clear()
        self._put(keys)
        return self._fresh_s(got)

    def _missed(self, error: Exception) -> None:
        self._failures += 1
        self._fail(error)

    def _fresh_s(self, got: Fetched) -> float:
        rules = self.rules
        fresh_s = rules.refresh_s
        if got.max_age_s is not None:
            least, most = fresh_s * _SHORTEST_SHARE, fresh_s * _LONGEST_SHARE
            fresh_s = min(max(got.max_age_s, least), most)
        return fresh_s * self._spread()

    def _retry_s(self) -> float:
        most = _LONGEST_RETRY_UNKNOWN_S if self.keys is None else _LONGEST_RETRY_S
        retry_s = min(_FIRST_RETRY_S * 2.0 ** min(self._failures, 10), most, self.rules.refresh_s)
        return retry_s * self._spread()

    def _spread(self) -> float:
        return 1 - _JITTER + 2 * _JITTER * self._rng.random()

    def snapshot(self, wall: float) -> dict[str, Any]:
        age_s = None if self._fetched_at is None else max(0.0, wall - self._fetched_at)
        return {
            **super().snapshot(wall),
            "age_s": age_s,
            "fetches": self.fetches,
            "failures_in_a_row": self._failures,
            "unknown_kids": len(self._unknown),
            "waiting": self._waiting,
        }

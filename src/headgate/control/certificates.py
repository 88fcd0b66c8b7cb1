"""The certificates of this gateway: ordered, renewed, and brought to the workers.

Theory of operation
-------------------
One task, one order at a time. At every turn it looks at the files: which names lack a certificate,
which are due (`security/certificates/renewal.py`), which have changed since the last look, whoever
changed them. What is due is ordered; a name that fails waits, and holds up no other. What has
changed is told to the workers (topic `certificates`), who read the files again: no connection is
closed for it. Every half day they are told in any case, so that a `certificate: local` that has
become old is made anew.

Of processes on one state directory the one that holds `acme/lock` orders, and the others find its
files. Of machines that share a Redis one orders at a time (`claims`), each for itself: keys do not
leave a machine. While Redis is away, they do not wait for each other.

A full disk is a failure like others: the key and the URL of an order are on the disk before the
order is acted upon, so the certificate is fetched when there is room again. What could not be
written about failures is remembered here for as long as this process lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from headgate.config.acme import acme_rules
from headgate.control.ordering import SETTLE_S, Ordering, Telling
from headgate.security.certificates.acme import AcmeFailed
from headgate.security.certificates.challenges import CERTIFICATES_TOPIC
from headgate.security.certificates.claims import CLAIMS_TOPIC, Claims
from headgate.security.certificates.client import AcmeClient
from headgate.security.certificates.renewal import (
    Standing,
    due_at,
    failed,
    forced_at,
    is_late,
    settled,
)
from headgate.security.certificates.rules import AcmeRules
from headgate.security.certificates.store import AcmeStore

if TYPE_CHECKING:
    from headgate.config import Config

__all__ = ["Certificates"]

LOOK_S: Final = 60.0
BUSY_S: Final = 10.0
NOT_READY_S: Final = 0.25
REFRESH_S: Final = 12 * 3600.0
WINDOWS_S: Final = 8 * 3600.0
CLAIM_S: Final = 2.0

log = logging.getLogger("headgate.control.certificates")


class _Board(Telling, Protocol):
    """That which reaches all machines."""

    def subscribe(self, topic: str, listener: Callable[[Mapping[str, Any]], None]) -> object: ...


class Certificates:
    def __init__(
        self,
        state_dir: Path,
        board: _Board,
        is_ready: Callable[[], bool],
        *,
        wall: Callable[[], float] = time.time,  # noqa: TID251  certificates live in wall time
        rng: random.Random | None = None,
        settle_s: float = SETTLE_S,
    ) -> None:
        """`is_ready` tells whether workers serve, so that an authority finds somebody."""
        self._state_dir = state_dir
        self._board = board
        self._is_ready = is_ready
        self._wall = wall
        self._rng = rng or random.Random()
        self._ordering = Ordering(board, settle_s)
        self._rules: AcmeRules | None = None
        self._shares_board = False
        self._standings: dict[str, Standing] = {}
        """Those that could not be kept on the disk."""
        self._served: dict[str, str] = {}
        self._forced: set[str] = set()
        self._refresh_at = time.monotonic() + REFRESH_S
        self._windows_at = time.monotonic() + self._rng.uniform(1.0, 300.0)
        self._claims = Claims(f"{socket.gethostname()}-{os.getpid()}-{self._rng.getrandbits(64):x}")
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._worries: dict[str, str] = {}

    # -- for control ---------------------------------------------------------------------------

    def start(self) -> None:
        """On the running loop, after the first `take`."""
        # It has a line for each request, and an order is twenty of them.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._board.subscribe(
            CLAIMS_TOPIC, lambda message: self._claims.hear(message, time.monotonic())
        )
        self._task = asyncio.get_running_loop().create_task(self._run(), name="certificates")

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def take(self, config: Config) -> None:
        """Go by this configuration from now on."""
        rules = acme_rules(config)
        self._shares_board = config.state != "memory"
        if rules != self._rules:
            self._rules = rules
            self._worries.clear()
            self._standings.clear()
            self._served.clear()
        self._wake.set()

    def worries(self) -> list[str]:
        """What makes the gateway's health less than well."""
        return list(self._worries.values())

    def snapshot(self) -> list[dict[str, Any]]:
        """How it stands with every name. Reads files."""
        rules = self._rules
        if rules is None:
            return []
        store = AcmeStore(self._state_dir, rules.directory)
        wall = self._wall()
        rows = []
        for name in rules.domains:
            standing, share = self._standing(store, name, wall)
            has_one = standing.begins is not None
            rows.append(
                {
                    "name": name,
                    "served": "acme" if has_one else "local",
                    "not_after": standing.ends if has_one else None,
                    "next_try": due_at(standing, wall, share, rules.renew_before_s),
                    "failures": standing.failures,
                    "why": standing.why,
                }
            )
        return rows

    def renew(self, names: Collection[str]) -> dict[str, str]:
        """Order new ones now, or as soon as the authority's limits allow; what is done, by name."""
        rules = self._rules
        if rules is None:
            return {}
        store = AcmeStore(self._state_dir, rules.directory)
        wall = self._wall()
        said = {}
        for name in names or rules.domains:
            if name not in rules.domains:
                said[name] = "is not among the names of acme"
                continue
            standing, _ = self._standing(store, name, wall)
            wait_s = forced_at(standing, wall) - wall
            self._forced.add(name)
            said[name] = (
                "is being ordered"
                if wait_s <= 0
                else f"is ordered in {wait_s:.0f} s, as the authority limits failures"
            )
        self._wake.set()
        return said

    # -- the task ------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                wait_s = await self._turn()
            except OSError as error:
                self._worry("", f"certificates cannot be kept in {self._state_dir}: {error}")
                wait_s = LOOK_S
            except Exception:
                # A fault of ours must not end renewals until the next restart.
                log.exception("certificates could not be looked after")
                wait_s = LOOK_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def _turn(self) -> float:
        """Do what is due; how long to wait for the next look."""
        now = time.monotonic()
        if now >= self._refresh_at:
            self._refresh_at = now + REFRESH_S
            self._tell_workers()
        rules = self._rules
        if rules is None:
            return LOOK_S
        if not self._is_ready():
            return NOT_READY_S
        store = AcmeStore(self._state_dir, rules.directory)
        await asyncio.to_thread(store.prepare)
        due, next_at, has_changed = await asyncio.to_thread(self._look, store, rules)
        if has_changed:
            self._tell_workers()
        self._worries.pop("", None)
        wants_windows = now >= self._windows_at and bool(self._served)
        if not due and not wants_windows:
            return min(max(next_at - self._wall(), 0.0), LOOK_S)
        with store.try_lock() as is_ours:
            if not is_ours:
                return BUSY_S
            if self._shares_board and not await self._may_order():
                return BUSY_S
            try:
                await self._work(store, rules, due, wants_windows=wants_windows)
            finally:
                if self._shares_board:
                    self._board.publish(
                        CLAIMS_TOPIC, self._claims.end(), retain=self._claims.holder
                    )
                    self._board.forget(CLAIMS_TOPIC, self._claims.holder)
        return 0.0

    def _look(self, store: AcmeStore, rules: AcmeRules) -> tuple[list[str], float, bool]:
        """Who is due, the most urgent first, when the next is, and whether a file has changed."""
        wall = self._wall()
        due: list[tuple[float, str]] = []
        next_at = wall + LOOK_S
        has_changed = False
        for name in rules.domains:
            kept = store.certificate(name)
            if kept is not None and self._served.get(name) != kept.identity:
                # Also one that was not there before: somebody else here may have ordered it.
                has_changed = True
                self._served[name] = kept.identity
                self._standings.pop(name, None)
            standing, share = self._standing(store, name, wall)
            self._judge(name, standing, wall, rules)
            at = due_at(standing, wall, share, rules.renew_before_s)
            if name in self._forced:
                at = forced_at(standing, wall)
            if at <= wall:
                due.append((at, name))
            else:
                next_at = min(next_at, at)
        return [name for _, name in sorted(due)], next_at, has_changed

    def _standing(self, store: AcmeStore, name: str, wall: float) -> tuple[Standing, float]:
        said = store.standing(name)
        known = self._standings.get(name)
        if known is not None:
            said = replace(known, begins=said.begins, ends=said.ends)
        standing = settled(said, wall)
        if standing is not said:
            self._standings[name] = standing
        kept = store.certificate(name)
        return standing, kept.share if kept is not None else 0.0

    def _judge(self, name: str, standing: Standing, wall: float, rules: AcmeRules) -> None:
        """Say what an operator should know of a name."""
        why = f"; the last try: {standing.why}" if standing.why else ""
        if standing.begins is None:
            self._worry(name, f"{name} has no certificate yet and is served the local one{why}")
        elif wall >= standing.ends:
            self._worry(name, f"the certificate of {name} has expired and is still served{why}")
        elif is_late(standing, wall, rules.renew_before_s) and standing.failures:
            hours = (standing.ends - wall) / 3600
            self._worry(name, f"the certificate of {name} ends in {hours:.0f} h{why}")
        else:
            self._worries.pop(name, None)

    def _worry(self, name: str, words: str) -> None:
        if self._worries.get(name) != words:
            self._worries[name] = words
            log.warning("%s", words)

    async def _may_order(self) -> bool:
        """Ask the other machines for a turn."""
        claim = self._claims.claim(self._wall())
        self._board.publish(CLAIMS_TOPIC, claim, retain=self._claims.holder)
        await asyncio.sleep(CLAIM_S)
        return self._claims.is_ours(time.monotonic())

    # -- ordering ------------------------------------------------------------------------------

    async def _work(
        self, store: AcmeStore, rules: AcmeRules, due: list[str], *, wants_windows: bool
    ) -> None:
        try:
            client = await self._ordering.open(store, rules)
        except (AcmeFailed, OSError) as error:
            for name in due:
                self._forced.discard(name)
                await self._fail(store, name, error)
            if wants_windows:
                self._windows_at = time.monotonic() + WINDOWS_S
            return
        try:
            if wants_windows:
                self._windows_at = time.monotonic() + WINDOWS_S * self._rng.uniform(0.8, 1.0)
                await self._ask_windows(store, rules, client)
            for name in due:
                if self._rules is not rules:
                    return  # a reload has other wishes
                await self._renew_one(store, rules, client, name)
        finally:
            await client.close()

    async def _renew_one(
        self, store: AcmeStore, rules: AcmeRules, client: AcmeClient, name: str
    ) -> None:
        began = time.monotonic()
        self._forced.discard(name)
        try:
            await self._ordering.order(store, rules, client, name)
        except (AcmeFailed, OSError) as error:
            await self._fail(store, name, error)
            return
        self._standings.pop(name, None)
        kept = await asyncio.to_thread(store.certificate, name)
        if kept is not None:
            self._served[name] = kept.identity
            self._worries.pop(name, None)
            log.info(
                "%s has a new certificate until %s, after %.1f s",
                name,
                kept.leaf.not_valid_after_utc.isoformat(timespec="minutes"),
                time.monotonic() - began,
            )
        # Before anything else is written: it is on the disk, and a worker can read it.
        self._tell_workers()
        said = store.standing(name)
        fresh = replace(said, failures=0, not_before=0.0, window=None, why="")
        with contextlib.suppress(OSError):
            await asyncio.to_thread(store.keep_standing, name, fresh)

    async def _fail(self, store: AcmeStore, name: str, error: Exception) -> None:
        wall = self._wall()
        wait_s = error.retry_after_s if isinstance(error, AcmeFailed) else None
        why = str(error) if isinstance(error, AcmeFailed) else f"the disk: {error}"
        before, _ = self._standing(store, name, wall)
        standing = failed(before, wall, why, wait_s)
        next_s = due_at(standing, wall, 0.0, None) - wall
        log.warning("no certificate for %s: %s; next try in %.0f s", name, why, max(next_s, 0.0))
        try:
            if isinstance(error, AcmeFailed) and error.is_validation:
                await asyncio.to_thread(store.end_order, name)
            await asyncio.to_thread(store.keep_standing, name, standing)
            self._standings.pop(name, None)
        except OSError:
            self._standings[name] = standing

    async def _ask_windows(self, store: AcmeStore, rules: AcmeRules, client: AcmeClient) -> None:
        """Ask when the authority would like its certificates renewed."""
        if client.directory.renewal_info is None:
            return
        for name in rules.domains:
            kept = await asyncio.to_thread(store.certificate, name)
            # RFC 9773 4.3: not for those that have expired.
            if kept is None or kept.leaf.not_valid_after_utc.timestamp() <= self._wall():
                continue
            try:
                window = await client.renewal_window(kept.leaf)
                standing, _ = self._standing(store, name, self._wall())
                if window != standing.window:
                    new = replace(standing, window=window)
                    await asyncio.to_thread(store.keep_standing, name, new)
            except (AcmeFailed, OSError) as error:
                log.info("no renewal information for %s: %s", name, error)
                return

    def _tell_workers(self) -> None:
        self._board.publish(CERTIFICATES_TOPIC, {"at": self._wall()}, retain="files")

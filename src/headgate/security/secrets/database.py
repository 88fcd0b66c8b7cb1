"""Database credentials that Vault makes, kept alive while they are used and replaced in time.

Theory of operation
-------------------
    current   new users get these. Renewed at 2/3 of their time
    retired   another grant is current. Nobody new gets these; renewed as long as somebody uses
              them; given back (the database drops the user) when the last one has left
    ended     given back, or Vault would not renew them any more

    current -> retired   when renewal meets the longest life, when the lease is gone, when there
                         is another token (a lease ends with the token that made it)

A user of a grant is whoever holds a ticket: a connection, or a block of code. The count of tickets
decides when a lease is given back; so a query under way is not cut off by a rotation, and old
database users do not pile up.

Credentials that nobody waits for any more (the caller was cancelled while Vault made them) are
given back at once.

Vault away: what is there is used until its lease ends, as Vault itself will then drop the user.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from headgate.security.secrets.errors import (
    VaultAway,
    VaultDenied,
    VaultError,
    VaultMissing,
    VaultRefused,
    VaultUnavailable,
)
from headgate.security.secrets.lease import Lease, pause_s, seconds_of

__all__ = ["Credentials", "DatabaseRole", "Ticket"]

log = logging.getLogger("headgate.secrets")

FOLLOW_S = 10.0
Ask = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user of the database that lives for a while."""

    username: str
    password: str = field(repr=False)


class _Grant:
    """Credentials with their lease, and who uses them."""

    __slots__ = (
        "credentials",
        "id",
        "is_fixed",
        "is_retired",
        "lease",
        "token",
        "users",
        "wake",
    )

    def __init__(
        self, credentials: Credentials, id_: str, lease: Lease, token: int, *, is_fixed: bool
    ) -> None:
        self.credentials = credentials
        self.id = id_
        self.lease = lease
        self.token = token
        self.users = 0
        self.is_fixed = is_fixed  # it cannot be renewed
        self.is_retired = False
        self.wake = asyncio.Event()

    def __repr__(self) -> str:
        return f"Grant({self.credentials.username!r}, users={self.users})"


class Ticket:
    """The right to use credentials; `release` it when the connection is closed."""

    __slots__ = ("_grant",)

    def __init__(self, grant: _Grant) -> None:
        self._grant: _Grant | None = grant
        grant.users += 1

    @property
    def credentials(self) -> Credentials:
        if self._grant is None:
            raise VaultAway("these credentials were given back")
        return self._grant.credentials

    @property
    def is_retired(self) -> bool:
        """There are newer credentials: use these no longer than you must."""
        return self._grant is None or self._grant.is_retired

    def release(self) -> None:
        """A second time is no harm. From the thread of the event loop."""
        grant, self._grant = self._grant, None
        if grant is not None:
            grant.users -= 1
            if not grant.users:
                grant.wake.set()

    def __repr__(self) -> str:
        return f"Ticket({self._grant!r})"


class DatabaseRole:
    """One role of Vault's database engine. Made by `Vault.database_role`."""

    def __init__(
        self,
        ask: Ask,
        token_generation: Callable[[], int],
        role: str,
        mount: str,
        rng: random.Random,
    ) -> None:
        self._ask = ask
        self._token_generation = token_generation
        self._role = role
        self._mount = mount
        self._rng = rng
        self._current: _Grant | None = None
        self._tasks: dict[_Grant, asyncio.Task[None]] = {}
        self._making = asyncio.Lock()
        self._is_closed = False
        self._followers: list[Callable[[], Awaitable[None]]] = []
        self.rotations = 0

    def __repr__(self) -> str:
        return f"DatabaseRole({self._role!r})"

    @property
    def living(self) -> int:
        """Leases that are looked after."""
        return len(self._tasks)

    def on_rotation(self, follower: Callable[[], Awaitable[None]]) -> Callable[[], None]:
        """Call `follower` whenever there are new credentials. Returns how to end that."""
        self._followers.append(follower)

        def end() -> None:
            if follower in self._followers:
                self._followers.remove(follower)

        return end

    # ---- users

    async def take(self) -> Ticket:
        """A right to the current credentials; the caller releases it."""
        while True:
            grant = self._good()
            if grant is not None:
                return Ticket(grant)
            async with self._making:
                if self._good() is None:
                    await self._replace()

    @asynccontextmanager
    async def borrowed(self) -> AsyncIterator[Credentials]:
        """Credentials that are looked after until the block ends."""
        ticket = await self.take()
        try:
            yield ticket.credentials
        finally:
            ticket.release()

    def _good(self) -> _Grant | None:
        grant = self._current
        if grant is None or grant.lease.expires_at <= time.monotonic():
            return None
        return grant

    # ---- grants

    async def _replace(self) -> None:
        """New credentials become current; the others retire. Under `_making`."""
        if self._is_closed:
            raise VaultAway("this Vault is closed")
        grant = await self._make()
        old, self._current = self._current, grant
        loop = asyncio.get_running_loop()
        self._tasks[grant] = loop.create_task(self._look_after(grant), name="vault-lease")
        if old is not None:
            self.rotations += 1
            old.is_retired = True
            old.wake.set()
            for follower in tuple(self._followers):
                try:
                    async with asyncio.timeout(FOLLOW_S):
                        await follower()
                except Exception as error:  # noqa: BLE001 - of a driver; it may quote what it likes
                    kind = type(error).__name__
                    log.warning("a pool did not take up the new %s: %s", self._role, kind)

    async def _make(self) -> _Grant:
        began = time.monotonic()
        what = f"database role {self._role}"
        orphan_of: list[Any] = []

        def call(client: Any) -> Any:
            orphan_of[:] = [client]
            return client.secrets.database.generate_credentials(
                name=self._role, mount_point=self._mount
            )

        def give_back(answer: Any) -> None:
            try:
                orphan_of[0].sys.revoke_lease(lease_id=answer["lease_id"])
            except Exception:  # noqa: BLE001 - the library raises what it likes
                log.warning("%s: what nobody waited for ends with its lease", what)

        # Not safe: an attempt whose answer was lost has made a user all the same.
        answer = await self._ask(call, what, is_safe=False, orphan=give_back)
        try:
            data = answer["data"]
            credentials = Credentials(_text(data["username"]), _text(data["password"]))
            lease = Lease.of(began, seconds_of(answer["lease_duration"]))
            id_ = str(answer["lease_id"])
            is_fixed = not answer["renewable"]
        except (KeyError, TypeError, ValueError):
            raise VaultAway(f"{what}: answered something else") from None
        return _Grant(credentials, id_, lease, self._token_generation(), is_fixed=is_fixed)

    def token_changed(self, generation: int) -> None:
        """Leases of an earlier token end with it: replace them while it lives."""
        grant = self._current
        if grant is not None and grant.token != generation:
            grant.wake.set()

    async def _look_after(self, grant: _Grant) -> None:
        failures = 0
        try:
            while True:
                now = time.monotonic()
                if grant.is_retired and not grant.users:
                    await self._give_back(grant)
                    return
                if grant.lease.expires_at <= now:
                    self._lost(grant, "it ended before there was a longer one")
                    return
                due = self._due(grant, now, failures)
                if due > now and not await _is_timed_out(grant.wake, due - now):
                    continue
                try:
                    await self._attend(grant)
                    failures = 0
                except VaultUnavailable as error:
                    failures += 1
                    log.warning("database role %s: %s", self._role, error)
                except (VaultMissing, VaultRefused) as error:
                    self._lost(grant, str(error))  # there is no such lease any more
                    return
                except VaultError as error:
                    failures += 1
                    grant.is_fixed = True  # the policy does not let us renew: replace it
                    log.warning("database role %s: %s", self._role, error)
        finally:
            self._tasks.pop(grant, None)

    def _due(self, grant: _Grant, now: float, failures: int) -> float:
        """When to renew or to replace it."""
        if failures:
            return now + pause_s(failures, grant.lease.expires_at - now, self._rng)
        if grant is self._current:
            return now if self._is_outlived(grant) else grant.lease.renew_at
        if grant.is_fixed or grant.lease.is_ending:
            return grant.lease.expires_at  # nothing makes it longer
        return grant.lease.renew_at

    def _is_outlived(self, grant: _Grant) -> bool:
        return grant.lease.is_ending or grant.token != self._token_generation()

    async def _attend(self, grant: _Grant) -> None:
        """What is due: other credentials, or more time for these."""
        if not grant.is_fixed and not self._is_outlived(grant):
            await self._renew(grant)
            return
        if grant is not self._current:
            if not grant.is_fixed and not grant.lease.is_ending:
                await self._renew(grant)
            return
        try:
            async with self._making:
                if grant is self._current:
                    await self._replace()
        except (VaultMissing, VaultRefused) as error:
            # Of the role and not of the lease, which may live on for a while.
            raise VaultDenied(str(error)) from None

    async def _renew(self, grant: _Grant) -> None:
        began = time.monotonic()
        lease = grant.lease
        answer = await self._ask(
            lambda client: client.sys.renew_lease(
                lease_id=grant.id, increment=max(1, round(lease.first_ttl_s))
            ),
            f"database role {self._role}",
        )
        try:
            grant.lease = lease.renewed(began, seconds_of(answer["lease_duration"]))
        except (KeyError, TypeError, ValueError):
            raise VaultAway(f"database role {self._role}: answered something else") from None

    def _lost(self, grant: _Grant, why: str) -> None:
        grant.is_retired = True
        if grant is self._current:
            self._current = None
        log.warning(
            "database role %s: the credentials of %s are lost, %d users: %s",
            self._role,
            grant.credentials.username,
            grant.users,
            why,
        )

    async def _give_back(self, grant: _Grant) -> None:
        try:
            await self._ask(
                lambda client: client.sys.revoke_lease(lease_id=grant.id),
                f"database role {self._role}",
            )
        except VaultError as error:
            log.warning("database role %s: a lease ends by itself: %s", self._role, error)

    async def aclose(self) -> None:
        """Give back every lease, whoever still uses it."""
        self._is_closed = True
        tasks = dict(self._tasks)
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        self._current = None
        for grant in tasks:
            grant.is_retired = True
        await asyncio.gather(*(self._give_back(grant) for grant in tasks))


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("no text")
    return value


async def _is_timed_out(event: asyncio.Event, wait_s: float) -> bool:
    """Whether the time passed before the event came. The event is cleared."""
    try:
        async with asyncio.timeout(None if wait_s == float("inf") else wait_s):
            await event.wait()
    except TimeoutError:
        return True
    event.clear()
    return False

"""`Vault`: secrets of a HashiCorp Vault or OpenBao server, for a service on asyncio.

Theory of operation
-------------------
    read      what was read is used for `cache_s`; when Vault is away or sealed, for up to
              `stale_s`, and says so. A refusal (denied, gone) is passed on at once: what somebody
              took from us is not ours for another hour.
    one ask   a value that many want at once is read once.
    token     renewed at 2/3 of its time. When its longest life is near, a role logs in again and a
              token file is read again. Everything that a token made (leases) ends with it, so new
              database credentials are taken at once, while the old token still lives.
    close     gives back what was lent: leases first, then the token, if we logged in for it.

A task keeps the token, one more each lease; `async with` owns them.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from headgate.security.secrets.calls import Calls
from headgate.security.secrets.database import Credentials, DatabaseRole
from headgate.security.secrets.errors import (
    VaultAway,
    VaultError,
    VaultMissing,
    VaultRefused,
    VaultUnavailable,
)
from headgate.security.secrets.kept import Kept
from headgate.security.secrets.lease import Lease, pause_s
from headgate.security.secrets.transit import Transit
from headgate.security.secrets.vault_rules import VaultRules, check_path, split_path
from headgate.security.secrets.vault_session import LoggedIn, VaultSession

__all__ = ["Secret", "Vault", "VaultSnapshot", "Version"]

CLOSE_S: Final = 5.0

log = logging.getLogger("headgate.secrets")


@dataclass(frozen=True, slots=True)
class Secret:
    """One version of what stands at a path."""

    path: str
    values: Mapping[str, Any] = field(repr=False)
    version: int
    is_stale: bool = False
    """Vault could not be asked; this is what it said the last time."""

    def __getitem__(self, key: str) -> Any:
        try:
            return self.values[key]
        except KeyError:
            raise VaultMissing(f"{self.path} has no key {key}") from None

    def text(self, key: str) -> str:
        """A value that must be text."""
        value = self[key]
        if not isinstance(value, str):
            raise VaultMissing(f"{self.path}: {key} is not text")
        return value


@dataclass(frozen=True, slots=True)
class Version:
    """What is known of a version without its values."""

    number: int
    created: str
    is_deleted: bool
    is_destroyed: bool


@dataclass(frozen=True, slots=True)
class VaultSnapshot:
    """How things stand, without anything secret."""

    url: str
    breaker: str
    is_logged_in: bool
    token_ttl_s: float | None
    """Time left; None without a token, or when it does not expire."""
    log_ins: int
    kept: int
    leases: int
    """Database credentials that live: current ones, and old ones still in use."""


class Vault:
    """Secrets of one server. Use it as `async with Vault(rules) as vault`."""

    def __init__(self, rules: VaultRules, *, rng: random.Random | None = None) -> None:
        self.rules = rules
        self._rng = rng or random.Random()
        self._session = VaultSession(rules)
        self._calls: Calls | None = None
        self._kept: Kept[Secret] = Kept(rules.cache_size, rules.cache_s, rules.stale_s)
        self._reading: dict[tuple[str, str, int | None], asyncio.Task[Secret]] = {}
        self._roles: dict[tuple[str, str], DatabaseRole] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._seen: LoggedIn | None = None

    def __repr__(self) -> str:
        return f"Vault({self.rules.url!r})"

    async def __aenter__(self) -> Self:
        self._calls = Calls(self._session, self._rng)
        loop = asyncio.get_running_loop()
        self._keeper = loop.create_task(self._keep_token(), name="vault-token")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Give back what was lent, within a few seconds, and end."""
        calls, keeper = self._calls, self._keeper
        self._keeper = None
        tasks = [task for task in (keeper, *self._reading.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._kept.clear()
        if calls is None:
            return
        try:
            async with asyncio.timeout(CLOSE_S):
                await asyncio.gather(*(role.aclose() for role in self._roles.values()))
                if self._session.logged_in is not None and calls.breaker.ready is not None:
                    await calls.run(self._session.log_out, "logging out", is_safe=False)
        except (TimeoutError, VaultError):
            pass  # it all ends by itself, if later
        finally:
            self._calls = None
            self._roles.clear()
            calls.close()
            self._session.close()

    # ---- key and value, version 2

    async def read(
        self,
        path: str,
        *,
        version: int | None = None,
        fresh: bool = False,
        stale_ok: bool = True,
    ) -> Secret:
        """What stands at a path. `fresh` asks Vault whatever is kept."""
        key = (*split_path(path, self.rules.mount), version)
        if not fresh and (kept := self._kept.fresh(key, time.monotonic())) is not None:
            return kept
        task = self._reading.get(key)
        if task is None:
            loop = asyncio.get_running_loop()
            task = loop.create_task(self._read(path, *key), name="vault-read")
            self._reading[key] = task
            task.add_done_callback(lambda done: self._read_ended(key, done))
        try:
            # Shielded: one who gives up does not take it from the others.
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if task.cancelled() and (this is None or not this.cancelling()):
                raise VaultAway(f"{path}: this Vault was closed meanwhile") from None
            raise
        except VaultUnavailable as error:
            kept = self._kept.stale(key, time.monotonic()) if stale_ok else None
            if kept is None:
                raise
            log.warning("%s; what it said before is used", error)
            return Secret(kept.path, kept.values, kept.version, is_stale=True)
        except VaultError:
            self._kept.drop(key)
            raise

    def _read_ended(self, key: tuple[str, str, int | None], done: asyncio.Task[Secret]) -> None:
        if self._reading.get(key) is done:
            del self._reading[key]
        if not done.cancelled():
            done.exception()  # told to those who waited

    async def _read(self, path: str, mount: str, inner: str, version: int | None) -> Secret:
        asked_at = time.monotonic()
        answer = await self._ask(
            lambda client: client.secrets.kv.v2.read_secret_version(
                path=inner, version=version, mount_point=mount, raise_on_deleted_version=True
            ),
            path,
        )
        secret = secret_of(path, answer)
        self._kept.put((mount, inner, version), secret, asked_at)
        return secret

    async def get(self, path: str, key: str) -> str:
        """One value that is text."""
        return (await self.read(path)).text(key)

    async def write(self, path: str, values: Mapping[str, Any], *, after: int | None = None) -> int:
        """A new version, and its number. `after` is the version that must be the latest so far
        (0: there is none), so that two writers do not undo each other; VaultRefused says
        that another was first.
        """
        mount, inner = split_path(path, self.rules.mount)
        number: int = await self._ask(
            lambda client: client.secrets.kv.v2.create_or_update_secret(
                path=inner, secret=dict(values), cas=after, mount_point=mount
            )["data"]["version"],
            path,
            is_safe=after is not None,
        )
        self._kept.drop((mount, inner, None))
        return number

    async def versions(self, path: str) -> tuple[Version, ...]:
        """The versions of a path, oldest first."""
        mount, inner = split_path(path, self.rules.mount)
        found: tuple[Version, ...] = await self._ask(
            lambda client: _versions_of(
                client.secrets.kv.v2.read_secret_metadata(path=inner, mount_point=mount)
            ),
            path,
        )
        return found

    # ---- the other engines

    def transit(self, key: str, *, mount: str = "transit") -> Transit:
        """Encryption by a key that never leaves Vault."""
        return Transit(self._ask, check_path(key), check_path(mount))

    def database(
        self, role: str, *, mount: str = "database"
    ) -> AbstractAsyncContextManager[Credentials]:
        """`async with vault.database("readonly") as creds`: credentials that stay good in there,
        short of their longest life. For a pool, see `database_role`.
        """
        return self.database_role(role, mount=mount).borrowed()

    def database_role(self, role: str, *, mount: str = "database") -> DatabaseRole:
        """The credentials of a role, kept fresh; `headgate.security.secrets.pools` has engines
        and pools that follow them.
        """
        key = (check_path(mount), check_path(role))
        found = self._roles.get(key)
        if found is None:
            found = DatabaseRole(self._ask, self._token_generation, role, mount, self._rng)
            self._roles[key] = found
        return found

    # ---- response wrapping

    async def wrap(self, values: Mapping[str, Any], *, ttl_s: int = 300) -> str:
        """A token that gives these values once, to whoever comes first."""
        token: str = await self._ask(
            lambda client: client.adapter.post(
                "/v1/sys/wrapping/wrap", json=dict(values), wrap_ttl=f"{ttl_s}s"
            )["wrap_info"]["token"],
            "wrapping",
        )
        return token

    async def unwrap(self, token: str) -> dict[str, Any]:
        """What a wrapping token holds. It can be had once: VaultRefused means that somebody
        else was there before.
        """
        data: dict[str, Any] = await self._ask(
            lambda client: dict(client.sys.unwrap(token=token)["data"]), "unwrapping", is_safe=False
        )
        return data

    # ---- how things stand

    def snapshot(self) -> VaultSnapshot:
        found = self._session.logged_in
        left_s = None
        if found is not None and found.ttl_s > 0.0:
            left_s = max(0.0, found.at + found.ttl_s - time.monotonic())
        return VaultSnapshot(
            url=self.rules.url,
            breaker=self._calls.breaker.state if self._calls is not None else "closed",
            is_logged_in=found is not None,
            token_ttl_s=left_s,
            log_ins=self._token_generation() if found is not None else 0,
            kept=len(self._kept),
            leases=sum(role.living for role in self._roles.values()),
        )

    # ---- asking, and the token

    async def _ask(self, call: Any, what: str, **how: Any) -> Any:
        if self._calls is None:
            raise VaultRefused("this Vault is closed; use it within `async with`")
        try:
            return await self._calls.ask(call, what, **how)
        finally:
            self._look_at_token()

    def _token_generation(self) -> int:
        found = self._session.logged_in
        return found.generation if found is not None else 0

    def _look_at_token(self) -> None:
        """Tell who depends on it that there is another token."""
        found = self._session.logged_in
        if found is self._seen:
            return
        is_other = self._seen is None or found is None or found.generation != self._seen.generation
        self._seen = found
        self._changed.set()
        if is_other and found is not None:
            for role in self._roles.values():
                role.token_changed(found.generation)

    async def _keep_token(self) -> None:
        """Renew the token at its time, or get another one."""
        lease: Lease | None = None
        generation = -1
        failures = 0
        while True:
            self._changed.clear()
            found = self._session.logged_in
            if found is None:
                await self._changed.wait()
                continue
            if lease is None or found.generation != generation:
                lease, generation = Lease.of(found.at, found.ttl_s), found.generation
                failures = 0
            now = time.monotonic()
            wait_s = lease.renew_at - now
            if failures:
                wait_s = pause_s(failures, lease.expires_at - now, self._rng)
            try:
                async with asyncio.timeout(None if wait_s == float("inf") else max(0.0, wait_s)):
                    await self._changed.wait()
                continue
            except TimeoutError:
                pass
            try:
                lease = await self._prolonged(found, lease)
                failures = 0
            except VaultError as error:
                failures += 1
                log.warning("the token of %s was not renewed: %s", self.rules.url, error)
            self._look_at_token()

    async def _prolonged(self, found: LoggedIn, lease: Lease) -> Lease:
        calls = self._calls
        if calls is None:
            raise VaultAway("closed")
        if found.renewable and not lease.is_ending:
            try:
                after = await calls.run(self._session.renew, "renewing the token")
            except VaultUnavailable:
                raise
            except VaultError:
                pass  # expired or revoked: another one, then
            else:
                lease = lease.renewed(after.at, after.ttl_s)
                if not lease.is_ending:
                    return lease
        after = await calls.run(self._session.log_in, "logging in again")
        if after.token == found.token and not found.is_ours:
            # A token that we were given, and nobody gave us another.
            left_s = max(0.0, after.at + after.ttl_s - time.monotonic())
            raise VaultAway(f"it ends in {left_s:.0f} s and there is no other one")
        return Lease.of(after.at, after.ttl_s)


def _versions_of(answer: Any) -> tuple[Version, ...]:
    rows = sorted(answer["data"]["versions"].items(), key=lambda row: int(row[0]))
    return tuple(
        Version(
            int(number), row["created_time"], bool(row["deletion_time"]), bool(row["destroyed"])
        )
        for number, row in rows
    )


def secret_of(path: str, answer: Any) -> Secret:
    """The secret in an answer of the key-value engine."""
    try:
        data = answer["data"]
        values, version = data["data"], data["metadata"]["version"]
    except (KeyError, TypeError):
        raise VaultRefused(
            f"{path}: this is no key-value engine of version 2; enable one, or name its mount"
        ) from None
    if not isinstance(values, dict):
        raise VaultMissing(f"{path}: this version is deleted")
    return Secret(path, values, version)

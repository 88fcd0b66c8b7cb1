"""Setting the second factor up, and taking it off."""

from __future__ import annotations

import secrets
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate.security.accounts.entering import Entering
from headgate.security.accounts.errors import MfaInvalid
from headgate.security.accounts.totp import (
    SECRET_BYTES,
    canonical_recovery,
    matching_step,
    recovery_code,
    secret_text,
    uri,
)
from headgate.security.accounts.user import Enrolment

__all__ = ["Mfa"]


class Mfa(Entering):
    async def enrol_totp(self, user_id: str, password: str, *, ip: str = "") -> Enrolment:
        """A secret for an authenticator app. Nothing is asked of a login before `confirm_totp`."""
        await self._ready()
        user = await self._confirm(user_id, password, ip)
        if user.totp_since is not None:
            raise MfaInvalid("an authenticator app is set up already; take it off first")
        secret = secrets.token_bytes(SECRET_BYTES)
        users = self.tables.users
        change = (
            sa.update(users)
            .where(users.c.id == user_id, users.c.totp_since.is_(None))
            .values(totp_sealed=self._sealer.seal(secret, f"totp {user_id}"), totp_step=None)
        )
        async with self._writing() as db:
            if (await db.execute(change)).rowcount != 1:
                raise MfaInvalid("an authenticator app is set up already; take it off first")
        issuer = self.issuer.removeprefix("https://").removeprefix("http://")
        return Enrolment(secret_text(secret), uri(secret, issuer, user.email))

    async def confirm_totp(self, user_id: str, code: str, *, ip: str = "") -> tuple[str, ...]:
        """A first code of the app: from now on it is asked for. Answers the recovery codes,
        which are shown this once.
        """
        await self._ready()
        wall, users = self._wall(), self.tables.users
        mfa = await self._admit(ip, wall, mfa=self._lane_key("mfa", user_id, "enrolment"))
        async with self._reading() as db:
            user = await self._user_row(db, user_id)
        if user.totp_sealed is None or user.totp_since is not None:
            raise MfaInvalid("no authenticator app waits to be confirmed")
        step = matching_step(
            self._totp_secret(user), code.strip().replace(" ", ""), wall,
            self.rules.totp_drift, None,
        )  # fmt: skip
        if step is None:
            self._emit("mfa_failed", user_id, ip=ip)
            raise MfaInvalid
        change = (
            sa.update(users)
            .where(
                users.c.id == user_id,
                users.c.totp_since.is_(None),
                users.c.totp_sealed == user.totp_sealed,
            )
            .values(totp_since=wall, totp_step=step)
        )
        async with self._writing() as db:
            await self._refund(db, mfa, wall, is_login=False)
            if (await db.execute(change)).rowcount != 1:
                raise MfaInvalid
            codes = await self._new_codes(db, user_id)
        self._emit("mfa_enrolled", user_id, ip=ip)
        return codes

    async def new_recovery_codes(
        self, user_id: str, password: str, totp: str, *, ip: str = ""
    ) -> tuple[str, ...]:
        """Recovery codes in place of all earlier ones."""
        user = await self._both(user_id, password, totp, ip)
        async with self._writing() as db:
            await self._user_row(db, user.id, is_locking=True)
            return await self._new_codes(db, user.id)

    async def disable_totp(self, user_id: str, password: str, totp: str, *, ip: str = "") -> None:
        """Take the second factor off. `totp` may be a recovery code: the phone may be lost."""
        user = await self._both(user_id, password, totp, ip)
        await self._take_off(user.id)
        self._emit("mfa_disabled", user_id, ip=ip)

    async def remove_mfa(self, user_id: str) -> None:
        """By an administrator, for somebody who has lost app and recovery codes."""
        await self._ready()
        await self._take_off(user_id)
        self._emit("mfa_disabled", user_id, reason="administrator")

    async def _both(self, user_id: str, password: str, totp: str, ip: str) -> Any:
        await self._ready()
        user = await self._confirm(user_id, password, ip)
        if user.totp_since is None:
            raise MfaInvalid("no authenticator app is set up for this account")
        factor, mfa = await self._second_factor(user, totp, ip, "")
        async with self._writing() as db:
            await self._refund(db, mfa, self._wall(), is_login=False)
            await self._use_up(db, user, factor)
        return user

    async def _take_off(self, user_id: str) -> None:
        users, recovery = self.tables.users, self.tables.recovery
        change = (
            sa.update(users)
            .where(users.c.id == user_id)
            .values(totp_sealed=None, totp_since=None, totp_step=None)
        )
        async with self._writing() as db:
            await self._user_row(db, user_id, is_locking=True)
            await db.execute(change)
            await db.execute(sa.delete(recovery).where(recovery.c.user_id == user_id))

    async def _new_codes(self, db: AsyncConnection, user_id: str) -> tuple[str, ...]:
        recovery = self.tables.recovery
        codes = tuple(recovery_code(secrets.choice) for _ in range(self.rules.recovery_codes))
        rows = [
            {"user_id": user_id, "hash": self._recovery_macs(user_id, canonical_recovery(code))[0]}
            for code in codes
        ]
        await db.execute(sa.delete(recovery).where(recovery.c.user_id == user_id))
        if rows:
            await db.execute(sa.insert(recovery), rows)
        return codes

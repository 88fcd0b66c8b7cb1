"""Logging in: the password, the second factor, and what is charged for either.

Theory of operation. One order, whoever is asked for:

    1  the lanes are charged                     TooManyAttempts
    2  the user is looked up; nobody is somebody here, with a hash that nothing matches
    3  the password is verified                  InvalidCredentials
    4  the second factor, where there is one     MfaRequired, MfaInvalid
    5  one transaction: the charges are taken back, the code is used up, the session opened,
       all on the condition that the password is still the one that was verified

Up to 3, an unknown user costs the same statements and the same hashing as a wrong password.
Nothing is said of an account to whoever has not shown its password. No connection is held while a
password is hashed.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate.security.accounts.emails import account_key
from headgate.security.accounts.errors import (
    AccountDisabled,
    Busy,
    InvalidCredentials,
    InvalidToken,
    MfaInvalid,
    MfaRequired,
    UserNotFound,
)
from headgate.security.accounts.gate import Attempt
from headgate.security.accounts.passwords import normal
from headgate.security.accounts.sessions import Sessions
from headgate.security.accounts.texts import known_id
from headgate.security.accounts.throttle import network_of
from headgate.security.accounts.totp import canonical_recovery, is_totp, matching_step
from headgate.security.accounts.user import Tokens
from headgate.security.identity import Identity

__all__ = ["Entering"]


@dataclass(frozen=True, slots=True)
class Factor:
    """A second factor that was found right, still to be used up."""

    amr: str
    step: int = 0
    macs: tuple[str, ...] = ()


def amr_of(identity: Identity) -> tuple[str, ...]:
    listed = identity.claims.get("amr")
    return tuple(str(one) for one in listed) if isinstance(listed, list) else ()


class Entering(Sessions):
    async def login(
        self,
        email: str,
        password: str,
        *,
        totp: str | None = None,
        ip: str = "",
        device: str | None = None,
        agent: str = "",
    ) -> Tokens:
        """Tokens of a new session.

        `totp` is the code of the app or a recovery code, once `MfaRequired` was raised. `ip` is
        the client's address: without it, all clients are slowed as one. `device` is what an
        earlier login answered as `Tokens.device`; `agent` is shown in the list of sessions.
        """
        await self._ready()
        wall = self._wall()
        account = account_key(email)
        attempt = await self._admit_login(account, ip, device, wall)
        users = self.tables.users
        async with self._reading() as db:
            query = sa.select(users).where(users.c.email_key == account)
            user = (await db.execute(query)).first()
        verdict = await self._hasher.verify(
            user.password_hash if user else self._hasher.nobody, self._typed(password)
        )
        if user is None or not verdict.is_right:
            user_id = user.id if user else ""
            self._emit("login_failed", user_id, ip=ip, reason="password" if user else "unknown")
            raise InvalidCredentials
        if not user.is_active:
            await self._give_back(attempt, wall, is_login=False)
            self._emit("login_failed", user.id, ip=ip, reason="disabled")
            raise AccountDisabled
        factor, mfa = None, None
        if user.totp_since is not None:
            if totp is None:
                await self._give_back(attempt, wall, is_login=False)
                raise MfaRequired
            factor, mfa = await self._second_factor(user, totp, ip, attempt.device_id)
        stale = {}
        if verdict.is_stale:
            try:
                stale = {"password_hash": await self._hasher.hash(self._typed(password))}
            except Busy:
                pass  # at the next login, then
        amr = ("pwd",) if factor is None else ("pwd", factor.amr)
        async with self._writing() as db:
            await self._refund(db, attempt, wall)
            if mfa is not None:
                await self._refund(db, mfa, wall, is_login=False)
            change = (
                sa.update(users)
                .where(
                    users.c.id == user.id,
                    users.c.password_hash == user.password_hash,
                    users.c.is_active,
                )
                .values(last_login_at=wall, **stale)
                .returning(users.c.version)
            )
            version = (await db.execute(change)).scalar_one_or_none()
            if version is None:
                raise InvalidCredentials  # changed or closed a moment ago
            if factor is not None:
                await self._use_up(db, user, factor)
            session_id, refresh_token = await self._open_session(db, user.id, amr, ip, agent)
            shown = await self._user(db, user)
        self._emit("logged_in", user.id, session_id, ip, amr=" ".join(amr))
        if stale:
            self._emit("password_rehashed", user.id)
        if factor is not None and factor.macs:
            self._emit("recovery_code_used", user.id, session_id, ip)
        access, expires_in_s = await self._access_token(shown, version, session_id, amr, wall)
        known = attempt.device_id or secrets.token_hex(16)
        return Tokens(
            user.id,
            session_id,
            access,
            expires_in_s,
            refresh_token,
            self._device_token(account, known, wall),
            amr,
        )

    async def step_up(
        self, access_token: str, *, totp: str | None = None, password: str = "", ip: str = ""
    ) -> Tokens:
        """Prove again that it is the user, before something that matters.

        By a code of the app, or a recovery code; by the password where no app is set up. The token
        says so in `amr`, and its `auth_time` is now. The refresh token stays as it is;
        `refresh_token` is empty.
        """
        identity = await self.verify_now(access_token)
        session_id, wall = str(identity.claims["sid"]), self._wall()
        async with self._reading() as db:
            user = await self._user_row(db, identity.subject)
        if totp is not None:
            if user.totp_since is None:
                raise MfaInvalid("no authenticator app is set up for this account")
            factor, mfa = await self._second_factor(user, totp, ip, "")
            proof = factor.amr
        elif user.totp_since is not None:
            raise MfaRequired  # a password alone must not renew what a second factor stood for
        else:
            await self._confirm(user.id, password, ip)
            factor, mfa, proof = None, None, "pwd"
        sessions = self.tables.sessions
        async with self._writing() as db:
            if mfa is not None:
                await self._refund(db, mfa, wall, is_login=False)
            if factor is not None:
                await self._use_up(db, user, factor)
            amr = tuple(dict.fromkeys((*amr_of(identity), proof)))
            change = (
                sa.update(sessions)
                .where(sessions.c.id == session_id, sessions.c.ended_at.is_(None))
                .values(amr=" ".join(amr), auth_at=wall)
            )
            if (await db.execute(change)).rowcount != 1:
                raise InvalidToken
            shown = await self._user(db, user)
        self._emit("stepped_up", user.id, session_id, ip, amr=proof)
        access, expires_in_s = await self._access_token(shown, user.version, session_id, amr, wall)
        return Tokens(user.id, session_id, access, expires_in_s, amr=amr)

    def is_proven(
        self, identity: Identity, *, mfa: bool = False, max_age_s: float | None = None
    ) -> bool:
        """Whether a second factor was given, and how long ago the user last proved to be one."""
        if mfa and not {"otp", "kba"}.intersection(amr_of(identity)):
            return False
        proven_at = identity.claims.get("auth_time")
        if max_age_s is None:
            return True
        return isinstance(proven_at, int) and self._wall() - proven_at <= max_age_s

    # ---- pieces

    def _typed(self, password: str) -> str:
        """In its one spelling; what cannot be a password is the empty one, which nobody has."""
        if len(password) > self.rules.password.length_max:
            return ""
        return normal(password) or ""

    async def _user_row(
        self, db: AsyncConnection, user_id: str, *, is_locking: bool = False
    ) -> Any:
        users = self.tables.users
        query = sa.select(users).where(users.c.id == known_id(user_id))
        row = (await db.execute(query.with_for_update() if is_locking else query)).first()
        if row is None:
            raise UserNotFound
        return row

    async def _confirm(self, user_id: str, password: str, ip: str) -> Any:
        """The user's row, when this is their password; charged, so that a stolen access token
        is not a place to guess it.
        """
        wall = self._wall()
        network = network_of(ip, self.rules.throttle)
        attempt = await self._admit(
            ip, wall, pair=self._lane_key("pair", "confirm", user_id, network)
        )
        async with self._reading() as db:
            user = await self._user_row(db, user_id)
        verdict = await self._hasher.verify(user.password_hash, self._typed(password))
        if not verdict.is_right:
            self._emit("login_failed", user_id, ip=ip, reason="confirmation")
            raise InvalidCredentials
        await self._give_back(attempt, wall)
        if not user.is_active:
            raise AccountDisabled
        return user

    async def _second_factor(
        self, user: Any, code: str, ip: str, device_id: str
    ) -> tuple[Factor, Attempt]:
        """Charged on its own: only who knows the password gets here, and it is six digits."""
        wall = self._wall()
        mfa = await self._admit(ip, wall, mfa=self._lane_key("mfa", user.id, device_id))
        code = code.strip().replace(" ", "")
        if not is_totp(code):
            canonical = canonical_recovery(code)
            macs = self._recovery_macs(user.id, canonical)
            recovery = self.tables.recovery
            query = sa.select(recovery.c.hash).where(
                recovery.c.user_id == user.id,
                recovery.c.hash.in_(macs),
                recovery.c.used_at.is_(None),
            )
            async with self._reading() as db:
                found = (await db.execute(query)).first()
            if found is not None:
                return Factor("kba", macs=macs), mfa
        else:
            secret = self._totp_secret(user)
            step = matching_step(secret, code, wall, self.rules.totp_drift, user.totp_step)
            if step is not None:
                return Factor("otp", step), mfa
        self._emit("mfa_failed", user.id, ip=ip)
        raise MfaInvalid

    async def _use_up(self, db: AsyncConnection, user: Any, factor: Factor) -> None:
        """On the condition that nobody else has, meanwhile."""
        users, recovery = self.tables.users, self.tables.recovery
        if factor.macs:
            change = (
                sa.update(recovery)
                .where(
                    recovery.c.user_id == user.id,
                    recovery.c.hash.in_(factor.macs),
                    recovery.c.used_at.is_(None),
                )
                .values(used_at=self._wall())
            )
        else:
            change = (
                sa.update(users)
                .where(
                    users.c.id == user.id,
                    users.c.totp_sealed == user.totp_sealed,
                    sa.or_(users.c.totp_step.is_(None), users.c.totp_step < factor.step),
                )
                .values(totp_step=factor.step)
            )
        if (await db.execute(change)).rowcount != 1:
            raise MfaInvalid

    def _totp_secret(self, user: Any) -> bytes:
        return self._sealer.open(user.totp_sealed, f"totp {user.id}")

    def _recovery_macs(self, user_id: str, canonical: str) -> tuple[str, ...]:
        data = f"{user_id}\0{canonical}".encode()
        return tuple(mac.hex() for mac in self._sealer.macs("recovery", data))

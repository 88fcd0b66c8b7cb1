"""Sessions: opened by a login, carried on by refresh tokens, ended by many."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate.security.accounts.errors import InvalidToken, TokenReused
from headgate.security.accounts.keyring import Keyring
from headgate.security.accounts.rotation import (
    Again,
    Parsed,
    Past,
    Reused,
    Rotate,
    State,
    Unknown,
    decide,
    fingerprint,
    parse,
    payload,
    rotated,
    written,
)
from headgate.security.accounts.signing import Unverified, issue
from headgate.security.accounts.texts import known_id, plain
from headgate.security.accounts.user import Session, Tokens, User
from headgate.security.accounts.verifying import Verifier
from headgate.security.identity import Identity

__all__ = ["ERASED", "NEVER", "Sessions", "user_of"]

TRIES: Final = 3
ERASED: Final = "erased"
"""A ticket that tells other processes of a user that is gone, as long as tokens are out."""
NEVER: Final = 1 << 31
"""A version that no token has."""
SEEN_AGAIN_S: Final = 60.0
"""Machines' clocks may differ by so much for one to see what another has ended."""


class Sessions(Keyring):
    audience: str
    _verifier: Verifier
    _heard_until: float = 0.0

    # ---- access tokens

    def verify(self, access_token: str) -> Identity:
        """Who an access token is from; raises `InvalidToken`. Asks no store."""
        self._loaded()
        try:
            return self._verifier.verify(access_token, self._keys, self._wall())
        except Unverified as why:
            raise InvalidToken(f"this access token does not hold: {why}") from None

    async def verify_now(self, access_token: str) -> Identity:
        """As `verify`, and the store says that session and user are as the token has it."""
        await self._ready()
        identity = self.verify(access_token)
        users, sessions = self.tables.users, self.tables.sessions
        query = (
            sa.select(users.c.version)
            .join(sessions, sessions.c.user_id == users.c.id)
            .where(
                sessions.c.id == identity.claims["sid"],
                sessions.c.ended_at.is_(None),
                users.c.is_active,
            )
        )
        async with self._reading() as db:
            version = (await db.execute(query)).scalar_one_or_none()
        if version is None or version != identity.claims["ver"]:
            raise InvalidToken("this access token does not hold: the session has ended")
        return identity

    def _keys_changed(self) -> None:
        self._verifier.forget()

    async def _access_token(
        self, user: User, version: int, session_id: str, amr: Sequence[str], auth_at: float
    ) -> tuple[str, float]:
        wall = self._wall()
        issued = int(wall)
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "sub": user.id,
            "aud": self.audience,
            "iat": issued,
            "exp": issued + int(self.rules.access_life_s),
            "jti": secrets.token_hex(8),
            "sid": session_id,
            "ver": version,
            "auth_time": int(auth_at),
            "amr": list(amr),
            "roles": sorted(user.roles),
            "scope": " ".join(sorted(user.scopes)),
        }
        return issue(self._signing_key(wall), claims), claims["exp"] - wall

    # ---- opening and going on

    def _refresh_token(self, session_id: str, number: int) -> str:
        body = payload(session_id, number, secrets.token_bytes(32))
        return written(body, self._sealer.mac("refresh", body))

    async def _open_session(
        self, db: AsyncConnection, user_id: str, amr: Sequence[str], ip: str, agent: str
    ) -> tuple[str, str]:
        """A new session, as (its id, its refresh token)."""
        sessions, wall = self.tables.sessions, self._wall()
        session_id = secrets.token_hex(16)
        token = self._refresh_token(session_id, 0)
        ends_by = wall + self.rules.session_life_s
        row = {
            "id": session_id,
            "user_id": user_id,
            "created_at": wall,
            "used_at": wall,
            "expires_at": min(ends_by, wall + self.rules.refresh_life_s),
            "ends_by": ends_by,
            "ip": plain(ip, 64),
            "agent": plain(agent, 200),
            "amr": " ".join(amr),
            "auth_at": wall,
            "number": 0,
            "fingerprint": fingerprint(token),
            "pasts": "[]",
        }
        await db.execute(sa.insert(sessions).values(**row))
        surplus = (
            sa.select(sessions.c.id)
            .where(sessions.c.user_id == user_id, sessions.c.ended_at.is_(None))
            .order_by(sessions.c.used_at.desc(), sessions.c.id)
            .offset(self.rules.sessions_max)
        )
        await self._end(db, sessions.c.id.in_(surplus), "surplus")
        return session_id, token

    async def refresh(self, refresh_token: str, *, ip: str = "") -> Tokens:
        """New tokens for a refresh token, which is used up by it.

        Raises `InvalidToken`; `TokenReused` when it was used before, which ends its session.
        """
        await self._ready()
        parsed = parse(refresh_token)
        if parsed is None or not self._sealer.is_mac("refresh", parsed.payload, parsed.signature):
            raise InvalidToken
        for _ in range(TRIES):
            got = await self._refresh(refresh_token, parsed, ip)
            if got is not None:
                return got
        raise InvalidToken  # tabs without end; the client may try again

    async def _refresh(self, token: str, parsed: Parsed, ip: str) -> Tokens | None:
        """One try; None when another call changed the session in between."""
        users, sessions = self.tables.users, self.tables.sessions
        wall = self._wall()
        query = (
            sa.select(
                sessions, users.c.is_active, users.c.version,
                users.c.email, users.c.totp_since, users.c.created_at.label("joined_at"),
            )
            .join(users, users.c.id == sessions.c.user_id)
            .where(sessions.c.id == parsed.session_id)
        )  # fmt: skip
        async with self._reading() as db:
            row = (await db.execute(query)).first()
            if row is None:
                raise InvalidToken
            roles, scopes = await self._grants(db, row.user_id)
        if row.ended_at is not None or row.expires_at <= wall or not row.is_active:
            raise InvalidToken
        state = State(row.number, row.fingerprint, _pasts(row.pasts))
        following = self._refresh_token(row.id, row.number + 1)
        answer = decide(state, token, parsed.number, wall, self.rules.refresh_grace_s)
        match answer:
            case Unknown():
                raise InvalidToken
            case Reused():
                async with self._writing() as db:
                    ended = await self._end(db, sessions.c.id == row.id, "token_reused")
                self._ended(ended, wall)
                if ended:
                    self._emit("token_reused", row.user_id, row.id, ip)
                raise TokenReused
            case Again(newest):
                following = newest
            case Rotate():
                after = rotated(state, token, following, wall, self.rules.refresh_grace_s)
                change = (
                    sa.update(sessions)
                    .where(
                        sessions.c.id == row.id,
                        sessions.c.fingerprint == state.fingerprint,
                        sessions.c.ended_at.is_(None),
                    )
                    .values(
                        number=after.number,
                        fingerprint=after.fingerprint,
                        pasts=_written_pasts(after.pasts),
                        used_at=wall,
                        expires_at=min(row.ends_by, wall + self.rules.refresh_life_s),
                    )
                )
                async with self._writing() as db:
                    if (await db.execute(change)).rowcount != 1:
                        return None
                self._emit("token_refreshed", row.user_id, row.id, ip)
        amr = tuple(row.amr.split())
        user = User(row.user_id, row.email, roles=roles, scopes=scopes)
        access, expires_in_s = await self._access_token(user, row.version, row.id, amr, row.auth_at)
        return Tokens(row.user_id, row.id, access, expires_in_s, following, amr=amr)

    # ---- ending

    async def logout(self, refresh_token: str) -> None:
        """End the session of a refresh token, also one that was used before. Never raises for a
        token that is none: whoever wants to be out is out.
        """
        await self._ready()
        parsed = parse(refresh_token)
        if parsed is None or not self._sealer.is_mac("refresh", parsed.payload, parsed.signature):
            return
        await self._end_where(self.tables.sessions.c.id == parsed.session_id, "logout")

    async def end_session(self, session_id: str, *, user_id: str | None = None) -> bool:
        """End one session; with `user_id` only if it is that user's. Whether there was one."""
        await self._ready()
        condition = self.tables.sessions.c.id == known_id(session_id)
        if user_id is not None:
            condition = sa.and_(condition, self.tables.sessions.c.user_id == user_id)
        return bool(await self._end_where(condition, "ended"))

    async def logout_all(self, user_id: str, *, keep_session: str = "") -> int:
        """End every session of a user, but for one; answers how many there were."""
        await self._ready()
        sessions = self.tables.sessions
        condition = sa.and_(
            sessions.c.user_id == known_id(user_id), sessions.c.id != known_id(keep_session)
        )
        return await self._end_where(condition, "logout_all")

    async def sessions(self, user_id: str) -> list[Session]:
        """The open sessions of a user, the latest used first."""
        sessions = self.tables.sessions
        query = (
            sa.select(sessions)
            .where(
                sessions.c.user_id == known_id(user_id),
                sessions.c.ended_at.is_(None),
                sessions.c.expires_at > self._wall(),
            )
            .order_by(sessions.c.used_at.desc(), sessions.c.id)
        )
        async with self._reading() as db:
            rows = (await db.execute(query)).all()
        return [
            Session(
                row.id, row.user_id, row.created_at, row.used_at, row.expires_at,
                row.ip, row.agent, tuple(row.amr.split()),
            )
            for row in rows
        ]  # fmt: skip

    async def _end_where(self, condition: sa.ColumnElement[bool], reason: str) -> int:
        async with self._writing() as db:
            ended = await self._end(db, condition, reason)
        self._ended(ended, self._wall())
        for session_id, user_id in ended:
            self._emit("session_ended", user_id, session_id, reason=reason)
        return len(ended)

    async def _end(
        self, db: AsyncConnection, condition: sa.ColumnElement[bool], reason: str
    ) -> list[tuple[str, str]]:
        """End them in this transaction, as (session, user); `_ended` is to be called after it."""
        sessions = self.tables.sessions
        chosen = (
            sa.select(sessions.c.id)
            .where(condition, sessions.c.ended_at.is_(None))
            .order_by(sessions.c.id)
            .with_for_update()
        )
        change = (
            sa.update(sessions)
            .where(sessions.c.id.in_(chosen))
            .values(ended_at=self._wall(), end_reason=reason)
            .returning(sessions.c.id, sessions.c.user_id)
        )
        return [(row.id, row.user_id) for row in (await db.execute(change)).all()]

    def _ended(self, ended: Sequence[tuple[str, str]], wall: float) -> None:
        for session_id, _ in ended:
            self._verifier.end_session(session_id, wall)

    async def tend(self) -> None:
        await super().tend()
        await self._hear(self._wall())

    async def _hear(self, wall: float) -> None:
        """Learn which sessions and rights other processes have ended."""
        users, sessions, tickets = self.tables.users, self.tables.sessions, self.tables.tickets
        since = max(self._heard_until, wall - self.rules.access_life_s) - SEEN_AGAIN_S
        async with self._reading() as db:
            ended = (
                await db.execute(sa.select(sessions.c.id).where(sessions.c.ended_at >= since))
            ).all()
            raised = (
                await db.execute(
                    sa.select(users.c.id, users.c.version).where(
                        users.c.version_at >= since, users.c.version > 0
                    )
                )
            ).all()
            erased = (
                await db.execute(
                    sa.select(tickets.c.user_id).where(
                        tickets.c.kind == ERASED, tickets.c.created_at >= since
                    )
                )
            ).all()
        self._verifier.prune(wall)
        for row in ended:
            self._verifier.end_session(row.id, wall)
        for row in raised:
            self._verifier.raise_version(row.id, row.version, wall)
        for row in erased:
            self._verifier.raise_version(row.user_id, NEVER, wall)
        self._heard_until = wall

    # ---- rights

    async def _grants(
        self, db: AsyncConnection, user_id: str
    ) -> tuple[frozenset[str], frozenset[str]]:
        grants = self.tables.grants
        query = sa.select(grants.c.kind, grants.c.name).where(grants.c.user_id == user_id)
        rows = (await db.execute(query)).all()
        return (
            frozenset(row.name for row in rows if row.kind == "role"),
            frozenset(row.name for row in rows if row.kind == "scope"),
        )

    async def _user(self, db: AsyncConnection, row: Any) -> User:
        """A row of users, with its rights."""
        roles, scopes = await self._grants(db, row.id)
        return user_of(row, roles, scopes)


def user_of(
    row: Any, roles: frozenset[str] = frozenset(), scopes: frozenset[str] = frozenset()
) -> User:
    return User(
        id=row.id,
        email=row.email,
        email_verified_at=row.email_verified_at,
        created_at=row.created_at,
        last_login_at=row.last_login_at,
        is_active=row.is_active,
        has_mfa=row.totp_since is not None,
        roles=roles,
        scopes=scopes,
    )


def _pasts(text: str) -> tuple[Past, ...]:
    return tuple(Past(one[0], one[1], bytes.fromhex(one[2])) for one in json.loads(text))


def _written_pasts(pasts: Sequence[Past]) -> str:
    return json.dumps([[past.fingerprint, past.used_at, past.successor.hex()] for past in pasts])

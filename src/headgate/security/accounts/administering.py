"""What administrators and scripts do: find, grant, close, unlock, export, erase.

Nothing here asks whether the caller may; the application's routes do.
"""

from __future__ import annotations

import secrets
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate.security.accounts.changing import Changing
from headgate.security.accounts.emails import account_key
from headgate.security.accounts.errors import UserNotFound
from headgate.security.accounts.sessions import ERASED, NEVER, user_of
from headgate.security.accounts.texts import known_id, storable
from headgate.security.accounts.throttle import network_of
from headgate.security.accounts.user import Page, User

__all__ = ["Administering"]

PAGE_MAX: Final = 200


class Administering(Changing):
    async def user(self, user_id: str) -> User:
        """Raises `UserNotFound`."""
        async with self._reading() as db:
            return await self._user(db, await self._user_row(db, user_id))

    async def user_by_email(self, email: str) -> User | None:
        async with self._reading() as db:
            row = await self._by_address(db, account_key(email))
            return None if row is None else await self._user(db, row)

    async def users(
        self,
        *,
        search: str = "",
        role: str = "",
        is_active: bool | None = None,
        after: str = "",
        limit: int = 50,
    ) -> Page:
        """A page of users by their addresses; `search` is a part of the address."""
        users, grants = self.tables.users, self.tables.grants
        limit = max(1, min(limit, PAGE_MAX))
        query = sa.select(users).order_by(users.c.email_key).limit(limit + 1)
        if search:
            part = storable(search.casefold())
            query = query.where(users.c.email_key.contains(part, autoescape=True))
        if role:
            has_role = sa.select(grants.c.user_id).where(
                grants.c.kind == "role", grants.c.name == storable(role)
            )
            query = query.where(users.c.id.in_(has_role))
        if is_active is not None:
            query = query.where(users.c.is_active == is_active)
        if after:
            query = query.where(users.c.email_key > storable(after))
        async with self._reading() as db:
            rows = (await db.execute(query)).all()
            ids = [row.id for row in rows[:limit]]
            held = await db.execute(sa.select(grants).where(grants.c.user_id.in_(ids)))
            rights: dict[tuple[str, str], set[str]] = {}
            for grant in held:
                rights.setdefault((grant.user_id, grant.kind), set()).add(grant.name)
        found = tuple(
            user_of(
                row,
                frozenset(rights.get((row.id, "role"), ())),
                frozenset(rights.get((row.id, "scope"), ())),
            )
            for row in rows[:limit]
        )
        return Page(found, rows[limit - 1].email_key if len(rows) > limit else "")

    # ---- rights

    async def grant_role(self, user_id: str, role: str) -> None:
        """In force with the next access token."""
        await self._grant(user_id, "role", role)
        self._emit("role_granted", user_id, role=role)

    async def revoke_role(self, user_id: str, role: str) -> None:
        """In force at once: access tokens that are out have to be refreshed."""
        await self._revoke(user_id, "role", role)
        self._emit("role_revoked", user_id, role=role)

    async def grant_scope(self, user_id: str, scope: str) -> None:
        await self._grant(user_id, "scope", scope)
        self._emit("scope_granted", user_id, scope=scope)

    async def revoke_scope(self, user_id: str, scope: str) -> None:
        await self._revoke(user_id, "scope", scope)
        self._emit("scope_revoked", user_id, scope=scope)

    async def _grant(self, user_id: str, kind: str, name: str) -> None:
        is_word = 0 < len(name) <= 100 and name.isprintable() and " " not in name
        if not is_word:
            raise ValueError(f"a {kind} is one word of up to 100 characters, not {name[:100]!r}")
        insert = self._insert(self.tables.grants).values(user_id=user_id, kind=kind, name=name)
        async with self._writing() as db:
            await self._user_row(db, user_id, is_locking=True)
            await db.execute(insert.on_conflict_do_nothing())

    async def _revoke(self, user_id: str, kind: str, name: str) -> None:
        grants = self.tables.grants
        gone = sa.delete(grants).where(
            grants.c.user_id == user_id, grants.c.kind == kind, grants.c.name == storable(name)
        )
        async with self._writing() as db:
            await self._user_row(db, user_id, is_locking=True)
            await db.execute(gone)
            version = await self._raise(db, user_id)
        self._verifier.raise_version(user_id, version, self._wall())

    async def _raise(self, db: AsyncConnection, user_id: str, **also: Any) -> int:
        """Put an end to the access tokens that are out; answers the new version."""
        users = self.tables.users
        change = (
            sa.update(users)
            .where(users.c.id == known_id(user_id))
            .values(version=users.c.version + 1, version_at=self._wall(), **also)
            .returning(users.c.version)
        )
        version = (await db.execute(change)).scalar_one_or_none()
        if version is None:
            raise UserNotFound
        return int(version)

    # ---- closing

    async def disable_user(self, user_id: str, *, reason: str = "") -> None:
        """Close the account: no login, no refresh, and access tokens are refused."""
        await self._ready()
        wall = self._wall()
        async with self._writing() as db:
            version = await self._raise(db, user_id, is_active=False)
            condition = self.tables.sessions.c.user_id == user_id
            ended = await self._end(db, condition, "disabled")
            await self._drop_tickets(db, user_id, "reset", "email")
        self._verifier.raise_version(user_id, version, wall)
        self._ended(ended, wall)
        self._emit("user_disabled", user_id, reason=reason, sessions=len(ended))

    async def enable_user(self, user_id: str) -> None:
        async with self._writing() as db:
            await self._raise(db, user_id, is_active=True)
        self._emit("user_enabled", user_id)

    async def unlock(self, email: str, *, ip: str = "") -> None:
        """Forget failed logins: of the account from everywhere, and with `ip` from there too."""
        account = account_key(email)
        names = [self._lane_key("account", account), self._lane_key("fresh", account)]
        async with self._reading() as db:
            row = await self._by_address(db, account)
        if row is not None:
            names.append(self._lane_key("mfa", row.id, ""))
        if ip:
            network = network_of(ip, self.rules.throttle)
            names.append(self._lane_key("pair", account, network))
            names.append(self._lane_key("network", network))
        counts = self.tables.counts
        async with self._writing() as db:
            await db.execute(sa.delete(counts).where(counts.c.key.in_(names)))
        self._emit("user_unlocked", row.id if row is not None else "", ip=ip)

    # ---- data protection

    async def reseal(self) -> int:
        """Seal again, with the newest secret, what an older one has sealed; answers how much.

        After it, nothing stored needs the older secret. What it has signed does: sessions, known
        devices and recovery codes made under it end when it is taken away.
        """
        await self._ready()
        users, keys = self.tables.users, self.tables.keys
        async with self._reading() as db:
            held = (await db.execute(sa.select(keys))).all()
        count = 0
        for row in held:
            about = self._about_key(row.number, row.kid)
            count += await self._reseal(keys, keys.c.number, keys.c.sealed, row.number, about)
        after = ""
        while True:
            query = (
                sa.select(users.c.id)
                .where(users.c.totp_sealed.is_not(None), users.c.id > after)
                .order_by(users.c.id)
                .limit(PAGE_MAX)
            )
            async with self._reading() as db:
                ids = [row.id for row in (await db.execute(query)).all()]
            if not ids:
                return count
            for user_id in ids:
                about = f"totp {user_id}"
                count += await self._reseal(users, users.c.id, users.c.totp_sealed, user_id, about)
            after = ids[-1]

    async def _reseal(
        self, table: sa.Table, key: sa.Column[Any], column: sa.Column[Any], of: Any, about: str
    ) -> bool:
        async with self._reading() as db:
            sealed = (await db.execute(sa.select(column).where(key == of))).scalar_one_or_none()
        if sealed is None or self._sealer.is_newest(sealed):
            return False
        again = self._sealer.seal(self._sealer.open(sealed, about), about)
        change = sa.update(table).where(key == of, column == sealed).values({column: again})
        async with self._writing() as db:
            return bool((await db.execute(change)).rowcount)

    async def export_user(self, user_id: str) -> dict[str, Any]:
        """Everything that is kept about a user, as plain data; secrets only by their being."""
        sessions, recovery = self.tables.sessions, self.tables.recovery
        async with self._reading() as db:
            row = await self._user_row(db, user_id)
            user = await self._user(db, row)
            opened = (
                await db.execute(
                    sa.select(sessions)
                    .where(sessions.c.user_id == user_id)
                    .order_by(sessions.c.created_at)
                )
            ).all()
            left = sa.select(sa.func.count()).where(
                recovery.c.user_id == user_id, recovery.c.used_at.is_(None)
            )
            codes = (await db.execute(left)).scalar_one()
        self._emit("user_exported", user_id)
        return {
            "id": user.id,
            "email": user.email,
            "email_verified_at": user.email_verified_at,
            "created_at": user.created_at,
            "last_login_at": user.last_login_at,
            "password_changed_at": row.password_changed_at,
            "is_active": user.is_active,
            "roles": sorted(user.roles),
            "scopes": sorted(user.scopes),
            "authenticator_since": row.totp_since,
            "recovery_codes_left": codes,
            "sessions": [
                {
                    "id": one.id,
                    "created_at": one.created_at,
                    "used_at": one.used_at,
                    "ended_at": one.ended_at,
                    "end_reason": one.end_reason,
                    "ip": one.ip,
                    "agent": one.agent,
                }
                for one in opened
            ],
        }

    async def erase_user(self, user_id: str) -> None:
        """Delete a user and everything kept about them, for good.

        What the application keeps is its own to delete. For the life of an access token a note
        with the bare id stays, so that other processes refuse the tokens that are out.
        """
        await self._ready()
        tables, wall = self.tables, self._wall()
        async with self._writing() as db:
            row = await self._user_row(db, user_id, is_locking=True)
            for table in (tables.grants, tables.sessions, tables.recovery):
                await db.execute(sa.delete(table).where(table.c.user_id == user_id))
            mail = sa.or_(
                tables.tickets.c.user_id == user_id, tables.tickets.c.email_key == row.email_key
            )
            await db.execute(sa.delete(tables.tickets).where(mail))
            await db.execute(sa.delete(tables.users).where(tables.users.c.id == user_id))
            note = {
                "hash": secrets.token_hex(32),
                "kind": ERASED,
                "user_id": user_id,
                "email": "",
                "email_key": "",
                "bound": "",
                "created_at": wall,
                "expires_at": wall + self.rules.access_life_s + 2 * self.rules.upkeep_s + 60,
            }
            await db.execute(sa.insert(tables.tickets).values(**note))
        names = [self._lane_key(lane, row.email_key) for lane in ("account", "fresh", "mail")]
        names.append(self._lane_key("mfa", user_id, ""))
        async with self._writing() as db:
            await db.execute(sa.delete(tables.counts).where(tables.counts.c.key.in_(names)))
        self._verifier.raise_version(user_id, NEVER, wall)
        self._emit("user_erased", user_id)

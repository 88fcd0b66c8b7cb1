"""Changing a password one knows, and resetting one that is forgotten.

Theory of operation. Both end all other sessions, and every reset link that is out: links are bound
to the hash that was in force when they were made. A reset is asked for without an answer that
depends on the account; the account is looked up after the answer. It does not take a second factor
off: a mailbox is one factor.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from headgate.security.accounts.emails import Address, address
from headgate.security.accounts.errors import (
    AccountDisabled,
    Busy,
    InvalidCredentials,
    InvalidToken,
    PasswordTooWeak,
)
from headgate.security.accounts.joining import Joining
from headgate.security.accounts.texts import known_id
from headgate.security.accounts.tickets import binding
from headgate.security.accounts.user import User

__all__ = ["Changing"]


class Changing(Joining):
    async def change_password(
        self, user_id: str, current: str, new: str, *, keep_session: str = "", ip: str = ""
    ) -> None:
        """Needs the current one. Ends every session but `keep_session`."""
        await self._ready()
        user = await self._confirm(user_id, current, ip)
        spelled = self.check_password(new, user.email)
        if spelled == self._typed(current):
            raise PasswordTooWeak(("unchanged",))
        password_hash = await self._hasher.hash(spelled)
        is_done = await self._set(user, password_hash, keep_session=keep_session)
        if not is_done:
            raise InvalidCredentials  # it was changed in between: it is not the current one
        self._emit("password_changed", user_id, ip=ip)
        self._tell("password_changed", user)

    async def request_reset(self, email: str, *, ip: str = "") -> None:
        """Send a link to set a new password, where there is such an account. Never says."""
        outbox = await self._ready()
        await self._admit_asking(ip)

        async def work() -> None:
            wanted = address(email)
            if wanted is None or not await self._may_mail(wanted):
                return
            async with self._writing() as db:
                user = await self._by_address(db, wanted.key)
                if user is None or not user.is_active:
                    return
                there = Address(user.email, user.email_key)
                bound = binding(user.password_hash)
                token = await self._ticket(db, "reset", user.id, there, bound)
            self._emit("reset_asked", user.id, ip=ip)
            await self._mail("reset_password", self._as_user(user), token)

        outbox.put(work)

    async def reset_password(self, token: str, new: str) -> User:
        """Set a new password by a link. A password that is refused leaves the link good."""
        await self._ready()
        async with self._reading() as db:
            ticket = await self._look(db, token, "reset")
            user = await self._user_row(db, ticket.user_id)
        if binding(user.password_hash) != ticket.bound or user.email_key != ticket.email_key:
            raise InvalidToken("password or address were changed meanwhile; ask again")
        if not user.is_active:
            raise AccountDisabled
        password_hash = await self._hasher.hash(self.check_password(new, user.email))
        if not await self._set(user, password_hash, ticket=ticket):
            raise InvalidToken("the password was changed meanwhile; ask again")
        self._emit("password_reset", user.id)
        self._tell("password_changed", user)
        return self._as_user(user)

    async def _set(
        self, user: Any, password_hash: str, *, keep_session: str = "", ticket: Any = None
    ) -> bool:
        """Put a hash in place of the one that was seen, and end what rested on it."""
        users, sessions, wall = self.tables.users, self.tables.sessions, self._wall()
        values: dict[str, Any] = {"password_hash": password_hash, "password_changed_at": wall}
        if ticket is not None and user.email_verified_at is None:
            values["email_verified_at"] = wall  # the mail has arrived
        change = (
            sa.update(users)
            .where(users.c.id == user.id, users.c.password_hash == user.password_hash)
            .values(**values)
        )
        others = sa.and_(sessions.c.user_id == user.id, sessions.c.id != known_id(keep_session))
        async with self._writing() as db:
            if (await db.execute(change)).rowcount != 1:
                return False
            if ticket is not None:
                await self._tear(db, ticket)
            await self._drop_tickets(db, user.id, "reset", "email")
            ended = await self._end(db, others, "password_changed")
        self._ended(ended, wall)
        for session_id, user_id in ended:
            self._emit("session_ended", user_id, session_id, reason="password_changed")
        return True

    def _tell(self, kind: str, user: Any) -> None:
        """Word to the owner; what has happened does not hang on it."""
        outbox = self._outbox
        try:
            if outbox is not None:
                outbox.put(lambda: self._mail(kind, self._as_user(user)))
        except Busy:
            self._emit("mail_failed", user.id, reason="Busy")

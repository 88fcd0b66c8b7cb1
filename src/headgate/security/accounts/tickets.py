"""Single-use tokens that are sent by mail: stored hashed, with an end, bound to what they change.

Theory of operation. A ticket is looked at first (to refuse early, and to know what a new password
must not be), and used up later, in the transaction that does what it is for, by one UPDATE on the
condition that it is unused. Of any number of calls at once, one succeeds. A ticket is bound to the
password hash or address it was made under, and falls with it.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate.security.accounts.emails import Address
from headgate.security.accounts.entering import Entering
from headgate.security.accounts.errors import InvalidToken, TooManyAttempts
from headgate.security.accounts.throttle import network_of
from headgate.security.accounts.user import User

__all__ = ["TicketKind", "Tickets", "binding"]

PREFIX: Final = "hgt_"
TicketKind = Literal["register", "verify", "reset", "email"]


def binding(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def hashed(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


class Tickets(Entering):
    async def _ticket(
        self,
        db: AsyncConnection,
        kind: TicketKind,
        user_id: str,
        address: Address,
        bound: str,
        *,
        password_hash: str | None = None,
    ) -> str:
        """A new ticket; answers its token, which is stored nowhere."""
        token = PREFIX + secrets.token_urlsafe(32)
        wall = self._wall()
        life_s = self.rules.reset_life_s if kind == "reset" else self.rules.verify_life_s
        await db.execute(
            sa.insert(self.tables.tickets).values(
                hash=hashed(token),
                kind=kind,
                user_id=user_id,
                email=address.email,
                email_key=address.key,
                password_hash=password_hash,
                bound=bound,
                created_at=wall,
                expires_at=wall + life_s,
            )
        )
        return token

    async def _look(self, db: AsyncConnection, token: str, *kinds: TicketKind) -> Any:
        """The row of a ticket that may be used now."""
        tickets = self.tables.tickets
        query = sa.select(tickets).where(
            tickets.c.hash == hashed(token),
            tickets.c.kind.in_(kinds),
            tickets.c.used_at.is_(None),
            tickets.c.expires_at > self._wall(),
        )
        row = (await db.execute(query)).first() if len(token) < 200 else None
        if row is None:
            raise InvalidToken("this link has been used, or is too old; ask for another one")
        return row

    async def _tear(self, db: AsyncConnection, ticket: Any) -> None:
        """Use a ticket up, in this transaction; raises when somebody else has."""
        tickets = self.tables.tickets
        change = (
            sa.update(tickets)
            .where(tickets.c.hash == ticket.hash, tickets.c.used_at.is_(None))
            .values(used_at=self._wall())
        )
        if (await db.execute(change)).rowcount != 1:
            raise InvalidToken("this link has been used; ask for another one")

    async def _drop_tickets(self, db: AsyncConnection, user_id: str, *kinds: TicketKind) -> None:
        """Unused ones of a user."""
        tickets = self.tables.tickets
        await db.execute(
            sa.delete(tickets).where(
                tickets.c.user_id == user_id,
                tickets.c.kind.in_(kinds),
                tickets.c.used_at.is_(None),
            )
        )

    async def _admit_asking(self, ip: str) -> None:
        """Whoever asks for mail or an account pays in the lane of the network."""
        network = network_of(ip, self.rules.throttle)
        await self._admit(ip, self._wall(), asking=self._lane_key("asking", network))

    async def _may_mail(self, address: Address) -> bool:
        """Not more mail than bearable to one address. Called after the answer."""
        try:
            key = self._lane_key("mail", address.key)
            await self._admit("", self._wall(), mail=key)
        except TooManyAttempts:
            self._emit("mail_suppressed")
            return False
        return True

    async def _by_address(self, db: AsyncConnection, key: str) -> Any:
        users = self.tables.users
        return (await db.execute(sa.select(users).where(users.c.email_key == key))).first()

    @staticmethod
    def _as_user(row: Any, email: str = "") -> User:
        """For mail, without rights."""
        return User(
            row.id,
            email or row.email,
            row.email_verified_at,
            row.created_at,
            row.last_login_at,
            row.is_active,
            row.totp_since is not None,
        )

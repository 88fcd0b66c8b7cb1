"""Registration, and proof of an address.

Theory of operation. With e-mail verification, a registration is no user: it is a ticket that holds
the address and the password hash, and becomes a user when its link is followed. So

    nobody can occupy an address that is not theirs
    two registrations of one address do not mix: each link brings its own password
    the answer is the same for a new and a taken address, and so is the work before it: check the
    form, charge the lane, hash. All else is done after the answer. Whoever has the address gets
    mail in either case: `confirm_registration` with a ticket, or `already_registered`, with one
    to reset a forgotten password.

Without verification a user exists at once, and `EmailTaken` cannot be avoided.
"""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate.security.accounts.emails import Address, address
from headgate.security.accounts.errors import (
    EmailInvalid,
    EmailTaken,
    InvalidToken,
    PasswordTooWeak,
)
from headgate.security.accounts.passwords import normal, weaknesses
from headgate.security.accounts.tickets import Tickets, binding
from headgate.security.accounts.user import User

__all__ = ["Joining"]


class Joining(Tickets):
    def check_password(self, password: str, email: str = "") -> str:
        """A new password in its one spelling; raises `PasswordTooWeak`."""
        about = [self.issuer.rpartition("//")[2].partition("/")[0].partition(":")[0]]
        about += about[0].split(".")[:-1]
        found = address(email)
        if found is not None:
            local, _, domain = found.key.rpartition("@")
            about += [found.key, local, *local.replace("_", ".").replace("+", ".").split(".")]
            about.append(domain.partition(".")[0])
        reasons = weaknesses(password, self.rules.password, about)
        spelled = normal(password)
        if reasons or spelled is None:
            raise PasswordTooWeak(reasons or ("unreadable",))
        return spelled

    def _address(self, email: str) -> Address:
        found = address(email)
        if found is None:
            raise EmailInvalid
        return found

    async def register(self, email: str, password: str, *, ip: str = "") -> User | None:
        """Ask for an account: None, and mail is on its way, whether or not the address is taken.

        Without `Rules.verify_email`: the new user, or `EmailTaken`.
        """
        outbox = await self._ready()
        wanted = self._address(email)
        spelled = self.check_password(password, email)
        await self._admit_asking(ip)
        password_hash = await self._hasher.hash(spelled)
        if self.rules.verify_email:
            outbox.put(lambda: self._answer_registration(wanted, password_hash, ip))
            return None
        user_id = secrets.token_hex(16)
        await self._join(user_id, wanted, password_hash, verified_at=None)
        self._emit("registered", user_id, ip=ip)
        return User(user_id, wanted.email, created_at=self._wall())

    async def _answer_registration(self, wanted: Address, password_hash: str, ip: str) -> None:
        if not await self._may_mail(wanted):
            return
        async with self._writing() as db:
            user = await self._by_address(db, wanted.key)
            if user is None:
                shown = User(secrets.token_hex(16), wanted.email)
                token = await self._ticket(
                    db, "register", shown.id, wanted, "", password_hash=password_hash
                )
            else:
                shown = self._as_user(user)
                there = Address(user.email, user.email_key)
                token = await self._ticket(db, "reset", user.id, there, binding(user.password_hash))
        self._emit("registration_asked", "" if user is None else user.id, ip=ip)
        kind = "confirm_registration" if user is None else "already_registered"
        await self._mail(kind, shown, token)

    async def _join(
        self, user_id: str, wanted: Address, password_hash: str, verified_at: float | None
    ) -> None:
        async with self._writing() as db:
            if not await self._insert_user(db, user_id, wanted, password_hash, verified_at):
                raise EmailTaken

    async def _insert_user(
        self,
        db: AsyncConnection,
        user_id: str,
        wanted: Address,
        password_hash: str,
        verified_at: float | None,
    ) -> bool:
        wall = self._wall()
        insert = (
            self._insert(self.tables.users)
            .values(
                id=user_id,
                email=wanted.email,
                email_key=wanted.key,
                email_verified_at=verified_at,
                password_hash=password_hash,
                password_changed_at=wall,
                created_at=wall,
                is_active=True,
                version=0,
                version_at=wall,
            )
            .on_conflict_do_nothing()
        )
        got = await db.execute(insert.returning(self.tables.users.c.id))
        return got.first() is not None

    async def create_user(self, email: str, password: str, *, is_verified: bool = True) -> User:
        """By an administrator or a script, without mail. Raises `EmailTaken`."""
        await self._ready()
        wanted = self._address(email)
        password_hash = await self._hasher.hash(self.check_password(password, email))
        user_id, wall = secrets.token_hex(16), self._wall()
        verified_at = wall if is_verified else None
        await self._join(user_id, wanted, password_hash, verified_at)
        self._emit("registered", user_id, reason="administrator")
        return User(user_id, wanted.email, verified_at, wall)

    async def verify_email(self, token: str) -> User:
        """Follow the link of a mail: the registration becomes a user, or the address is proven."""
        await self._ready()
        users, tickets, wall = self.tables.users, self.tables.tickets, self._wall()
        async with self._reading() as db:
            ticket = await self._look(db, token, "register", "verify")
        wanted = Address(ticket.email, ticket.email_key)
        async with self._writing() as db:
            if ticket.kind == "register":
                is_new = await self._insert_user(
                    db, ticket.user_id, wanted, ticket.password_hash, wall
                )
                if not is_new:
                    raise InvalidToken("this address has an account by now; log in, or reset")
                await self._tear(db, ticket)
                others = sa.delete(tickets).where(
                    tickets.c.email_key == wanted.key,
                    tickets.c.kind == "register",
                    tickets.c.hash != ticket.hash,
                )
                await db.execute(others)
            else:
                change = (
                    sa.update(users)
                    .where(users.c.id == ticket.user_id, users.c.email_key == wanted.key)
                    .values(email_verified_at=wall)
                )
                if (await db.execute(change)).rowcount != 1:
                    raise InvalidToken("the address was changed meanwhile")
                await self._tear(db, ticket)
            user = await self._user(db, await self._user_row(db, ticket.user_id))
        if ticket.kind == "register":
            self._emit("registered", user.id)
        self._emit("email_verified", user.id)
        return user

    async def request_verification(self, user_id: str, *, ip: str = "") -> None:
        """Send a link to prove an address that was not: where verification was off."""
        outbox = await self._ready()
        await self._admit_asking(ip)

        async def work() -> None:
            async with self._reading() as db:
                user = await self._user_row(db, user_id)
            there = Address(user.email, user.email_key)
            if user.email_verified_at is not None or not await self._may_mail(there):
                return
            async with self._writing() as db:
                token = await self._ticket(db, "verify", user.id, there, "")
            await self._mail("verify_email", self._as_user(user), token)

        outbox.put(work)

    # ---- another address

    async def request_email_change(
        self, user_id: str, new_email: str, password: str, *, ip: str = ""
    ) -> None:
        """Send a link to the new address; until it is followed, nothing changes.

        The same answer where the new address has an account: its owner gets word by mail.
        """
        outbox = await self._ready()
        wanted = self._address(new_email)
        await self._admit_asking(ip)
        user = await self._confirm(user_id, password, ip)

        async def work() -> None:
            if not await self._may_mail(wanted):
                return
            async with self._writing() as db:
                other = await self._by_address(db, wanted.key)
                if other is None or other.id == user.id:
                    bound = binding(user.password_hash, user.email)
                    token = await self._ticket(db, "email", user.id, wanted, bound)
                else:
                    there = Address(other.email, other.email_key)
                    bound = binding(other.password_hash)
                    token = await self._ticket(db, "reset", other.id, there, bound)
            self._emit("email_change_asked", user.id, ip=ip)
            if other is None or other.id == user.id:
                await self._mail("confirm_email_change", self._as_user(user, wanted.email), token)
                await self._mail("email_change_asked", self._as_user(user))
            else:
                await self._mail("already_registered", self._as_user(other), token)

        outbox.put(work)

    async def confirm_email_change(self, token: str) -> User:
        """Follow the link that was sent to the new address."""
        outbox = await self._ready()
        users, wall = self.tables.users, self._wall()
        async with self._reading() as db:
            ticket = await self._look(db, token, "email")
        try:
            async with self._writing() as db:
                before = await self._user_row(db, ticket.user_id, is_locking=True)
                await self._tear(db, ticket)
                if binding(before.password_hash, before.email) != ticket.bound:
                    raise InvalidToken("password or address were changed meanwhile; ask again")
                change = (
                    sa.update(users)
                    .where(
                        users.c.id == before.id,
                        users.c.email == before.email,
                        users.c.password_hash == before.password_hash,
                    )
                    .values(email=ticket.email, email_key=ticket.email_key, email_verified_at=wall)
                )
                if (await db.execute(change)).rowcount != 1:
                    raise InvalidToken
                await self._drop_tickets(db, before.id, "reset", "email", "verify")
                user = await self._user(db, await self._user_row(db, before.id))
        except sa.exc.IntegrityError:
            raise InvalidToken("this address has another account by now") from None
        self._emit("email_changed", user.id)
        outbox.put(lambda: self._mail("email_changed", self._as_user(before)))
        return user

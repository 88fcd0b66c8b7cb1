"""Profiles: the name, telephone and address of somebody who has an account.

Theory of operation
-------------------
A profile is made when an account is confirmed, in one transaction with the message that tells the
other services of it. Should the process end between the two (the account is there, the profile is
not), the next look at the profile makes both; the message has the same id each time and counts
once.

A name that is given at registration waits in memory for the account's id, which exists only when
the confirmation is mailed. That mail waits in memory too: who loses one to a crash registers again,
with the name.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate.security.accounts import User
from headgate_shop.base import events
from headgate_shop.base.database import Database
from headgate_shop.base.rows import insert_new
from headgate_shop.queue import Outbox
from headgate_shop.users.tables import PROFILES

__all__ = ["Names", "Profile", "Profiles"]

NAMES_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Profile:
    user_id: str
    name: str
    phone: str
    address: Mapping[str, str]

    def shown(self, email: str) -> dict[str, Any]:
        return {
            "id": self.user_id,
            "email": email,
            "name": self.name,
            "phone": self.phone,
            "address": dict(self.address),
        }


class Names:
    """Of those who have asked for an account; the oldest of too many are forgotten."""

    def __init__(self) -> None:
        self._asked: OrderedDict[str, deque[str]] = OrderedDict()
        self._known: OrderedDict[str, str] = OrderedDict()

    def asked(self, email: str, name: str) -> None:
        """Somebody registers with this address."""
        self._asked.setdefault(email.casefold(), deque(maxlen=8)).append(name)
        _bound(self._asked)

    def mailed(self, email: str, user_id: str) -> str:
        """The confirmation goes out: from now on the name belongs to this id. Mails to one address
        go out in the order of the registrations.
        """
        waiting = self._asked.get(email.casefold())
        name = waiting.popleft() if waiting else ""
        if waiting is not None and not waiting:
            del self._asked[email.casefold()]
        if name:
            self._known[user_id] = name
            _bound(self._known)
        return name

    def take(self, user_id: str) -> str:
        return self._known.pop(user_id, "")


class Profiles:
    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def of(self, user: User, name: str = "") -> Profile:
        """The profile; made, and told of, if there is none."""
        async with self._database.reading() as connection:
            found = await _find(connection, user.id)
        if found is not None:
            return found
        now_ms = _now_ms()
        row = {
            "user_id": user.id,
            "name": name or user.email.partition("@")[0][:200],
            "phone": "",
            "address": {},
            "created_ms": now_ms,
            "updated_ms": now_ms,
        }
        async with self._database.writing() as connection:
            if await insert_new(connection, PROFILES, row):
                word = {
                    "user_id": user.id,
                    "email": user.email,
                    "name": row["name"],
                    "at": user.created_at or now_ms / 1000,
                }
                await self._outbox.add(
                    connection, events.USER_REGISTERED, word, id=f"registered:{user.id}"
                )
            made = await _find(connection, user.id)
        return made or Profile(user.id, str(row["name"]), "", {})

    async def names(self, ids: list[str]) -> dict[str, str]:
        query = sa.select(PROFILES.c.user_id, PROFILES.c.name).where(PROFILES.c.user_id.in_(ids))
        async with self._database.reading() as connection:
            return {row.user_id: row.name for row in await connection.execute(query)}

    async def change(
        self, user: User, name: str, phone: str, address: Mapping[str, str]
    ) -> Profile:
        await self.of(user)
        async with self._database.writing() as connection:
            await connection.execute(
                sa.update(PROFILES)
                .where(PROFILES.c.user_id == user.id)
                .values(name=name, phone=phone, address=dict(address), updated_ms=_now_ms())
            )
        return Profile(user.id, name, phone, address)


async def _find(connection: AsyncConnection, user_id: str) -> Profile | None:
    query = sa.select(PROFILES).where(PROFILES.c.user_id == user_id)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else Profile(row.user_id, row.name, row.phone, row.address)


def _bound(names: OrderedDict[str, Any]) -> None:
    while len(names) > NAMES_MAX:
        names.popitem(last=False)


def _now_ms() -> int:
    return int(time.time() * 1000)  # noqa: TID251 - what is written outlives this process

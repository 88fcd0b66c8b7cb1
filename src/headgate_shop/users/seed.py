"""The few accounts that can sign in from the beginning."""

from __future__ import annotations

import time

import sqlalchemy as sa

from headgate.security.accounts import Accounts
from headgate_shop.base.database import Database
from headgate_shop.base.rows import insert_new
from headgate_shop.base.settings import Settings
from headgate_shop.data import SeedSize
from headgate_shop.data.people import ACCOUNTS, Account
from headgate_shop.users.app import open_accounts
from headgate_shop.users.tables import PROFILES

__all__ = ["seed"]


async def seed(settings: Settings, size: SeedSize) -> dict[str, int]:
    """Makes those that are not there. `size` does not matter: customers of the past have orders
    and no accounts.
    """
    database = Database(settings)
    await database.start()
    accounts = open_accounts(settings, None)
    made = 0
    try:
        async with accounts:
            for account in ACCOUNTS:
                made += await _make(accounts, database, account)
    finally:
        await database.close()
    return {"accounts": made} if made else {}


async def _make(accounts: Accounts, database: Database, account: Account) -> bool:
    user = await accounts.user_by_email(account.email)
    is_new = user is None
    if user is None:
        user = await accounts.create_user(account.email, account.password)
    users = accounts.metadata.tables["headgate_users"]
    now_ms = int(time.time() * 1000)  # noqa: TID251 - when it was made
    row = {
        "user_id": account.id,
        "name": account.name,
        "phone": account.phone,
        "address": {
            "name": account.address.name,
            "street": account.address.street,
            "city": account.address.city,
            "postcode": account.address.postcode,
            "country": account.address.country,
        },
        "created_ms": now_ms,
        "updated_ms": now_ms,
    }
    async with database.writing() as connection:
        # The history that orders are seeded with knows these people by the ids of the data.
        if user.id != account.id and is_new:
            await connection.execute(
                sa.update(users).where(users.c.id == user.id).values(id=account.id)
            )
        await insert_new(connection, PROFILES, row)
    for role in account.roles:
        await accounts.grant_role(account.id, role)
    return is_new

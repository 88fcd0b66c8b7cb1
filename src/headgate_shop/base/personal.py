"""What every service is asked of one person: to say what it keeps, and to forget it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Path
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate_shop.base.database import Database

__all__ = ["UserId", "personal_routes"]

UserId = Annotated[str, Path(pattern=r"^[A-Za-z0-9._:@-]{1,128}$")]


def personal_routes(
    database: Database,
    export: Callable[[AsyncConnection, str], Awaitable[dict[str, Any]]],
    erase: Callable[[AsyncConnection, str], Awaitable[int]],
) -> APIRouter:
    """For `users`, which asks all services; the gateway has no route here. `erase` is one
    transaction, may be asked twice, and answers how much it has changed.
    """
    router = APIRouter(prefix="/internal/users", include_in_schema=False)

    @router.get("/{user_id}/export")
    async def exported(user_id: UserId) -> dict[str, Any]:
        async with database.reading() as connection:
            return await export(connection, user_id)

    @router.delete("/{user_id}")
    async def erased(user_id: UserId) -> dict[str, int]:
        async with database.writing() as connection:
            return {"erased": await erase(connection, user_id)}

    return router

"""Notifications: mails, and a window on the queue."""

from __future__ import annotations

import os
import time
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import sqlalchemy as sa
from fastapi import Depends, FastAPI, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate.kit import Problem
from headgate.kit.fastapi import current_user
from headgate.mesh import Mesh
from headgate_shop.base.personal import personal_routes
from headgate_shop.base.service import Service
from headgate_shop.base.settings import Settings
from headgate_shop.notifications import people, tables
from headgate_shop.notifications.post import Post
from headgate_shop.notifications.sending import Sender, server_of
from headgate_shop.queue import GROUPS, QueueAway, open_queue

__all__ = ["app"]

STAFF: Final = "staff@shop.test"
GROUP_NAMES: Final = frozenset(name for names in GROUPS.values() for name in names)

Group = Annotated[str, Query(min_length=1, max_length=64)]
Place = Annotated[str, Query(max_length=240)]
Limit = Annotated[int, Query(ge=1, le=200)]


class Redrive(BaseModel):
    """Which dead letters are tried again: one, or all of a group."""

    model_config = ConfigDict(extra="forbid")

    group: str = Field(min_length=1, max_length=64)
    id: str | None = Field(default=None, min_length=1, max_length=200)


def app(settings: Settings, *, mesh: Mesh | None = None) -> FastAPI:
    service = Service(settings, "Notifications: mail", mesh=mesh)
    api = service.api
    database = service.database()
    sender = Sender(server_of(settings.smtp))
    post = Post(
        database,
        sender,
        public_url=settings.public_url,
        staff=[
            one.strip() for one in os.environ.get("SHOP_STAFF", STAFF).split(",") if one.strip()
        ],
        mail_from=os.environ.get("SHOP_MAIL_FROM", "") or _sender(settings.public_url),
    )
    queue = open_queue(settings.queue_url(), service=settings.room)
    post.subscribe(queue)
    service.opened(queue)
    service.checks.add("queue", queue.ping)
    service.checks.add("mail", sender.check)
    admin = [Depends(current_user(roles=("admin",)))]

    @api.get("/api/admin/notifications", dependencies=admin)
    async def notifications(
        cursor: Place = "",
        limit: Limit = 50,
        status: Literal["waiting", "sent", "bounced", "failed"] | None = None,
    ) -> dict[str, Any]:
        """The mails, the newest first."""
        table = tables.mails
        query = sa.select(table).order_by(table.c.created_at.desc(), table.c.id.desc())
        if status is not None:
            query = query.where(table.c.status == status)
        async with database.reading() as connection:
            if cursor:
                at = await connection.scalar(
                    sa.select(table.c.created_at).where(table.c.id == cursor)
                )
                if at is None:
                    raise Problem(422, "no mail is the cursor's", code="cursor_unknown")
                query = query.where(
                    sa.tuple_(table.c.created_at, table.c.id) < sa.tuple_(at, cursor)
                )
            rows = (await connection.execute(query.limit(limit + 1))).all()
        items = [people.document(row) for row in rows[:limit]]
        return {"items": items, "next": items[-1]["id"] if len(rows) > limit else None}

    @api.get("/api/queue/stats", dependencies=admin)
    async def stats() -> dict[str, Any]:
        """What waits, is delayed, in flight and dead, and how fast it goes: by group and topic."""
        try:
            return (await queue.stats()).document()
        except QueueAway as error:
            raise _away(error) from error

    @api.get("/api/queue/dead", dependencies=admin)
    async def dead(group: Group, after: Place = "", limit: Limit = 50) -> dict[str, Any]:
        """Dead letters of a group. What is in them is not shown: there are tokens in mails."""
        _known(group)
        try:
            found = await queue.dead(group, limit=limit + 1, after=after)
        except QueueAway as error:
            raise _away(error) from error
        items = [
            {
                "id": one.id,
                "group": one.group,
                "topic": one.topic,
                "attempts": one.attempts,
                "error": one.error,
                "published_at": people.time_of(one.at),
                "died_at": people.time_of(one.died_at),
            }
            for one in found[:limit]
        ]
        return {"items": items, "next": items[-1]["id"] if len(found) > limit else None}

    @api.post("/api/queue/dead/redrive", dependencies=admin)
    async def redrive(which: Redrive) -> dict[str, int]:
        _known(which.group)
        try:
            count = await queue.redrive(which.group, which.id)
        except QueueAway as error:
            raise _away(error) from error
        if which.id is not None and not count:
            raise Problem(404, f"{which.group} has no such dead letter", code="not_dead")
        return {"redriven": count}

    @api.delete("/api/queue/dead/{group}/{message_id:path}", dependencies=admin)
    async def drop(
        group: str, message_id: Annotated[str, Path(min_length=1, max_length=200)]
    ) -> dict[str, int]:
        """Throw a dead letter away."""
        _known(group)
        try:
            count = await queue.drop(group, message_id)
        except QueueAway as error:
            raise _away(error) from error
        if not count:
            raise Problem(404, f"{group} has no such dead letter", code="not_dead")
        return {"dropped": count}

    async def forget(connection: AsyncConnection, user_id: str) -> int:
        return await people.erase(connection, user_id, _wall())

    api.include_router(personal_routes(database, people.export, forget))
    return service.finish()


def _known(group: str) -> None:
    if group not in GROUP_NAMES:
        known = ", ".join(sorted(GROUP_NAMES))
        raise Problem(404, f"no group {group!r}; there are {known}", code="no_group")


def _away(error: QueueAway) -> Problem:
    return Problem(
        503, "the queue cannot be reached", code="queue_away", headers={"retry-after": "2"}
    )


def _sender(public_url: str) -> str:
    host = urlsplit(public_url).hostname or ""
    is_name = host.isascii() and not host.replace(".", "").isdigit() and ":" not in host
    return f"no-reply@{host}" if is_name and "." in host else "no-reply@shop.test"


def _wall() -> float:
    return time.time()  # noqa: TID251 - it is shown to people

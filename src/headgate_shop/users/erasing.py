"""Erasure: everybody who keeps something about a person forgets it, however long that takes.

Theory of operation
-------------------
An erasure is a row with a step for each service. It is written, with the message that tells all
services, before anything is deleted; from then on it goes on until the last step is done, through
restarts of this process and of theirs. Each step is asked for again, ever more rarely, until the
service says yes; every service takes being asked twice. The account itself is a step like the
others, and the first; the next is that the gateway believes no token of the person any more.

To ask twice for the erasure of one person is to ask once. When all is done the row forgets whom it
was about.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate.errors import HeadgateError
from headgate.mesh import Mesh
from headgate.security.accounts import Accounts, UserNotFound
from headgate_shop.base import events
from headgate_shop.base.background import Background
from headgate_shop.base.database import Database
from headgate_shop.base.rows import insert_new
from headgate_shop.queue import Outbox
from headgate_shop.users.signing_out import NotTold, SigningOut
from headgate_shop.users.tables import ERASURES, PROFILES, STEPS
from headgate_shop.users.trail import Trail

__all__ = ["KEEPERS", "Erasures"]

KEEPERS: Final = ("orders", "notifications", "analytics", "integrations", "products")
"""The services that are asked what they keep of a person, and to forget it."""
SELF: Final = "users"
GATEWAY: Final = "gateway"
"""It knows nobody, but believes tokens that are out until they expire."""
FIRST_MS: Final = 1000
LONGEST_MS: Final = 300_000
LOOK_S: Final = 1.0
ASK_S: Final = 5.0

log = logging.getLogger("headgate_shop.users")


class Erasures(Background):
    """Go on while it is entered."""

    task_name = "erasures"

    def __init__(
        self,
        database: Database,
        accounts: Accounts,
        outbox: Outbox,
        mesh: Mesh,
        trail: Trail,
        signing_out: SigningOut,
        keepers: tuple[str, ...] = KEEPERS,
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._outbox = outbox
        self._mesh = mesh
        self._trail = trail
        self._signing_out = signing_out
        self._keepers = (GATEWAY, *keepers) if signing_out.has_gateway else keepers
        self._turn = asyncio.Lock()

    async def begin(self, user_id: str) -> str:
        """Answers its id. The account is gone when this returns, the rest follows."""
        now_ms = _now_ms()
        whose = hashlib.sha256(f"erased {user_id}".encode()).hexdigest()
        row = {
            "id": f"erasure-{secrets.token_hex(16)}",
            "whose": whose,
            "user_id": user_id,
            "created_ms": now_ms,
            "ended_ms": None,
        }
        async with self._database.writing() as connection:
            if await insert_new(connection, ERASURES, row):
                steps = [
                    {
                        "erasure_id": row["id"],
                        "service": service,
                        "tries": 0,
                        "due_ms": now_ms,
                        "done_ms": None,
                        "why": "",
                    }
                    for service in (SELF, *self._keepers)
                ]
                await connection.execute(sa.insert(STEPS), steps)
                word = {"user_id": user_id, "at": now_ms / 1000}
                await self._outbox.add(connection, events.USER_ERASED, word, id=f"erased:{whose}")
                self._trail.note("user.erasure_asked", user_id)
            found = sa.select(ERASURES.c.id).where(ERASURES.c.whose == whose)
            erasure_id = str((await connection.execute(found)).scalar_one())
        try:
            await self._forget_account(user_id)
        except (HeadgateError, OSError, sa.exc.SQLAlchemyError) as error:
            log.warning("an account is erased later: %s", type(error).__name__)
        try:
            await self._signing_out.sign_out(user_id)  # once more in its step, if not now
        except NotTold as error:
            log.warning("somebody who is erased is signed out later: %s", error)
        self.wake()
        return erasure_id

    async def show(self, erasure_id: str) -> dict[str, Any] | None:
        async with self._database.reading() as connection:
            query = sa.select(ERASURES).where(ERASURES.c.id == erasure_id)
            row = (await connection.execute(query)).one_or_none()
            if row is None:
                return None
            steps = await connection.execute(
                sa.select(STEPS).where(STEPS.c.erasure_id == erasure_id).order_by(STEPS.c.service)
            )
            shown = [
                {
                    "service": step.service,
                    "state": "done" if step.done_ms is not None else "waiting",
                    "tries": step.tries,
                    "why": step.why,
                }
                for step in steps
            ]
        return {
            "id": row.id,
            "state": "running" if row.ended_ms is None else "done",
            "services": shown,
        }

    # ---- going on

    async def _run(self) -> None:
        while not self.is_ending():
            try:
                await self.go_on()
            except Exception as error:  # noqa: BLE001 - the database may be away for a while
                log.warning("erasures go on later: %s", error)
            await self.rest(LOOK_S)

    async def go_on(self) -> None:
        """Take every step that is due."""
        due = (
            sa.select(STEPS.c.erasure_id, STEPS.c.service, STEPS.c.tries, ERASURES.c.user_id)
            .join(ERASURES, ERASURES.c.id == STEPS.c.erasure_id)
            .where(STEPS.c.done_ms.is_(None), STEPS.c.due_ms <= _now_ms())
            .order_by(STEPS.c.due_ms)
            .limit(100)
        )
        async with self._turn:
            async with self._database.reading() as connection:
                rows = (await connection.execute(due)).all()
            for row in rows:
                if self.is_ending():
                    return
                why = await self._step(row.service, row.user_id)
                await self._note(row.erasure_id, row.service, row.tries + 1, why)

    async def _step(self, service: str, user_id: str) -> str:
        """Why it is not done; empty if it is."""
        try:
            if service == SELF:
                await self._forget_account(user_id)
                return ""
            if service == GATEWAY:
                await self._signing_out.sign_out(user_id)
                return ""
            answer = await self._mesh.service(service).delete(
                f"/internal/users/{user_id}", timeout=ASK_S
            )
        except Exception as error:  # noqa: BLE001 - one must not keep the others from being asked
            return type(error).__name__
        if answer.is_success or answer.status_code == 404:
            return ""
        return f"it answers {answer.status_code}"

    async def _forget_account(self, user_id: str) -> None:
        try:
            await self._accounts.erase_user(user_id)
        except UserNotFound:
            pass  # it is done already
        async with self._database.writing() as connection:
            await connection.execute(sa.delete(PROFILES).where(PROFILES.c.user_id == user_id))

    async def _note(self, erasure_id: str, service: str, tries: int, why: str) -> None:
        now_ms = _now_ms()
        wait_ms = min(LONGEST_MS, FIRST_MS * 2 ** min(tries - 1, 20))
        async with self._database.writing() as connection:
            await connection.execute(
                sa.update(STEPS)
                .where(STEPS.c.erasure_id == erasure_id, STEPS.c.service == service)
                .values(
                    tries=tries,
                    why=why,
                    due_ms=now_ms + wait_ms,
                    done_ms=None if why else now_ms,
                )
            )
            if not why:
                await self._end(connection, erasure_id, now_ms)

    async def _end(self, connection: AsyncConnection, erasure_id: str, now_ms: int) -> None:
        left = sa.select(STEPS.c.service).where(
            STEPS.c.erasure_id == erasure_id, STEPS.c.done_ms.is_(None)
        )
        if await connection.scalar(left.limit(1)) is not None:
            return
        done = (
            sa.select(ERASURES.c.user_id)
            .where(ERASURES.c.id == erasure_id, ERASURES.c.ended_ms.is_(None))
            .with_for_update()
        )
        user_id = await connection.scalar(done)
        if user_id is None:
            return
        await connection.execute(
            sa.update(ERASURES)
            .where(ERASURES.c.id == erasure_id)
            .values(user_id="", ended_ms=now_ms)
        )
        self._trail.note("user.erased", user_id)


def _now_ms() -> int:
    return int(time.time() * 1000)  # noqa: TID251 - what is written outlives this process

"""From a message of the queue to mails that are sent once.

Theory of operation
-------------------
Before a mail is sent its row says so: `waiting`, and `sending_until`, within which no other process
may try. After the server has taken it, it is `sent`, and never sent again. What lies between is the
server's word and our note of it: a process that dies there, or cannot write, leaves a mail that is
sent a second time, with the same Message-ID, by which receivers know it.

A server that is down or busy costs no attempt: hands wait with their message, and then give it back
for later. A mail the server refuses for good is `bounced`, and its message a dead letter.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate_shop.base import events
from headgate_shop.base.database import Database
from headgate_shop.base.rows import insert_new
from headgate_shop.notifications import people, tables
from headgate_shop.notifications.letters import (
    FORGOTTEN,
    Letter,
    LetterInvalid,
    Recipient,
    letters,
)
from headgate_shop.notifications.rendering import render
from headgate_shop.notifications.sending import Bounced, Sender, ServerBusy
from headgate_shop.queue import Later, Message, Queue, Reject

__all__ = ["ATTEMPTS", "MAIL_TOPICS", "Post"]

ATTEMPTS: Final = 16
"""With their waits half an hour: servers that do not know us yet make us wait for ten minutes."""
MAIL_TOPICS: Final = (
    events.MAIL_WANTED,
    events.USER_REGISTERED,
    events.ORDER_PLACED,
    events.ORDER_PAID,
    events.ORDER_SHIPPED,
    events.ORDER_CANCELLED,
    events.STOCK_LOW,
)
KEEP_S: Final = 180 * 86_400.0
FORGET_EVERY: Final = 500
FORGET_ROWS: Final = 1_000
SENDING_S: Final = 45.0
"""Longer than a mail can take."""
PATIENCE_S: Final = 60.0
"""How long a hand waits for the server before it gives its message back."""

log = logging.getLogger("headgate_shop.notifications")


class Post:
    def __init__(
        self,
        database: Database,
        sender: Sender,
        *,
        public_url: str,
        staff: Sequence[str],
        mail_from: str,
    ) -> None:
        self._database = database
        self._sender = sender
        self._public_url = public_url
        self._staff = tuple(staff)
        self._from = mail_from
        self._since = 0

    def subscribe(self, queue: Queue) -> None:
        queue.subscribe(MAIL_TOPICS, self.mail, attempts=ATTEMPTS, concurrency=4)
        queue.subscribe(events.USER_ERASED, self.erase, concurrency=1)

    async def erase(self, message: Message) -> None:
        user_id = message.data.get("user_id")
        if not isinstance(user_id, str) or not user_id:
            raise Reject("user_id is missing")
        async with self._database.writing() as connection:
            await people.erase(connection, user_id, message.at)

    async def mail(self, message: Message) -> None:
        """Send all that is to be sent because of a message, and has not been."""
        try:
            wanted = letters(
                message.topic, message.data, public_url=self._public_url, staff=self._staff
            )
            for number, (recipient, letter) in enumerate(wanted):
                mail_id = message.id if number == 0 else f"{message.id}/{number}"
                await self._mail(message, mail_id, recipient, letter)
        except LetterInvalid as error:
            raise Reject(f"no mail can be made of it: {error}") from error

    async def _mail(
        self, message: Message, mail_id: str, recipient: Recipient, letter: Letter
    ) -> None:
        rendered = render(
            letter,
            mail_id=mail_id,
            sender=self._from,
            to=recipient.address,
            public_url=self._public_url,
            wall=message.at,
        )
        waited_s = 0.0
        while True:
            if not await self._begin(mail_id, recipient, letter):
                return
            try:
                await self._sender.send(rendered)
            except ServerBusy as busy:
                await self._note(mail_id, "waiting", str(busy), is_tried=False)
                if waited_s >= PATIENCE_S:
                    raise Later(str(busy), retry_after_s=busy.retry_after_s) from busy
                wait_s = min(max(0.05, busy.retry_after_s), PATIENCE_S)
                waited_s += wait_s
                await asyncio.sleep(wait_s)
                continue
            except Bounced as error:
                await self._note(mail_id, "bounced", str(error))
                raise Reject(f"bounced: {error}") from error
            except Exception as error:
                is_last = message.attempt >= ATTEMPTS
                told = f"{type(error).__name__}: {error}"
                await self._note(mail_id, "failed" if is_last else "waiting", told)
                raise
            await self._note(mail_id, "sent", "")
            return

    async def _begin(self, mail_id: str, recipient: Recipient, letter: Letter) -> bool:
        """Whether this process is to send it now."""
        table, now = tables.mails, _wall()
        is_kept = letter.template != FORGOTTEN
        async with self._database.writing() as connection:
            if is_kept and await people.is_erased(connection, recipient.user_id):
                log.info("%s: not sent, its recipient is erased", mail_id)
                return False
            is_new = await insert_new(
                connection,
                table,
                {
                    "id": mail_id,
                    "user_id": recipient.user_id if is_kept else "",
                    "recipient": recipient.address if is_kept else "(erased)",
                    "template": letter.template,
                    "subject": letter.subject,
                    "status": "waiting",
                    "attempts": 1,
                    "error": "",
                    "sending_until": now + SENDING_S,
                    "created_at": now,
                },
            )
            if is_new:
                await self._forget(connection, now)
                return True
            row = (
                await connection.execute(
                    sa.select(table.c.status, table.c.sending_until)
                    .where(table.c.id == mail_id)
                    .with_for_update()
                )
            ).one()
            if row.status == "sent":
                return False
            if row.sending_until > now:
                raise Later("another process sends it", retry_after_s=row.sending_until - now)
            await connection.execute(
                sa.update(table)
                .where(table.c.id == mail_id)
                .values(
                    status="waiting", attempts=table.c.attempts + 1, sending_until=now + SENDING_S
                )
            )
            return True

    async def _forget(self, connection: AsyncConnection, now: float) -> None:
        """Now and then, what is so old that nobody asks for it."""
        self._since += 1
        if self._since >= FORGET_EVERY:
            self._since = 0
            table = tables.mails
            old = (
                sa.select(table.c.id)
                .where(table.c.created_at < now - KEEP_S)
                .order_by(table.c.created_at)
                .limit(FORGET_ROWS)
            )
            await connection.execute(sa.delete(table).where(table.c.id.in_(old)))

    async def _note(self, mail_id: str, status: str, error: str, *, is_tried: bool = True) -> None:
        values: dict[str, object] = {"status": status, "error": error[:500], "sending_until": 0.0}
        if not is_tried:
            values["attempts"] = tables.mails.c.attempts - 1
        if status == "sent":
            values["sent_at"] = _wall()
        async with self._database.writing() as connection:
            await connection.execute(
                sa.update(tables.mails).where(tables.mails.c.id == mail_id).values(**values)
            )


def _wall() -> float:
    return time.time()  # noqa: TID251 - other processes read it

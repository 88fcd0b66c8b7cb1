"""The queue between the shop's services, and what makes it safe to use with a database.

queue = open_queue(settings.queue_url(), service=settings.room)
queue.subscribe(events.ORDER_PAID, paid)
service.opened(queue)
outbox = Outbox(database, queue)
service.opened(outbox)

async with database.writing() as connection:     # the order and its message, or neither
    await connection.execute(...)
    await outbox.add(connection, events.ORDER_PLACED, {...})

async def paid(message: Message) -> None:
    async with database.writing() as connection:
        if await inbox.first(connection, message):   # its effect, and that it was had
            await connection.execute(...)
"""

from headgate_shop.queue.backoff import Backoff
from headgate_shop.queue.inbox import Inbox, inbox_table
from headgate_shop.queue.message import (
    Later,
    Message,
    MessageInvalid,
    QueueAway,
    QueueError,
    QueueFull,
    Reject,
)
from headgate_shop.queue.opening import open_queue
from headgate_shop.queue.outbox import Outbox, outbox_table
from headgate_shop.queue.queue import Queue, QueueStats
from headgate_shop.queue.together import Together
from headgate_shop.queue.topics import GROUPS

__all__ = [
    "GROUPS",
    "Backoff",
    "Inbox",
    "Later",
    "Message",
    "MessageInvalid",
    "Outbox",
    "Queue",
    "QueueAway",
    "QueueError",
    "QueueFull",
    "QueueStats",
    "Reject",
    "Together",
    "inbox_table",
    "open_queue",
    "outbox_table",
]

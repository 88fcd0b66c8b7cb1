"""A message, what may stand in one, and what can be wrong with a queue.

Everything is checked when a message is published, or put into an outbox: there a fault has a caller
who can be told. What has been taken in can be delivered.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, Final

__all__ = [
    "BODY_BYTES",
    "Later",
    "Message",
    "MessageInvalid",
    "Outgoing",
    "QueueAway",
    "QueueError",
    "QueueFull",
    "Reject",
    "decode",
    "encode",
    "wall_time",
]

BODY_BYTES: Final = 256 * 1024
"""Larger things are kept where they belong, and named in a message by their id."""
ID_LENGTH: Final = 200
PRIORITY_MAX: Final = 9
DELAY_MAX_S: Final = 366 * 86400.0


class QueueError(Exception):
    """What a queue raises on purpose."""


class MessageInvalid(QueueError, ValueError):
    """The caller's fault: this can never be published."""


class QueueFull(QueueError):
    """A group has as many messages as it may; nothing was published to any group."""

    def __init__(self, group: str, limit: int) -> None:
        super().__init__(
            f"the queue of {group!r} is full: {limit} messages wait, or are dead; "
            f"see that {group} runs, and redrive or drop its dead letters"
        )
        self.group = group
        self.limit = limit


class QueueAway(QueueError):
    """The queue cannot be reached or written just now. The message may or may not be in it: publish
    it again under the same id.
    """


class Reject(Exception):
    """Raised by a handler: no attempt can ever succeed, so the message is a dead letter at once."""


class Later(Exception):
    """Raised by a handler: not now. It comes again after the wait, and no attempt is counted."""

    def __init__(self, why: str, *, retry_after_s: float) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Message:
    """What a handler is given."""

    id: str
    topic: str
    data: dict[str, Any]
    attempt: int
    """1 the first time. A process that died over it has made an attempt."""
    at: float
    """When it was published, in seconds of Unix time."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message on its way into the queue, checked."""

    id: str
    topic: str
    body: str
    at: float
    due: float
    """Not before this, in seconds of Unix time."""
    priority: int = 0

    @classmethod
    def checked(
        cls,
        topic: str,
        data: dict[str, Any],
        *,
        id: Any,  # noqa: A002 - as callers call it
        wall: float,
        delay_s: Any = 0.0,
        priority: Any = 0,
        trace: dict[str, str] | None = None,
    ) -> Outgoing:
        """Raise MessageInvalid for what the queue could not deliver, of whatever type it is."""
        if not isinstance(id, str) or not 0 < len(id) <= ID_LENGTH or not id.isprintable():
            raise MessageInvalid(
                f"{topic}: the id {str(id)[:40]!r} is not 1 to {ID_LENGTH} printable characters"
            )
        if not isinstance(delay_s, int | float) or not 0 <= delay_s <= DELAY_MAX_S:
            raise MessageInvalid(
                f"{topic} {id}: delay_s is {delay_s!r}, not 0 to {DELAY_MAX_S:.0f} seconds"
            )
        if not isinstance(priority, int) or not 0 <= priority <= PRIORITY_MAX:
            raise MessageInvalid(
                f"{topic} {id}: priority is {priority!r}, not a whole number of 0 to {PRIORITY_MAX}"
            )
        body = encode(topic, id, data, trace or {})
        return cls(id, topic, body, wall, wall + delay_s, priority)


def encode(topic: str, message_id: str, data: dict[str, Any], trace: dict[str, str]) -> str:
    """The text that is kept: the data, and the trace that it belongs to."""
    if not isinstance(data, dict):
        raise MessageInvalid(f"{topic} {message_id}: data is a {type(data).__name__}, not a dict")
    envelope = {"data": data, "trace": trace} if trace else {"data": data}
    try:
        body = json.dumps(envelope, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size = len(body.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise MessageInvalid(f"{topic} {message_id}: the data is not JSON: {error}") from error
    if size > BODY_BYTES:
        raise MessageInvalid(
            f"{topic} {message_id}: {size} bytes of data; {BODY_BYTES} at most, so keep it "
            f"elsewhere and name it by its id"
        )
    return body


def decode(body: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The data and the trace. Raise ValueError for what was not made by `encode`."""
    try:
        envelope = json.loads(body)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(envelope, dict) or not isinstance(envelope.get("data"), dict):
        raise ValueError("no object with the member data")
    trace = envelope.get("trace")
    carried = trace if isinstance(trace, dict) else {}
    return envelope["data"], {k: v for k, v in carried.items() if isinstance(v, str)}


def wall_time() -> float:
    return time.time()  # noqa: TID251 - other processes, and the next run, must understand it

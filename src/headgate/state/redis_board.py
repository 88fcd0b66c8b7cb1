"""The board in Redis: news by pub/sub, what is retained in a hash.

Theory of operation. What is said goes through the outbox to the one connection that `redis.py`
talks on, in order with everything else. `_listen` hears on one of its own, which is pinged when
it is silent. What is retained stands in one hash, read whenever the listener has (re)connected. It
takes up to `RETAINED_MAX` messages, and is dropped a day after the last holder. If it is lost (by a
restart without persistence, or a flush), those who listen write again what they keep.

Redis puts what is published at the same time in an order, and that order is everyone's: whoever has
said something that it has not heard back yet (`_echoes`) passes over what others say in the same
place, because its own word comes later. A word may be said twice, after a fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import time
import uuid
from abc import abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from headgate.state.asking import Asking, wall_version
from headgate.state.home import RETAINED_MAX, Message
from headgate.state.redis_place import place_of
from headgate.state.redis_script import FORGET, PUBLISH, Script

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub

__all__ = ["KEEP_S", "RedisBoard"]

STALE_S: Final = 1.0
KEEP_S: Final = 86_400.0
RETRY_MIN_S: Final = 0.1
RETRY_MAX_S: Final = 2.0
PING_S: Final = 5.0
_OUTBOX_MAX: Final = 1000
_KEEP_MS: Final = round(KEEP_S * 1000)
_HOLDERS: Final = ""  # the topic by which those who come and go make the others count anew

log = logging.getLogger("headgate.state")

News = tuple[Script | None, tuple[str | float, ...]]


class RedisBoard(Asking):
    """The half of `RedisShared` that is a `Board`, and how both halves speak to Redis."""

    def __init__(
        self,
        url: str,
        *,
        deadline_s: float,
        prefix: str,
        rng: random.Random | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(deadline_s, clock)
        self._place = place_of(url, max(STALE_S, 2 * deadline_s))
        self._faults = _faults()
        self._rng = rng or random.Random()
        self._id = uuid.uuid4().hex
        # One hash tag with what else scripts touch beside it.
        self._retained_key = f"{prefix}:{{board}}:retained"
        self._channel = f"{prefix}:board"
        self._outbox: deque[News] = deque()
        self._echoes: dict[str, int] = {}
        """By field: what we have retained or forgotten and not heard back yet."""
        self._bell = asyncio.Event()
        self._client: Redis | None = None
        self._cluster: Any = None  # redis-py's cluster client is typed as the sync one in places
        self._nudge = self._text(_HOLDERS, {}, None)

    @property
    def place(self) -> str:
        return self._place.text

    @abstractmethod
    def _count_anew(self) -> None:
        """A holder came or went."""

    async def _command(self, *words: str | float) -> Any:
        client = self._cluster or self._client
        if client is None:
            raise ConnectionError("not started")
        return await client.execute_command(*words)

    async def _call(self, script: Script, keys: Sequence[str], words: Sequence[str | float]) -> Any:
        """Run a script, which Redis knows by its digest unless it was restarted or flushed."""
        from redis.exceptions import NoScriptError

        try:
            return await self._command("EVALSHA", script.sha, len(keys), *keys, *words)
        except NoScriptError:
            return await self._command("EVAL", script.text, len(keys), *keys, *words)

    def _pause_s(self, tries: int) -> float:
        pause_s = min(RETRY_MAX_S, RETRY_MIN_S * 2.0 ** min(tries, 10))
        return pause_s * self._rng.uniform(0.5, 1.0)

    # ---- saying news

    def _say(self, topic: str, message: Message, retain: str | None, version: int) -> None:
        text = self._text(topic, message, retain)
        if retain is None:
            if len(self._outbox) >= _OUTBOX_MAX:
                self._dropped += 1
                return
            self._outbox.append((None, (self._channel, text)))
        elif len(self._outbox) >= _OUTBOX_MAX:
            self._say_later(topic, retain)
        else:
            self._say_retained(self._retained(topic, retain, text, only_new=False))
        self._bell.set()

    def _say_retained(self, news: News) -> None:
        field = str(news[1][0])
        self._echoes[field] = self._echoes.get(field, 0) + 1
        self._outbox.append(news)

    def _say_forget(self, topic: str, retain: str) -> None:
        if len(self._outbox) >= _OUTBOX_MAX:
            self._say_later(topic, retain)
            return
        text = self._text(topic, None, retain)
        words = (_field(topic, retain), text, self._channel, RETAINED_MAX, _KEEP_MS)
        self._say_retained((FORGET, words))
        self._bell.set()

    def _retained(self, topic: str, retain: str, text: str, *, only_new: bool) -> News:
        field = _field(topic, retain)
        return PUBLISH, (field, text, self._channel, RETAINED_MAX, _KEEP_MS, int(only_new))

    def _text(self, topic: str, message: Message | None, retain: str | None) -> str:
        said = {"from": self._id, "topic": topic, "retain": retain, "message": message}
        return json.dumps(said, separators=(",", ":"))

    async def _say_news(self, script: Script | None, words: Sequence[str | float]) -> None:
        from redis.exceptions import ResponseError

        try:
            if script is None:
                await self._command("PUBLISH", *words)
            elif not await self._call(script, [self._retained_key], words):
                self._echoed(str(words[0]))
                log.warning(
                    "%s keeps %d messages already; %r is not kept",
                    self.place,
                    RETAINED_MAX,
                    words[0],
                )
        except ResponseError as error:
            # To this message; the limits need not suffer.
            if script is not None:
                self._echoed(str(words[0]))
            log.warning("%s refused news: %s", self.place, self._place.words(error))

    # ---- hearing news

    async def _listen(self) -> None:
        tries = 0
        while self._client is not None:
            pubsub = self._client.pubsub()
            try:
                await pubsub.subscribe(self._channel)
                await pubsub.get_message(timeout=self._place.timeout_s)
                if not pubsub.subscribed:
                    raise TimeoutError("no answer to SUBSCRIBE")
                await self._catch_up()
                tries = 0
                await self._hear_on(pubsub)
            except self._faults as error:
                log.debug("news from %s is away: %s", self.place, self._place.words(error))
            except Exception:
                log.exception("hearing news from %s failed", self.place)  # a fault of ours
            finally:
                with contextlib.suppress(*self._faults):
                    await pubsub.aclose()  # type: ignore[no-untyped-call]  # redis-py's gap
            await asyncio.sleep(self._pause_s(tries))
            tries += 1

    async def _hear_on(self, pubsub: PubSub) -> None:
        """Until the connection breaks, or is silent when asked."""
        is_asked = False
        while True:
            got = await pubsub.get_message(timeout=PING_S)
            if got is None:
                if is_asked:
                    raise TimeoutError("no answer to PING")
                is_asked = True
                await pubsub.ping()
                continue
            is_asked = False
            if got["type"] != "message":
                continue
            said = _read(got["data"])
            if said is None:
                continue
            field = None if said["retain"] is None else _field(said["topic"], said["retain"])
            if said["from"] == self._id:
                if field is not None:
                    self._echoed(field)
            elif said["topic"] == _HOLDERS:
                self._count_anew()
            elif field not in self._echoes:
                self._take_news(said)
            # Else two published at once. Ours is still to come, so it is the later one.

    def _echoed(self, field: str) -> None:
        left = self._echoes.pop(field, 0) - 1
        if left > 0:
            self._echoes[field] = left

    def _take_news(self, said: dict[str, Any]) -> None:
        topic, retain, message = said["topic"], said["retain"], said["message"]
        if message is not None:
            self._hear(topic, message, retain, wall_version())
        elif retain is not None:
            self._hear_forget(topic, retain)

    async def _catch_up(self) -> None:
        """Compare what is retained there with what we keep."""
        began = wall_version()
        rows: dict[bytes, bytes] = await self._command("HGETALL", self._retained_key)
        waiting = [str(words[0]) for script, words in self._outbox if script is not None]
        unsaid = {_field(*place) for place in self._unsaid} | set(waiting)
        # What was said before we listened is not heard back; of the first we cannot know.
        self._echoes = dict(Counter(waiting[1:]))
        if not rows:
            # Never written, or lost: in either case what we keep is all there is.
            for topic, retain, _, message in self._news.kept():
                if _field(topic, retain) not in unsaid and len(self._outbox) < _OUTBOX_MAX:
                    text = self._text(topic, message, retain)
                    self._outbox.append(self._retained(topic, retain, text, only_new=True))
            self._bell.set()
            return
        found: set[tuple[str, str]] = set()
        for field, payload in rows.items():
            said = _read(payload) if field else None
            if said is None or said["retain"] is None or said["message"] is None:
                continue
            place = (said["topic"], said["retain"])
            found.add(place)
            kept = self._news.get(*place)
            if _field(*place) in unsaid or (kept is not None and kept.version >= began):
                continue  # ours is the younger
            if kept is None or kept.message != said["message"]:
                self._take_news(said)
        for kept in self._news.kept():
            place = (kept.topic, kept.retain)
            if place not in found and kept.version < began and _field(*place) not in unsaid:
                self._news.forget(*place)


def _field(topic: str, retain: str) -> str:
    return f"{topic}\0{retain}"


def _read(payload: bytes) -> dict[str, Any] | None:
    """What was said; None if it is none of ours, for anybody may write to a channel."""
    try:
        said: dict[str, Any] = json.loads(payload)
        if (
            isinstance(said["topic"], str)
            and isinstance(said["retain"], str | None)
            and isinstance(said["message"], dict | None)
            and isinstance(said["from"], str)
        ):
            return said
    except (ValueError, KeyError, TypeError):
        pass
    log.debug("a message on the board that is none of ours: %.100r", payload)
    return None


def _faults() -> tuple[type[Exception], ...]:
    """What may happen to a connection."""
    from redis.exceptions import RedisClusterException, RedisError

    return (RedisError, RedisClusterException, OSError, TimeoutError)

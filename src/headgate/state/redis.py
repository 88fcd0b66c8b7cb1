"""Shared state in Redis: several machines, one limit and one board.

Theory of operation. One task, `_talk`, has the one connection on which all is said, in order:
batches of asks, news, and every few seconds a beat. While a batch is on its way the next one
gathers, so that the busier it is the more goes in one call. All asks of one batch are decided by
one script (`redis_script.py`), up to `_CALL_MAX` in a call; those of one `take` are never parted.

    away --PING, then a beat that is answered within the deadline--> here
    here --a batch past its deadline, an error, a lost connection--> away

A slow answer does not cost the connection: it is waited for up to `STALE_S`, and what it granted
too late is given back. Away, tries follow each other by 0.1 to 2 s with jitter, and a request does
not wait for any of them. An error that Redis answers (a replica that may not write, no memory,
no permission) is being away, too, with that reason.

A beat says that this holder lives (for `HOLDER_TTL_S`), and learns how many do; so a worker that
died counts for that long. Who comes or goes says so, and the others beat soon. `holder=False` only
hears and says news, and does not count.

News goes by pub/sub, on a connection of its own (`_listen`) that is pinged when it is silent. What
is retained stands in one hash, read whenever the listener has (re)connected. It takes up to
`RETAINED_MAX` messages, and is dropped a day after the last holder. If it is lost (by a restart
without persistence, or a flush), those who listen write again what they keep.

On a Redis Cluster (found out by asking) each key's asks are a call of their own, because only keys
with one hash tag, which is the limited key's digest, are sure to share a node; those of one batch
go out together. News then depends on the node that the URL names.

Redis 6 or newer, and what speaks its protocol with scripts. With an eviction policy that takes keys
which expire, limits begin anew for keys that Redis evicts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from headgate.policy.limiter.lease import Grant
from headgate.state.asking import DEADLINE_S, Asking, Batch, Returned, wall_version
from headgate.state.home import RETAINED_MAX, LimitAsk, Message
from headgate.state.redis_place import place_of
from headgate.state.redis_script import (
    BEAT,
    FORGET,
    LIMITS,
    PUBLISH,
    Script,
    Wire,
    grants_of,
    is_back,
)

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub

__all__ = ["RedisShared"]

STALE_S: Final = 1.0
HOLDER_TTL_S: Final = 10.0
BEAT_S: Final = 3.0
KEEP_S: Final = 86_400.0
START_S: Final = 1.0
RETRY_MIN_S: Final = 0.1
RETRY_MAX_S: Final = 2.0
PING_S: Final = 5.0
NUDGED_S: Final = 0.2
_CALL_MAX: Final = 64
_OUTBOX_MAX: Final = 1000
_HOLDERS: Final = ""  # the topic by which those who come and go make the others count anew

log = logging.getLogger("headgate.state")

_KEEP_MS: Final = round(KEEP_S * 1000)

Row = tuple[str, str, str]
News = tuple[Script | None, tuple[str | float, ...]]


class RedisShared(Asking):
    """A `LimitHome` and a `Board`. `start` before use, `close` at the end."""

    def __init__(
        self,
        url: str,
        *,
        deadline_s: float = DEADLINE_S,
        prefix: str = "headgate",
        holder: bool = True,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(deadline_s, clock)
        self._place = place_of(url, max(STALE_S, 2 * deadline_s))
        self._faults = _faults()
        self._rng = rng or random.Random()
        self._id = uuid.uuid4().hex
        self._is_holder = holder
        self._wire = Wire(prefix)
        # One hash tag, so that scripts may touch both.
        self._holders_key = f"{prefix}:{{board}}:holders"
        self._retained_key = f"{prefix}:{{board}}:retained"
        self._channel = f"{prefix}:board"
        self._outbox: deque[News] = deque()
        self._echoes: dict[str, int] = {}
        """By field: what we have retained or forgotten and not heard back yet."""
        self._bell = asyncio.Event()
        self._beat_due = False
        self._next_beat: asyncio.TimerHandle | None = None
        self._client: Redis | None = None
        self._cluster: Any = None  # redis-py's cluster client is typed as the sync one in places
        self._tasks: list[asyncio.Task[None]] = []
        self._tried = asyncio.Event()
        self._nudge = self._text(_HOLDERS, {}, None)

    # ---- life

    @property
    def place(self) -> str:
        return self._place.text

    async def start(self) -> None:
        """Connect. A Redis that is not there is no error: it is away, and looked for."""
        loop = asyncio.get_running_loop()
        self._client = self._place.connect()
        self._tasks = [
            loop.create_task(self._talk(), name="redis talk"),
            loop.create_task(self._listen(), name="redis listen"),
        ]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                await self._tried.wait()

    async def close(self) -> None:
        """Say goodbye, so that others count one less; what is leased is not given back here."""
        # More than once: redis-py sends within `wait_for`, which before Python 3.12 loses a
        # cancellation that comes together with its result.
        alive = {task for task in self._tasks if not task.done()}
        while alive:
            for task in alive:
                task.cancel()
            _, alive = await asyncio.wait(alive, timeout=self.deadline_s)
        if self._next_beat is not None:
            self._next_beat.cancel()
        client = self._client
        if client is not None:
            if not self._is_away and self._is_holder:
                with contextlib.suppress(*self._faults):
                    async with asyncio.timeout(self.deadline_s * 4):
                        await self._command("ZREM", self._holders_key, self._id)
                        await self._command("PUBLISH", self._channel, self._nudge)
            self._is_away = True
            self._why = "closed"
            self._lose_all()
            for one in (client, self._cluster, *self._place.sentinels_of(client)):
                if one is not None:
                    with contextlib.suppress(*self._faults):
                        await one.aclose()
            self._client = self._cluster = None

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

    # ---- talking

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        self._bell.set()

    def _went_away(self) -> None:
        self._bell.set()

    async def _talk(self) -> None:
        tries = 0
        while True:
            why = ""
            try:
                if self._is_away:
                    await self._find()
                    tries = 0
                await self._bell.wait()
                self._bell.clear()
                if not self._is_away:
                    await self._say_all()
            except self._faults as error:
                why = self._place.words(error)
            except Exception as error:
                log.exception("talking to %s failed", self.place)  # a fault of ours
                why = type(error).__name__
            if why:
                self._go_away(why)
                self._lose_all()
                self._tried.set()
                await asyncio.sleep(self._pause_s(tries))
                tries += 1

    def _pause_s(self, tries: int) -> float:
        pause_s = min(RETRY_MAX_S, RETRY_MIN_S * 2.0 ** min(tries, 10))
        return pause_s * self._rng.uniform(0.5, 1.0)

    async def _find(self) -> None:
        """See whether Redis answers, writes, and is quick enough; raise if not."""
        await self._command("PING")  # connects
        if self._cluster is None and self._client is not None:
            found = await self._client.info("cluster")
            if found.get("cluster_enabled") == 1:
                self._cluster = self._place.cluster()
        await self._say_batch()  # what came too late is given back
        began = self._clock()
        await self._beat()
        took_s = self._clock() - began
        if took_s > self.deadline_s:
            raise TimeoutError(f"a beat took {took_s * 1000:.0f} ms")
        if self._is_holder:
            self._outbox.append((None, (self._channel, self._nudge)))
        self._come_back()
        self._tried.set()
        self._bell.set()

    async def _say_all(self) -> None:
        await self._say_batch()
        while self._outbox:
            script, words = self._outbox[0]
            await self._say_news(script, words)
            self._outbox.popleft()
        if self._unsaid:
            self._say_unsaid()
        if self._beat_due:
            await self._beat()

    async def _say_batch(self) -> None:
        batch = self._cut()
        if batch is not None:
            await self._decide(batch)

    async def _beat(self) -> None:
        self._beat_due = False
        name = self._id if self._is_holder else ""
        words = (name, round(HOLDER_TTL_S * 1000), round(KEEP_S * 1000))
        found = await self._call(BEAT, [self._holders_key, self._retained_key], words)
        self._holders = max(1, int(found))
        self._beat_within(BEAT_S)

    def _beat_within(self, most_s: float) -> None:
        if self._next_beat is not None:
            self._next_beat.cancel()
        # Not all at once, though all may have started, or been nudged, at once.
        self._next_beat = asyncio.get_running_loop().call_later(
            most_s * self._rng.uniform(0.6, 1.0), self._on_beat
        )

    def _on_beat(self) -> None:
        self._next_beat = None
        self._beat_due = True
        self._bell.set()

    # ---- limits

    async def _decide(self, batch: Batch) -> None:
        grants: list[Grant] = []
        rows: list[Row] = []
        for said in batch.said:
            group = self._rows(said)
            if rows and len(rows) + len(group) > _CALL_MAX:
                grants += await self._limits(rows)
                rows = []
            rows += group
        if rows:
            grants += await self._limits(rows)
        self._answered(batch.number, grants)

    def _rows(self, said: Sequence[LimitAsk] | Sequence[Returned]) -> list[Row]:
        wire = self._wire
        rows: list[Row] = []
        for entry in said:
            if isinstance(entry, LimitAsk):
                rule, rules, ask, seat_ttl_s = entry
                rows.append(wire.ask(rule, rules, ask, seat_ttl_s))
            elif (row := wire.back(*entry)) is not None:
                rows.append(row)
        return rows

    async def _limits(self, rows: Sequence[Row]) -> list[Grant]:
        if self._cluster is not None:
            return await self._limits_by_tag(rows)
        words = [self._id]
        for _, rules, call in rows:
            words += (rules, call)
        return grants_of(await self._call(LIMITS, [row[0] for row in rows], words))

    async def _limits_by_tag(self, rows: Sequence[Row]) -> list[Grant]:
        """A call for each hash tag, all at once; the grants in the order of the asks."""
        by_tag: dict[str, list[int]] = {}
        for i, (key, _, _) in enumerate(rows):
            by_tag.setdefault(key[key.index("{") : key.index("}")], []).append(i)
        calls = []
        for places in by_tag.values():
            words = [self._id]
            for i in places:
                words += rows[i][1:]
            calls.append(self._call(LIMITS, [rows[i][0] for i in places], words))
        grants: dict[int, Grant] = {}
        replies = await asyncio.gather(*calls, return_exceptions=True)
        for places, reply in zip(by_tag.values(), replies, strict=True):
            if isinstance(reply, BaseException):
                raise reply
            asked = [i for i in places if not is_back(rows[i])]
            grants.update(zip(asked, grants_of(reply), strict=True))
        return [grants[i] for i in sorted(grants)]

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
                self._beat_within(NUDGED_S)
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

"""A service and a gateway in one space of tags, without a Redis between them.

    cache = Cache(links=[GatewayLink("http://127.0.0.1:9900", token)])

Theory of operation. What the service invalidates is posted to the gateway, which tells all
others who listen, and its workers once those have acted on it; then `tell` returns. What others
invalidate is heard by long poll: each answer says where it ends, and the next question begins
there, which tells the gateway that we have acted on it.

While the gateway is away, what is to be told waits, up to `NAMES_MAX` names, beyond which it is
everything; `tell` returns False then. Nothing is dropped from what the service holds: it lives by
its own times, and what was missed is told when the gateway is back. If that cannot tell all, or is
another one, `on_gap` is called. So it is at the first contact: what was loaded before that may have
been invalidated unheard.

What is told while something else is being told goes together in one message, so a service that
invalidates in masses makes no more than a message for each round trip. A name that the gateway
refuses is dropped, with a line in the log; others do not suffer for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import ssl
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote

from headgate.cache.gateway_http import Answer, Gateway, GatewayAway
from headgate.cache.invalidation import Invalidation

__all__ = ["GatewayLink", "LinkSnapshot"]

NAMES_MAX: Final = 10_000
PIECE_NAMES: Final = 500
PIECE_BYTES: Final = 24_000
"""Of JSON; a message has two pieces at most when they are full. The admin API takes 64 KB."""
MESSAGE_NAMES: Final = 1000
MESSAGE_BYTES: Final = 48_000
BACK_OFF_MIN_S: Final = 0.1
BACK_OFF_MAX_S: Final = 5.0
GRACE_S: Final = 5.0
FLUSH_S: Final = 1.0
_LISTS: Final = ("tags", "keys", "patterns", "urls")

Hear = Callable[[Invalidation], None]

log = logging.getLogger("headgate.cache")


@dataclass(frozen=True, slots=True)
class LinkSnapshot:
    place: str
    is_away: bool
    why: str
    queued: int
    """Names that wait to be told."""
    told: int
    heard: int
    gaps: int
    refused: int


class _Word:
    """One piece of what is to be told."""

    __slots__ = ("bytes", "done", "names", "said")

    def __init__(self, said: Invalidation, done: asyncio.Future[bool], size: int) -> None:
        self.said = said
        self.done = done
        self.names = sum(len(getattr(said, name)) for name in _LISTS) or 1
        self.bytes = size


class GatewayLink:
    def __init__(
        self,
        admin_url: str,
        token: str = "",
        *,
        name: str = "service",
        timeout_s: float = 3.0,
        wait_s: int = 15,
        tls: ssl.SSLContext | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """`name` stands in the gateway's audit log; `timeout_s` bounds `tell`. The token is that
        of the admin API; on its socket, `unix:/path/to/control.sock`, none is needed.
        """
        if not 1 <= wait_s <= 50:
            raise ValueError(f"wait_s is {wait_s}: from 1 to 50")
        self._gateway = Gateway.at(admin_url, token, tls)
        self._by = f"{name[:100]}#{uuid.uuid4().hex[:12]}"
        self._timeout_s = timeout_s
        self._wait_s = wait_s
        self._rng = rng or random.Random()
        self._words: deque[_Word] = deque()
        self._names = 0
        self._is_single = False
        self._listening: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._why = "not started"
        self._is_away = True
        self._is_closed = False
        self._told = self._heard = self._gaps = self._refused = 0

    def __repr__(self) -> str:
        return f"GatewayLink({self._gateway.text!r})"

    # -- the link of a cache -------------------------------------------------------------------

    async def start(self, hear: Hear, on_gap: Callable[[], None]) -> None:
        """Listen from now on. Does not wait for the gateway."""
        loop = self._at_home()
        self._is_closed = False
        if self._listening is None:
            self._listening = loop.create_task(self._listen(hear, on_gap), name="gateway news")

    async def tell(self, invalidation: Invalidation) -> bool:
        """Have the gateway forget it; False: it will be told when the gateway is back."""
        if self._is_closed or invalidation.is_empty:
            return False
        loop = self._at_home()
        done: asyncio.Future[bool] = loop.create_future()
        for piece, size in _pieces(replace(invalidation, by=self._by, stamp=0)):
            # All go in order, so the last is done when all are.
            done = loop.create_future()
            self._put(_Word(piece, done, size))
        if self._telling is None or self._telling.done():
            self._telling = loop.create_task(self._say_all(), name="gateway purges")
        await asyncio.wait({done}, timeout=self._timeout_s)
        return done.done() and done.result()

    def _at_home(self) -> asyncio.AbstractEventLoop:
        """The running loop. If it is another than before (that has ended, or this process is a
        fork), what waits is told from here.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._listening = self._telling = None
            for word in self._words:
                word.done = loop.create_future()
        return loop

    async def close(self) -> None:
        """Stop listening; what waits is told if the gateway takes it within a second."""
        self._is_closed = True
        self._at_home()
        telling, self._telling = self._telling, None
        if telling is not None and not telling.done() and not self._is_away:
            await asyncio.wait({telling}, timeout=FLUSH_S)
        tasks = [task for task in (telling, self._listening) if task is not None]
        self._listening = None
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        while self._words:
            self._finish(self._words.popleft(), is_told=False)

    def snapshot(self) -> LinkSnapshot:
        return LinkSnapshot(
            place=self._gateway.text,
            is_away=self._is_away,
            why=self._why,
            queued=self._names,
            told=self._told,
            heard=self._heard,
            gaps=self._gaps,
            refused=self._refused,
        )

    # -- telling -------------------------------------------------------------------------------

    def _put(self, word: _Word) -> None:
        self._words.append(word)
        self._names += word.names
        if self._names <= NAMES_MAX:
            return
        log.warning("%s: too much waits to be purged, so it will be everything", self._gateway.text)
        is_soft = all(each.said.soft for each in self._words)
        while self._words:
            gone = self._words.popleft()
            if gone is not word:
                self._finish(gone, is_told=False)
        word.said = Invalidation(everything="all", soft=is_soft, by=self._by)
        word.names, word.bytes = 1, 100
        self._words.append(word)
        self._names = 1

    async def _say_all(self) -> None:
        tries = 0
        while self._words:
            batch = self._batch()
            pause_s = await self._say(batch)
            if pause_s is None:
                tries = 0
                continue
            await asyncio.sleep(max(pause_s, self._pause_s(tries)))
            tries += 1

    def _batch(self) -> list[_Word]:
        """What goes in one message: the first words, as far as they go together."""
        first = self._words[0]
        batch, names, size = [first], first.names, first.bytes
        if self._is_single or first.said.everything:
            return batch
        for word in list(self._words)[1:]:
            names += word.names
            size += word.bytes
            if (
                word.said.everything
                or word.said.soft != first.said.soft
                or names > MESSAGE_NAMES
                or size > MESSAGE_BYTES
            ):
                break
            batch.append(word)
        return batch

    async def _say(self, batch: list[_Word]) -> float | None:
        """Tell these; None when they are done with, else how long to wait at least."""
        body = _merged([word.said for word in batch]).to_json()
        try:
            got = await self._gateway.ask("POST", "/api/cache/purge", body, self._timeout_s)
        except GatewayAway as error:
            self._went_away(str(error))
            return 0.0
        if got.status in {400, 413, 422}:
            self._refuse(batch, got)
            return None
        if got.status != 200:
            self._went_away(f"{self._gateway.text}: {got.why}")
            return got.retry_after_s
        self._came_back()
        # What was put meanwhile may have taken the place of these: then they are gone already.
        for word in batch:
            if self._words and self._words[0] is word:
                self._words.popleft()
                self._told += 1
                self._finish(word, is_told=True)
        self._is_single = self._is_single and bool(self._words)
        return None

    def _refuse(self, batch: list[_Word], got: Answer) -> None:
        """One of them is not as the gateway wants it: the others are told one by one."""
        if len(batch) > 1:
            self._is_single = True
            return
        self._refused += 1
        log.error("%s does not purge what it was told: %s", self._gateway.text, got.why)
        if self._words and self._words[0] is batch[0]:
            self._finish(self._words.popleft(), is_told=False)

    def _finish(self, word: _Word, *, is_told: bool) -> None:
        self._names -= word.names
        if not word.done.done():
            word.done.set_result(is_told)

    # -- listening -----------------------------------------------------------------------------

    async def _listen(self, hear: Hear, on_gap: Callable[[], None]) -> None:
        since: int | None = None
        tries = 0
        while True:
            try:
                since = await self._poll(since, hear, on_gap)
            except GatewayAway as error:
                self._went_away(str(error))
                await asyncio.sleep(self._pause_s(tries))
                tries += 1
            else:
                tries = 0

    async def _poll(self, since: int | None, hear: Hear, on_gap: Callable[[], None]) -> int:
        """One question; to where its answer goes."""
        path = f"/api/cache/news?wait={self._wait_s}&by={quote(self._by)}"
        if since is not None:
            path += f"&since={since}"
        got = await self._gateway.ask("GET", path, None, self._wait_s + GRACE_S)
        if got.status != 200:
            raise GatewayAway(f"{self._gateway.text}: {got.why}")
        try:
            stamp, is_gap = got.content["stamp"], got.content["gap"]
            news = [Invalidation.from_json(each) for each in got.content["news"]]
            if type(stamp) is not int or stamp < 0 or type(is_gap) is not bool:
                raise ValueError("its stamp is none")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise GatewayAway(f"{self._gateway.text} tells what is no news: {error!r}") from error
        self._came_back()
        if is_gap or since is None:
            self._gaps += 1
            _call(on_gap)
        for each in news:
            # What we have said ourselves has been done here before it was said.
            if each.by != self._by:
                self._heard += 1
                _call(hear, each)
        return stamp

    # -- away and back -------------------------------------------------------------------------

    def _pause_s(self, tries: int) -> float:
        pause_s: float = min(BACK_OFF_MAX_S, BACK_OFF_MIN_S * 2.0 ** min(tries, 10))
        return pause_s * self._rng.uniform(0.5, 1.0)

    def _went_away(self, why: str) -> None:
        if not self._is_away or why != self._why:
            log.warning("no news of invalidations by the gateway: %s", why)
        self._is_away = True
        self._why = why

    def _came_back(self) -> None:
        self._is_away = False
        self._why = ""


def _call(what: Callable[..., None], *arguments: Any) -> None:
    try:
        what(*arguments)
    except Exception:
        log.exception("news of an invalidation could not be taken up")


def _pieces(said: Invalidation) -> Iterator[tuple[Invalidation, int]]:
    """The same in parts that fit into a message, with their sizes."""
    if said.everything:
        yield replace(said, tags=(), keys=(), patterns=(), urls=()), 100
    lists: dict[str, list[str]] = {}
    names, size = 0, 0
    for kind in _LISTS:
        for name in getattr(said, kind):
            more = len(json.dumps(name)) + 1
            if names and (names >= PIECE_NAMES or size + more > PIECE_BYTES):
                yield _piece(said, lists), size
                lists, names, size = {}, 0, 0
            lists.setdefault(kind, []).append(name)
            names += 1
            size += more
    if names:
        yield _piece(said, lists), size


def _piece(said: Invalidation, lists: dict[str, list[str]]) -> Invalidation:
    named = {kind: tuple(lists.get(kind, ())) for kind in _LISTS}
    return replace(Invalidation(soft=said.soft, by=said.by), **named)  # type: ignore[arg-type]  # texts


def _merged(said: list[Invalidation]) -> Invalidation:
    if len(said) == 1:
        return said[0]
    named = {
        kind: tuple(dict.fromkeys(name for each in said for name in getattr(each, kind)))
        for kind in _LISTS
    }
    return replace(said[0], **named)  # type: ignore[arg-type]  # tuples of texts
